//! Images that a Containerfile makes: what podman and buildah are given, word for word, and that
//! nothing stays behind of a build that fails. They are scripts here, which keep count of what is
//! mounted.

use std::fs;
use std::process::{Output, Stdio};
use std::time::Duration;

use crate::common::fake::*;
use crate::common::*;
use rustix::process::Signal;
use serde_json::Value;

#[test]
fn build_image_passes_on_what_it_is_given() {
    for program in ["podman", "buildah"] {
        let fake = Fake::new(&[program]);
        let context = fake.at("context");
        fs::create_dir(&context).unwrap();
        let file = context.join("File");
        fs::write(&file, "FROM nothing").unwrap();
        let (context, file) = (context.to_str().unwrap(), file.to_str().unwrap());
        let layout = fake.layout();
        let output = fake.run(&[
            "compose",
            "build-image",
            context,
            "--file",
            file,
            "--build-arg",
            "A=b c",
            "--build-arg",
            "D",
            "--target",
            "t",
            "--platform",
            "linux/amd64",
            "-o",
            &layout,
            "--json",
            "--",
            "--network=host",
        ]);
        let said = succeeded(&output);
        assert!(said.contains("STEP 1: FROM nothing"), "{said}");
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert!(report["digest"].is_string());
        let calls = fake.read("calls");
        let call = calls
            .lines()
            .find(|line| line.starts_with(&format!("{program} build")))
            .unwrap();
        for option in [
            "--build-arg=A=b c",
            "--build-arg=D",
            "--target=t",
            "--platform=linux/amd64",
            &format!("--file={file}"),
        ] {
            assert!(call.contains(option), "{option} is not in {call}");
        }
        assert!(
            call.ends_with(&format!("--network=host {context}")),
            "{call}"
        );
        fake.is_clean(program);
    }
}

/// The config of what the Containerfile makes, unless another is named.
#[test]
fn build_image_has_the_config_that_is_named() {
    let fake = Fake::new(&["podman"]);
    fake.write("File", "FROM nothing");
    fake.write("other", r#"{"config": {"Env": ["OTHER=config"]}}"#);
    let (file, other) = (fake.at("File"), fake.at("other"));
    let (file, other) = (file.to_str().unwrap(), other.to_str().unwrap());
    let layout = fake.layout();
    let command = ["compose", "build-image", "-f", file, "-o", &layout, "-q"];
    let environment = |more: &[&str]| {
        succeeded(&fake.run(&[&command[..], more].concat()));
        let layout = layout.trim_start_matches("oci:");
        read_image(std::path::Path::new(layout)).config["config"]["Env"].to_string()
    };
    assert!(!environment(&[]).contains("OTHER"));
    assert!(environment(&["--config", other]).contains("OTHER"));
    fake.is_clean("a config that is named");
    // What is wrong with it is found before anything is built.
    fake.write("calls", "");
    for (more, said) in [
        (&["--config", "/no/such"][..], "/no/such"),
        (
            &["--previous", "oci:/no/such", "--previous-required"],
            "/no/such",
        ),
    ] {
        failed(
            &fake.run(&[&command[..], more].concat()),
            "build-image",
            &[said],
        );
    }
    let mut undated = fake.command(&command);
    let undated = undated.env("SOURCE_DATE_EPOCH", "today").output().unwrap();
    assert_eq!(undated.status.code(), Some(2));
    assert!(stderr(&undated).contains("SOURCE_DATE_EPOCH"));
    assert_eq!(fake.count("podman build"), 0);
}

#[test]
fn a_build_of_an_image_that_fails_leaves_nothing() {
    let fake = Fake::new(&["podman"]);
    let context = fake.at("context");
    fs::create_dir(&context).unwrap();
    let context = context.to_str().unwrap();
    let layout = fake.layout();
    let arguments = ["compose", "build-image", context, "-o", &layout];
    fake.on("build", "echo 'STEP 1 failed' >&2; exit 7");
    failed(
        &fake.run(&arguments),
        "failing",
        &["STEP 1 failed", context, "exit status: 7"],
    );
    fake.is_clean("failing");
    fake.on("build", "exit 0");
    failed(&fake.run(&arguments), "no id", &["did not tell its id"]);
    fake.is_clean("no id");
    let nowhere = fake.run(&["compose", "build-image", "/no/such", "-o", &layout]);
    failed(&nowhere, "no context", &["/no/such", "Containerfile"]);
    // Ended in the middle, with what the build has started, and with its container.
    let record = "mkdir -p \"$FAKE/vfs-containers/c1/userdata\"
for word; do case $word in --add-host=*) host=${word#--add-host=} ;; esac; done
printf '{\"container-name\": \"working\", \"mountpoint\": \"/no/such\", \"CommonBuildOpts\": {\"AddHost\": [\"%s\"]}}' \"$host\" \
    >\"$FAKE/vfs-containers/c1/userdata/buildah.json\"
echo working >>\"$FAKE/containers\"; echo x >\"$FAKE/reached\"; sleep 600 & wait";
    fs::create_dir_all(fake.at("vfs-containers/c1/userdata")).unwrap();
    fake.on("build", record.split_once('\n').unwrap().1);
    let child = start(&fake, &arguments);
    wait_for(&fake.at("reached"));
    signal(&child, Signal::TERM);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(143), "{}", stderr(&output));
    fake.is_clean("ended");
    // The same after a SIGKILL, by `umount --leftovers`.
    fs::remove_file(fake.at("reached")).unwrap();
    let mut child = start(&fake, &arguments);
    wait_for(&fake.at("reached"));
    signal(&child, Signal::KILL);
    child.wait().unwrap();
    std::thread::sleep(Duration::from_millis(2100));
    let removed = fake.run(&["umount", "--leftovers"]);
    succeeded(&removed);
    let said = String::from_utf8(removed.stdout).unwrap();
    assert!(said.contains("container working of a build"), "{said}");
    fake.is_clean("killed");
}

// --- words of users -----------------------------------------------------------------------------

fn build_image(fake: &Fake, more: &[&str]) -> Output {
    let context = fake.at("context");
    fs::create_dir_all(&context).unwrap();
    fs::write(context.join("File"), "FROM nothing").unwrap();
    let layout = fake.layout();
    let context = context.to_str().unwrap();
    fake.run(&[&["compose", "build-image", context, "-o", &layout], more].concat())
}

/// `--build-arg 'FMT={name}: {version} in {file}'` once became `: {version} in` and a temporary
/// file's path.
#[test]
fn words_of_users_are_no_templates() {
    for program in ["podman", "buildah"] {
        let fake = Fake::new(&[program]);
        let words = "FMT={name}: {version} in {file} of {image}";
        let output = build_image(
            &fake,
            &[
                "--build-arg",
                words,
                "--target",
                "{name}",
                "--",
                "--label={file}",
            ],
        );
        succeeded(&output);
        let calls = fake.read("calls");
        for word in [
            &format!("--build-arg={words}"),
            "--target={name}",
            "--label={file}",
        ] {
            assert!(calls.contains(word), "{word} is not in {calls}");
        }
    }
}

/// `--from=--help` was once an option of podman's, and what it printed the answer.
#[test]
fn names_that_look_like_options_are_refused() {
    for program in ["podman", "buildah"] {
        let fake = Fake::new(&[program]);
        let layout = fake.layout();
        for arguments in [
            &["build", "--from=--help", "-o", &layout][..],
            &["build", "--container=--all", "-o", &layout],
            &[
                "build",
                "--rootfs",
                fake.rootfs.str(),
                "--config-from=--help",
                "-o",
                &layout,
            ],
            &["mount", "--", "--all"],
            &["umount", "--", "--all"],
        ] {
            let output = fake.run(arguments);
            assert!(!output.status.success(), "{program} {arguments:?}");
            assert_eq!(fake.read("mounts"), "");
        }
        let calls = fake.read("calls");
        assert!(
            !calls.contains("--help") && !calls.contains("--all\n"),
            "{calls}"
        );
    }
}

/// `--build-arg TOKEN=secret` once showed in the error's text.
#[test]
fn what_is_given_to_a_build_is_told_by_name() {
    let fake = Fake::new(&["podman"]);
    fake.on("build", "exit 7");
    let output = build_image(
        &fake,
        &[
            "-v",
            "--build-arg",
            "TOKEN=secret",
            "--",
            "--creds=secret:secret",
            "--secret",
            "secret",
        ],
    );
    failed(
        &output,
        "build",
        &["--build-arg=TOKEN=...", "--creds=...", "--secret"],
    );
    let said = stderr(&output).replace("--secret", "");
    assert!(!said.contains("secret"), "{said}");
    assert!(fake.read("calls").contains("--build-arg=TOKEN=secret"));
}

/// podman looks for it there too.
#[test]
fn a_containerfile_is_found_in_the_context() {
    for program in ["podman", "buildah"] {
        let fake = Fake::new(&[program]);
        succeeded(&build_image(&fake, &["-f", "File"]));
        let file = format!("--file={}", fake.at("context/File").display());
        assert!(fake.read("calls").contains(&file), "{}", fake.read("calls"));
        failed(
            &build_image(&fake, &["-f", "none"]),
            "none",
            &["no Containerfile at none", "context"],
        );
    }
}

/// In `oci:PATH` a colon begins the tag.
#[test]
fn a_colon_in_the_temporary_directory_is_no_tag() {
    let fake = Fake::new(&["podman"]);
    let temporary = fake.at("tmp:1");
    fs::create_dir(&temporary).unwrap();
    let store = [
        "build",
        "-q",
        "--rootfs",
        fake.rootfs.str(),
        "-o",
        "containers-storage:my-os",
    ];
    let mut command = fake.command(&store);
    command.env("TMPDIR", &temporary).stdout(Stdio::null());
    succeeded(&command.output().unwrap());
    let calls = fake.read("calls");
    let pull = calls.lines().find(|line| line.contains("pull")).unwrap();
    assert_eq!(pull.matches(':').count(), 1, "{pull}");
    assert_eq!(names(&temporary), Vec::<String>::new());
}
