//! What `--json` prints is what its schema says, all of it: every field is described, none is
//! missing.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::common::*;
use serde_json::Value;

fn schema(name: &str) -> Value {
    serde_json::from_str(&run(&["schema", name])).unwrap()
}

/// Checks `value` by the keywords of JSON Schema (draft 2020-12) that the schemas use. Stricter in
/// one thing: a field that is not described is an error, though a reader must expect fields of
/// later releases.
fn check(value: &Value, schema: &Value, all: &Value, at: &str) {
    let known = [
        "$schema",
        "$comment",
        "$defs",
        "$ref",
        "title",
        "description",
        "type",
        "properties",
        "required",
        "items",
        "minimum",
        "enum",
        "anyOf",
        "additionalProperties",
    ];
    for keyword in schema.as_object().unwrap().keys() {
        assert!(
            known.contains(&keyword.as_str()),
            "{at}: this test does not know {keyword}"
        );
    }
    if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
        let target = all.pointer(reference.strip_prefix('#').unwrap());
        return check(
            value,
            target.unwrap_or_else(|| panic!("{at}: {reference}")),
            all,
            at,
        );
    }
    if let Some(any) = schema.get("anyOf").and_then(Value::as_array) {
        let is_null = |schema: &&Value| (schema["type"] == "null") == value.is_null();
        let fitting = any
            .iter()
            .find(is_null)
            .unwrap_or_else(|| panic!("{at}: {value}"));
        return check(value, fitting, all, at);
    }
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let types: Vec<&str> = match &schema["type"] {
        Value::Array(types) => types.iter().filter_map(Value::as_str).collect(),
        one => one.as_str().into_iter().collect(),
    };
    let fits = types.contains(&kind) || kind == "integer" && types.contains(&"number");
    assert!(fits, "{at}: {value} is none of {types:?}");
    if let Some(values) = schema.get("enum").and_then(Value::as_array) {
        assert!(values.contains(value), "{at}: {value}");
    }
    if let (Some(minimum), Some(number)) = (schema["minimum"].as_f64(), value.as_f64()) {
        assert!(number >= minimum, "{at}: {value}");
    }
    for (position, item) in value.as_array().into_iter().flatten().enumerate() {
        check(item, &schema["items"], all, &format!("{at}[{position}]"));
    }
    let Some(fields) = value.as_object() else {
        return;
    };
    let properties = schema["properties"].as_object();
    for (name, field) in fields {
        let described = properties.and_then(|properties| properties.get(name));
        let described = described.or_else(|| schema.get("additionalProperties"));
        let described = described.unwrap_or_else(|| panic!("{at}.{name} is not in the schema"));
        check(field, described, all, &format!("{at}.{name}"));
    }
    for name in schema["required"].as_array().into_iter().flatten() {
        assert!(
            fields.contains_key(name.as_str().unwrap()),
            "{at}.{name} is missing"
        );
    }
}

fn conforms(name: &str, arguments: &[&str]) {
    let schema = schema(name);
    let told = run_json(arguments);
    check(&told, &schema, &schema, name);
}

#[test]
fn what_json_prints_is_what_the_schemas_say() {
    let dir = scratch();
    let old = three_packages(dir.path(), "old", "2-1", "x");
    let new = three_packages(dir.path(), "new", "2-1+deb12u1", "y");
    let layout = |name: &str| format!("oci:{}", dir.path().join(name).display());
    let (a, b) = (layout("a"), layout("b"));
    conforms("build", &["build", "-q", "--rootfs", old.str(), "-o", &a]);
    conforms(
        "build",
        &[
            "build",
            "-q",
            "--rootfs",
            new.str(),
            "-o",
            &b,
            "--format",
            "plain",
            "--previous",
            &a,
        ],
    );
    conforms(
        "plan",
        &[
            "plan",
            "-q",
            "--rootfs",
            old.str(),
            "--explain",
            "/usr/bin/b",
        ],
    );
    let file = dir.path().join("plan.json");
    let arguments = ["plan", "-q", "--rootfs", old.str(), "--write-plan"];
    run(&[&arguments[..], &[file.to_str().unwrap()]].concat());
    let plan = serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap();
    let described = schema("plan-file");
    check(&plan, &described, &described, "plan-file");
    conforms("inspect", &["inspect", &a]);
    conforms("diff", &["diff", &a, &b, "--changelog"]);
    conforms("diff", &["diff", &a, &a]);
    let system = Rootfs::new(dir.path().join("system"));
    for directory in [
        "boot",
        "etc",
        "home",
        "opt",
        "root",
        "usr/bin",
        "usr/lib",
        "usr/sbin",
        "usr/share",
        "var/lib/dpkg",
    ] {
        system.dir(directory);
    }
    system
        .file("usr/lib/os-release", "ID=debian\n")
        .link("bin", "usr/bin")
        .link("lib", "usr/lib")
        .settle();
    conforms("finalize", &["finalize", "-q", "--dry-run", system.str()]);
    for directory in ["boot", "sysroot", "usr/lib/modules/6.12"] {
        old.dir(directory);
    }
    for name in ["vmlinuz", "initramfs.img"] {
        old.file(&format!("usr/lib/modules/6.12/{name}"), name);
    }
    old.settle();
    let plain = ["build", "-q", "--format", "plain", "--rootfs", old.str()];
    run(&[&plain[..], &["-o", &b]].concat());
    conforms("seal", &["seal", "-q", "--dry-run", &b]);
    if has("ostree") && is_root() {
        let repo = repository(dir.path(), "repo", "bare");
        conforms(
            "commit",
            &[
                "commit",
                "-q",
                "--repo",
                &repo,
                "-b",
                "x",
                "--rootfs",
                old.str(),
            ],
        );
        conforms("import", &["import", "-q", "--repo", &repo, "-b", "y", &a]);
        conforms(
            "build",
            &["encapsulate", "-q", "--repo", &repo, "x", &layout("c")],
        );
    }
}

#[test]
fn every_schema_is_printed_and_listed() {
    let listed = run(&["schema"]);
    let listed: BTreeSet<&str> = listed.lines().collect();
    let mut there = BTreeSet::new();
    for entry in
        fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib/docs/schema")).unwrap()
    {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        assert_eq!(
            run(&["schema", &name]),
            fs::read_to_string(&path).unwrap().trim_end()
        );
        assert!(schema(&name)["description"].is_string(), "{name}");
        there.insert(name);
    }
    assert_eq!(listed, there.iter().map(String::as_str).collect());
    let message = fail(2, &["schema", "none"]);
    assert!(
        message.contains("there is no schema 'none'; there are build"),
        "{message}"
    );
}

/// A command that can print JSON has a schema: its own, or that of `build` where it makes an image.
#[test]
fn every_command_with_json_has_a_schema() {
    let help = run(&["--help"]);
    let commands = help.split("Commands:").nth(1).unwrap();
    let commands = commands
        .lines()
        .skip(1)
        .take_while(|line| !line.trim().is_empty());
    let names = commands.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let names: Vec<&str> = names
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert!(names.len() > 9, "{names:?}");
    let schemas = run(&["schema"]);
    for name in names
        .into_iter()
        .filter(|name| !["help", "compose", "encapsulate"].contains(name))
    {
        let prints = run(&[name, "--help"]).contains("\n      --json");
        let has = schemas.lines().any(|schema| schema == name);
        assert!(
            !prints || has,
            "'{name} --json' has no schema in contrib/docs/schema"
        );
    }
}
