//! What the integration suites share: root filesystems made by code, and the program under test.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::fs::{PermissionsExt, chown, lchown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use rustix::fs::{XattrFlags, lsetxattr};
use serde_json::Value;
use tempfile::TempDir;

/// The time that every entry of a fixture has, in seconds since the epoch.
pub const MTIME: i64 = 1_700_000_000;

/// A directory of its own for one test, removed afterwards; on a disk, since tmpfs has no user
/// attributes on older kernels.
pub fn scratch() -> TempDir {
    let base = Path::new(env!("CARGO_TARGET_TMPDIR"));
    tempfile::Builder::new()
        .prefix("t")
        .tempdir_in(base)
        .unwrap()
}

/// The program, ready for arguments. What the caller's environment says is kept out.
pub fn helper() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_apt-ostree-helper"));
    command.env_remove("SOURCE_DATE_EPOCH");
    command
}

/// Runs the program; panics with its messages unless it succeeds. Gives standard output, trimmed.
pub fn run(arguments: &[&str]) -> String {
    succeed(helper().args(arguments))
}

/// Runs a command; panics with its messages unless it succeeds. Gives standard output, trimmed.
pub fn succeed(command: &mut Command) -> String {
    let output = command
        .output()
        .unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(output.status.success(), "{command:?}:\n{}", stderr(&output));
    String::from_utf8(output.stdout)
        .unwrap()
        .trim_end()
        .to_owned()
}

/// Runs the program, which must fail with exit status `status`; gives its messages.
pub fn fail(status: i32, arguments: &[&str]) -> String {
    let output = helper().args(arguments).output().unwrap();
    let messages = stderr(&output);
    assert_eq!(
        output.status.code(),
        Some(status),
        "{arguments:?}: {messages}"
    );
    messages
}

/// What a command wrote to standard error.
pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Whether a program can be started: tests against other tools need it. `contrib/test`, which
/// installs them all, sets `AOH_REQUIRE_TOOLS`: then a missing one is a failure.
pub fn has(program: &str) -> bool {
    let found = Command::new("sh")
        .args(["-c", &format!("command -v {program}")])
        .output()
        .is_ok_and(|o| o.status.success());
    let required = std::env::var_os("AOH_REQUIRE_TOOLS").is_some();
    assert!(found || !required, "{program} is not installed");
    found
}

/// Whether the tests run as root, as owners and device nodes ask for.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The independent judge of layouts (`oci-judge`), where it is at hand.
pub fn judge() -> Option<PathBuf> {
    std::env::var_os("AOH_OCI_JUDGE").map(PathBuf::from)
}

/// A root filesystem in the making.
pub struct Rootfs {
    /// Its root.
    pub path: PathBuf,
}

impl Rootfs {
    /// An empty one at `path`, which is created.
    pub fn new(path: PathBuf) -> Self {
        fs::create_dir_all(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        Self { path }
    }

    /// The path as text.
    pub fn str(&self) -> &str {
        self.path.to_str().unwrap()
    }

    /// A path below the root.
    pub fn at(&self, path: &str) -> PathBuf {
        self.path.join(path)
    }

    /// A directory, with those above it.
    pub fn dir(&self, path: &str) -> &Self {
        fs::create_dir_all(self.at(path)).unwrap();
        self
    }

    /// A file with content; the directories above it are made.
    pub fn file(&self, path: &str, content: impl AsRef<[u8]>) -> &Self {
        self.dir(Path::new(path).parent().unwrap().to_str().unwrap());
        fs::write(self.at(path), content).unwrap();
        self
    }

    /// A symbolic link.
    pub fn link(&self, path: &str, target: &str) -> &Self {
        self.dir(Path::new(path).parent().unwrap().to_str().unwrap());
        symlink(target, self.at(path)).unwrap();
        self
    }

    /// A hard link to an earlier file.
    pub fn hard_link(&self, path: &str, first: &str) -> &Self {
        fs::hard_link(self.at(first), self.at(path)).unwrap();
        self
    }

    /// Permission bits.
    pub fn mode(&self, path: &str, mode: u32) -> &Self {
        fs::set_permissions(self.at(path), fs::Permissions::from_mode(mode)).unwrap();
        self
    }

    /// Owner and group, which only root can set: others leave it.
    pub fn owner(&self, path: &str, uid: u32, gid: u32) -> &Self {
        if is_root() {
            let path = self.at(path);
            match path.is_symlink() {
                true => lchown(path, Some(uid), Some(gid)).unwrap(),
                false => chown(path, Some(uid), Some(gid)).unwrap(),
            }
        }
        self
    }

    /// An extended attribute. `security.*` asks for root: others leave it.
    pub fn xattr(&self, path: &str, name: &str, value: &[u8]) -> &Self {
        if is_root() || name.starts_with("user.") {
            lsetxattr(self.at(path), name, value, XattrFlags::empty()).unwrap();
        }
        self
    }

    /// A dpkg database of packages with their sources, versions and paths.
    pub fn packages(&self, packages: &[(&str, &str, &str, &[&str])]) -> &Self {
        let mut status = String::new();
        for (name, source, version, paths) in packages {
            status += &format!(
                "Package: {name}\nStatus: install ok installed\nArchitecture: amd64\nSource: {source}\nVersion: {version}\n\n"
            );
            let list: String = paths.iter().map(|path| format!("/{path}\n")).collect();
            self.file(
                &format!("var/lib/dpkg/info/{name}.list"),
                format!("/.\n{list}"),
            );
        }
        self.file("var/lib/dpkg/status", status)
    }

    /// Gives every entry the same time, so that two fixtures made alike are alike.
    pub fn settle(&self) -> &Self {
        settle(&self.path);
        self
    }
}

fn settle(path: &Path) {
    use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};
    let metadata = fs::symlink_metadata(path).unwrap();
    if metadata.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            settle(&entry.unwrap().path());
        }
    }
    let time = Timespec {
        tv_sec: MTIME,
        tv_nsec: 0,
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// `cap_net_raw+ep` as the kernel stores it (capabilities(7), VFS_CAP_REVISION_2).
pub const CAP_NET_RAW: [u8; 20] = [
    1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
];

/// `u::rw-,u:1000:r--,g::r--,m::r--,o::r--` as the kernel stores it (acl(5), version 2).
pub const ACL: [u8; 44] = [
    2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255, 2, 0, 4, 0, 0xe8, 3, 0, 0, 4, 0, 4, 0, 255, 255,
    255, 255, 16, 0, 4, 0, 255, 255, 255, 255, 32, 0, 4, 0, 255, 255, 255, 255,
];

/// A small system with everything in it that is easy to get wrong.
pub fn odd_rootfs(path: PathBuf) -> Rootfs {
    let rootfs = Rootfs::new(path);
    let long = format!("usr/share/{}/{}", "d".repeat(80), "f".repeat(90));
    rootfs
        .packages(&[
            (
                "libfoo1",
                "foo",
                "1.0-1",
                &[
                    "usr",
                    "usr/lib",
                    "lib/libfoo.so.1",
                    "usr/share/doc/libfoo1/copyright",
                ],
            ),
            (
                "foo",
                "foo",
                "1.0-1",
                &[
                    "usr/bin",
                    "usr/bin/foo",
                    "usr/bin/foo-setuid",
                    "usr/bin/foo-cap",
                    "usr/share/doc/foo/copyright",
                ],
            ),
            (
                "bar",
                "bar",
                "2.0-1+deb12u3",
                &[
                    "usr/bin/bar",
                    "usr/share/bar/empty-directory",
                    "usr/share/bar/empty",
                ],
            ),
            ("empty", "empty", "1", &[]),
        ])
        .link("lib", "usr/lib")
        .file("usr/lib/libfoo.so.1.0", vec![7; 100_000])
        .link("usr/lib/libfoo.so.1", "libfoo.so.1.0")
        .file("usr/bin/foo", vec![1; 5000])
        .file("usr/bin/foo-setuid", vec![2; 600])
        .mode("usr/bin/foo-setuid", 0o4755)
        .file("usr/bin/foo-cap", vec![3; 700])
        .xattr("usr/bin/foo-cap", "security.capability", &CAP_NET_RAW)
        .file("usr/bin/bar", vec![4; 300_000])
        .hard_link("usr/bin/bar2", "usr/bin/bar")
        .dir("usr/share/bar/empty-directory")
        .file("usr/share/bar/empty", "")
        .file("usr/share/doc/foo/copyright", "the same text\n")
        .file("usr/share/doc/libfoo1/copyright", "the same text\n")
        .file(
            "usr/share/ca/NetLock_Arany_=Class_Gold=_Főtanúsítvány.crt",
            "x",
        )
        .link(
            "usr/share/ca/ékezet",
            "NetLock_Arany_=Class_Gold=_Főtanúsítvány.crt",
        )
        .file("usr/share/odd/ leading and trailing ", "1")
        .file("usr/share/odd/new\nline", "2")
        .file("usr/share/odd/back\\slash", "3")
        .file("usr/share/odd/-dash", "4")
        .file("usr/share/odd/empty1", "")
        .file("usr/share/odd/empty2", "")
        .mode("usr/share/odd/empty2", 0o600)
        .file(&long, "long name")
        .link("usr/share/odd/long-link", &format!("../../../{long}"))
        .link("usr/share/odd/denormal", "..//..///share/./odd")
        .link("usr/share/odd/dangling", "/nowhere")
        .file("usr/share/odd/owned", "5")
        .owner("usr/share/odd/owned", 4_000_000_000, 65534)
        .file("usr/share/odd/acl", "6")
        .mode("usr/share/odd/acl", 0o644)
        .xattr("usr/share/odd/acl", "system.posix_acl_access", &ACL)
        .file("usr/share/odd/user-attribute", "7")
        .xattr("usr/share/odd/user-attribute", "user.note", b"\0\xff\nnote")
        .xattr(
            "usr/share/odd/user-attribute",
            "user.component",
            b"hinted, with comma",
        )
        .file("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n")
        .file("etc/hostname", "odd\n")
        .file("var/log/dpkg.log", "log\n")
        .dir("proc")
        .dir("sys")
        .dir("dev")
        .dir("run")
        .dir("tmp")
        .mode("tmp", 0o1777)
        .file("run/left-out", "x")
        .file("tmp/left-out", "x")
        .file("sysroot/ostree/repo/config", "x")
        .dir("root")
        .mode("root", 0o700)
        .mode("usr/share/odd", 0o2775)
        .settle();
    rootfs
}

/// What the kernel stores for the default ACL of a directory: `u::rwx,u:1000:r-x,g::r-x,m::r-x,o::r-x`.
pub const DEFAULT_ACL: [u8; 44] = [
    2, 0, 0, 0, 1, 0, 7, 0, 255, 255, 255, 255, 2, 0, 5, 0, 0xe8, 3, 0, 0, 4, 0, 5, 0, 255, 255,
    255, 255, 16, 0, 5, 0, 255, 255, 255, 255, 32, 0, 5, 0, 255, 255, 255, 255,
];

/// Extended attributes by name.
pub type Xattrs = BTreeMap<String, Vec<u8>>;

/// A member of a layer, as the `tar` crate reads it.
#[derive(Debug, Clone, PartialEq)]
pub struct Member {
    /// The name as it is stored.
    pub raw: String,
    /// The name without a trailing slash; empty for the root.
    pub path: String,
    pub kind: tar::EntryType,
    pub mode: u32,
    pub uid: u64,
    pub gid: u64,
    pub mtime: u64,
    /// Target of a link of either kind.
    pub link: String,
    pub content: Vec<u8>,
    pub xattrs: Xattrs,
}

/// The members of an uncompressed layer.
pub fn members(layer: impl Read) -> Vec<Member> {
    let mut archive = tar::Archive::new(layer);
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let mut members = Vec::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut xattrs = Xattrs::new();
        for record in entry.pax_extensions().unwrap().into_iter().flatten() {
            let record = record.unwrap();
            let name = record.key().unwrap().strip_prefix("SCHILY.xattr.");
            let name = name.unwrap_or_else(|| panic!("PAX record {:?}", record.key()));
            xattrs.insert(name.to_owned(), record.value_bytes().to_vec());
        }
        let raw = text(&entry.path_bytes());
        let path = raw.strip_suffix('/').unwrap_or(&raw);
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        let header = entry.header();
        members.push(Member {
            path: if path == "." { "" } else { path }.to_owned(),
            kind: header.entry_type(),
            mode: header.mode().unwrap(),
            uid: header.uid().unwrap(),
            gid: header.gid().unwrap(),
            mtime: header.mtime().unwrap(),
            link: entry
                .link_name_bytes()
                .map(|l| text(&l))
                .unwrap_or_default(),
            raw,
            content,
            xattrs,
        });
    }
    members
}

/// An image of a layout, read whole.
#[derive(Debug)]
pub struct Image {
    pub digest: String,
    pub manifest: Value,
    pub config: Value,
    pub layers: Vec<Vec<Member>>,
}

/// A blob of a layout, whose content must hash to its name.
pub fn blob(layout: &Path, digest: &Value) -> Vec<u8> {
    let hex = digest.as_str().unwrap().strip_prefix("sha256:").unwrap();
    let bytes = fs::read(layout.join("blobs/sha256").join(hex)).unwrap();
    assert_eq!(sha256(&bytes), hex);
    bytes
}

/// The only image of a layout.
pub fn read_image(layout: &Path) -> Image {
    let index: Value = serde_json::from_slice(&fs::read(layout.join("index.json")).unwrap()).unwrap();
    let [descriptor] = index["manifests"].as_array().unwrap().as_slice() else {
        panic!("not one image: {index}");
    };
    read_manifest(layout, &descriptor["digest"])
}

/// The image of a layout whose manifest has that digest.
pub fn read_manifest(layout: &Path, digest: &Value) -> Image {
    let manifest: Value = serde_json::from_slice(&blob(layout, digest)).unwrap();
    let config: Value = serde_json::from_slice(&blob(layout, &manifest["config"]["digest"])).unwrap();
    let layers = manifest["layers"].as_array().unwrap().iter();
    let layers = layers.map(|layer| {
        let bytes = blob(layout, &layer["digest"]);
        assert_eq!(layer["size"], bytes.len());
        let tar = match layer["mediaType"].as_str().unwrap().rsplit_once('+') {
            Some((_, "gzip")) => {
                let mut tar = Vec::new();
                let mut decoder = flate2::read::GzDecoder::new(bytes.as_slice());
                decoder.read_to_end(&mut tar).unwrap();
                tar
            }
            Some((_, "zstd")) => zstd::decode_all(bytes.as_slice()).unwrap(),
            _ => bytes,
        };
        (format!("sha256:{}", sha256(&tar)), members(tar.as_slice()))
    });
    let (diff_ids, layers): (Vec<String>, Vec<_>) = layers.unzip();
    assert_eq!(config["rootfs"]["diff_ids"], serde_json::json!(diff_ids));
    Image {
        digest: digest.as_str().unwrap().to_owned(),
        manifest,
        config,
        layers,
    }
}

/// SHA-256 in hexadecimal.
pub fn sha256(bytes: &[u8]) -> String {
    use sha2::{Digest, Sha256};
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// A path of a file system: kind (`d`, `f` or `l`), mode (0 for links), owner, group, checksum of the
/// content or target, attributes.
pub type Node = (char, u32, u64, u64, String, Xattrs);

/// A file system by paths; the root is the empty path.
pub type Nodes = BTreeMap<String, Node>;

/// What a runtime has after it applied all layers. What is below `sysroot/ostree` is left out.
pub fn apply(image: &Image) -> Nodes {
    let mut nodes = Nodes::new();
    for member in image.layers.iter().flatten() {
        let Member { mode, uid, gid, .. } = *member;
        let xattrs = member.xattrs.clone();
        let node = match member.kind {
            tar::EntryType::Directory => ('d', mode, uid, gid, String::new(), xattrs),
            tar::EntryType::Symlink => ('l', 0, uid, gid, member.link.clone(), xattrs),
            tar::EntryType::Regular => ('f', mode, uid, gid, sha256(&member.content), xattrs),
            tar::EntryType::Link => {
                let target = nodes.get(&member.link);
                let node = target.unwrap_or_else(|| panic!("dangling: {member:?}")).clone();
                let permissions = if node.0 == 'l' { 0 } else { mode };
                assert_eq!((node.1, node.2, node.3), (permissions, uid, gid), "{}", member.path);
                node
            }
            other => panic!("{}: {other:?}", member.path),
        };
        nodes.insert(member.path.clone(), node);
    }
    nodes.retain(|path, _| path != "sysroot/ostree" && !path.starts_with("sysroot/ostree/"));
    nodes
}

/// Directories at the top whose content no image has.
pub const EMPTIED: [&str; 6] = ["dev", "proc", "run", "sys", "sysroot", "tmp"];

/// What an image of a rootfs must have.
pub fn read_rootfs(root: &Path) -> Nodes {
    let mut nodes = read_tree(root);
    nodes.retain(|path, _| {
        let top = path.split_once('/').map(|(top, _)| top);
        top.is_none_or(|top| !EMPTIED.contains(&top))
    });
    for (_, _, _, _, _, xattrs) in nodes.values_mut() {
        xattrs.retain(|name, _| !["user.component", "user.update-interval"].contains(&&**name));
    }
    nodes
}

/// What of a tree on disk a commit can hold, but for what labels files for SELinux.
pub fn read_tree(root: &Path) -> Nodes {
    use std::os::unix::fs::MetadataExt;
    let mut nodes = Nodes::new();
    let mut pending = vec![root.to_owned()];
    while let Some(path) = pending.pop() {
        let found = fs::symlink_metadata(&path).unwrap();
        let permissions = found.mode() & 0o7777;
        let (kind, mode, text) = if found.is_dir() {
            pending.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            ('d', permissions, String::new())
        } else if found.is_symlink() {
            let target = fs::read_link(&path).unwrap();
            ('l', 0, target.to_str().unwrap().to_owned())
        } else {
            ('f', permissions, sha256(&fs::read(&path).unwrap()))
        };
        let owner = (found.uid().into(), found.gid().into());
        let relative = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
        nodes.insert(relative, (kind, mode, owner.0, owner.1, text, xattrs(&path)));
    }
    nodes
}

fn xattrs(path: &Path) -> Xattrs {
    let mut names = vec![0; 65536];
    let len = rustix::fs::llistxattr(path, &mut names).unwrap();
    let names = names[..len].split(|b| *b == 0).filter(|name| !name.is_empty());
    let names = names.filter(|name| *name != b"security.selinux");
    let read = |name: &[u8]| {
        let name = String::from_utf8(name.to_vec()).unwrap();
        let mut value = vec![0; 65536];
        let len = rustix::fs::lgetxattr(path, &name, &mut value).unwrap();
        (name, value[..len].to_vec())
    };
    names.map(read).collect()
}

/// The first differences, one a line; empty when there are none.
pub fn differences(got: &Nodes, wanted: &Nodes) -> String {
    let paths: std::collections::BTreeSet<_> = got.keys().chain(wanted.keys()).collect();
    let differing = paths.into_iter().filter(|path| got.get(*path) != wanted.get(*path));
    let line = |path: &String| format!("{path:?}: {:?}, not {:?}\n", got.get(path), wanted.get(path));
    differing.take(10).map(line).collect()
}

/// What an image of a rootfs must give when it is applied, with what the encapsulated format adds.
pub fn wanted(rootfs: &Path, encapsulated: bool) -> Nodes {
    let mut nodes = read_rootfs(rootfs);
    if encapsulated {
        let directory = |mode| ('d', mode, 0, 0, String::new(), Xattrs::new());
        nodes.entry("sysroot".into()).or_insert(directory(0o755));
        if nodes.entry("var".into()).or_insert(directory(0o755)).0 == 'd' {
            nodes.entry("var/tmp".into()).or_insert(directory(0o1777));
        }
    }
    nodes
}

/// What holds for the layers of every image, whatever is in them.
pub fn check_layers(image: &Image, encapsulated: bool, version: u32) {
    let mut homes: BTreeMap<&str, usize> = BTreeMap::new();
    let mut directories: BTreeMap<&str, &Member> = BTreeMap::new();
    for (at, layer) in image.layers.iter().enumerate() {
        assert!(!layer.is_empty(), "layer {at} is empty");
        let mut seen: BTreeMap<&str, &Member> = BTreeMap::new();
        let mut previous: Option<&Member> = None;
        for member in layer {
            let (raw, path) = (&member.raw, member.path.as_str());
            let clean = raw == "./" || !(raw.starts_with("./") || raw.starts_with('/'));
            assert!(clean && !raw.split('/').any(|part| part == ".."), "{raw}");
            assert!(!encapsulated || member.mtime == 0, "{member:?}");
            let is_dir = member.kind.is_dir();
            assert_eq!(is_dir, raw.ends_with('/'), "{member:?}");
            if is_dir {
                let known = directories.entry(path).or_insert(member);
                assert_eq!(*known, member, "other metadata in layer {at}");
            } else if !path.starts_with("sysroot/ostree/") || path.ends_with(".file") {
                let before = homes.insert(path, at);
                assert_eq!(before, None, "{path} again in layer {at}");
            }
            let parent = Path::new(path).parent().map(|p| p.to_str().unwrap());
            if version == 2 || at == 0 || path.starts_with("sysroot/") {
                if let Some(parent) = parent.filter(|parent| at == 0 || !(parent.is_empty() && version == 1)) {
                    assert!(seen.get(parent).is_some_and(|p| p.kind.is_dir()), "{path} without {parent}/ before it in layer {at}");
                }
            }
            if member.kind == tar::EntryType::Link {
                assert!(seen.contains_key(member.link.as_str()), "{path}: link to {}", member.link);
            }
            if path.starts_with("sysroot/ostree/") && path.ends_with(".file") {
                let attributes = format!("{path}-xattrs-link");
                assert_eq!(previous.map(|m| m.path.as_str()), Some(&*attributes));
            }
            let again = seen.insert(path, member);
            assert!(again.is_none(), "{path} twice in layer {at}");
            previous = Some(member);
        }
    }
    let layers = image.manifest["layers"].as_array().unwrap();
    let digests: std::collections::BTreeSet<_> = layers.iter().map(|l| l["digest"].as_str()).collect();
    assert_eq!(digests.len(), layers.len(), "a layer stands twice");
    let history = image.config["history"].as_array().unwrap();
    assert_eq!(history.len(), layers.len());
}

/// Runs the judge with `arguments`, where it is at hand.
pub fn judged(arguments: &[&str]) {
    if let Some(judge) = judge() {
        let output = Command::new(judge).args(arguments).output().unwrap();
        let faults = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{arguments:?}:\n{faults}{}", stderr(&output));
    }
}
