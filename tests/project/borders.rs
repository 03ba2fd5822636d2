//! The borders between modules, held by reading the source: who may use whom, who may print, who
//! may start processes. A new dependency between modules is a decision: it changes this table.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Each module of the crate with those it may name. `cli` is the face and may name them all.
const MAY_USE: [(&str, &[&str]); 21] = [
    ("checksum", &[]),
    ("limits", &[]),
    ("parallel", &[]),
    ("progress", &[]),
    ("remedy", &[]),
    ("undo", &[]),
    ("process", &["undo"]),
    ("tree", &["limits", "parallel"]),
    ("dpkg", &[]),
    ("plan", &[]),
    ("oci", &["checksum", "limits", "parallel", "undo"]),
    ("component", &["dpkg", "tree"]),
    ("composefs", &["checksum", "parallel", "progress", "tree"]),
    // dracut, initramfs-tools and ukify are programs of the system.
    ("uki", &["process"]),
    ("finalize", &["dpkg", "process", "tree"]),
    (
        "ostree",
        &["checksum", "limits", "parallel", "progress", "tree", "undo"],
    ),
    (
        "layers",
        &[
            "checksum",
            "component",
            "limits",
            "oci",
            "ostree",
            "plan",
            "progress",
            "remedy",
            "tree",
        ],
    ),
    (
        "registry",
        &["checksum", "oci", "process", "progress", "remedy"],
    ),
    ("source", &["oci", "process", "remedy", "tree", "undo"]),
    (
        "pipeline",
        &[
            "checksum",
            "component",
            "composefs",
            "dpkg",
            "layers",
            "limits",
            "oci",
            "ostree",
            "parallel",
            "plan",
            "progress",
            "registry",
            "remedy",
            "source",
            "tree",
            "uki",
        ],
    ),
    ("report", &["finalize", "pipeline", "progress"]),
];

/// The code of every source file by module, without comments and test modules.
fn code() -> BTreeMap<String, Vec<(PathBuf, String)>> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found: BTreeMap<String, Vec<(PathBuf, String)>> = BTreeMap::new();
    let mut pending = vec![src.clone()];
    while let Some(dir) = pending.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                pending.push(path);
                continue;
            }
            if path.file_name().unwrap() == "tests.rs" {
                continue;
            }
            let below = path.strip_prefix(&src).unwrap();
            let top = below.components().next().unwrap().as_os_str();
            let module = top.to_str().unwrap().trim_end_matches(".rs").to_owned();
            let text = fs::read_to_string(&path).unwrap();
            let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
            let lines = code.lines().map(|line| line.split("//").next().unwrap());
            let code = lines.collect::<Vec<_>>().join("\n");
            found.entry(module).or_default().push((path, code));
        }
    }
    found
}

/// The modules that `code` names as `crate::NAME`.
fn named(code: &str) -> BTreeSet<String> {
    code.split("crate::")
        .skip(1)
        .map(|rest| {
            rest.split(|c: char| !c.is_alphanumeric() && c != '_')
                .next()
                .unwrap()
        })
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect()
}

#[test]
fn modules_use_only_what_they_may() {
    let allowed: BTreeMap<&str, &[&str]> = MAY_USE.into();
    let mut seen = BTreeSet::new();
    for (module, files) in code() {
        if ["lib", "main", "cli"].contains(&module.as_str()) {
            continue;
        }
        let allowed = allowed
            .get(module.as_str())
            .unwrap_or_else(|| panic!("module {module} is not in the table of borders"));
        for (path, code) in files {
            for name in named(&code) {
                let fine = name == module || allowed.contains(&name.as_str());
                assert!(
                    fine,
                    "{} uses crate::{name}, which {module} may not",
                    path.display()
                );
                seen.insert((module.clone(), name));
            }
        }
    }
    assert!(
        seen.len() > 20,
        "the reader of `use` lines sees nothing: {seen:?}"
    );
}

#[test]
fn every_permission_is_used() {
    let code = code();
    for (module, allowed) in MAY_USE {
        let text: String = code[module].iter().map(|(_, code)| code.as_str()).collect();
        for name in allowed {
            assert!(
                named(&text).contains(*name),
                "{module} no longer uses {name}"
            );
        }
    }
}

#[test]
fn only_cli_and_report_print() {
    for (module, files) in code() {
        for (path, code) in files {
            let prints = ["print!", "println!", "eprint!", "eprintln!", "io::stderr"];
            let found = prints.iter().find(|word| code.contains(**word));
            // It hands standard error on to the programs that it runs.
            let may = ["cli", "report", "process"].contains(&module.as_str());
            assert!(found.is_none() || may, "{} uses {found:?}", path.display());
        }
    }
}

/// `process` runs what others call; `registry` talks to skopeo through a crate that starts it, and
/// `source` starts this program anew in a user namespace.
#[test]
fn only_these_start_processes() {
    for (module, files) in code() {
        for (path, code) in files {
            let starts = ["Command::new", "containers_image_proxy"];
            let found = starts.iter().find(|word| code.contains(**word));
            let may = ["process", "registry", "source"].contains(&module.as_str());
            assert!(found.is_none() || may, "{} uses {found:?}", path.display());
        }
    }
}

/// Everything else is there without libostree.
#[test]
fn only_the_repository_names_libostree() {
    for (path, code) in code().into_values().flatten() {
        let names = code.contains("use ostree::") || code.contains(" ostree::");
        let may = path.to_str().unwrap().contains("src/ostree/repo");
        assert!(!names || may, "{} names the ostree crate", path.display());
    }
}

/// The names of all options of all commands, as the completions have them.
fn options() -> BTreeSet<String> {
    let program = env!("CARGO_BIN_EXE_apt-ostree-helper");
    let told = Command::new(program).args(["completions", "bash"]).output();
    let told = String::from_utf8(told.unwrap().stdout).unwrap();
    let words = told.split(|c: char| !c.is_ascii_lowercase() && c != '-');
    let options = words.filter(|word| word.starts_with("--") && word.len() > 2);
    options.map(str::to_owned).collect()
}

/// Whether `before`, the text in a message up to an option, is the beginning of a call of another
/// program: `'skopeo copy `.
fn calls_another_program(before: &str) -> bool {
    const OTHERS: [&str; 8] = [
        "buildah", "cargo", "dpkg", "dpkg-deb", "ostree", "podman", "skopeo", "usermod",
    ];
    let call = before.rsplit(['\'', '`', '(']).next().unwrap_or_default();
    let program = call.split(' ').next().unwrap_or_default();
    OTHERS.contains(&program)
}

/// The options of `ours` that messages in `code` name. What is only an option, without words around
/// it, is an argument for another program.
fn told_options(code: &str, ours: &BTreeSet<String>) -> Vec<String> {
    let mut found = Vec::new();
    for line in code.lines() {
        for (at, _) in line.match_indices("--") {
            let (before, rest) = line.split_at(at);
            let end = rest.find(|c: char| !c.is_ascii_lowercase() && c != '-');
            let option = &rest[..end.unwrap_or(rest.len())];
            let literal = rest.split('"').next().unwrap_or(rest);
            let is_argument = before.ends_with('"') && !literal.contains(' ');
            if ours.contains(option) && !is_argument && !calls_another_program(before) {
                found.push(option.to_owned());
            }
        }
    }
    found
}

/// The library says what is wrong and what helps (`Remedy`) in its own terms; `cli` knows which
/// option that is. `report` writes what a person reads, as `cli` does.
#[test]
fn no_option_is_named_below_cli() {
    let ours = options();
    for option in ["--prune", "--leftovers", "--max-layers", "--copymeta-opt"] {
        assert!(ours.contains(option), "{option} is not in {ours:?}");
    }
    let told = |line: &str| told_options(line, &ours);
    assert_eq!(
        told(r#"bail!("leave it out with --prune /x")"#),
        ["--prune"]
    );
    assert_eq!(told(r#""'umount --leftovers' does""#), ["--leftovers"]);
    assert!(told(r#"Call::new("skopeo", ["--format", "--format={x}"])"#).is_empty());
    assert!(told(r#"bail!("use 'skopeo copy --format oci'")"#).is_empty());
    for (module, files) in code() {
        if ["main", "cli", "report"].contains(&module.as_str()) {
            continue;
        }
        for (path, code) in files {
            let told = told_options(&code, &ours);
            assert!(told.is_empty(), "{} names {told:?}", path.display());
        }
    }
}
