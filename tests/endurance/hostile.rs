//! What nobody should have to meet: blobs that are swapped while they are read, inputs that stand
//! for gigabytes, limits of the system. Each is refused with an error that says where, or done in
//! bounded memory.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::common::*;

/// A layer becomes a link to a file of the host of the same size, or other bytes, while `import`
/// reads.
#[test]
fn a_blob_that_is_swapped_while_it_is_imported() {
    let Some((place, image)) = place("archive") else {
        return;
    };
    let source = image.write(&place.layout());
    let blobs = place.layout().join("blobs/sha256");
    let secret = place.dir.path().join("secret");
    let largest = image.layers.iter().max_by_key(|layer| layer.len()).unwrap();
    let name = sha256(largest);
    let blob = blobs.join(&name);
    let mut other = largest.clone();
    let middle = other.len() / 2;
    other[middle..middle + 6].copy_from_slice(b"SECRET");
    fs::write(&secret, &other).unwrap();
    let link = blobs.join("link");
    let stop = AtomicBool::new(false);
    let (mut good, mut refused) = (0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for turn in 0.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                match turn % 3 {
                    0 => symlink(&secret, &link).unwrap(),
                    1 => fs::write(&link, &other).unwrap(),
                    _ => fs::write(&link, largest).unwrap(),
                }
                fs::rename(&link, &blob).unwrap();
                std::thread::sleep(std::time::Duration::from_millis(turn % 7));
            }
        });
        for _ in 0..12 {
            let repo = repository(place.dir.path(), "swapped", "archive");
            let done = helper()
                .args(["import", "-q", "--repo", &repo, "-b", "b", &source])
                .output()
                .unwrap();
            let said = stderr(&done);
            match done.status.code() {
                Some(0) => {
                    assert_eq!(ostree(&repo, &["rev-parse", "b"]), place.commit);
                    good += 1;
                }
                Some(1) => {
                    assert!(said.contains(&name), "{said}");
                    assert_eq!(ostree(&repo, &["refs"]), "");
                    refused += 1;
                }
                status => panic!("{status:?}: {said}"),
            }
            ostree(&repo, &["fsck", "-q"]);
            fs::remove_dir_all(&repo).unwrap();
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(good + refused, 12);
    // And once more without luck.
    fs::remove_file(&blob).unwrap();
    symlink(&secret, &blob).unwrap();
    let said = fail(1, &["import", "--repo", &place.repo, "-b", "b", &source]);
    assert!(
        said.contains(&name) && said.contains("symbolic link"),
        "{said}"
    );
}

/// It hung.
#[test]
fn an_archive_that_is_a_fifo() {
    let dir = scratch();
    let fifo = dir.path().join("fifo").display().to_string();
    succeed(Command::new("mkfifo").arg(&fifo));
    let source = format!("oci-archive:{fifo}");
    for arguments in [&["inspect", &source][..], &["diff", &source, &source]] {
        let said = fail(1, arguments);
        assert!(
            said.contains(&fifo) && said.contains("not a regular file"),
            "{said}"
        );
    }
}

/// A megabyte of gzip that is a gigabyte of one entry.
#[test]
fn a_changelog_of_a_gigabyte() {
    let dir = scratch();
    let line = b"  * A line that never ends the entry that it is in.\n";
    let piece = gzip(&line.repeat((1 << 20) / line.len()));
    let head = gzip(b"foo (2) unstable; urgency=low\n\n");
    let changelog = [head, piece.repeat(1024)].concat();
    let made = |name: &str, version: &str, changelog: &[u8]| {
        let rootfs = Rootfs::new(dir.path().join(name));
        let path = "usr/share/doc/foo/changelog.Debian.gz";
        rootfs
            .file(path, changelog)
            .file("usr/bin/foo", version)
            .packages(&[("foo", "foo", version, &["usr/bin/foo", path])])
            .settle();
        let output = format!("oci:{}", dir.path().join(format!("{name}.out")).display());
        run(&["build", "-q", "--rootfs", rootfs.str(), "-o", &output]);
        output
    };
    let (old, new) = (made("old", "1", b""), made("new", "2", &changelog));
    let done = in_memory(600_000, &["diff", &old, &new, "--changelog", "--json"]);
    let said = stderr(&done);
    assert!(done.status.success(), "{said}");
    assert!(
        said.contains("the changelog of foo tells too much"),
        "{said}"
    );
    assert!(done.stdout.len() < 4 << 20, "{}", done.stdout.len());
}

/// The largest attribute that Linux has goes where there is room for it, and is an error elsewhere.
#[test]
fn an_attribute_of_64_kib() {
    for (mode, bytes, expected) in [
        ("archive", 65_536, None),
        ("bare-user", 65_536, Some("usr/large")),
        ("archive", 65_537, Some("at most 65536")),
    ] {
        let Some((place, _)) = place(mode) else {
            return;
        };
        let mut tar = Tar::default();
        tar.xattr("user.large", &vec![b'x'; bytes])
            .add("usr/large", What::File(b"x"));
        let image = ImageWriter::plain(vec![tar.end()]);
        match expected {
            Some(why) => place.refuses(mode, &image, &[why]),
            None => {
                let source = image.write(&place.layout());
                run(&["import", "-q", "--repo", &place.repo, "-b", "b", &source]);
                ostree(&place.repo, &["fsck", "-q"]);
                run(&["inspect", &source]);
            }
        }
    }
}

/// A million took 844 MB; what is kept of each is a few words.
#[test]
fn many_stanzas_take_little_memory() {
    let dir = scratch();
    let rootfs = tiny(dir.path());
    let mut status = String::new();
    for at in 0..300_000 {
        let source = at / 2;
        status += &format!(
            "Package: package-{at:07}\nStatus: install ok installed\nSection: libs\nArchitecture: amd64\n\
             Source: source-{source:07} (1.{source}-1)\nVersion: 1.{source}-1+b1\n\n"
        );
    }
    rootfs.file("var/lib/dpkg/status", status);
    // Threads reserve address space that they do not use.
    let arguments = ["plan", "--rootfs", rootfs.str(), "-j", "1"];
    let done = in_memory(250_000, &arguments);
    assert!(done.status.success(), "{}", stderr(&done));
}

/// Where there are no threads to be had there was a panic.
#[test]
fn as_few_threads_as_there_are() {
    if !is_root() || !has("setpriv") || !has("prlimit") {
        return;
    }
    // A user that nobody else is, in a place that it reaches: the limit counts its processes, and
    // spares root's.
    const USER: u32 = 54_321;
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let program = dir.path().join("program");
    fs::copy(env!("CARGO_BIN_EXE_apt-ostree-helper"), &program).unwrap();
    let rootfs = three_packages(dir.path(), "rootfs", "1", "note");
    let place = dir.path().join("place");
    fs::create_dir(&place).unwrap();
    chown(&place, Some(USER), Some(USER)).unwrap();
    let mut outcomes = Vec::new();
    for threads in 1..=6 {
        let output = format!("oci:{}/out{threads}", place.display());
        let limit = format!("--nproc={threads}:{threads}");
        let user = USER.to_string();
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid", &user, "--regid", &user, "--clear-groups"])
            .args(["prlimit", &limit])
            .arg(&program)
            .args([
                "build",
                "-q",
                "-j",
                "8",
                "--rootfs",
                rootfs.str(),
                "-o",
                &output,
            ]);
        let done = command.output().unwrap();
        let said = stderr(&done);
        assert!(!said.contains("panicked"), "{threads}: {said}");
        match done.status.code() {
            Some(0) => drop(read_image(&place.join(format!("out{threads}")))),
            Some(1) => assert!(said.contains("error: "), "{threads}: {said}"),
            status => panic!("{threads}: {status:?}: {said}"),
        }
        outcomes.push(done.status.success());
    }
    assert!(
        outcomes[2..].iter().all(|ended_well| *ended_well),
        "{outcomes:?}"
    );
}

/// An image for another machine is told, and the index says what the config says.
#[test]
fn an_image_for_another_machine_is_told() {
    let dir = scratch();
    let rootfs = Rootfs::new(dir.path().join("rootfs"));
    let status = "Package: foo\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1\n\n";
    rootfs.file("var/lib/dpkg/status", status).settle();
    let config = dir.path().join("config.json");
    for (architecture, os, warnings) in [
        (
            "arm64",
            "linux",
            &["it is for arm64, and its packages are for amd64"][..],
        ),
        ("amd64", "windows", &["the image is for windows"]),
        ("arm64", "windows", &["for arm64", "for windows"]),
        ("amd64", "linux", &[]),
    ] {
        let text = format!(
            r#"{{"architecture": "{architecture}", "os": "{os}", "config": {{}},
                "rootfs": {{"type": "layers", "diff_ids": []}}}}"#
        );
        fs::write(&config, text).unwrap();
        let layout = dir.path().join("out");
        let output = format!("oci:{}", layout.display());
        let done = helper()
            .args(["build", "--rootfs", rootfs.str(), "-o", &output, "--config"])
            .arg(&config)
            .output()
            .unwrap();
        let said = stderr(&done);
        assert!(done.status.success(), "{said}");
        for warning in warnings {
            assert!(said.contains(warning), "{warning}: {said}");
        }
        let told = said.matches("container tools will").count();
        assert_eq!(told, warnings.len(), "{said}");
        let image = read_image(&layout);
        assert_eq!(image.config["os"], os);
        let index = fs::read(layout.join("index.json")).unwrap();
        let index: serde_json::Value = serde_json::from_slice(&index).unwrap();
        let platform = &index["manifests"][0]["platform"];
        assert_eq!(platform["architecture"], architecture);
        assert_eq!(platform["os"], os);
    }
}

/// A line end in a name makes no line of its own: what prints tells it as an escape.
#[test]
fn a_line_end_in_a_name_breaks_no_line() {
    const FORGED: &str = "FORGED: all is well";
    let dir = scratch();
    let bad = format!("x\n{FORGED}\n");
    let at = |name: &str| dir.path().join(name).display().to_string();
    let fifo = Rootfs::new(dir.path().join("fifo"));
    fifo.dir(&format!("usr/{bad}"));
    let special = fifo.path.join(format!("usr/{bad}/fifo"));
    succeed(Command::new("mkfifo").arg(special));
    let rootfs = tiny(dir.path());
    rootfs.file(&format!("opt/{bad}/file"), "x").settle();
    rootfs.link(&format!("opt/{bad}/link"), &bad);
    let hole = rootfs.path.join(format!("opt/{bad}/future"));
    succeed(Command::new("touch").args(["-d", "2100-01-01"]).arg(hole));
    let mut tar = Tar::default();
    tar.add(&format!("usr/{bad}"), What::File(b"a"))
        .add("usr/hard", What::Hard(&format!("none/{bad}")));
    let mut image = ImageWriter::plain(vec![tar.end()]);
    let nothing = image.write(&dir.path().join("nothing"));
    let mut tar = Tar::default();
    tar.add(&format!("usr/{bad}"), What::File(b"a"));
    image = ImageWriter::plain(vec![tar.end()]);
    image.labels = serde_json::json!({"ostree.final-diffid": bad, bad.clone(): bad});
    let labelled = image.write(&dir.path().join("labelled"));
    let output = format!("oci:{}", at("out"));
    let in_it = format!("/opt/{bad}/file");
    let mut seen = 0;
    for arguments in [
        &["inspect", &nothing][..],
        &["inspect", &nothing, "--path", &in_it],
        &["inspect", &labelled],
        &["plan", "--rootfs", rootfs.str(), "--explain", &in_it],
        &["build", "--rootfs", rootfs.str(), "-o", &output, "-v", "-v"],
        &["build", "--rootfs", &bad, "-o", &output],
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
        &["import", "--repo", &bad, "-b", "b", &nothing],
        &["lint", rootfs.str()],
        &["umount", &bad],
    ] {
        let got = helper().args(arguments).output().unwrap();
        for bytes in [&got.stdout, &got.stderr] {
            let text = String::from_utf8(bytes.clone()).unwrap();
            let forged = text.lines().find(|line| line.starts_with("FORGED"));
            assert_eq!(forged, None, "{arguments:?}: {text}");
            seen += usize::from(text.contains(FORGED));
        }
    }
    assert!(seen >= 5, "the names were hardly printed: {seen}");
}

/// Directories `depth` deep below an empty root; no path of the system is that long.
fn make_deep(root: &std::path::Path, depth: usize) {
    let _ = succeed(Command::new("rm").arg("-rf").arg(root));
    fs::create_dir(root).unwrap();
    let mut below = vec![root.display().to_string()];
    let mut left = depth;
    while left > 0 {
        let some = left.min(1000);
        left -= some;
        let path = vec!["a"; some].join("/");
        let change: Vec<String> = below.iter().map(|dir| format!("cd -P {dir}")).collect();
        let script = format!("{} && mkdir -p {path}", change.join(" && "));
        succeed(Command::new("bash").args(["-c", &script]));
        below.push(path);
    }
}

/// `build` and `commit` took a tree 262 directories deep that `import` and `encapsulate` refused.
#[test]
fn the_deepest_tree_is_the_same_for_every_command() {
    if !has("ostree") {
        return;
    }
    let dir = scratch();
    let root = dir.path().join("deep");
    let tree = root.to_str().unwrap();
    let out = format!("oci:{}", dir.path().join("out").display());
    let repo = repository(dir.path(), "repo", "bare-user");
    // "a/a/.../a" has 4,095 bytes then.
    make_deep(&root, 2048);
    let build = ["build", "-q", "--json", "--rootfs", tree, "-o", &out];
    let built: serde_json::Value = serde_json::from_str(&run(&build)).unwrap();
    let commit = [
        "commit", "-q", "--repo", &repo, "--branch", "c", "--rootfs", tree,
    ];
    run(&commit);
    run(&["import", "-q", "--repo", &repo, "--branch", "i", &out]);
    let imported = ostree(&repo, &["rev-parse", "i"]);
    assert_eq!(built["commit"], imported.trim());
    let again = format!("oci:{}", dir.path().join("again").display());
    run(&["encapsulate", "-q", "--repo", &repo, "c", &again]);

    make_deep(&root, 2049);
    ostree(&repo, &["commit", "-b", "deeper", tree]);
    for arguments in [
        &build[..],
        &commit[..],
        &["encapsulate", "-q", "--repo", &repo, "deeper", &again],
    ] {
        let said = fail(1, arguments);
        assert!(said.contains("4,095") || said.contains("4095"), "{said}");
    }
    succeed(Command::new("rm").arg("-rf").arg(&root));
}
