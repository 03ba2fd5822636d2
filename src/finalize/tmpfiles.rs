//! What tmpfiles.d(5) says: which paths are made when a system boots.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;

use super::root::Root;

/// Directories with such files, those that win first.
const DIRECTORIES: [&str; 2] = ["etc/tmpfiles.d", "usr/lib/tmpfiles.d"];
/// Types of lines that make something, their modifiers left out.
const MAKING: &str = "fFwdDevqQpLcbC";

/// Escapes a path as tmpfiles.d(5) reads it: `%` begins a specifier, and spaces end a field.
pub fn escaped(path: &str) -> String {
    let mut text = String::new();
    for c in path.chars() {
        match c {
            '%' => text.push_str("%%"),
            ' ' => text.push_str("\\x20"),
            '\t' => text.push_str("\\x09"),
            '\n' => text.push_str("\\x0a"),
            '"' => text.push_str("\\x22"),
            '\'' => text.push_str("\\x27"),
            '\\' => text.push_str("\\x5c"),
            c => text.push(c),
        }
    }
    text
}

/// The paths that lines of a system make, without a leading slash; those of the file called `but`
/// left out.
///
/// # Errors
/// When a file cannot be read.
pub fn declared(root: &Root, but: &str) -> Result<BTreeSet<String>> {
    let mut files: BTreeMap<String, String> = BTreeMap::new();
    for dir in DIRECTORIES {
        for name in root.list(dir)? {
            if name.ends_with(".conf") && name != but {
                files.entry(name.clone()).or_insert(format!("{dir}/{name}"));
            }
        }
    }
    let mut paths = BTreeSet::new();
    for path in files.values() {
        let Some(path) = root.resolve(path)? else {
            continue;
        };
        paths.extend(root.text(&path)?.lines().filter_map(made_by));
    }
    Ok(paths)
}

/// The path that a line makes.
fn made_by(line: &str) -> Option<String> {
    let mut fields = line.split_whitespace();
    let kind = fields.next()?;
    let path = fields.next()?;
    // What is made at boot only may be anywhere else.
    if !MAKING.contains(kind.chars().next()?) || kind.contains('!') {
        return None;
    }
    let path = path.trim_matches('"').strip_prefix('/')?;
    let path = path.trim_end_matches('/').replace("%%", "\u{0}");
    (!path.contains('%')).then(|| unescaped(&path.replace('\u{0}', "%")))
}

fn unescaped(path: &str) -> String {
    let mut text = String::new();
    let mut rest = path;
    while let Some((before, after)) = rest.split_once("\\x") {
        text.push_str(before);
        let code = after
            .get(..2)
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match code.filter(u8::is_ascii) {
            Some(code) => {
                text.push(code as char);
                rest = &after[2..];
            }
            None => {
                text.push_str("\\x");
                rest = after;
            }
        }
    }
    text + rest
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn lines_that_make_something() {
        let table = [
            ("d /var/log 0755 - - -", Some("var/log")),
            ("q /var 0755", Some("var")),
            ("L+ /var/run - - - - ../run", Some("var/run")),
            ("d \"/var/a\" - -", Some("var/a")),
            ("d /var/a%%b/", Some("var/a%b")),
            ("d /var/a\\x20b", Some("var/a b")),
            ("D! /tmp/.X11-unix 1777 root root 10d", None),
            ("x /var/tmp/systemd-private-%b-*", None),
            ("z /var/log 0755", None),
            ("# d /var/x", None),
            ("d", None),
            ("", None),
        ];
        for (line, path) in table {
            assert_eq!(made_by(line).as_deref(), path, "{line}");
        }
        let odd = "var/a b%\\c\"";
        assert_eq!(
            made_by(&format!("d /{}", escaped(odd))).as_deref(),
            Some(odd)
        );
    }
}
