//! Images become commits: what `build` made comes back as it was, and what others made is applied
//! layer by layer as a runtime would.

use std::fs;
use std::path::{Path, PathBuf};

use crate::common::{
    Files, ImageWriter, Tar, What, build_json, differences, fail, files, gzip, has, helper,
    in_a_checkout, is_root, keys, odd, ostree, read_image, read_tree, repository, run, scratch,
    stderr, tiny,
};
use serde_json::Value;

fn can_run() -> bool {
    has("ostree") && is_root()
}

fn import(repo: &str, image: &str, extra: &[&str]) -> String {
    let base = ["import", "-q", "--repo", repo, "-b", "test", image];
    let commit = run(&[&base[..], extra].concat());
    assert_eq!(ostree(repo, &["rev-parse", "test"]), commit);
    ostree(repo, &["fsck", "-q"]);
    commit
}

fn checkout(dir: &Path, repo: &str) -> PathBuf {
    let path = dir.join("checkout");
    let _ = fs::remove_dir_all(&path);
    ostree(repo, &["checkout", "test", path.to_str().unwrap()]);
    path
}

/// What a repository has for good; the branch, and what layers were imported, is written anew.
fn objects(repo: &str) -> Files {
    let mut files = files(repo);
    let is_below = |path: &Path, dir: &str| path.starts_with(Path::new(repo).join(dir));
    let is_new = |path: &Path| is_below(path, "refs") || is_below(path, "extensions");
    files.retain(|path, file| file.is_some() && !is_new(path));
    files
}

#[test]
fn what_build_made_comes_back_as_it_was() {
    if !can_run() {
        return;
    }
    let (dir, rootfs) = odd();
    let large: Vec<u8> = (0..900_000u32).map(|n| (n % 251) as u8).collect();
    rootfs.file("usr/share/large", large).settle();
    let cases = [
        ("oci:", "1", "1", "none", "bare"),
        ("oci:", "1", "64", "gzip", "bare-user"),
        ("oci-archive:", "2", "3", "zstd", "archive"),
        ("", "2", "64", "gzip", "bare"),
    ];
    for (transport, version, layers, compression, mode) in cases {
        let image = format!("{transport}{}", dir.path().join("image").display());
        let flags = [
            "--format-version",
            version,
            "--max-layers",
            layers,
            "--compression",
            compression,
        ];
        let said = build_json(&rootfs, &image, &flags);
        let repo = repository(dir.path(), "repo", mode);
        assert_eq!(said["commit"], import(&repo, &image, &[]), "{image} {mode}");
        let found = read_tree(&checkout(dir.path(), &repo));
        assert_eq!(differences(&found, &in_a_checkout(&rootfs)), "", "{mode}");
        // Once more: nothing is new, nothing is lost, nothing is written again.
        let before = objects(&repo);
        assert_eq!(said["commit"], import(&repo, &image, &[]));
        assert_eq!(objects(&repo), before, "{mode}");
        fs::remove_dir_all(&repo).unwrap();
        let made = dir.path().join("image");
        let _ = fs::remove_file(&made).or_else(|_| fs::remove_dir_all(&made));
    }
}

#[test]
fn a_plain_image_is_the_commit_that_it_names() {
    if !can_run() {
        return;
    }
    let (dir, rootfs) = odd();
    rootfs
        .file("usr/lib/modules/6.1/initramfs.img", "x")
        .settle();
    let layout = dir.path().join("image");
    let image = format!("oci:{}", layout.display());
    let build = [
        "build",
        "-q",
        "--rootfs",
        rootfs.str(),
        "-o",
        &image,
        "--format",
        "plain",
    ];
    run(&[&build[..], &["--max-layers", "5", "--compression", "zstd"]].concat());
    let repo = repository(dir.path(), "repo", "archive");
    let commit = import(&repo, &image, &[]);
    let named = &read_image(&layout).manifest["annotations"]["apt-ostree-helper.commit"];
    assert_eq!(*named, commit);
    assert_eq!(
        ostree(
            &repo,
            &["show", "--print-metadata-key=ostree.linux", "test"]
        ),
        "'6.1'"
    );
}

/// What the layers below make of a file system, each kind of change once.
fn layers() -> Vec<Vec<u8>> {
    use What::{Dir, File, Hard, Link};
    let mut base = Tar::default();
    base.member(b"./", Dir, 0o711, (0, 0))
        .add("etc/", Dir)
        .add("etc/conf", File(b"old"))
        .add("usr/bin/a", File(b"a"))
        .add("usr/bin/gone", File(b"gone"))
        .member(b"usr/share/", Dir, 0o2775, (1, 2))
        .add("usr/share/opaque/x", File(b"x"))
        .add("usr/share/opaque/deep/y", File(b"y"))
        .add("usr/share/late/x", File(b"x"))
        .add("usr/share/dir/file", File(b"in a directory"))
        .add("usr/share/file", File(b"a file"))
        .member(b"usr/share/remade/", Dir, 0o700, (1, 2))
        .add("usr/share/remade/old", File(b"old"))
        .add("lib", Link("usr/lib"))
        .add("dev/null", File(b"left out"))
        .add("tmp/", Dir);
    let mut change = Tar::default();
    change
        .add("etc/conf", File(b"new"))
        .add("usr/bin/.wh.gone", File(b""))
        .add("usr/share/opaque/.wh..wh..opq", File(b""))
        .add("usr/share/opaque/new", File(b"new"))
        // The marker may come after what it does not hide.
        .add("usr/share/late/deep/new", File(b"new"))
        .add("usr/share/late/.wh..wh..opq", File(b""))
        .add("usr/share/dir", File(b"now a file"))
        .add("usr/share/file/", Dir)
        .add("usr/share/file/in", File(b"now a directory"))
        // So may a whiteout: the directory is another one, wherever the marker stands.
        .add("usr/share/remade/new", File(b"new"))
        .add("usr/share/.wh.remade", File(b""))
        .add("usr/bin/hard", Hard("usr/bin/a"));
    let mut top = Tar::default();
    top.member(b"usr/share/", Dir, 0o700, (0, 0))
        .xattr("user.note", b"a\nb\0c")
        .xattr_of(b"usr/bin/b", 0o4755)
        .add("usr/bin/soft", Link("../../nowhere"))
        .add("usr/bin/again", Hard("usr/bin/b"))
        .add("usr/bin/.wh.never-was", File(b""))
        .add("usr/bin/.wh.hard", File(b""))
        .add("sysroot/ostree/repo/config", File(b"left out"));
    vec![base.end(), change.end(), top.end()]
}

trait WithAttributes {
    fn xattr_of(&mut self, path: &[u8], mode: u32) -> &mut Self;
}

impl WithAttributes for Tar {
    /// The file that the attributes before it are of.
    fn xattr_of(&mut self, path: &[u8], mode: u32) -> &mut Self {
        self.member(path, What::File(b"b"), mode, (3, 4_000_000))
    }
}

#[test]
fn layers_are_applied_one_on_the_other() {
    if !can_run() {
        return;
    }
    let dir = scratch();
    let image = ImageWriter::plain(layers()).write(&dir.path().join("image"));
    let repo = repository(dir.path(), "repo", "bare");
    import(&repo, &image, &[]);
    let nodes = read_tree(&checkout(dir.path(), &repo));
    let content = |path: &str| {
        let path = dir.path().join("checkout").join(path);
        fs::read_to_string(path).ok()
    };
    let expected = [
        ("usr/etc/conf", Some("new")),
        ("usr/bin/a", Some("a")),
        ("usr/bin/b", Some("b")),
        ("usr/bin/again", Some("b")),
        ("usr/bin/gone", None),
        ("usr/bin/hard", None),
        ("usr/share/opaque/x", None),
        ("usr/share/opaque/deep/y", None),
        ("usr/share/opaque/new", Some("new")),
        ("usr/share/late/x", None),
        ("usr/share/late/deep/new", Some("new")),
        ("usr/share/dir", Some("now a file")),
        ("usr/share/file/in", Some("now a directory")),
        ("usr/share/remade/new", Some("new")),
        ("usr/share/remade/old", None),
        ("dev/null", None),
        ("sysroot/ostree", None),
        ("etc", None),
    ];
    for (path, wanted) in expected {
        assert_eq!(content(path).as_deref(), wanted, "{path}");
    }
    let mode = |path: &str| (nodes[path].1, nodes[path].2, nodes[path].3);
    assert_eq!(mode(""), (0o711, 0, 0));
    assert_eq!(mode("usr/share"), (0o700, 0, 0));
    assert_eq!(mode("usr/bin"), (0o755, 0, 0), "nobody named it");
    assert_eq!(mode("usr/share/remade"), (0o755, 0, 0), "made anew");
    assert_eq!(mode("usr/bin/b"), (0o4755, 3, 4_000_000));
    assert_eq!(nodes["usr/bin/b"].5["user.note"], b"a\nb\0c");
    assert_eq!(nodes["usr/bin/soft"].4, "../../nowhere");
    assert!(nodes.contains_key("tmp"));
    assert_eq!(nodes.keys().filter(|path| path.contains(".wh.")).count(), 0);
}

#[test]
fn every_packing_and_dockers_types_are_read() {
    if !can_run() {
        return;
    }
    let dir = scratch();
    let zstd = |bytes: &[u8]| zstd::encode_all(bytes, 1).unwrap();
    let plain = layers();
    let wanted = {
        let repo = repository(dir.path(), "plain", "bare");
        import(
            &repo,
            &ImageWriter::plain(plain.clone()).write(&dir.path().join("image")),
            &[],
        )
    };
    let half = plain[0].len() / 2;
    let mut image = ImageWriter::plain(plain.clone());
    // Two members, two frames, one member.
    image.blobs = vec![
        Some([gzip(&plain[0][..half]), gzip(&plain[0][half..])].concat()),
        Some([zstd(&plain[1][..700]), zstd(&plain[1][700..])].concat()),
        Some(gzip(&plain[2])),
    ];
    for docker in [false, true] {
        image.docker = docker;
        let repo = repository(dir.path(), &format!("repo-{docker}"), "bare-user");
        assert_eq!(
            import(&repo, &image.write(&dir.path().join("image")), &[]),
            wanted
        );
    }
}

#[test]
fn layers_on_top_of_a_commit_change_its_tree() {
    if !can_run() {
        return;
    }
    let (dir, rootfs) = odd();
    let layout = dir.path().join("image");
    let output = format!("oci:{}", layout.display());
    let said = build_json(&rootfs, &output, &[]);
    let mut image = ImageWriter::read(&layout);
    let mut top = Tar::default();
    top.add("etc/new", What::File(b"new"))
        .add("usr/bin/.wh.bar", What::File(b""))
        .add("run/x", What::File(b"x"))
        .add("sysroot/ostree/repo/objects/xx", What::File(b"x"));
    image.layers.push(top.end());
    image.blobs.push(None);
    let repo = repository(dir.path(), "repo", "bare");
    let image = image.write(&dir.path().join("derived"));
    let json = run(&[
        "import", "-q", "--json", "--repo", &repo, "-b", "test", &image,
    ]);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["base"], said["commit"]);
    assert_ne!(json["commit"], said["commit"]);
    ostree(&repo, &["fsck", "-q"]);
    // A process that was killed while it moved objects has left the commit below marked.
    let mark = format!(
        "{repo}/state/{}.commitpartial",
        said["commit"].as_str().unwrap()
    );
    fs::write(&mark, "").unwrap();
    assert_eq!(json["commit"], import(&repo, &image, &[]));
    assert!(!Path::new(&mark).exists(), "every object is there");
    rootfs.file("etc/new", "new").mode("etc/new", 0o644);
    fs::remove_file(rootfs.at("usr/bin/bar")).unwrap();
    let mut wanted = in_a_checkout(&rootfs);
    wanted.retain(|path, _| !path.starts_with("sysroot/"));
    let found = read_tree(&checkout(dir.path(), &repo));
    assert_eq!(differences(&found, &wanted), "");
}

#[test]
fn a_signature_is_checked_when_a_key_is_given() {
    if !can_run() {
        return;
    }
    let dir = scratch();
    let rootfs = tiny(dir.path());
    let (secret, public) = keys(dir.path(), 1);
    let (_, stranger) = keys(dir.path(), 2);
    let layout = dir.path().join("signed");
    let signed = format!("oci:{}", layout.display());
    let build = ["build", "-q", "--rootfs", rootfs.str(), "-o"];
    run(&[&build[..], &[&signed, "--sign-commit", &secret]].concat());
    let unsigned = format!("oci:{}", dir.path().join("unsigned").display());
    run(&[&build[..], &[&unsigned]].concat());
    let plain = format!("oci:{}", dir.path().join("plain").display());
    run(&[&build[..], &[&plain, "--format", "plain"]].concat());
    let mut derived = ImageWriter::read(&layout);
    derived
        .layers
        .push(Tar::default().add("usr/x", What::File(b"x")).end());
    derived.blobs.push(None);
    let derived = derived.write(&dir.path().join("derived"));

    let repo = repository(dir.path(), "repo", "bare");
    for (image, key, why) in [
        (&signed, &stranger, "somebody else"),
        (&unsigned, &public, "not signed"),
        (&plain, &public, "carries no commit"),
        (&derived, &public, "no signature covers"),
    ] {
        let said = fail(
            1,
            &[
                "import",
                "--repo",
                &repo,
                "-b",
                "test",
                image,
                "--sign-verify",
                key,
            ],
        );
        assert!(said.contains(why), "{said}");
        assert_eq!(ostree(&repo, &["refs"]), "");
    }
    import(&repo, &signed, &["--sign-verify", &public]);
    let key = "--print-detached-metadata-key=ostree.sign.ed25519";
    let kept = ostree(&repo, &["show", key, "test"]);
    assert!(kept.len() > 64, "{kept}");
    import(&repo, &signed, &[]);

    // A signature stays with its commit on the way through an image.
    let again = dir.path().join("again");
    let output = format!("oci:{}", again.display());
    run(&["encapsulate", "-q", "--repo", &repo, "test", &output]);
    let other = repository(dir.path(), "other", "archive");
    import(&other, &output, &["--sign-verify", &public]);
}

#[test]
fn what_cannot_be_imported_is_said_before_anything_is_read() {
    if !has("ostree") {
        return;
    }
    let dir = scratch();
    let rootfs = tiny(dir.path());
    let image = format!("oci:{}", dir.path().join("image").display());
    run(&["build", "-q", "--rootfs", rootfs.str(), "-o", &image]);
    let only = repository(dir.path(), "only", "bare-user-only");
    let good = repository(dir.path(), "good", "bare-user");
    let named = format!("{image}:name");
    for (repo, image, why) in [
        (&only, image.as_str(), "bare-user-only"),
        (&good, "oci:/no/such", "/no/such"),
        (&good, "docker://127.0.0.1:1/none", "127.0.0.1:1/none"),
        (&good, &named, "name"),
    ] {
        let said = fail(1, &["import", "--repo", repo, image]);
        assert!(said.contains(why), "{said}");
    }
    let bad = ["import", "--repo", &good, &image, "-b", "not..a ref"];
    assert!(fail(1, &bad).contains("cannot be the name of a branch"));
    let output = helper()
        .args(["import", "--repo", &good, "nonsense:x"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("unknown transport"));
}
