//! Help, manual pages and completions, tried with the programs that users read them with.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::common::*;

fn pages(dir: &std::path::Path) -> Vec<PathBuf> {
    run(&["man", dir.to_str().unwrap()]);
    let pages = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    pages.collect()
}

#[test]
fn manual_pages_are_read_without_a_warning() {
    let dir = scratch();
    let pages = pages(dir.path());
    assert!(pages.len() > 15, "{}", pages.len());
    for page in &pages {
        for reader in [
            &["mandoc", "-T", "lint", "-W", "warning"][..],
            &["groff", "-man", "-Tutf8", "-ww", "-z"],
        ] {
            if !has(reader[0]) {
                continue;
            }
            let output = Command::new(reader[0])
                .args(&reader[1..])
                .arg(page)
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&output.stdout).into_owned() + &stderr(&output);
            assert_eq!(said, "", "{}", page.display());
        }
    }
    if has("man") {
        let page = dir.path().join("apt-ostree-helper-diff.1");
        let mut man = Command::new("man");
        man.args(["--warnings=w", "-l"])
            .arg(page)
            .env("MANWIDTH", "100")
            .env("LC_ALL", "C.UTF-8");
        let text = succeed(&mut man);
        // Without what makes letters bold.
        let text: String = text.split('\u{8}').collect();
        assert!(
            text.contains("diff oci:old oci:new --html update.html"),
            "{text}"
        );
    }
}

/// What a shell offers for the words so far.
fn offered(shell: &str, script: &str, line: &str) -> Option<String> {
    if !has(shell) {
        return None;
    }
    let dir = scratch();
    let file = dir.path().join("_apt-ostree-helper");
    fs::write(&file, script).unwrap();
    let file = file.display();
    let ask = match shell {
        "bash" => format!(
            "source {file}; COMP_WORDS=({line}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); \
             f=$(complete -p apt-ostree-helper); f=${{f##*-F }}; \
             ${{f%% *}} apt-ostree-helper \"${{COMP_WORDS[COMP_CWORD]}}\" \"${{COMP_WORDS[COMP_CWORD-1]}}\"; \
             printf '%s\\n' \"${{COMPREPLY[@]}}\""
        ),
        "fish" => format!("source {file}; complete -C '{line}'"),
        // zsh completes at a prompt only: one is made in a terminal of its own.
        _ => format!(
            "zmodload zsh/zpty; zpty z 'TERM=dumb zsh -f -i'; \
             zpty -w z 'PS1=; fpath=({dir} $fpath); autoload -Uz compinit; compinit -u -d {dir}/dump; LISTMAX=1000; echo RE\"\"ADY'; \
             while zpty -r z got; do [[ $got = *READY* ]] && break; done; \
             zpty -n -w z $'{line}\\t\\t'; sleep 2; while zpty -r -t z got; do print -r -- $got; done; zpty -d z",
            dir = dir.path().display()
        ),
    };
    let mut command = Command::new(shell);
    command
        .args(["-c", &ask])
        .env("HOME", dir.path())
        .env("LC_ALL", "C.UTF-8");
    Some(succeed(&mut command))
}

#[test]
fn shells_complete_commands_and_options() {
    for shell in ["bash", "zsh", "fish"] {
        let script = run(&["completions", shell]);
        for (line, expected) in [
            ("apt-ostree-helper insp", "inspect"),
            ("apt-ostree-helper build --max-l", "--max-layers"),
            ("apt-ostree-helper compose build-ch", "build-chunked-oci"),
        ] {
            if let Some(offered) = offered(shell, &script, line) {
                // zsh writes the rest of the word behind what is there.
                let offered = offered.replace(['\r', '\n'], " ");
                assert!(offered.contains(expected), "{shell}, {line}: {offered}");
            }
        }
    }
}

#[test]
fn a_mistaken_word_is_answered_with_the_one_meant() {
    for (arguments, meant) in [
        (&["buidl"][..], "'build'"),
        (&["build", "--max-layer", "3"], "'--max-layers'"),
        (&["diff", "a", "b", "--htlm", "x"], "'--html'"),
        (
            &["build", "--rootfs", "/", "-o", "oci:x", "--format", "ostee"],
            "'ostree'",
        ),
    ] {
        let message = fail(2, arguments);
        assert!(
            message.contains("similar") && message.contains(meant),
            "{message}"
        );
    }
}

#[test]
fn help_groups_options_and_ends_with_examples() {
    let help = run(&["build", "--help"]);
    for heading in [
        "What goes in:",
        "Where it goes:",
        "How it is split:",
        "What the image says of itself:",
        "Examples:",
    ] {
        assert!(help.contains(heading), "{heading}\n{help}");
    }
    assert!(
        run(&["compose", "build-image", "--help"]).contains("compose build-image . -o oci:out")
    );
}

/// The names of the commands in a help text.
fn commands(help: &str) -> Vec<String> {
    let commands = help.split("Commands:").nth(1).unwrap();
    let lines = commands
        .lines()
        .skip(1)
        .take_while(|line| !line.trim().is_empty());
    let named = lines.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let names = named.filter_map(|line| line.split_whitespace().next());
    names
        .filter(|name| *name != "help")
        .map(str::to_owned)
        .collect()
}

#[test]
fn every_command_has_examples_and_groups_its_options() {
    let mut all: Vec<Vec<String>> = Vec::new();
    for name in commands(&run(&["--help"])) {
        if name == "compose" {
            let below = commands(&run(&["compose", "--help"]));
            all.extend(below.into_iter().map(|below| vec![name.clone(), below]));
        } else {
            all.push(vec![name]);
        }
    }
    assert!(all.len() > 12, "{all:?}");
    for command in all {
        let mut words: Vec<&str> = command.iter().map(String::as_str).collect();
        words.push("--help");
        let help = run(&words);
        let examples = help.split("Examples:").nth(1);
        let examples =
            examples.unwrap_or_else(|| panic!("{command:?}: add examples to cli/examples.rs"));
        assert!(
            examples.matches("\n  apt-ostree-helper ").count() >= 2,
            "{command:?}: {examples}"
        );
        let bare = help
            .split("\nOptions:")
            .nth(1)
            .map(|rest| rest.split(":\n").next().unwrap());
        let bare = bare.map_or(0, |bare| {
            bare.matches("\n  -").count() + bare.matches("\n      --").count()
        });
        assert!(
            bare <= 6,
            "{command:?}: {bare} options stand below no heading of cli/examples.rs"
        );
    }
}

/// Nobody wants the bytes of an archive on the screen.
#[test]
fn an_archive_is_not_written_to_a_terminal() {
    if !has("script") {
        return;
    }
    let dir = scratch();
    let rootfs = tiny(dir.path());
    let command = format!(
        "{} build --rootfs {} -o -",
        env!("CARGO_BIN_EXE_apt-ostree-helper"),
        rootfs.str()
    );
    let output = Command::new("script")
        .args(["-qec", &command, "/dev/null"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        said.contains("an archive cannot go to a terminal"),
        "{said}"
    );
    assert_eq!(output.status.code(), Some(2));
}
