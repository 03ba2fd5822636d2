//! Blobs of another layout, taken over as they are: opened once, and believed only after their
//! bytes were hashed, or where nobody has written to them since that layout was published.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::time::SystemTime;

use anyhow::{Context, Result, ensure};
use camino::Utf8Path;
use rustix::fs::{AtFlags, CWD, linkat};
use rustix::io::Errno;
use sha2::{Digest, Sha256};

use super::RegularFile;
use super::layout::INDEX;
use super::stage::{BLOBS, Stage, rename};
use crate::checksum::Checksum;

const BUFFER: usize = 256 * 1024;

/// What a blob is that is older than the index of its layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OlderBlob {
    /// Hashed, as any other.
    Hashed,
    /// Believed, where it is linked and has the size that it should have.
    Believed,
}

impl Stage {
    /// Takes in a blob of another layout, as it is, by a hard link where that is safe. Tells
    /// whether it was there: one that is missing, or is not what its name says, is none (the latter
    /// with a warning).
    ///
    /// # Errors
    /// When it cannot be written to the stage.
    pub fn take(
        &self,
        layout: &Utf8Path,
        digest: Checksum,
        size: u64,
        older: OlderBlob,
    ) -> Result<bool> {
        let from = layout.join(BLOBS).join(digest.to_string());
        let blob = match RegularFile::open(&from) {
            Ok(blob) => blob,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(e) => {
                tracing::warn!("the blob {from} is made anew: it cannot be opened: {e}");
                return Ok(false);
            }
        };
        let to = self.blob_path(digest);
        match fs::symlink_metadata(&to) {
            Ok(_) => return Ok(true),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e).with_context(|| format!("looking at {to}")),
        }
        let taken = match self.may_link(&blob)? {
            true => {
                let is_believed = older == OlderBlob::Believed
                    && blob.len() == size
                    && is_older(&blob, &layout.join(INDEX)).unwrap_or(false);
                self.link(blob, digest, size, is_believed, &to)
            }
            false => self.add_stream(blob.into_file(), digest, size),
        };
        match taken {
            Ok(()) => Ok(true),
            Err(e) if e.is::<WrongContent>() => {
                tracing::warn!("the blob {from} is made anew: it is damaged, {e:#}");
                Ok(false)
            }
            Err(e) => Err(e).with_context(|| format!("copying the blob {from}")),
        }
    }

    /// Adds a blob from a stream, which must have that digest and size.
    ///
    /// # Errors
    /// When it has not, or cannot be read or written; nothing is added then.
    pub fn add_stream(&self, content: impl Read, digest: Checksum, size: u64) -> Result<()> {
        let made = self.path().join(format!("taken-{digest}"));
        let outcome = copy(content, &made, digest, size);
        if outcome.is_ok() {
            return rename(&made, &self.blob_path(digest));
        }
        // The stage goes as a whole where this fails.
        let _ = fs::remove_file(&made);
        outcome
    }

    /// A link shares its bytes with the layout that it is from: nobody else may change them.
    fn may_link(&self, blob: &RegularFile) -> Result<bool> {
        let found = blob.file().metadata().context("looking at a blob")?;
        let stage =
            fs::metadata(self.path()).with_context(|| format!("looking at {}", self.path()))?;
        let owner = found.uid();
        let is_ours = owner == 0 || owner == rustix::process::geteuid().as_raw();
        Ok(is_ours && found.mode() & 0o022 == 0 && found.dev() == stage.dev())
    }

    /// Links the file that is open, whatever has its name now; where that cannot be, copies it.
    fn link(
        &self,
        blob: RegularFile,
        digest: Checksum,
        size: u64,
        is_believed: bool,
        to: &Utf8Path,
    ) -> Result<()> {
        let mut blob = blob.into_file();
        if !is_believed {
            check(&blob, &mut io::sink(), digest, size)?;
        }
        let opened = format!("/proc/self/fd/{}", blob.as_raw_fd());
        match linkat(CWD, opened, CWD, to.as_std_path(), AtFlags::SYMLINK_FOLLOW) {
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(e) => {
                tracing::debug!("{to} is a copy, not a link: {e}");
                blob.rewind().context("reading it")?;
                self.add_stream(blob, digest, size)
            }
        }
    }
}

/// Whether nobody has written to a blob since the index of its layout was written, as their times
/// tell it: blobs are there before the index is. Whoever sets times to hide a change makes an image
/// that all readers refuse, as they hash what they fetch.
fn is_older(blob: &RegularFile, index: &Utf8Path) -> io::Result<bool> {
    let written = blob.file().metadata()?.modified()?;
    let published = fs::symlink_metadata(index)?.modified()?;
    // A clock that was ahead says nothing of what was written since.
    Ok(written < published && published <= SystemTime::now())
}

/// What is read is not what its name says.
#[derive(Debug)]
struct WrongContent(String);

impl std::fmt::Display for WrongContent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for WrongContent {}

fn copy(content: impl Read, to: &Utf8Path, digest: Checksum, size: u64) -> Result<()> {
    let context = || format!("writing {to}");
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(to)
        .with_context(context)?;
    check(
        content,
        &mut Into {
            file: &mut file,
            path: to,
        },
        digest,
        size,
    )?;
    file.sync_data().with_context(context)
}

/// A file whose errors name it.
struct Into<'a> {
    file: &'a mut File,
    path: &'a Utf8Path,
}

impl Write for Into<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let named = |e: io::Error| match e.kind() {
            io::ErrorKind::Interrupted => e,
            kind => io::Error::new(kind, format!("writing {}: {e}", self.path)),
        };
        self.file.write(bytes).map_err(named)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn check(content: impl Read, out: &mut impl Write, digest: Checksum, size: u64) -> Result<()> {
    // One byte more than there should be tells that there are more.
    let mut content = content.take(size.saturating_add(1));
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; BUFFER];
    let mut count = 0;
    loop {
        let got = match content.read(&mut buffer) {
            Ok(0) => break,
            Ok(got) => got,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e).context("reading it"),
        };
        count += got as u64;
        hasher.update(&buffer[..got]);
        out.write_all(&buffer[..got])?;
    }
    let found = Checksum::finish(hasher);
    ensure!(
        count == size && found == digest,
        WrongContent(match count.cmp(&size) {
            std::cmp::Ordering::Equal => format!("its bytes have the digest {}", found.to_digest()),
            std::cmp::Ordering::Less => format!("it has {count} bytes, not {size}"),
            std::cmp::Ordering::Greater => format!("it has more than {size} bytes"),
        })
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::PermissionsExt;
    use std::time::Duration;

    use super::*;

    /// What is damaged without a trace tells whether it was read.
    #[test]
    fn only_a_blob_that_is_older_than_the_index_is_taken_unread() {
        let dir = tempfile::tempdir().unwrap();
        let dir = Utf8Path::from_path(dir.path()).unwrap();
        let layout = dir.join("layout");
        fs::create_dir_all(layout.join(BLOBS)).unwrap();
        let digest = Checksum::of(b"content");
        let blob = layout.join(BLOBS).join(digest.to_string());
        let now = SystemTime::now();
        let write = |path: &Utf8Path, text: &str, seconds_ago: u64| {
            let mut file = File::create(path).unwrap();
            file.write_all(text.as_bytes()).unwrap();
            file.set_modified(now - Duration::from_secs(seconds_ago))
                .unwrap();
            fs::set_permissions(path, PermissionsExt::from_mode(0o644)).unwrap();
            file
        };
        let take = |older| {
            let stage = Stage::new_in(dir).unwrap();
            stage.take(&layout, digest, 7, older).unwrap()
        };
        let takes = || take(OlderBlob::Believed);
        let index = write(&layout.join(INDEX), "", 30);
        for (text, seconds_ago, is_taken) in [
            ("content", 0, true),
            ("damaged", 60, true),
            ("damaged", 30, false),
            ("damaged", 0, false),
            ("damage", 60, false),
            ("damaged more", 60, false),
        ] {
            write(&blob, text, seconds_ago);
            assert_eq!(takes(), is_taken, "{text}, {seconds_ago} s ago");
        }
        write(&blob, "damaged", 60);
        assert!(!take(OlderBlob::Hashed));
        // A file that others may write to is copied, and so it is read.
        write(&blob, "damaged", 60);
        fs::set_permissions(&blob, PermissionsExt::from_mode(0o664)).unwrap();
        assert!(!takes());
        write(&blob, "damaged", 60);
        index.set_modified(now + Duration::from_secs(3600)).unwrap();
        assert!(!takes(), "the index is of a time to come");
        fs::remove_file(layout.join(INDEX)).unwrap();
        assert!(!takes(), "no index");
    }
}
