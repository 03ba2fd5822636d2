//! A repository opened by libostree.

use anyhow::{Context, Result, anyhow, bail, ensure};
use camino::{Utf8Path, Utf8PathBuf};
use ostree::glib::{self, Variant, VariantTy};
use ostree::prelude::*;
use ostree::{ObjectType, Repo, RepoMode, gio};

use crate::checksum::Checksum;
use crate::ostree::parse;
use crate::ostree::stored::{FileHeader, FileStore, MetadataKind, ObjectStore};
use crate::tree::Kind;

pub(super) const NO_CANCELLABLE: Option<&gio::Cancellable> = None;

/// An OSTree repository (ostree(1), "ostree-repo.c").
pub struct Repository {
    path: Utf8PathBuf,
    repo: Repo,
}

impl Repository {
    /// Opens the repository at `path`.
    ///
    /// # Errors
    /// When there is none.
    pub fn open(path: &Utf8Path) -> Result<Self> {
        let is_there = |below: &Utf8Path| match std::fs::metadata(below) {
            Ok(found) => Ok(Some(found.is_dir())),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e).with_context(|| format!("looking at {below}")),
        };
        ensure!(
            is_there(path)? == Some(true),
            "no repository at {path}: there is no such directory; make one with 'ostree init --repo={path} --mode=bare-user'"
        );
        ensure!(
            is_there(&path.join("objects"))? == Some(true)
                && is_there(&path.join("config"))? == Some(false),
            "{path} is not an OSTree repository (it has no config or no objects); make one with 'ostree init --repo={path} --mode=bare-user'"
        );
        Ok(Self {
            repo: open(path)?,
            path: path.to_owned(),
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Utf8Path {
        &self.path
    }

    /// The commit that a branch, or the beginning of a checksum, stands for.
    ///
    /// # Errors
    /// When there is none.
    pub fn resolve(&self, name: &str) -> Result<Checksum> {
        let resolved = self.repo.resolve_rev(name, true);
        let resolved =
            resolved.with_context(|| format!("looking for '{name}' in {}", self.path))?;
        let Some(checksum) = resolved else {
            let refs = self
                .repo
                .list_refs(None, NO_CANCELLABLE)
                .unwrap_or_default();
            let mut names: Vec<String> = refs.into_keys().collect();
            names.sort_unstable();
            bail!(
                "there is no '{name}' in {}: {}",
                self.path,
                match names.as_slice() {
                    [] => "it has no branches; name a commit by its checksum".to_owned(),
                    names => format!("it has {}", names.join(", ")),
                }
            );
        };
        Checksum::from_hex(&checksum)
    }

    /// The commit that a branch points at; none when there is no such branch.
    ///
    /// # Errors
    /// When that cannot be told.
    pub fn branch(&self, name: &str) -> Result<Option<Checksum>> {
        let resolved = self
            .repo
            .resolve_rev(name, true)
            .with_context(|| format!("looking for branch '{name}' in {}", self.path))?;
        resolved
            .map(|checksum| Checksum::from_hex(&checksum))
            .transpose()
    }

    /// Makes a branch point at a commit, which is there.
    ///
    /// # Errors
    /// When it cannot be written; it is as it was then.
    pub fn set_branch(&self, name: &str, commit: Checksum) -> Result<()> {
        let commit = commit.to_string();
        self.repo
            .set_ref_immediate(None, name, Some(&commit), NO_CANCELLABLE)
            .with_context(|| format!("setting branch {name} in {}", self.path))
    }

    /// Refuses what cannot be the name of a branch.
    ///
    /// # Errors
    /// When it cannot.
    pub fn check_branch(&self, name: &str) -> Result<()> {
        let valid = ostree::validate_rev(name);
        valid.with_context(|| format!("'{name}' cannot be the name of a branch"))?;
        ensure!(
            !name.contains(':'),
            "'{name}' cannot be the name of a branch: the colon separates remotes from branches"
        );
        Ok(())
    }

    /// The metadata kept beside a commit.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn detached_metadata(&self, commit: Checksum) -> Result<Option<Vec<u8>>> {
        let found = self
            .repo
            .read_commit_detached_metadata(&commit.to_string(), NO_CANCELLABLE);
        let found = found.with_context(|| format!("reading {commit}.commitmeta"))?;
        Ok(found.map(|variant| bytes(&variant)))
    }

    /// Whether files lose their owners, special modes and attributes in it (mode `bare-user-only`).
    pub fn is_canonical_only(&self) -> bool {
        self.repo.mode() == RepoMode::BareUserOnly
    }

    /// Whether the repository, or a transaction under way in it, has a content object.
    ///
    /// # Errors
    /// When that cannot be told.
    pub fn has_file(&self, checksum: Checksum) -> Result<bool> {
        self.repo
            .has_object(ObjectType::File, &checksum.to_string(), NO_CANCELLABLE)
            .with_context(|| format!("looking for object {checksum}.file in {}", self.path))
    }

    pub(super) fn inner(&self) -> &Repo {
        &self.repo
    }
}

pub(super) fn open(path: &Utf8Path) -> Result<Repo> {
    let repo = Repo::new_for_path(path);
    repo.open(NO_CANCELLABLE)
        .with_context(|| format!("opening the repository {path}"))?;
    Ok(repo)
}

impl ObjectStore for Repository {
    fn metadata(&self, kind: MetadataKind, checksum: Checksum) -> Result<Option<Vec<u8>>> {
        let found = self
            .repo
            .load_variant_if_exists(object_type(kind), &checksum.to_string())?;
        Ok(found.map(|variant| bytes(&variant)))
    }
}

impl FileStore for Repository {
    fn file(&self, checksum: Checksum) -> Result<Option<FileHeader>> {
        if !self.has_file(checksum)? {
            return Ok(None);
        }
        let (info, xattrs) = self
            .repo
            .query_file(&checksum.to_string(), NO_CANCELLABLE)?;
        header(&info, &xattrs).map(Some)
    }
}

pub(super) fn object_type(kind: MetadataKind) -> ObjectType {
    match kind {
        MetadataKind::Commit => ObjectType::Commit,
        MetadataKind::Dirtree => ObjectType::DirTree,
        MetadataKind::Dirmeta => ObjectType::DirMeta,
    }
}

/// What libostree says of a file, as we have it.
pub(super) fn header(info: &gio::FileInfo, xattrs: &Variant) -> Result<FileHeader> {
    let kind = match info.file_type() {
        gio::FileType::Regular => Kind::Regular,
        gio::FileType::SymbolicLink => Kind::Symlink,
        other => bail!("it is neither a regular file nor a link but {other:?}"),
    };
    let target = match kind {
        Kind::Symlink => {
            let target = info.symlink_target().context("the link has no target")?;
            let target = target.into_os_string().into_string();
            target.map_err(|_| anyhow!("the link's target is not UTF-8"))?
        }
        _ => String::new(),
    };
    Ok(FileHeader {
        kind,
        permissions: info.attribute_uint32("unix::mode") & 0o7777,
        uid: info.attribute_uint32("unix::uid"),
        gid: info.attribute_uint32("unix::gid"),
        size: match kind {
            Kind::Regular => u64::try_from(info.size()).context("it has a negative size")?,
            _ => 0,
        },
        target,
        xattrs: parse::xattrs(&bytes(xattrs))?,
    })
}

pub(super) fn bytes(variant: &Variant) -> Vec<u8> {
    variant.data_as_bytes().to_vec()
}

/// A variant of bytes that are in normal form already.
pub(super) fn variant(bytes: &[u8], of_type: &str) -> Result<Variant> {
    let of_type = VariantTy::new(of_type)?;
    Ok(Variant::from_bytes_with_type(
        &glib::Bytes::from(bytes),
        of_type,
    ))
}

/// Signs `data` with every one of `keys`, as libostree takes them for signatures of type `kind`.
///
/// # Errors
/// When libostree has no such signatures, or a key is none.
pub fn sign_with_libostree(kind: &str, keys: &[Vec<u8>], data: &[u8]) -> Result<Vec<Vec<u8>>> {
    let sign = signatures_of_type(kind)?;
    let signature = |key: &Vec<u8>| {
        sign.set_sk(&variant(key, "ay")?)?;
        let signature = SignExt::data(&sign, &glib::Bytes::from(data), NO_CANCELLABLE)?;
        Ok(signature.to_vec())
    };
    keys.iter().map(signature).collect()
}

/// Whether one of `keys` has made one of `signatures`.
///
/// # Errors
/// As [`sign_with_libostree`].
pub fn verify_with_libostree(
    kind: &str,
    keys: &[Vec<u8>],
    data: &[u8],
    signatures: &[Vec<u8>],
) -> Result<bool> {
    let sign = signatures_of_type(kind)?;
    for key in keys {
        sign.add_pk(&variant(key, "ay")?)?;
    }
    let array = crate::ostree::gvariant::array(signatures.to_vec());
    let signatures = variant(&array, "aay")?;
    // libostree reports a signature by another key as an error too.
    Ok(sign
        .data_verify(&glib::Bytes::from(data), &signatures)
        .is_ok())
}

fn signatures_of_type(kind: &str) -> Result<ostree::Sign> {
    ostree::Sign::by_name(kind).map_err(|e| {
        anyhow!("this libostree has no signatures of type '{kind}' ({e}); use ed25519, or a newer libostree")
    })
}
