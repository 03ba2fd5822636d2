//! Python's byte code. It records when its source was written (PEP 552), which is 0 for all files
//! of a deployed commit: there it is stale, and Python compiles anew at each start. Byte code that
//! records a hash of its source is good wherever the source is the same, and is the same on each
//! day.

use std::hash::Hasher;

use anyhow::Result;
use rustix::fs::Timespec;
use siphasher::sip::SipHasher13;

use super::change::Plan;
use super::root::{Kind, Root};
use super::system::System;
use super::write::Owner;

/// Where Debian's modules are, and what administrators install.
const DIRECTORIES: [&str; 3] = ["usr/lib", "usr/share", "usr/local"];
/// Bytes of the header: magic number, flags, and time and size of the source, or a hash of it.
const HEADER: usize = 16;
/// The magic number of the first release (3.11) that hashes as is done here
/// (importlib/_bootstrap_external.py).
const FIRST_MAGIC: u16 = 3495;
/// The flags: a hash is recorded, and is compared with the source.
const CHECKED_HASH: u32 = 3;

const STALE: &str = "Python would not use it: it is of another source than the one that is there";

/// What is to be done with a file of byte code.
enum Verdict {
    /// Nothing.
    Fine,
    /// Its content is to be this.
    Rewrite(Vec<u8>),
    /// It is of no use.
    Stale,
}

/// Has all byte code record hashes.
pub fn plan<'a>(system: &System<'a>) -> Result<Plan<'a>> {
    let root = system.root;
    let mut plan = Plan::new(root);
    for path in files(root)? {
        let Some((stat, verdict)) = judge(root, &path)? else {
            continue;
        };
        // dpkg verifies what is a package's.
        if system.owner(&path).is_some() {
            continue;
        }
        match verdict {
            Verdict::Fine => {}
            Verdict::Stale => plan.remove(&path, STALE)?,
            Verdict::Rewrite(content) => {
                let time = modified(&stat);
                let why = "it records a time, which is another one in a deployment";
                plan.replace(&path, content, Owner::of(&stat), Some(time), why);
            }
        }
    }
    Ok(plan)
}

/// When a file was written last.
pub fn modified(stat: &rustix::fs::Stat) -> Timespec {
    Timespec {
        tv_sec: stat.st_mtime,
        tv_nsec: stat.st_mtime_nsec as _,
    }
}

/// All byte code of modules.
pub fn files(root: &Root) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for dir in DIRECTORIES {
        let below = root.below(dir)?.into_iter();
        let is_code = |(path, kind): &(String, Kind)| {
            *kind == Kind::File && path.ends_with(".pyc") && path.contains("/__pycache__/")
        };
        found.extend(below.filter(is_code).map(|(path, _)| path));
    }
    Ok(found)
}

/// What is to be done with the file at `path`, and what stat(2) says of its source; nothing where
/// it is not understood or has no source.
fn judge(root: &Root, path: &str) -> Result<Option<(rustix::fs::Stat, Verdict)>> {
    let Some(source) = source_of(path) else {
        return Ok(None);
    };
    let Some(code) = root.read(path)? else {
        return Ok(None);
    };
    let Some(source) = root.resolve(&source)? else {
        return Ok(None);
    };
    let (Some(stat), Some(text)) = (root.stat(&source)?, root.read(&source)?) else {
        return Ok(None);
    };
    Ok(verdict(&code, &text, stat.st_mtime).map(|verdict| (stat, verdict)))
}

fn verdict(code: &[u8], source: &[u8], modified: i64) -> Option<Verdict> {
    let word = |at: usize| {
        let bytes = code.get(at..at + 4)?;
        Some(u32::from_le_bytes(bytes.try_into().ok()?))
    };
    let (magic, flags) = (word(0)?, word(4)?);
    let (time, size) = (word(8)?, word(12)?);
    let is_known = magic >> 16 == u32::from(u16::from_le_bytes(*b"\r\n"))
        && magic & 0xffff >= u32::from(FIRST_MAGIC);
    if !is_known || flags != 0 {
        return is_known.then_some(Verdict::Fine);
    }
    // As Python compares them: the low 32 bits (importlib/_bootstrap_external.py,
    // _validate_timestamp_pyc).
    if time != modified as u32 || size != source.len() as u32 {
        return Some(Verdict::Stale);
    }
    let mut hasher = SipHasher13::new_with_keys(u64::from(magic), 0);
    hasher.write(source);
    let mut content = Vec::with_capacity(code.len());
    content.extend(magic.to_le_bytes());
    content.extend(CHECKED_HASH.to_le_bytes());
    content.extend(hasher.finish().to_le_bytes());
    content.extend(code.get(HEADER..)?);
    Some(Verdict::Rewrite(content))
}

/// `DIR/__pycache__/NAME.cpython-XY.pyc` is of `DIR/NAME.py` (PEP 3147).
fn source_of(path: &str) -> Option<String> {
    let (cache, file) = path.rsplit_once('/')?;
    let dir = cache.strip_suffix("/__pycache__")?;
    let stem = file.strip_suffix(".pyc")?;
    let (name, _) = stem.split_once(".cpython-")?;
    Some(format!("{dir}/{name}.py"))
}
