//! Images read layer by layer, without mounting them: what comes out is what comes of the mounted
//! image, byte for byte, and nobody's help and no privilege is needed.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::*;
use serde_json::Value;

/// A capability as setcap(8) writes it: cap_net_raw=ep, version 2.
const CAPABILITY: [u8; 20] = [
    1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
];

/// Layers that replace, remove, link and make up.
fn layers() -> Vec<Vec<u8>> {
    let mut lower = Tar::default();
    lower
        .member(b"./", What::Dir, 0o755, (0, 0))
        .add("usr", What::Dir)
        .add("usr/bin", What::Dir)
        .xattr("security.capability", &CAPABILITY)
        .member(b"usr/bin/ping", What::File(b"ping"), 0o755, (0, 0))
        .member(b"usr/bin/su", What::File(b"su"), 0o4755, (0, 0))
        .member(b"usr/bin/same", What::Hard("usr/bin/su"), 0o4755, (0, 0))
        .add("usr/bin/gone", What::File(b"gone"))
        .add("usr/share/made/up/file", What::File(b"made up"))
        .add("usr/share/opaque", What::Dir)
        .add("usr/share/opaque/lower", What::File(b"lower"))
        .add("usr/share/dir", What::Dir)
        .add("usr/share/dir/lower", What::File(b"lower"))
        .add("usr/share/empty", What::File(b""))
        .add("usr/share/empty2", What::Hard("usr/share/empty"))
        .xattr("user.component", b"mine")
        .add("opt", What::Dir)
        .add("opt/app", What::File(b"app"))
        .add("etc", What::Dir)
        .add("etc/link", What::Link("nowhere"))
        .member(b"etc/hosts", What::File(b""), 0o755, (0, 0))
        .member(b"var/lib/me", What::Dir, 0o750, (1000, 3_000_000))
        .add("tmp", What::Dir)
        .add("tmp/x", What::File(b"temporary"));
    let mut upper = Tar::default();
    upper
        .add("usr/bin/.wh.gone", What::File(b""))
        .add("usr/share/opaque/.wh..wh..opq", What::File(b""))
        .add("usr/share/opaque/upper", What::File(b"upper"))
        .add("usr/share/dir", What::File(b"now a file"))
        .add("etc/link", What::Dir)
        .add("etc/link/below", What::File(b"below"))
        .xattr("user.note", b"note")
        .member(b"usr/bin/su", What::File(b"changed"), 0o755, (5, 6))
        .member(b"usr/bin/same2", What::Hard("usr/bin/su"), 0o755, (5, 6));
    vec![lower.end(), upper.end()]
}

/// podman with a storage of its own.
struct Storage(tempfile::TempDir);

impl Storage {
    fn new() -> Self {
        let dir = scratch();
        let at = |name: &str| dir.path().join(name).display().to_string();
        let conf = format!(
            "[storage]\ndriver = \"vfs\"\ngraphroot = \"{}\"\nrunroot = \"{}\"\n",
            at("root"),
            at("run")
        );
        fs::write(dir.path().join("storage.conf"), conf).unwrap();
        Self(dir)
    }

    fn with(&self, mut command: Command, arguments: &[&str]) -> String {
        let conf = self.0.path().join("storage.conf");
        succeed(command.args(arguments).env("CONTAINERS_STORAGE_CONF", conf))
    }
}

#[test]
fn layers_are_read_as_the_mounted_image_shows_them() {
    if !is_root() || !has("podman") || !has("skopeo") {
        return;
    }
    let dir = scratch();
    let image = ImageWriter::plain(layers()).write(&dir.path().join("image"));
    let storage = Storage::new();
    let archive = format!("oci-archive:{}:name", dir.path().join("a.tar").display());
    for copy in ["containers-storage:localhost/from-layers:1", &archive] {
        let copy = ["--insecure-policy", "copy", "-q", &image, copy];
        storage.with(Command::new("skopeo"), &copy);
    }
    let out = format!("oci:{}", dir.path().join("out").display());
    for format in ["ostree", "plain"] {
        let build = |from: &str| {
            let build = [
                "build", "-q", "--format", format, "--from", from, "-o", &out,
            ];
            storage.with(helper(), &build)
        };
        let mounted = build("localhost/from-layers:1");
        for from in [
            &image,
            &archive,
            "containers-storage:localhost/from-layers:1",
        ] {
            assert_eq!(build(from), mounted, "{format} {from}");
        }
    }
    let members = read_image(&dir.path().join("out"));
    let members: Vec<Member> = members.layers.into_iter().flatten().collect();
    let find = |path: &str| members.iter().find(|member| member.path == path);
    for gone in [
        "usr/bin/gone",
        "usr/share/opaque/lower",
        "etc/hosts",
        "tmp/x",
    ] {
        assert!(find(gone).is_none(), "{gone}");
    }
    assert_eq!(
        find("usr/bin/ping")
            .unwrap()
            .xattrs
            .get("security.capability")
            .map(Vec::as_slice),
        Some(&CAPABILITY[..])
    );
    // The same for the other commands that read a rootfs.
    let chunk = |from: &str| {
        let chunk = [
            "compose",
            "build-chunked-oci",
            "--bootc",
            "-q",
            "--from",
            from,
            "--output",
            &out,
        ];
        storage.with(helper(), &chunk)
    };
    assert_eq!(chunk(&image), chunk("localhost/from-layers:1"));
    let plan = |from: &str| storage.with(helper(), &["plan", "--json", "--from", from]);
    let planned = plan(&image);
    assert_eq!(planned, plan("localhost/from-layers:1"));
    assert!(planned.contains("user/mine"), "{planned}");
}

/// No backend on the PATH, no capability, and an image of anybody.
#[test]
fn no_backend_and_no_privilege_is_needed() {
    let dir = scratch();
    let image = ImageWriter::plain(layers()).write(&dir.path().join("image"));
    let out = dir.path().join("out");
    let layout = format!("oci:{}", out.display());
    let mut command = match is_root() {
        true => {
            let mut command = Command::new("/usr/bin/setpriv");
            let helper = env!("CARGO_BIN_EXE_apt-ostree-helper");
            command.args(["--bounding-set=-all", "--inh-caps=-all", helper]);
            command
        }
        false => helper(),
    };
    command
        .env("PATH", "/nonexistent")
        .env_remove("SOURCE_DATE_EPOCH");
    let build = [
        "build", "-q", "--format", "plain", "--from", &image, "-o", &layout,
    ];
    succeed(command.args(build));
    let members = read_image(&out).layers.into_iter().flatten();
    let owner = members
        .filter(|m| m.path == "var/lib/me")
        .map(|m| (m.uid, m.gid, m.mode));
    let owner: Vec<_> = owner.collect();
    assert_eq!(owner.last(), Some(&(1000, 3_000_000, 0o750)));
}

/// What the layers of an encapsulated image show is its commit's files: the same commit comes of
/// it, from every format.
#[test]
fn an_image_of_ours_becomes_the_commit_that_it_was() {
    let dir = scratch();
    let rootfs = odd_rootfs(dir.path().join("rootfs"));
    // An encapsulated image has it also where its commit has not.
    rootfs.dir("var/tmp").mode("var/tmp", 0o1777).settle();
    let at = |name: &str| format!("oci:{}", dir.path().join(name).display());
    let build = |arguments: &[&str]| -> Value {
        let common = ["build", "-q", "--json", "--timestamp", "1700000000"];
        serde_json::from_str(&run(&[&common, arguments].concat())).unwrap()
    };
    for kind in [
        &["--format", "ostree"][..],
        &[
            "--format",
            "ostree",
            "--format-version",
            "1",
            "--max-layers",
            "5",
        ],
        &["--format", "plain", "--compression", "zstd"],
        &["--format", "ostree", "--compression", "gzip"],
    ] {
        let (image, again) = (at("image"), at("again"));
        let first = build(&[&["--rootfs", rootfs.str(), "-o", &image], kind].concat());
        let second = build(&["--from", &image, "-o", &again]);
        assert_eq!(second["commit"], first["commit"], "{kind:?}");
        judged(&["verify", &again, "--ostree"]);
    }
}

/// The config of the image is the new one's, as with a mounted image.
#[test]
fn the_config_is_inherited() {
    let dir = scratch();
    let mut image = ImageWriter::plain(layers());
    image.labels = serde_json::json!({"keep": "1", "ostree.commit": "stale"});
    let image = image.write(&dir.path().join("image"));
    let out = dir.path().join("out");
    run(&[
        "build",
        "-q",
        "--from",
        &image,
        "-o",
        &format!("oci:{}", out.display()),
    ]);
    let config = read_image(&out).config;
    assert_eq!(config["config"]["Labels"]["keep"], "1");
    assert_ne!(config["config"]["Labels"]["ostree.commit"], "stale");
    assert_eq!(config["created"], "2023-11-14T22:13:20Z");
}

#[test]
fn what_cannot_be_read_is_named() {
    let dir = scratch();
    let out = format!("oci:{}", dir.path().join("out").display());
    let layout = dir.path().join("image");
    let build = |image: &str, more: &[&str]| {
        let said = fail(1, &[&["build", "--from", image, "-o", &out], more].concat());
        assert!(!dir.path().join("out").exists());
        said
    };
    let mut cut = ImageWriter::plain(layers());
    cut.cut = Some((1, 600));
    let said = build(&cut.write(&layout), &[]);
    assert!(
        said.contains("layer 1 (sha256:") && said.contains("image oci:"),
        "{said}"
    );
    let mut other = layers();
    other[0][700] ^= 1;
    let mut lies = ImageWriter::plain(layers());
    lies.instead = Some((0, other.swap_remove(0)));
    let said = build(&lies.write(&layout), &[]);
    assert!(said.contains("layer 0 (sha256:"), "{said}");
    let mut special = Tar::default();
    special.add("run2", What::Fifo);
    let special = ImageWriter::plain(vec![special.end()]).write(&layout);
    let said = build(&special, &[]);
    assert!(said.contains("/run2: it is a special file"), "{said}");
    run(&[
        "build",
        "-q",
        "--skip-special-files",
        "--from",
        &special,
        "-o",
        &out,
    ]);
    fs::remove_dir_all(dir.path().join("out")).unwrap();
    let nowhere = dir.path().join("none");
    let said = build(&format!("oci:{}", nowhere.display()), &[]);
    assert!(said.contains("none"), "{said}");
    let mut command = helper();
    command
        .args(["build", "--from", &special, "-o", &out])
        .env("TMPDIR", &nowhere);
    let said = stderr(&command.output().unwrap());
    assert!(
        said.contains("temporary file in") && said.contains("none"),
        "{said}"
    );
}

/// The spool has no name: whatever ends the process, nothing of it is left.
#[test]
fn nothing_is_left_of_the_spool() {
    let dir = scratch();
    let temporary = dir.path().join("tmp");
    fs::create_dir(&temporary).unwrap();
    let mut big = Tar::default();
    let content: Vec<u8> = (0..24u32 << 18).flat_map(u32::to_le_bytes).collect();
    big.add("big", What::File(&content));
    let image = ImageWriter::plain(vec![big.end()]).write(&dir.path().join("image"));
    let out = format!("oci:{}", dir.path().join("out").display());
    for signal in ["KILL", "TERM", "INT"] {
        let mut command = interruptible();
        command
            .args([
                "build",
                "-v",
                "--from",
                &image,
                "-o",
                &out,
                "--compression",
                "zstd",
                "--compression-level",
                "19",
            ])
            .env("TMPDIR", &temporary)
            .stderr(Stdio::piped())
            .stdout(Stdio::null());
        let child = command.spawn().unwrap();
        let begun = Instant::now();
        while spooled(child.id(), &temporary) == 0 && begun.elapsed() < Duration::from_secs(20) {
            std::thread::sleep(Duration::from_millis(2));
        }
        let id = child.id().to_string();
        succeed(Command::new("kill").args([&format!("-{signal}"), &id]));
        let output = child.wait_with_output().unwrap();
        let said = stderr(&output);
        assert!(
            said.contains(&format!("without a name in {}", temporary.display())),
            "{said}"
        );
        assert_eq!(names(&temporary), Vec::<String>::new(), "{signal}");
        assert!(!dir.path().join("out").exists(), "{signal}");
    }
}

/// Bytes of the files without a name in `directory` that a process holds open.
fn spooled(process: u32, directory: &Path) -> u64 {
    let files = fs::read_dir(format!("/proc/{process}/fd"))
        .into_iter()
        .flatten()
        .flatten();
    let ours =
        files.filter(|fd| fs::read_link(fd.path()).is_ok_and(|to| to.starts_with(directory)));
    ours.filter_map(|fd| Some(fs::metadata(fd.path()).ok()?.len()))
        .sum()
}

/// Real Debian, where there is one: what the layers make is the rootfs that they were made of.
#[test]
fn a_debian_image_is_split_again_straight_from_a_layout() {
    let Some(rootfs) = std::env::var_os("AOH_ROOTFS_TRIXIE").filter(|_| is_root()) else {
        return;
    };
    let rootfs = rootfs.into_string().unwrap();
    let dir = scratch();
    let [image, again, third] = ["image", "again", "third"].map(|name| dir.path().join(name));
    let at = |path: &Path| format!("oci:{}", path.display());
    let build = |arguments: &[&str]| -> Value {
        let common = ["build", "-q", "--json", "--timestamp", "1700000000"];
        serde_json::from_str(&run(&[&common, arguments].concat())).unwrap()
    };
    build(&["--rootfs", &rootfs, "-o", &at(&image)]);
    let second = build(&["--from", &at(&image), "-o", &at(&again)]);
    // The commit layer of an encapsulated image has /sysroot, which this rootfs has not.
    let content = |path: &Path| {
        let layers = read_image(path).manifest["layers"].clone();
        layers.as_array().unwrap()[1..].to_vec()
    };
    assert_eq!(content(&again), content(&image));
    let third_build = build(&["--from", &at(&again), "-o", &at(&third)]);
    assert_eq!(third_build["commit"], second["commit"]);
    assert_eq!(
        read_image(&third).manifest["layers"],
        read_image(&again).manifest["layers"]
    );
}
