//! What a signal, a killed process and a reader that goes away leave behind: nothing, or what was
//! there before.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::{
    BY_ENV, Rootfs, helper, interruptible, is_root, judged, odd_rootfs, read_image, run, scratch,
    stderr,
};
use rustix::process::{Pid, Signal, kill_process};

const SIGNALS: [(Signal, i32); 3] = [(Signal::TERM, 15), (Signal::INT, 2), (Signal::HUP, 1)];

/// A rootfs that takes many seconds to compress with [`SLOWLY`], and one that takes none.
fn rootfs(dir: &Path) -> (Rootfs, Rootfs) {
    let small = Rootfs::new(dir.join("small"));
    small.file("usr/bin/foo", "foo").settle();
    let big = Rootfs::new(dir.join("big"));
    let mut state = 1u32;
    let word = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 26) as u8
    };
    let content: Vec<u8> = std::iter::repeat_with(word).take(24 << 20).collect();
    big.file("usr/share/big", content).settle();
    (small, big)
}

const SLOWLY: [&str; 4] = ["--compression", "zstd", "--compression-level", "22"];

/// Every file below a directory with its content, and every directory.
fn snapshot(dir: &Path) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let mut found = BTreeMap::new();
    let mut pending = vec![dir.to_owned()];
    while let Some(path) = pending.pop() {
        for entry in fs::read_dir(&path).unwrap() {
            let path = entry.unwrap().path();
            let is_dir = path.is_dir();
            let content = (!is_dir).then(|| fs::read(&path).unwrap());
            pending.extend(is_dir.then(|| path.clone()));
            found.insert(path, content);
        }
    }
    found
}

/// The temporary directories at and below `dir`.
fn stages(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap().filter_map(Result::ok);
    let mut found = Vec::new();
    for path in entries
        .map(|entry| entry.path())
        .filter(|path| path.is_dir())
    {
        let name = path.file_name().unwrap().to_str().unwrap();
        match name.starts_with(".apt-ostree-helper-") {
            true => found.push(path),
            false => found.extend(stages(&path)),
        }
    }
    found
}

/// Waits until the build writes the layer that takes long.
fn wait_for_work(child: &mut Child, dir: &Path) {
    let start = Instant::now();
    loop {
        let working = stages(dir).iter().any(|stage| {
            let written = fs::read_dir(stage).into_iter().flatten().flatten();
            written.count() > 2
        });
        if working {
            return;
        }
        let ended = child.try_wait().unwrap();
        assert_eq!(ended, None, "ended before it could be interrupted");
        assert!(start.elapsed() < Duration::from_secs(120), "no work seen");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap()
}

fn slow_build(command: &mut Command, rootfs: &Rootfs, output: &str, temporary: &Path) -> Child {
    command
        .args(["build", "--rootfs", rootfs.str(), "-o", output])
        .args(SLOWLY)
        .env("TMPDIR", temporary)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command.spawn().unwrap()
}

/// Interrupts a build of the big rootfs to each kind of destination.
#[test]
fn a_signal_leaves_everything_as_it_was() {
    let dir = scratch();
    let (small, big) = rootfs(dir.path());
    let place = dir.path().join("place");
    fs::create_dir(&place).unwrap();
    let at = |name: &str| place.join(name).display().to_string();
    run(&[
        "build",
        "-q",
        "--rootfs",
        small.str(),
        "-o",
        &format!("oci:{}", at("old")),
    ]);
    run(&["build", "-q", "--rootfs", small.str(), "-o", &at("old.tar")]);
    fs::create_dir(at("empty")).unwrap();
    let before = snapshot(&place);
    let destinations = [
        format!("oci:{}", at("new")),
        format!("oci:{}", at("old")),
        format!("oci:{}:tag", at("old")),
        format!("oci:{}", at("empty")),
        at("new.tar"),
        at("old.tar"),
        "-".to_owned(),
    ];
    for (n, output) in destinations.iter().enumerate() {
        let (signal, number) = SIGNALS[n % SIGNALS.len()];
        let mut child = slow_build(&mut interruptible(), &big, output, &place);
        wait_for_work(&mut child, &place);
        let start = Instant::now();
        kill_process(pid(&child), signal).unwrap();
        let done = child.wait_with_output().unwrap();
        let messages = stderr(&done);
        assert_eq!(
            done.status.code(),
            Some(128 + number),
            "{output}: {messages}"
        );
        assert!(messages.contains("cleaning up"), "{messages}");
        assert!(
            !messages.contains("error") && !messages.contains("panic"),
            "{messages}"
        );
        assert!(start.elapsed() < Duration::from_secs(10), "{output}");
        assert!(
            snapshot(&place) == before,
            "{output}: {:?}",
            snapshot(&place).keys()
        );
    }
}

/// As PID 1 of a container a process gets only signals that it handles.
#[test]
fn a_signal_ends_it_as_pid_1_too() {
    if !is_root() {
        return;
    }
    let dir = scratch();
    let (_, big) = rootfs(dir.path());
    let place = dir.path().join("place");
    fs::create_dir(&place).unwrap();
    let output = format!("oci:{}", place.join("out").display());
    for (signal, number) in SIGNALS {
        let mut command = Command::new("unshare");
        command
            .args(["--pid", "--fork", "--kill-child", "--mount-proc"])
            .args(BY_ENV);
        let mut child = slow_build(&mut command, &big, &output, &place);
        wait_for_work(&mut child, &place);
        kill_process(only_child(child.id()), signal).unwrap();
        let done = child.wait_with_output().unwrap();
        assert_eq!(done.status.code(), Some(128 + number), "{}", stderr(&done));
        assert_eq!(snapshot(&place), BTreeMap::new());
    }
}

/// As nohup(1) asks for.
#[test]
fn a_signal_that_is_ignored_stays_ignored() {
    let dir = scratch();
    let (_, big) = rootfs(dir.path());
    let place = dir.path().join("place");
    fs::create_dir(&place).unwrap();
    let output = format!("oci:{}", place.join("out").display());
    let mut command = Command::new("env");
    command
        .args(["--default-signal=TERM", "--ignore-signal=HUP"])
        .arg(BY_ENV[2]);
    let mut child = slow_build(&mut command, &big, &output, &place);
    wait_for_work(&mut child, &place);
    kill_process(pid(&child), Signal::HUP).unwrap();
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(child.try_wait().unwrap(), None, "ended by SIGHUP");
    kill_process(pid(&child), Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(128 + 15));
}

fn only_child(parent: u32) -> Pid {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let found = processes.filter_map(|process| {
        let stat = fs::read_to_string(process.path().join("stat")).ok()?;
        // Behind the name in parentheses: state and parent (proc_pid_stat(5)).
        let (_, rest) = stat.rsplit_once(") ")?;
        let of = rest.split(' ').nth(1)?.parse::<u32>().ok()?;
        let id = process.file_name().to_str()?.parse().ok()?;
        (of == parent).then_some(id)
    });
    let ids: Vec<i32> = found.collect();
    assert_eq!(ids.len(), 1, "{ids:?}");
    Pid::from_raw(ids[0]).unwrap()
}

#[test]
fn a_reader_that_goes_away_is_an_error_and_nothing_stays() {
    let dir = scratch();
    let rootfs = odd_rootfs(dir.path().join("rootfs"));
    let temporary = dir.path().join("tmp");
    fs::create_dir(&temporary).unwrap();
    let mut command = helper();
    command
        .args([
            "build",
            "--rootfs",
            rootfs.str(),
            "-o",
            "-",
            "--compression",
            "none",
        ])
        .env("TMPDIR", &temporary)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    drop(child.stdout.take());
    let done = child.wait_with_output().unwrap();
    let messages = stderr(&done);
    assert_eq!(
        (done.status.code(), done.status.signal()),
        (Some(1), None),
        "{messages}"
    );
    assert!(messages.contains("standard output"), "{messages}");
    assert_eq!(snapshot(&temporary), BTreeMap::new());
}

/// Nothing can be cleaned up then; the old image is still whole, and a new build works, which
/// removes the hidden directory.
#[test]
fn a_killed_build_leaves_one_hidden_directory_and_the_old_image() {
    let dir = scratch();
    let (small, big) = rootfs(dir.path());
    let place = dir.path().join("place");
    fs::create_dir(&place).unwrap();
    let layout = place.join("layout");
    let output = format!("oci:{}", layout.display());
    let build = ["build", "-q", "--rootfs", small.str(), "-o", &output];
    let digest = run(&build);
    let before = snapshot(&place);
    let mut child = slow_build(&mut helper(), &big, &output, &place);
    wait_for_work(&mut child, &place);
    child.kill().unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(9));
    let left = stages(&place);
    assert_eq!(left.len(), 1, "{left:?}");
    let mut after = snapshot(&place);
    after.retain(|path, _| !path.starts_with(&left[0]));
    assert!(after == before, "{:?}", after.keys());
    assert_eq!(read_image(&layout).digest, digest);
    judged(&["verify", &output, "--ostree"]);
    assert_eq!(run(&build), digest);
    judged(&["verify", &output, "--ostree"]);
    assert!(stages(&place).is_empty(), "{:?}", stages(&place));
}

/// An empty directory (a mount point, say) in which the first build was killed is still good for
/// the second.
#[test]
fn a_killed_first_build_into_an_empty_directory_can_be_repeated() {
    let dir = scratch();
    let (small, big) = rootfs(dir.path());
    let place = dir.path().join("place");
    fs::create_dir(&place).unwrap();
    let output = format!("oci:{}", place.display());
    let mut child = slow_build(&mut interruptible(), &big, &output, &place);
    wait_for_work(&mut child, &place);
    child.kill().unwrap();
    child.wait().unwrap();
    run(&["build", "-q", "--rootfs", small.str(), "-o", &output]);
    assert!(stages(&place).is_empty());
    judged(&["verify", &output, "--ostree"]);
}

/// Whoever is still at work is left alone by another build, however long it takes.
#[test]
fn a_build_leaves_the_directory_of_another_alone() {
    let dir = scratch();
    let (small, big) = rootfs(dir.path());
    let place = dir.path().join("place");
    fs::create_dir(&place).unwrap();
    let slow = format!("oci:{}", place.join("slow").display());
    let mut child = slow_build(&mut interruptible(), &big, &slow, &place);
    wait_for_work(&mut child, &place);
    let used = stages(&place);
    make_old(&used[0]);
    let quick = format!("oci:{}", place.join("quick").display());
    run(&["build", "-q", "--rootfs", small.str(), "-o", &quick]);
    assert_eq!(stages(&place), used);
    kill_process(pid(&child), Signal::TERM).unwrap();
    child.wait().unwrap();
}

fn make_old(path: &Path) {
    let old = std::time::SystemTime::now() - Duration::from_secs(3600);
    fs::File::open(path).unwrap().set_modified(old).unwrap();
}
