//! Names of members as paths inside the root, and names as errors show them.

use anyhow::{Context, Result, ensure};

use crate::limits;

/// Characters of a name that an error shows.
const SHOWN: usize = 200;

/// The path inside the root that a member's name stands for, as podman and other runtimes take it:
/// without a leading slash (kaniko writes one), `.` components, doubled or trailing slashes, and
/// with each `..` taking the component before it away, whatever that is. The root itself is the
/// empty path.
///
/// # Errors
/// When the name is empty, not UTF-8, has a NUL in it, is longer than a path can be, or leads out
/// of the root.
pub fn clean_path(raw: &[u8]) -> Result<String> {
    let name = std::str::from_utf8(raw).ok();
    let name = name.with_context(|| format!("the name '{}' is not UTF-8", show(raw)))?;
    ensure!(!name.is_empty(), "there is a member with an empty name");
    ensure!(
        !name.contains('\0'),
        "the name '{}' has a NUL in it",
        show(raw)
    );
    let mut path = String::with_capacity(name.len().min(limits::PATH_BYTES));
    for component in name.split('/') {
        match component {
            "" | "." => {}
            ".." => {
                ensure!(
                    !path.is_empty(),
                    "the name '{}' leads out of the root with the component '..'",
                    show(raw)
                );
                path.truncate(path.rfind('/').unwrap_or(0));
            }
            component => {
                limits::check_name(component)?;
                if !path.is_empty() {
                    path.push('/');
                }
                path.push_str(component);
                limits::check_path(path.len(), &path)?;
            }
        }
    }
    Ok(path)
}

/// A name for an error: on one line, and not as long as a hostile one may be.
pub(super) fn show(raw: &[u8]) -> String {
    let escaped = match std::str::from_utf8(raw) {
        Ok(name) => name.escape_debug().take(SHOWN + 1).collect::<String>(),
        Err(_) => raw
            .iter()
            .take(SHOWN + 1)
            .flat_map(|b| b.escape_ascii())
            .map(char::from)
            .collect(),
    };
    match escaped.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}...", &escaped[..end]),
        None => escaped,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn cleans_names() {
        for (raw, path) in [
            ("usr/bin/sh", "usr/bin/sh"),
            ("./usr/bin/", "usr/bin"),
            ("././/usr//./bin/./", "usr/bin"),
            (".", ""),
            ("./", ""),
            (".//.", ""),
            ("...", "..."),
            ("a/..b/.c", "a/..b/.c"),
            ("ü\n", "ü\n"),
            ("/", ""),
            ("/etc/passwd", "etc/passwd"),
            ("//./etc", "etc"),
            ("usr/lib/../bin/sh", "usr/bin/sh"),
            ("a/..", ""),
            ("a/../b/", "b"),
        ] {
            assert_eq!(clean_path(raw.as_bytes()).unwrap(), path, "{raw}");
        }
    }

    #[test]
    fn refuses_names_and_says_why() {
        let (name, path) = ("n".repeat(256), "d/".repeat(2048) + "x");
        for (raw, why) in [
            (&b""[..], "empty name"),
            (b"..", "the component '..'"),
            (b"/..", "the component '..'"),
            (b"a/../../b", "'a/../../b' leads out of the root"),
            (b"./../a", "the component '..'"),
            (b"a\0b", "'a\\0b' has a NUL"),
            (b"caf\xe9", "'caf\\xe9' is not UTF-8"),
            (name.as_bytes(), "has 256 bytes"),
            (path.as_bytes(), "has 4097 bytes, and a path has at most"),
        ] {
            let error = clean_path(raw).unwrap_err().to_string();
            assert!(error.contains(why), "{raw:?}: {error}");
        }
    }

    #[test]
    fn errors_show_only_the_beginning_of_long_names() {
        for raw in ["a".repeat(1 << 20).into_bytes(), vec![255; 1 << 20]] {
            let error = clean_path(&raw).unwrap_err().to_string();
            assert!(error.len() < 300 && error.contains("..."), "{error}");
        }
    }

    proptest! {
        #[test]
        fn any_name_gives_a_path_inside_the_root(
            raw in proptest::collection::vec(prop_oneof![Just(b'/'), Just(b'.'), Just(b'a'), any::<u8>()], 0..20)
        ) {
            if let Ok(path) = clean_path(&raw) {
                let inside = |c: &str| !["", ".", ".."].contains(&c) && !c.contains('\0');
                prop_assert!(path.is_empty() || path.split('/').all(inside), "{path}");
                prop_assert!(path.is_empty() || clean_path(path.as_bytes()).unwrap() == path);
            }
        }
    }
}
