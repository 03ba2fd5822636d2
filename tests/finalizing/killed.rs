//! `finalize` that is killed at random moments, and on a disk that is full: nothing is lost, and
//! the next run completes it.

use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::common::debian::{
    contents, debian, finalized, kept, listing, scratch_in_memory, side_by_side,
};
use crate::common::{Rootfs, has, helper, in_a_mount_namespace, is_root};

/// As many moments as `AOH_MOMENTS` says.
fn moments() -> u32 {
    let given = std::env::var("AOH_MOMENTS").ok();
    given.map_or(40, |number| number.parse().unwrap())
}

#[test]
fn one_that_is_killed_is_completed_by_the_next_run() {
    let dir = scratch_in_memory();
    let whole = debian(dir.path().join("whole"));
    let kept = kept(&whole);
    let command = |rootfs: &Rootfs| {
        let mut command = helper();
        command
            .args(["finalize", "-q", "--skip", "initramfs", rootfs.str()])
            .stdout(Stdio::null());
        command
    };
    let start = Instant::now();
    assert!(command(&whole).status().unwrap().success());
    let time = start.elapsed().max(Duration::from_millis(10));
    let wanted = listing(&whole.path, false);
    let numbers: Vec<u32> = (0..moments()).collect();
    let killed = std::sync::atomic::AtomicU32::new(0);
    side_by_side(&numbers, |worker, number| {
        let rootfs = debian(dir.path().join(format!("r{worker}")));
        let mut child = command(&rootfs).spawn().unwrap();
        let random = number.wrapping_mul(2_654_435_761) >> 16;
        std::thread::sleep(time * random / 65536);
        child.kill().unwrap();
        if !child.wait().unwrap().success() {
            killed.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
        let there = contents(&rootfs.path);
        let lost: Vec<_> = kept.difference(&there).collect();
        assert!(lost.is_empty(), "{number}: lost {lost:?}");
        finalized(&rootfs.path);
        assert_eq!(listing(&rootfs.path, false), wanted, "{number}");
        fs::remove_dir_all(&rootfs.path).unwrap();
    });
    assert!(killed.into_inner() > 0, "none was killed");
}

/// A file system with room for so many files or bytes more; the tree is looked at when it has
/// failed, and when there is room again.
#[test]
fn one_on_a_full_disk_is_completed_when_there_is_room() {
    if !is_root() || !has("unshare") {
        return;
    }
    let dir = scratch_in_memory();
    let rootfs = debian(dir.path().join("r"));
    let kept = kept(&rootfs);
    let result = dir.path().join("result");
    fs::create_dir(&result).unwrap();
    in_a_mount_namespace(
        r#"cd "$3"
        # As it is written to another file system, directories have other sizes.
        for what in nr_inodes size; do
            for more in 0 1 2 3 5 8 13 21 34 55; do
                name=$what-$more
                mkdir place
                mount -t tmpfs -o mode=0755 tmpfs place
                cp -a "$2/." place
                case $what in
                nr_inodes) limit=$(($(df --output=iused place | tail -n 1) + more)) ;;
                size) limit=$((($(df -k --output=used place | tail -n 1) + 4 * more) * 1024)) ;;
                esac
                mount -o "remount,$what=$limit" place
                if "$1" finalize -q --skip initramfs place 2>"$name.said" >&2; then
                    touch "$name.whole"
                fi
                cp -a place "$name.stopped"
                mount -o remount,nr_inodes=100000,size=100m place
                "$1" finalize -q --skip initramfs place
                cp -a place "$name.completed"
                umount place
                rmdir place
            done
        done"#,
        &[&rootfs.path, &result],
    );
    finalized(&rootfs.path);
    let wanted = listing(&rootfs.path, false);
    let mut failed = 0;
    for what in ["nr_inodes", "size"] {
        for more in [0, 1, 2, 3, 5, 8, 13, 21, 34, 55] {
            let at = |end: &str| result.join(format!("{what}-{more}.{end}"));
            if !at("whole").exists() {
                failed += 1;
                let said = fs::read_to_string(at("said")).unwrap();
                assert!(
                    said.contains("make room and run this again"),
                    "{what} {more}: {said}"
                );
            }
            let there = contents(&at("stopped"));
            let lost: Vec<_> = kept.difference(&there).collect();
            assert!(lost.is_empty(), "{what} {more}: lost {lost:?}");
            assert_eq!(listing(&at("completed"), false), wanted, "{what} {more}");
        }
    }
    assert!(failed > 5, "{failed} have failed");
}
