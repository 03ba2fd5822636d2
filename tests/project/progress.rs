//! Progress as a person on a terminal sees it, and as a log has it.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::*;

/// A root filesystem that takes a while to hash, and no room.
fn slow(dir: &Path, bytes: u64) -> Rootfs {
    let rootfs = tiny(dir);
    let big = File::create(rootfs.at("usr/big")).unwrap();
    big.set_len(bytes).unwrap();
    rootfs.settle();
    rootfs
}

/// The helper on a terminal of 80 columns: `script` makes one, and writes what it gets to a file.
fn on_terminal(dir: &Path, arguments: &str) -> Command {
    let program = env!("CARGO_BIN_EXE_apt-ostree-helper");
    let line = format!(
        "stty cols 80 rows 24; echo $$ > {0}/pid; exec {program} {arguments}",
        dir.display()
    );
    let mut script = Command::new("script");
    script.args(["-qefc", &line]).arg(dir.join("seen"));
    script.env("TERM", "xterm").env("SHELL", "/bin/sh");
    script.stdin(Stdio::null()).stdout(Stdio::null());
    script
}

/// What a terminal shows in the end that gets `bytes`: enough of one for bars.
fn screen(bytes: &str) -> Vec<String> {
    let mut lines: Vec<Vec<char>> = vec![Vec::new()];
    let (mut row, mut column) = (0, 0);
    let mut signs = bytes.chars();
    while let Some(sign) = signs.next() {
        match sign {
            '\r' => column = 0,
            '\n' => {
                row += 1;
                if row == lines.len() {
                    lines.push(Vec::new());
                }
            }
            '\x1b' => {
                assert_eq!(signs.next(), Some('['));
                let mut number = String::new();
                let last = loop {
                    match signs.next().unwrap() {
                        digit if digit.is_ascii_digit() || digit == '?' => number.push(digit),
                        last => break last,
                    }
                };
                let count: usize = number.parse().unwrap_or(1);
                match last {
                    'A' => row -= count.min(row),
                    'B' => row = (row + count).min(lines.len() - 1),
                    'G' => column = count - 1,
                    'K' if number == "2" => lines[row].clear(),
                    'K' => lines[row].truncate(column),
                    'J' => {
                        lines.truncate(row + 1);
                        lines[row].truncate(column);
                    }
                    'h' | 'l' | 'm' => {}
                    other => panic!("{number}{other}"),
                }
            }
            sign => {
                if column == 80 {
                    (row, column) = (row + 1, 0);
                    lines.resize(lines.len().max(row + 1), Vec::new());
                }
                while lines[row].len() <= column {
                    lines[row].push(' ');
                }
                lines[row][column] = sign;
                column += 1;
            }
        }
    }
    let lines = lines.iter().map(|line| line.iter().collect::<String>());
    let lines = lines.map(|line| line.trim_end().to_owned());
    lines.filter(|line| !line.is_empty()).collect()
}

/// What `script` has written, without its own first and last line.
fn seen(dir: &Path) -> String {
    let bytes = fs::read(dir.join("seen")).unwrap();
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let lines = text.split_inclusive('\n');
    let of_script = |line: &&str| !line.starts_with("Script ");
    lines.filter(of_script).collect()
}

#[test]
fn bars_come_and_go_on_a_terminal() {
    if !has("script") {
        return;
    }
    let dir = scratch();
    let rootfs = slow(dir.path(), 600_000_000);
    let arguments = format!("plan --rootfs {} --json", rootfs.str());
    let status = on_terminal(dir.path(), &arguments).status().unwrap();
    assert!(status.success());
    let seen = seen(dir.path());
    assert!(seen.contains("hashing files"), "{seen}");
    assert!(seen.contains(" left"), "{seen}");
    let screen = screen(&seen);
    assert!(screen.contains(&"{".to_owned()), "{screen:#?}");
    assert!(screen.iter().all(|line| !line.contains("hashing")));

    // With -q, and without a wish for it, there is nothing.
    for silent in ["-q", "--progress none"] {
        let arguments = format!("{arguments} {silent}");
        assert!(
            on_terminal(dir.path(), &arguments)
                .status()
                .unwrap()
                .success()
        );
        let seen = self::seen(dir.path());
        assert!(!seen.contains("hashing"), "{seen}");
        assert!(!seen.contains('\x1b'), "{seen}");
    }
}

#[test]
fn each_layer_that_runs_has_a_line() {
    if !has("script") {
        return;
    }
    let dir = scratch();
    let rootfs = slow(dir.path(), 300_000_000);
    let out = dir.path().join("out");
    let arguments = format!("build --rootfs {} -o oci:{}", rootfs.str(), out.display());
    let arguments = format!("{arguments} --format plain --compression zstd");
    let status = on_terminal(dir.path(), &arguments).status().unwrap();
    assert!(status.success());
    let seen = seen(dir.path());
    assert!(seen.contains("writing layers"), "{seen}");
    assert!(seen.contains("  layer "), "{seen}");
    let screen = screen(&seen);
    assert!(
        screen.iter().any(|line| line.starts_with("sha256:")),
        "{screen:#?}"
    );
    assert!(
        screen.iter().all(|line| !line.contains("  layer ")),
        "{screen:#?}"
    );
}

#[test]
fn a_message_between_breaks_no_line() {
    if !has("script") {
        return;
    }
    let dir = scratch();
    let rootfs = slow(dir.path(), 1 << 40);
    let arguments = format!("plan --rootfs {}", rootfs.str());
    let mut child = on_terminal(dir.path(), &arguments).spawn().unwrap();
    let start = Instant::now();
    while !fs::read(dir.path().join("seen")).is_ok_and(|seen| {
        let seen = String::from_utf8_lossy(&seen);
        seen.matches("hashing files").count() > 2
    }) {
        assert!(start.elapsed() < Duration::from_secs(60));
        std::thread::sleep(Duration::from_millis(50));
    }
    let pid = fs::read_to_string(dir.path().join("pid")).unwrap();
    succeed(Command::new("kill").arg(pid.trim()));
    child.wait().unwrap();
    let screen = screen(&seen(dir.path()));
    assert!(screen.join("").ends_with(": cleaning up"), "{screen:#?}");
    assert!(
        screen.iter().all(|line| !line.contains("hashing files")),
        "{screen:#?}"
    );
}

#[test]
fn a_log_has_lines_where_they_are_wanted() {
    let dir = scratch();
    let rootfs = tiny(dir.path());
    let said = |extra: &[&str]| {
        let mut command = helper();
        command.args(["plan", "--rootfs", rootfs.str()]).args(extra);
        let output = command.output().unwrap();
        assert!(output.status.success());
        stderr(&output)
    };
    // What is over sooner than a line is due says nothing.
    assert_eq!(said(&[]), "");
    assert_eq!(said(&["-q", "--progress", "plain"]), "");
    let plain = said(&["--progress", "plain"]);
    let stages: Vec<&str> = plain
        .lines()
        .filter_map(|line| line.split(':').next())
        .collect();
    assert_eq!(stages, ["reading the tree", "hashing files"], "{plain}");
}

#[test]
fn an_archive_is_not_written_to_a_terminal() {
    if !has("script") {
        return;
    }
    let dir = scratch();
    let rootfs = tiny(dir.path());
    let arguments = format!("build --rootfs {} -o -", rootfs.str());
    let status = on_terminal(dir.path(), &arguments).status().unwrap();
    assert_eq!(status.code(), Some(2));
    let seen = seen(dir.path());
    assert!(
        seen.contains("an archive cannot go to a terminal"),
        "{seen}"
    );
}
