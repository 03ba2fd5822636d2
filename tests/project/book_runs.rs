//! The commands of the book and of the README are run, page by page and in their order: each block
//! of shell code, in a directory with what the page takes for granted, against a registry of the
//! tests.
//!
//! A block whose fence says ```` ```sh podman ```` wants podman and images in its storage:
//! tests/e2e/book.sh runs those pages whole, with `AOH_BOOK_PODMAN=1`. One that says
//! ```` ```sh no-run: REASON ```` is not run. tests/project/book.rs has all of them parsed.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::debian::debian;
use crate::common::*;

const USER: &str = "reader";
const PASSWORD: &str = "of the book";
/// The host of the registry in the book.
const HOST: &str = "registry.example";

/// A block of code of a page.
struct Block {
    line: usize,
    /// What the fence says after the language.
    note: String,
    language: String,
    text: String,
}

fn blocks(page: &str) -> Vec<Block> {
    let mut found: Vec<Block> = Vec::new();
    let mut is_inside = false;
    for (at, line) in page.lines().enumerate() {
        if let Some(info) = line.trim_start().strip_prefix("```") {
            is_inside = !is_inside;
            if is_inside {
                let (language, note) = info.split_once(' ').unwrap_or((info, ""));
                found.push(Block {
                    line: at + 1,
                    note: note.to_owned(),
                    language: language.to_owned(),
                    text: String::new(),
                });
            }
        } else if is_inside {
            let block = found.last_mut().unwrap();
            block.text += &format!("{line}\n");
        }
    }
    found
}

/// The README and the pages, with their names.
fn pages() -> Vec<(String, Vec<Block>)> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths: Vec<PathBuf> = fs::read_dir(top.join("contrib/docs/src"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .collect();
    paths.sort();
    paths.push(top.join("README.md"));
    let read = |path: PathBuf| {
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        (name, blocks(&fs::read_to_string(&path).unwrap()))
    };
    paths.into_iter().map(read).collect()
}

/// A directory in which the commands of a page are run.
struct Place {
    dir: tempfile::TempDir,
    registry: Registry,
}

/// A small system; `version` is that of one of its packages.
fn system(path: &Path, version: &str) -> Rootfs {
    let rootfs = Rootfs::new(path.to_owned());
    let rest = ["usr/share/doc/openssl/changelog.Debian.gz"];
    rootfs.packages(&[
        ("perl", "perl", "5.40.1-6", &["usr/bin/perl"]),
        ("openssl", "openssl", version, &["usr/bin/openssl", rest[0]]),
        ("nginx", "nginx", "1.26.3-3", &["usr/sbin/nginx"]),
    ]);
    rootfs.file("usr/bin/perl", vec![b'p'; 90_000]);
    rootfs.file(
        "usr/bin/openssl",
        format!("openssl {version}").repeat(9_000),
    );
    rootfs.file("usr/sbin/nginx", vec![b'n'; 50_000]);
    rootfs.file("opt/my-app/app", "my app");
    rootfs.file("usr/lib/os-release", "ID=debian\nVERSION_ID=\"13\"\n");
    rootfs.settle();
    rootfs
}

impl Place {
    fn new() -> Self {
        let dir = scratch();
        let guard = Guard {
            user: Some((USER, PASSWORD)),
            ..Guard::default()
        };
        let registry = Registry::guarded(dir.path(), &guard);
        let place = Self { dir, registry };
        let at = |name: &str| place.work().join(name);
        fs::create_dir_all(place.work()).unwrap();
        system(&at("rootfs"), "3.5.1-1");
        system(&at("one"), "3.5.1-1");
        system(&at("two"), "3.5.2-1");
        symlink("rootfs", at("DIR")).unwrap();
        symlink("one", at("target")).unwrap();
        let config = r#"{"config": {"Cmd": ["/bin/sh"]}}"#;
        fs::write(at("config.json"), config).unwrap();
        let host = &place.registry.host;
        let insecure = format!("[[registry]]\nlocation = \"{host}\"\ninsecure = true\n");
        // containers-registries.conf(5): skopeo reads no other that is not the machine's.
        let configs = place.dir.path().join("home/.config/containers");
        fs::create_dir_all(&configs).unwrap();
        fs::write(configs.join("registries.conf"), insecure).unwrap();
        for directory in ["bin", "first"] {
            fs::create_dir(place.dir.path().join(directory)).unwrap();
        }
        let program = place.dir.path().join("bin/apt-ostree-helper");
        symlink(env!("CARGO_BIN_EXE_apt-ostree-helper"), program).unwrap();
        let login = [
            "login",
            "--tls-verify=false",
            "--username",
            USER,
            "--password",
            PASSWORD,
        ];
        let mut login_there = Command::new("skopeo");
        login_there.args(login).arg(host);
        succeed(login_there.env("REGISTRY_AUTH_FILE", place.authfile()));
        place
    }

    fn work(&self) -> PathBuf {
        self.dir.path().join("work")
    }

    fn authfile(&self) -> PathBuf {
        self.dir.path().join("auth.json")
    }

    /// Runs a script; its words are told when it fails.
    fn run(&self, name: &str, script: &str) {
        let top = env!("CARGO_MANIFEST_DIR");
        let (path, dir) = (std::env::var("PATH").unwrap(), self.dir.path().display());
        let output = Command::new("bash")
            .args(["-euo", "pipefail", "-c", script])
            .current_dir(self.work())
            .env("PATH", format!("{dir}/first:{dir}/bin:{path}"))
            .env("HOME", self.dir.path().join("home"))
            .env("REGISTRY_AUTH_FILE", self.authfile())
            .env("USER", USER)
            .env("PASSWORD", PASSWORD)
            .env("REGISTRY_USER", USER)
            .env("REGISTRY_PASSWORD", PASSWORD)
            .env("SRC", top)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success(),
            "{name}: {}\n{said}",
            stderr(&output)
        );
    }

    /// What the book calls `registry.example`, and other names that stand for something.
    fn meant(&self, text: &str) -> String {
        let mut text = text.replace(HOST, &self.registry.host);
        for (said, meant) in [
            ("host.example", self.registry.host.as_str()),
            ("/usr/local/bin/", "../first/"),
            ("FROM debian:trixie", "FROM localhost/debian:trixie"),
            (
                "docker.io/library/debian",
                &format!("{}/debian", self.registry.host),
            ),
            ("--rootfs /target", "--rootfs target"),
            ("--rootfs /chunkah", "--rootfs rootfs"),
            ("IMAGE", "localhost/debian:trixie"),
        ] {
            text = text.replace(said, meant);
        }
        text
    }
}

/// A dracut that puts into the initramfs (cpio, "newc") what lint looks for, and nothing else.
const DRACUT: &str = r#"#!/bin/sh
for made; do :; done
pad() {
    at=$1
    while [ $((at % 4)) -ne 0 ]; do
        printf '\000'
        at=$((at + 1))
    done
}
member() {
    name=$1 content=$2
    printf '070701%08x%08x' 1 33188
    printf '%08x%08x%08x%08x' 0 0 1 0
    printf '%08x%08x%08x%08x%08x%08x%08x' ${#content} 0 0 0 0 $((${#name} + 1)) 0
    printf '%s\000' "$name"
    pad $((110 + ${#name} + 1))
    printf '%s' "$content"
    pad ${#content}
}
config=$(cat /usr/lib/ostree/prepare-root.conf && echo .)
{
    member usr/lib/ostree/ostree-prepare-root program
    member usr/lib/ostree/prepare-root.conf "${config%.}"
    member TRAILER!!! ''
} >"$made"
"#;

/// What a page takes for granted, as a script.
fn before(page: &str) -> &'static str {
    const OLD_AND_NEW: &str = "
        build one -o oci:old
        build two -o oci:new
        build one -o oci:out";
    const REPOSITORY: &str = "
        ostree init --repo=repo --mode=archive
        apt-ostree-helper commit -q --repo repo -b debian/13 --rootfs rootfs";
    const SCRIPTS: &str = "
        build one -o oci:old
        build two -o oci:new
        if [ -n \"${AOH_BOOK_PODMAN:-}\" ]; then
            apt-ostree-helper build -q --from my-os -o oci:out:latest >/dev/null
        fi";
    const README: &str = "
        ostree init --repo=repo --mode=archive
        build one -o oci:old
        build two -o oci:new";
    const MONTHS: &str = "
        git init -q .
        build one --timestamp 2026-03-01T00:00:00Z -o oci:out:march
        build two --timestamp 2026-04-01T00:00:00Z -o oci:out:april
        build one --timestamp 2026-05-01T00:00:00Z -o oci:out:may";
    const ARCHITECTURES: &str = "
        build rootfs -o oci:out
        build rootfs --arch amd64 -o docker://registry.example/os:13-amd64
        build rootfs --arch arm64 -o oci:from-the-arm-machine
        build rootfs --arch arm64 -o docker://registry.example/os:13-arm64
        build rootfs --arch armhf -o arm.tar";
    const LAYOUT: &str = "
        build rootfs -o oci:layout:tag
        build rootfs -o docker://registry.example/os:1";
    const IN_STORAGE: &str = "
        printf 'FROM localhost/debian:trixie\nRUN echo mine >/opt/mine\n' >Containerfile
        podman build -q -t my-app . >/dev/null
        podman tag my-app my-os
        podman rm -f NAME >/dev/null 2>&1 || true
        podman create -q --name NAME localhost/debian:trixie >/dev/null
        skopeo copy -q --dest-tls-verify=false containers-storage:localhost/debian:trixie \\
            docker://docker.io/library/debian:trixie
        apt-ostree-helper build -q --from my-os -o oci:out:latest >/dev/null";
    // What a dracut that runs in DIR needs there.
    const DRACUT: &str = "
        ln -s usr/bin DIR/bin
        chmod 0755 DIR/usr/bin/dracut
        for program in /bin/sh /usr/bin/env /usr/bin/cat; do
            for file in $program $(ldd $program | grep -o '/[^ ]*'); do
                install -D $file DIR$file
            done
        done";
    match page {
        "finalize" => DRACUT,
        "updates" => OLD_AND_NEW,
        "scripts" => SCRIPTS,
        "README" => README,
        "migrating" => REPOSITORY,
        "layers" => MONTHS,
        "registries" => ARCHITECTURES,
        "sources" => LAYOUT,
        "components" => "cd rootfs",
        "base" | "containers" => IN_STORAGE,
        _ => "",
    }
}

/// Runs the pages of which `is_wanted` says so, with those of their blocks that `runs` names.
fn run_pages(
    is_wanted: impl Fn(&str, &[Block]) -> bool,
    runs: impl Fn(&Block) -> bool,
    more: &str,
) -> usize {
    let mut count = 0;
    for (name, blocks) in pages() {
        let shell = |block: &&Block| block.language == "sh" && runs(block);
        if !is_wanted(&name, &blocks) || !blocks.iter().any(|block| shell(&block)) {
            continue;
        }
        let place = Place::new();
        let mut script =
            "build() { apt-ostree-helper build -q --rootfs \"$@\" >/dev/null; }\n".to_owned();
        script += &format!("{more}\n{}\n", place.meant(before(&name)));
        for block in blocks.iter().filter(shell) {
            script += &format!("echo '== {name}, line {}' >&2\n", block.line);
            script += &place.meant(&block.text);
            count += 1;
        }
        // The first file that a page has its readers write.
        let file = blocks.iter().find(|block| block.language == "dockerfile");
        if let Some(file) = file {
            let text = place.meant(&file.text);
            fs::write(place.work().join("Containerfile"), text).unwrap();
        }
        if name == "finalize" {
            fs::remove_file(place.work().join("DIR")).unwrap();
            debian(place.work().join("DIR")).file("usr/bin/dracut", DRACUT);
        }
        place.run(&name, &script);
    }
    count
}

/// The blocks that want no podman.
#[test]
fn the_commands_of_the_book_work() {
    let tools = ["ostree", "git", "setfattr", "bash"];
    if !has_registry() || !is_root() || !tools.iter().all(|tool| has(tool)) {
        return;
    }
    let count = run_pages(|_, _| true, |block| block.note.is_empty(), "");
    assert!(count >= 20, "{count}");
}

/// Whole pages that want podman, in storage where tests/e2e/book.sh has a Debian and the helper's
/// image.
#[test]
fn the_commands_of_the_book_that_want_podman_work() {
    if std::env::var_os("AOH_BOOK_PODMAN").is_none() {
        return;
    }
    let wants = |_: &str, blocks: &[Block]| blocks.iter().any(|block| block.note == "podman");
    let runs = |block: &Block| block.note.is_empty() || block.note == "podman";
    let images = "podman tag localhost/debian:trixie my-os my-app localhost/os";
    let count = run_pages(wants, runs, images);
    assert!(count >= 8, "{count}");
}

/// What is not run says why, and is little.
#[test]
fn what_is_not_run_says_why() {
    let mut skipped = 0;
    for (name, blocks) in pages() {
        for block in blocks.iter().filter(|block| block.language == "sh") {
            let reason = block.note.strip_prefix("no-run: ");
            let is_known = ["", "podman"].contains(&block.note.as_str());
            let is_told = reason.is_some_and(|reason| reason.len() > 10);
            let line = block.line;
            assert!(is_known || is_told, "{name}, line {line}: '{}'", block.note);
            skipped += usize::from(reason.is_some());
        }
    }
    assert!(skipped <= 13, "{skipped}");
}
