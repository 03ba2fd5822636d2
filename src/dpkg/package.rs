//! From one stanza to a package: what its fields mean (deb-control(5), Debian policy 5.6).

use super::Package;
use super::stanza::{Fault, Stanza};

/// Makes the package `name` of its stanza, which comes from `stanza_file` in `status.d` if there is one.
pub(super) fn parse(
    stanza: &Stanza<'_>,
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
    Ok(Package {
        name: name.to_owned(),
        architecture: architecture.to_owned(),
        version: version.to_owned(),
        source: source.to_owned(),
        source_version: source_version.to_owned(),
        multi_arch_same: text("Multi-Arch")?.eq_ignore_ascii_case("same"),
        section: text("Section")?.to_owned(),
        priority: text("Priority")?.to_owned(),
        essential: text("Essential")?.eq_ignore_ascii_case("yes"),
        stanza_file: stanza_file.map(str::to_owned),
    })
}

/// Splits `name (version)`, the form of `Source` where the two differ from the package's own (Debian policy 5.6.1).
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

/// What dpkg takes for a package name; wider than Debian policy 5.6.7, which has no capitals and no `_`.
pub(super) fn is_package_name(name: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"+-._".contains(&byte);
    name.bytes()
        .next()
        .is_some_and(|byte| byte.is_ascii_alphanumeric())
        && name.bytes().all(legal)
}

/// The `Architecture`, checked as dpkg does: the names of the lists are made of it.
pub(super) fn architecture<'a>(stanza: &Stanza<'a>) -> Result<&'a str, Fault> {
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
    use super::super::stanza;
    use super::*;

    fn only(fields: &str) -> Package {
        let text = format!("Package: p\nStatus: install ok installed\nVersion: 1-2\n{fields}\n");
        let stanzas = stanza::parse(text.as_bytes()).unwrap();
        let stanza = stanzas.first().unwrap();
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
                (package.source.as_str(), package.source_version.as_str()),
                (source, version),
                "{field}"
            );
        }
    }

    #[test]
    fn the_other_fields() {
        let bare = only("");
        assert_eq!(
            (
                bare.architecture.as_str(),
                bare.section.as_str(),
                bare.priority.as_str()
            ),
            ("", "", "")
        );
        assert_eq!((bare.multi_arch_same, bare.essential), (false, false));
        let full = only(
            "essential: yes\nPRIORITY: required\nSection: contrib/net\nArchitecture: kfreebsd-amd64\nMulti-Arch: same\n",
        );
        assert_eq!(
            (
                full.architecture.as_str(),
                full.section.as_str(),
                full.priority.as_str()
            ),
            ("kfreebsd-amd64", "contrib/net", "required")
        );
        assert_eq!((full.multi_arch_same, full.essential), (true, true));
        assert!(!only("Multi-Arch: foreign\n").multi_arch_same);
    }
}
