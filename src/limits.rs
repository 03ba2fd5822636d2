//! The limits of one file system, the same for every reader and every writer: what a build accepts,
//! an import accepts too. Names, paths and links are limited as in Linux, since nothing longer can
//! be unpacked; the other limits bound the memory for metadata, however small a hostile image is.
//! Directories may be nested as deep as a path is long: libostree 2022.7 commits, pulls, checks and
//! checks out 3,000 levels.

use anyhow::{Result, bail, ensure};

/// Bytes of a name in a directory (limits.h, `NAME_MAX`).
pub const NAME_BYTES: usize = 255;
/// Bytes of a path from the root, without a leading slash (limits.h, `PATH_MAX`, less the NUL).
pub const PATH_BYTES: usize = 4095;
/// Bytes of a symbolic link's target (`PATH_MAX` less the NUL, symlink(2)).
pub const TARGET_BYTES: usize = 4095;
/// Bytes of the name of an extended attribute (limits.h, `XATTR_NAME_MAX`).
pub const XATTR_NAME_BYTES: usize = 255;
/// Bytes of an attribute's value (limits.h, `XATTR_SIZE_MAX`).
pub const XATTR_VALUE_BYTES: usize = 65_536;
/// Files, links and directories of one file system: several times what any system has. A few
/// objects that share directories can stand for more than any machine holds.
pub const ENTRIES: u64 = 1 << 22;
/// Bytes of names, link targets and attributes of one file system that are in memory at a time; a
/// system of a million files has some 40 MB.
pub const METADATA_BYTES: u64 = 256 << 20;
/// Bytes of attributes of one file system with each set counted as often as an entry has it, as
/// layers have them: one large set that a million directories share takes little memory, and more
/// time and space than a machine has.
pub const ATTRIBUTE_BYTES: u64 = 1 << 30;
/// The largest JSON document that is read, in bytes: an index, a manifest or a config. Tools of
/// containers/image (skopeo, podman, buildah) read no larger manifest or config either
/// ("internal/iolimits").
pub const JSON_BYTES: u64 = 4 << 20;
/// Symbolic links on the way to a file before the kernel tells of a loop (path_resolution(7)).
pub const LINKS: usize = 40;

/// Characters of what an error shows of a long name.
const SHOWN: usize = 60;

/// Whether a directory can have an entry called `name`, as to its length.
///
/// # Errors
/// When it is longer than [`NAME_BYTES`].
pub fn check_name(name: &str) -> Result<()> {
    ensure!(
        name.len() <= NAME_BYTES,
        "the name '{}' has {} bytes, and a name has at most {NAME_BYTES}",
        beginning(name),
        name.len()
    );
    Ok(())
}

/// Whether a path from the root can have `bytes`; `path` is shown, or the beginning of it.
///
/// # Errors
/// When they are more than [`PATH_BYTES`].
pub fn check_path(bytes: usize, path: &str) -> Result<()> {
    ensure!(
        bytes <= PATH_BYTES,
        "the path '{}' has {bytes} bytes, and a path has at most {PATH_BYTES}",
        beginning(path)
    );
    Ok(())
}

/// Whether a link can have that target, as to its length.
///
/// # Errors
/// When it is longer than [`TARGET_BYTES`].
pub fn check_target(target: &[u8]) -> Result<()> {
    ensure!(
        target.len() <= TARGET_BYTES,
        "the link's target has {} bytes, and a target has at most {TARGET_BYTES}",
        target.len()
    );
    Ok(())
}

/// Whether a file can have that attribute.
///
/// # Errors
/// When its name or its value is longer than Linux takes.
pub fn check_xattr(name: &[u8], value: &[u8]) -> Result<()> {
    let shown = || beginning(&String::from_utf8_lossy(name));
    ensure!(
        name.len() <= XATTR_NAME_BYTES,
        "the name of the attribute '{}' has {} bytes, and such a name has at most {XATTR_NAME_BYTES}",
        shown(),
        name.len()
    );
    ensure!(
        value.len() <= XATTR_VALUE_BYTES,
        "the attribute '{}' has {} bytes, and an attribute has at most {XATTR_VALUE_BYTES}",
        shown(),
        value.len()
    );
    Ok(())
}

/// The beginning of a name, on one line.
fn beginning(text: &str) -> String {
    let shown: String = text.escape_debug().take(SHOWN).collect();
    match text.escape_debug().nth(SHOWN) {
        Some(_) => format!("{shown}..."),
        None => shown,
    }
}

/// Counts what the metadata of one file system takes.
#[derive(Debug, Default, Clone)]
pub struct Meter {
    entries: u64,
    bytes: u64,
    attributes: u64,
}

impl Meter {
    /// Counts one more entry, with that many bytes of names, targets and attributes.
    ///
    /// # Errors
    /// When that makes more than [`ENTRIES`] or [`METADATA_BYTES`].
    pub fn add(&mut self, bytes: usize) -> Result<()> {
        self.entries += 1;
        if self.entries > ENTRIES {
            bail!("there are more than {ENTRIES} files and directories, which no system has");
        }
        self.add_bytes(bytes)
    }

    /// Counts bytes of an entry that is counted.
    ///
    /// # Errors
    /// When there are more than [`METADATA_BYTES`] then.
    pub fn add_bytes(&mut self, bytes: usize) -> Result<()> {
        self.bytes = self.bytes.saturating_add(bytes as u64);
        ensure!(
            self.bytes <= METADATA_BYTES,
            "names, link targets and attributes take more than {METADATA_BYTES} bytes, which no system's do"
        );
        Ok(())
    }

    /// Counts the attributes of an entry, also where another entry has the same.
    ///
    /// # Errors
    /// When there are more than [`ATTRIBUTE_BYTES`] then.
    pub fn add_attributes(&mut self, bytes: usize) -> Result<()> {
        self.attributes = self.attributes.saturating_add(bytes as u64);
        ensure!(
            self.attributes <= ATTRIBUTE_BYTES,
            "the attributes of all files and directories take more than {ATTRIBUTE_BYTES} bytes, which no system's do"
        );
        Ok(())
    }

    /// Forgets an entry that was added with `bytes`.
    pub fn remove(&mut self, bytes: usize) {
        self.entries = self.entries.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes as u64);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_last_that_fits_and_the_first_that_does_not() {
        assert!(check_name(&"n".repeat(255)).is_ok());
        assert!(check_path(4095, "p").is_ok());
        assert!(check_target(&[b't'; 4095]).is_ok());
        assert!(check_xattr(&[b'n'; 255], &[0; 65_536]).is_ok());
        for (error, why) in [
            (check_name(&"\x1b".repeat(256)), "has 256 bytes"),
            (check_path(4096, &"p".repeat(4096)), "at most 4095"),
            (check_target(&[b't'; 4096]), "has 4096 bytes"),
            (check_xattr(&[b'n'; 256], b""), "at most 255"),
            (check_xattr(b"user.a", &[0; 65_537]), "'user.a' has 65537"),
        ] {
            let error = error.unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
            assert!(error.len() < 200 && !error.contains('\x1b'), "{error}");
        }
    }

    #[test]
    fn a_meter_tells_when_it_is_too_much() {
        let mut meter = Meter::default();
        for _ in 0..ENTRIES {
            meter.add(0).unwrap();
        }
        assert!(meter.add(0).unwrap_err().to_string().contains("4194304"));
        let mut meter = Meter::default();
        for _ in 0..10 {
            meter.add(METADATA_BYTES as usize).unwrap();
            meter.remove(METADATA_BYTES as usize);
        }
        meter.add(METADATA_BYTES as usize).unwrap();
        assert!(meter.add_bytes(1).is_err());
        meter.add_attributes(ATTRIBUTE_BYTES as usize).unwrap();
        assert!(meter.add_attributes(1).is_err());
    }
}
