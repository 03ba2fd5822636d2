//! A repository that damaged images are offered to, and the image that they are made of.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use super::{
    ImageWriter, Rootfs, build_json, fail, has, is_root, ostree, repository, run, scratch,
};

/// A place with a repository that has something in it already.
pub struct Place {
    pub dir: tempfile::TempDir,
    pub repo: String,
    before: Files,
    pub commit: String,
}

/// Where the objects are in the layers of an encapsulated commit.
pub const OBJECTS: &str = "sysroot/ostree/repo/objects/";

/// What is in a repository and not there for the moment: every directory, and every file with its
/// inode, size and time.
pub type Files = BTreeMap<PathBuf, Option<(u64, u64, i64, i64)>>;

/// Every file of a repository.
pub fn files(repo: &str) -> Files {
    use std::os::unix::fs::MetadataExt;
    let mut found = Files::new();
    let mut pending = vec![PathBuf::from(repo)];
    while let Some(path) = pending.pop() {
        for entry in fs::read_dir(path).unwrap() {
            let path = entry.unwrap().path();
            let meta = path.symlink_metadata().unwrap();
            let file = (meta.ino(), meta.size(), meta.mtime(), meta.mtime_nsec());
            let is_for_the_moment = path.ends_with(".lock") || path.ends_with("tmp/cache");
            if meta.is_dir() {
                pending.push(path.clone());
            }
            if !is_for_the_moment {
                found.insert(path, (!meta.is_dir()).then_some(file));
            }
        }
    }
    found
}

/// A small encapsulated image of several layers, and a place to import it to.
pub fn place(mode: &str) -> Option<(Place, ImageWriter)> {
    if !has("ostree") || !is_root() {
        return None;
    }
    let dir = scratch();
    let rootfs = Rootfs::new(dir.path().join("rootfs"));
    rootfs
        .packages(&[
            ("a", "a", "1", &["usr/bin/a", "usr/bin/link"]),
            ("b", "b", "1", &["usr/bin/b"]),
            ("linux-image-c", "linux", "1", &["usr/bin/c"]),
            ("openssl", "openssl", "1", &["usr/bin/d"]),
        ])
        .file("usr/bin/c", vec![b'c'; 3_000_000])
        .file("usr/bin/d", vec![b'd'; 2_000_000])
        .file("usr/bin/a", vec![b'a'; 200_000])
        .file("usr/bin/b", vec![b'b'; 300_000])
        .xattr("usr/bin/b", "user.note", b"note")
        .link("usr/bin/link", "the-target-of-the-link")
        .dir("usr/share/empty")
        .mode("usr/share/empty", 0o711)
        .settle();
    let repo = repository(dir.path(), "repo", mode);
    let other = Rootfs::new(dir.path().join("other"));
    other.file("usr/bin/other", "other").settle();
    run(&[
        "commit",
        "-q",
        "--repo",
        &repo,
        "-b",
        "other",
        "--rootfs",
        other.str(),
    ]);
    let layout = dir.path().join("image");
    let output = format!("oci:{}", layout.display());
    let said = build_json(&rootfs, &output, &[]);
    let image = ImageWriter::read(&layout);
    assert!(image.layers.len() >= 4, "{}", image.layers.len());
    let place = Place {
        before: files(&repo),
        commit: said["commit"].as_str().unwrap().to_owned(),
        repo,
        dir,
    };
    Some((place, image))
}

impl Place {
    pub fn layout(&self) -> PathBuf {
        self.dir.path().join("bad")
    }

    /// The import must fail with all of `expected` in its message.
    pub fn refuses(&self, what: &str, image: &ImageWriter, expected: &[&str]) {
        self.refuses_with(&[], what, image, expected);
    }

    /// The import with more arguments must fail.
    pub fn refuses_with(&self, extra: &[&str], what: &str, image: &ImageWriter, expected: &[&str]) {
        let image = image.write(&self.layout());
        let base = ["import", "--repo", &self.repo, "-b", "test", &image];
        let said = fail(1, &[&base[..], extra].concat());
        for part in expected {
            assert!(said.contains(part), "{what}: no '{part}' in: {said}");
        }
        assert_eq!(ostree(&self.repo, &["refs"]), "other", "{what}");
        assert_eq!(files(&self.repo), self.before, "{what}");
        ostree(&self.repo, &["fsck", "-q"]);
    }

    pub fn takes(&self, image: &ImageWriter) {
        let image = image.write(&self.layout());
        let commit = run(&["import", "-q", "--repo", &self.repo, "-b", "test", &image]);
        assert_eq!(commit, self.commit);
        ostree(&self.repo, &["fsck", "-q"]);
    }
}

/// Where the header of each object of a kind is in a layer, with its path and size.
pub fn objects(layer: &[u8], extension: &str) -> Vec<(usize, String, usize)> {
    let mut archive = tar::Archive::new(layer);
    let mut found = Vec::new();
    for entry in archive.entries().unwrap() {
        let entry = entry.unwrap();
        let path = String::from_utf8(entry.path_bytes().to_vec()).unwrap();
        let size = entry.header().size().unwrap() as usize;
        if path.starts_with(OBJECTS) && path.ends_with(&format!(".{extension}")) {
            found.push((entry.raw_header_position() as usize, path, size));
        }
    }
    found
}

/// The checksum in the path of an object.
pub fn checksum(path: &str) -> String {
    let name = path.strip_prefix(OBJECTS).unwrap().replace('/', "");
    name.split('.').next().unwrap().to_owned()
}

/// The first layer with an object of a kind that `wanted` takes; gives the layer, header position,
/// checksum and size.
pub fn find(
    image: &ImageWriter,
    extension: &str,
    wanted: impl Fn(usize) -> bool,
) -> (usize, usize, String, usize) {
    for (at, layer) in image.layers.iter().enumerate() {
        for (position, path, size) in objects(layer, extension) {
            if wanted(size) {
                return (at, position, checksum(&path), size);
            }
        }
    }
    panic!("no object {extension}");
}
