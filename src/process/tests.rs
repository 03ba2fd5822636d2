#![allow(clippy::unwrap_used)]
use std::time::{Duration, Instant};

use super::*;

fn sh(script: &str) -> Call {
    Call::new("sh", ["-c", script])
}

#[test]
fn what_it_prints_is_the_result_and_what_it_says_is_in_the_error() {
    assert_eq!(sh("echo out; echo said >&2").run().unwrap(), "out\n");
    let error = sh("echo out; echo why >&2; exit 3")
        .run()
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("why") && error.contains("exit status: 3"),
        "{error}"
    );
    let error = Call::new("aoh-no-such-program", ["x"])
        .run()
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("apt-get install aoh-no-such-program"),
        "{error}"
    );
}

#[test]
fn a_program_that_hangs_is_ended_with_all_that_it_started() {
    let start = Instant::now();
    let marker = format!("{}.25", 7000 + std::process::id());
    let script = format!("echo thinking >&2; sleep {marker} & wait");
    let error = sh(&script)
        .limit(Duration::from_millis(200))
        .run()
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("did not end within 0 s") && error.contains("thinking"),
        "{error}"
    );
    assert!(start.elapsed() < Duration::from_secs(4));
    let running = Command::new("pgrep")
        .args(["-f", &marker])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&running.stdout), "");
}

#[test]
fn a_program_that_leaves_something_running_does_not_hold_us_up() {
    let start = Instant::now();
    // The grandchild has the pipes, in a session of its own.
    assert!(sh("echo done; setsid sleep 3 & true").run().is_ok());
    assert!(
        start.elapsed() < Duration::from_millis(2900),
        "{:?}",
        start.elapsed()
    );
}

/// A child that is left behind holds the pipes: what the program had printed was once taken as
/// empty.
#[test]
fn what_has_arrived_is_used_when_something_left_running_holds_the_pipes() {
    assert_eq!(
        sh("echo done; setsid sleep 3 & true").run().unwrap(),
        "done\n"
    );
    let error = sh("echo why >&2; setsid sleep 3 & exit 4")
        .run()
        .unwrap_err();
    assert!(
        error.to_string().ends_with("(exit status: 4): why"),
        "{error}"
    );
    let begun = sh("echo thinking >&2; setsid sleep 5 & sleep 5").limit(Duration::from_millis(200));
    let error = begun.run().unwrap_err();
    assert!(error.to_string().contains("thinking"), "{error}");
}

#[test]
fn words_are_hidden_or_refused() {
    let call = Call::new("printf", ["%s %s"])
        .hidden("a=secret", "a=...")
        .operand("x");
    assert_eq!(call.name(), "printf '%s %s' a=... x");
    assert_eq!(call.run().unwrap(), "a=secret x");
    let error = sh("true").operand("-x").run().unwrap_err().to_string();
    assert!(error.contains("'-x' is not a name"), "{error}");
}

#[test]
fn what_is_printed_into_a_file_is_read_and_stays() {
    let dir = tempfile::tempdir().unwrap();
    let path = Utf8PathBuf::try_from(dir.path().join("out")).unwrap();
    std::fs::write(&path, "old and longer").unwrap();
    let printed = sh("echo new").output_to(&path).run().unwrap();
    assert_eq!(printed, "new\n");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "new\n");
}

#[test]
fn an_outcome_tells_how_it_ended() {
    let outcome = Outcome::default();
    assert!(!outcome.is_started());
    sh("true").run_telling(&outcome).unwrap();
    assert!(outcome.is_success() && !outcome.has_refused());
    let outcome = Outcome::default();
    sh("exit 1").run_telling(&outcome).unwrap_err();
    assert!(!outcome.is_success() && outcome.has_refused());
    let outcome = Outcome::default();
    sh("kill -9 $$").run_telling(&outcome).unwrap_err();
    assert!(!outcome.is_success() && !outcome.has_refused());
}
