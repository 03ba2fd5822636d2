//! The database as a whole, over a root filesystem of a few files in memory.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use proptest::prelude::*;

use super::*;

/// Pairs of texts: a path and a content, or a name and an architecture.
type Pairs<'a> = &'a [(&'a str, &'a str)];

/// Files by path; a directory is there when something is below it.
#[derive(Default)]
struct Fake(BTreeMap<String, Vec<u8>>);

impl Fake {
    fn of(files: Pairs<'_>) -> Self {
        let entry =
            |(path, content): &(&str, &str)| ((*path).to_owned(), content.as_bytes().to_vec());
        Self(files.iter().map(entry).collect())
    }

    fn load(&self) -> Result<Option<Database>> {
        Database::load(self, None)
    }

    fn paths(&self, name: &str) -> Vec<String> {
        let database = self.load().unwrap().unwrap();
        let package = database
            .packages
            .iter()
            .find(|package| package.name() == name)
            .unwrap();
        database.paths(self, package).unwrap()
    }
}

impl Files for Fake {
    fn read(&self, path: &str) -> Result<Option<Vec<u8>>> {
        if self
            .0
            .get(path)
            .is_some_and(|content| content == b"unreadable")
        {
            bail!("permission denied");
        }
        Ok(self.0.get(path).cloned())
    }

    fn list(&self, path: &str) -> Result<Option<Vec<String>>> {
        let below = |file: &String| {
            Some(
                file.strip_prefix(path)?
                    .strip_prefix('/')?
                    .split('/')
                    .next()?
                    .to_owned(),
            )
        };
        let mut names: Vec<String> = self.0.keys().filter_map(below).collect();
        names.sort();
        names.dedup();
        Ok(if names.is_empty() { None } else { Some(names) })
    }
}

fn stanza(name: &str, architecture: &str, more: &str) -> String {
    format!(
        "Package: {name}\nStatus: install ok installed\nArchitecture: {architecture}\nVersion: 1\n{more}\n"
    )
}

fn names(database: &Database) -> Vec<&str> {
    database
        .packages
        .iter()
        .map(|package| package.name())
        .collect()
}

#[test]
fn where_the_database_is_looked_for() {
    let (a, b) = (stanza("a", "all", ""), stanza("b", "all", ""));
    let table: [(Pairs<'_>, Option<(&str, &str)>); 6] = [
        (&[("/etc/passwd", "")], None),
        (
            &[
                ("/var/lib/dpkg/status", &a),
                ("/usr/lib/sysimage/dpkg/status", &b),
            ],
            Some(("/var/lib/dpkg", "a")),
        ),
        (
            &[("/usr/lib/sysimage/dpkg/status", &b)],
            Some(("/usr/lib/sysimage/dpkg", "b")),
        ),
        (
            &[
                ("/var/lib/dpkg/status", ""),
                ("/usr/lib/sysimage/dpkg/status", &b),
            ],
            Some(("/usr/lib/sysimage/dpkg", "b")),
        ),
        (
            &[("/var/lib/dpkg/status.d/a", &a)],
            Some(("/var/lib/dpkg", "a")),
        ),
        (&[("/var/lib/dpkg/status", "")], Some(("/var/lib/dpkg", ""))),
    ];
    for (files, expected) in table {
        let database = Fake::of(files).load().unwrap();
        let found = database
            .as_ref()
            .map(|database| (database.admin_dir(), names(database).concat()));
        assert_eq!(
            found,
            expected.map(|(dir, name)| (dir, name.to_owned())),
            "{files:?}"
        );
    }
}

#[test]
fn a_given_directory_must_have_one() {
    let fake = Fake::of(&[
        ("/srv/db/status", &stanza("a", "all", "")),
        ("/var/lib/dpkg/status", ""),
    ]);
    for given in ["/srv/db", "/srv/db/", "srv/db"] {
        let database = Database::load(&fake, Some(given)).unwrap().unwrap();
        assert_eq!(
            (database.admin_dir(), names(&database)),
            ("/srv/db", vec!["a"]),
            "{given}"
        );
    }
    let error = Database::load(&fake, Some("/none"))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("no package database in /none") && error.contains("give the directory"),
        "{error}"
    );
}

#[test]
fn packages_are_sorted_by_name_and_architecture() {
    let status: String = [
        ("b", "all"),
        ("a", "i386"),
        ("a-b", "all"),
        ("a", "amd64"),
        ("A", "all"),
    ]
    .map(|(name, architecture)| stanza(name, architecture, ""))
    .concat();
    let database = Fake::of(&[("/var/lib/dpkg/status", &status)])
        .load()
        .unwrap()
        .unwrap();
    let order: Vec<(&str, &str)> = database
        .packages
        .iter()
        .map(|package| (package.name(), package.architecture()))
        .collect();
    assert_eq!(
        order,
        [
            ("A", "all"),
            ("a", "amd64"),
            ("a", "i386"),
            ("a-b", "all"),
            ("b", "all")
        ]
    );
}

#[test]
fn an_interrupted_dpkg_leaves_updates() {
    let fake = Fake::of(&[
        (
            "/var/lib/dpkg/status",
            &(stanza("a", "all", "") + &stanza("b", "all", "")),
        ),
        (
            "/var/lib/dpkg/updates/0000",
            "Package: b\nStatus: deinstall ok config-files\nArchitecture: all\nVersion: 1\n",
        ),
        ("/var/lib/dpkg/updates/0001", &stanza("c", "all", "")),
        ("/var/lib/dpkg/updates/tmp.i", "#padding\n#padding\n"),
    ]);
    assert_eq!(names(&fake.load().unwrap().unwrap()), ["a", "c"]);
}

#[test]
fn lists_with_and_without_architecture() {
    let status = stanza("lib", "amd64", "Multi-Arch: same\n")
        + &stanza("tool", "amd64", "")
        + &stanza("meta", "all", "");
    let both = [
        ("/var/lib/dpkg/status", status.as_str()),
        (
            "/var/lib/dpkg/info/lib:amd64.list",
            "/.\n/usr\n/usr/lib/lib.so\n",
        ),
        ("/var/lib/dpkg/info/lib.list", "/wrong\n"),
        (
            "/var/lib/dpkg/info/tool.list",
            "/.\n/usr\n/usr/bin\n/usr/bin/tool\n",
        ),
    ];
    let fake = Fake::of(&both);
    assert_eq!(fake.paths("lib"), ["/usr", "/usr/lib/lib.so"]);
    assert_eq!(fake.paths("tool"), ["/usr", "/usr/bin", "/usr/bin/tool"]);
    assert!(fake.paths("meta").is_empty());
    let swapped = Fake::of(&[
        ("/var/lib/dpkg/status", &status),
        ("/var/lib/dpkg/info/lib.list", "/usr/lib/lib.so\n"),
        ("/var/lib/dpkg/info/tool:amd64.list", "/usr/bin/tool\n"),
    ]);
    assert_eq!(
        (
            swapped.paths("lib").concat(),
            swapped.paths("tool").concat()
        ),
        ("/usr/lib/lib.so".into(), "/usr/bin/tool".into())
    );
}

#[test]
fn an_image_without_dpkg() {
    let sum = "5461b4c9623a1657baf85fbc0c8576b6";
    let fake = Fake::of(&[
        (
            "/var/lib/dpkg/status.d/base",
            "Package: base-files\nArchitecture: amd64\nVersion: 12.4\n",
        ),
        (
            "/var/lib/dpkg/status.d/base.md5sums",
            &format!("{sum}  usr/lib/os-release\n{sum}  etc/issue\nnonsense\n"),
        ),
        (
            "/var/lib/dpkg/status.d/tzdata",
            "Package: tzdata\nArchitecture: all\nVersion: 2026f\n\n",
        ),
        (
            "/var/lib/dpkg/status.d/other",
            "Package: tool\nArchitecture: amd64\nVersion: 1",
        ),
        ("/var/lib/dpkg/info/tool.list", "/usr/bin/tool\n"),
        (
            "/var/lib/dpkg/info/tool.md5sums",
            &format!("{sum}  usr/bin/wrong\n"),
        ),
    ]);
    assert_eq!(
        names(&fake.load().unwrap().unwrap()),
        ["base-files", "tool", "tzdata"]
    );
    assert_eq!(
        fake.paths("base-files"),
        ["/usr/lib/os-release", "/etc/issue"]
    );
    assert_eq!(fake.paths("tool"), ["/usr/bin/tool"]);
    assert!(fake.paths("tzdata").is_empty());
}

#[test]
fn packages_added_to_such_an_image() {
    let fake = Fake::of(&[
        (
            "/var/lib/dpkg/status.d/a",
            "Package: a\nArchitecture: all\nVersion: 0\n",
        ),
        (
            "/var/lib/dpkg/status.d/b",
            "Package: b\nArchitecture: all\nVersion: 0\n",
        ),
        (
            "/var/lib/dpkg/status",
            &(stanza("a", "all", "") + &stanza("c", "all", "")),
        ),
    ]);
    let database = fake.load().unwrap().unwrap();
    let versions: Vec<String> = database
        .packages
        .iter()
        .map(|package| format!("{}={}", package.name(), package.version()))
        .collect();
    assert_eq!(versions, ["a=1", "b=0", "c=1"]);
}

#[test]
fn diverted_paths_are_owned_where_they_went() {
    let fake = Fake::of(&[
        (
            "/var/lib/dpkg/status",
            &(stanza("bash", "all", "") + &stanza("dash", "all", "")),
        ),
        (
            "/var/lib/dpkg/diversions",
            "/bin/sh\n/bin/sh.distrib\ndash\n",
        ),
        ("/var/lib/dpkg/info/bash.list", "/bin/sh\n/bin/bash\n"),
        ("/var/lib/dpkg/info/dash.list", "/bin/sh\n"),
    ]);
    assert_eq!(fake.paths("bash"), ["/bin/sh.distrib", "/bin/bash"]);
    assert_eq!(fake.paths("dash"), ["/bin/sh"]);
}

#[test]
fn the_architecture_of_the_system() {
    let table: [(Pairs<'_>, Option<&str>); 5] = [
        (&[], None),
        (&[("a", "all")], None),
        (
            &[("dpkg", "arm64"), ("a", "amd64"), ("b", "amd64")],
            Some("arm64"),
        ),
        (
            &[
                ("a", "all"),
                ("b", "all"),
                ("c", "i386"),
                ("d", "amd64"),
                ("e", "amd64"),
            ],
            Some("amd64"),
        ),
        (&[("c", "i386"), ("d", "amd64")], Some("amd64")),
    ];
    for (packages, expected) in table {
        let status: String = packages
            .iter()
            .map(|(name, architecture)| stanza(name, architecture, ""))
            .collect();
        let database = Fake::of(&[("/var/lib/dpkg/status", &status)])
            .load()
            .unwrap()
            .unwrap();
        assert_eq!(database.architecture(), expected, "{packages:?}");
    }
}

#[test]
fn errors_name_the_file_the_line_and_the_remedy() {
    let good = stanza("a", "all", "");
    let table: [(Pairs<'_>, &[&str]); 5] = [
        (
            &[("/var/lib/dpkg/status", "Package: a\nbroken\n")],
            &[
                "/var/lib/dpkg/status, line 2: neither a field",
                "dpkg --configure -a",
                "/var/lib/dpkg/status-old",
            ],
        ),
        (
            &[
                ("/var/lib/dpkg/status", &good),
                ("/var/lib/dpkg/updates/0007", "X: y\n"),
            ],
            &[
                "/var/lib/dpkg/updates/0007, line 1: a stanza without a Package",
                "dpkg --configure -a",
            ],
        ),
        (
            &[("/var/lib/dpkg/status.d/a", "\nPackage: a\n")],
            &[
                "/var/lib/dpkg/status.d/a, line 2: the installed package a has no Version",
                "remove /var/lib/dpkg/status.d/a",
            ],
        ),
        (
            &[
                ("/usr/lib/sysimage/dpkg/status", &good),
                ("/usr/lib/sysimage/dpkg/diversions", "/a\n"),
            ],
            &[
                "/usr/lib/sysimage/dpkg/diversions has 1 lines",
                "/usr/lib/sysimage/dpkg/diversions-old",
            ],
        ),
        (
            &[("/var/lib/dpkg/status", "unreadable")],
            &["reading /var/lib/dpkg/status", "permission denied"],
        ),
    ];
    for (files, expected) in table {
        let error = format!("{:#}", Fake::of(files).load().unwrap_err());
        for part in expected {
            assert!(error.contains(part), "{error}: no {part}");
        }
    }
}

proptest! {
    #[test]
    fn any_bytes_in_any_file_make_no_panic(content in proptest::collection::vec(any::<u8>(), 0..200)) {
        let status = stanza("a", "all", "").into_bytes();
        for broken in ["status", "status.d/x", "updates/0", "diversions", "info/a.list", "info/a.md5sums"] {
            let mut fake = Fake::of(&[]);
            fake.0.insert("/var/lib/dpkg/status".to_owned(), status.clone());
            fake.0.insert(format!("/var/lib/dpkg/{broken}"), content.clone());
            if let Ok(Some(database)) = fake.load() {
                for package in &database.packages {
                    prop_assert!(database.paths(&fake, package).is_ok());
                }
            }
        }
    }
}
