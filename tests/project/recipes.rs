//! The recipes in contrib/recipes: their scripts are run as they are, with a registry of the tests.
//! mmdebstrap and apt-get are other programs here: they copy a small root filesystem, and do
//! nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::*;
use serde_json::Value;

const USER: &str = "recipes";
const PASSWORD: &str = "of the recipes";

fn recipe(name: &str) -> String {
    let recipes = Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib/recipes");
    fs::read_to_string(recipes.join(name)).unwrap()
}

/// The blocks of shell code in a recipe in YAML: what is indented more than the line that ends with
/// `begins`.
fn scripts(yaml: &str, begins: &str) -> Vec<String> {
    let indent = |line: &str| line.len() - line.trim_start().len();
    let lines: Vec<&str> = yaml.lines().collect();
    let starts = (0..lines.len()).filter(|at| lines[*at].trim_start() == begins);
    let script = |at: usize| {
        let body = lines[at + 1..].iter();
        let outer = indent(lines[at]);
        let body: Vec<&str> = body
            .take_while(|line| line.is_empty() || indent(line) > outer)
            .copied()
            .collect();
        let inner = indent(body[0]);
        let text = body
            .iter()
            .map(|line| line.get(inner..).unwrap_or("").to_owned() + "\n");
        text.collect::<String>()
    };
    starts.map(script).collect()
}

/// A machine of a recipe: programs, a registry with a password, and the system that mmdebstrap
/// makes.
struct Machine {
    dir: tempfile::TempDir,
    registry: Registry,
    environment: Vec<(String, String)>,
}

impl Machine {
    fn new() -> Self {
        let dir = scratch();
        let (authority, certificate, key) = certificates(dir.path());
        let guard = Guard {
            user: Some((USER, PASSWORD)),
            tls: Some((&certificate, &key)),
        };
        let registry = Registry::guarded(dir.path(), &guard);
        let at = |name: &str| dir.path().join(name).display().to_string();
        for name in ["bin", "home", "work"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        // Where containers-certs.d(5) is found.
        let trusted = dir.path().join("home/.config/containers/certs.d");
        fs::create_dir_all(&trusted).unwrap();
        std::os::unix::fs::symlink(&authority, trusted.join(&registry.host)).unwrap();
        let program = |name: &str, text: &str| {
            fs::write(at(name), text).unwrap();
            succeed(Command::new("chmod").args(["755", &at(name)]));
        };
        program("bin/apt-get", "#!/bin/sh\n");
        // The place of the new system is the last word.
        let copy = format!(
            "#!/bin/bash\nrm -rf \"${{@: -1}}\"\ncp -a {} \"${{@: -1}}\"\n",
            at("system")
        );
        program("bin/mmdebstrap", &copy);
        let helper = env!("CARGO_BIN_EXE_apt-ostree-helper");
        for arch in ["amd64", "arm64"] {
            let name = at(&format!("apt-ostree-helper-{arch}"));
            std::os::unix::fs::symlink(helper, &name).unwrap();
            let sum = succeed(Command::new("sha256sum").arg(&name));
            fs::write(format!("{name}.sha256"), sum).unwrap();
        }
        std::os::unix::fs::symlink(helper, at("bin/apt-ostree-helper")).unwrap();
        let path = std::env::var("PATH").unwrap();
        let image = format!("{}/project/os", registry.host);
        let environment = [
            ("PATH", format!("{}:{path}", at("bin"))),
            ("HOME", at("home")),
            ("TMPDIR", dir.path().display().to_string()),
            ("REGISTRY_AUTH_FILE", at("auth.json")),
            ("HELPER_URL", format!("file://{}", at("apt-ostree-helper"))),
            ("SUITE", "trixie".into()),
            ("PACKAGES", "a,b,c".into()),
            ("BOOTABLE", String::new()),
            ("ARCHITECTURES", machine_name()),
            ("IMAGE", image.clone()),
            ("REGISTRY_USER", USER.into()),
            ("REGISTRY_PASSWORD", PASSWORD.into()),
            ("CI_REGISTRY", registry.host.clone()),
            ("CI_REGISTRY_IMAGE", image),
            ("CI_REGISTRY_USER", USER.into()),
            ("CI_REGISTRY_PASSWORD", PASSWORD.into()),
            ("GITHUB_STEP_SUMMARY", at("work/update.md")),
        ];
        let environment = environment.map(|(name, value)| (name.to_owned(), value));
        Self {
            registry,
            environment: environment.into(),
            dir,
        }
    }

    /// What mmdebstrap makes from now on.
    fn has_system(&self, version: &str) {
        let system = self.dir.path().join("system");
        if system.exists() {
            fs::remove_dir_all(&system).unwrap();
        }
        three_packages(self.dir.path(), "system", version, "note");
    }

    /// Runs scripts one after another in one directory, as the steps of a job.
    fn run(&self, scripts: &[String], arch: &str) -> String {
        let mut said = String::new();
        for script in scripts {
            let mut command = Command::new("bash");
            command.args(["--noprofile", "--norc", "-eo", "pipefail", "-c", script]);
            command.current_dir(self.dir.path().join("work"));
            command
                .envs(self.environment.iter().cloned())
                .env("ARCH", arch);
            said += &succeed(&mut command);
        }
        said
    }

    fn inspect(&self, arguments: &[&str]) -> Value {
        let mut command = helper();
        command.args(["inspect", "--json"]).args(arguments);
        let command = command.envs(self.environment.iter().cloned());
        serde_json::from_str(&succeed(command)).unwrap()
    }

    fn notes(&self) -> PathBuf {
        self.dir.path().join("work/update.md")
    }

    /// What every recipe does: a first build, nothing where nothing has changed, an update, and one
    /// name for all.
    fn follows(&self, build: &[String], index: &[String]) {
        let name = |tag: &str| self.registry.name(&format!("project/os:{tag}"));
        self.has_system("1.0-1");
        for arch in ["amd64", "arm64"] {
            self.run(build, arch);
        }
        assert!(!self.notes().exists(), "there is nothing to compare with");
        let first = self.inspect(&[&name("trixie-amd64")]);
        self.registry.forget();
        let said = self.run(build, "amd64");
        assert!(said.contains("No package has changed."), "{said}");
        assert_eq!(self.registry.uploads(), 0);
        self.has_system("1.0-1+deb13u1");
        self.run(build, "amd64");
        let second = self.inspect(&[&name("trixie-amd64")]);
        assert_ne!(second["digest"], first["digest"]);
        let count = second["layers"].as_array().unwrap().len();
        assert!(
            self.registry.uploads() < count + 1,
            "layers that stay are not sent"
        );
        let notes = fs::read_to_string(self.notes()).unwrap();
        assert!(notes.contains("1.0-1+deb13u1"), "{notes}");
        assert!(self.dir.path().join("work/update.html").exists());
        self.run(index, "amd64");
        for arch in ["amd64", "arm64"] {
            let found = self.inspect(&[&name("trixie"), "--arch", arch]);
            let part = self.inspect(&[&name(&format!("trixie-{arch}"))]);
            assert_eq!(found["digest"], part["digest"], "{arch}");
        }
        let left = names(self.dir.path());
        assert!(
            left.iter().all(|name| !name.starts_with(".apt-ostree")),
            "{left:?}"
        );
    }
}

fn ready() -> bool {
    has_registry()
        && ["jq", "curl", "dpkg-query"]
            .iter()
            .all(|program| has(program))
}

#[test]
fn github_actions() {
    if !ready() {
        return;
    }
    let scripts = scripts(&recipe("github-actions.yml"), "run: |");
    assert_eq!(scripts.len(), 4);
    assert!(
        scripts.iter().all(|script| !script.contains("${{")),
        "nothing is pasted into shell code"
    );
    Machine::new().follows(&scripts[..2], &scripts[2..]);
}

#[test]
fn gitlab_ci() {
    if !ready() {
        return;
    }
    let scripts = scripts(&recipe("gitlab-ci.yml"), "- |");
    let [tools, build, index] = scripts.try_into().unwrap();
    Machine::new().follows(&[tools.clone(), build], &[tools, index]);
}

/// What a task's script reads of its environment is what the task is given.
#[test]
fn tekton() {
    if !ready() {
        return;
    }
    let text = recipe("tekton.yml");
    let [build, index] = scripts(&text, "script: |").try_into().unwrap();
    let login = "skopeo login -u \"$REGISTRY_USER\" --password-stdin \"$CI_REGISTRY\" <<<\"$REGISTRY_PASSWORD\"";
    assert!(
        !build.contains("$(params") && !index.contains("$(params"),
        "nothing is pasted"
    );
    let mut tasks = text.split("---\n");
    for script in [&build, &index] {
        let task = tasks.next().unwrap();
        for name in [
            "IMAGE",
            "ARCH",
            "SUITE",
            "PACKAGES",
            "BOOTABLE",
            "HELPER_URL",
        ] {
            let is_read =
                script.contains(&format!("${name}")) || script.contains(&format!("${{{name}"));
            assert_eq!(
                task.contains(&format!("- name: {name}\n")),
                is_read,
                "{name}"
            );
        }
        for parameter in task.split("$(params.").skip(1) {
            let name = parameter.split(')').next().unwrap();
            assert!(task.contains(&format!("- name: {name}\n")), "{name}");
        }
    }
    Machine::new().follows(&[login.to_owned(), build], &[index]);
}

/// The service's script makes the name for all itself.
#[test]
fn a_machine_with_systemd() {
    if !ready() {
        return;
    }
    let machine = Machine::new();
    let login = "skopeo login -u \"$REGISTRY_USER\" --password-stdin \"$CI_REGISTRY\" <<<\"$REGISTRY_PASSWORD\"";
    let script = [login.to_owned(), recipe("systemd/update-image")];
    machine.has_system("1.0-1");
    machine.run(&script, "");
    machine.registry.forget();
    let said = machine.run(&script, "");
    assert!(said.contains("No package has changed."), "{said}");
    assert_eq!(machine.registry.uploads(), 0);
    machine.has_system("1.0-1+deb13u1");
    let said = machine.run(&script, "");
    assert!(said.contains("1.0-1+deb13u1"), "{said}");
    let [all, part] = ["trixie".to_owned(), format!("trixie-{}", machine_name())]
        .map(|tag| machine.inspect(&[&machine.registry.name(&format!("project/os:{tag}"))]));
    assert_eq!(all["digest"], part["digest"]);
    // Of the names in the unit's file each is one that the script knows.
    for line in recipe("systemd/update-image.conf").lines() {
        if let Some((name, _)) = line.split_once('=') {
            assert!(script[1].contains(&format!("${name}")), "{name}");
        }
    }
}

/// With `BOOTABLE`, a system with a kernel becomes an image that boots.
#[test]
fn bootable_images() {
    if !ready() || !is_root() {
        return;
    }
    let github = scripts(&recipe("github-actions.yml"), "run: |");
    let gitlab = scripts(&recipe("gitlab-ci.yml"), "- |");
    let login = github[1].lines().find(|line| line.contains("login"));
    let systemd = format!("{}\n{}", login.unwrap(), recipe("systemd/update-image"));
    let tekton = scripts(&recipe("tekton.yml"), "script: |");
    let tekton = format!("{}\n{}", login.unwrap(), tekton[0]);
    for script in [&github[..2], &gitlab[..2], &[systemd], &[tekton]] {
        let mut machine = Machine::new();
        let mut is_told = machine.environment.iter_mut();
        let is_told = is_told.find(|(name, _)| name == "BOOTABLE");
        is_told.unwrap().1 = "yes".into();
        with_dracut(&debian::debian(machine.dir.path().join("system")));
        let arch = machine_name();
        machine.run(script, &arch);
        let show = format!("skopeo inspect --config docker://$IMAGE:$SUITE-{arch}");
        let config: Value = serde_json::from_str(&machine.run(&[show], &arch)).unwrap();
        assert_eq!(config["config"]["Labels"]["containers.bootc"], "1");
        assert_eq!(config["config"]["Cmd"][0], "/sbin/init");
        let left = names(&machine.dir.path().join("system/usr/lib"));
        assert!(!left.contains(&"sysimage".to_owned()), "of the copy only");
    }
}

/// A dracut that runs in the system: it makes an initramfs with nothing in it.
fn with_dracut(system: &Rootfs) {
    for program in ["/usr/bin/env", "/bin/sh", "/bin/cp"] {
        let libraries = succeed(Command::new("ldd").arg(program));
        let files = libraries.split_whitespace();
        for file in files.filter(|word| word.starts_with('/')).chain([program]) {
            let to = match file.starts_with("/usr/") {
                true => system.at(&file[1..]),
                false => system.at(&format!("usr{file}")),
            };
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::copy(file, to).unwrap();
        }
    }
    for name in ["bin", "lib64"] {
        system.link(name, &format!("usr/{name}"));
    }
    // cpio(5), "New ASCII Format": the end, which has a name of eleven bytes.
    let fields = (0..13).map(|at| match at {
        11 => "0000000b",
        _ => "00000000",
    });
    let end = format!("070701{}TRAILER!!!\0\0\0\0", fields.collect::<String>());
    system.file("usr/share/initramfs", end).file(
        "usr/bin/dracut",
        "#!/bin/sh\nfor last; do :; done\ncp /usr/share/initramfs \"$last\"\n",
    );
    system.mode("usr/bin/dracut", 0o755);
}

fn machine_name() -> String {
    succeed(Command::new("dpkg").arg("--print-architecture"))
}
