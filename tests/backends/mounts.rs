//! What others have mounted stays, and what we have mounted goes, whoever is ended when. podman and
//! buildah are scripts here, which keep count of what is mounted.

use std::fs;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use crate::common::fake::*;
use crate::common::*;
use rustix::process::Signal;

/// A call that has its effect only when the process that made it is gone.
const AFTER_ITS_PARENT: &str =
    "echo x >\"$FAKE/reached\"; while kill -0 $PPID 2>/dev/null; do sleep 0.05; done; sleep 0.2";
/// A call that says it was reached, and waits.
const WAITS: &str = "echo $$ >\"$FAKE/reached\"; sleep 600";

fn end_script(fake: &Fake) {
    let script = fake.read("reached");
    succeed(Command::new("kill").args(["-KILL", script.trim()]));
    while !fake.processes().iter().all(|p| p.contains("sleep")) {
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn leftovers(fake: &Fake) -> (String, String) {
    let output = fake.run(&["umount", "--leftovers"]);
    let said = succeeded(&output);
    (String::from_utf8(output.stdout).unwrap(), said)
}

/// A signal between the making of a record's file and its writing: nothing was mounted, and the
/// empty file once stayed for ever.
#[test]
fn an_empty_record_of_a_process_that_ended_goes() {
    let fake = Fake::new(&["podman"]);
    fake.on("mount-image", WAITS);
    let layout = fake.layout();
    let mut child = start(&fake, &["build", "--from", "localhost/os", "-o", &layout]);
    wait_for(&fake.at("reached"));
    let record = names(&fake.at("run"))
        .into_iter()
        .find(|name| !name.ends_with(".out"))
        .unwrap();
    fs::write(fake.at("run").join(&record), "").unwrap();
    leftovers(&fake);
    assert!(names(&fake.at("run")).contains(&record), "its owner runs");
    signal(&child, Signal::KILL);
    child.wait().unwrap();
    end_script(&fake);
    leftovers(&fake);
    assert_eq!(names(&fake.at("run")), Vec::<String>::new());
}

/// What the backend printed goes when its record is gone. A record that cannot be looked at, here
/// a link to itself, was once taken for one that is gone.
#[test]
fn what_was_printed_stays_beside_a_record_that_cannot_be_looked_at() {
    let fake = Fake::new(&["podman"]);
    let run = fake.at("run");
    fs::create_dir_all(&run).unwrap();
    let owner = "0.0.0.0.0";
    std::os::unix::fs::symlink(owner, run.join(owner)).unwrap();
    for printed in [format!("{owner}.out"), "gone.out".to_owned()] {
        fs::write(run.join(printed), "/mounted").unwrap();
    }
    leftovers(&fake);
    let mut left = names(&run);
    left.sort_unstable();
    assert_eq!(left, [owner.to_owned(), format!("{owner}.out")]);
}

/// kill -9 between the record of a mount and the mount; then the user mounts the same image.
/// `umount --leftovers` once took that mount for ours.
#[test]
fn leftovers_leave_a_users_mount_of_the_same_image_alone() {
    let fake = Fake::new(&["podman"]);
    fake.on("mount-image", WAITS);
    let layout = fake.layout();
    let mut child = start(&fake, &["build", "--from", "localhost/os", "-o", &layout]);
    wait_for(&fake.at("reached"));
    signal(&child, Signal::KILL);
    child.wait().unwrap();
    end_script(&fake);
    fake.write("mounts", "image\n");
    let (removed, said) = leftovers(&fake);
    assert!(!removed.contains("mount of the image"), "{removed}");
    assert!(
        said.contains("is left as it is") && said.contains("podman image umount 0123"),
        "{said}"
    );
    assert_eq!(fake.read("mounts"), "image\n");
    // It is said once: nothing more will ever be known.
    let (_, said) = leftovers(&fake);
    assert!(!said.contains("is left as it is"), "{said}");
    assert_eq!(fake.read("mounts"), "image\n");
}

/// Killed while podman mounts, which then comes to its end: it is known that there is a mount of
/// ours, beside the user's.
#[test]
fn leftovers_undo_a_mount_that_was_made_after_the_kill() {
    let fake = Fake::new(&["podman"]);
    fake.write("mounts", "image\n");
    fake.on("mount-image", AFTER_ITS_PARENT);
    let layout = fake.layout();
    let mut child = start(&fake, &["build", "--from", "localhost/os", "-o", &layout]);
    wait_for(&fake.at("reached"));
    signal(&child, Signal::KILL);
    child.wait().unwrap();
    let (removed, _) = leftovers(&fake);
    assert!(removed.contains("mount of the image 0123"), "{removed}");
    assert_eq!(fake.read("mounts"), "image\n", "the user's stays");
    assert_eq!(fake.count("podman image umount"), 1);
}

/// Killed while podman unmounts: once that is done, the mount that is left is the user's.
#[test]
fn leftovers_do_not_undo_twice_what_was_undone_after_the_kill() {
    let fake = Fake::new(&["podman"]);
    fake.write("mounts", "image\n");
    fake.on("unmount-image", AFTER_ITS_PARENT);
    let layout = fake.layout();
    let mut child = start(&fake, &["build", "--from", "localhost/os", "-o", &layout]);
    wait_for(&fake.at("reached"));
    signal(&child, Signal::KILL);
    child.wait().unwrap();
    leftovers(&fake);
    assert_eq!(fake.read("mounts"), "image\n", "the user's stays");
    assert_eq!(fake.count("podman image umount"), 1);
    assert_eq!(names(&fake.at("run")), Vec::<String>::new());
}

/// A container that the user has mounted, and podman that is ended while it mounts it for us:
/// nobody knows whether it has counted. The user's mount once went.
#[test]
fn a_signal_while_a_users_container_is_mounted_leaves_the_users_mount() {
    for program in ["podman", "buildah"] {
        let fake = Fake::new(&[program]);
        fake.write("mounts", "box\n");
        fake.write("containers", "box\n");
        fake.on("mount", "echo x >\"$FAKE/reached\"; exec sleep 600");
        let layout = fake.layout();
        let command = ["build", "--container", "box", "-o", &layout];
        let mut child = start(&fake, &[&command[..], &["--backend-timeout", "1"]].concat());
        wait_for(&fake.at("reached"));
        child.wait().unwrap();
        assert_eq!(fake.read("mounts"), "box\n", "{program}: a timeout");
        let child = start(&fake, &command);
        std::thread::sleep(Duration::from_millis(300));
        signal(&child, Signal::TERM);
        let output = child.wait_with_output().unwrap();
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(143), "{said}");
        assert_eq!(fake.read("mounts"), "box\n", "{program}: SIGTERM");
        assert!(
            said.contains(&format!("'{program} umount box' undoes it")),
            "{said}"
        );
        assert_eq!(fake.count(&format!("{program} umount")), 0);
    }
}

/// A PID namespace with the /proc of its host: the numbers there are not those of the processes in
/// it, and a build that runs was once taken for one that has ended.
#[test]
fn leftovers_in_a_pid_namespace_with_the_outer_proc_leave_a_running_build_alone() {
    if !is_root() {
        return;
    }
    let fake = Fake::new(&["podman"]);
    make_big(&fake);
    let layout = fake.layout();
    let build = [
        &["build", "--from", "localhost/os", "-o", &layout],
        &SLOWLY[..],
    ]
    .concat();
    let helper = env!("CARGO_BIN_EXE_apt-ostree-helper");
    let script = format!(
        "{helper} {} & build=$!
        while [ ! -s \"$FAKE/mounts\" ]; do sleep 0.05; done; sleep 0.3
        {helper} umount --leftovers
        cat \"$FAKE/mounts\" >\"$FAKE/after\"
        kill -TERM $build; wait $build",
        build.join(" ")
    );
    let of_env = fake.command(&[]);
    let mut command = Command::new("/usr/bin/unshare");
    command.args(["--pid", "--fork", "--kill-child", "sh", "-c", &script]);
    for (name, value) in of_env.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    let output = command.output().unwrap();
    assert_eq!(
        fake.read("after"),
        "image\n",
        "it is in use: {}",
        stderr(&output)
    );
    fake.is_clean("ended");
}

/// `mount IMAGE` that is ended while podman mounts: it once stayed mounted with nothing on record.
#[test]
fn mount_that_is_ended_leaves_nothing() {
    if !is_root() {
        return;
    }
    for (program, call) in [
        ("podman", "mount-image"),
        ("buildah", "create"),
        ("buildah", "mount"),
    ] {
        for kill in [false, true] {
            let what = format!("{program} {call} {kill}");
            let fake = Fake::new(&[program]);
            fake.on(call, "echo x >\"$FAKE/reached\"; sleep 0.5");
            let mut child = start(&fake, &["mount", "localhost/os"]);
            wait_for(&fake.at("reached"));
            signal(&child, if kill { Signal::KILL } else { Signal::TERM });
            let status = child.wait().unwrap();
            if kill {
                leftovers(&fake);
            } else {
                assert_eq!(status.code(), Some(143), "{what}");
            }
            fake.is_clean(&what);
        }
    }
}

/// Two at a time once chose the same name for their containers, and the one that failed removed the
/// other's.
#[test]
fn mounts_through_containers_side_by_side_are_both_there() {
    if !is_root() {
        return;
    }
    let fake = Fake::new(&["buildah"]);
    fake.on("create", "sleep 0.3");
    let two = [0, 1].map(|_| start(&fake, &["mount", "localhost/os"]));
    for mut child in two {
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(fake.read("containers").lines().count(), 2);
    for _ in 0..2 {
        succeeded(&fake.run(&["umount", "localhost/os"]));
    }
    fake.is_clean("released");
}

/// A path that nobody could be told of: the mount goes.
#[test]
fn mount_that_cannot_tell_the_path_leaves_nothing() {
    if !is_root() {
        return;
    }
    let fake = Fake::new(&["podman"]);
    let mut command = fake.command(&["mount", "localhost/os"]);
    command.stdout(
        fs::OpenOptions::new()
            .write(true)
            .open("/dev/full")
            .unwrap(),
    );
    failed(&command.output().unwrap(), "full", &["standard output"]);
    fake.is_clean("full");
}

// --- signals ------------------------------------------------------------------------------------

/// Starts a build that is ended while it works, by podman whose unmounting takes long.
fn build_with_slow_unmount(fake: &Fake) -> Child {
    make_big(fake);
    fake.on("unmount-image", "echo x >\"$FAKE/unmounting\"; sleep 8");
    let layout = fake.layout();
    let build = [
        &["build", "--from", "localhost/os", "-o", &layout],
        &SLOWLY[..],
    ]
    .concat();
    let child = start(fake, &build);
    wait_for(&fake.at("mounts"));
    child
}

/// podman that takes 45 s to unmount; 22 signals were once ignored.
#[test]
fn a_second_signal_leaves_and_says_what_is_left() {
    for (first, second, status) in [
        (Signal::INT, Signal::INT, 130),
        (Signal::TERM, Signal::INT, 130),
        (Signal::INT, Signal::TERM, 143),
    ] {
        let fake = Fake::new(&["podman"]);
        let child = build_with_slow_unmount(&fake);
        signal(&child, first);
        wait_for(&fake.at("unmounting"));
        let start = Instant::now();
        signal(&child, second);
        let output = child.wait_with_output().unwrap();
        assert!(start.elapsed() < Duration::from_secs(2));
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(status), "{said}");
        assert!(
            said.contains("left behind: the mount of the image 0123"),
            "{said}"
        );
        assert!(said.contains("umount --leftovers"), "{said}");
    }
}

/// A container runtime kills 10 s after SIGTERM.
#[test]
fn a_signal_that_takes_long_says_so_in_time() {
    let fake = Fake::new(&["podman"]);
    let child = build_with_slow_unmount(&fake);
    signal(&child, Signal::TERM);
    let output = child.wait_with_output().unwrap();
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(143), "{said}");
    assert!(
        said.contains("still cleaning up: the mount of the image 0123"),
        "{said}"
    );
    fake.is_clean("in the end");
}

/// kill -9, SIGTERM and SIGINT at random moments of a `build --from`, beside a mount of the user's
/// of the same image: nothing of ours is left after the next run, and nothing of others is touched.
/// `AOH_MOMENTS=100` tries a hundred moments for each signal and program instead of a few.
#[test]
fn a_build_from_an_image_that_is_ended_at_any_moment_leaves_nothing() {
    let moments = std::env::var("AOH_MOMENTS").map_or(4, |n| n.parse().unwrap());
    let mut random = 88_172_645_463_325_252u64 ^ u64::from(std::process::id());
    for program in ["podman", "buildah"] {
        let fake = Fake::new(&[program]);
        fake.on("mount-image", "sleep 0.02");
        fake.on("create", "sleep 0.02");
        fake.write("mounts", "image\n");
        let layout = fake.layout();
        let build = ["build", "-q", "--from", "localhost/os", "-o", &layout];
        let begun = Instant::now();
        succeeded(&fake.run(&build));
        let whole = u64::try_from(begun.elapsed().as_micros()).unwrap();
        for sent in [Signal::KILL, Signal::TERM, Signal::INT] {
            for _ in 0..moments {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                let moment = Duration::from_micros(random % whole);
                let mut child = start(&fake, &build);
                std::thread::sleep(moment);
                signal(&child, sent);
                child.wait().unwrap();
                let what = format!("{program} {sent:?} after {moment:?}");
                leftovers(&fake);
                // The image is the old one or the new one, and both are whole.
                judged(&["verify", &layout, "--ostree"]);
                assert_eq!(fake.read("mounts"), "image\n", "{what}");
                assert_eq!(fake.read("containers"), "", "{what}");
                assert_eq!(names(&fake.at("run")), Vec::<String>::new(), "{what}");
                assert_eq!(fake.processes(), Vec::<String>::new(), "{what}");
            }
        }
    }
}

// --- what is odd --------------------------------------------------------------------------------

/// A hole of gigabytes becomes bytes, a date in the future the image's, and a store of containers
/// part of it: each once without a word.
#[test]
fn what_is_odd_in_a_rootfs_is_told() {
    let dir = scratch();
    let rootfs = Rootfs::new(dir.path().join("rootfs"));
    rootfs
        .file(
            "var/lib/containers/storage/overlay-layers/layers.json",
            "[]",
        )
        .file("usr/bin/late", "late")
        .file("usr/share/holes", "x")
        .settle();
    let at = |path: &str| dir.path().join("rootfs").join(path);
    let holes = fs::OpenOptions::new()
        .write(true)
        .open(at("usr/share/holes"))
        .unwrap();
    holes.set_len(100 << 20).unwrap();
    let later = std::time::SystemTime::now() + Duration::from_secs(4 * 86_400);
    let late = fs::File::open(at("usr/bin/late")).unwrap();
    late.set_modified(later).unwrap();
    let layout = format!("oci:{}", dir.path().join("out").display());
    let build = ["build", "--rootfs", rootfs.str(), "-o", &layout];
    let said = stderr(&helper().args(build).output().unwrap());
    for told in [
        "sparse files (1) have 10485",
        "become zeros in the image",
        "files (1) have dates in the future, the latest of them /usr/bin/late",
        "/var/lib/containers/storage is a store of containers",
    ] {
        assert!(said.contains(told), "'{told}' is not in: {said}");
    }
    let pruned = ["--prune", "/var/lib/containers/storage", "--prune", "/usr"];
    let output = helper().args(build).args(pruned).output().unwrap();
    let said = stderr(&output);
    for told in ["sparse", "future", "store of containers"] {
        assert!(!said.contains(told), "'{told}' is in: {said}");
    }
}
