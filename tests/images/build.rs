//! What `build` writes: the same image from the same rootfs whatever the way, and layers that
//! applied give the rootfs again and are within the budget.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::Command;

use crate::common::*;

const FORMATS: [&[&str]; 3] = [
    &["--format", "plain"],
    &["--format", "ostree"],
    &["--format", "ostree", "--format-version", "1"],
];

#[test]
fn every_format_and_compression_gives_the_rootfs_again() {
    let (dir, rootfs) = odd();
    let before = read_tree(&rootfs.path);
    // The judge wants to see in an image what is below /sysroot, too.
    let for_judge = dir.path().join("for-judge");
    succeed(
        Command::new("cp")
            .arg("-a")
            .arg(&rootfs.path)
            .arg(&for_judge),
    );
    fs::remove_dir_all(for_judge.join("sysroot/ostree")).unwrap();
    for format in FORMATS {
        let (encapsulated, version) = (format[1] == "ostree", if format.len() > 2 { 1 } else { 2 });
        for compression in ["none", "gzip", "zstd"] {
            build_layout(
                dir.path(),
                &rootfs,
                &[format, &["--compression", compression]].concat(),
            );
            let layout = dir.path().join("out");
            let image = read_image(&layout);
            check_layers(&image, encapsulated, version);
            let wanted = wanted(&rootfs.path, encapsulated);
            assert_eq!(differences(&apply(&image), &wanted), "", "{format:?}");
            for layer in image.manifest["layers"].as_array().unwrap() {
                compressed_in_one_piece(
                    &crate::common::blob(&layout, &layer["digest"]),
                    compression,
                );
            }
            let layout = format!("oci:{}", layout.display());
            match format.len() {
                2 if encapsulated => judged(&["verify", &layout, "--ostree"]),
                2 => judged(&["verify", &layout]),
                _ => {}
            }
            judged(&["same", &layout, for_judge.to_str().unwrap()]);
        }
    }
    assert_eq!(names(dir.path()), ["for-judge", "out", "rootfs"]);
    assert_eq!(differences(&read_tree(&rootfs.path), &before), "");
}

/// gzip without a name and a time (RFC 1952), zstd in one frame.
fn compressed_in_one_piece(blob: &[u8], compression: &str) {
    match compression {
        "gzip" => {
            assert_eq!(blob[..4], [0x1f, 0x8b, 8, 0], "flags");
            assert_eq!(blob[4..8], [0; 4], "time");
        }
        "zstd" => {
            let frame = zstd::zstd_safe::find_frame_compressed_size(blob).unwrap();
            assert_eq!(frame, blob.len());
        }
        _ => assert_eq!(blob.len() % 512, 0),
    }
}

#[test]
fn threads_order_of_creation_and_file_system_do_not_show() {
    let (dir, rootfs) = odd();
    let copy = reversed_copy(&rootfs, &dir.path().join("copy"));
    let shm = Path::new("/dev/shm");
    let elsewhere = tempfile::tempdir_in(shm).ok().filter(|_| is_root());
    let on_tmpfs = elsewhere.and_then(|tmpfs| {
        let path = tmpfs.path().join("rootfs");
        succeed(Command::new("cp").arg("-a").arg(&rootfs.path).arg(&path));
        // A tmpfs without user attributes cannot hold the rootfs.
        let same = read_tree(&path) == read_tree(&rootfs.path);
        same.then_some((tmpfs, Rootfs { path }))
    });
    for format in FORMATS {
        let format = [format, &["--compression", "gzip"]].concat();
        let digest = |rootfs: &Rootfs, threads: &str| {
            build_image(
                dir.path(),
                rootfs,
                &[&format[..], &["-j", threads]].concat(),
            )
            .digest
        };
        let first = digest(&rootfs, "1");
        assert_eq!(first, digest(&rootfs, "1"));
        assert_eq!(first, digest(&rootfs, "2"));
        assert_eq!(first, digest(&rootfs, "5"));
        assert_eq!(first, digest(&copy, "2"), "a copy made in another order");
        if let Some((_, rootfs)) = &on_tmpfs {
            assert_eq!(first, digest(rootfs, "2"), "on tmpfs");
        }
    }
}

/// The same rootfs, every directory filled from its last name to its first.
fn reversed_copy(rootfs: &Rootfs, to: &Path) -> Rootfs {
    use std::os::unix::fs::MetadataExt;
    let copy = Rootfs::new(to.to_owned());
    let mut made: Vec<(u64, String)> = Vec::new();
    for (path, (kind, _, _, _, target, _)) in read_tree(&rootfs.path).iter().rev() {
        let inode = fs::symlink_metadata(rootfs.at(path)).unwrap().ino();
        let first = made.iter().find(|(known, _)| *known == inode);
        match (kind, first) {
            ('d', _) => _ = copy.dir(path),
            ('l', _) => _ = copy.link(path, target),
            (_, Some((_, first))) => {
                copy.dir(Path::new(path).parent().unwrap().to_str().unwrap());
                copy.hard_link(path, first);
            }
            _ => {
                copy.file(path, fs::read(rootfs.at(path)).unwrap());
                made.push((inode, path.clone()));
            }
        }
    }
    for (path, (kind, mode, uid, gid, _, xattrs)) in read_tree(&rootfs.path) {
        copy.owner(&path, uid as u32, gid as u32);
        if kind != 'l' {
            for (name, value) in &xattrs {
                copy.xattr(&path, name, value);
            }
            copy.mode(&path, mode);
        }
    }
    copy.settle();
    assert_eq!(differences(&read_tree(to), &read_tree(&rootfs.path)), "");
    copy
}

#[test]
fn the_budget_of_layers_is_kept_and_used() {
    let (dir, rootfs) = odd();
    for n in 0..30 {
        rootfs.file(&format!("opt/app-{n}/file"), vec![n; 90_000]);
        let app = rootfs.at(&format!("opt/app-{n}"));
        rustix::fs::setxattr(
            app,
            "user.component",
            format!("app{n}").as_bytes(),
            rustix::fs::XattrFlags::empty(),
        )
        .unwrap();
    }
    rootfs.settle();
    for format in FORMATS {
        let mut before = 0;
        for budget in ["1", "2", "3", "5", "64"] {
            let flags = [format, &["--max-layers", budget]].concat();
            let image = build_image(dir.path(), &rootfs, &flags);
            let version = if format.len() > 2 { 1 } else { 2 };
            check_layers(&image, format[1] == "ostree", version);
            let count = image.layers.len();
            assert!(
                count <= budget.parse().unwrap() && count >= before,
                "{count} of {budget}"
            );
            before = count;
        }
        assert!(before > 5, "{before} layers of 64");
    }
}

#[test]
fn times_of_plain_images_can_be_clamped() {
    let dir = scratch();
    let rootfs = tiny(dir.path());
    rootfs
        .file("usr/new", "1")
        .file("usr/old", "2")
        .file("usr/negative", "3");
    for (path, seconds) in [
        ("usr/new", "9000000000"),
        ("usr/old", "5"),
        ("usr/negative", "-7"),
    ] {
        let time = format!("@{seconds}");
        succeed(
            Command::new("touch")
                .args(["-d", &time])
                .arg(rootfs.at(path)),
        );
    }
    let flags = [
        "--format",
        "plain",
        "--timestamp",
        "1000",
        "--mtime",
        "clamp",
    ];
    let image = build_image(dir.path(), &rootfs, &flags);
    check_layers(&image, false, 2);
    let time = |path: &str| {
        image
            .layers
            .iter()
            .flatten()
            .find(|m| m.path == path)
            .unwrap()
            .mtime
    };
    assert_eq!(
        [time("usr/new"), time("usr/old"), time("usr/negative")],
        [1000, 5, 0]
    );
    assert_eq!((time("usr/bin/foo"), time("usr")), (1000, 0));
}

#[test]
fn equal_files_are_one_object_and_hard_links_one_file() {
    let (dir, rootfs) = odd();
    let (foo, libfoo) = (
        "usr/share/doc/foo/copyright",
        "usr/share/doc/libfoo1/copyright",
    );
    let of = |image: &Image, path: &str| {
        let mut all = image.layers.iter().flatten().cloned();
        all.find(|m| m.path == path).unwrap()
    };
    let ostree = build_image(dir.path(), &rootfs, &[]);
    assert_eq!(of(&ostree, foo).link, of(&ostree, libfoo).link);
    assert!(of(&ostree, foo).link.ends_with(".file"));
    let plain = build_image(dir.path(), &rootfs, &["--format", "plain"]);
    assert_eq!(of(&plain, "usr/bin/bar2").link, "usr/bin/bar");
    // Other files, whose times may differ.
    let kinds = [foo, libfoo].map(|path| of(&plain, path).kind);
    assert_eq!(kinds, [tar::EntryType::Regular; 2]);
}

#[test]
fn equal_inode_numbers_of_two_mounts_are_two_files() {
    if !is_root() {
        return;
    }
    let dir = scratch();
    let rootfs = tiny(dir.path());
    rootfs.dir("opt/a").dir("opt/b").settle();
    in_a_mount_namespace(
        r#"for d in a b; do
             mount -t tmpfs tmpfs "$2/opt/$d"
             echo "$d" > "$2/opt/$d/file"; ln "$2/opt/$d/file" "$2/opt/$d/link"
           done
           test "$(stat -c %i "$2/opt/a/file")" = "$(stat -c %i "$2/opt/b/file")"
           for f in ostree plain; do
             "$1" build -q --rootfs "$2" -o "oci:$3-$f" --format $f > /dev/null
           done"#,
        &[&rootfs.path, &dir.path().join("out")],
    );
    for format in ["ostree", "plain"] {
        let nodes = apply(&read_image(&dir.path().join(format!("out-{format}"))));
        for name in ["a", "b"] {
            let content = crate::common::sha256(format!("{name}\n").as_bytes());
            for path in ["file", "link"] {
                assert_eq!(nodes[&format!("opt/{name}/{path}")].4, content);
            }
        }
    }
}

#[test]
fn pruned_paths_are_left_out_and_with_a_slash_what_is_in_them() {
    let (dir, rootfs) = odd();
    let flags = [
        "--prune",
        "/usr/share/odd",
        "--prune",
        "usr/share/doc/",
        "--format",
        "plain",
    ];
    let got = apply(&build_image(dir.path(), &rootfs, &flags));
    let mut wanted = wanted(&rootfs.path, false);
    wanted.retain(|path, _| {
        let odd = path == "usr/share/odd" || path.starts_with("usr/share/odd/");
        !odd && !path.starts_with("usr/share/doc/")
    });
    assert_eq!(differences(&got, &wanted), "");
    assert!(got.contains_key("usr/share/doc"));
}

#[test]
fn sizes_at_the_border_of_a_tar_block_and_holes() {
    let dir = scratch();
    let rootfs = tiny(dir.path());
    for size in [1, 511, 512, 513, 1024, 131_072, 262_144, 262_145, 1_048_576] {
        rootfs.file(&format!("usr/{size}"), vec![b'x'; size]);
    }
    rootfs.file("usr/sparse", "begin");
    let sparse = File::options().write(true).open(rootfs.at("usr/sparse"));
    sparse.unwrap().set_len(3_000_000).unwrap();
    for format in FORMATS {
        let image = build_image(dir.path(), &rootfs, format);
        let wanted = wanted(&rootfs.path, format[1] == "ostree");
        assert_eq!(differences(&apply(&image), &wanted), "");
    }
}

#[test]
fn a_file_that_changes_during_the_build_is_an_error() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let dir = scratch();
    let rootfs = tiny(dir.path());
    rootfs.file("usr/growing", vec![b'x'; 16 << 20]);
    let mut file = File::options()
        .append(true)
        .open(rootfs.at("usr/growing"))
        .unwrap();
    let done = AtomicBool::new(false);
    let messages = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                file.write_all(b"y").unwrap();
                std::thread::sleep(std::time::Duration::from_micros(200));
            }
        });
        let output = format!("oci:{}", dir.path().join("out").display());
        let arguments = ["build", "--rootfs", rootfs.str(), "-o", &output];
        let ended = helper().args(arguments).output();
        done.store(true, Ordering::Relaxed);
        let ended = ended.unwrap();
        assert_eq!(ended.status.code(), Some(1), "{}", stderr(&ended));
        stderr(&ended)
    });
    let wanted = "usr/growing changed while it was read";
    assert!(messages.contains(wanted), "{messages}");
    assert_eq!(names(dir.path()), ["rootfs"]);
}

/// A link that two packages have stands in the layer of each, as an object and as a path: what one
/// of them does must not change the layer of the other.
#[test]
fn equal_links_of_two_packages_are_in_two_layers() {
    let dir = scratch();
    let rootfs = Rootfs::new(dir.path().join("rootfs"));
    rootfs
        .packages(&[
            ("one", "one", "1", &["usr/one/link", "usr/one/file"]),
            ("two", "two", "1+deb12u9", &["usr/two/link", "usr/two/file"]),
        ])
        .file("usr/one/file", vec![1; 900_000])
        .file("usr/two/file", vec![2; 900_000])
        .link("usr/one/link", "same")
        .link("usr/two/link", "same")
        .settle();
    let image = build_image(dir.path(), &rootfs, &[]);
    check_layers(&image, true, 2);
    let layer_of = |path: &str| {
        let has = |layer: &Vec<Member>| layer.iter().any(|member| member.path == path);
        image.layers.iter().position(has).unwrap()
    };
    for package in ["one", "two"] {
        let link = layer_of(&format!("usr/{package}/link"));
        assert_eq!(link, layer_of(&format!("usr/{package}/file")), "{package}");
    }
    assert_ne!(layer_of("usr/one/link"), layer_of("usr/two/link"));
    assert_eq!(differences(&apply(&image), &wanted(&rootfs.path, true)), "");
}

#[test]
fn a_plain_image_has_the_times_that_tell_something() {
    let dir = scratch();
    let rootfs = Rootfs::new(dir.path().join("rootfs"));
    let untold = [
        "etc/locale.gen",
        "etc/pam.d/common-auth",
        "var/cache/debconf/templates.dat",
        "var/log/x",
        "var/lib/made",
    ];
    let told = [
        "etc/owned.conf",
        "usr/bin/owned",
        "usr/bin/own",
        "opt/app/x",
        "srv/data",
    ];
    for path in untold.iter().chain(&told) {
        rootfs.file(path, path);
    }
    rootfs
        .packages(&[("p", "p", "1", &["etc/owned.conf", "usr/bin/owned"])])
        .settle();
    build_layout(dir.path(), &rootfs, &["--format", "plain"]);
    let members: Vec<Member> = read_image(&dir.path().join("out"))
        .layers
        .into_iter()
        .flatten()
        .collect();
    let mtime = |path: &str| {
        members
            .iter()
            .find(|member| member.path == path)
            .unwrap()
            .mtime
    };
    for path in untold {
        assert_eq!(mtime(path), 0, "{path}");
    }
    for path in told {
        assert_eq!(mtime(path), MTIME as u64, "{path}");
    }
}
