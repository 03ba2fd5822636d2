//! What others have made, read: images that were squashed, edited in place or written by other
//! builders are what a container of them shows; names of others never reach a terminal as they are;
//! what no file system holds is refused, and by writing as by reading.

use std::collections::BTreeMap;
use std::process::Command;

use crate::common::*;
use serde_json::Value;

/// Where an object of an encapsulated commit is in a container.
fn object_of(members: &[Member], path: &str) -> Member {
    let link = members.iter().find(|member| member.path == path).unwrap();
    let object = members.iter().find(|member| member.path == link.link);
    object.unwrap().clone()
}

/// An encapsulated image of three packages, and its members.
fn encapsulated(dir: &std::path::Path) -> (ImageWriter, Vec<Member>) {
    let rootfs = three_packages(dir, "rootfs", "2-1", "x");
    build_layout(dir, &rootfs, &[]);
    let members = read_image(&dir.join("out")).layers.concat();
    (ImageWriter::read(&dir.join("out")), members)
}

/// All layers in one, as `podman build --squash-all` and `podman export` make it: in the order of
/// names, with the content at the first name and hard links to it at the others.
fn squashed(members: &[Member]) -> Vec<u8> {
    let mut tar = Tar::default();
    let mut seen: BTreeMap<String, String> = BTreeMap::new();
    let mut by_path: BTreeMap<String, Member> = BTreeMap::new();
    for member in members {
        by_path.insert(member.path.clone(), member.clone());
    }
    for (path, member) in by_path.iter().filter(|(path, _)| !path.is_empty()) {
        let name = format!("/{path}");
        let object = if member.kind == tar::EntryType::Link {
            &member.link
        } else {
            path
        };
        match member.kind {
            tar::EntryType::Directory => tar.add(&name, What::Dir),
            tar::EntryType::Symlink => tar.add(&name, What::Link(&member.link)),
            _ => match seen.get(object) {
                Some(first) => tar.add(&name, What::Hard(first)),
                None => tar.add(&name, What::File(&by_path[object].content)),
            },
        };
        seen.entry(object.clone()).or_insert(name);
    }
    tar.end()
}

#[test]
fn a_squashed_image_is_an_ordinary_one() {
    if !has("ostree") || !is_root() {
        return;
    }
    let dir = scratch();
    let (image, members) = encapsulated(dir.path());
    let repo = repository(dir.path(), "repo", "bare");
    for labels in [
        image.labels.clone(),
        serde_json::json!({"ostree.final-diffid": ""}),
    ] {
        let mut squashed_image = ImageWriter::plain(vec![squashed(&members)]);
        squashed_image.labels = labels;
        let layout = squashed_image.write(&dir.path().join("squashed"));
        run(&["import", "-q", "--repo", &repo, "-b", "test", &layout]);
        ostree(&repo, &["fsck", "-q"]);
        let found = ostree(&repo, &["cat", "test", "/usr/bin/a"]);
        assert_eq!(found, "a".repeat(90_000));
        let top = ostree(
            &repo,
            &["ls", "-R", "--nul-filenames-only", "test", "/sysroot"],
        );
        assert_eq!(top.trim_end_matches('\0'), "/sysroot");
        let told = run_json(&["inspect", &layout]);
        assert_eq!(told["encapsulated"], false);
        assert_eq!(told["packages"].as_array().unwrap().len(), 3);
    }
}

#[test]
fn a_file_edited_in_place_is_what_its_object_says_now() {
    if !has("ostree") || !is_root() {
        return;
    }
    let dir = scratch();
    let (mut image, members) = encapsulated(dir.path());
    let repo = repository(dir.path(), "repo", "bare");
    let object = object_of(&members, "usr/bin/a").path;
    let other = object_of(&members, "usr/bin/c").path;
    // `echo x >> usr/bin/a` in a container on vfs, and a link to an object that a lower layer has.
    let mut top = Tar::default();
    top.add(&object, What::File(b"edited"));
    top.add("usr/bin/a", What::Hard(&object));
    top.add("usr/bin/d", What::Hard(&other));
    image.layers.push(top.end());
    image.blobs.push(None);
    let layout = image.write(&dir.path().join("edited"));
    run(&["import", "-q", "--repo", &repo, "-b", "test", &layout]);
    ostree(&repo, &["fsck", "-q"]);
    assert_eq!(ostree(&repo, &["cat", "test", "/usr/bin/a"]), "edited");
    assert_eq!(
        ostree(&repo, &["cat", "test", "/usr/bin/d"]),
        "c".repeat(50_000)
    );
    let told = run_json(&["inspect", &layout]);
    let last = told["layers"].as_array().unwrap().last().unwrap();
    assert_eq!(
        (&last["files"], &last["file_bytes"]),
        (&2.into(), &50_006.into())
    );
}

/// Packages behind an opaque whiteout, and files below a directory in whose place there is a link,
/// are not seen.
#[test]
fn inspect_tells_what_a_container_shows() {
    let dir = scratch();
    let status = "Package: a\nStatus: install ok installed\nArchitecture: all\nVersion: 1\n\n";
    let mut lower = Tar::default();
    lower.add("var/lib/dpkg/status", What::File(status.as_bytes()));
    lower
        .add("d/a", What::File(b"a"))
        .add("d/b/c", What::File(b"c"));
    let mut upper = Tar::default();
    upper.add("var/lib/dpkg/.wh..wh..opq", What::File(b""));
    upper.add("d", What::Link("var"));
    let image = ImageWriter::plain(vec![lower.end(), upper.end()]);
    let told = run_json(&["inspect", &image.write(&dir.path().join("image"))]);
    assert_eq!(told["packages"], Value::Array(Vec::new()));
    let files = [0, 1].map(|at| told["layers"][at]["files"].as_u64().unwrap());
    assert_eq!(files, [0, 1]);
}

/// What is not text but a command to a terminal is shown as an escape, wherever it comes from.
#[test]
fn nothing_that_others_named_moves_the_cursor() {
    let dir = scratch();
    let bad = "x\u{1b}[2J\u{9b}1m\u{202e}\r";
    let status =
        format!("Package: a\nStatus: install ok installed\nArchitecture: all\nVersion: 1{bad}\n\n");
    let mut tar = Tar::default();
    tar.add("var/lib/dpkg/status", What::File(status.as_bytes()));
    tar.add(&format!("opt/{bad}"), What::File(b"a"));
    let mut image = ImageWriter::plain(vec![tar.end()]);
    image.labels = serde_json::json!({"ostree.final-diffid": bad});
    let refused = image.write(&dir.path().join("refused"));
    image.labels = serde_json::json!({});
    let layout = image.write(&dir.path().join("image"));
    image
        .layers
        .push(Tar::default().add("opt/new", What::File(b"b")).end());
    image.blobs.push(None);
    let newer = image.write(&dir.path().join("newer"));
    let rootfs = tiny(dir.path());
    rootfs.file(&format!("opt/{bad}/file"), "x").settle();
    let fifo = Rootfs::new(dir.path().join("fifo"));
    fifo.dir(&format!("usr/{bad}"));
    let path = fifo.path.join(format!("usr/{bad}/fifo"));
    succeed(Command::new("mkfifo").arg(path));
    let output = format!("oci:{}", dir.path().join("out").display());
    let explained = format!("/opt/{bad}/file");
    let mut seen = 0;
    for arguments in [
        &["inspect", &refused][..],
        &["inspect", &layout, "--packages"],
        &["diff", &layout, &newer],
        &["plan", "--rootfs", rootfs.str(), "--explain", &explained],
        &["build", "--rootfs", rootfs.str(), "-o", &output, "-v", "-v"],
        &["build", "--rootfs", fifo.str(), "-o", &output],
        &[
            "build",
            "--rootfs",
            fifo.str(),
            "-o",
            &output,
            "--skip-special-files",
            "-v",
            "-v",
        ],
    ] {
        let got = helper().args(arguments).output().unwrap();
        for bytes in [&got.stdout, &got.stderr] {
            let text = String::from_utf8(bytes.clone()).unwrap();
            let moves = |c: char| c != '\n' && c.is_control() || c == '\u{202e}';
            assert!(!text.contains(moves), "{arguments:?}: {text:?}");
            seen += usize::from(text.contains("1b"));
        }
    }
    assert!(seen >= 3, "the names were not printed at all: {seen}");
}

/// A target longer than any link's, or a history of millions, is refused or costs nothing.
#[test]
fn what_no_file_system_holds_is_refused() {
    let Some((place, _)) = place("bare-user") else {
        return;
    };
    let mut target = Tar::default();
    target.add("link", What::Link(&"t".repeat(5000)));
    let mut name = Tar::default();
    name.add(&"n".repeat(1 << 18), What::File(b""));
    for (what, tar, why) in [
        (
            "target",
            target,
            "has 5000 bytes, and a target has at most 4095",
        ),
        ("name", name, "a name has at most 255"),
    ] {
        place.refuses(what, &ImageWriter::plain(vec![tar.end()]), &[why]);
    }
}
