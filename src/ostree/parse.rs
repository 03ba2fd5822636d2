//! Parses metadata objects (ostree-core.h). Until then, what a repository or an image holds is
//! untrusted bytes.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};

use super::commit::{CommitInfo, MetadataValue};
use super::gvariant::read::{self, Shape};
use crate::checksum::Checksum;
use crate::limits;
use crate::tree::{Kind, Xattrs};

/// Where commits keep the command of a container (ostree-ext, `COMMIT_META_CONTAINER_CMD`).
const CONTAINER_CMD: &str = "ostree.container-cmd";

/// What a commit object says.
#[derive(Debug, Clone)]
pub struct ParsedCommit {
    /// Subject, body, time, parent, and those values of the metadata that are text or truth values.
    pub info: CommitInfo,
    /// The keys of metadata whose values are of other types, with the type.
    pub other_metadata: BTreeMap<String, String>,
    /// The command that a container of it is to run (`ostree.container-cmd`).
    pub container_cmd: Option<Vec<String>>,
    /// The dirtree of the root directory.
    pub dirtree: Checksum,
    /// The dirmeta of the root directory.
    pub dirmeta: Checksum,
}

/// What a dirtree object lists.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ParsedDirtree {
    /// Files and links, with their content objects.
    pub files: Vec<(String, Checksum)>,
    /// Directories, each with its dirtree and its dirmeta.
    pub directories: Vec<(String, Checksum, Checksum)>,
}

/// What a dirmeta object says of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParsedDirmeta {
    /// Numeric owner.
    pub uid: u32,
    /// Numeric group.
    pub gid: u32,
    /// Permission bits (`07777`).
    pub permissions: u32,
    /// All extended attributes, in their order.
    pub xattrs: Xattrs,
}

/// Takes a commit object apart.
///
/// # Errors
/// When it is none.
pub fn commit(object: &[u8]) -> Result<ParsedCommit> {
    parse_commit(object).context("it is not a commit object")
}

/// Takes a dirtree object apart.
///
/// # Errors
/// When it is none, or has a name that no directory can have.
pub fn dirtree(object: &[u8]) -> Result<ParsedDirtree> {
    let parsed = parse_dirtree(object).context("it is not a dirtree object")?;
    let files = parsed.files.iter().map(|(name, _)| name);
    let directories = parsed.directories.iter().map(|(name, ..)| name);
    for name in files.clone().chain(directories.clone()) {
        let sane = !name.contains('/') && !matches!(name.as_str(), "" | "." | "..");
        ensure!(
            sane,
            "it lists '{}', which cannot be a file name",
            name.escape_default()
        );
        limits::check_name(name)?;
    }
    let is_file = |name: &String| parsed.files.binary_search_by(|(file, _)| file.cmp(name));
    ensure!(
        files.is_sorted_by(|a, b| a < b)
            && directories.clone().is_sorted_by(|a, b| a < b)
            && !directories.clone().any(|name| is_file(name).is_ok()),
        "its names are not in order, or one is there twice"
    );
    Ok(parsed)
}

/// Takes a dirmeta object apart.
///
/// # Errors
/// When it is none.
pub fn dirmeta(object: &[u8]) -> Result<ParsedDirmeta> {
    let parsed = parse_dirmeta(object).context("it is not a dirmeta object")?;
    check_xattrs(&parsed.xattrs)?;
    Ok(parsed)
}

/// Checks that the metadata kept beside a commit can be read; no checksum covers it.
///
/// # Errors
/// When it cannot.
pub fn detached(object: &[u8]) -> Result<()> {
    dictionary(object).context("it is not a dictionary")?;
    Ok(())
}

/// Takes extended attributes apart, `a(ayay)`.
///
/// # Errors
/// When they are none.
pub fn xattrs(bytes: &[u8]) -> Result<Xattrs> {
    let parsed = parse_xattrs(bytes).context("these are not extended attributes")?;
    check_xattrs(&parsed)?;
    Ok(parsed)
}

fn check_xattrs(xattrs: &Xattrs) -> Result<()> {
    let mut all = xattrs.iter();
    all.try_for_each(|(name, value)| limits::check_xattr(name, value))
}

fn parse_commit(object: &[u8]) -> Option<ParsedCommit> {
    let text = Shape::Variable(1);
    let shapes = [
        Shape::Variable(8),
        text,
        text,
        text,
        text,
        Shape::Fixed(8),
        text,
        text,
    ];
    let [metadata, parent, _, subject, body, time, dirtree, dirmeta] = read::tuple(object, shapes)?;
    let (mut known, mut other_metadata) = (BTreeMap::new(), BTreeMap::new());
    let mut container_cmd = None;
    for (key, value, kind) in dictionary(metadata)? {
        match (kind, value) {
            ("b", [0 | 1]) => {
                known.insert(key, MetadataValue::Bool(value == [1]));
            }
            ("s", text) => {
                known.insert(key, MetadataValue::String(read::string(text)?.to_owned()));
            }
            ("as", list) if key == CONTAINER_CMD => {
                let words = read::array(list, 1)?.into_iter();
                let words = words.map(|word| read::string(word).map(str::to_owned));
                container_cmd = Some(words.collect::<Option<_>>()?);
            }
            (kind, _) => {
                other_metadata.insert(key, kind.to_owned());
            }
        }
    }
    let parent = match parent {
        [] => None,
        checksum => Some(Checksum::from_bytes(checksum)?),
    };
    Some(ParsedCommit {
        info: CommitInfo {
            parent,
            subject: read::string(subject)?.to_owned(),
            body: read::string(body)?.to_owned(),
            timestamp: read::big_endian_u64(time)?,
            metadata: known,
        },
        other_metadata,
        container_cmd,
        dirtree: Checksum::from_bytes(dirtree)?,
        dirmeta: Checksum::from_bytes(dirmeta)?,
    })
}

/// The entries of an `a{sv}`: key, value, type of the value.
pub(super) fn dictionary(bytes: &[u8]) -> Option<Vec<(String, &[u8], &str)>> {
    let entries = read::array(bytes, 8)?.into_iter();
    let entry = |entry| {
        let [key, value] = read::tuple(entry, [Shape::Variable(1), Shape::Variable(8)])?;
        let (value, kind) = read::variant(value)?;
        Some((read::string(key)?.to_owned(), value, kind))
    };
    entries.map(entry).collect()
}

fn parse_dirtree(object: &[u8]) -> Option<ParsedDirtree> {
    let text = Shape::Variable(1);
    let [files, directories] = read::tuple(object, [text; 2])?;
    let file = |file| {
        let [name, content] = read::tuple(file, [text; 2])?;
        Some((
            read::string(name)?.to_owned(),
            Checksum::from_bytes(content)?,
        ))
    };
    let directory = |directory| {
        let [name, dirtree, dirmeta] = read::tuple(directory, [text; 3])?;
        let checksums = (
            Checksum::from_bytes(dirtree)?,
            Checksum::from_bytes(dirmeta)?,
        );
        Some((read::string(name)?.to_owned(), checksums.0, checksums.1))
    };
    Some(ParsedDirtree {
        files: read::array(files, 1)?
            .into_iter()
            .map(file)
            .collect::<Option<_>>()?,
        directories: read::array(directories, 1)?
            .into_iter()
            .map(directory)
            .collect::<Option<_>>()?,
    })
}

fn parse_dirmeta(object: &[u8]) -> Option<ParsedDirmeta> {
    let number = Shape::Fixed(4);
    let [uid, gid, mode, xattrs] =
        read::tuple(object, [number, number, number, Shape::Variable(1)])?;
    let mode = read::big_endian_u32(mode)?;
    if mode & !0o7777 != Kind::Directory.type_bits() {
        return None;
    }
    Some(ParsedDirmeta {
        uid: read::big_endian_u32(uid)?,
        gid: read::big_endian_u32(gid)?,
        permissions: mode & 0o7777,
        xattrs: parse_xattrs(xattrs)?,
    })
}

fn parse_xattrs(bytes: &[u8]) -> Option<Xattrs> {
    let pairs = read::array(bytes, 1)?.into_iter();
    let pair = |pair| {
        let [name, value] = read::tuple(pair, [Shape::Variable(1); 2])?;
        Some((name.strip_suffix(b"\0")?.to_vec(), value.to_vec()))
    };
    pairs.map(pair).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::objects;
    use super::*;

    #[test]
    fn names_that_no_directory_can_have_are_refused() {
        let sum = Checksum::default();
        for names in [
            &["a/b"][..],
            &[""],
            &["."],
            &[".."],
            &["b", "a"],
            &["a", "a"],
        ] {
            let files: Vec<_> = names.iter().map(|name| (*name, sum)).collect();
            assert!(
                dirtree(&objects::dirtree(&files, &[])).is_err(),
                "{names:?}"
            );
            let directories: Vec<_> = names.iter().map(|name| (*name, sum, sum)).collect();
            let object = objects::dirtree(&[], &directories);
            assert!(dirtree(&object).is_err(), "{names:?}");
        }
        let both = objects::dirtree(&[("a", sum), ("b", sum)], &[("b", sum, sum)]);
        assert!(dirtree(&both).is_err());
        let object = objects::dirtree(&[("a", sum), ("b", sum)], &[("ü", sum, sum)]);
        let parsed = dirtree(&object).unwrap();
        assert_eq!(parsed.files, [("a".into(), sum), ("b".into(), sum)]);
        assert_eq!(parsed.directories, [("ü".into(), sum, sum)]);
    }

    #[test]
    fn a_dirmeta_is_of_a_directory() {
        let parsed = dirmeta(&objects::default_dirmeta()).unwrap();
        assert_eq!((parsed.uid, parsed.gid, parsed.permissions), (0, 0, 0o755));
        let mut file = objects::default_dirmeta();
        file[9] = 0x80;
        file[10] = 0x80;
        assert!(dirmeta(&file).is_err());
        assert!(dirmeta(&file[..9]).is_err() && commit(&file).is_err());
    }
}
