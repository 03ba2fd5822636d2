//! The status file: which stanzas the database has, and which of them describe installed packages.

use std::io::{BufRead, BufReader};

use anyhow::{Error, Result, anyhow};

use super::package::{self, is_package_name};
use super::stanza::{Failure, Fault, Stanza, Stanzas};
use super::{Files, Package, list, open};

/// Files that builders of images without dpkg put beside the stanzas in `status.d`; anything else
/// there is a stanza file.
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

/// What all stanzas say, in their order; a later stanza replaces an earlier one of the same
/// package, as in dpkg.
#[derive(Debug, Default)]
pub(super) struct Packages {
    present: Vec<Package>,
    gone: Vec<Gone>,
    /// How many stanzas there were.
    count: u32,
}

/// A package that is no longer there.
#[derive(Debug)]
struct Gone {
    name: Box<str>,
    /// Empty for any: what is left of a purged package names none.
    architecture: Box<str>,
    number: u32,
}

impl Packages {
    /// Adds the stanzas of `status` in the directory `dir`, and those of the journal an interrupted
    /// dpkg has not yet merged into it: files in `updates/` with names of digits, in their order.
    /// Returns whether there is a `status`.
    pub(super) fn read_status(&mut self, files: &dyn Files, dir: &str) -> Result<bool> {
        let path = format!("{dir}/status");
        let remedy = format!(
            "repair the package database in the root filesystem (run `dpkg --configure -a` there, \
             or restore {path} from {path}-old)"
        );
        let Some(file) = open(files, &path)? else {
            return Ok(false);
        };
        // dpkg ends every line, the last one too: a file that ends within a line was cut off, and
        // its last value with it.
        self.add(Stanzas::new(BufReader::new(file), true), None)
            .map_err(|failure| broken(&path, failure, &remedy))?;

        let updates = format!("{dir}/updates");
        for name in list(files, &updates)?.unwrap_or_default() {
            if !name.bytes().all(|byte| byte.is_ascii_digit()) {
                continue;
            }
            let path = format!("{updates}/{name}");
            if let Some(file) = open(files, &path)? {
                self.add(Stanzas::new(BufReader::new(file), true), None)
                    .map_err(|failure| broken(&path, failure, &remedy))?;
            }
        }
        Ok(true)
    }

    /// Adds the stanzas of all files in `status.d` in the directory `dir`. Returns whether there is
    /// a `status.d`.
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
            let Some(file) = open(files, &path)? else {
                continue;
            };
            let remedy = format!(
                "write the file again from the package (`dpkg-deb --field`), or remove {path}"
            );
            self.add(Stanzas::new(BufReader::new(file), false), Some(&name))
                .map_err(|failure| broken(&path, failure, &remedy))?;
        }
        Ok(true)
    }

    /// The packages, sorted by name and architecture.
    pub(super) fn into_sorted(self) -> Vec<Package> {
        let mut packages = self.present;
        packages.sort_unstable_by(|a, b| key(a).cmp(&key(b)).then(b.number.cmp(&a.number)));
        // The last of each is the first now.
        packages.dedup_by(|later, first| key(later) == key(first));
        let mut gone = self.gone;
        gone.sort_unstable_by(|a, b| a.key().cmp(&b.key()).then(b.number.cmp(&a.number)));
        gone.dedup_by(|later, first| later.key() == first.key());
        let last = |key: (&str, &str)| {
            let found = gone.binary_search_by(|gone| gone.key().cmp(&key));
            found.map_or(0, |at| gone[at].number)
        };
        packages.retain(|package| {
            let (name, architecture) = key(package);
            package.number > last((name, "")).max(last((name, architecture)))
        });
        packages
    }

    fn add(
        &mut self,
        mut stanzas: Stanzas<impl BufRead>,
        stanza_file: Option<&str>,
    ) -> Result<(), Failure> {
        while let Some(stanza) = stanzas.next()? {
            let (name, line) = stanza
                .get("Package")?
                .ok_or_else(|| Fault::new(stanza.line(), "a stanza without a Package field"))?;
            if !is_package_name(name) {
                return Err(Fault::new(line, format!("not a package name: {name:?}")).into());
            }
            let architecture = package::architecture(stanza)?;
            self.count += 1;
            if is_present(stanza, name, stanza_file.is_some())? {
                let mut package = package::parse(stanza, name, architecture, stanza_file)?;
                package.number = self.count;
                self.present.push(package);
            } else {
                self.gone.push(Gone {
                    name: name.into(),
                    architecture: architecture.into(),
                    number: self.count,
                });
            }
        }
        Ok(())
    }
}

impl Gone {
    fn key(&self) -> (&str, &str) {
        (&self.name, &self.architecture)
    }
}

fn key(package: &Package) -> (&str, &str) {
    (package.name(), package.architecture())
}

/// Whether the files of the package are there: the last of the three words of `Status` is a state
/// in which dpkg(1) has unpacked them, at least in part. In `status.d` the stanza is the package's
/// control file, which has no status.
fn is_present(stanza: &Stanza, name: &str, status_is_optional: bool) -> Result<bool, Fault> {
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
            format!("the Status of {name} does not have three words: {status:?}"),
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

fn broken(path: &str, failure: Failure, remedy: &str) -> Error {
    match failure {
        Failure::Read(error) => {
            Error::new(error).context(format!("reading {path} of the package database"))
        }
        Failure::Fault(fault) => anyhow!(
            "reading the package database: {path}, line {}: {}; {remedy}",
            fault.line,
            fault.what
        ),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use proptest::prelude::*;

    use super::*;

    fn load(text: &str) -> Result<Vec<Package>, Fault> {
        let mut packages = Packages::default();
        match packages.add(Stanzas::new(text.as_bytes(), true), None) {
            Ok(()) => Ok(packages.into_sorted()),
            Err(Failure::Fault(fault)) => Err(fault),
            Err(Failure::Read(error)) => panic!("{error}"),
        }
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
                .map(|package| format!("{}={}", package.architecture(), package.version()))
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
                "does not have three words: \"installed\"",
            ),
            (
                "Package: a\nStatus: install ok installed now\n",
                2,
                "does not have three words",
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
            for (strict, file) in [(false, None), (false, Some("file")), (true, None)] {
                let _ = packages.add(Stanzas::new(&bytes[..], strict), file);
            }
        }

        #[test]
        fn no_text_of_fields_makes_a_name_that_is_none(
            text in "((Package|Status|Version|Source|Architecture| |\t|)(: |:|)\
                      (install ok installed|a|b1|[ -~]{0,12}|\\PC{0,4})\n){0,12}"
        ) {
            for package in load(&text).unwrap_or_default() {
                prop_assert!(is_package_name(package.name()) && is_package_name(package.source()));
                prop_assert!(!package.version().is_empty() && !package.source_version().is_empty());
            }
        }
    }
}
