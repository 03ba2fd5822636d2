//! Any layers in, the file system that they mean out: random changes in random order, on nothing or
//! on a commit, against a model that knows nothing of archives. The cases are the same in every
//! run.

use std::fs;
use std::path::Path;

use crate::common::{
    EMPTIED, ImageWriter, Node, Nodes, Tar, What, Xattrs, differences, gzip, has, is_root, odd,
    ostree, read_tree, repository, run, scratch, sha256,
};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

#[derive(Debug, Clone)]
enum Change {
    Directory,
    File(Vec<u8>),
    Link(String),
    /// A hard link to one of the files that are there when all else is done.
    HardLink(usize),
    Whiteout,
    Opaque,
}

/// What a layer says of one path.
#[derive(Debug, Clone)]
struct Entry {
    path: String,
    change: Change,
    mode: u32,
    owner: (u32, u32),
    xattrs: Xattrs,
    /// Chooses the place of a whiteout among the members.
    place: usize,
}

/// Few names, so that layers meet.
fn path() -> impl Strategy<Value = String> {
    let top = prop::sample::select(vec!["usr", "etc", "opt", "run", "a", "b"]);
    let below = prop::sample::select(vec!["a", "b", "c", "é"]);
    (top, prop::collection::vec(below, 0..3))
        .prop_map(|(top, below)| [&[top], &below[..]].concat().join("/"))
}

fn entry() -> impl Strategy<Value = Entry> {
    let content = prop::sample::select(vec![0, 1, 511, 513, 140_000usize]);
    let content = (content, 0..3u8).prop_map(|(len, byte)| vec![byte; len]);
    let target = prop::sample::select(vec!["a", "../b", "/", "usr//./x"]);
    let change = prop_oneof![
        3 => Just(Change::Directory),
        5 => content.prop_map(Change::File),
        2 => target.prop_map(|target| Change::Link(target.to_owned())),
        2 => any::<usize>().prop_map(Change::HardLink),
        3 => Just(Change::Whiteout),
        2 => Just(Change::Opaque),
    ];
    let path = prop_oneof![1 => Just(String::new()), 19 => path()];
    let id = || prop::sample::select(vec![0u32, 1000, 3_000_000]);
    let value = prop::collection::vec(any::<u8>(), 0..4);
    // One at most: `Tar` writes a set of PAX records for each.
    let xattrs = prop::collection::btree_map("user\\.[ab]", value, 0..2);
    (
        path,
        change,
        0..=0o7777u32,
        (id(), id()),
        xattrs,
        any::<usize>(),
    )
        .prop_map(|(path, change, mode, owner, xattrs, place)| Entry {
            path,
            change,
            mode,
            owner,
            xattrs,
            place,
        })
}

fn directory(mode: u32) -> Node {
    ('d', mode, 0, 0, String::new(), Xattrs::new())
}

fn is_below(path: &str, directory: &str) -> bool {
    let rest = path.strip_prefix(directory);
    rest.is_some_and(|rest| rest.starts_with('/') || directory.is_empty() && !rest.is_empty())
}

fn parents(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').map(|(at, _)| &path[..at])
}

/// A path whose content no commit has.
fn is_left_out(path: &str) -> bool {
    path.split_once('/')
        .is_some_and(|(top, _)| EMPTIED.contains(&top))
}

/// Puts an entry into a file system, with the directories that it needs.
fn put(nodes: &mut Nodes, path: &str, node: Node) {
    for parent in parents(path) {
        nodes
            .entry(parent.to_owned())
            .or_insert_with(|| directory(0o755));
    }
    if node.0 != 'd' {
        nodes.retain(|other, _| !is_below(other, path));
    }
    nodes.insert(path.to_owned(), node);
}

/// A layer that makes sense on what is below it, and what it makes of that.
struct Layer {
    members: Vec<(Entry, Option<String>)>,
    whiteouts: Vec<Entry>,
    /// What whiteouts hide stands in the way of what the layer brings.
    hide_first: bool,
    result: Nodes,
}

impl Layer {
    /// Takes of `entries` those that fit. Whiteouts are about lower layers, wherever they stand.
    fn new(lower: &Nodes, entries: &[Entry]) -> Self {
        let mut layer = Self {
            members: Vec::new(),
            whiteouts: Vec::new(),
            hide_first: false,
            result: lower.clone(),
        };
        for entry in entries {
            let (path, nodes) = (entry.path.as_str(), &mut layer.result);
            match entry.change {
                Change::Whiteout if path.is_empty() => continue,
                Change::Whiteout => nodes.retain(|p, _| p != path && !is_below(p, path)),
                Change::Opaque => nodes.retain(|p, _| !is_below(p, path)),
                _ => continue,
            }
            layer.whiteouts.push(entry.clone());
        }
        let is_hard_link = |entry: &&Entry| matches!(entry.change, Change::HardLink(_));
        let (hard_links, mut others): (Vec<_>, Vec<_>) = entries.iter().partition(is_hard_link);
        others.sort_by(|a, b| a.path.cmp(&b.path));
        for entry in others.into_iter().chain(hard_links) {
            layer.add(entry, lower);
        }
        layer
    }

    fn add(&mut self, entry: &Entry, lower: &Nodes) {
        let path = entry.path.as_str();
        let brought = |path: &str| self.members.iter().find(|(e, _)| e.path == path);
        let is_directory = matches!(entry.change, Change::Directory);
        let fits = brought(path).is_none()
            && (is_directory
                || !(["", "usr"].contains(&path)
                    || self.members.iter().any(|(e, _)| is_below(&e.path, path))));
        let is_way = |parent: &str| self.result.get(parent).is_none_or(|node| node.0 == 'd');
        if !fits || !parents(path).all(is_way) {
            return;
        }
        let mut target = None;
        // libostree takes an attribute without a value for none.
        let xattrs = entry.xattrs.clone().into_iter();
        let xattrs = || xattrs.filter(|(_, value)| !value.is_empty()).collect();
        let (mode, uid, gid) = (entry.mode, entry.owner.0.into(), entry.owner.1.into());
        let node = match &entry.change {
            Change::Directory => ('d', mode, uid, gid, String::new(), xattrs()),
            Change::File(content) => ('f', mode, uid, gid, sha256(content), xattrs()),
            Change::Link(target) => ('l', 0, uid, gid, target.clone(), Xattrs::new()),
            Change::HardLink(chosen) => {
                let files = self.result.iter();
                let files = files.filter(|(p, node)| node.0 != 'd' && !is_below(p, path));
                let files: Vec<_> = files.collect();
                let Some((first, node)) = files.get(chosen % files.len().max(1)) else {
                    return;
                };
                target = Some((*first).clone());
                (*node).clone()
            }
            Change::Whiteout | Change::Opaque => return,
        };
        let in_the_way = |parent: &str| {
            brought(parent).is_none() && lower.get(parent).is_some_and(|node| node.0 != 'd')
        };
        self.hide_first |= parents(path).any(in_the_way);
        put(&mut self.result, path, node);
        self.members.push((entry.clone(), target));
    }

    /// The archive, with the whiteouts anywhere in it.
    fn tar(&self) -> Vec<u8> {
        let count = self.members.len();
        let place = |entry: &Entry| {
            let anywhere = entry.place % (count + 1);
            if self.hide_first { 0 } else { anywhere }
        };
        let mut tar = Tar::default();
        for at in 0..=count {
            for entry in self.whiteouts.iter().filter(|entry| place(entry) == at) {
                let (parent, name) = entry.path.rsplit_once('/').unwrap_or(("", &entry.path));
                let name = match entry.change {
                    Change::Opaque => format!("{}/.wh..wh..opq", entry.path),
                    _ => format!("{parent}/.wh.{name}"),
                };
                tar.add(name.trim_start_matches('/'), What::File(b""));
            }
            let Some((entry, target)) = self.members.get(at) else {
                break;
            };
            if let Change::Directory | Change::File(_) = entry.change {
                for (name, value) in &entry.xattrs {
                    tar.xattr(name, value);
                }
            }
            let owner = (entry.owner.0.into(), entry.owner.1.into());
            let mut name = entry.path.clone();
            let what = match &entry.change {
                Change::Directory => {
                    name = format!("./{name}");
                    What::Dir
                }
                Change::File(content) => What::File(content),
                Change::Link(target) => What::Link(target),
                _ => What::Hard(target.as_deref().unwrap()),
            };
            tar.member(name.as_bytes(), what, entry.mode, owner);
        }
        tar.end()
    }
}

/// A layer as it may be stored.
fn packed(layer: &[u8], how: u8) -> Option<Vec<u8>> {
    match how {
        0 => None,
        1 => Some(zstd::encode_all(layer, 1).unwrap()),
        _ => Some(gzip(layer)),
    }
}

/// A file system with `from` moved to `to`, as `/etc` is in a commit.
fn moved(nodes: Nodes, from: &str, to: &str) -> Nodes {
    let place = |path: String| match path.strip_prefix(from) {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => format!("{to}{rest}"),
        _ => path,
    };
    let nodes = nodes.into_iter();
    nodes.map(|(path, node)| (place(path), node)).collect()
}

fn checkout(dir: &Path, repo: &str) -> Nodes {
    let path = dir.join("checkout");
    ostree(repo, &["checkout", "test", path.to_str().unwrap()]);
    let nodes = read_tree(&path);
    fs::remove_dir_all(&path).unwrap();
    nodes
}

#[test]
fn any_layers_in_the_file_system_that_they_mean_out() {
    if !has("ostree") || !is_root() {
        return;
    }
    let (base, rootfs) = odd();
    let layout = base.path().join("image");
    let output = format!("oci:{}", layout.display());
    run(&["build", "-q", "--rootfs", rootfs.str(), "-o", &output]);
    let encapsulated = ImageWriter::read(&layout);
    let repo = repository(base.path(), "repo", "bare");
    run(&["import", "-q", "--repo", &repo, "-b", "test", &output]);
    let below = moved(checkout(base.path(), &repo), "usr/etc", "etc");

    let config = Config {
        cases: 64,
        failure_persistence: None,
        max_shrink_iters: 300,
        ..Config::default()
    };
    let random = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let layer = (prop::collection::vec(entry(), 1..25), 0..3u8);
    let mode = prop::sample::select(vec!["bare", "bare-user", "archive"]);
    let strategy = (prop::collection::vec(layer, 1..5), mode, 0..4u8);
    let outcome =
        TestRunner::new_with_rng(config, random).run(&strategy, |(layers, mode, derived)| {
            let dir = scratch();
            let (mut image, mut nodes) = match derived {
                0 => (encapsulated.clone(), below.clone()),
                _ => (
                    ImageWriter::plain(Vec::new()),
                    Nodes::from([(String::new(), directory(0o755))]),
                ),
            };
            for (entries, how) in &layers {
                let layer = Layer::new(&nodes, entries);
                let tar = layer.tar();
                image.blobs.push(packed(&tar, *how));
                image.layers.push(tar);
                nodes = layer.result;
            }
            nodes.retain(|path, _| !is_left_out(path));
            if nodes.get("etc").is_some_and(|node| node.0 == 'd') {
                nodes = moved(nodes, "etc", "usr/etc");
                nodes
                    .entry("usr".into())
                    .or_insert_with(|| directory(0o755));
            }
            let image = image.write(&dir.path().join("image"));
            let repo = repository(dir.path(), "repo", mode);
            run(&["import", "-q", "--repo", &repo, "-b", "test", &image]);
            ostree(&repo, &["fsck", "-q"]);
            let found = checkout(dir.path(), &repo);
            prop_assert_eq!(differences(&found, &nodes), "");
            Ok(())
        });
    if let Err(failure) = outcome {
        panic!("{failure}");
    }
}
