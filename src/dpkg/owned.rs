//! The list of paths that one package owns, as `dpkg --listfiles` shows it.

use anyhow::Result;

use super::{Files, Package};

/// The absolute paths of `package`, in the order of its list, before diversions. Empty when it has
/// no list.
pub(super) fn read(files: &dyn Files, dir: &str, package: &Package) -> Result<Vec<String>> {
    let stems = stems(dir, package);
    // A .list says more than .md5sums, wherever it is.
    for stem in &stems {
        if let Some(bytes) = super::read(files, &format!("{stem}.list"))? {
            return Ok(lines(&bytes).filter_map(absolute).collect());
        }
    }
    for stem in &stems {
        if let Some(bytes) = super::read(files, &format!("{stem}.md5sums"))? {
            return Ok(lines(&bytes)
                .filter_map(without_checksum)
                .filter_map(absolute)
                .collect());
        }
    }
    tracing::debug!(
        package = package.name(),
        architecture = package.architecture(),
        "the package has no list of files"
    );
    Ok(Vec::new())
}

/// What the names of the package's control files begin with, the likeliest first. Packages that are
/// `Multi-Arch: same` have their architecture in the name.
fn stems(dir: &str, package: &Package) -> Vec<String> {
    let (name, architecture) = (package.name(), package.architecture());
    let mut stems = Vec::new();
    if let Some(file) = package.stanza_file() {
        stems.push(format!("{dir}/status.d/{file}"));
        stems.push(format!("{dir}/status.d/{name}"));
    }
    let plain = format!("{dir}/info/{name}");
    let qualified = format!("{dir}/info/{name}:{architecture}");
    stems.extend(if package.is_multi_arch_same() {
        [qualified, plain]
    } else {
        [plain, qualified]
    });
    stems
}

/// The lines of a file of the database, without their ends.
pub(super) fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    bytes.split(|byte| *byte == b'\n')
}

/// The path of a line of `.md5sums`: 32 hexadecimal digits, a space, a space or `*`, a path
/// (deb-md5sums(5)).
fn without_checksum(line: &[u8]) -> Option<&[u8]> {
    let (sum, rest) = line.split_at_checked(32)?;
    let rest = rest.strip_prefix(b" ")?;
    let path = rest
        .strip_prefix(b" ")
        .or_else(|| rest.strip_prefix(b"*"))
        .unwrap_or(rest);
    sum.iter().all(u8::is_ascii_hexdigit).then_some(path)
}

/// The path of a line with one slash at its start, one between its components and none at its end;
/// none for the root directory, and for what names no path in the rootfs, which is logged.
///
/// Names that are not UTF-8 are the scan's to report, which meets them whether or not a package has
/// them.
pub(super) fn absolute(line: &[u8]) -> Option<String> {
    let Ok(text) = std::str::from_utf8(line) else {
        tracing::debug!(
            "a listed path is not UTF-8, skipped: {}",
            line.escape_ascii()
        );
        return None;
    };
    let mut path = String::with_capacity(text.len() + 1);
    for component in text.split('/') {
        match component {
            "" | "." => {}
            ".." => {
                tracing::debug!("a listed path climbs, skipped: {text:?}");
                return None;
            }
            _ => {
                path.push('/');
                path.push_str(component);
            }
        }
    }
    if path.contains('\0') {
        tracing::debug!("a listed path has a zero byte, skipped: {text:?}");
        return None;
    }
    (!path.is_empty()).then_some(path)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn listed_lines() {
        let table: [(&[u8], Option<&str>); 12] = [
            (b"/.", None),
            (b"/", None),
            (b"", None),
            (b"/usr", Some("/usr")),
            (b"usr/bin/x", Some("/usr/bin/x")),
            (b"./usr/bin/x", Some("/usr/bin/x")),
            (b"/usr//bin/./x/", Some("/usr/bin/x")),
            (b"/usr/share/a name ", Some("/usr/share/a name ")),
            (
                "/usr/share/Főtanúsítvány.crt".as_bytes(),
                Some("/usr/share/Főtanúsítvány.crt"),
            ),
            (b"/usr/share/\xff", None),
            (b"/usr/../etc/x", None),
            (b"/usr/\0", None),
        ];
        for (line, expected) in table {
            assert_eq!(
                absolute(line).as_deref(),
                expected,
                "{}",
                line.escape_ascii()
            );
        }
    }

    #[test]
    fn checksum_lines() {
        let table: [(&[u8], Option<&[u8]>); 6] = [
            (
                b"5461b4c9623a1657baf85fbc0c8576b6  usr/bin/x",
                Some(b"usr/bin/x"),
            ),
            (
                b"5461b4c9623a1657baf85fbc0c8576b6 *usr/bin/x",
                Some(b"usr/bin/x"),
            ),
            (
                b"5461B4C9623A1657BAF85FBC0C8576B6  ./usr/a  b",
                Some(b"./usr/a  b"),
            ),
            (b"5461b4c9623a1657baf85fbc0c8576b6usr/bin/x", None),
            (b"zz61b4c9623a1657baf85fbc0c8576b6  usr/bin/x", None),
            (b"usr/bin/x", None),
        ];
        for (line, expected) in table {
            assert_eq!(without_checksum(line), expected, "{}", line.escape_ascii());
        }
    }

    proptest! {
        #[test]
        fn any_bytes_give_clean_paths(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            for path in lines(&bytes).filter_map(absolute) {
                prop_assert!(path.len() > 1 && path.starts_with('/') && !path.ends_with('/') && !path.contains("//"));
            }
            for line in lines(&bytes) {
                let _ = without_checksum(line);
            }
        }
    }
}
