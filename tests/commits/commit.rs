//! The commit that a build names is the one that libostree makes of the same tree, and an image
//! carries every object of it: what the `ostree` program and the library compute is compared with
//! `--json`, and the objects of the layers are imported by a small reader that shares nothing
//! with the writer.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::{
    DEFAULT_ACL, EMPTIED, Image, MTIME, Nodes, Rootfs, build_json, check_layers, differences, has,
    is_root, odd_rootfs, read_image, read_rootfs, read_tree, scratch, sha256, succeed,
};
use ostree::glib::{Variant, VariantTy};
use ostree::prelude::*;
use ostree::{MutableTree, ObjectType, Repo, RepoFile, RepoMode, gio};
use serde_json::Value;
use tempfile::TempDir;

const NO_CANCELLABLE: Option<&gio::Cancellable> = None;
const KERNEL: [&str; 2] = ["ostree.bootable=true", "ostree.linux='6.1'"];

/// Everything odd, a kernel, and objects of which some are large.
fn full_rootfs(path: PathBuf) -> Rootfs {
    let rootfs = odd_rootfs(path);
    rootfs
        .file("usr/lib/modules/6.1/vmlinuz", "kernel")
        .dir("usr/lib/modules/5.0-without-a-kernel")
        .dir("usr/share/odd/default-acl")
        .xattr(
            "usr/share/odd/default-acl",
            "system.posix_acl_default",
            &DEFAULT_ACL,
        )
        .link("usr/share/odd/owned-link", "owned")
        .owner("usr/share/odd/owned-link", 12, 34)
        .xattr("usr/share/odd/owned-link", "security.note", b"on a link")
        .file("usr/share/odd/attributes", "")
        .xattr("usr/share/odd/attributes", "user.long", &[b'x'; 300])
        .xattr("usr/share/odd", "user.dir", b"of a directory")
        .xattr("usr/share/odd", "user.update-interval", b"weekly")
        .xattr("", "user.root", b"of the root");
    for n in 0..3000 {
        rootfs.file(&format!("usr/share/many/file-{n}"), n.to_string());
    }
    for n in 0..300 {
        rootfs.dir(&format!("usr/share/many-directories/{n}"));
    }
    rootfs.mode("", 0o711).settle();
    rootfs
}

/// Builds to `out` below `dir` and gives what `--json` says.
fn build(dir: &Path, out: &str, rootfs: &Rootfs, extra: &[&str]) -> Value {
    let output = format!("oci:{}", dir.join(out).display());
    build_json(rootfs, &output, extra)
}

/// A copy of the rootfs as its commit has it.
fn as_committed(rootfs: &Path, copy: &Path) {
    succeed(Command::new("cp").arg("-a").arg(rootfs).arg(copy));
    for name in EMPTIED {
        for entry in fs::read_dir(copy.join(name)).into_iter().flatten() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => fs::remove_dir_all(path).unwrap(),
                false => fs::remove_file(path).unwrap(),
            }
        }
    }
    if copy.join("etc").exists() {
        if !copy.join("usr").exists() {
            Rootfs::new(copy.join("usr"));
        }
        fs::rename(copy.join("etc"), copy.join("usr/etc")).unwrap();
    }
    for (path, node) in read_tree(copy) {
        for hint in ["user.component", "user.update-interval"] {
            if node.5.contains_key(hint) {
                rustix::fs::lremovexattr(copy.join(&path), hint).unwrap();
            }
        }
    }
}

/// The checksum that the `ostree` program computes of a directory.
fn committed_by_program(tree: &Path, timestamp: i64, metadata: &[&str]) -> String {
    let dir = scratch();
    let repo = format!("--repo={}", dir.path().display());
    succeed(Command::new("ostree").args(["init", "--mode=bare-user", &repo]));
    succeed(Command::new("ostree").args(["config", &repo, "set", "core.fsync", "false"]));
    let mut commit = Command::new("ostree");
    commit
        .args(["commit", &repo, "-b", "main", "--no-bindings", "-s", ""])
        .arg(format!("--timestamp=@{timestamp}"))
        .arg(format!("--tree=dir={}", tree.display()));
    commit.args(metadata.iter().map(|pair| format!("--add-metadata={pair}")));
    succeed(&mut commit)
}

fn same_as_the_program(rootfs: &Rootfs, dir: &Path, metadata: &[&str]) {
    if !has("ostree") {
        return;
    }
    let built = build(dir, "out", rootfs, &["--timestamp", "1600000000"]);
    let copy = dir.join("copy");
    as_committed(&rootfs.path, &copy);
    let wanted = committed_by_program(&copy, 1_600_000_000, metadata);
    assert_eq!(built["commit"], wanted);
    fs::remove_dir_all(copy).unwrap();
    fs::remove_dir_all(dir.join("out")).unwrap();
}

#[test]
fn an_odd_system_is_the_commit_that_the_program_makes() {
    let dir = scratch();
    let rootfs = odd_rootfs(dir.path().join("rootfs"));
    same_as_the_program(&rootfs, dir.path(), &[]);
}

#[test]
fn a_kernel_makes_the_commit_bootable() {
    let dir = scratch();
    let rootfs = full_rootfs(dir.path().join("rootfs"));
    same_as_the_program(&rootfs, dir.path(), &KERNEL);
}

#[test]
fn the_time_of_the_newest_file_is_the_time_of_the_commit() {
    let dir = scratch();
    let rootfs = odd_rootfs(dir.path().join("rootfs"));
    let built = build(dir.path(), "out", &rootfs, &[]);
    assert_eq!(built["timestamp"], MTIME);
    if has("ostree") {
        let copy = dir.path().join("copy");
        as_committed(&rootfs.path, &copy);
        assert_eq!(built["commit"], committed_by_program(&copy, MTIME, &[]));
    }
}

#[test]
fn etc_may_be_missing_alone_or_at_usr_etc_already() {
    let layouts: [&[&str]; 6] = [
        &["usr/bin/a", "var/b"],
        &["usr/etc/a", "usr/bin/b", "var/c"],
        &["usr/etc/a", "usr/f/b", "usr/e"],
        &["etc/a", "usr/etd/b", "usr/etb/c", "usr/et"],
        &["a"],
        // The program makes this /usr as whoever runs it.
        &["etc/a", "var/b", "uss/c", "usq/d"],
    ];
    for layout in &layouts[..if is_root() { 6 } else { 5 }] {
        let dir = scratch();
        let rootfs = Rootfs::new(dir.path().join("rootfs"));
        for path in *layout {
            rootfs.file(path, path.as_bytes());
        }
        rootfs.settle();
        same_as_the_program(&rootfs, dir.path(), &[]);
    }
}

/// libostree reads no attribute without a value, so that an object with one would fail its
/// `fsck` in a repository of mode `bare`.
#[test]
fn an_attribute_without_a_value_is_none() {
    let dir = scratch();
    let rootfs = Rootfs::new(dir.path().join("rootfs"));
    rootfs.file("usr/file", "x").dir("usr/dir");
    for path in ["usr/file", "usr/dir", ""] {
        rootfs.xattr(path, "user.empty", b"");
    }
    rootfs.xattr("usr/file", "user.full", b"x").settle();
    same_as_the_program(&rootfs, dir.path(), &[]);
}

/// GVariant framing offsets are as narrow as the container allows: 1, 2 or 4 bytes, with the
/// offsets themselves counted. Containers of every size around both borders, by the byte.
#[test]
fn framing_offsets_widen_where_libostree_widens_them() {
    let dir = scratch();
    let rootfs = Rootfs::new(dir.path().join("rootfs"));
    rootfs.file("usr/file", "x");
    // An array of n files with names of L bytes has n * (L + 34 + width) bytes.
    for (count, name, longer) in [(5, 16, -9..=9), (1394, 9, 15..=18)] {
        for more in longer {
            let directory = format!("usr/{count}/{more}");
            rootfs.dir(&directory);
            for n in 0..count {
                let len = if n == 0 { name + more } else { name };
                let width = usize::try_from(len).unwrap();
                rootfs.hard_link(&format!("{directory}/{n:0width$}"), "usr/file");
            }
        }
    }
    for len in 220..=256 {
        let file = format!("usr/xattr/{len}");
        rootfs
            .file(&file, "")
            .xattr(&file, "user.a", &vec![b'v'; len]);
        let two = format!("usr/xattr/two-{len}");
        rootfs
            .file(&two, "y")
            .xattr(&two, "user.a", &vec![b'v'; len - 40]);
        rootfs
            .xattr(&two, "user.b", b"c")
            .dir(&format!("usr/dir/{len}"));
        rootfs.xattr(&format!("usr/dir/{len}"), "user.a", &vec![b'v'; len]);
    }
    rootfs.settle();
    same_as_the_program(&rootfs, dir.path(), &[]);
}

/// More bytes than a signed 32-bit number counts. Takes an optimised build.
#[test]
fn a_file_of_more_than_two_gibibytes() {
    if cfg!(debug_assertions) || !has("ostree") {
        return;
    }
    let dir = scratch();
    let rootfs = Rootfs::new(dir.path().join("rootfs"));
    rootfs.file("usr/sparse", "begin");
    let file = File::options().write(true).open(rootfs.at("usr/sparse"));
    file.unwrap().set_len((2 << 30) + 3).unwrap();
    rootfs.settle();
    let built = build(dir.path(), "out", &rootfs, &["--compression", "zstd"]);
    assert_eq!(
        built["commit"],
        committed_by_program(&rootfs.path, MTIME, &[])
    );
    let layer = &built["layers"][1];
    assert!(layer["uncompressed_size"].as_u64().unwrap() > 2 << 30);
    assert!(layer["size"].as_u64().unwrap() < 1 << 20, "{layer}");
}

#[test]
fn the_library_makes_the_same_commit() {
    let dir = scratch();
    let rootfs = full_rootfs(dir.path().join("rootfs"));
    let built = build(dir.path(), "out", &rootfs, &["--timestamp", "7"]);
    let copy = dir.path().join("copy");
    as_committed(&rootfs.path, &copy);

    let repo = new_repo(&dir, "repo", RepoMode::BareUser);
    repo.prepare_transaction(NO_CANCELLABLE).unwrap();
    let tree = MutableTree::new();
    let from = gio::File::for_path(&copy);
    repo.write_directory_to_mtree(&from, &tree, None, NO_CANCELLABLE)
        .unwrap();
    let root = repo.write_mtree(&tree, NO_CANCELLABLE).unwrap();
    let root = root.downcast::<RepoFile>().unwrap();
    let metadata = "{'ostree.bootable': <true>, 'ostree.linux': <'6.1'>}";
    let metadata = Variant::parse(VariantTy::new("a{sv}").ok(), metadata).unwrap();
    let commit = repo
        .write_commit_with_time(None, None, None, Some(&metadata), &root, 7, NO_CANCELLABLE)
        .unwrap();
    assert_eq!(built["commit"], commit.as_str());
    repo.abort_transaction(NO_CANCELLABLE).unwrap();
}

#[test]
fn metadata_objects_are_gvariants_in_normal_form() {
    let dir = scratch();
    let rootfs = full_rootfs(dir.path().join("rootfs"));
    let built = build(dir.path(), "out", &rootfs, &[]);
    let image = read_image(&dir.path().join("out"));
    let mut counts = [0; 3];
    for (checksum, kind, content) in metadata_objects(&image) {
        let kinds = [ObjectType::Commit, ObjectType::DirMeta, ObjectType::DirTree];
        counts[kinds.iter().position(|k| *k == kind).unwrap()] += 1;
        let object = variant(content, kind_type(kind));
        assert!(object.is_normal_form(), "{checksum}: {object}");
        assert_eq!(sha256(content), checksum);
        if kind == ObjectType::Commit {
            assert_eq!(built["commit"], checksum);
            assert_eq!(
                u64::from_be(object.child_value(5).get().unwrap()),
                MTIME as u64
            );
        }
    }
    assert_eq!(counts[0], 1);
    assert!(counts[1] >= 5 && counts[2] >= 20, "{counts:?}");
}

#[test]
fn every_object_is_in_the_image_whatever_its_version_and_number_of_layers() {
    let dir = scratch();
    let rootfs = odd_rootfs(dir.path().join("rootfs"));
    rootfs
        .xattr("usr/share/odd", "user.dir", b"of a directory")
        .file("usr/share/odd/empty-with-attribute", "")
        .xattr("usr/share/odd/empty-with-attribute", "user.a", b"b")
        .link("usr/share/odd/link-again", "/nowhere")
        .settle();
    for version in ["1", "2"] {
        for layers in ["1", "2", "8", "64"] {
            let out = format!("{version}-{layers}");
            let flags = ["--format-version", version, "--max-layers", layers];
            let built = build(dir.path(), &out, &rootfs, &flags);
            let image = read_image(&dir.path().join(&out));
            check_layers(&image, true, version.parse().unwrap());
            let commit = built["commit"].as_str().unwrap();
            let Some(got) = imported(&dir, &out, &image, commit) else {
                continue;
            };
            let mut wanted = in_a_commit(read_rootfs(&rootfs.path));
            if !is_root() {
                // Neither owners nor all permissions can be given to files.
                wanted.values_mut().for_each(anybody);
            }
            assert_eq!(differences(&got, &wanted), "", "{out}");
        }
    }
}

/// Paths of a rootfs as its commit has them.
fn in_a_commit(nodes: Nodes) -> Nodes {
    let moved = nodes.into_iter().map(|(path, node)| {
        let inside = path == "etc" || path.starts_with("etc/");
        (if inside { format!("usr/{path}") } else { path }, node)
    });
    moved.collect()
}

fn anybody(node: &mut crate::common::Node) {
    (node.1, node.2, node.3) = (0, 0, 0);
    node.5.clear();
}

fn new_repo(dir: &TempDir, name: &str, mode: RepoMode) -> Repo {
    let path = dir.path().join(name);
    fs::create_dir(&path).unwrap();
    let repo = Repo::new(&gio::File::for_path(path));
    repo.create(mode, NO_CANCELLABLE).unwrap();
    repo.set_disable_fsync(true);
    repo
}

fn variant(bytes: &[u8], of_type: &str) -> Variant {
    let bytes = ostree::glib::Bytes::from(bytes);
    Variant::from_bytes_with_type(&bytes, VariantTy::new(of_type).unwrap())
}

/// Name and kind of an object by its path in a layer.
fn object(path: &str) -> Option<(String, &str)> {
    let name = path.strip_prefix("sysroot/ostree/repo/objects/")?;
    let (name, kind) = name.split_once('.')?;
    Some((name.replace('/', ""), kind))
}

/// The metadata objects, which all are in layer 0, the commit first.
fn metadata_objects(image: &Image) -> Vec<(String, ObjectType, &[u8])> {
    let mut found = Vec::new();
    for (at, layer) in image.layers.iter().enumerate() {
        let objects = layer.iter().filter_map(|m| Some((m, object(&m.path)?)));
        for (member, (checksum, kind)) in objects {
            let kind = match kind {
                "commit" => ObjectType::Commit,
                "dirmeta" => ObjectType::DirMeta,
                "dirtree" => ObjectType::DirTree,
                _ => continue,
            };
            assert_eq!(at, 0, "{} in a content layer", member.path);
            assert_eq!(kind == ObjectType::Commit, found.is_empty());
            found.push((checksum, kind, member.content.as_slice()));
        }
    }
    found
}

/// Writes all objects of the layers to a repository, which checks the name of each, and gives what
/// a checkout has; after `fsck` found nothing missing.
fn imported(dir: &TempDir, name: &str, image: &Image, commit: &str) -> Option<Nodes> {
    let mode = if is_root() {
        RepoMode::Bare
    } else {
        RepoMode::BareUser
    };
    let repo = new_repo(dir, &format!("repo-{name}"), mode);
    repo.prepare_transaction(NO_CANCELLABLE).unwrap();
    for (checksum, kind, content) in metadata_objects(image) {
        let object = variant(content, kind_type(kind));
        repo.write_metadata(kind, Some(&checksum), &object, NO_CANCELLABLE)
            .unwrap();
    }
    let mut attributes = None;
    for member in image.layers.iter().flatten() {
        let name = match object(&member.path) {
            Some((_, "file-xattrs-link")) => {
                attributes = Some(variant(&member.content, "a(ayay)"));
                assert!(attributes.as_ref().is_some_and(|v| v.is_normal_form()));
                continue;
            }
            Some((name, "file")) => name,
            _ => continue,
        };
        let (uid, gid) = (member.uid as u32, member.gid as u32);
        let (name, xattrs) = (Some(name.as_str()), attributes.take());
        let xattrs = Some(xattrs.as_ref().expect("attributes come first"));
        let written = match member.kind {
            tar::EntryType::Symlink => {
                repo.write_symlink(name, uid, gid, xattrs, &member.link, NO_CANCELLABLE)
            }
            _ => {
                let mode = 0o100_000 | member.mode;
                let content = &member.content;
                repo.write_regfile_inline(name, uid, gid, mode, xattrs, content, NO_CANCELLABLE)
            }
        };
        assert_eq!(Some(written.unwrap().as_str()), name);
    }
    repo.transaction_set_ref(None, "main", Some(commit));
    repo.commit_transaction(NO_CANCELLABLE).unwrap();

    let path = format!(
        "--repo={}",
        dir.path().join(format!("repo-{name}")).display()
    );
    if !has("ostree") {
        return None;
    }
    succeed(Command::new("ostree").args(["fsck", "--quiet", &path]));
    let checkout = dir.path().join(format!("checkout-{name}"));
    let mut command = Command::new("ostree");
    command.args(["checkout", &path]);
    if !is_root() {
        command.arg("--user-mode");
    }
    succeed(command.arg("main").arg(&checkout));
    let mut nodes = read_tree(&checkout);
    if !is_root() {
        nodes.values_mut().for_each(anybody);
    }
    Some(nodes)
}

fn kind_type(kind: ObjectType) -> &'static str {
    match kind {
        ObjectType::Commit => "(a{sv}aya(say)sstayay)",
        ObjectType::DirMeta => "(uuua(ayay))",
        _ => "(a(say)a(sayay))",
    }
}
