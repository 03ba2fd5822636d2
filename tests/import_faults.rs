//! Damaged and hostile images: each is refused with an error that names what is wrong, and the
//! repository is as it was. Digests are right unless it is a digest that is tested: nothing but the
//! check in question can find the fault.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use common::{
    ImageWriter, Rootfs, Tar, What, diff_id, fail, has, is_root, ostree, repository, run, scratch,
};

/// A place with a repository that has something in it already.
struct Place {
    dir: tempfile::TempDir,
    repo: String,
    before: BTreeSet<PathBuf>,
    commit: String,
}

const OBJECTS: &str = "sysroot/ostree/repo/objects/";

/// Every file of the repository that is not for the moment.
fn files(repo: &str) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let mut pending = vec![PathBuf::from(repo)];
    while let Some(path) = pending.pop() {
        for entry in fs::read_dir(path).unwrap() {
            let path = entry.unwrap().path();
            let is_lock = path.ends_with(".lock") || path.ends_with("tmp/cache");
            match path.is_dir() && !path.is_symlink() {
                true => pending.push(path),
                false if is_lock => {}
                false => _ = found.insert(path),
            }
        }
    }
    found
}

/// A small encapsulated image of several layers, and a place to import it to.
fn place() -> Option<(Place, ImageWriter)> {
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
    let repo = repository(dir.path(), "repo", "bare");
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
    let said = run(&[
        "build",
        "-q",
        "--json",
        "--rootfs",
        rootfs.str(),
        "-o",
        &output,
    ]);
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
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
    fn layout(&self) -> PathBuf {
        self.dir.path().join("bad")
    }

    /// The import must fail with all of `expected` in its message.
    fn refuses(&self, what: &str, image: &ImageWriter, expected: &[&str]) {
        let image = image.write(&self.layout());
        let said = fail(1, &["import", "--repo", &self.repo, "-b", "test", &image]);
        for part in expected {
            assert!(said.contains(part), "{what}: no '{part}' in: {said}");
        }
        assert_eq!(ostree(&self.repo, &["refs"]), "other", "{what}");
        assert_eq!(files(&self.repo), self.before, "{what}");
        ostree(&self.repo, &["fsck", "-q"]);
    }

    fn takes(&self, image: &ImageWriter) {
        let image = image.write(&self.layout());
        let commit = run(&["import", "-q", "--repo", &self.repo, "-b", "test", &image]);
        assert_eq!(commit, self.commit);
        ostree(&self.repo, &["fsck", "-q"]);
    }
}

/// Where the header of each object of a kind is in a layer, with its path and size.
fn objects(layer: &[u8], extension: &str) -> Vec<(usize, String, usize)> {
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

fn checksum(path: &str) -> String {
    let name = path.strip_prefix(OBJECTS).unwrap().replace('/', "");
    name.split('.').next().unwrap().to_owned()
}

/// The first layer with an object of a kind that `wanted` takes; gives the layer, header position, checksum and size.
fn find(
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

#[test]
fn one_byte_flipped_in_each_kind_of_object() {
    let Some((place, good)) = place() else { return };
    for (extension, of_size) in [
        ("commit", 1..usize::MAX),
        ("dirtree", 80..usize::MAX),
        ("dirmeta", 1..usize::MAX),
        ("file", 200_000..200_001),
        ("file", 1..200),
        ("file-xattrs-link", 5..usize::MAX),
    ] {
        let (at, position, checksum, size) = find(&good, extension, |size| of_size.contains(&size));
        let mut bad = good.clone();
        bad.layers[at][position + 512 + size / 2] ^= 1;
        bad.label_last();
        place.refuses(extension, &bad, &[&checksum, "layer"]);
    }
    // A link has its content in the header: its target, owner and mode.
    let (at, position, checksum, _) = find(&good, "file", |size| size == 0);
    let mut bad = good.clone();
    let header = &mut bad.layers[at][position..position + 512];
    assert_eq!(&header[157..160], b"the", "the link");
    header[157] ^= 1;
    let mut parsed = tar::Header::new_gnu();
    parsed.as_mut_bytes().copy_from_slice(header);
    parsed.set_cksum();
    header.copy_from_slice(parsed.as_bytes());
    bad.label_last();
    place.refuses("link", &bad, &[&checksum]);
    place.takes(&good);
}

/// A layer without the members whose paths `leave` takes, nor what belongs to them.
fn without(layer: &[u8], leave: &dyn Fn(&str) -> bool) -> Vec<u8> {
    let mut archive = tar::Archive::new(layer);
    let mut kept = Vec::new();
    let mut start = 0;
    let mut skipping = false;
    let mut cut = |end: usize, skip: bool, kept: &mut Vec<u8>| {
        if !skipping {
            kept.extend_from_slice(&layer[start..end]);
        }
        (start, skipping) = (end, skip);
    };
    for entry in archive.entries().unwrap() {
        let entry = entry.unwrap();
        let path = String::from_utf8(entry.path_bytes().to_vec()).unwrap();
        // A long name stands in a record of two blocks before the header.
        let records = if path.len() > 100 { 1024 } else { 0 };
        let links_to = entry
            .link_name_bytes()
            .map(|l| String::from_utf8(l.to_vec()).unwrap());
        let more = if links_to.as_ref().is_some_and(|l| l.len() > 100) {
            1024
        } else {
            0
        };
        let skip = leave(&path) || links_to.is_some_and(|l| leave(&l));
        let header = entry.raw_header_position() as usize;
        cut(header - records - more, skip, &mut kept);
    }
    let end = layer.len() - 1024;
    cut(end, false, &mut kept);
    kept.extend_from_slice(&[0; 1024]);
    kept
}

#[test]
fn one_object_missing() {
    let Some((place, good)) = place() else { return };
    for extension in ["dirtree", "dirmeta", "file"] {
        let has = |sum: &str| {
            let path = Path::new(&place.repo).join("objects").join(&sum[..2]);
            path.join(format!("{}.{extension}", &sum[2..])).exists()
        };
        let all = good.layers.iter().enumerate().flat_map(|(at, layer)| {
            let found = objects(layer, extension).into_iter();
            found.map(move |(_, path, size)| (at, checksum(&path), size))
        });
        let mut candidates = all.filter(|(_, sum, size)| *size > 0 && !has(sum));
        let (at, sum, _) = candidates.next().unwrap();
        let mut bad = good.clone();
        let (prefix, rest) = sum.split_at(2);
        let name = format!("{OBJECTS}{prefix}/{rest}.");
        bad.layers[at] = without(&good.layers[at], &|path| path.starts_with(&name));
        assert!(bad.layers[at].len() < good.layers[at].len());
        bad.label_last();
        place.refuses(
            extension,
            &bad,
            &["is not whole", &format!("{sum}.{extension}"), "(/"],
        );
    }
    let mut bad = good.clone();
    bad.layers[0] = without(&good.layers[0], &|path| path.ends_with(".commit"));
    place.refuses("commit", &bad, &["begins with", "and not with a commit"]);
    place.takes(&good);
}

#[test]
fn layers_in_another_order() {
    let Some((place, good)) = place() else { return };
    let count = good.layers.len();
    let mut swapped: Vec<usize> = (0..count).collect();
    swapped.swap(1, 2);
    let mut bad = good.clone();
    bad.order = Some(swapped);
    place.refuses(
        "in the manifest",
        &bad,
        &[&diff_id(&good.layers[1]), &diff_id(&good.layers[2])],
    );

    let mut bad = good.clone();
    bad.layers.swap(0, 1);
    place.refuses("the commit is second", &bad, &["not with a commit"]);

    // The label says that the last but one ends the commit now.
    let mut bad = good.clone();
    bad.layers.swap(count - 1, count - 2);
    place.refuses("the last two", &bad, &["is not whole", ".file"]);

    // Content layers may come in any order as long as the label is right.
    let mut fine = good.clone();
    fine.layers.swap(1, 2);
    fine.label_last();
    place.takes(&fine);
}

#[test]
fn blobs_and_digests_that_are_wrong() {
    let Some((place, good)) = place() else { return };
    let digest = diff_id(&good.layers[1]);
    let mut bad = good.clone();
    bad.cut = Some((1, 700));
    place.refuses("truncated", &bad, &[&digest]);
    let mut bad = good.clone();
    bad.left_out = vec![1];
    place.refuses("missing", &bad, &[&digest]);
    let ids: Vec<String> = good.layers.iter().map(|layer| diff_id(layer)).collect();
    let mut wrong = ids.clone();
    wrong[1] = diff_id(b"something else");
    let mut bad = good.clone();
    bad.diff_ids = Some(wrong.clone());
    place.refuses("diff id", &bad, &[&digest, &wrong[1]]);
    bad.diff_ids = Some(ids[1..].to_vec());
    place.refuses(
        "number of diff ids",
        &bad,
        &[&ids.len().to_string(), "diff ids"],
    );

    for (label, why) in [
        ("nonsense", "'nonsense'"),
        (wrong[1].as_str(), "none of its"),
        (ids[1].as_str(), "is not whole"),
    ] {
        let mut bad = good.clone();
        bad.labels["ostree.final-diffid"] = label.into();
        place.refuses(
            label,
            &bad,
            &[
                why,
                label
                    .get(..8)
                    .filter(|_| why != "is not whole")
                    .unwrap_or("file"),
            ],
        );
    }
    let mut bad = good.clone();
    bad.labels["ostree.commit"] = "0".repeat(64).into();
    place.refuses(
        "label of the commit",
        &bad,
        &[&place.commit, "ostree.commit"],
    );
    place.takes(&good);
}

#[test]
fn layers_that_break_the_rules_of_the_format() {
    let Some((place, good)) = place() else { return };
    let append = |layer: &[u8], more: &Tar| [&layer[..layer.len() - 1024], &more.end()].concat();
    let (at, position, sum, _) = find(&good, "dirmeta", |_| true);
    let dirmeta = good.layers[at][position + 512..position + 512 + 12].to_vec();
    let name = |sum: &str, kind: &str| format!("{OBJECTS}{}/{}.{kind}", &sum[..2], &sum[2..]);
    let mut metadata = Tar::default();
    metadata.add(&name(&sum, "dirmeta"), What::File(&dirmeta));
    let (file_layer, _, file, _) = find(&good, "file", |size| size == 0);
    let link = What::Link("the-target-of-the-link");
    let mut twice = Tar::default();
    twice
        .add(&name(&file, "file-xattrs-link"), What::File(b""))
        .add(&name(&file, "file"), link);
    let mut alone = Tar::default();
    alone.add(&name(&file, "file-xattrs-link"), What::File(b""));
    let mut bare = Tar::default();
    bare.add(&name(&file, "file"), link);
    let mut strange = Tar::default();
    strange.add(&name(&file, "payload-link"), What::File(b""));
    let mut dangling = Tar::default();
    dangling.add(
        &name(&file, "file-xattrs-link"),
        What::Hard(&name(&sum, "file-xattrs")),
    );
    let mut second = Tar::default();
    second.add(&name(&sum, "commit"), What::File(b"x"));
    for (what, layer, more, expected) in [
        (
            "metadata in a content layer",
            1,
            &metadata,
            "only in the first layer",
        ),
        ("the same object twice", file_layer, &twice, "has it twice"),
        ("attributes alone", 1, &alone, "not that object itself"),
        (
            "an object without attributes",
            1,
            &bare,
            "attributes are not before it",
        ),
        ("an unknown kind", 1, &strange, "'payload-link' are unknown"),
        (
            "attributes that are not there",
            1,
            &dangling,
            "is not there before it",
        ),
        ("a second commit", 0, &second, "second commit"),
    ] {
        let mut bad = good.clone();
        bad.layers[layer] = append(&good.layers[layer], more);
        bad.label_last();
        place.refuses(what, &bad, &[expected, "layer"]);
    }
    place.takes(&good);
}

#[test]
fn hostile_layers() {
    if !has("ostree") || !is_root() {
        return;
    }
    use What::{Dir, Fifo, File, Hard, Link};
    let Some((place, _)) = place() else { return };
    let tar = |path: &[u8], what: What<'_>| {
        let mut tar = Tar::default();
        tar.member(path, what, 0o644, (0, 0));
        tar
    };
    let mut through = Tar::default();
    through.add("a", Link("/etc")).add("a/passwd", File(b"x"));
    let mut through_file = Tar::default();
    through_file.add("a", File(b"x")).add("a/b", File(b"x"));
    let mut both = Tar::default();
    both.add("etc/a", File(b"x")).add("usr/etc/b", File(b"x"));
    let mut huge = Tar::default();
    huge.pax("comment", &vec![b'x'; 2 << 20])
        .add("a", File(b"x"));
    let mut directory = Tar::default();
    directory.add("d/", Dir).add("link", Hard("d"));
    let mut sparse = Tar::default();
    sparse.header(b"sparse", tar::EntryType::GNUSparse, 0, 0o644, (0, 0), b"");
    let mut short = Tar::default();
    short.header(
        b"short",
        tar::EntryType::Regular,
        1 << 40,
        0o644,
        (0, 0),
        b"",
    );
    let mut target = Tar::default();
    target.header(
        b"link",
        tar::EntryType::Symlink,
        0,
        0o777,
        (0, 0),
        b"\xff\xfe",
    );
    for (what, tar, expected) in [
        ("absolute", tar(b"/etc/passwd", File(b"x")), "/etc/passwd"),
        ("upwards", tar(b"usr/../../x", File(b"x")), "usr/../../x"),
        ("through a link", through, "symbolic link 'a' -> '/etc'"),
        ("through a file", through_file, "'a', which is a file"),
        (
            "a hard link out of the root",
            tar(b"x", Hard("../../etc/shadow")),
            "../../etc/shadow",
        ),
        (
            "a hard link to an absolute path",
            tar(b"x", Hard("/etc/shadow")),
            "/etc/shadow",
        ),
        (
            "a hard link to nothing",
            tar(b"x", Hard("nothing")),
            "/nothing, which is not there",
        ),
        (
            "a hard link to a directory",
            directory,
            "hard link to the directory /d",
        ),
        (
            "a name that is not UTF-8",
            tar(b"usr/\xff", File(b"x")),
            "UTF-8",
        ),
        ("a target that is not UTF-8", target, "target is not UTF-8"),
        ("a huge header", huge, "1048576"),
        ("a sparse file", sparse, "sparse"),
        ("a file cut short", short, "short"),
        ("a fifo", tar(b"usr/fifo", Fifo), "--skip-special-files"),
        ("two etc", both, "both /etc and /usr/etc"),
    ] {
        let image = ImageWriter::plain(vec![tar.end()]);
        place.refuses(what, &image, &[expected]);
    }
    let skipped = ImageWriter::plain(vec![tar(b"usr/fifo", Fifo).end()]).write(&place.layout());
    run(&[
        "import",
        "-q",
        "--repo",
        &place.repo,
        &skipped,
        "--skip-special-files",
    ]);
}

/// libostree follows directories by recursion, and would break on these.
#[test]
fn directories_that_lie_too_deep() {
    let Some((place, _)) = place() else { return };
    for depth in [257, 100_000] {
        let mut tar = Tar::default();
        tar.add(&"d/".repeat(depth), What::Dir);
        place.refuses(
            "depth",
            &ImageWriter::plain(vec![tar.end()]),
            &["256 directories deep"],
        );
    }
    let mut tar = Tar::default();
    // A name that is there twice is what it was last.
    tar.add(&"d/".repeat(256), What::Dir)
        .add("usr/a", What::File(b"1"))
        .add("usr/a", What::File(b"2"));
    let image = ImageWriter::plain(vec![tar.end()]).write(&place.layout());
    run(&["import", "-q", "--repo", &place.repo, "-b", "test", &image]);
    ostree(&place.repo, &["fsck", "-q"]);
    assert_eq!(ostree(&place.repo, &["cat", "test", "/usr/a"]), "2");
}
