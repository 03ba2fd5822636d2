//! `seal`: the composefs digest of a plain image, and the one layer that it adds. ukify is a script
//! here; tests/interop has the composefs crates compute the same digests, and tests/e2e the real
//! one at work.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::common::*;
use serde_json::Value;

/// Writes what it is told and given, one after the other, to its output.
const UKIFY: &str = r#"#!/bin/sh
set -eu
for word in "$@"; do
    case $word in
    --output=*) out=${word#*=} ;;
    --linux=* | --initrd=* | --os-release=*) files="${files:-} ${word#*=}" ;;
    --secureboot-*) keys="${keys:-} $word" ;;
    *) told="${told:-} $word" ;;
    esac
done
[ "${1:-}" = build ]
for file in $files; do cat "${file#@}"; done >"$out"
printf '%s%s at %s\n' "$told" "${keys:-}" "$SOURCE_DATE_EPOCH" >>"$out"
"#;

const K: &str = "6.12.1-test";

struct Case {
    dir: tempfile::TempDir,
    rootfs: Rootfs,
}

impl Case {
    fn new() -> Self {
        let dir = scratch();
        let rootfs = three_packages(dir.path(), "rootfs", "1", "note");
        for name in ["boot", "sysroot", "run", "usr/lib/bootc"] {
            rootfs.dir(name);
        }
        rootfs
            .file("usr/lib/os-release", "ID=debian\nVERSION_ID=13\n")
            .link("etc/os-release", "../usr/lib/os-release")
            .file("usr/lib/bootc/initramfs-setup", "of bootc")
            .file(&format!("usr/lib/modules/{K}/vmlinuz"), "KERNEL\n")
            .file(&format!("usr/lib/modules/{K}/initramfs.img"), "INITRAMFS\n")
            .file("usr/lib/bootc/kargs.d/20-b.toml", "kargs = ['b=2']\n")
            .file(
                "usr/lib/bootc/kargs.d/10-a.toml",
                "kargs = [\"a=1 quiet\"]\nmatch-architectures = ['x86_64', 'aarch64']\n",
            )
            .file("usr/lib/bootc/kargs.d/README", "not read")
            .settle();
        let case = Self { dir, rootfs };
        case.ukify(UKIFY);
        case
    }

    fn ukify(&self, script: &str) {
        let path = self.dir.path().join("bin/ukify");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, script).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn layout(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn oci(&self, name: &str) -> String {
        format!("oci:{}", self.layout(name).display())
    }

    fn build(&self, name: &str, more: &[&str]) {
        let output = self.oci(name);
        let base = ["build", "-q", "--rootfs", self.rootfs.str(), "-o", &output];
        let plain = match more.contains(&"ostree") {
            true => &[][..],
            false => &["--format", "plain"],
        };
        let date = ["--timestamp", "1700000000"];
        run(&[&base[..], plain, &date, more].concat());
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = helper();
        let bin = self.dir.path().join("bin");
        let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
        command.env("PATH", path).arg("seal").args(arguments);
        command
    }

    fn seal(&self, arguments: &[&str]) -> Value {
        let said = succeed(self.command(arguments).args(["-q", "--json"]));
        serde_json::from_str(&said).unwrap()
    }

    fn composefs(&self, name: &str) -> String {
        succeed(&mut self.command(&["-q", "--dry-run", &self.oci(name)]))
    }

    fn refusal(&self, arguments: &[&str]) -> String {
        let output: Output = self.command(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
        stderr(&output)
    }
}

fn descriptors(layout: &Path) -> Vec<Value> {
    let image = read_image(layout);
    image.manifest["layers"].as_array().unwrap().clone()
}

#[test]
fn the_kernel_names_the_files_and_the_layers_stay() {
    let case = Case::new();
    case.build("img", &[]);
    let before = descriptors(&case.layout("img"));
    let composefs = case.composefs("img");
    assert_eq!(composefs.len(), 128);
    assert_eq!(descriptors(&case.layout("img")), before);

    let sealed = case.seal(&[&case.oci("img"), "-o", &case.oci("sealed"), "--karg", "c"]);
    assert_eq!(sealed["composefs"], composefs.as_str());
    let line = format!("a=1 quiet b=2 composefs={composefs} c rw");
    assert_eq!(sealed["command_line"], line.as_str());
    assert_eq!(sealed["kernel"], K);
    let image = read_image(&case.layout("sealed"));
    assert_eq!(sealed["digest"], image.digest.as_str());
    let after = descriptors(&case.layout("sealed"));
    assert_eq!(after[..after.len() - 1], before[..]);
    assert_eq!(after.len(), before.len() + 1);
    assert_eq!(sealed["layers"], after.len());

    let layer = image.layers.last().unwrap();
    let names: Vec<&str> = layer.iter().map(|member| member.path.as_str()).collect();
    let uki = format!("boot/EFI/Linux/{K}.efi");
    assert_eq!(names, ["boot", "boot/EFI", "boot/EFI/Linux", &uki]);
    // The digest is also of the metadata of /boot, which the layer must not change.
    assert_eq!(case.composefs("sealed"), composefs);
    let content = String::from_utf8(layer[3].content.clone()).unwrap();
    let (files, told) = content.rsplit_once("\n build").unwrap();
    assert_eq!(files, "KERNEL\nINITRAMFS\nID=debian\nVERSION_ID=13");
    assert!(
        told.starts_with(&format!(" --uname={K} --cmdline={line} --efi-arch="))
            && told.ends_with(" at 1700000000\n"),
        "{told}"
    );
    let labels = &image.config["config"]["Labels"];
    assert_eq!(labels["containers.bootc"], "1");
    assert_eq!(labels["org.opencontainers.image.version"], "13");
    // What bootc's composefs backend shows.
    let annotations = &image.manifest["annotations"];
    assert_eq!(annotations["org.opencontainers.image.version"], "13");
    judged(&["verify", case.layout("sealed").to_str().unwrap()]);
}

/// A second seal takes the file of the first away, and a build takes the layers over.
#[test]
fn a_sealed_image_is_sealed_again_and_followed() {
    let case = Case::new();
    case.build("img", &[]);
    let before = descriptors(&case.layout("img"));
    let first = case.seal(&[&case.oci("img")]);
    assert_eq!(case.seal(&[&case.oci("img")])["digest"], first["digest"]);
    let other = case.seal(&[&case.oci("img"), "--karg", "other"]);
    assert_ne!(other["digest"], first["digest"]);
    assert_eq!(other["composefs"], first["composefs"]);
    assert_eq!(descriptors(&case.layout("img")).len(), before.len() + 1);

    case.rootfs.file("opt/note", "changed");
    case.rootfs.settle();
    let output = case.oci("next");
    let previous = case.oci("img");
    let more = ["--format", "plain", "--previous", &previous];
    let built = build_json(&case.rootfs, &output, &more);
    let layers = built["layers"].as_array().unwrap();
    let made = layers.iter().filter(|layer| layer["taken_over"] == false);
    assert_eq!((layers.len(), made.count()), (before.len(), 1), "{built}");

    // The file of the kernel is for one image only, however much waste the next one may have.
    let output = case.oci("wasteful");
    let more = [&more[..], &["--max-waste", "90%"]].concat();
    let built = build_json(&case.rootfs, &output, &more);
    assert!(!built["layers"].to_string().contains("boot/uki"), "{built}");
    case.seal(&[&output]);
}

/// It is that of the files: not of how they are in layers, nor of what is in `/boot`.
#[test]
fn the_digest_is_of_the_files() {
    let case = Case::new();
    case.build("many", &[]);
    case.build("one", &["--max-layers", "1", "--compression", "zstd"]);
    assert_eq!(case.composefs("many"), case.composefs("one"));
    assert_eq!(
        case.seal(&[&case.oci("one"), "-o", &case.oci("sealed-one")])["composefs"],
        case.composefs("many").as_str()
    );
    assert!(
        descriptors(&case.layout("sealed-one"))
            .iter()
            .all(|layer| layer["mediaType"].as_str().unwrap().ends_with("zstd"))
    );
    let before = case.composefs("many");
    case.rootfs.file("boot/other", "not part of it").settle();
    case.build("many", &[]);
    assert_eq!(case.composefs("many"), before);
    case.rootfs.mode("usr/bin/a", 0o700);
    case.build("many", &[]);
    assert_ne!(case.composefs("many"), before);
}

/// The image need not have what the file holds, a second time.
#[test]
fn the_kernel_may_be_elsewhere() {
    let case = Case::new();
    let below = format!("usr/lib/modules/{K}");
    let prune = [
        format!("/{below}/vmlinuz"),
        format!("/{below}/initramfs.img"),
    ];
    case.build("img", &["--prune", &prune[0], "--prune", &prune[1]]);
    let image = case.oci("img");
    let refusal = case.refusal(&[&image]);
    assert!(
        refusal.contains("it has no kernel at /usr/lib/modules"),
        "{refusal}"
    );
    let kernel = case.rootfs.at(&below);
    let kernel = kernel.to_str().unwrap();
    let key = case.dir.path().join("key");
    let (key, certificate) = (key.to_str().unwrap(), "/certificate");
    let sealed = case.seal(&[
        &image,
        "--kernel",
        kernel,
        "--allow-missing-verity",
        "--secureboot-key",
        key,
        "--secureboot-certificate",
        certificate,
    ]);
    assert_eq!(sealed["kernel"], K);
    assert_eq!(sealed["uki"]["signed"], true);
    let line = sealed["command_line"].as_str().unwrap();
    assert!(line.contains(" composefs=?"), "{line}");
    let layers = read_image(&case.layout("img")).layers;
    let content = &layers.last().unwrap()[3].content;
    let told = String::from_utf8_lossy(content);
    let words =
        format!(" --secureboot-private-key={key} --secureboot-certificate={certificate} at");
    assert!(
        told.starts_with("KERNEL\nINITRAMFS\n") && told.contains(&words),
        "{told}"
    );
    let labels = &read_image(&case.layout("img")).config["config"]["Labels"];
    assert_eq!(labels["org.opencontainers.image.version"], "13");
    assert_eq!(labels["containers.bootc"], "1");
}

/// Whatever goes wrong, the image stays as it was, and nothing is left beside it.
#[test]
fn what_cannot_be_sealed_stays_as_it_was() {
    let case = Case::new();
    let image = case.oci("img");
    let refused = |what: &str| {
        let before = (
            read_image(&case.layout("img")).digest,
            names(case.dir.path()),
        );
        let refusal = case.refusal(&[&image]);
        assert!(refusal.contains(what), "'{what}' is not in {refusal}");
        let after = (
            read_image(&case.layout("img")).digest,
            names(case.dir.path()),
        );
        assert_eq!(after, before, "{what}");
        let inside = names(&case.layout("img"));
        assert_eq!(inside, ["blobs", "index.json", "oci-layout"], "{what}");
    };
    let build = |more: &[&str]| {
        let _ = fs::remove_dir_all(case.layout("img"));
        case.build("img", more);
    };
    build(&[]);
    case.ukify("#!/bin/sh\necho 'no such stub' >&2\nexit 1\n");
    refused("asks for the packages systemd-ukify and systemd-boot-efi: 'ukify build");
    refused("no such stub");
    case.ukify("#!/bin/sh\nexit 0\n");
    refused("looking at ");
    case.ukify(UKIFY);

    case.rootfs
        .file("usr/lib/bootc/kargs.d/30-bad.toml", "kargs = 1")
        .settle();
    build(&[]);
    refused("reading /usr/lib/bootc/kargs.d/30-bad.toml: a list in brackets");
    fs::remove_file(case.rootfs.at("usr/lib/bootc/kargs.d/30-bad.toml")).unwrap();

    case.rootfs
        .file("usr/lib/modules/6.13/vmlinuz", "another")
        .settle();
    build(&[]);
    refused("it has two kernels, 6.12.1-test and 6.13");
    fs::remove_dir_all(case.rootfs.at("usr/lib/modules/6.13")).unwrap();

    build(&["--prune", &format!("/usr/lib/modules/{K}/initramfs.img")]);
    refused("initramfs.img; 'finalize' makes it");
    build(&["--prune", "/sysroot"]);
    refused("no directory /sysroot, which bootc asks for");
    build(&["--format", "ostree"]);
    refused("the plain format");

    case.rootfs.file("boot/EFI/Linux/mine.efi", "mine").settle();
    build(&[]);
    refused("it has a file in /boot/EFI/Linux already");
    fs::remove_dir_all(case.rootfs.at("boot/EFI")).unwrap();

    build(&[]);
    fs::rename(case.layout("img"), case.layout("base")).unwrap();
    build(&["--base", &case.oci("base")]);
    refused("its layer 0 was not made by this program; build the image of one root");
}
