//! Signatures of commits, as `ostree sign` makes and checks them: over the bytes of the commit
//! object, kept in its detached metadata under `ostree.sign.TYPE` as `aay` (ostree-sign.c).
//!
//! ed25519 is done here, because libostree of Debian 12 is built without it; other types are left
//! to libostree, where it has them.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use camino::{Utf8Path, Utf8PathBuf};
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};

use super::gvariant::{self, Tuple, read};
use super::{parse, repo};

const ED25519: &str = "ed25519";
const SPKI: &str = "spki";
/// More than any file of keys has, in bytes.
const MAX_KEY_FILE: u64 = 1 << 20;

/// Keys that commits are signed with: a type, and the file that has them.
#[derive(Debug, Clone)]
pub struct SecretKey {
    kind: Kind,
    file: Utf8PathBuf,
}

/// Keys of which one must have signed a commit.
#[derive(Debug, Clone)]
pub struct PublicKeys {
    kind: Kind,
    source: KeySource,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Ed25519,
    Spki,
}

#[derive(Debug, Clone)]
enum KeySource {
    File(Utf8PathBuf),
    Inline(String),
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Ed25519 => ED25519,
            Self::Spki => SPKI,
        }
    }

    /// The key of detached metadata that holds signatures of this type.
    fn metadata_key(self) -> String {
        format!("ostree.sign.{}", self.name())
    }

    fn split(text: &str) -> Result<(Self, &str)> {
        let Some((kind, rest)) = text.split_once('=') else {
            bail!("'{text}' names no type of key: write ed25519=FILE or spki=FILE");
        };
        ensure!(
            !rest.is_empty(),
            "'{text}' names no file: write {kind}=FILE"
        );
        match kind {
            ED25519 => Ok((Self::Ed25519, rest)),
            SPKI => Ok((Self::Spki, rest)),
            _ => bail!("unknown type of key '{kind}': use ed25519 or spki"),
        }
    }
}

impl SecretKey {
    /// Reads `TYPE=FILE` as `--sign-commit` has it. The file is not opened yet.
    ///
    /// # Errors
    /// When the type is unknown, or the file's name is missing.
    pub fn from_option(text: &str) -> Result<Self> {
        let (kind, file) = Kind::split(text)?;
        Ok(Self {
            kind,
            file: file.into(),
        })
    }

    /// Reads the file, so that one without keys is found before any work is done.
    ///
    /// # Errors
    /// When it cannot be read or has no key.
    pub fn check(&self) -> Result<()> {
        let nothing = b"";
        self.sign(nothing).map(drop)
    }

    /// Signs a commit object; one signature for each key in the file. Gives the key of detached
    /// metadata under which they are kept, too.
    ///
    /// # Errors
    /// When the file cannot be read or has no key; when libostree does not know the type.
    pub fn sign(&self, commit: &[u8]) -> Result<(String, Vec<Vec<u8>>)> {
        let context = || format!("signing with the {} key in {}", self.kind.name(), self.file);
        let signatures = read_key_file(&self.file).and_then(|text| match self.kind {
            Kind::Ed25519 => sign_ed25519(&text, commit),
            Kind::Spki => {
                keys_in_pem(&text).and_then(|keys| repo::sign_with_libostree(SPKI, &keys, commit))
            }
        });
        Ok((self.kind.metadata_key(), signatures.with_context(context)?))
    }
}

/// A signature for each key. The secrets themselves are in no message.
fn sign_ed25519(keys: &str, commit: &[u8]) -> Result<Vec<Vec<u8>>> {
    let mut signatures = Vec::new();
    for (number, line) in key_lines(keys) {
        let bytes = BASE64.decode(line).ok();
        let key = bytes.as_deref().and_then(signing_key).with_context(|| {
            format!(
                "line {number} is not a secret key: it takes 64 bytes in base64, as 'ostree sign' does"
            )
        })?;
        signatures.push(key.sign(commit).to_bytes().to_vec());
    }
    ensure!(!signatures.is_empty(), "there is no key in it");
    Ok(signatures)
}

/// A secret key as libsodium has it, seed and public key, or the seed alone.
fn signing_key(bytes: &[u8]) -> Option<SigningKey> {
    if let Ok(pair) = <&[u8; 64]>::try_from(bytes) {
        return SigningKey::from_keypair_bytes(pair).ok();
    }
    Some(SigningKey::from_bytes(bytes.try_into().ok()?))
}

impl PublicKeys {
    /// Reads `TYPE=FILE`, or as `ostree remote add` has it `TYPE=file:FILE` and `TYPE=inline:KEY`.
    ///
    /// # Errors
    /// When the type is unknown or what follows is missing.
    pub fn from_option(text: &str) -> Result<Self> {
        let (kind, rest) = Kind::split(text)?;
        let source = match (rest.strip_prefix("inline:"), rest.strip_prefix("file:")) {
            (Some(key), _) => KeySource::Inline(key.to_owned()),
            (None, Some(file)) => KeySource::File(file.into()),
            (None, None) => KeySource::File(rest.into()),
        };
        Ok(Self { kind, source })
    }

    /// Checks that one of the keys has signed `commit`, whose detached metadata is `detached`.
    ///
    /// # Errors
    /// When none has, or the keys cannot be read.
    pub fn verify(&self, commit: &[u8], detached: Option<&[u8]>) -> Result<()> {
        let kind = self.kind.name();
        let signatures = match detached {
            Some(detached) => signatures(detached, &self.kind.metadata_key())?,
            None => Vec::new(),
        };
        ensure!(
            !signatures.is_empty(),
            "the commit is not signed with a key of type {kind}"
        );
        let (keys, name) = match &self.source {
            KeySource::Inline(key) => (key.clone(), "the key given".to_owned()),
            KeySource::File(file) => (read_key_file(file)?, file.to_string()),
        };
        let valid = match self.kind {
            Kind::Ed25519 => verify_ed25519(&keys, commit, &signatures),
            Kind::Spki => keys_in_pem(&keys)
                .and_then(|keys| repo::verify_with_libostree(SPKI, &keys, commit, &signatures)),
        };
        ensure!(
            valid.with_context(|| format!("checking the signature with {name}"))?,
            "none of the commit's {} signatures of type {kind} is by {name}: it was signed by somebody else, or changed since",
            signatures.len(),
        );
        Ok(())
    }
}

fn verify_ed25519(keys: &str, commit: &[u8], signatures: &[Vec<u8>]) -> Result<bool> {
    let mut any = false;
    for (number, line) in key_lines(keys) {
        let key = BASE64.decode(line).ok();
        let key = key.and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
        let key = key.and_then(|bytes| VerifyingKey::from_bytes(&bytes).ok());
        let key =
            key.with_context(|| format!("line {number} is not a public key: 32 bytes in base64"))?;
        any |= signatures.iter().any(|signature| {
            Signature::from_slice(signature)
                .is_ok_and(|signature| key.verify_strict(commit, &signature).is_ok())
        });
    }
    Ok(any)
}

fn read_key_file(file: &Utf8Path) -> Result<String> {
    let found = std::fs::metadata(file).with_context(|| format!("reading {file}"))?;
    ensure!(
        found.len() <= MAX_KEY_FILE,
        "{file} has {} bytes; no file of keys is that large",
        found.len()
    );
    std::fs::read_to_string(file).with_context(|| format!("reading {file}"))
}

/// The keys in a text, as bytes (DER): blocks of PEM (RFC 7468), or lines of base64.
fn keys_in_pem(text: &str) -> Result<Vec<Vec<u8>>> {
    let mut encoded: Vec<(usize, String)> = Vec::new();
    let mut in_block = false;
    for (number, line) in key_lines(text) {
        if line.starts_with("-----") {
            in_block = line.starts_with("-----BEGIN ");
            if in_block {
                encoded.push((number, String::new()));
            }
        } else if let Some((_, block)) = encoded.last_mut().filter(|_| in_block) {
            block.push_str(line);
        } else {
            encoded.push((number, line.to_owned()));
        }
    }
    ensure!(!encoded.is_empty(), "there is no key in it");
    let decode = |(number, text): (usize, String)| {
        let bytes = BASE64.decode(text).ok();
        bytes.with_context(|| {
            format!("what begins on line {number} is not a key: write PEM or base64")
        })
    };
    encoded.into_iter().map(decode).collect()
}

/// The lines with a key, by number.
fn key_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = (1..).zip(text.lines().map(str::trim));
    lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
}

/// The signatures kept under `key` in detached metadata.
fn signatures(detached: &[u8], key: &str) -> Result<Vec<Vec<u8>>> {
    let all = parse::dictionary(detached).context("the commit's detached metadata is damaged")?;
    let of_key = all.into_iter().filter(|(name, ..)| name == key);
    let mut found = Vec::new();
    for (_, value, kind) in of_key {
        let values = read::array(value, 1).filter(|_| kind == "aay");
        let values = values.with_context(|| format!("{key} of the commit holds no signatures"))?;
        found.extend(values.into_iter().map(<[u8]>::to_vec));
    }
    Ok(found)
}

/// Detached metadata with what `old` has, and `new` signatures under `key`.
///
/// # Errors
/// When `old` is damaged.
pub fn detached_with(old: Option<&[u8]>, key: &str, new: Vec<Vec<u8>>) -> Result<Vec<u8>> {
    let old = old.unwrap_or_default();
    let mut all = signatures(old, key)?;
    all.extend(new);
    all.dedup();
    let entries = parse::dictionary(old).context("the commit's detached metadata is damaged")?;
    let entries = entries
        .into_iter()
        .map(|(name, value, kind)| (name, (value.to_vec(), kind.to_owned())));
    let mut entries: BTreeMap<String, (Vec<u8>, String)> = entries.collect();
    let value = gvariant::array(all);
    entries.insert(key.to_owned(), (value, "aay".to_owned()));
    let entries = entries.into_iter().map(|(name, (value, kind))| {
        let mut entry = Tuple::default();
        entry.string(&name).align(8);
        entry.bytes(&value).bytes(b"\0").bytes(kind.as_bytes());
        entry.finish()
    });
    Ok(gvariant::aligned_array(entries, 8))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Two keys in a file; gives the option for each side.
    fn keys() -> (tempfile::TempDir, SecretKey, PublicKeys) {
        let dir = tempfile::tempdir().unwrap();
        let [secret, public] =
            ["secret", "public"].map(|name| Utf8PathBuf::try_from(dir.path().join(name)).unwrap());
        let key = SigningKey::from_bytes(&[7; 32]);
        let pair = BASE64.encode(key.to_keypair_bytes());
        std::fs::write(&secret, format!("# comment\n{pair}\n")).unwrap();
        let other = SigningKey::from_bytes(&[8; 32]).verifying_key();
        let [own, other] = [key.verifying_key(), other].map(|k| BASE64.encode(k.to_bytes()));
        std::fs::write(&public, format!("{other}\n{own}\n")).unwrap();
        let secret = SecretKey::from_option(&format!("ed25519={secret}")).unwrap();
        let public = PublicKeys::from_option(&format!("ed25519=file:{public}")).unwrap();
        (dir, secret, public)
    }

    #[test]
    fn a_signature_holds_for_its_commit_only() {
        let (_dir, secret, public) = keys();
        let (key, signatures) = secret.sign(b"commit").unwrap();
        assert_eq!(key, "ostree.sign.ed25519");
        let detached = detached_with(None, &key, signatures).unwrap();
        public.verify(b"commit", Some(&detached)).unwrap();
        for (commit, detached) in [(&b"Commit"[..], Some(&detached[..])), (b"commit", None)] {
            assert!(public.verify(commit, detached).is_err());
        }
        let stranger = BASE64.encode(SigningKey::from_bytes(&[9; 32]).verifying_key());
        let stranger = PublicKeys::from_option(&format!("ed25519=inline:{stranger}")).unwrap();
        let error = stranger.verify(b"commit", Some(&detached)).unwrap_err();
        assert!(format!("{error:#}").contains("somebody else"), "{error:#}");
    }

    #[test]
    fn detached_metadata_is_kept_and_added_to() {
        let mut entry = Tuple::default();
        entry.string("zz.note").align(8).bytes(b"hello\0\0s");
        let old = gvariant::aligned_array([entry.finish()], 8);
        let once = detached_with(Some(&old), "ostree.sign.ed25519", vec![vec![1; 64]]).unwrap();
        let twice = detached_with(Some(&once), "ostree.sign.ed25519", vec![vec![2; 64]]).unwrap();
        let all = parse::dictionary(&twice).unwrap();
        let note = all.iter().find(|(name, ..)| name == "zz.note").unwrap();
        assert_eq!((note.1, note.2), (&b"hello\0"[..], "s"));
        let found = signatures(&twice, "ostree.sign.ed25519").unwrap();
        assert_eq!(found, [vec![1; 64], vec![2; 64]]);
        assert!(detached_with(Some(b"damaged"), "k", vec![]).is_err());
    }

    #[test]
    fn options_are_read_and_explained() {
        for (text, why) in [
            ("key", "names no type"),
            ("rsa=key", "unknown type of key 'rsa'"),
            ("ed25519=", "names no file"),
        ] {
            let error = SecretKey::from_option(text).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
            assert!(PublicKeys::from_option(text).is_err(), "{text}");
        }
    }

    #[test]
    fn files_without_good_keys_are_refused_without_showing_them() {
        let dir = tempfile::tempdir().unwrap();
        let path = Utf8PathBuf::try_from(dir.path().join("key")).unwrap();
        let secret = SecretKey::from_option(&format!("ed25519={path}")).unwrap();
        assert!(format!("{:#}", secret.sign(b"").unwrap_err()).contains("reading"));
        for (content, why) in [
            ("", "no key in it"),
            ("hunter2", "line 1 is not a secret key"),
            ("\nAAAA", "line 2 is not a secret key"),
        ] {
            std::fs::write(&path, content).unwrap();
            let error = format!("{:#}", secret.sign(b"").unwrap_err());
            assert!(error.contains(why) && !error.contains("hunter2"), "{error}");
        }
    }
}
