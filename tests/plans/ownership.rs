//! Who owns the files of real root filesystems, where `AOH_ROOTFS_*` name them: what dpkg itself
//! says of every path that it knows, and how much nobody owns.

use std::collections::{HashMap, HashSet};
use std::num::NonZeroUsize;
use std::process::Command;

use apt_ostree_helper::component::{Ownership, TreeFiles};
use apt_ostree_helper::dpkg::Database;
use apt_ostree_helper::tree::{self, EntryId, Filter, Kind};
use camino::Utf8PathBuf;

fn rootfs() -> Vec<Utf8PathBuf> {
    let named = |(name, path): (String, String)| name.starts_with("AOH_ROOTFS_").then_some(path);
    std::env::vars()
        .filter_map(named)
        .map(Utf8PathBuf::from)
        .collect()
}

/// What `dpkg -S` says of all paths: each with the packages that have it, and those diverted from
/// it.
fn said_by_dpkg(rootfs: &Utf8PathBuf) -> (Vec<(String, Vec<String>)>, HashSet<String>) {
    let admin_dir = format!("--admindir={rootfs}/var/lib/dpkg");
    let done = Command::new("dpkg-query")
        .args([&admin_dir, "-S", "*"])
        .output()
        .unwrap();
    assert!(done.status.success(), "{done:?}");
    let (mut owned, mut diverted) = (Vec::new(), HashSet::new());
    for line in String::from_utf8(done.stdout).unwrap().lines() {
        let (packages, path) = line.split_once(": ").unwrap();
        if packages.starts_with("diversion by ") {
            diverted.insert(path.to_owned());
            continue;
        }
        let packages = packages
            .split(", ")
            .map(|name| name.split(':').next().unwrap().to_owned());
        owned.push((path.to_owned(), packages.collect()));
    }
    (owned, diverted)
}

#[test]
fn owners_are_those_that_dpkg_names() {
    for rootfs in rootfs() {
        let (tree, directory) = tree::scan(&rootfs, &Filter::default(), NonZeroUsize::MIN).unwrap();
        let files = TreeFiles {
            tree: &tree,
            contents: &directory,
        };
        let database = Database::load(&files, None).unwrap().unwrap();
        let ownership = Ownership::of_tree(&tree, Some(&database), &files, None).unwrap();
        let component = |id: EntryId| &ownership.components()[ownership.owner(id).index()].name;
        let source: HashMap<&str, &str> = database
            .packages
            .iter()
            .map(|package| (package.name(), package.source()))
            .collect();

        let (said, diverted) = said_by_dpkg(&rootfs);
        let mut compared = 0;
        for (path, packages) in &said {
            let Some(id) = tree.locate(path) else {
                continue;
            };
            if tree.entry(id).is_dir() || diverted.contains(path) {
                continue;
            }
            let ours = component(id).split(':').next().unwrap();
            let theirs: Vec<&str> = packages
                .iter()
                .map(|package| source[package.as_str()])
                .collect();
            assert!(
                theirs.contains(&ours),
                "{path} of {rootfs}: {ours}, not {theirs:?}"
            );
            compared += 1;
        }
        assert!(compared > 5000, "{compared} paths of {rootfs}");

        let files = || {
            tree.ids()
                .filter(|id| tree.entry(*id).kind == Kind::Regular)
        };
        let size = |id: EntryId| tree.entry(id).size;
        let all: u64 = files().map(size).sum();
        let rest: u64 = files()
            .filter(|id| component(*id) == "rest/files")
            .map(size)
            .sum();
        assert!(
            rest * 100 <= all,
            "{rest} of {all} bytes of {rootfs} are nobody's"
        );
    }
}
