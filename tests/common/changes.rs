//! Trees that follow each other: copies, every kind of change, and any trees at all.

use std::fs;
use std::path::Path;
use std::process::Command;

use proptest::prelude::*;

use super::{Rootfs, odd_rootfs, succeed};

/// A copy of a rootfs, with its times and hard links.
pub fn copy(rootfs: &Rootfs, path: &Path) -> Rootfs {
    let mut copy = Command::new("cp");
    succeed(copy.args(["-aT"]).arg(&rootfs.path).arg(path));
    Rootfs {
        path: path.to_owned(),
    }
}

/// Every kind of change.
pub fn changed(old: &Rootfs, path: &Path) -> Rootfs {
    let new = copy(old, path);
    let remove = |path: &str| match new.at(path).is_dir() {
        true => fs::remove_dir_all(new.at(path)).unwrap(),
        false => fs::remove_file(new.at(path)).unwrap(),
    };
    for path in [
        "usr/share/odd/owned",
        "usr/share/ca",
        "usr/share/bar/empty-directory",
        "usr/share/odd/dangling",
        "usr/share/odd/empty1",
        "usr/share/odd/back\\slash",
        "usr/bin/foo-cap",
        "usr/bin/bar2",
        "usr/share/odd/denormal",
        "usr/share/doc/foo",
    ] {
        remove(path);
    }
    new.file("usr/bin/foo", vec![9; 5000])
        .file("usr/bin/new", "new")
        .dir("usr/share/new-and-empty")
        .file("usr/share/odd/back\\slash/now/a/directory", "1")
        .link("usr/share/doc/foo", "libfoo1")
        // No hard links any more, and new ones.
        .file("usr/bin/bar2", vec![4; 300_000])
        .hard_link("usr/bin/foo-linked", "usr/bin/foo-setuid")
        .link("usr/share/odd/denormal", "elsewhere")
        .mode("usr/share/odd/empty2", 0o640)
        .mode("root", 0o711)
        .mode("usr/share/odd", 0o755)
        .owner("usr/share/odd/acl", 7, 7)
        .xattr("usr/share/odd/user-attribute", "user.note", b"another")
        .mode("usr/share/bar", 0o700)
        .settle();
    new
}

/// The odd system in `dir`, and the same with every kind of change.
pub fn old_and_changed(dir: &Path) -> (Rootfs, Rootfs) {
    let old = odd_rootfs(dir.join("old"));
    // The judge asks for what is left out.
    fs::remove_dir_all(old.at("sysroot")).unwrap();
    let new = changed(&old, &dir.join("new"));
    (old, new)
}

/// What is at one of a few paths.
#[derive(Debug, Clone)]
pub enum Thing {
    Directory,
    File(u8),
    Link(u8),
    /// A hard link to the first file.
    HardLink,
}

/// Path, what is there, its mode, and whether it is of another time.
pub type Placed = (&'static str, Thing, u32, bool);

pub const PATHS: [&str; 12] = [
    "a", "a/a", "a/a/a", "a/a/b", "a/b", "b", "b/a", "b/b", "b/b/c", "c", "c/a", "a/b/c",
];

pub fn things() -> impl Strategy<Value = Vec<Placed>> {
    let thing = prop_oneof![
        4 => Just(Thing::Directory),
        4 => (0..3u8).prop_map(Thing::File),
        1 => (0..2u8).prop_map(Thing::Link),
        2 => Just(Thing::HardLink),
    ];
    let mode = prop::sample::select(vec![0o755, 0o755, 0o700]);
    let placed = (prop::sample::select(PATHS.to_vec()), thing, mode, 0..4u8);
    let placed = placed.prop_map(|(path, thing, mode, time)| (path, thing, mode, time == 0));
    prop::collection::vec(placed, 0..14)
}

/// Makes a tree of what can be made; the first thing at a path counts.
pub fn make(path: &Path, things: &[Placed]) -> Rootfs {
    let _ = fs::remove_dir_all(path);
    let rootfs = Rootfs::new(path.to_owned());
    rootfs.file("z/file", "always").settle();
    let mut first = None;
    let mut others = Vec::new();
    for (path, thing, mode, is_other) in things {
        let at = rootfs.at(path);
        let parent = at.parent().unwrap();
        if at.symlink_metadata().is_ok() || !parent.symlink_metadata().is_ok_and(|p| p.is_dir()) {
            continue;
        }
        match thing {
            Thing::Directory => _ = rootfs.dir(path),
            Thing::File(byte) => {
                rootfs.file(path, vec![b'x'; usize::from(*byte) * 700]);
                first.get_or_insert(*path);
            }
            Thing::Link(to) => _ = rootfs.link(path, PATHS[usize::from(*to)]),
            Thing::HardLink => match first {
                Some(first) => _ = rootfs.hard_link(path, first),
                None => continue,
            },
        }
        if matches!(thing, Thing::Directory | Thing::File(_)) {
            rootfs.mode(path, *mode);
        }
        if *is_other && matches!(thing, Thing::File(_)) {
            others.push(at);
        }
    }
    rootfs.settle();
    for path in others {
        succeed(Command::new("touch").args(["-d", "@1500000000"]).arg(path));
    }
    rootfs
}
