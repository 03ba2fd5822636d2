//! Builds and imports that are ended at random moments, by SIGKILL, SIGTERM and SIGINT, and imports
//! side by side: nothing is lost, and after the next run nothing of ours is left.
//!
//! A few moments in the normal run; a hundred of each signal with
//!
//! ```sh
//! AOH_MOMENTS=100 cargo test --test endurance killed::
//! ```

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::*;
use rustix::process::{Pid, Signal, kill_process};

/// SIGKILL last: what it leaves goes with the run after it.
const SIGNALS: [Signal; 3] = [Signal::TERM, Signal::INT, Signal::KILL];

fn moments() -> u32 {
    let given = std::env::var("AOH_MOMENTS").ok();
    given.map_or(4, |number| number.parse().unwrap())
}

/// Files and directories that a job has for itself.
fn left(place: &Path) -> String {
    let ours = [".apt-ostree-helper-*", "staging-*", "*.commitpartial"];
    let [a, b, c] = ours.map(|name| ["-name", name]);
    let mut find = Command::new("find");
    find.arg(place).args(a).arg("-o").args(b).arg("-o").args(c);
    let found = succeed(&mut find);
    // One whose maker was killed between two calls may be about to be used: it goes when it is a
    // minute old.
    let is_owned =
        |path: &&str| !Path::new(path).is_dir() || Path::new(path).join("owner").exists();
    let is_stage = |path: &&str| path.contains("/.apt-ostree-helper-");
    let kept = found
        .lines()
        .filter(|path| !is_stage(path) || is_owned(path));
    kept.collect::<Vec<_>>().join("\n")
}

/// Ends what `command` makes at random moments; `check` looks at what is left, `again` runs it to
/// its end.
fn end_at_random(command: &dyn Fn(u32) -> Command, check: &dyn Fn(Signal), again: &dyn Fn(u32)) {
    let start = Instant::now();
    again(0);
    let whole = start.elapsed().max(Duration::from_millis(20));
    let mut state = 7u32;
    for n in 1..=moments() {
        for signal in SIGNALS {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let mut child = command(n)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            std::thread::sleep(whole * (state >> 16) / 65536);
            let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
            // It may have ended.
            let _ = kill_process(pid, signal);
            child.wait().unwrap();
            check(signal);
        }
        again(n);
    }
}

#[test]
fn a_build_that_is_ended_at_any_moment() {
    let dir = scratch();
    let rootfs = three_packages(dir.path(), "rootfs", "1", "note");
    let place = dir.path().join("place");
    fs::create_dir(&place).unwrap();
    let layout = place.join("out");
    let (other, ours) = (
        format!("oci:{}:other", layout.display()),
        format!("oci:{}:ours", layout.display()),
    );
    let digest = run(&["build", "-q", "--rootfs", rootfs.str(), "-o", &other]);
    let arguments = |n: u32| {
        let label = format!("n={n}");
        let base = [
            "build",
            "-q",
            "--rootfs",
            rootfs.str(),
            "-o",
            &ours,
            "-l",
            &label,
        ];
        base.map(str::to_owned)
    };
    let command = |n: u32| {
        let mut command = interruptible();
        command.args(arguments(n + 1000));
        command
    };
    let check = |signal: Signal| {
        let read = read_manifest(&layout, &digest.clone().into());
        assert_eq!(read.digest, digest);
        if signal != Signal::KILL {
            assert_eq!(left(&place), "");
        }
    };
    let again = |n: u32| {
        succeed(helper().args(arguments(n)));
        assert_eq!(left(&place), "");
        judged(&["verify", &ours, "--ostree"]);
        judged(&["verify", &other, "--ostree"]);
        let index = fs::read_to_string(layout.join("index.json")).unwrap();
        assert_eq!(index.matches("ref.name").count(), 2);
        // The layers are the same: two manifests, two configs beside them.
        let shared = read_manifest(&layout, &digest.clone().into()).layers.len();
        assert_eq!(names(&layout.join("blobs/sha256")).len(), shared + 4);
    };
    end_at_random(&command, &check, &again);
}

#[test]
fn an_import_that_is_ended_at_any_moment() {
    if !has("ostree") || !is_root() {
        return;
    }
    let dir = scratch();
    let rootfs = three_packages(dir.path(), "rootfs", "1", "note");
    let image = format!("oci:{}", dir.path().join("image").display());
    run(&["build", "-q", "--rootfs", rootfs.str(), "-o", &image]);
    for mode in ["archive", "bare-user"] {
        let repo = repository(dir.path(), mode, mode);
        let arguments = ["import", "-q", "--repo", &repo, "-b", "b", &image];
        let command = |_| {
            // Something to do, each time.
            for directory in ["refs/heads", "objects"] {
                let path = Path::new(&repo).join(directory);
                fs::remove_dir_all(&path).unwrap();
                fs::create_dir(&path).unwrap();
            }
            let mut command = interruptible();
            command.args(arguments);
            command
        };
        let check = |_: Signal| drop(ostree(&repo, &["fsck", "-q"]));
        let again = |_| {
            run(&arguments);
            assert_eq!(left(Path::new(&repo)), "");
            ostree(&repo, &["fsck", "-q"]);
            assert_eq!(ostree(&repo, &["refs"]), "b");
        };
        end_at_random(&command, &check, &again);
    }
}

/// Two of the same image and two of others, one of them killed: what has ended well is there and
/// whole.
#[test]
fn imports_side_by_side() {
    if !has("ostree") || !is_root() {
        return;
    }
    let dir = scratch();
    let image = |name: &str, note: &str| {
        let rootfs = three_packages(dir.path(), &format!("rootfs-{name}"), "1", note);
        let image = format!("oci:{}", dir.path().join(name).display());
        run(&["build", "-q", "--rootfs", rootfs.str(), "-o", &image]);
        image
    };
    let (one, two) = (image("one", "note"), image("two", "other"));
    let jobs = [("a", &one), ("b", &one), ("c", &two), ("d", &two)];
    for round in 0..10u32 {
        let mode = ["archive", "bare-user"][round as usize % 2];
        let repo = repository(dir.path(), "repo", mode);
        let start = |(branch, image): (&str, &String)| {
            let mut command = helper();
            command.args(["import", "-q", "--repo", &repo, "-b", branch, image]);
            command.stdout(Stdio::null()).stderr(Stdio::piped());
            command.spawn().unwrap()
        };
        let mut children = jobs.map(start);
        std::thread::sleep(Duration::from_millis(u64::from(round * 37 % 60)));
        children[round as usize % 4].kill().unwrap();
        let mut wanted = Vec::new();
        for (n, (child, (branch, _))) in children.into_iter().zip(jobs).enumerate() {
            let done = child.wait_with_output().unwrap();
            let was_killed = n == round as usize % 4 && done.status.code().is_none();
            assert!(done.status.success() || was_killed, "{}", stderr(&done));
            wanted.extend(done.status.success().then(|| branch.to_owned()));
        }
        let refs = ostree(&repo, &["refs"]);
        let refs: Vec<&str> = refs.lines().collect();
        assert!(
            wanted.iter().all(|branch| refs.contains(&branch.as_str())),
            "{refs:?}"
        );
        ostree(&repo, &["fsck", "-q"]);
        run(&["import", "-q", "--repo", &repo, "-b", "a", &one]);
        run(&["import", "-q", "--repo", &repo, "-b", "c", &two]);
        ostree(&repo, &["fsck", "-q"]);
        assert_eq!(left(Path::new(&repo)), "");
        fs::remove_dir_all(&repo).unwrap();
    }
}
