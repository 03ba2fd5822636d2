//! The digest of a tree that has one of everything, by which the image is arranged. What is
//! expected was made by `composefs-digest` of tests/interop, of the same files on a disk.
#![allow(clippy::unwrap_used)]

use std::io::Read;

use super::*;
use crate::progress::Silent;
use crate::tree::{Kind, Metadata, TreeBuilder};

/// The content of a file is its first byte, over and over.
struct Repeated(HashMap<EntryId, u8>);

impl Contents for Repeated {
    fn open(&self, tree: &Tree, id: EntryId) -> Result<Box<dyn Read + '_>> {
        let byte = self.0.get(&id).copied().unwrap_or(b'x');
        Ok(Box::new(std::io::repeat(byte).take(tree.entry(id).size)))
    }
}

/// A tree in the making, told as a tar file would tell it.
struct Made {
    builder: TreeBuilder,
    ids: HashMap<String, EntryId>,
    bytes: Vec<(EntryId, u8)>,
}

impl Made {
    fn new() -> Self {
        Self {
            builder: TreeBuilder::new(Metadata::directory(0o700)),
            ids: HashMap::from([(String::new(), EntryId::ROOT)]),
            bytes: Vec::new(),
        }
    }

    fn push(&mut self, path: &str, target: &str, metadata: Metadata) -> EntryId {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        let parent = self.ids[parent];
        let id = self.builder.push(parent, name, target, metadata).unwrap();
        self.ids.insert(path.to_owned(), id);
        id
    }

    fn directory(&mut self, path: &str, mtime: i64) {
        let directory = Metadata::directory(0o755);
        self.push(path, "", Metadata { mtime, ..directory });
    }

    fn file(&mut self, path: &str, byte: u8, size: u64) {
        self.file_of(path, byte, file(size));
    }

    fn file_of(&mut self, path: &str, byte: u8, metadata: Metadata) {
        let id = self.push(path, "", metadata);
        self.bytes.push((id, byte));
    }

    fn link(&mut self, path: &str, first: &str, size: u64) {
        let id = self.push(path, "", file(size));
        self.builder.link(id, self.ids[first]);
    }

    fn symlink(&mut self, path: &str, target: &str) {
        let link = Metadata {
            kind: Kind::Symlink,
            permissions: 0o777,
            ..file(0)
        };
        self.push(path, target, link);
    }

    fn id(self) -> Result<String> {
        let (tree, ids) = self.builder.finish();
        let bytes = self.bytes.iter();
        let bytes = bytes.map(|(id, byte)| (ids[id.index()], *byte)).collect();
        let threads = NonZeroUsize::MIN;
        Ok(image_id(&tree, &Repeated(bytes), threads, &Silent)?.to_string())
    }
}

fn file(size: u64) -> Metadata {
    Metadata {
        kind: Kind::Regular,
        permissions: 0o644,
        uid: 0,
        gid: 0,
        mtime: 1_700_000_000,
        size,
        xattrs: Vec::new(),
    }
}

/// As the kernel has it (`struct vfs_cap_data`, version 2).
fn capability(permitted: u8) -> Vec<u8> {
    let mut value = vec![0; 20];
    (value[3], value[4]) = (2, permitted);
    value
}

fn smallest() -> Made {
    let mut made = Made::new();
    for name in ["boot", "sysroot", "usr"] {
        made.directory(name, 1_600_000_000);
    }
    made
}

fn everything() -> Made {
    let mut made = Made::new();
    for (name, mtime) in [
        ("a", 7),
        ("a/deep", 8),
        ("b", 7),
        ("boot", 5),
        ("etc", 1_700_000_000),
        ("run", 6),
        ("sysroot", 9),
        ("usr", 1_600_000_000),
        ("usr/many", 1_700_000_000),
    ] {
        made.directory(name, mtime);
    }
    for size in [0, 1, 64, 65, 4096, 4097, 262_144, 262_145, 20_000_000] {
        made.file(&format!("usr/size-{size}"), b's', size);
    }
    // The same content: the attributes that name the object are shared.
    made.file("etc/same-1", b'e', 1000);
    made.file("etc/same-2", b'e', 1000);
    // Left out, but for a link to it that is not.
    made.file("boot/kernel", b'k', 5000);
    made.link("usr/kernel", "boot/kernel", 5000);
    made.file("run/pid", b'r', 500);
    // Numbered in the deeper directory, because that comes first.
    made.file("a/deep/x", b'h', 700);
    made.link("b/x", "a/deep/x", 700);
    made.link("b/y", "a/deep/x", 700);
    for (name, value) in [("cap-1", 1), ("cap-2", 1), ("cap-3", 2)] {
        let capable = Metadata {
            xattrs: vec![
                (b"security.capability".to_vec(), capability(value)),
                (b"user.other".to_vec(), b"left out".to_vec()),
            ],
            ..file(100)
        };
        made.file_of(&format!("usr/{name}"), b'0' + value, capable);
    }
    let owned = Metadata {
        uid: 70_000,
        gid: 3,
        permissions: 0o4711,
        mtime: 0,
        ..file(10)
    };
    made.file_of("usr/owned", b'o', owned);
    for count in 0..400 {
        made.file(&format!("usr/many/a-long-name-{count}"), b'm', count);
    }
    made.symlink("etc/link", "../usr/owned");
    // 4000 bytes lie behind the inode, 4090 do not.
    for length in [2000, 2040, 4000, 4090] {
        made.symlink(&format!("etc/long-{length}"), &"l".repeat(length));
    }
    made
}

#[test]
fn the_digest_is_that_of_composefs() {
    assert_eq!(smallest().id().unwrap(), SMALLEST);
    assert_eq!(everything().id().unwrap(), EVERYTHING);
}

#[test]
fn what_bootc_does_not_boot_is_refused() {
    let refusal = |made: Made| format!("{:#}", made.id().unwrap_err());
    assert!(refusal(Made::new()).contains("no directory /usr"));
    let mut made = Made::new();
    made.directory("usr", 0);
    made.directory("boot", 0);
    assert!(refusal(made).contains("no directory /sysroot"));
    let mut made = smallest();
    made.symlink("run", "usr");
    assert!(refusal(made).contains("/run is no directory"));
    let mut made = smallest();
    made.directory("etc", 0);
    made.directory("etc/selinux", 0);
    made.file("etc/selinux/config", b'a', 1);
    assert!(refusal(made).contains("SELinux"));
}

const SMALLEST: &str = "da0fa6d30822c383c27ab6b468658631f120bb679cba445f36d9ec0b6f24f32cb4d0fce89c2f7ba72e16fcd8cddb765f1492edf831464c078ff1dc96e12589dd";
const EVERYTHING: &str = "0fa67cd947719106bc0cdf9e14c706ef6c918f68bdf7f74d34547da52d23de7fea7b6f663183d764d24535edf5f94736cd3ab4c062e90b59f5ed2001ded9612b";
