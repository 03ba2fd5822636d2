//! podman and buildah that fail, say nonsense, or hang: the error tells what was being done and
//! what they said, and nothing of ours stays behind. They are scripts here, which keep count of
//! what is mounted.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::common::fake::*;
use crate::common::*;
use rustix::process::Signal;
use serde_json::json;

#[test]
fn an_image_is_mounted_once_and_unmounted_once() {
    for program in ["podman", "buildah"] {
        let fake = Fake::new(&[program]);
        succeeded(&fake.build(&[]));
        fake.is_clean(program);
        let [mounts, unmounts] = match program {
            "podman" => ["podman image mount", "podman image umount"],
            _ => ["buildah mount", "buildah rm"],
        };
        assert_eq!(
            (fake.count(mounts), fake.count(unmounts)),
            (1, 1),
            "{}",
            fake.read("calls")
        );
        let image = read_image(&fake.at("out"));
        let config = &image.config["config"];
        assert_eq!(
            (&config["Env"], &config["User"]),
            (&json!(["A=b"]), &json!("nobody"))
        );
        assert_eq!(config["Labels"]["keep"], "1");
        assert_ne!(config["Labels"]["ostree.commit"], "stale");
        assert_eq!(image.config["created"], "2024-05-06T07:08:09Z");
        let direct = fake.at("direct");
        let layout = format!("oci:{}", direct.display());
        run(&["build", "-q", "--rootfs", fake.rootfs.str(), "-o", &layout]);
        assert_eq!(
            read_image(&direct).manifest["layers"],
            image.manifest["layers"]
        );
    }
}

/// getsid(2) gives 0 where the session's leader is outside the PID namespace: once a panic.
#[test]
fn an_image_is_mounted_where_the_session_is_of_another_pid_namespace() {
    if !is_root() {
        return;
    }
    let fake = Fake::new(&["podman"]);
    let build = fake.command(&["build", "--from", "localhost/os", "-o", &fake.layout()]);
    let mut command = Command::new("/usr/bin/unshare");
    command
        .args(["--pid", "--fork", "--kill-child", "--mount-proc"])
        .arg(build.get_program())
        .args(build.get_args());
    for (name, value) in build.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    succeeded(&command.output().unwrap());
    fake.is_clean("a PID namespace");
    assert_eq!(fake.count("podman image umount"), 1);
}

#[test]
fn a_container_is_mounted_and_stays() {
    for program in ["podman", "buildah"] {
        let fake = Fake::new(&[program]);
        let layout = fake.layout();
        succeeded(&fake.run(&["build", "--container", "box", "-o", &layout]));
        fake.is_clean(program);
        assert_eq!(fake.count(&format!("{program} mount box")), 1);
        assert_eq!(fake.count(&format!("{program} umount box")), 1);
        assert_eq!(fake.count(&format!("{program} rm")), 0);
        failed(
            &fake.run(&["build", "--container", "nosuch", "-o", &layout]),
            program,
            &["no container nosuch", "no such container"],
        );
    }
}

/// Calls with what they are for, in the order in which podman and buildah have them.
const STEPS: [(&str, &str); 7] = [
    ("podman", "inspect-image"),
    ("podman", "mount-image"),
    ("podman", "create"),
    ("podman", "mount"),
    ("buildah", "inspect-image"),
    ("buildah", "create"),
    ("buildah", "mount"),
];

/// Lets a call of a step be reached: podman makes containers only where it cannot mount images.
fn reach(fake: &Fake, program: &str, call: &str) {
    if program == "podman" && ["create", "mount"].contains(&call) {
        fake.on(
            "mount-image",
            "echo 'images cannot be mounted' >&2; exit 125",
        );
    }
    if call == "inspect-image" {
        fake.on("pull", "echo 'cannot be pulled' >&2; exit 125");
    }
}

#[test]
fn a_step_that_fails_is_named_with_what_the_backend_said() {
    for (program, call) in STEPS {
        let fake = Fake::new(&[program]);
        reach(&fake, program, call);
        fake.on(call, "echo 'out of luck' >&2; exit 7");
        let output = fake.build(&[]);
        let what = format!("{program} {call}");
        if what == "podman mount-image" {
            // It has another way.
            succeeded(&output);
            assert_eq!(fake.count("podman create"), 1);
            assert_eq!(fake.count("podman rm"), 1);
        } else {
            failed(
                &output,
                &what,
                &["localhost/os", program, "out of luck", "exit status: 7"],
            );
            assert!(!fake.at("out").exists(), "{what}");
        }
        fake.is_clean(&what);
    }
}

#[test]
fn a_step_that_says_nonsense_is_named_with_what_it_said() {
    let nonsense = [
        "exit 0",
        "echo neither a path nor JSON; exit 0",
        "echo /no/such/path; exit 0",
        "printf '\\377\\376'; exit 0",
        "echo '[{}]'; exit 0",
        "cat \"$FAKE/empty-path\"; exit 0",
    ];
    for (program, call) in STEPS {
        for script in nonsense {
            let what = format!("{program} {call}: {script}");
            let fake = Fake::new(&[program]);
            fs::create_dir(fake.at("empty")).unwrap();
            fake.write("empty-path", fake.at("empty").to_str().unwrap());
            reach(&fake, program, call);
            // What has been done is done, whatever is said of it.
            let act = match call {
                "mount-image" => "echo image >>\"$FAKE/mounts\"; ",
                "create" => {
                    "for word; do case $word in --name=*) echo \"${word#--name=}\" >>\"$FAKE/containers\" ;; esac; done; "
                }
                _ => "",
            };
            fake.on(call, &format!("{act}{script}"));
            let output = fake.build(&[]);
            let is_read = call != "create";
            if is_read {
                failed(&output, &what, &["localhost/os", program]);
            } else if script.contains("377") {
                failed(&output, &what, &["not UTF-8"]);
            } else {
                succeeded(&output);
            }
            fake.is_clean(&what);
        }
    }
}

#[test]
fn a_step_that_hangs_is_given_up() {
    for (program, call) in STEPS {
        let fake = Fake::new(&[program]);
        reach(&fake, program, call);
        fake.on(call, "echo 'thinking' >&2; sleep 600");
        let start = Instant::now();
        let output = fake.build(&["--backend-timeout", "1"]);
        let what = format!("{program} {call}");
        // Images that cannot be inspected are pulled, which fails here.
        failed(
            &output,
            &what,
            &["did not end within 1 s", "thinking", "localhost/os"],
        );
        assert!(
            start.elapsed() < Duration::from_secs(12),
            "{what}: {:?}",
            start.elapsed()
        );
        fake.is_clean(&what);
    }
}

#[test]
fn one_that_does_not_want_to_end_is_killed() {
    let fake = Fake::new(&["podman"]);
    fake.on(
        "mount-image",
        "trap '' TERM; echo stubborn >&2; sleep 600; sleep 600",
    );
    let output = fake.build(&["--backend-timeout", "1"]);
    failed(&output, "stubborn", &["did not end within 1 s"]);
    fake.is_clean("stubborn");
}

#[test]
fn an_unmount_that_fails_does_not_make_the_build_fail() {
    for (program, call) in [("podman", "unmount-image"), ("buildah", "remove")] {
        let fake = Fake::new(&[program]);
        fake.on(call, "echo 'device busy' >&2; exit 7");
        let said = succeeded(&fake.build(&[]));
        assert!(
            said.contains("device busy") && said.contains("umount --leftovers"),
            "{said}"
        );
        assert!(fake.at("out").exists());
        fs::remove_file(fake.at(&format!("on-{call}"))).unwrap();
        let removed = fake.run(&["umount", "--leftovers"]);
        succeeded(&removed);
        let removed = String::from_utf8(removed.stdout).unwrap();
        // Programs of builds that other tests have killed are its business, too.
        let of_storage = |output: &str| {
            let lines = output.lines().filter(|line| !line.starts_with("process "));
            lines.count()
        };
        assert_eq!(of_storage(&removed), 1, "{removed}");
        fake.is_clean(program);
        let again = fake.run(&["umount", "--leftovers"]).stdout;
        assert_eq!(of_storage(&String::from_utf8(again).unwrap()), 0);
    }
}

#[test]
fn the_backend_is_chosen() {
    let fake = Fake::new(&[]);
    failed(
        &fake.build(&[]),
        "none",
        &["neither podman nor buildah", "apt-get install"],
    );
    let fake = Fake::new(&["podman", "buildah"]);
    succeeded(&fake.build(&[]));
    assert_eq!(fake.count("buildah"), 0, "podman is preferred");
    succeeded(&fake.build(&["--backend", "buildah"]));
    assert_eq!(fake.count("buildah mount"), 1);
    let layout = fake.layout();
    let mut command = fake.command(&["build", "--from", "localhost/os", "-o", &layout]);
    succeeded(
        &command
            .env("APT_OSTREE_HELPER_BACKEND", "buildah")
            .output()
            .unwrap(),
    );
    assert_eq!(fake.count("buildah mount"), 2);
    fs::remove_file(fake.at("bin/buildah")).unwrap();
    failed(
        &fake.build(&["--backend", "buildah"]),
        "one that is not there",
        &["buildah is not on the PATH", "apt-get install buildah"],
    );
}

#[test]
fn an_image_that_is_not_there_is_fetched() {
    let fake = Fake::new(&["podman"]);
    fs::rename(fake.at("config"), fake.at("remote")).unwrap();
    fake.on("pull", "cat \"$FAKE/remote\" >\"$FAKE/config\"; exit 0");
    succeeded(&fake.build(&[]));
    assert_eq!(fake.count("podman pull --quiet localhost/os"), 1);
    fake.is_clean("pulled");
}

#[test]
fn what_onbuild_would_change_is_not_mounted_through_a_container() {
    let fake = Fake::new(&["buildah"]);
    let config = json!({"architecture": "amd64", "config": {"OnBuild": ["RUN true"]}});
    let inspected = json!({"FromImageID": "0123", "Config": config.to_string()});
    fake.write("buildah-config", &inspected.to_string());
    failed(
        &fake.build(&[]),
        "onbuild",
        &["ONBUILD", "--backend podman"],
    );
    assert_eq!(fake.count("buildah from"), 0);
    fake.is_clean("onbuild");
}

// --- what ends us -------------------------------------------------------------------------------

#[test]
fn a_signal_while_mounting_waits_for_the_mount_and_undoes_it() {
    for (program, call) in [
        ("podman", "mount-image"),
        ("buildah", "create"),
        ("buildah", "mount"),
    ] {
        for (number, sent) in [(15, Signal::TERM), (2, Signal::INT)] {
            let fake = Fake::new(&[program]);
            fake.on(call, "echo x >\"$FAKE/reached\"; sleep 0.3");
            let layout = fake.layout();
            let child = start(&fake, &["build", "--from", "localhost/os", "-o", &layout]);
            wait_for(&fake.at("reached"));
            signal(&child, sent);
            let output = child.wait_with_output().unwrap();
            assert_eq!(
                output.status.code(),
                Some(128 + number),
                "{}",
                stderr(&output)
            );
            fake.is_clean(&format!("{program} {call} {number}"));
            assert!(!fake.at("out").exists());
        }
    }
}

#[test]
fn a_signal_while_building_unmounts() {
    for program in ["podman", "buildah"] {
        let fake = Fake::new(&[program]);
        make_big(&fake);
        let layout = fake.layout();
        let arguments = [
            &["build", "--from", "localhost/os", "-o", &layout],
            &SLOWLY[..],
        ]
        .concat();
        let child = start(&fake, &arguments);
        wait_for(&fake.at("mounts"));
        signal(&child, Signal::TERM);
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(143), "{}", stderr(&output));
        fake.is_clean(program);
    }
}

#[test]
fn what_a_killed_process_left_is_removed_and_what_a_living_one_has_is_not() {
    for program in ["podman", "buildah"] {
        let fake = Fake::new(&[program]);
        make_big(&fake);
        let layout = fake.layout();
        let arguments = [
            &["build", "--from", "localhost/os", "-o", &layout],
            &SLOWLY[..],
        ]
        .concat();
        let mut child = start(&fake, &arguments);
        wait_for(&fake.at("mounts"));
        // Until the call that mounts has ended.
        while fake.processes().len() > 1 {
            std::thread::sleep(Duration::from_millis(5));
        }
        let living = fake.run(&["umount", "--leftovers"]);
        succeeded(&living);
        assert_ne!(fake.read("mounts"), "", "{program}: it is in use");
        signal(&child, Signal::KILL);
        child.wait().unwrap();
        let killed = fake.run(&["umount", "--leftovers"]);
        succeeded(&killed);
        let said = String::from_utf8(killed.stdout).unwrap();
        let what = if program == "podman" {
            "mount of the image 0123"
        } else {
            "container apt-ostree-helper-"
        };
        assert!(said.lines().any(|line| line.starts_with(what)), "{said}");
        assert_eq!(
            (fake.read("mounts"), fake.read("containers")),
            (String::new(), String::new())
        );
        let again = fake.run(&["umount", "--leftovers"]);
        assert!(again.stdout.is_empty(), "{again:?}");
        for entry in fs::read_dir(fake.dir.path()).unwrap().flatten() {
            // The next build to the same place removes it.
            if entry
                .file_name()
                .to_str()
                .unwrap()
                .starts_with(".apt-ostree-helper-")
            {
                fs::remove_dir_all(entry.path()).unwrap();
            }
        }
        fake.is_clean(program);
    }
}

// --- mount, umount, build-image, storage --------------------------------------------------------

#[test]
fn scripts_mount_and_unmount() {
    if !is_root() {
        return;
    }
    for program in ["podman", "buildah"] {
        let fake = Fake::new(&[program]);
        let mounted = fake.run(&["mount", "localhost/os"]);
        succeeded(&mounted);
        let path = String::from_utf8(mounted.stdout).unwrap();
        assert_eq!(path.trim(), fake.rootfs.str());
        assert_ne!(fake.read("mounts"), "");
        succeeded(&fake.run(&["umount", "localhost/os"]));
        fake.is_clean(program);
        succeeded(&fake.run(&["mount", "--container", "box"]));
        fake.write("containers", "box\n");
        succeeded(&fake.run(&["umount", "box"]));
        fake.write("containers", "");
        fake.is_clean(program);
        fake.on("mounted-images", "echo '[]'; exit 0");
        let unknown = fake.run(&["umount", "localhost/os"]);
        failed(&unknown, program, &["localhost/os is not mounted"]);
    }
}

#[test]
fn the_storage_is_reached_without_skopeo() {
    let fake = Fake::new(&["podman"]);
    let store = [
        "build",
        "-q",
        "--rootfs",
        fake.rootfs.str(),
        "-o",
        "containers-storage:my-os",
    ];
    succeeded(&fake.run(&store));
    assert_eq!(fake.count("podman pull --quiet oci:apt-ostree-helper-"), 1);
    assert_eq!(fake.count("podman rmi localhost/apt-ostree-helper-"), 1);
    let tag = format!(
        "podman tag {} localhost/my-os:latest",
        "0123456789abcdef".repeat(4)
    );
    assert_eq!(fake.count(&tag), 1, "{}", fake.read("calls"));
    fake.is_clean("stored");
    fake.on("pull", "echo 'no space left' >&2; exit 7");
    failed(
        &fake.run(&store),
        "full",
        &["localhost/my-os", "no space left"],
    );
    fake.is_clean("full");
}
