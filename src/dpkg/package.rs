//! From one stanza to a package: what its fields mean (deb-control(5), Debian policy 5.6).

use super::stanza::{Fault, Stanza};

/// One package whose files are in the rootfs. Its words are kept in one piece: there may be a
/// million of them.
#[derive(Debug, Clone)]
pub struct Package {
    /// Name, architecture, version, source, the source's version, and the file in `status.d` that
    /// the stanza is from (none when it is from `status`).
    text: Box<str>,
    /// Where each of the first five ends.
    ends: [u32; 5],
    is_multi_arch_same: bool,
    /// Which stanza it is of, counted over all files: a later one replaces an earlier.
    pub(super) number: u32,
}

impl Package {
    fn new(words: [&str; 5], stanza_file: Option<&str>, is_multi_arch_same: bool) -> Self {
        let mut ends = [0; 5];
        let mut end = 0;
        for (at, word) in ends.iter_mut().zip(words) {
            end += word.len() as u32;
            *at = end;
        }
        let text = words.concat() + stanza_file.unwrap_or_default();
        Self {
            text: text.into_boxed_str(),
            ends,
            is_multi_arch_same,
            number: 0,
        }
    }

    fn word(&self, at: usize) -> &str {
        let start = at.checked_sub(1).map_or(0, |before| self.ends[before]);
        let end = self
            .ends
            .get(at)
            .map_or(self.text.len(), |end| *end as usize);
        &self.text[start as usize..end]
    }

    /// The binary package's name, made of ASCII letters, digits and `+-._`, the first of them a
    /// letter or digit.
    pub fn name(&self) -> &str {
        self.word(0)
    }

    /// The architecture it was built for (`amd64`, `all`); empty when its stanza has none, which
    /// dpkg only warns of.
    pub fn architecture(&self) -> &str {
        self.word(1)
    }

    /// The version, epoch and revision included (deb-version(7)).
    pub fn version(&self) -> &str {
        self.word(2)
    }

    /// The source package it was built from, made of the same characters as the name; equal to that
    /// when the stanza has no `Source` field, or one that is not a package name.
    pub fn source(&self) -> &str {
        self.word(3)
    }

    /// The version of that source: what `Source` has in parentheses, else the version. Unlike that
    /// it does not count the rebuilds of the binary package (`+b1`).
    pub fn source_version(&self) -> &str {
        self.word(4)
    }

    /// Whether several architectures of it can be installed at once (`Multi-Arch: same`,
    /// deb-control(5)).
    pub fn is_multi_arch_same(&self) -> bool {
        self.is_multi_arch_same
    }

    /// The file in `status.d` that the stanza is from; none when it is from `status`.
    pub(super) fn stanza_file(&self) -> Option<&str> {
        Some(self.word(5)).filter(|file| !file.is_empty())
    }
}

/// Makes the package `name` of its stanza, which comes from `stanza_file` in `status.d` if there is
/// one.
pub(super) fn parse(
    stanza: &Stanza,
    name: &str,
    architecture: &str,
    stanza_file: Option<&str>,
) -> Result<Package, Fault> {
    let Some((version, line)) = stanza.get("Version")? else {
        return Err(Fault::new(
            stanza.line(),
            format!("the installed package {name} has no Version field"),
        ));
    };
    if !version.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Fault::new(
            line,
            format!("the Version of {name} is none: {version:?}"),
        ));
    }
    let text = |field| {
        stanza
            .get(field)
            .map(|found| found.map_or("", |(value, _)| value))
    };
    let (source, source_version) = split_source(text("Source")?, name, version);
    let words = [name, architecture, version, source, source_version];
    let is_same = text("Multi-Arch")?.eq_ignore_ascii_case("same");
    Ok(Package::new(words, stanza_file, is_same))
}

/// Splits `name (version)`, the form of `Source` where the two differ from the package's own
/// (Debian policy 5.6.1).
///
/// Packages not built by Debian's tools have other things there; they are their own source.
fn split_source<'a>(field: &'a str, name: &'a str, version: &'a str) -> (&'a str, &'a str) {
    let (source, rest) = field.split_once('(').unwrap_or((field, ""));
    let source = source.trim();
    if !is_package_name(source) {
        if !source.is_empty() {
            tracing::debug!(
                package = name,
                source = field,
                "the Source field has no package name: ignored"
            );
        }
        return (name, version);
    }
    let stated = rest.trim().trim_end_matches(')').trim();
    let usable = !stated.is_empty() && stated.bytes().all(|byte| byte.is_ascii_graphic());
    (source, if usable { stated } else { version })
}

/// What dpkg takes for a package name; wider than Debian policy 5.6.7, which has no capitals and no
/// `_`.
pub(super) fn is_package_name(name: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"+-._".contains(&byte);
    name.bytes()
        .next()
        .is_some_and(|byte| byte.is_ascii_alphanumeric())
        && name.bytes().all(legal)
}

/// The `Architecture`, checked as dpkg does: the names of the lists are made of it.
pub(super) fn architecture(stanza: &Stanza) -> Result<&str, Fault> {
    let Some((name, line)) = stanza.get("Architecture")? else {
        return Ok("");
    };
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    if name.starts_with('-') || !name.bytes().all(legal) {
        return Err(Fault::new(line, format!("not an architecture: {name:?}")));
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::super::stanza::Stanzas;
    use super::*;

    fn only(fields: &str) -> Package {
        let text = format!("Package: p\nStatus: install ok installed\nVersion: 1-2\n{fields}\n");
        let mut stanzas = Stanzas::new(text.as_bytes(), true);
        let stanza = stanzas.next().unwrap().unwrap();
        parse(stanza, "p", architecture(stanza).unwrap(), None).unwrap()
    }

    #[test]
    fn source_and_its_version() {
        let table = [
            ("", "p", "1-2"),
            ("Source: glibc\n", "glibc", "1-2"),
            ("Source: bash (5.2-1)\n", "bash", "5.2-1"),
            ("Source:  bash  ( 5.2-1 ) \n", "bash", "5.2-1"),
            ("Source: bash(5.2-1\n", "bash", "5.2-1"),
            ("Source: bash ()\n", "bash", "1-2"),
            ("Source: https://example.org/x, y\n", "p", "1-2"),
            ("Source: ../etc\n", "p", "1-2"),
        ];
        for (field, source, version) in table {
            let package = only(field);
            assert_eq!(
                (package.source(), package.source_version()),
                (source, version),
                "{field}"
            );
        }
    }

    #[test]
    fn the_other_fields() {
        let bare = only("");
        assert_eq!(
            (bare.architecture(), bare.is_multi_arch_same()),
            ("", false)
        );
        let full = only("ARCHITECTURE: kfreebsd-amd64\nMulti-Arch: Same\n");
        assert_eq!(full.architecture(), "kfreebsd-amd64");
        assert!(full.is_multi_arch_same());
        assert!(!only("Multi-Arch: foreign\n").is_multi_arch_same);
    }
}
