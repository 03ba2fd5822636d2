//! Images read back without the code under test: layers member by member, applied, compared.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::Path;

use serde_json::Value;

use super::read_rootfs;

/// Extended attributes by name.
pub type Xattrs = BTreeMap<String, Vec<u8>>;

/// A member of a layer, as the `tar` crate reads it.
#[derive(Debug, Clone, PartialEq)]
pub struct Member {
    /// The name as it is stored.
    pub raw: String,
    /// The name without a trailing slash; empty for the root.
    pub path: String,
    pub kind: tar::EntryType,
    pub mode: u32,
    pub uid: u64,
    pub gid: u64,
    pub mtime: u64,
    /// Target of a link of either kind.
    pub link: String,
    pub content: Vec<u8>,
    pub xattrs: Xattrs,
}

/// The members of an uncompressed layer. The records of the dialect (GNU long names, PAX for
/// attributes) are put together here: the `tar` crate takes no newline in a PAX value.
pub fn members(layer: impl Read) -> Vec<Member> {
    let mut archive = tar::Archive::new(layer);
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let long = |record: &[u8]| text(record.strip_suffix(b"\0").unwrap());
    let (mut name, mut link, mut xattrs) = (None, None, Xattrs::new());
    let mut members = Vec::new();
    for entry in archive.entries().unwrap().raw(true) {
        let mut entry = entry.unwrap();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        let header = entry.header();
        match header.entry_type() {
            tar::EntryType::GNULongName => name = Some(long(&content)),
            tar::EntryType::GNULongLink => link = Some(long(&content)),
            tar::EntryType::XHeader => xattrs = pax_xattrs(&content),
            kind => {
                let raw = name.take().unwrap_or_else(|| text(&header.path_bytes()));
                let path = raw.strip_suffix('/').unwrap_or(&raw);
                // A long name may be cut within a character in the header.
                let short_link = || header.link_name_bytes().map(|link| text(&link));
                members.push(Member {
                    path: if path == "." { "" } else { path }.to_owned(),
                    kind,
                    mode: header.mode().unwrap(),
                    uid: header.uid().unwrap(),
                    gid: header.gid().unwrap(),
                    mtime: header.mtime().unwrap(),
                    link: link.take().or_else(short_link).unwrap_or_default(),
                    raw,
                    content,
                    xattrs: std::mem::take(&mut xattrs),
                });
            }
        }
    }
    members
}

fn pax_xattrs(mut records: &[u8]) -> Xattrs {
    let mut xattrs = Xattrs::new();
    while let Some(space) = records.iter().position(|byte| *byte == b' ') {
        let len = std::str::from_utf8(&records[..space]).unwrap();
        let (record, rest) = records.split_at(len.parse().unwrap());
        let record = record[space + 1..].strip_suffix(b"\n").unwrap();
        let equals = record.iter().position(|byte| *byte == b'=').unwrap();
        let name = std::str::from_utf8(&record[..equals]).unwrap();
        let name = name.strip_prefix("SCHILY.xattr.");
        let name = name.unwrap_or_else(|| panic!("PAX record {record:?}"));
        xattrs.insert(name.to_owned(), record[equals + 1..].to_vec());
        records = rest;
    }
    assert!(records.is_empty());
    xattrs
}

/// An image of a layout, read whole.
#[derive(Debug)]
pub struct Image {
    pub digest: String,
    pub manifest: Value,
    pub config: Value,
    pub layers: Vec<Vec<Member>>,
}

/// A blob of a layout, whose content must hash to its name.
pub fn blob(layout: &Path, digest: &Value) -> Vec<u8> {
    let hex = digest.as_str().unwrap().strip_prefix("sha256:").unwrap();
    let bytes = fs::read(layout.join("blobs/sha256").join(hex)).unwrap();
    assert_eq!(sha256(&bytes), hex);
    bytes
}

/// The only image of a layout.
pub fn read_image(layout: &Path) -> Image {
    let index: Value =
        serde_json::from_slice(&fs::read(layout.join("index.json")).unwrap()).unwrap();
    let [descriptor] = index["manifests"].as_array().unwrap().as_slice() else {
        panic!("not one image: {index}");
    };
    read_manifest(layout, &descriptor["digest"])
}

/// The image of a layout whose manifest has that digest.
pub fn read_manifest(layout: &Path, digest: &Value) -> Image {
    let manifest: Value = serde_json::from_slice(&blob(layout, digest)).unwrap();
    let config: Value =
        serde_json::from_slice(&blob(layout, &manifest["config"]["digest"])).unwrap();
    let layers = manifest["layers"].as_array().unwrap().iter();
    let layers = layers.map(|layer| {
        let bytes = blob(layout, &layer["digest"]);
        assert_eq!(layer["size"], bytes.len());
        let tar = match layer["mediaType"].as_str().unwrap().rsplit_once('+') {
            Some((_, "gzip")) => {
                let mut tar = Vec::new();
                let mut decoder = flate2::read::GzDecoder::new(bytes.as_slice());
                decoder.read_to_end(&mut tar).unwrap();
                tar
            }
            Some((_, "zstd")) => zstd::decode_all(bytes.as_slice()).unwrap(),
            _ => bytes,
        };
        (format!("sha256:{}", sha256(&tar)), members(tar.as_slice()))
    });
    let (diff_ids, layers): (Vec<String>, Vec<_>) = layers.unzip();
    assert_eq!(config["rootfs"]["diff_ids"], serde_json::json!(diff_ids));
    Image {
        digest: digest.as_str().unwrap().to_owned(),
        manifest,
        config,
        layers,
    }
}

/// SHA-256 in hexadecimal.
pub fn sha256(bytes: &[u8]) -> String {
    use sha2::{Digest, Sha256};
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// A path of a file system: kind (`d`, `f` or `l`), mode (0 for links), owner, group, checksum of
/// the content or target, attributes.
pub type Node = (char, u32, u64, u64, String, Xattrs);

/// A file system by paths; the root is the empty path.
pub type Nodes = BTreeMap<String, Node>;

/// What a runtime has after it applied all layers. What is below `sysroot/ostree` is left out.
pub fn apply(image: &Image) -> Nodes {
    let mut nodes = Nodes::new();
    for member in image.layers.iter().flatten() {
        let Member { mode, uid, gid, .. } = *member;
        let (parent, name) = member.path.rsplit_once('/').unwrap_or(("", &member.path));
        let slash = if parent.is_empty() { "" } else { "/" };
        let hidden = name.strip_prefix(".wh.");
        let hidden = hidden.map(|name| format!("{parent}{slash}{name}"));
        // What is not a directory replaces one with all that is in it.
        if let Some(gone) = hidden
            .as_ref()
            .or((!member.kind.is_dir()).then_some(&member.path))
        {
            let below = format!("{gone}/");
            let paths = nodes.range(below.clone()..).map(|(path, _)| path);
            let paths = paths.take_while(|path| path.starts_with(&below));
            for path in paths.cloned().collect::<Vec<String>>() {
                nodes.remove(&path);
            }
        }
        if let Some(hidden) = hidden {
            nodes.remove(&hidden);
            continue;
        }
        let xattrs = member.xattrs.clone();
        let node = match member.kind {
            tar::EntryType::Directory => ('d', mode, uid, gid, String::new(), xattrs),
            tar::EntryType::Symlink => ('l', 0, uid, gid, member.link.clone(), xattrs),
            tar::EntryType::Regular => ('f', mode, uid, gid, sha256(&member.content), xattrs),
            tar::EntryType::Link => {
                let target = nodes.get(&member.link);
                let node = target
                    .unwrap_or_else(|| panic!("dangling: {member:?}"))
                    .clone();
                let permissions = if node.0 == 'l' { 0 } else { mode };
                assert_eq!(
                    (node.1, node.2, node.3),
                    (permissions, uid, gid),
                    "{}",
                    member.path
                );
                node
            }
            other => panic!("{}: {other:?}", member.path),
        };
        nodes.insert(member.path.clone(), node);
    }
    nodes.retain(|path, _| path != "sysroot/ostree" && !path.starts_with("sysroot/ostree/"));
    nodes
}

/// The first differences, one a line; empty when there are none.
pub fn differences(got: &Nodes, wanted: &Nodes) -> String {
    let paths: std::collections::BTreeSet<_> = got.keys().chain(wanted.keys()).collect();
    let differing = paths
        .into_iter()
        .filter(|path| got.get(*path) != wanted.get(*path));
    let line = |path: &String| {
        format!(
            "{path:?}: {:?}, not {:?}\n",
            got.get(path),
            wanted.get(path)
        )
    };
    differing.take(10).map(line).collect()
}

/// What an image of a rootfs must give when it is applied, with what the encapsulated format adds.
pub fn wanted(rootfs: &Path, encapsulated: bool) -> Nodes {
    let mut nodes = read_rootfs(rootfs);
    if encapsulated {
        let directory = |mode| ('d', mode, 0, 0, String::new(), Xattrs::new());
        nodes.entry("sysroot".into()).or_insert(directory(0o755));
        if nodes.entry("var".into()).or_insert(directory(0o755)).0 == 'd' {
            nodes.entry("var/tmp".into()).or_insert(directory(0o1777));
        }
    }
    nodes
}

/// What holds for the layers of every image, whatever is in them.
pub fn check_layers(image: &Image, encapsulated: bool, version: u32) {
    let mut homes: BTreeMap<&str, usize> = BTreeMap::new();
    let mut directories: BTreeMap<&str, &Member> = BTreeMap::new();
    for (at, layer) in image.layers.iter().enumerate() {
        assert!(!layer.is_empty(), "layer {at} is empty");
        let mut seen: BTreeMap<&str, &Member> = BTreeMap::new();
        let mut previous: Option<&Member> = None;
        for member in layer {
            let (raw, path) = (&member.raw, member.path.as_str());
            let clean = raw == "./" || !(raw.starts_with("./") || raw.starts_with('/'));
            assert!(clean && !raw.split('/').any(|part| part == ".."), "{raw}");
            assert!(!encapsulated || member.mtime == 0, "{member:?}");
            let is_dir = member.kind.is_dir();
            assert_eq!(is_dir, raw.ends_with('/'), "{member:?}");
            if is_dir {
                let known = directories.entry(path).or_insert(member);
                assert_eq!(*known, member, "other metadata in layer {at}");
            } else if !path.starts_with("sysroot/ostree/") || path.ends_with(".file") {
                let before = homes.insert(path, at);
                // Equal links and small files of two packages are an object in the layer of each.
                let is_small_object = path.ends_with(".file") && member.content.len() < 1 << 20;
                assert!(
                    before.is_none() || is_small_object,
                    "{path} again in layer {at}"
                );
            }
            let parent = Path::new(path).parent().map(|p| p.to_str().unwrap());
            if version == 2 || at == 0 || path.starts_with("sysroot/") {
                if let Some(parent) = parent {
                    assert!(
                        seen.get(parent).is_some_and(|p| p.kind.is_dir()),
                        "{path} without {parent}/ before it in layer {at}"
                    );
                }
            }
            if member.kind == tar::EntryType::Link {
                assert!(
                    seen.contains_key(member.link.as_str()),
                    "{path}: link to {}",
                    member.link
                );
            }
            if path.starts_with("sysroot/ostree/") && path.ends_with(".file") {
                let attributes = format!("{path}-xattrs-link");
                assert_eq!(previous.map(|m| m.path.as_str()), Some(&*attributes));
            }
            let again = seen.insert(path, member);
            assert!(again.is_none(), "{path} twice in layer {at}");
            previous = Some(member);
        }
    }
    let layers = image.manifest["layers"].as_array().unwrap();
    let digests: std::collections::BTreeSet<_> =
        layers.iter().map(|l| l["digest"].as_str()).collect();
    assert_eq!(digests.len(), layers.len(), "a layer stands twice");
    let history = image.config["history"].as_array().unwrap();
    assert_eq!(history.len(), layers.len());
}
