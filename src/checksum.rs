//! SHA-256 values as OSTree and OCI write them.

use std::fmt;

use anyhow::{Result, bail, ensure};
use sha2::{Digest, Sha256};

/// A SHA-256 value: 32 bytes, written as 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Checksum([u8; 32]);

impl Checksum {
    /// The checksum of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self::finish(Sha256::new_with_prefix(bytes))
    }

    /// The checksum of all that `hasher` has been given.
    pub fn finish(hasher: Sha256) -> Self {
        Self(hasher.finalize().into())
    }

    /// Reads 64 lower-case hexadecimal digits.
    ///
    /// # Errors
    /// When `text` is anything else.
    pub fn from_hex(text: &str) -> Result<Self> {
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => Some(byte - b'0'),
            b'a'..=b'f' => Some(byte - b'a' + 10),
            _ => None,
        };
        let mut value = [0; 32];
        let mut pairs = value.iter_mut().zip(text.as_bytes().chunks_exact(2));
        let good = pairs.all(|(byte, pair)| match (digit(pair[0]), digit(pair[1])) {
            (Some(high), Some(low)) => {
                *byte = high << 4 | low;
                true
            }
            _ => false,
        });
        ensure!(
            good && text.len() == 64,
            "'{}' is not a SHA-256 value, which has 64 lower-case hexadecimal digits",
            text.escape_debug()
        );
        Ok(Self(value))
    }

    /// Reads an OCI digest, `sha256:` and the hexadecimal digits (image-spec, descriptor.md).
    ///
    /// # Errors
    /// When it is of another algorithm, or no digest.
    pub fn from_digest(text: &str) -> Result<Self> {
        match text.split_once(':') {
            Some(("sha256", hex)) => Self::from_hex(hex),
            Some(_) => bail!(
                "the digest '{}' is not of SHA-256, the only algorithm that is read",
                text.escape_debug()
            ),
            None => bail!(
                "'{}' is not a digest such as sha256:...",
                text.escape_debug()
            ),
        }
    }

    /// The checksum that `bytes` are; none when there are not 32 of them.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// The 32 bytes themselves.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// As an OCI digest: `sha256:` and the hexadecimal digits (image-spec, descriptor.md).
    pub fn to_digest(self) -> String {
        format!("sha256:{self}")
    }
}

impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hexadecimal(&self.0, f)
    }
}

/// Writes bytes as lower-case hexadecimal digits.
///
/// # Errors
/// When `out` fails.
pub fn hexadecimal(bytes: &[u8], out: &mut impl fmt::Write) -> fmt::Result {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = [0; 64];
    for bytes in bytes.chunks(text.len() / 2) {
        for (pair, byte) in text.chunks_exact_mut(2).zip(bytes) {
            let (high, low) = (byte >> 4, byte & 15);
            pair.copy_from_slice(&[DIGITS[usize::from(high)], DIGITS[usize::from(low)]]);
        }
        let text = std::str::from_utf8(&text[..bytes.len() * 2]);
        out.write_str(text.unwrap_or_default())?;
    }
    Ok(())
}

impl fmt::Debug for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn writes_the_known_value_of_no_bytes() {
        assert_eq!(
            Checksum::of(b"").to_digest(),
            "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
    }

    #[test]
    fn reads_digests_strictly() {
        let checksum = Checksum::of(b"x");
        let hex = checksum.to_string();
        assert_eq!(Checksum::from_hex(&hex).unwrap(), checksum);
        let digest = checksum.to_digest();
        assert_eq!(Checksum::from_digest(&digest).unwrap(), checksum);
        for (bad, why) in [
            (hex.clone(), "not a digest"),
            (format!("sha512:{hex}{hex}"), "is not of SHA-256"),
            (format!("sha256:{}", hex.to_uppercase()), "64 lower-case"),
            (format!("sha256:{}", &hex[1..]), "64 lower-case"),
            (format!("sha256:{hex}0"), "64 lower-case"),
            (format!("sha256:+{}", &hex[1..]), "64 lower-case"),
            (format!("sha256: {}", &hex[1..]), "64 lower-case"),
            (format!("sha256:{}ü", &hex[2..]), "64 lower-case"),
            ("sha256:".into(), "64 lower-case"),
        ] {
            let error = Checksum::from_digest(&bad).unwrap_err().to_string();
            assert!(error.contains(why), "{bad}: {error}");
        }
    }
}
