//! A cache of content checksums, so that a rebuild on one host reads only the files that changed.
//!
//! One file in a directory of the user's holds pairs of a key and a checksum. The key is the hash
//! of what tells on disk that a file is the same ([`FileIdentity`]), and of the header of its
//! object, which is all of the object but the content. So a record is right or is not found; none
//! ever has to be invalidated.
//!
//! What is in the cache is believed as `make` and git believe it: a file whose file system, inode,
//! size, change time and modification time are the same has the same content. A file that changed
//! less than [`SETTLED`] before it was read is not recorded, because it may change again within
//! one tick of the file system's clock (git's "racy" entries).
//!
//! The file is replaced as a whole, so that builds side by side read an old one or a new one. One
//! that is damaged, of another version, or of another user is ignored, and replaced if it may be.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use camino::{Utf8Path, Utf8PathBuf};
use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use rustix::io::Errno;
use sha2::{Digest, Sha256};

use crate::checksum::Checksum;
use crate::tree::FileIdentity;

/// The file in the directory.
const FILE: &str = "content-checksums";
/// The same before it is whole. What a killed build has left there the next one writes over.
const UNFINISHED: &str = "content-checksums.new";
/// What the file begins with; another form gets another number.
const MAGIC: &[u8; 32] = b"apt-ostree-helper checksums v1\n\n";
/// A key, a checksum, and the number of builds since it was of use last.
const RECORD: usize = 32 + 32 + 1;
/// Records that are kept at most: 65 MiB.
const MOST: usize = 1 << 20;
/// Builds after which a record that was of no use goes.
const OLD: u8 = 50;
/// How long ago a file must have changed before it was read. No file system that can hold a Debian
/// counts in larger steps than seconds.
const SETTLED: Duration = Duration::from_secs(3);
/// How long a build waits for another one to write the cache.
const SHORTLY: Duration = Duration::from_secs(1);

/// Names a content object whose content has not been read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CacheKey(Checksum);

impl CacheKey {
    /// The key of a file on disk whose object begins with `header`; none where the file changed so
    /// lately that its times do not tell whether it is the same.
    pub fn new(identity: &FileIdentity, header: &[u8], now: SystemTime) -> Option<Self> {
        let now = now.checked_sub(SETTLED)?.duration_since(UNIX_EPOCH).ok()?;
        let (seconds, _) = identity.changed;
        if u64::try_from(seconds).ok()? >= now.as_secs() {
            return None;
        }
        let mut hasher = Sha256::new();
        hasher.update(identity.to_bytes());
        hasher.update(header);
        Some(Self(Checksum::finish(hasher)))
    }
}

#[derive(Debug, Clone, Copy)]
struct Known {
    checksum: Checksum,
    unused: u8,
}

/// Content checksums of earlier builds.
#[derive(Debug)]
pub struct ContentCache {
    directory: Utf8PathBuf,
    known: HashMap<CacheKey, Known>,
}

impl ContentCache {
    /// Reads the cache in `directory`, which is made if it is not there.
    ///
    /// # Errors
    /// When there is no such directory and none can be made. What is wrong with the cache itself
    /// is no error: it is begun anew.
    pub fn open(directory: &Utf8Path) -> Result<Self> {
        if let Err(e) = fs::create_dir(directory) {
            ensure!(
                e.kind() == io::ErrorKind::AlreadyExists && directory.is_dir(),
                "the cache directory {directory} cannot be made: {e}"
            );
        }
        let path = directory.join(FILE);
        let known = read(&path).unwrap_or_else(|e| {
            tracing::warn!("the cache {path} is not used, and begun anew: {e:#}");
            HashMap::new()
        });
        Ok(Self {
            directory: directory.to_owned(),
            known,
        })
    }

    /// The checksum of a content object, where an earlier build has computed it.
    pub fn get(&self, key: CacheKey) -> Option<Checksum> {
        self.known.get(&key).map(|known| known.checksum)
    }

    /// Writes the cache with the objects of this build, unless that would change nothing. That it
    /// cannot be written is told, and is no failure: the next build reads more.
    pub fn store(self, objects: &[(CacheKey, Checksum)]) {
        if self.is_of(objects) {
            return;
        }
        if let Err(e) = replace(&self.directory, objects) {
            let path = self.directory.join(FILE);
            tracing::warn!("the cache {path} is not written, and the next build reads more: {e:#}");
        }
    }

    /// Whether it has these objects and no others, all of use to the last build too. One without
    /// any may be none.
    fn is_of(&self, objects: &[(CacheKey, Checksum)]) -> bool {
        let has = |(key, _): &(CacheKey, Checksum)| {
            let known = self.known.get(key);
            known.is_some_and(|known| known.unused == 0)
        };
        let is_as_large = self.known.len() == objects.len() && !objects.is_empty();
        is_as_large && objects.iter().all(has)
    }
}

/// Reads what is there once more, since builds side by side may have written it meanwhile.
fn replace(directory: &Utf8Path, objects: &[(CacheKey, Checksum)]) -> Result<()> {
    let _alone = lock(directory)?;
    let path = directory.join(FILE);
    let mut known = read(&path).unwrap_or_default();
    for known in known.values_mut() {
        known.unused = known.unused.saturating_add(1);
    }
    known.extend(objects.iter().map(|(key, checksum)| {
        let known = Known {
            checksum: *checksum,
            unused: 0,
        };
        (*key, known)
    }));
    let mut records: Vec<_> = known.into_iter().collect();
    records.retain(|(_, known)| known.unused < OLD);
    records.sort_unstable_by_key(|(key, known)| (known.unused, *key));
    records.truncate(MOST);
    let unfinished = directory.join(UNFINISHED);
    let written = write(&unfinished, &text(&records)).and_then(|()| fs::rename(&unfinished, &path));
    if written.is_err() {
        let _ = fs::remove_file(&unfinished);
    }
    written.with_context(|| format!("writing {unfinished}"))
}

/// What keeps others from writing the cache while it is held; nothing where there are no locks.
fn lock(directory: &Utf8Path) -> Result<File> {
    let handle = File::open(directory).with_context(|| format!("opening {directory}"))?;
    let start = Instant::now();
    while let Err(Errno::WOULDBLOCK | Errno::INTR) =
        flock(&handle, FlockOperation::NonBlockingLockExclusive)
    {
        ensure!(start.elapsed() < SHORTLY, "another build is writing it");
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(handle)
}

fn text(records: &[(CacheKey, Known)]) -> Vec<u8> {
    let mut text = MAGIC.to_vec();
    for (key, known) in records {
        text.extend(key.0.as_bytes());
        text.extend(known.checksum.as_bytes());
        text.push(known.unused);
    }
    let sum = Checksum::of(&text);
    text.extend(sum.as_bytes());
    text
}

fn write(path: &Utf8Path, bytes: &[u8]) -> io::Result<()> {
    let flags = i32::try_from(OFlags::NOFOLLOW.bits()).unwrap_or_default();
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    let mut file = options.mode(0o600).custom_flags(flags).open(path)?;
    file.write_all(bytes)
}

/// The records of a file; none where there is no file.
fn read(path: &Utf8Path) -> Result<HashMap<CacheKey, Known>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match rustix::fs::open(path.as_std_path(), flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::NOENT) => return Ok(HashMap::new()),
        Err(e) => return Err(e).context("it cannot be opened"),
    };
    let stat = rustix::fs::fstat(&file)?;
    ensure!(
        rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::RegularFile,
        "it is not a regular file"
    );
    ensure!(
        stat.st_uid == rustix::process::geteuid().as_raw() && stat.st_mode & 0o022 == 0,
        "others than you can write to it"
    );
    let most = MAGIC.len() + MOST * RECORD + 32;
    let mut bytes = Vec::new();
    file.take(most as u64 + 1).read_to_end(&mut bytes)?;
    ensure!(bytes.len() <= most, "it is larger than a cache gets");
    parse(&bytes).context("it is damaged, or of another version of this program")
}

fn parse(bytes: &[u8]) -> Option<HashMap<CacheKey, Known>> {
    let (summed, sum) = bytes.split_at_checked(bytes.len().checked_sub(32)?)?;
    let records = summed.strip_prefix(MAGIC)?;
    if records.len() % RECORD != 0 || Checksum::of(summed).as_bytes() != sum {
        return None;
    }
    let records = records.chunks_exact(RECORD).map(|record| {
        let key = CacheKey(Checksum::from_bytes(&record[..32])?);
        let known = Known {
            checksum: Checksum::from_bytes(&record[32..64])?,
            unused: record[64],
        };
        Some((key, known))
    });
    records.collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn identity(inode: u64) -> FileIdentity {
        FileIdentity {
            device: 1,
            filesystem: 2,
            inode,
            size: 4,
            changed: (5, 6),
            modified: (7, 8),
        }
    }

    fn key(identity: &FileIdentity) -> CacheKey {
        CacheKey::new(identity, b"header", SystemTime::now()).unwrap()
    }

    fn cache() -> (tempfile::TempDir, Utf8PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = Utf8PathBuf::try_from(dir.path().to_owned()).unwrap();
        (dir, path)
    }

    /// Whatever tells a file from another makes another key.
    #[test]
    fn another_file_has_another_key() {
        let one = identity(1);
        let mut others = vec![identity(2)];
        others.extend([
            FileIdentity { device: 9, ..one },
            FileIdentity {
                filesystem: 9,
                ..one
            },
            FileIdentity { size: 9, ..one },
            FileIdentity {
                changed: (5, 9),
                ..one
            },
            FileIdentity {
                modified: (7, 9),
                ..one
            },
        ]);
        for other in &others {
            assert_ne!(key(&one), key(other), "{other:?}");
        }
        let header = CacheKey::new(&one, b"another", SystemTime::now());
        assert_ne!(Some(key(&one)), header);
    }

    #[test]
    fn a_file_that_has_just_changed_has_no_key() {
        let now = SystemTime::now();
        let seconds = now.duration_since(UNIX_EPOCH).unwrap().as_secs() as i64;
        for (ago, is_known) in [(-100, false), (0, false), (2, false), (10, true)] {
            let changed = FileIdentity {
                changed: (seconds - ago, 0),
                ..identity(1)
            };
            let key = CacheKey::new(&changed, b"", now);
            assert_eq!(key.is_some(), is_known, "{ago} s ago");
        }
    }

    #[test]
    fn what_is_of_no_use_goes_after_a_while() {
        let (_dir, path) = cache();
        let (one, other) = (key(&identity(1)), key(&identity(2)));
        ContentCache::open(&path)
            .unwrap()
            .store(&[(one, Checksum::of(b"1"))]);
        for build in 1..=OLD {
            let cache = ContentCache::open(&path).unwrap();
            assert_eq!(cache.get(one), Some(Checksum::of(b"1")), "{build}");
            cache.store(&[(other, Checksum::of(b"2"))]);
        }
        let cache = ContentCache::open(&path).unwrap();
        assert_eq!(cache.get(one), None);
        assert_eq!(cache.get(other), Some(Checksum::of(b"2")));
    }

    #[test]
    fn builds_side_by_side_keep_what_both_have_found() {
        let (_dir, path) = cache();
        let (one, other) = (key(&identity(1)), key(&identity(2)));
        let first = ContentCache::open(&path).unwrap();
        let second = ContentCache::open(&path).unwrap();
        first.store(&[(one, Checksum::of(b"1"))]);
        second.store(&[(other, Checksum::of(b"2"))]);
        let cache = ContentCache::open(&path).unwrap();
        assert!(cache.get(one).is_some() && cache.get(other).is_some());
    }

    #[test]
    fn two_do_not_write_at_once() {
        let (_dir, path) = cache();
        let one = key(&identity(1));
        let records = [(one, Checksum::of(b"1"))];
        let other = lock(&path).unwrap();
        ContentCache::open(&path).unwrap().store(&records);
        assert_eq!(ContentCache::open(&path).unwrap().get(one), None);
        drop(other);
        ContentCache::open(&path).unwrap().store(&records);
        assert!(ContentCache::open(&path).unwrap().get(one).is_some());
    }

    #[test]
    fn what_a_killed_build_has_left_is_written_over() {
        let (_dir, path) = cache();
        fs::write(
            path.join(UNFINISHED),
            "half of a much longer text than a cache",
        )
        .unwrap();
        let one = key(&identity(1));
        let records = [(one, Checksum::of(b"1"))];
        ContentCache::open(&path).unwrap().store(&records);
        assert!(ContentCache::open(&path).unwrap().get(one).is_some());
        assert!(!path.join(UNFINISHED).exists());
        // It may lead elsewhere, where nothing is written.
        fs::write(path.join("elsewhere"), "x").unwrap();
        std::os::unix::fs::symlink("elsewhere", path.join(UNFINISHED)).unwrap();
        let other = [(key(&identity(2)), Checksum::of(b"2"))];
        ContentCache::open(&path).unwrap().store(&other);
        assert_eq!(fs::read(path.join("elsewhere")).unwrap(), b"x");
    }

    #[test]
    fn what_stays_the_same_is_not_written_again() {
        use std::os::unix::fs::MetadataExt;
        let (_dir, path) = cache();
        let (one, other) = (key(&identity(1)), key(&identity(2)));
        let records = [(one, Checksum::of(b"1")), (other, Checksum::of(b"2"))];
        let inode_after = |records: &[(CacheKey, Checksum)]| {
            ContentCache::open(&path).unwrap().store(records);
            fs::metadata(path.join(FILE)).unwrap().ino()
        };
        let first = inode_after(&records);
        assert_eq!(inode_after(&records), first);
        // One is of no use now: that is counted, and the next time it is of use, too.
        let counted = inode_after(&records[..1]);
        assert_ne!(counted, first);
        assert_ne!(inode_after(&records), counted);
    }

    /// Any byte that is another, and any end that is missing.
    #[test]
    fn damage_is_never_believed() {
        let (_dir, path) = cache();
        let (one, other) = (key(&identity(1)), key(&identity(2)));
        let records = [(one, Checksum::of(b"1")), (other, Checksum::of(b"2"))];
        ContentCache::open(&path).unwrap().store(&records);
        let file = path.join(FILE);
        let whole = fs::read(&file).unwrap();
        assert_eq!(parse(&whole).unwrap().len(), 2);
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            assert!(parse(&damaged).is_none(), "byte {at}");
            assert!(parse(&whole[..at]).is_none(), "cut at {at}");
        }
        fs::write(&file, &whole[1..]).unwrap();
        assert_eq!(ContentCache::open(&path).unwrap().get(one), None);
    }

    #[test]
    fn what_others_can_write_is_not_read() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let (_dir, path) = cache();
        let one = key(&identity(1));
        let store = || {
            ContentCache::open(&path)
                .unwrap()
                .store(&[(one, Checksum::of(b"1"))])
        };
        store();
        let file = path.join(FILE);
        fs::set_permissions(&file, PermissionsExt::from_mode(0o666)).unwrap();
        assert_eq!(ContentCache::open(&path).unwrap().get(one), None);
        // It is replaced by one of ours.
        store();
        assert!(ContentCache::open(&path).unwrap().get(one).is_some());
        fs::rename(&file, path.join("elsewhere")).unwrap();
        symlink("elsewhere", &file).unwrap();
        assert_eq!(ContentCache::open(&path).unwrap().get(one), None);
    }
}
