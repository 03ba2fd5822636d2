//! Which stanzas the database has, and which of them are of packages that are installed.

use std::collections::BTreeMap;

use anyhow::{Error, Result, anyhow};

use super::package::{self, is_package_name};
use super::stanza::{self, Fault, Stanza};
use super::{Files, Package, list, read};

/// Files that builders of images without dpkg put beside the stanzas in `status.d`; anything else there is a stanza file.
const CONTROL_FILES: [&str; 12] = [
    ".md5sums",
    ".list",
    ".conffiles",
    ".preinst",
    ".postinst",
    ".prerm",
    ".postrm",
    ".config",
    ".templates",
    ".triggers",
    ".shlibs",
    ".symbols",
];

/// Packages by name and architecture; a later stanza replaces an earlier one of the same package, as in dpkg.
#[derive(Debug, Default)]
pub(super) struct Packages(BTreeMap<(String, String), Package>);

impl Packages {
    /// Adds the stanzas of `status` in the directory `dir`, and those of the journal an interrupted dpkg has not yet
    /// merged into it: files in `updates/` with names of digits, in their order. Returns whether there is a `status`.
    pub(super) fn read_status(&mut self, files: &dyn Files, dir: &str) -> Result<bool> {
        let path = format!("{dir}/status");
        let remedy = format!(
            "repair the package database in the root filesystem (run `dpkg --configure -a` there, \
             or restore {path} from {path}-old)"
        );
        let Some(bytes) = read(files, &path)? else {
            return Ok(false);
        };
        self.add_written_by_dpkg(&bytes)
            .map_err(|fault| broken(&path, &fault, &remedy))?;

        let updates = format!("{dir}/updates");
        for name in list(files, &updates)?.unwrap_or_default() {
            if !name.bytes().all(|byte| byte.is_ascii_digit()) {
                continue;
            }
            let path = format!("{updates}/{name}");
            if let Some(bytes) = read(files, &path)? {
                self.add_written_by_dpkg(&bytes)
                    .map_err(|fault| broken(&path, &fault, &remedy))?;
            }
        }
        Ok(true)
    }

    /// Adds the stanzas of all files in `status.d` in the directory `dir`. Returns whether there is a `status.d`.
    pub(super) fn read_status_d(&mut self, files: &dyn Files, dir: &str) -> Result<bool> {
        let directory = format!("{dir}/status.d");
        let Some(names) = list(files, &directory)? else {
            return Ok(false);
        };
        for name in names {
            if CONTROL_FILES.iter().any(|suffix| name.ends_with(suffix)) {
                continue;
            }
            let path = format!("{directory}/{name}");
            let Some(bytes) = read(files, &path)? else {
                continue;
            };
            let remedy = format!(
                "write the file again from the package (`dpkg-deb --field`), or remove {path}"
            );
            self.add(&bytes, Some(&name))
                .map_err(|fault| broken(&path, &fault, &remedy))?;
        }
        Ok(true)
    }

    /// The packages, sorted by name and architecture.
    pub(super) fn into_sorted(self) -> Vec<Package> {
        self.0.into_values().collect()
    }

    /// dpkg ends every line, the last one too: a file that ends within a line was cut off, and its last value with it.
    fn add_written_by_dpkg(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        if bytes.last().is_some_and(|last| *last != b'\n') {
            let line = bytes.split(|byte| *byte == b'\n').count();
            return Err(Fault::new(line, "the file ends in the middle of a line"));
        }
        self.add(bytes, None)
    }

    fn add(&mut self, bytes: &[u8], stanza_file: Option<&str>) -> Result<(), Fault> {
        for stanza in stanza::parse(bytes)? {
            let (name, line) = stanza
                .get("Package")?
                .ok_or_else(|| Fault::new(stanza.line(), "a stanza without a Package field"))?;
            if !is_package_name(name) {
                return Err(Fault::new(line, format!("not a package name: {name:?}")));
            }
            let architecture = package::architecture(&stanza)?;
            if is_present(&stanza, name, stanza_file.is_some())? {
                let package = package::parse(&stanza, name, architecture, stanza_file)?;
                self.0
                    .insert((name.to_owned(), architecture.to_owned()), package);
            } else if architecture.is_empty() {
                // What is left of a purged package names no architecture.
                self.0.retain(|(known, _), _| known != name);
            } else {
                self.0.remove(&(name.to_owned(), architecture.to_owned()));
            }
        }
        Ok(())
    }
}

/// Whether the files of the package are there: the last of the three words of `Status` is a state in which
/// dpkg(1) has unpacked them, at least in part. In `status.d` the stanza is the package's control file, which has no
/// status.
fn is_present(stanza: &Stanza<'_>, name: &str, status_is_optional: bool) -> Result<bool, Fault> {
    let Some((status, line)) = stanza.get("Status")? else {
        if status_is_optional {
            return Ok(true);
        }
        return Err(Fault::new(
            stanza.line(),
            format!("the package {name} has no Status field"),
        ));
    };
    let words: Vec<&str> = status.split_ascii_whitespace().collect();
    let [_want, _flag, state] = words.as_slice() else {
        return Err(Fault::new(
            line,
            format!("the Status of {name} has not three words: {status:?}"),
        ));
    };
    match state.to_ascii_lowercase().as_str() {
        "not-installed" | "config-files" => Ok(false),
        "half-installed" | "unpacked" | "half-configured" | "triggers-awaited"
        | "triggers-pending" | "installed" => Ok(true),
        _ => Err(Fault::new(
            line,
            format!("the Status of {name} ends in no state that dpkg has: {status:?}"),
        )),
    }
}

fn broken(path: &str, fault: &Fault, remedy: &str) -> Error {
    anyhow!(
        "reading the package database: {path}, line {}: {}; {remedy}",
        fault.line,
        fault.what
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use proptest::prelude::*;

    use super::*;

    fn load(text: &str) -> Result<Vec<Package>, Fault> {
        let mut packages = Packages::default();
        packages.add_written_by_dpkg(text.as_bytes())?;
        Ok(packages.into_sorted())
    }

    #[test]
    fn which_states_have_files() {
        let table = [
            ("install ok installed", 1),
            ("hold ok installed", 1),
            ("install reinstreq half-installed", 1),
            ("install ok unpacked", 1),
            ("install ok half-configured", 1),
            ("install ok triggers-awaited", 1),
            ("install ok triggers-pending", 1),
            ("Install OK Installed", 1),
            ("deinstall ok config-files", 0),
            ("purge ok not-installed", 0),
        ];
        for (status, count) in table {
            let text = format!("Package: a\nStatus: {status}\nVersion: 1\n");
            assert_eq!(load(&text).unwrap().len(), count, "{status}");
        }
        assert!(
            load("Package: a\nStatus: unknown ok not-installed\n\n")
                .unwrap()
                .is_empty()
        );
    }

    #[test]
    fn a_later_stanza_replaces_an_earlier_one() {
        let stanza = |state: &str, architecture: &str, version: &str| {
            format!(
                "Package: a\nStatus: install ok {state}\nArchitecture: {architecture}\nVersion: {version}\n\n"
            )
        };
        let both = stanza("installed", "amd64", "1") + &stanza("installed", "i386", "1");
        let versions = |text: String| -> Vec<String> {
            load(&text)
                .unwrap()
                .into_iter()
                .map(|package| package.architecture + "=" + &package.version)
                .collect()
        };
        assert_eq!(versions(both.clone()), ["amd64=1", "i386=1"]);
        assert_eq!(
            versions(both.clone() + &stanza("installed", "i386", "2")),
            ["amd64=1", "i386=2"]
        );
        assert_eq!(
            versions(both.clone() + &stanza("config-files", "amd64", "1")),
            ["i386=1"]
        );
        assert!(versions(both + "Package: a\nStatus: purge ok not-installed\n").is_empty());
    }

    #[test]
    fn broken_databases_are_told_by_line() {
        let table = [
            (
                "Status: install ok installed\nVersion: 1\n",
                1,
                "without a Package field",
            ),
            ("\n\nX: y\n", 3, "without a Package field"),
            ("Package: a\nVersion: 1\n", 1, "a has no Status field"),
            (
                "Package: a\nStatus: installed\n",
                2,
                "has not three words: \"installed\"",
            ),
            (
                "Package: a\nStatus: install ok installed now\n",
                2,
                "has not three words",
            ),
            (
                "Package: a\nStatus: install ok inst\n",
                2,
                "no state that dpkg has",
            ),
            (
                "Package: a\nStatus: install ok installed\n",
                1,
                "a has no Version field",
            ),
            (
                "Package: a\nStatus: install ok installed\nVersion: 1 2\n",
                3,
                "Version of a is none",
            ),
            (
                "Package: a\nStatus: install ok installed\nVersion: 1",
                3,
                "ends in the middle of a line",
            ),
            ("Package: a/b\n", 1, "not a package name: \"a/b\""),
            ("Package: a,b\n", 1, "not a package name"),
            ("Package: a\0\n", 1, "not a package name"),
            ("Package: .a\n", 1, "not a package name"),
            ("Package: a\nArchitecture: ../x\n", 2, "not an architecture"),
            (
                "Package: a\nStatus: purge ok not-installed\nPackage: b\n",
                3,
                "a second Package field",
            ),
        ];
        for (text, line, what) in table {
            let fault = load(text).unwrap_err();
            assert_eq!(fault.line, line, "{text}");
            assert!(fault.what.contains(what), "{}", fault.what);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_make_no_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let mut packages = Packages::default();
            let _ = packages.add(&bytes, None);
            let _ = packages.add(&bytes, Some("file"));
            let _ = packages.add_written_by_dpkg(&bytes);
        }

        #[test]
        fn no_text_of_fields_makes_a_name_that_is_none(
            text in "((Package|Status|Version|Source|Architecture| |\t|)(: |:|)\
                      (install ok installed|a|b1|[ -~]{0,12}|\\PC{0,4})\n){0,12}"
        ) {
            for package in load(&text).unwrap_or_default() {
                prop_assert!(is_package_name(&package.name) && is_package_name(&package.source));
                prop_assert!(!package.version.is_empty() && !package.source_version.is_empty());
            }
        }
    }
}
