//! Any tree in, the same tree out: small random trees with nasty names and a random package
//! database over them, in both formats and any number of layers. The cases are the same in every
//! run.

use std::collections::BTreeMap;
use std::path::Path;

use crate::common::{
    Rootfs, apply, check_layers, differences, is_root, read_image, run, scratch, wanted,
};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

#[derive(Debug, Clone)]
enum Kind {
    Directory,
    File(Vec<u8>),
    Link(String),
    /// A hard link to one of the files before it.
    HardLink(usize),
}

#[derive(Debug, Clone)]
struct Entry {
    /// Chooses one of the directories before it.
    parent: usize,
    name: String,
    kind: Kind,
    mode: u32,
    owner: (u32, u32),
    xattrs: BTreeMap<String, Vec<u8>>,
}

fn nasty() -> impl Strategy<Value = String> {
    let characters = "ab.- é\u{30}\u{151}\u{1F600}\n\\=\"'%~:,\u{7f}\u{1}*@"
        .chars()
        .collect::<Vec<_>>();
    let short = prop::collection::vec(prop::sample::select(characters), 1..6);
    let short = short.prop_map(|characters| characters.into_iter().collect::<String>());
    let long = (90..=255usize).prop_map(|len| "n".repeat(len));
    let long_unicode = (40..=127usize).prop_map(|len| "ü".repeat(len));
    prop_oneof![8 => short, 1 => long, 1 => long_unicode]
}

fn name() -> impl Strategy<Value = String> {
    nasty().prop_filter("no name of a file", |name| {
        name != "." && name != ".." && !name.starts_with(".wh.")
    })
}

/// Few different contents, so that some files are equal.
fn content() -> impl Strategy<Value = Vec<u8>> {
    let any_size = (0..5000usize, 0..4u8).prop_map(|(len, byte)| vec![byte; len]);
    let few = prop::sample::select(vec![0, 1, 511, 512, 513, 1024]);
    prop_oneof![any_size, few.prop_map(|len| vec![b'x'; len])]
}

fn entry() -> impl Strategy<Value = Entry> {
    const USUAL: [&str; 9] = [
        "usr", "etc", "opt", "tmp", "sysroot", "boot", "bin", "home", "srv",
    ];
    let kind = prop_oneof![
        3 => (name(), Just(Kind::Directory)),
        2 => (prop::sample::select(USUAL.map(str::to_owned).to_vec()), Just(Kind::Directory)),
        6 => (name(), content().prop_map(Kind::File)),
        2 => (name(), nasty().prop_map(Kind::Link)),
        2 => (name(), any::<usize>().prop_map(Kind::HardLink)),
    ];
    let id = || {
        prop_oneof![
            Just(0u32),
            Just(1000),
            Just(3_000_000),
            0..=4_294_967_294u32
        ]
    };
    let value = prop::collection::vec(any::<u8>(), 0..20);
    let xattrs = prop::collection::btree_map("user\\.[a-c=é]{1,2}", value, 0..3);
    let xattrs = xattrs.prop_map(|mut xattrs: BTreeMap<String, _>| {
        // Such a name is refused, which is tested elsewhere.
        xattrs.retain(|name, _| !name.contains('='));
        xattrs
    });
    (any::<usize>(), kind, 0..=0o7777u32, (id(), id()), xattrs).prop_map(
        |(parent, (name, kind), mode, owner, xattrs)| Entry {
            parent,
            name,
            kind,
            mode,
            owner,
            xattrs,
        },
    )
}

/// Makes the tree; an entry whose place is taken is left out. Gives the paths.
fn make(rootfs: &Rootfs, entries: &[Entry]) -> Vec<String> {
    let mut directories = vec![String::new()];
    let (mut files, mut paths) = (Vec::new(), Vec::new());
    for entry in entries {
        let parent = &directories[entry.parent % directories.len()];
        let path = Path::new(parent).join(&entry.name);
        let path = path.to_str().unwrap().to_owned();
        let second_etc = entry.name == "etc" && parent == "usr";
        if second_etc || path.len() > 3000 || rootfs.at(&path).symlink_metadata().is_ok() {
            continue;
        }
        match &entry.kind {
            Kind::Directory => {
                rootfs.dir(&path);
                directories.push(path.clone());
            }
            Kind::File(content) => {
                rootfs.file(&path, content);
                files.push(path.clone());
            }
            Kind::Link(target) => _ = rootfs.link(&path, target),
            Kind::HardLink(_) if files.is_empty() => continue,
            Kind::HardLink(first) => {
                rootfs.hard_link(&path, &files[first % files.len()]);
            }
        }
        rootfs.owner(&path, entry.owner.0, entry.owner.1);
        if !matches!(entry.kind, Kind::Link(_)) {
            for (name, value) in &entry.xattrs {
                rootfs.xattr(&path, name, value);
            }
            // What the owner may not read only root can.
            let readable = match (&entry.kind, is_root()) {
                (_, true) => 0,
                (Kind::Directory, false) => 0o700,
                _ => 0o600,
            };
            rootfs.mode(&path, entry.mode | readable);
        }
        paths.push(path);
    }
    paths
}

/// Packages that share sources, versions and paths, as real ones do now and then.
fn packages(rootfs: &Rootfs, paths: &[String], owners: &[usize]) {
    const NAMES: [&str; 5] = ["liba1", "a", "b", "c-data", "empty"];
    const SOURCES: [&str; 5] = ["a", "a", "b (1.0)", "c", "empty"];
    let mut lists: [Vec<&str>; 5] = Default::default();
    for (path, owner) in paths.iter().zip(owners) {
        // Neither dpkg nor we know a way to write such a path.
        if *owner < 5 && !path.contains('\n') {
            lists[*owner].push(path);
        }
    }
    let versions = ["1-1", "1-1", "2:2.0+deb13u4", "3", "0"];
    let all: Vec<_> = (0..5)
        .map(|n| (NAMES[n], SOURCES[n], versions[n], lists[n].as_slice()))
        .collect();
    rootfs.packages(&all);
}

#[test]
fn any_tree_in_the_same_tree_out() {
    let config = Config {
        cases: 64,
        failure_persistence: None,
        max_shrink_iters: 200,
        ..Config::default()
    };
    let random = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let strategy = (
        prop::collection::vec(entry(), 0..40),
        prop::collection::vec(0..8usize, 40),
        1..=6usize,
        any::<bool>(),
    );
    let outcome = TestRunner::new_with_rng(config, random).run(
        &strategy,
        |(entries, owners, layers, with_database)| {
            let dir = scratch();
            let rootfs = Rootfs::new(dir.path().join("rootfs"));
            let paths = make(&rootfs, &entries);
            if with_database {
                packages(&rootfs, &paths, &owners);
            }
            rootfs.settle();
            let mut commits = Vec::new();
            for (format, encapsulated) in [("plain", false), ("ostree", true)] {
                let layout = dir.path().join(format);
                let output = format!("oci:{}", layout.display());
                let layers = layers.to_string();
                let image = [
                    "--format",
                    format,
                    "--max-layers",
                    &layers,
                    "--arch",
                    "amd64",
                ];
                let base = ["build", "-q", "--rootfs", rootfs.str(), "-o", &output];
                run(&[&base[..], &image].concat());
                let image = read_image(&layout);
                check_layers(&image, encapsulated, 2);
                prop_assert!(image.layers.len() <= layers.parse().unwrap());
                let wanted = wanted(&rootfs.path, encapsulated);
                prop_assert_eq!(differences(&apply(&image), &wanted), "");
                commits.push(match encapsulated {
                    true => image.config["config"]["Labels"]["ostree.commit"].clone(),
                    false => image.manifest["annotations"]["apt-ostree-helper.commit"].clone(),
                });
            }
            prop_assert_eq!(commits[0].as_str().map(str::len), Some(64));
            prop_assert_eq!(&commits[0], &commits[1]);
            Ok(())
        },
    );
    if let Err(failure) = outcome {
        panic!("{failure}");
    }
}
