//! Layers of another image that stay, byte for byte, below the layers that are written. They need
//! not match the tree in every path: what they lack goes into a layer above them, and what they
//! have in excess is hidden by whiteouts (image-spec, layer.md, "Whiteouts").

use std::collections::{HashMap, HashSet};
use std::io::{self, Read, Write};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use super::assignment::Sharing;
use super::members::{LayerArchive, Source};
use super::merge::{ContentSink, LayerFile, LayerMember, LayerMembers, Merged, WHITEOUT};
use super::nodes::{Node, NodeKind};
use super::unpack::OBJECTS;
use crate::checksum::Checksum;
use crate::limits::Meter;
use crate::oci::{Member, MemberKind};
use crate::ostree::{ContentObjects, content_header_of};
use crate::plan::Usage;
use crate::tree::{EntryId, Kind, Metadata, Tree};

/// Where an encapsulated image has its repository, which stays also where the tree has no such
/// directories: no file of the system, though its files are hard links to what is there.
const REPOSITORY: [&str; 2] = ["sysroot", "sysroot/ostree"];

/// Bytes of a tar header.
const HEADER: u64 = 512;

/// A file of lower layers.
#[derive(Debug, Clone, Copy)]
struct LowerFile {
    /// What tells it apart by all but its time: the name that its object has in a commit.
    object: Checksum,
    /// Hard links of one file have one number.
    number: u64,
}

/// Names files as they pass.
#[derive(Debug, Default)]
struct Namer(u64);

impl ContentSink for Namer {
    type Handle = LowerFile;

    fn file(&mut self, file: &LayerFile<'_>, content: &mut dyn Read) -> Result<LowerFile> {
        let mut hasher = Sha256::new_with_prefix(content_header_of(file.metadata, ""));
        io::copy(content, &mut hasher)?;
        Ok(self.next(hasher))
    }

    fn link(&mut self, metadata: &Metadata, target: &[u8]) -> Result<LowerFile> {
        // A link that no tree can have is equal to none.
        let target = String::from_utf8_lossy(target);
        Ok(self.next(Sha256::new_with_prefix(content_header_of(
            metadata, &target,
        ))))
    }
}

impl Namer {
    fn next(&mut self, hasher: Sha256) -> LowerFile {
        self.0 += 1;
        LowerFile {
            object: Checksum::finish(hasher),
            number: self.0,
        }
    }
}

/// Lower layers as they were read: what each says of its paths.
#[derive(Default)]
pub struct LowerLayers {
    layers: Vec<LayerMembers<LowerFile>>,
    namer: Namer,
    meter: Meter,
}

/// The file system that some of the lower layers make.
struct Below<'a> {
    merged: Merged<'static, LowerFile>,
    /// The layers that it is made of, the lowest first.
    layers: Vec<&'a LayerMembers<LowerFile>>,
}

/// Bytes that content takes in an archive.
fn padded(size: u64) -> u64 {
    size.div_ceil(HEADER).saturating_mul(HEADER)
}

/// What a tree is compared by.
pub struct Compared<'a> {
    /// The tree.
    pub tree: &'a Tree,
    /// The names of its files' objects.
    pub objects: &'a ContentObjects,
    /// What its files share when they are written.
    pub sharing: Sharing,
    /// The time that a file gets, in seconds since the epoch. Its own will do as well.
    pub mtime: &'a dyn Fn(EntryId) -> u64,
}

impl LowerLayers {
    /// Reads the next layer and gives its reader back.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read<R: Read>(&mut self, layer: R) -> Result<R> {
        let (members, layer) = Merged::default().list(layer, &mut self.namer, &mut self.meter)?;
        self.layers.push(members);
        Ok(layer)
    }

    /// Finds what has to be put over the layers that `is_kept` names, to make `compared` of them,
    /// and how much of each is of use then, in bytes of its members, headers and padding counted.
    /// Of no use are files and links that the tree does not have, or has otherwise. Directories
    /// with something in them, whiteouts and the attributes of objects count for nothing.
    ///
    /// # Errors
    /// When a layer cannot be applied: its place is told.
    pub fn overlay(
        &mut self,
        compared: &Compared<'_>,
        is_kept: impl Fn(usize) -> bool,
    ) -> Result<(Overlay, Vec<Usage>)> {
        let mut merged = Merged::default();
        let kept = self
            .layers
            .iter()
            .enumerate()
            .filter(|(at, _)| is_kept(*at));
        let mut layers = Vec::new();
        for (at, members) in kept {
            merged
                .apply_members(members)
                .with_context(|| format!("applying layer {at}"))?;
            layers.push(members);
        }
        merged.keep_links(&mut self.namer)?;
        let below = Below { merged, layers };
        let overlay = below.overlay(compared)?;
        let usage = below.usage(compared.tree, &overlay);
        Ok((overlay, usage))
    }
}

impl Below<'_> {
    fn overlay(&self, compared: &Compared<'_>) -> Result<Overlay> {
        let tree = compared.tree;
        let mut overlay = Overlay {
            below: vec![None; tree.len()],
            directories: Vec::new(),
            gone: Vec::new(),
        };
        // Of each file of the tree the number that all its names have below, if they have one.
        let mut numbers: HashMap<EntryId, Option<u64>> = HashMap::new();
        // Directories that are where a lower layer has something else, and those in them: that
        // hides what still lower layers, such as that of the commit, have there.
        let mut is_covered = vec![false; tree.len()];
        for id in tree.ids() {
            let node = self.node(tree, id);
            let is_equal = node.is_some_and(|node| self.is_equal(compared, id, node));
            let layer = node.map(|node| node.layer.saturating_sub(1));
            overlay.below[id.index()] = layer.filter(|_| is_equal);
            match tree.entry(id).kind {
                Kind::Directory => {
                    let parent = tree.entry(id).parent;
                    let is_replaced = node.is_some_and(|node| !node.is_dir());
                    if is_replaced || id != EntryId::ROOT && is_covered[parent.index()] {
                        is_covered[id.index()] = true;
                    }
                    if node.is_some() && !is_equal || is_covered[id.index()] {
                        overlay.directories.push(id);
                    }
                }
                Kind::Regular => {
                    let number = node.and_then(|node| node.kept).map(|kept| kept.number);
                    let number = number.filter(|_| is_equal);
                    let known = numbers.entry(tree.inode(id)).or_insert(number);
                    if *known != number {
                        *known = None;
                    }
                }
                Kind::Symlink => {}
            }
        }
        if compared.sharing == Sharing::HardLinks {
            overlay.separate(tree, &numbers);
        }
        self.find_gone(compared, &mut overlay)?;
        Ok(overlay)
    }

    fn node(&self, tree: &Tree, id: EntryId) -> Option<&Node<LowerFile>> {
        match id {
            EntryId::ROOT => Some(self.merged.root()),
            _ => self.merged.find(tree.path(id).as_str()),
        }
    }

    /// What the tree uses of each layer.
    fn usage(&self, tree: &Tree, overlay: &Overlay) -> Vec<Usage> {
        let below = tree.ids().filter(|id| overlay.is_below(*id));
        let kept = below.filter_map(|id| self.node(tree, id)?.kept);
        let live: HashSet<u64> = kept.map(|kept| kept.number).collect();
        let layers = self.layers.iter().enumerate();
        let usage = layers.map(|(at, members)| {
            let mut usage = Usage::default();
            for (path, member) in members.iter() {
                let is_live = match member {
                    LayerMember::Directory(_) => self.is_empty_directory(tree, overlay, path),
                    _ => self.is_live(path, member, at + 1, &live),
                };
                let sum = match is_live {
                    Some(true) => &mut usage.live,
                    Some(false) => &mut usage.dead,
                    None => continue,
                };
                let content = match member {
                    LayerMember::File(metadata, _) => padded(metadata.size),
                    _ => 0,
                };
                *sum = sum.saturating_add(HEADER).saturating_add(content);
            }
            usage
        });
        usage.collect()
    }

    /// A directory with something in it comes with that, whatever layer names it. An empty one is
    /// of use where the layers have it as it is.
    fn is_empty_directory(&self, tree: &Tree, overlay: &Overlay, path: &str) -> Option<bool> {
        let id = tree.locate(path)?;
        (overlay.is_below(id) && tree.children(id).is_empty()).then_some(true)
    }

    /// Whether a member of the layer with this number, from 1, is of use where the files with the
    /// numbers in `live` are; none for what only goes with others.
    fn is_live(
        &self,
        path: &str,
        member: &LayerMember<LowerFile>,
        layer: usize,
        live: &HashSet<u64>,
    ) -> Option<bool> {
        let object = path.strip_prefix(OBJECTS);
        match (member, object) {
            (LayerMember::File(_, kept), None) => Some(live.contains(&kept.number)),
            (LayerMember::File(_, kept), Some(object)) => object
                .ends_with(".file")
                .then(|| live.contains(&kept.number)),
            (LayerMember::Symlink(..) | LayerMember::HardLink(_), None) => {
                let node = self.merged.find(path);
                let here = node.filter(|node| node.layer as usize == layer);
                let kept = here.and_then(|node| node.kept);
                Some(kept.is_some_and(|kept| live.contains(&kept.number)))
            }
            (LayerMember::Special(_), _) => Some(false),
            _ => None,
        }
    }

    fn is_equal(&self, compared: &Compared<'_>, id: EntryId, node: &Node<LowerFile>) -> bool {
        let entry = compared.tree.entry(id);
        if node.kind != NodeKind::Known(entry.kind) {
            return false;
        }
        if entry.is_dir() {
            let xattrs = compared.tree.content_xattrs(id);
            let is_same = (node.uid, node.gid, node.permissions)
                == (entry.uid, entry.gid, entry.permissions())
                && node.xattrs.as_slice() == xattrs.as_ref();
            return match compared.sharing {
                // An encapsulated image has all directories in the layer of the commit.
                Sharing::Content => is_same || !node.is_named,
                // A runtime makes up a root that no layer names, as `Merged` does.
                Sharing::HardLinks => is_same && (node.is_named || id == EntryId::ROOT),
            };
        }
        let has_time = || {
            let written = i64::try_from((compared.mtime)(id)).ok();
            node.mtime == entry.mtime || Some(node.mtime) == written
        };
        let object = compared.objects.checksum(id);
        node.kept.is_some_and(|kept| kept.object == object)
            && (compared.sharing == Sharing::Content || has_time())
    }

    /// The uppermost paths that the tree does not have, or has something else at than a directory,
    /// in directories that it has.
    fn find_gone(&self, compared: &Compared<'_>, overlay: &mut Overlay) -> Result<()> {
        let tree = compared.tree;
        let is_encapsulated = compared.sharing == Sharing::Content;
        // The directories on the way that the tree has too, by the length of their paths.
        let mut way = vec![(0, EntryId::ROOT)];
        self.merged.walk(None, |path, node, _| {
            let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
            while way.last().is_some_and(|(len, _)| *len > parent.len()) {
                way.pop();
            }
            // What is in a directory that is gone, or no directory any more, goes with it.
            let Some((_, directory)) = way.last().filter(|(len, _)| *len == parent.len()) else {
                return Ok(());
            };
            match tree.child(*directory, name) {
                Some(id) if node.is_dir() && tree.entry(id).is_dir() => {
                    way.push((path.len(), id));
                }
                // What comes in its place hides it as well, but not every reader knows that.
                Some(_) if node.is_dir() => overlay.gone.push(path.to_owned()),
                Some(_) => {}
                None if is_encapsulated && REPOSITORY.contains(&path) => {}
                None => overlay.gone.push(path.to_owned()),
            }
            Ok(())
        })
    }
}

/// What has to be put over lower layers to make a tree of them.
#[derive(Debug)]
pub struct Overlay {
    /// By entry, which of the lower layers has it as it is, if one does.
    below: Vec<Option<u32>>,
    /// The directories that they have with another owner, mode or attributes, or for which they
    /// have something else.
    directories: Vec<EntryId>,
    /// The paths that they have and the tree has not, or where they have a directory and the tree
    /// something else.
    gone: Vec<String>,
}

impl Overlay {
    /// Whether the lower layers have that entry as it is.
    pub fn is_below(&self, id: EntryId) -> bool {
        self.below[id.index()].is_some()
    }

    /// Which of the lower layers has that entry as it is, if one does: 0 is the lowest.
    pub fn layer_below(&self, id: EntryId) -> Option<usize> {
        self.below[id.index()].map(|layer| layer as usize)
    }

    /// Whether an entry needs no place in a layer above: it is below, or a directory that is mended
    /// with the others.
    pub(super) fn is_done(&self, id: EntryId) -> bool {
        self.is_below(id) || self.directories.binary_search(&id).is_ok()
    }

    /// About how many bytes of `tree` no layer has yet; what is shared counts each time.
    pub fn missing(&self, tree: &Tree, sharing: Sharing) -> u64 {
        let is_missing = |id: &EntryId| {
            !self.is_done(*id)
                && match (tree.entry(*id).kind, sharing) {
                    // The layer of a commit has all directories.
                    (Kind::Directory, Sharing::Content) => false,
                    (Kind::Directory, Sharing::HardLinks) => tree.children(*id).is_empty(),
                    (Kind::Regular | Kind::Symlink, _) => true,
                }
        };
        let size = |id: EntryId| match tree.entry(id).kind {
            Kind::Regular => padded(tree.entry(id).size),
            Kind::Directory | Kind::Symlink => 0,
        };
        let sizes = tree.ids().filter(is_missing).map(size);
        sizes.fold(0, |sum, size| {
            sum.saturating_add(size).saturating_add(HEADER)
        })
    }

    /// Whether there is anything that [`write_mending_layer`] would write.
    pub fn needs_mending(&self) -> bool {
        !self.directories.is_empty() || !self.gone.is_empty()
    }

    /// How many paths of the lower layers are hidden, each with what is below it.
    pub fn hidden(&self) -> usize {
        self.gone.len()
    }

    /// Takes files out of those that are below whose names are not, all of them, one file there and
    /// no other's.
    fn separate(&mut self, tree: &Tree, numbers: &HashMap<EntryId, Option<u64>>) {
        let mut taken: HashSet<u64> = HashSet::new();
        let mut good: HashSet<EntryId> = HashSet::new();
        for id in tree.ids().filter(|id| tree.inode(*id) == *id) {
            let number = numbers.get(&id).copied().flatten();
            if number.is_some_and(|number| taken.insert(number)) {
                good.insert(id);
            }
        }
        for id in tree.ids() {
            if tree.entry(id).kind == Kind::Regular && !good.contains(&tree.inode(id)) {
                self.below[id.index()] = None;
            }
        }
    }
}

/// Writes the layer that comes directly over the lower ones to `out` and gives `out` back: the
/// whiteouts, and the directories whose metadata has changed.
///
/// # Errors
/// When `out` fails.
pub fn write_mending_layer<W: Write>(
    source: Source<'_>,
    overlay: &Overlay,
    out: W,
    buffer: &mut [u8],
) -> Result<W> {
    let mut layer = LayerArchive::new(source, out, &|_| 0, buffer);
    for id in &overlay.directories {
        layer.directory(*id)?;
    }
    for path in &overlay.gone {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        let directory = match parent {
            "" => Some(EntryId::ROOT),
            parent => source.tree.locate(parent),
        };
        layer.directory(directory.with_context(|| format!("hiding /{path}"))?)?;
        let slash = if parent.is_empty() { "" } else { "/" };
        let whiteout = Member {
            path: &format!("{parent}{slash}{WHITEOUT}{name}"),
            kind: MemberKind::Regular(0),
            permissions: 0o644,
            uid: 0,
            gid: 0,
            mtime: 0,
        };
        layer.tar.append(&whiteout, &[])?;
    }
    Ok(layer.tar.finish()?)
}
