//! Diversions: paths that one package keeps other packages from (dpkg-divert(1)).

use std::collections::HashMap;

use anyhow::{Result, bail};

use super::owned::{absolute, lines};
use super::{Files, read};

/// The diversions of a database, by the path that is diverted.
#[derive(Debug, Clone, Default)]
pub(super) struct Diversions(HashMap<String, Diversion>);

#[derive(Debug, Clone)]
struct Diversion {
    to: String,
    /// The package that keeps the path itself; none when the administrator diverts it from all.
    by: Option<String>,
}

impl Diversions {
    /// Reads `diversions` in the directory `dir`: three lines each, the path, what it is diverted
    /// to, and the package that diverts it, `:` for the administrator. No file is no diversions.
    pub(super) fn load(files: &dyn Files, dir: &str) -> Result<Self> {
        let path = format!("{dir}/diversions");
        let Some(bytes) = read(files, &path)? else {
            return Ok(Self::default());
        };
        Self::parse(&path, &bytes)
    }

    /// The path that `package` really owns where its list has `path`; `None` when that is `path`
    /// itself.
    pub(super) fn target(&self, path: &str, package: &str) -> Option<&str> {
        let diversion = self.0.get(path)?;
        (diversion.by.as_deref() != Some(package)).then_some(&diversion.to)
    }

    fn parse(path: &str, bytes: &[u8]) -> Result<Self> {
        let mut diversions = HashMap::new();
        if bytes.is_empty() {
            return Ok(Self(diversions));
        }
        let lines: Vec<&[u8]> = lines(bytes).collect();
        for (index, triple) in lines.chunks(3).enumerate() {
            let &[from, to, by] = triple else {
                bail!(
                    "reading the package database: {path} has {} lines, where each diversion has three; \
                     restore it from {path}-old in the root filesystem",
                    lines.len()
                );
            };
            if by.is_empty() || !from.starts_with(b"/") || !to.starts_with(b"/") {
                bail!(
                    "reading the package database: {path}, line {}: not two absolute paths and a package; \
                     restore it from {path}-old in the root filesystem",
                    index * 3 + 1
                );
            }
            let (Some(from), Some(to), Ok(by)) =
                (absolute(from), absolute(to), std::str::from_utf8(by))
            else {
                continue;
            };
            let by = (by != ":").then(|| by.to_owned());
            diversions.insert(from, Diversion { to, by });
        }
        Ok(Self(diversions))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn whose_path_is_diverted() {
        let file = b"/bin/sh\n/bin/sh.distrib\ndash\n/etc/motd\n/etc/motd.org\n:\n/x\xff\n/y\nz\n";
        let diversions = Diversions::parse("d", file).unwrap();
        let table = [
            ("/bin/sh", "bash", Some("/bin/sh.distrib")),
            ("/bin/sh", "dash", None),
            ("/etc/motd", "dash", Some("/etc/motd.org")),
            ("/bin/sh.distrib", "bash", None),
            ("/bin/bash", "bash", None),
        ];
        for (path, package, expected) in table {
            assert_eq!(
                diversions.target(path, package),
                expected,
                "{path} of {package}"
            );
        }
        assert!(Diversions::parse("d", b"").unwrap().0.is_empty());
        let unterminated = Diversions::parse("d", b"/a\n/b\nc").unwrap();
        assert_eq!(unterminated.target("/a", "x"), Some("/b"));
    }

    #[test]
    fn a_broken_file_is_named() {
        let table: [(&[u8], &str); 4] = [
            (b"/a\n/b\nc\n/d\n", "/db/diversions has 4 lines"),
            (b"\n", "/db/diversions has 1 lines"),
            (
                b"/a\n/b\nc\nd\n/e\nf\n",
                "/db/diversions, line 4: not two absolute paths",
            ),
            (
                b"/a\n/b\n\n",
                "/db/diversions, line 1: not two absolute paths",
            ),
        ];
        for (file, expected) in table {
            let error = Diversions::parse("/db/diversions", file)
                .unwrap_err()
                .to_string();
            assert!(
                error.contains(expected) && error.contains("restore it from /db/diversions-old"),
                "{error}"
            );
        }
    }

    proptest! {
        #[test]
        fn any_bytes_make_no_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Diversions::parse("d", &bytes);
        }
    }
}
