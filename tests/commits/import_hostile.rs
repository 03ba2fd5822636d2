//! Hostile images, whose digests are all right: each is refused with an error that names what is
//! wrong, and the repository is as it was.

use std::time::{Duration, Instant};

use crate::common::*;

#[test]
fn hostile_layers() {
    use What::{Dir, Fifo, File, Hard, Link};
    let Some((place, _)) = place("bare") else {
        return;
    };
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
    let mut nul = Tar::default();
    nul.pax("path", b"usr/a\0b").add("x", File(b"x"));
    let mut nameless = Tar::default();
    nameless.add("", File(b"x"));
    let mut no_target = Tar::default();
    no_target.add("usr/link", Link(""));
    let mut attribute = Tar::default();
    attribute
        .xattr("user.large", &vec![b'x'; 500_000])
        .add("usr/large", File(b"x"));
    let mut two_sizes = Tar::default();
    two_sizes
        .pax("size", b"18446744073709551615")
        .add("usr/size", File(b"x"));
    for (what, tar, expected) in [
        ("a name with a NUL", nul, "a\\0b"),
        ("no name", nameless, "empty name"),
        ("no target", no_target, "usr/link"),
        ("an attribute that no file can have", attribute, "usr/large"),
        ("a size that no file has", two_sizes, "18446744073709551615"),
        (
            "the root a file",
            tar(b"./.", File(b"x")),
            "root is not a directory",
        ),
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
            "/etc/shadow, which is not there",
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

/// A directory lies as deep as its path is long, and no deeper.
#[test]
fn directories_that_lie_too_deep() {
    let Some((place, _)) = place("bare") else {
        return;
    };
    for depth in [2049, 100_000] {
        let mut tar = Tar::default();
        tar.add(&"d/".repeat(depth), What::Dir);
        place.refuses(
            "depth",
            &ImageWriter::plain(vec![tar.end()]),
            &["a path has at most 4095"],
        );
    }
    let mut tar = Tar::default();
    // A name that is there twice is what it was last.
    tar.add(&"d/".repeat(2048), What::Dir)
        .add("usr/a", What::File(b"1"))
        .add("usr/a", What::File(b"2"));
    let image = ImageWriter::plain(vec![tar.end()]).write(&place.layout());
    run(&["import", "-q", "--repo", &place.repo, "-b", "test", &image]);
    ostree(&place.repo, &["fsck", "-q"]);
    assert_eq!(ostree(&place.repo, &["cat", "test", "/usr/a"]), "2");
}

/// An encapsulated commit of objects that nobody would write, each under its right name.
fn encapsulated(root: &str, objects: &[(&str, Vec<u8>)]) -> ImageWriter {
    let meta = dirmeta(0o40755, &[]);
    let commit = commit_object(root, &sha256(&meta));
    let mut layer = Tar::default();
    let all = [("commit", commit), ("dirmeta", meta)];
    for (kind, object) in all.iter().chain(objects) {
        let sum = sha256(object);
        let name = format!("{OBJECTS}{}/{}.{kind}", &sum[..2], &sum[2..]);
        layer.add(&name, What::File(object));
    }
    let mut image = ImageWriter::plain(vec![layer.end()]);
    image.label_last();
    image
}

/// The name of each directory in a chain.
const NAME: &str = "directory-d";

/// `count` directories, each in the one after it; the first has `below` in it. Gives the objects
/// and the last one's name.
fn chain(count: usize, below: &[(&str, &str, &str)]) -> (String, Vec<(&'static str, Vec<u8>)>) {
    let meta = sha256(&dirmeta(0o40755, &[]));
    let mut objects = vec![("dirtree", dirtree(&[], below))];
    for _ in 1..count {
        let last = sha256(&objects[objects.len() - 1].1);
        objects.push(("dirtree", dirtree(&[], &[(NAME, &last, &meta)])));
    }
    (sha256(&objects[objects.len() - 1].1), objects)
}

/// One that is shared may have a longer path than where it is met first.
#[test]
fn a_shared_directory_hides_no_depth() {
    let Some((place, _)) = place("bare") else {
        return;
    };
    for (levels, names) in [(200, ["a", "z"]), (200, ["z", "a"]), (127, ["a", "z"])] {
        let meta = sha256(&dirmeta(0o40755, &[]));
        let (shared, mut objects) = chain(levels, &[]);
        let (long, more) = chain(levels, &[(NAME, &shared, &meta)]);
        objects.extend(more);
        let mut listed = [(names[0], &*shared, &*meta), (names[1], &*long, &*meta)];
        listed.sort_unstable();
        let root = dirtree(&[], &listed);
        objects.push(("dirtree", root.clone()));
        let image = encapsulated(&sha256(&root), &objects);
        if levels == 200 {
            place.refuses("shared", &image, &["more than 4095 bytes"]);
        } else {
            let image = image.write(&place.layout());
            run(&["import", "-q", "--repo", &place.repo, "-b", "deep", &image]);
            ostree(&place.repo, &["fsck", "-q"]);
        }
    }
}

/// Thirty directories, each of which has the one before it twice, are a thousand million.
#[test]
fn few_objects_cannot_stand_for_more_than_a_machine_holds() {
    let Some((place, _)) = place("bare") else {
        return;
    };
    let meta = sha256(&dirmeta(0o40755, &[]));
    let mut objects = vec![("dirtree", dirtree(&[], &[]))];
    for _ in 0..30 {
        let last = sha256(&objects[objects.len() - 1].1);
        let twice = dirtree(&[], &[("a", &last, &meta), ("b", &last, &meta)]);
        objects.push(("dirtree", twice));
    }
    let root = sha256(&objects[objects.len() - 1].1);
    let mut image = encapsulated(&root, &objects);
    let mut top = Tar::default();
    image.layers.push(top.add("x", What::File(b"x")).end());
    image.blobs.push(None);
    let start = Instant::now();
    place.refuses("many", &image, &["4194304 files and directories"]);
    assert!(start.elapsed() < Duration::from_secs(10));
}

#[test]
fn metadata_that_is_none() {
    let Some((place, _)) = place("bare") else {
        return;
    };
    let meta = sha256(&dirmeta(0o40755, &[]));
    let empty = dirtree(&[], &[]);
    let below = sha256(&empty);
    for (what, root, expected) in [
        (
            "a name with a slash",
            dirtree(&[], &[("a/b", &below, &meta)]),
            "a/b",
        ),
        (
            "a name that leads up",
            dirtree(&[], &[("..", &below, &meta)]),
            "..",
        ),
        (
            "a name twice",
            dirtree(&[], &[("a", &below, &meta), ("a", &below, &meta)]),
            "twice",
        ),
        (
            "a name of a file and a directory",
            dirtree(&[("a", &below)], &[("a", &below, &meta)]),
            "twice",
        ),
        ("no dirtree", vec![0xff; 200], "dirtree"),
        ("no bytes", Vec::new(), "dirtree"),
    ] {
        let sum = sha256(&root);
        let objects = [("dirtree", root), ("dirtree", empty.clone())];
        place.refuses(what, &encapsulated(&sum, &objects), &[&sum, expected]);
    }
    let objects = [
        ("dirtree", empty.clone()),
        ("dirmeta", dirmeta(0o100644, &[])),
    ];
    let sum = sha256(&objects[1].1);
    place.refuses(
        "of a file",
        &encapsulated(&below, &objects),
        &[&sum, "33188"],
    );
}

/// Whiteouts whose names hide nothing that a file system has.
#[test]
fn whiteouts_of_nothing_hide_nothing() {
    let Some((place, _)) = place("bare") else {
        return;
    };
    let mut base = Tar::default();
    base.add("usr/a", What::File(b"a"))
        .add("link", What::Link("usr"));
    let mut top = Tar::default();
    for name in [
        ".wh.",
        ".wh..",
        ".wh...",
        "usr/.wh..",
        "usr/.wh...",
        "usr/.wh..wh.plnk",
        "link/.wh.a",
        "usr/a/.wh.b",
        "usr/a/.wh..wh..opq",
        "no/such/.wh.a",
        "no/such/.wh..wh..opq",
        ".wh..wh.a",
    ] {
        top.add(name, What::File(b""));
    }
    let image = ImageWriter::plain(vec![base.end(), top.end()]).write(&place.layout());
    run(&["import", "-q", "--repo", &place.repo, "-b", "test", &image]);
    let found = ostree(&place.repo, &["ls", "-R", "--nul-filenames-only", "test"]);
    assert_eq!(found, "/\0/link\0/usr\0/usr/a\0");
}
