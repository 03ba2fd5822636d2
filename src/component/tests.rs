#![allow(clippy::unwrap_used)]

use std::io::Read;

use super::*;
use crate::tree::{Contents, Kind, Metadata, TreeBuilder};

/// A tree whose files hold the text they were made with.
struct Fixture {
    tree: Tree,
    texts: HashMap<String, String>,
}

impl Contents for Fixture {
    fn open(&self, tree: &Tree, id: EntryId) -> Result<Box<dyn Read + '_>> {
        let text = self.texts[tree.path(id).as_str()].as_bytes();
        Ok(Box::new(text))
    }
}

/// Files by path and text; `-> ` makes a link, `component=` a hint on the file.
fn fixture(files: &[(&str, &str)]) -> Fixture {
    let mut builder = TreeBuilder::new(Metadata::directory(0o755));
    let mut directories: HashMap<String, EntryId> = HashMap::from([(String::new(), EntryId::ROOT)]);
    let mut texts = HashMap::new();
    for (path, text) in files {
        let mut parent = EntryId::ROOT;
        let mut at = String::new();
        let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
        for part in directory.split('/').filter(|p| !p.is_empty()) {
            at = format!("{at}/{part}");
            parent = *directories.entry(at.clone()).or_insert_with(|| {
                builder
                    .push(parent, part, "", Metadata::directory(0o755))
                    .unwrap()
            });
        }
        if name.is_empty() {
            continue;
        }
        let (kind, target) = match text.strip_prefix("-> ") {
            Some(target) => (Kind::Symlink, target),
            None => (Kind::Regular, ""),
        };
        let hint = text.strip_prefix("component=");
        let metadata = Metadata {
            kind,
            size: match *text {
                "BIG" => 5 << 20,
                "HALF" => 3 << 18,
                text => text.len() as u64,
            },
            xattrs: hint
                .map(|hint| (b"user.component".to_vec(), hint.as_bytes().to_vec()))
                .into_iter()
                .collect(),
            ..Metadata::directory(0o644)
        };
        builder.push(parent, name, target, metadata).unwrap();
        texts.insert((*path).to_owned(), (*text).to_owned());
    }
    Fixture {
        tree: builder.finish().0,
        texts,
    }
}

fn ownership(fixture: &Fixture) -> Ownership {
    let files = TreeFiles {
        tree: &fixture.tree,
        contents: fixture,
    };
    let database = Database::load(&files, None).unwrap();
    Ownership::of_tree(&fixture.tree, database.as_ref(), &files, None).unwrap()
}

fn owners(fixture: &Fixture) -> HashMap<String, String> {
    let ownership = ownership(fixture);
    let name = |id| {
        ownership.components()[ownership.owner(id).index()]
            .name
            .clone()
    };
    fixture
        .tree
        .ids()
        .map(|id| (fixture.tree.path(id).into_string(), name(id)))
        .collect()
}

const STATUS: &str = "Package: libfoo1
Status: install ok installed
Architecture: amd64
Version: 1.0-1
Source: foo

Package: linux-image-6.1-amd64
Status: install ok installed
Architecture: amd64
Version: 6.1-1
Source: linux-signed-amd64

Package: python3-bar
Status: install ok installed
Architecture: all
Version: 2

Package: ca-certificates
Status: install ok installed
Architecture: all
Version: 3
";

#[test]
fn every_rule_claims_what_it_names() {
    let fixture = fixture(&[
        ("var/lib/dpkg/status", STATUS),
        (
            "var/lib/dpkg/info/libfoo1.list",
            "/.\n/lib\n/lib/libfoo.so.1.0\n/usr/bin/foo\n/opt/own\n",
        ),
        (
            "var/lib/dpkg/info/linux-image-6.1-amd64.list",
            "/usr/lib/modules/6.1-amd64/kernel/a.ko\n",
        ),
        (
            "var/lib/dpkg/info/python3-bar.list",
            "/usr/lib/python3/bar.py\n",
        ),
        ("lib", "-> usr/lib"),
        ("usr/lib/libfoo.so.1.0", "x"),
        ("usr/lib/libfoo.so.1", "-> libfoo.so.1.0"),
        ("usr/bin/foo", "x"),
        ("usr/bin/vi", "-> /etc/alternatives/vi"),
        ("etc/alternatives/vi", "-> /usr/bin/foo"),
        ("usr/lib/modules/6.1-amd64/kernel/a.ko", "x"),
        ("usr/lib/modules/6.1-amd64/modules.dep", "x"),
        ("boot/initrd.img-6.1-amd64", "x"),
        ("usr/lib/modules/6.1-amd64/initramfs.img", "x"),
        ("usr/lib/python3/bar.py", "x"),
        ("usr/lib/python3/__pycache__/bar.cpython-311.pyc", "x"),
        ("usr/lib/python3/__pycache__/other.cpython-311.pyc", "x"),
        ("etc/ssl/certs/a.pem", "x"),
        ("etc/ssl/certs/ssl-cert-snakeoil.pem", "x"),
        ("etc/ld.so.cache", "x"),
        ("etc/hostname", "x"),
        ("etc/nobody", "x"),
        ("boot/vmlinuz-6.1-amd64", "x"),
        ("srv/big,file", "BIG"),
        ("opt/own", "component=a,b"),
        ("var/log/dpkg.log", "x"),
        ("var/cache/debconf/config.dat", "x"),
    ]);
    let owners = owners(&fixture);
    for (path, owner) in [
        ("var/lib/dpkg/info/libfoo1.list", "foo"),
        ("var/lib/dpkg/status", "state/packages"),
        ("var/cache/debconf/config.dat", "state/debconf"),
        ("var/log/dpkg.log", "state/machine"),
        ("usr/lib/libfoo.so.1.0", "foo"),
        ("usr/lib/libfoo.so.1", "foo"),
        ("usr/bin/vi", "foo"),
        ("etc/alternatives/vi", "foo"),
        (
            "usr/lib/modules/6.1-amd64/kernel/a.ko",
            "linux-signed-amd64",
        ),
        (
            "usr/lib/modules/6.1-amd64/modules.dep",
            "linux-signed-amd64",
        ),
        ("boot/initrd.img-6.1-amd64", "initramfs/6.1-amd64"),
        (
            "usr/lib/modules/6.1-amd64/initramfs.img",
            "initramfs/6.1-amd64",
        ),
        (
            "usr/lib/python3/__pycache__/bar.cpython-311.pyc",
            "python3-bar",
        ),
        (
            "usr/lib/python3/__pycache__/other.cpython-311.pyc",
            "rest/files",
        ),
        ("etc/ssl/certs/a.pem", "ca-certificates"),
        ("etc/ssl/certs/ssl-cert-snakeoil.pem", "state/machine"),
        ("etc/ld.so.cache", "generated/ld.so.cache"),
        ("etc/hostname", "state/machine"),
        ("etc/nobody", "rest/files"),
        ("boot/vmlinuz-6.1-amd64", "linux-signed-amd64"),
        ("srv/big,file", "big/srv/big%2Cfile"),
        ("opt/own", "user/a%2Cb"),
    ] {
        assert_eq!(owners[path], owner, "{path}");
    }
}

#[test]
fn a_large_source_has_parts_where_updates_spare_it() {
    let fixture = fixture(&[
        ("var/lib/dpkg/status", STATUS),
        (
            "var/lib/dpkg/info/libfoo1.list",
            "/usr/share/foo/data/a\n/usr/share/foo/data/deep/b\n/usr/share/foo/data/c\n/usr/share/foo/small\n\
             /usr/lib/libfoo.so.1\n/usr/lib/foo/libcore.so\n/usr/lib/foo/plug.so\n\
             /usr/share/doc/foo/changelog.gz\n/usr/share/foo/data/link\n/usr/share/foo/config.bin\n\
             /usr/lib/modules/7.2/vmlinuz\n/usr/share/foo/templates/a.ott\n",
        ),
        (
            "var/lib/dpkg/info/python3-bar.list",
            "/usr/share/foo/data/other\n",
        ),
        ("usr/share/foo/data/a", "BIG"),
        ("usr/share/foo/data/deep/b", "HALF"),
        ("usr/share/foo/data/c", "HALF"),
        ("usr/share/foo/data/link", "-> a"),
        ("usr/share/foo/data/other", "x"),
        ("usr/share/foo/small", "x"),
        ("usr/share/foo/templates/a.ott", "BIG"),
        ("usr/lib/libfoo.so.1", "BIG"),
        ("usr/lib/foo/libcore.so", "BIG"),
        ("usr/lib/foo/plug.so", "BIG"),
        ("usr/lib/modules/7.2/vmlinuz", "BIG"),
        ("usr/share/foo/config.bin", "BIG"),
        ("usr/share/doc/foo/changelog.gz", "BIG"),
    ]);
    let owners = owners(&fixture);
    for (path, owner) in [
        ("usr/share/foo/data/a", "foo:usr/share/foo/data/a"),
        ("usr/share/foo/data/deep/b", "foo:usr/share/foo/data"),
        ("usr/share/foo/data/c", "foo:usr/share/foo/data"),
        ("usr/share/foo/data/link", "foo"),
        ("usr/share/foo/data/other", "python3-bar"),
        ("usr/share/foo/small", "foo"),
        ("usr/share/foo/templates/a.ott", "foo"),
        ("usr/lib/libfoo.so.1", "foo"),
        ("usr/lib/foo/libcore.so", "foo"),
        ("usr/lib/foo/plug.so", "foo:usr/lib/foo/plug.so"),
        ("usr/lib/modules/7.2/vmlinuz", "foo"),
        ("usr/share/foo/config.bin", "foo"),
        ("usr/share/doc/foo/changelog.gz", "foo"),
    ] {
        assert_eq!(owners[path], owner, "{path}");
    }
}

/// Each update of a browser is another release: not even its pictures stay.
#[test]
fn a_browser_has_no_parts() {
    let status = STATUS.replace("Source: foo", "Source: firefox-esr");
    assert_ne!(status, STATUS);
    let fixture = fixture(&[
        ("var/lib/dpkg/status", &status),
        ("var/lib/dpkg/info/libfoo1.list", "/usr/share/foo/data/a\n"),
        ("usr/share/foo/data/a", "BIG"),
    ]);
    assert_eq!(owners(&fixture)["usr/share/foo/data/a"], "firefox-esr");
}

/// Data, modules and plug-ins of the same size and number.
#[test]
fn what_updates_are_about_is_spared_less() {
    let fixture = fixture(&[
        ("var/lib/dpkg/status", STATUS),
        (
            "var/lib/dpkg/info/libfoo1.list",
            "/usr/share/foo/data/a.h\n/usr/share/foo/data/b.pl\n/usr/share/foo/tables/a\n\
             /usr/lib/foo/py/a.py\n/usr/lib/foo/py/b.py\n/usr/lib/foo/so/a.so\n/usr/lib/foo/so/b.so\n",
        ),
        ("usr/share/foo/data/a.h", "HALF"),
        ("usr/share/foo/data/b.pl", "HALF"),
        ("usr/share/foo/tables/a", "BIG"),
        ("usr/lib/foo/py/a.py", "HALF"),
        ("usr/lib/foo/py/b.py", "HALF"),
        ("usr/lib/foo/so/a.so", "HALF"),
        ("usr/lib/foo/so/b.so", "HALF"),
    ]);
    let ownership = ownership(&fixture);
    let chance = |name: &str| {
        let component = ownership.components().iter().find(|c| c.name == name);
        component.unwrap().chance
    };
    let chances = [
        chance("foo:usr/share/foo/tables/a"),
        chance("foo:usr/share/foo/data"),
        chance("foo:usr/lib/foo/py"),
        chance("foo:usr/lib/foo/so"),
        chance("foo"),
    ];
    let is_steep = chances.is_sorted_by(|less, more| less * 1.5 < *more);
    assert!(is_steep && chances[1] * 10.0 < chances[2], "{chances:?}");
}

#[test]
fn a_tree_without_packages_has_owners_too() {
    let fixture = fixture(&[("usr/bin/a", "x"), ("big", "BIG")]);
    let owners = owners(&fixture);
    assert_eq!(owners["usr/bin/a"], "rest/files");
    assert_eq!(owners["big"], "big/big");
}

#[test]
fn intervals_are_days_or_words() {
    for (text, days) in [
        ("daily", Some(1.0)),
        ("yearly", Some(365.0)),
        ("3", Some(3.0)),
        ("0", None),
        ("-1", None),
        ("inf", None),
        ("often", None),
    ] {
        assert_eq!(interval_days(text), days, "{text}");
    }
}

/// A tree in which directories, named with a slash at the end, and files have hints of how often
/// they change.
fn with_intervals(entries: &[(&str, &str)]) -> Ownership {
    let mut builder = TreeBuilder::new(Metadata::directory(0o755));
    let mut known: HashMap<&str, EntryId> = HashMap::from([("", EntryId::ROOT)]);
    for (path, days) in entries {
        let (kind, plain) = match path.strip_suffix('/') {
            Some(plain) => (Kind::Directory, plain),
            None => (Kind::Regular, *path),
        };
        let (parent, name) = plain.rsplit_once('/').unwrap_or(("", plain));
        let hint = (b"user.update-interval".to_vec(), days.as_bytes().to_vec());
        let metadata = Metadata {
            kind,
            size: 1,
            xattrs: vec![hint],
            ..Metadata::directory(0o755)
        };
        let id = builder.push(known[parent], name, "", metadata).unwrap();
        known.insert(plain, id);
    }
    ownership(&Fixture {
        tree: builder.finish().0,
        texts: HashMap::new(),
    })
}

/// Without `user.component` it did nothing.
#[test]
fn an_interval_alone_is_for_the_component_of_the_path() {
    let ownership = with_intervals(&[
        ("opt/", ""),
        ("opt/one/", "7"),
        ("opt/one/a", ""),
        ("opt/one/b", "3"),
        ("opt/one/c", "30"),
        ("opt/other/", "often"),
        ("opt/other/a", ""),
        ("srv/", "daily"),
        ("srv/a", ""),
    ]);
    let found = |name: &str| {
        let mut all = ownership.components().iter();
        let component = all.find(|c| c.name == name).unwrap();
        (component.interval, component.chance)
    };
    assert_eq!(found("local/opt/one"), (Some(3.0), chance_of_days(3.0)));
    assert_eq!(found("local/opt/other").0, None);
    assert_eq!(found("rest/files"), (Some(1.0), chance_of_days(1.0)));
}

/// Of a directory with several components an interval alone says nothing.
#[test]
fn an_interval_alone_for_several_components_is_ignored() {
    let ownership = with_intervals(&[
        ("opt/", "1"),
        ("opt/one/", ""),
        ("opt/one/a", ""),
        ("opt/two/", ""),
        ("opt/two/a", ""),
    ]);
    let components = ownership.components();
    assert!(components.iter().any(|c| c.name == "local/opt/two"));
    assert!(components.iter().all(|c| c.interval.is_none()));
}

#[test]
fn a_hint_on_a_directory_is_for_all_below_it() {
    let mut builder = TreeBuilder::new(Metadata::directory(0o755));
    let hinted = |component: &str| Metadata {
        xattrs: vec![(b"user.component".to_vec(), component.as_bytes().to_vec())],
        ..Metadata::directory(0o755)
    };
    let outer = builder
        .push(EntryId::ROOT, "opt", "", hinted("outer"))
        .unwrap();
    let inner = builder.push(outer, "app", "", hinted("inner")).unwrap();
    for (parent, name) in [(outer, "a"), (inner, "b"), (EntryId::ROOT, "c")] {
        let metadata = Metadata::directory(0o755);
        builder.push(parent, name, "", metadata).unwrap();
    }
    let fixture = Fixture {
        tree: builder.finish().0,
        texts: HashMap::new(),
    };
    let owners = owners(&fixture);
    for (path, owner) in [
        ("opt/a", "user/outer"),
        ("opt/app/b", "user/inner"),
        ("c", "rest/files"),
    ] {
        assert_eq!(owners[path], owner, "{path}");
    }
}
