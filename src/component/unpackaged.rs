//! Software that was installed beside packages: trees in /opt and /usr/local, and what pip and npm
//! have put there. Each is a component of its own, because it is updated as a whole, and not when
//! packages are.

use camino::Utf8Path;

/// Where Debian's pip installs to, and others' (site.py of Debian's Python; PEP 370 aside).
const PYTHON: [&str; 2] = ["dist-packages", "site-packages"];
/// The ends of the directories with which pip describes what it has installed (PEP 376, PEP 427).
const DESCRIPTIONS: [&str; 3] = [".dist-info", ".egg-info", ".data"];

/// The component of what was installed by hand at `path` (from the root, no leading slash); none
/// elsewhere.
pub fn unpackaged_tree(path: &Utf8Path) -> Option<String> {
    let parts: Vec<&str> = path.components().map(|part| part.as_str()).collect();
    match parts.as_slice() {
        // A file of its own there is no tree.
        ["opt", name, _, ..] => Some(format!("local/opt/{name}")),
        ["usr", "local", "lib", "node_modules", rest @ ..]
        | ["usr", "lib", "node_modules", rest @ ..] => npm(rest),
        ["usr", "local", "lib", python, packages, rest @ ..]
            if python.starts_with("python") && PYTHON.contains(packages) =>
        {
            pip(rest)
        }
        ["usr", "local", ..] => Some("local/usr".to_owned()),
        _ => None,
    }
}

/// `NAME/...` or `@SCOPE/NAME/...` (npm-folders(5)).
fn npm(below: &[&str]) -> Option<String> {
    match below {
        [scope, name, ..] if scope.starts_with('@') => Some(format!("npm/{scope}/{name}")),
        [name, _, ..] => Some(format!("npm/{name}")),
        _ => None,
    }
}

/// A package's directory or module, and the description beside it, by the name that both have but
/// for letters and signs (PEP 503).
fn pip(below: &[&str]) -> Option<String> {
    let first = below.first()?;
    let description = DESCRIPTIONS.iter().find_map(|end| first.strip_suffix(end));
    let name = match description {
        // NAME-VERSION
        Some(described) => described.split('-').next()?,
        None => first.split('.').next()?,
    };
    if name.is_empty() || name == "__pycache__" {
        return Some("local/usr".to_owned());
    }
    Some(format!(
        "pip/{}",
        name.to_ascii_lowercase().replace('-', "_")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trees_are_known_by_their_place() {
        for (path, component) in [
            ("opt/app/bin/x", Some("local/opt/app")),
            ("opt/file", None),
            ("opt", None),
            ("usr/local/bin/tool", Some("local/usr")),
            (
                "usr/local/lib/python3.11/dist-packages/requests/api.py",
                Some("pip/requests"),
            ),
            (
                "usr/local/lib/python3.11/dist-packages/requests-2.32.dist-info/METADATA",
                Some("pip/requests"),
            ),
            (
                "usr/local/lib/python3.13/site-packages/Typing_Extensions.py",
                Some("pip/typing_extensions"),
            ),
            (
                "usr/local/lib/python3.13/site-packages/typing_extensions-4.1.dist-info/x",
                Some("pip/typing_extensions"),
            ),
            (
                "usr/local/lib/python3.11/dist-packages/__pycache__/six.cpython-311.pyc",
                Some("local/usr"),
            ),
            (
                "usr/local/lib/python3.11/dist-packages/_cffi.cpython-311-x86_64-linux-gnu.so",
                Some("pip/_cffi"),
            ),
            (
                "usr/local/lib/python3.11/dist-packages/.hidden",
                Some("local/usr"),
            ),
            ("usr/local/lib/node_modules/npm/bin/x", Some("npm/npm")),
            (
                "usr/local/lib/node_modules/@types/node/index.d.ts",
                Some("npm/@types/node"),
            ),
            ("usr/lib/node_modules/yarn/x", Some("npm/yarn")),
            ("usr/lib/node_modules/.package-lock.json", None),
            ("usr/lib/python3/dist-packages/x.py", None),
            ("etc/x", None),
        ] {
            assert_eq!(
                unpackaged_tree(Utf8Path::new(path)).as_deref(),
                component,
                "{path}"
            );
        }
    }
}
