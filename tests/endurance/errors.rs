//! Bad input: each kind gives an error that names what is wrong and what to do, and leaves
//! nothing behind.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixListener;

use crate::common::{fail, has, helper, is_root, odd_rootfs, run, scratch, stderr, tiny};

/// Builds to a layout that must not be there afterwards; the messages must have all `expected`.
fn refused(rootfs: &str, extra: &[&str], expected: &[&str]) {
    let dir = scratch();
    let out = dir.path().join("out");
    let output = format!("oci:{}", out.display());
    let arguments = [&["build", "--rootfs", rootfs, "-o", &output], extra].concat();
    let messages = fail(1, &arguments);
    for part in expected {
        assert!(messages.contains(part), "no '{part}' in: {messages}");
    }
    let left: Vec<_> = fs::read_dir(dir.path()).unwrap().collect();
    assert!(left.is_empty(), "left behind: {left:?}");
}

#[test]
fn no_such_rootfs() {
    refused(
        "/no/such/rootfs",
        &[],
        &["/no/such/rootfs", "no such directory"],
    );
}

#[test]
fn a_file_instead_of_a_directory() {
    let dir = scratch();
    let file = dir.path().join("file");
    fs::write(&file, "x").unwrap();
    refused(file.to_str().unwrap(), &[], &["is not a directory"]);
}

#[test]
fn special_files_are_named_or_skipped() {
    let dir = scratch();
    let rootfs = tiny(dir.path());
    let _socket = UnixListener::bind(rootfs.at("usr/socket")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        rootfs.at("usr/fifo"),
        rustix::fs::FileType::Fifo,
        0o600.into(),
        0,
    )
    .unwrap();
    let mut expected = vec![
        "/usr/socket: it is a socket",
        "/usr/fifo: it is a fifo",
        "--skip-special-files",
    ];
    if is_root() {
        let device = rustix::fs::makedev(1, 3);
        let kind = rustix::fs::FileType::CharacterDevice;
        rustix::fs::mknodat(
            rustix::fs::CWD,
            rootfs.at("usr/null"),
            kind,
            0o600.into(),
            device,
        )
        .unwrap();
        expected.push("/usr/null: it is a device node");
    }
    refused(rootfs.str(), &[], &expected);
    let out = format!("oci:{}", dir.path().join("out").display());
    run(&[
        "build",
        "--rootfs",
        rootfs.str(),
        "-o",
        &out,
        "--skip-special-files",
    ]);
}

#[test]
fn a_name_or_target_that_is_not_utf8() {
    let dir = scratch();
    let rootfs = tiny(dir.path());
    fs::write(rootfs.path.join(OsStr::from_bytes(b"usr/b\xffd")), "x").unwrap();
    let target = OsStr::from_bytes(b"\xfe");
    std::os::unix::fs::symlink(target, rootfs.at("usr/link")).unwrap();
    refused(
        rootfs.str(),
        &[],
        &[
            "/usr/b\\xffd: its name is not UTF-8",
            "/usr/link: the link's target is not UTF-8",
        ],
    );
}

#[test]
fn a_whiteout_name() {
    let dir = scratch();
    let rootfs = tiny(dir.path());
    rootfs.file("usr/.wh.gone", "");
    refused(rootfs.str(), &[], &["/usr/.wh.gone", "whiteout"]);
}

#[test]
fn many_faults_are_counted_not_listed() {
    let dir = scratch();
    let rootfs = tiny(dir.path());
    for n in 0..30 {
        rootfs.file(&format!("usr/.wh.{n}"), "");
    }
    refused(rootfs.str(), &[], &["and 20 more"]);
}

#[test]
fn both_etc_and_usr_etc() {
    let dir = scratch();
    let rootfs = tiny(dir.path());
    rootfs.file("etc/a", "").file("usr/etc/b", "");
    refused(rootfs.str(), &[], &["both /etc and /usr/etc", "merge them"]);
    refused(
        rootfs.str(),
        &["--format", "plain"],
        &["both /etc and /usr/etc"],
    );
}

#[test]
fn a_sysroot_that_is_no_directory() {
    let dir = scratch();
    let rootfs = tiny(dir.path());
    rootfs.link("sysroot", "usr");
    refused(rootfs.str(), &[], &["/sysroot", "is not a directory"]);
}

#[test]
fn a_broken_status_file() {
    let dir = scratch();
    let rootfs = tiny(dir.path());
    rootfs.file("var/lib/dpkg/status", "Package: foo\nthis is no field\n\n");
    refused(rootfs.str(), &[], &["/var/lib/dpkg/status", "line 2"]);
    rootfs.file(
        "var/lib/dpkg/status",
        b"Package: f\xffo\nStatus: install ok installed\n\n",
    );
    refused(rootfs.str(), &[], &["/var/lib/dpkg/status"]);
}

#[test]
fn a_database_that_is_not_where_it_is_said_to_be() {
    let dir = scratch();
    let rootfs = tiny(dir.path());
    refused(rootfs.str(), &["--admindir", "/opt/dpkg"], &["/opt/dpkg"]);
}

#[test]
fn an_attribute_that_no_layer_can_hold() {
    let dir = scratch();
    let rootfs = tiny(dir.path());
    rootfs.xattr("usr/bin/foo", "user.a=b", b"x");
    refused(
        rootfs.str(),
        &[],
        &["usr/bin/foo", "user.a=b", "setfattr -x"],
    );
}

#[test]
fn an_unwritable_destination() {
    let dir = scratch();
    let rootfs = tiny(dir.path());
    for output in ["oci:/proc/out", "/proc/out.tar"] {
        let messages = fail(1, &["build", "--rootfs", rootfs.str(), "-o", output]);
        assert!(messages.contains("/proc/out"), "{messages}");
    }
    let missing = dir.path().join("missing/out");
    for output in [
        format!("oci:{}", missing.display()),
        missing.display().to_string(),
    ] {
        let messages = fail(1, &["build", "--rootfs", rootfs.str(), "-o", &output]);
        assert!(
            messages.contains("there is no directory") && messages.contains("create it first"),
            "{messages}"
        );
    }
}

#[test]
fn a_destination_that_is_no_layout_is_left_alone() {
    let dir = scratch();
    let rootfs = tiny(dir.path());
    let out = dir.path().join("home");
    fs::create_dir(&out).unwrap();
    fs::write(out.join("precious"), "x").unwrap();
    let output = format!("oci:{}", out.display());
    let messages = fail(1, &["build", "--rootfs", rootfs.str(), "-o", &output]);
    assert!(messages.contains("not an OCI layout"), "{messages}");
    assert_eq!(fs::read_dir(&out).unwrap().count(), 1);
    let file = format!("oci:{}", out.join("precious").display());
    let messages = fail(1, &["build", "--rootfs", rootfs.str(), "-o", &file]);
    assert!(messages.contains("is not a directory"), "{messages}");
    let messages = fail(
        1,
        &[
            "build",
            "--rootfs",
            rootfs.str(),
            "-o",
            out.to_str().unwrap(),
        ],
    );
    assert!(messages.contains("is not a regular file"), "{messages}");
}

#[test]
fn an_output_inside_the_rootfs() {
    let dir = scratch();
    let rootfs = tiny(dir.path());
    let inside = format!("oci:{}/out", rootfs.str());
    let messages = fail(1, &["build", "--rootfs", rootfs.str(), "-o", &inside]);
    assert!(messages.contains("lies inside the rootfs"), "{messages}");
    rootfs.dir("tmp");
    let excluded = format!("oci:{}/tmp/out", rootfs.str());
    run(&["build", "--rootfs", rootfs.str(), "-o", &excluded]);
}

#[test]
fn usage_errors_have_status_2() {
    let dir = scratch();
    let rootfs = tiny(dir.path());
    let out = format!("oci:{}", dir.path().join("out").display());
    let base = ["build", "--rootfs", rootfs.str(), "-o", &out];
    for (arguments, expected) in [
        (&["--label", "novalue"][..], "K=V"),
        (&["--label", "ostree.commit=x"], "cannot be changed"),
        (&["--annotation", "novalue"], "K=V"),
        (&["--max-layers", "0"], "--max-layers"),
        (&["--threads", "0"], "--threads"),
        (&["--format-version", "3"], "1..=2"),
        (&["--compression", "xz"], "none, gzip or zstd"),
        (
            &["--compression", "gzip", "--compression-level", "13"],
            "1 to 12",
        ),
        (
            &["--compression", "none", "--compression-level", "3"],
            "compression is none",
        ),
        (&["--arch", "pdp11"], "unknown architecture"),
        (&["--timestamp", "yesterday"], "seconds since 1970"),
        (&["--tag", "not a tag"], "cannot name an image"),
        (&["--prune", "/"], "whole rootfs"),
        (&["--prune", "usr/../etc"], "'..'"),
        (&["--iidfile", "/no/such/dir/iid"], "no directory"),
        (&["-o", "foo:bar"], "unknown transport"),
        (&["--no-such-option"], "--no-such-option"),
    ] {
        // A later -o replaces none: it is an error of its own, so the base's is left out then.
        let base = if arguments[0] == "-o" {
            &base[..3]
        } else {
            &base[..]
        };
        let messages = fail(2, &[base, arguments].concat());
        assert!(messages.contains(expected), "{arguments:?}: {messages}");
    }
    let clash = format!("{out}:one");
    let messages = fail(
        2,
        &[
            "build",
            "--rootfs",
            rootfs.str(),
            "-o",
            &clash,
            "--tag",
            "two",
        ],
    );
    assert!(messages.contains("two names"), "{messages}");
    let output = helper()
        .args(base)
        .env("SOURCE_DATE_EPOCH", "soon")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("SOURCE_DATE_EPOCH"));
    assert!(!dir.path().join("out").exists());
}

#[test]
fn a_config_that_is_none() {
    let dir = scratch();
    let rootfs = tiny(dir.path());
    let config = dir.path().join("config.json");
    fs::write(&config, "{}").unwrap();
    let config = config.to_str().unwrap();
    refused(
        rootfs.str(),
        &["--config", config],
        &[config, "neither an OCI config"],
    );
    refused(rootfs.str(), &["--config", "/no/such"], &["/no/such"]);
}

/// A full disk is seen when the last byte is flushed, at the latest: an error, no panic, and the
/// old image stays.
#[test]
fn a_full_disk_loses_nothing() {
    if !is_root() {
        return;
    }
    let dir = scratch();
    let rootfs = odd_rootfs(dir.path().join("rootfs"));
    let script = r#"
        set -eu
        mount -t tmpfs -o size=400k tmpfs "$1"
        mkdir "$1/small"; echo x > "$1/small/f"
        "$2" build --rootfs "$1/small" -o "oci:$1/out" -q > /dev/null
        before=$(find "$1/out" -type f | sort | xargs sha256sum)
        status=0
        "$2" build --rootfs "$3" -o "oci:$1/out" 2> "$4" || status=$?
        test "$status" = 1
        status=0
        "$2" build --rootfs "$3" --compression none -o "$1/archive" 2>> "$4" || status=$?
        test "$status" = 1
        test "$before" = "$(find "$1/out" -type f | sort | xargs sha256sum)"
        test "$(ls -A "$1")" = "$(printf 'out\nsmall')"
    "#;
    let disk = dir.path().join("disk");
    fs::create_dir(&disk).unwrap();
    let messages = dir.path().join("messages");
    let output = std::process::Command::new("unshare")
        .args(["-m", "--propagation", "private", "sh", "-c", script, "sh"])
        .arg(&disk)
        .arg(env!("CARGO_BIN_EXE_apt-ostree-helper"))
        .arg(&rootfs.path)
        .arg(&messages)
        .output()
        .unwrap();
    let messages = fs::read_to_string(&messages).unwrap_or_default();
    assert!(output.status.success(), "{}\n{messages}", stderr(&output));
    assert!(messages.contains("No space left on device"), "{messages}");
}

/// An archive repository on a full disk without libostree's check for free space: the last write of
/// a compressed object failed, `commit` and `import` ended with 0, and `ostree fsck` was unhappy.
#[test]
fn a_repository_on_a_full_disk_is_whole() {
    if !is_root() || !has("ostree") {
        return;
    }
    let dir = scratch();
    let rootfs = tiny(dir.path());
    let mut content = vec![0u8; 700_000];
    let mut state = 1u32;
    for byte in &mut content {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        *byte = (state >> 24) as u8;
    }
    rootfs.file("usr/bin/foo", content).settle();
    let image = format!("oci:{}", dir.path().join("image").display());
    run(&["build", "-q", "--rootfs", rootfs.str(), "-o", &image]);
    let script = r#"
        set -eu
        for size in $(seq 640 8 900); do
            mount -t tmpfs -o size=${size}k tmpfs "$2"
            ostree --repo="$2/repo" init --mode=archive
            ostree --repo="$2/repo" config set core.min-free-space-percent 0
            status=0
            "$1" "$3" -q --repo "$2/repo" -b b $4 > /dev/null 2>> "$5" || status=$?
            refs=$(ostree --repo="$2/repo" refs)
            echo "$size: $status '$refs'"
            ostree --repo="$2/repo" fsck -q
            case "$status $refs" in "0 b" | "1 ") ;; *) exit 1 ;; esac
            umount "$2"
        done
    "#;
    let disk = dir.path().join("disk");
    fs::create_dir(&disk).unwrap();
    let messages = dir.path().join("messages");
    let source = format!("--rootfs {}", rootfs.str());
    for (command, source) in [("commit", &source), ("import", &image)] {
        let mut all = std::process::Command::new("unshare");
        all.args(["-m", "--propagation", "private", "sh", "-c", script, "sh"]);
        all.arg(env!("CARGO_BIN_EXE_apt-ostree-helper")).arg(&disk);
        all.args([command, source]).arg(&messages);
        let done = all.output().unwrap();
        let seen = String::from_utf8_lossy(&done.stdout).into_owned();
        assert!(done.status.success(), "{command}: {seen}{}", stderr(&done));
        for outcome in [": 0 'b'", ": 1 ''"] {
            assert!(seen.contains(outcome), "{command}: no {outcome}: {seen}");
        }
    }
    let said = fs::read_to_string(&messages).unwrap();
    assert!(said.contains("No space left on device"), "{said}");
}
