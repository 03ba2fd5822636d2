//! podman and buildah as scripts, which keep count of what is mounted.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tempfile::TempDir;

use super::*;

/// The script. `$FAKE` is its directory: `calls` has a line a call; `mounts` and `containers` a
/// line each; `on-CALL` is what a call does instead of its work.
pub const SCRIPT: &str = r#"#!/bin/sh
echo "${0##*/} $*" >>"$FAKE/calls"
id=0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
case "${0##*/} $1 $2" in
"podman image inspect") call=inspect-image ;;
"podman image mount") call=mount-image; [ "$3" = --format ] && call=mounted-images ;;
"podman image umount") call=unmount-image ;;
"podman container inspect") call=inspect-container ;;
"buildah inspect --type") call=inspect-image; [ "$3" = container ] && call=inspect-container ;;
*" pull "*) call=pull ;;
*" tag "*) call=tag ;;
*" rmi "*) call=untag ;;
*" create "* | *" from "*) call=create ;;
*" mount --"*) call=mounted ;;
*" mount "*) call=mount ;;
*" umount "*) call=unmount ;;
*" rm "*) call=remove ;;
*" ps "* | *" containers "*) call=list ;;
*" info "*) call=info ;;
*" build "*) call=build ;;
*) echo "unexpected: $*" >&2; exit 99 ;;
esac
[ -e "$FAKE/on-$call" ] && . "$FAKE/on-$call"
name=
for word; do
    case $word in --name=*) name=${word#--name=} ;; esac
    last=$word
done
case $call in
inspect-image)
    [ -e "$FAKE/config" ] || { echo "no such image" >&2; exit 125; }
    if [ "${0##*/}" = buildah ]; then cat "$FAKE/buildah-config"; else cat "$FAKE/config"; fi ;;
inspect-container)
    [ "$last" = box ] || { echo "no such container" >&2; exit 125; }
    if [ "${0##*/}" = buildah ]; then cat "$FAKE/buildah-config"; else printf '[{"Image": "%s"}]' "$id"; fi ;;
mount-image) echo image >>"$FAKE/mounts"; cat "$FAKE/rootfs-path" ;;
mounted-images) printf '[{"id": "%s", "mountpoint": "%s"}]' "$id" "$(cat "$FAKE/rootfs-path")" ;;
unmount-image) sed 1d "$FAKE/mounts" >"$FAKE/mounts.new"; cat "$FAKE/mounts.new" >"$FAKE/mounts"; echo $id ;;
create) echo "$name" >>"$FAKE/containers"; echo made ;;
mount) echo "$last" >>"$FAKE/mounts"; cat "$FAKE/rootfs-path" ;;
unmount) sed "/^$last\$/d" "$FAKE/mounts" >"$FAKE/mounts.new"; cat "$FAKE/mounts.new" >"$FAKE/mounts" ;;
mounted) echo '[]' ;;
remove)
    grep -qx "$last" "$FAKE/containers" || { echo "no such container $last" >&2; exit 1; }
    for file in containers mounts; do
        sed "/^$last\$/d" "$FAKE/$file" >"$FAKE/$file.new"; cat "$FAKE/$file.new" >"$FAKE/$file"
    done ;;
list) cat "$FAKE/containers" ;;
info) printf '{"store": {"graphRoot": "%s", "graphDriverName": "vfs", "GraphRoot": "%s", "GraphDriverName": "vfs"}}' "$FAKE" "$FAKE" ;;
build)
    echo "STEP 1: FROM nothing" >&2
    for word; do case $word in --iidfile=*) printf 'sha256:%s' "$id" >"${word#--iidfile=}" ;; esac; done ;;
pull) echo $id ;;
esac
"#;

/// Backends of its own for one test.
pub struct Fake {
    pub dir: TempDir,
    pub rootfs: Rootfs,
}

impl Fake {
    /// With these programs.
    pub fn new(programs: &[&str]) -> Self {
        let dir = scratch();
        let bin = dir.path().join("bin");
        fs::create_dir(&bin).unwrap();
        for tool in [
            "sh", "cat", "sed", "grep", "sleep", "kill", "echo", "printf",
        ] {
            let found = succeed(Command::new("sh").args(["-c", &format!("command -v {tool}")]));
            if found.starts_with('/') {
                std::os::unix::fs::symlink(found, bin.join(tool)).unwrap();
            }
        }
        for program in programs {
            let path = bin.join(program);
            fs::write(&path, SCRIPT).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        let rootfs = Rootfs::new(dir.path().join("rootfs"));
        rootfs
            .file("usr/bin/foo", "foo")
            .file("etc/bar", "bar")
            .settle();
        let fake = Self { dir, rootfs };
        for file in ["calls", "mounts", "containers"] {
            fake.write(file, "");
        }
        fs::create_dir(fake.at("tmp")).unwrap();
        fake.write("rootfs-path", fake.rootfs.str());
        let config = json!({"created": "2024-05-06T07:08:09Z", "architecture": "amd64", "os": "linux",
            "config": {"Env": ["A=b"], "User": "nobody", "Labels": {"keep": "1", "ostree.commit": "stale"}}});
        let id = "0123456789abcdef".repeat(4);
        let podman = json!([{"Id": id, "Created": "2024-05-06T07:08:09Z", "Architecture": "amd64", "Os": "linux",
            "Config": config["config"]}]);
        fake.write("config", &podman.to_string());
        let buildah = json!({"FromImageID": id, "Config": config.to_string(), "OCIv1": config});
        fake.write("buildah-config", &buildah.to_string());
        fake
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn write(&self, name: &str, content: &str) {
        fs::write(self.at(name), content).unwrap();
    }

    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.at(name)).unwrap()
    }

    /// What a call does instead: shell.
    pub fn on(&self, call: &str, script: &str) -> &Self {
        self.write(&format!("on-{call}"), script);
        self
    }

    pub fn layout(&self) -> String {
        format!("oci:{}", self.at("out").display())
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = interruptible();
        command
            .args(arguments)
            .env("PATH", self.at("bin"))
            .env("FAKE", self.dir.path());
        command
            .env("TMPDIR", self.at("tmp"))
            .env("APT_OSTREE_HELPER_RUN", self.at("run"))
            .env_remove("APT_OSTREE_HELPER_BACKEND");
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    pub fn build(&self, more: &[&str]) -> Output {
        let layout = self.layout();
        self.run(&[&["build", "--from", "localhost/os", "-o", &layout], more].concat())
    }

    /// The calls of a kind, by how they begin.
    pub fn count(&self, begin: &str) -> usize {
        let calls = self.read("calls");
        calls.lines().filter(|line| line.starts_with(begin)).count()
    }

    /// Nothing is mounted, there is no container, process, temporary directory or output.
    pub fn is_clean(&self, what: &str) {
        assert_eq!(
            self.read("mounts"),
            "",
            "{what}: mounts; calls:\n{}",
            self.read("calls")
        );
        assert_eq!(
            self.read("containers"),
            "",
            "{what}: containers; calls:\n{}",
            self.read("calls")
        );
        assert_eq!(names(&self.at("tmp")), Vec::<String>::new(), "{what}");
        if self.at("run").exists() {
            assert_eq!(names(&self.at("run")), Vec::<String>::new(), "{what}");
        }
        let hidden = names(self.dir.path()).into_iter();
        let hidden: Vec<String> = hidden.filter(|name| name.starts_with('.')).collect();
        assert_eq!(hidden, Vec::<String>::new(), "{what}");
        assert_eq!(self.processes(), Vec::<String>::new(), "{what}");
    }

    /// The processes that this fake's scripts are and have started.
    pub fn processes(&self) -> Vec<String> {
        let mark = format!("FAKE={}", self.dir.path().display());
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
            if environment
                .split(|byte| *byte == 0)
                .any(|variable| variable == mark.as_bytes())
            {
                let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
                found.push(String::from_utf8_lossy(&command).replace('\0', " "));
            }
        }
        found
    }
}

pub fn failed(output: &Output, what: &str, wanted: &[&str]) {
    let said = stderr(output);
    assert_eq!(output.status.code(), Some(1), "{what}: {said}");
    for text in wanted {
        assert!(said.contains(text), "{what}: '{text}' is not in: {said}");
    }
}

pub fn succeeded(output: &Output) -> String {
    assert!(output.status.success(), "{}", stderr(output));
    stderr(output)
}

/// Waits until a file is there, or is not empty.
pub fn wait_for(path: &Path) {
    let start = Instant::now();
    while !fs::metadata(path).is_ok_and(|found| found.is_dir() || found.len() > 0) {
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "{}",
            path.display()
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}

pub fn signal(child: &Child, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    kill_process(pid, signal).unwrap();
}

pub fn start(fake: &Fake, arguments: &[&str]) -> Child {
    let mut command = fake.command(arguments);
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

/// A rootfs on which a build with [`SLOWLY`] works until it is ended.
pub fn make_big(fake: &Fake) {
    let mut state = 1u32;
    let word = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 26) as u8
    };
    let content: Vec<u8> = std::iter::repeat_with(word).take(24 << 20).collect();
    fake.rootfs.file("usr/share/big", content).settle();
}

pub const SLOWLY: [&str; 4] = ["--compression", "zstd", "--compression-level", "22"];
