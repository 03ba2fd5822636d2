//! What `inspect` and `diff` remember of an image's files: not their content, but what tells it
//! apart; and dpkg's database whole.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Result, ensure};
use sha2::{Digest, Sha256};

use super::byte_code;
use crate::checksum::Checksum;
use crate::dpkg;
use crate::layers::{ContentSink, LayerFile, Merged, NodeKind, OBJECTS};
use crate::limits::Meter;
use crate::tree::{Kind, Metadata};

/// Files of dpkg's database that are read: where they are, and how their names may go on.
const DATABASES: [&str; 2] = ["var/lib/dpkg/", "usr/lib/sysimage/dpkg/"];
/// A file of the database is smaller: a `status` of 100,000 packages is.
const DATABASE_FILE: u64 = 64 << 20;
/// Bytes of files that may be of the database that are in memory at a time.
const DATABASE_BYTES: u64 = 256 << 20;
/// Bytes at the beginning of an object by which a file of dpkg's database is told.
const BEGINNING: usize = 4096;
/// Up to this size an object that begins with a stanza may be of a database without states
/// (`status.d`).
const SMALL: u64 = 64 * 1024;

/// A file or link of an image.
#[derive(Debug, Clone)]
pub struct ImageFile {
    /// The layer that it is seen from.
    pub layer: usize,
    /// Bytes of its content.
    pub size: u64,
    /// What tells it apart by all but its time.
    pub identity: Checksum,
    /// Of Python's byte code, what tells it apart by all but that and the time that it records of
    /// its source.
    pub timeless: Option<Checksum>,
    /// Seconds since the epoch.
    pub mtime: i64,
    /// Where a symbolic link points.
    pub target: Option<String>,
}

/// Content that was read, by what tells it apart.
#[derive(Debug, Clone)]
pub struct Content {
    identity: Checksum,
    timeless: Option<Checksum>,
    /// The bytes, where they may be of dpkg's database.
    database: Option<Arc<CountedBytes>>,
}

/// The file system of an image.
pub type Files = Merged<'static, Content>;

/// The files and links that are seen in an image, by path, without what an encapsulated one has for
/// itself.
///
/// # Errors
/// When their paths take more memory than the metadata of a file system may.
pub fn seen_files(merged: &Files) -> Result<BTreeMap<String, ImageFile>> {
    let (mut files, mut meter) = (BTreeMap::new(), Meter::default());
    merged.walk(None, |path, node, _| {
        let Some(content) = node.kept.as_ref() else {
            return Ok(());
        };
        if path.starts_with("sysroot/ostree/") {
            return Ok(());
        }
        meter.add(path.len() + node.target.len())?;
        let file = ImageFile {
            layer: (node.layer as usize).saturating_sub(1),
            size: node.size,
            identity: content.identity,
            timeless: content.timeless,
            mtime: node.mtime,
            target: (node.kind == NodeKind::Known(Kind::Symlink))
                .then(|| String::from_utf8(node.target.to_vec()).ok())
                .flatten(),
        };
        files.insert(path.to_owned(), file);
        Ok(())
    })?;
    Ok(files)
}

/// Reads content as layers are applied.
#[derive(Debug, Default)]
pub struct Reader {
    /// Bytes held.
    held: Arc<AtomicU64>,
}

/// Bytes in memory, counted until they are dropped.
#[derive(Debug)]
struct CountedBytes {
    bytes: Vec<u8>,
    counter: Arc<AtomicU64>,
}

impl Drop for CountedBytes {
    fn drop(&mut self) {
        let len = self.bytes.len() as u64;
        self.counter.fetch_sub(len, Ordering::Relaxed);
    }
}

impl ContentSink for Reader {
    type Handle = Content;

    fn file(&mut self, file: &LayerFile<'_>, content: &mut dyn Read) -> Result<Content> {
        let mut hasher = hash_of_metadata(file.metadata, b"");
        let mut beginning = [0; BEGINNING];
        let got = read_up_to(content, &mut beginning)?;
        let beginning = &beginning[..got];
        let header = &beginning[..got.min(byte_code::HEADER)];
        let mut timeless = byte_code::without_time(header).map(|header| {
            let rest = &beginning[got.min(byte_code::HEADER)..];
            hasher.clone().chain_update(header).chain_update(rest)
        });
        hasher.update(beginning);
        let mut database = None;
        if is_database(file.path) || is_database_object(file, beginning) {
            let held = self.hold(file, beginning, content)?;
            hasher.update(&held.bytes[got..]);
            database = Some(Arc::new(held));
        }
        match &mut timeless {
            Some(timeless) => io::copy(content, &mut TeeHasher(&mut hasher, timeless))?,
            None => io::copy(content, &mut hasher)?,
        };
        Ok(Content {
            identity: Checksum::finish(hasher),
            timeless: timeless.map(Checksum::finish),
            database,
        })
    }

    fn link(&mut self, metadata: &Metadata, target: &[u8]) -> Result<Content> {
        Ok(Content {
            identity: Checksum::finish(hash_of_metadata(metadata, target)),
            timeless: None,
            database: None,
        })
    }
}

impl Reader {
    /// The whole of a file of the database.
    fn hold(
        &self,
        file: &LayerFile<'_>,
        beginning: &[u8],
        rest: &mut dyn Read,
    ) -> Result<CountedBytes> {
        let size = file.metadata.size;
        ensure!(
            size <= DATABASE_FILE,
            "dpkg's database has a file of {size} bytes, and only up to {DATABASE_FILE} are read"
        );
        let held = self.held.fetch_add(size, Ordering::Relaxed) + size;
        // Taken back when this is dropped, also half-read.
        let mut bytes = beginning.to_vec();
        let read = rest.take(DATABASE_FILE).read_to_end(&mut bytes);
        let held_bytes = CountedBytes {
            counter: Arc::clone(&self.held),
            bytes,
        };
        read?;
        ensure!(
            held <= DATABASE_BYTES,
            "the files of dpkg's database take more than {DATABASE_BYTES} bytes, which no system's do"
        );
        Ok(held_bytes)
    }
}

/// All of a file but its content and its time.
fn hash_of_metadata(metadata: &Metadata, target: &[u8]) -> Sha256 {
    let mut hasher = Sha256::new();
    let kind: u8 = match metadata.kind {
        Kind::Directory => 0,
        Kind::Regular => 1,
        Kind::Symlink => 2,
    };
    hasher.update([kind]);
    for number in [metadata.permissions, metadata.uid, metadata.gid] {
        hasher.update(number.to_le_bytes());
    }
    // Each with its length: what is told apart must not depend on where one ends.
    let attributes = metadata.xattrs.iter();
    let attributes = attributes.flat_map(|(name, value)| [name.as_slice(), value.as_slice()]);
    for part in attributes.chain([target]) {
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hasher
}

/// Whether an object of an encapsulated commit, whose path is told only later, may be a file of
/// dpkg's database. What is kept in memory must not grow with what is none: the lists of apt have
/// stanzas too (but without states, which `status` has), and source code begins with `/*` or `//`.
fn is_database_object(file: &LayerFile<'_>, beginning: &[u8]) -> bool {
    let size = file.metadata.size;
    let is_object = file.path.starts_with(OBJECTS) && file.path.ends_with(".file");
    if !is_object || size > DATABASE_FILE {
        return false;
    }
    let has_state = || beginning.windows(9).any(|line| line == b"\nStatus: ");
    let is_stanza = beginning.starts_with(b"Package: ") && (size <= SMALL || has_state());
    // deb-md5sums(5): each line a sum, two spaces, a path.
    let is_sums = beginning
        .get(..34)
        .is_some_and(|line| line[..32].iter().all(u8::is_ascii_hexdigit) && line[32..] == *b"  ");
    let is_diversions = size <= SMALL
        && beginning.starts_with(b"/")
        && beginning.get(1).is_some_and(u8::is_ascii_alphanumeric);
    is_stanza || is_sums || is_diversions || beginning.starts_with(b"/.\n")
}

fn is_database(path: &str) -> bool {
    let rest = DATABASES
        .iter()
        .find_map(|directory| path.strip_prefix(directory));
    rest.is_some_and(|rest| {
        let is_list = rest.ends_with(".list") || rest.ends_with(".md5sums");
        ["status", "arch", "diversions"].contains(&rest)
            || rest.starts_with("status.d/")
            || rest.starts_with("info/") && is_list
    })
}

fn read_up_to(from: &mut dyn Read, buffer: &mut [u8]) -> Result<usize> {
    let mut got = 0;
    while got < buffer.len() {
        match from.read(&mut buffer[got..])? {
            0 => break,
            more => got += more,
        }
    }
    Ok(got)
}

/// Writes to both hashers.
struct TeeHasher<'a>(&'a mut Sha256, &'a mut Sha256);

impl Write for TeeHasher<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        self.1.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// dpkg's files as they are seen in the image.
pub struct DatabaseFiles<'a>(pub &'a Files);

impl dpkg::Files for DatabaseFiles<'_> {
    fn read(&self, path: &str) -> Result<Option<Vec<u8>>> {
        let content = self.0.find(path).and_then(|node| node.kept.as_ref());
        let held = content.and_then(|content| content.database.as_ref());
        Ok(held.map(|held| held.bytes.clone()))
    }

    fn open(&self, path: &str) -> Result<Option<Box<dyn Read + '_>>> {
        let content = self.0.find(path).and_then(|node| node.kept.as_ref());
        let held = content.and_then(|content| content.database.as_ref());
        Ok(held.map(|held| Box::new(held.bytes.as_slice()) as Box<dyn Read>))
    }

    fn list(&self, path: &str) -> Result<Option<Vec<String>>> {
        Ok(self.0.names(path))
    }
}
