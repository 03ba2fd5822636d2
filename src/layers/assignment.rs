//! Turns a plan over components into the entries of each layer.

use std::collections::HashMap;

use super::lower::Overlay;
use crate::checksum::Checksum;
use crate::component::{ComponentId, Ownership};
use crate::ostree::KnownObjects;
use crate::plan::Plan;
use crate::tree::{EntryId, Kind, Tree};

/// Bytes of a tar header.
const HEADER: u64 = 512;

/// Equal files of different components are one object from this size on, in bytes. A smaller one is
/// in the layer of each: a component must not change because a licence that it shares with another
/// one is gone from there.
const SHARED: u64 = 1 << 20;

/// What files have in common that are written once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sharing {
    /// They are one object, in an encapsulated commit, which knows no hard links: equal files of a
    /// component, and large equal files of different ones.
    Content,
    /// They are hard links of each other, in an ordinary image, where equal files are other files.
    HardLinks,
}

/// What is written once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Shared {
    Content(Checksum, Option<ComponentId>),
    /// A file that has not been read, because there is none that might be equal.
    Unique(EntryId, Option<ComponentId>),
    File(EntryId),
}

/// Where each entry is at home. Of files that are written once the home is that of the stablest
/// owner: the one with the lowest chance to change, of those the first by name. So they do not move
/// when a hotter owner comes, goes or changes. Empty files, links and empty directories stay with
/// their own component; other directories come with what is in them.
struct Homes<'a> {
    sharing: Sharing,
    tree: &'a Tree,
    objects: &'a KnownObjects,
    ownership: &'a Ownership,
    /// What lower layers have already, where there are some.
    lower: Option<&'a Overlay>,
    /// By entry: of what is written once, the first file of its stablest owner; else itself.
    home: Vec<EntryId>,
}

impl<'a> Homes<'a> {
    fn new(
        tree: &'a Tree,
        objects: &'a KnownObjects,
        ownership: &'a Ownership,
        sharing: Sharing,
        lower: Option<&'a Overlay>,
    ) -> Self {
        let mut homes = Self {
            sharing,
            tree,
            objects,
            ownership,
            lower,
            home: Vec::new(),
        };
        let is_wanted = |id: &EntryId| tree.entry(*id).kind == Kind::Regular && !homes.is_done(*id);
        let mut files: Vec<EntryId> = tree.ids().filter(is_wanted).collect();
        // Sorted, what is the same lies side by side: a table by what is shared would be the
        // largest thing in memory.
        files.sort_unstable_by_key(|id| (homes.shared(*id), *id));
        let mut home: Vec<EntryId> = tree.ids().collect();
        for same in files.chunk_by(|a, b| homes.is_shared(*a, *b)) {
            let mut stablest = same[0];
            for id in same {
                if homes.is_stabler(*id, stablest) {
                    stablest = *id;
                }
            }
            for id in same {
                home[id.index()] = stablest;
            }
        }
        homes.home = home;
        homes
    }

    /// What a regular file is one of, if it may share anything.
    fn shared(&self, id: EntryId) -> Option<Shared> {
        match self.sharing {
            Sharing::HardLinks => Some(Shared::File(self.tree.inode(id))),
            Sharing::Content => match self.tree.entry(id).size {
                0 => None,
                size => {
                    let owner = (size < SHARED).then(|| self.ownership.owner(id));
                    Some(match self.objects.get(self.tree, id) {
                        Some(checksum) => Shared::Content(checksum, owner),
                        None => Shared::Unique(self.tree.inode(id), owner),
                    })
                }
            },
        }
    }

    fn is_shared(&self, one: EntryId, other: EntryId) -> bool {
        let shared = self.shared(one);
        shared.is_some() && shared == self.shared(other)
    }

    fn is_stabler(&self, one: EntryId, other: EntryId) -> bool {
        let (one, other) = (self.ownership.owner(one), self.ownership.owner(other));
        let component = |id: ComponentId| &self.ownership.components()[id.index()];
        let (a, b) = (component(one), component(other));
        let order = a.chance.total_cmp(&b.chance).then(a.name.cmp(&b.name));
        one != other && order.is_lt()
    }

    fn is_done(&self, id: EntryId) -> bool {
        self.lower.is_some_and(|lower| lower.is_done(id))
    }

    /// The entry whose owner decides about `id`; none for a directory with something in it, and for
    /// what lower layers have.
    fn of(&self, id: EntryId) -> Option<EntryId> {
        if self.is_done(id) {
            return None;
        }
        match self.tree.entry(id).kind {
            Kind::Directory => self.tree.children(id).is_empty().then_some(id),
            Kind::Regular | Kind::Symlink => Some(self.home[id.index()]),
        }
    }
}

/// The files that must be read before they are assigned: those that may be equal to another one and
/// are written once then. Most have a size that is theirs alone.
pub fn possible_duplicates(tree: &Tree, ownership: &Ownership, sharing: Sharing) -> Vec<EntryId> {
    if sharing == Sharing::HardLinks {
        return Vec::new();
    }
    let has_content = |id: &EntryId| {
        let entry = tree.entry(*id);
        entry.kind == Kind::Regular && entry.size > 0
    };
    let mut by_size: HashMap<(u64, Option<ComponentId>), Vec<EntryId>> = HashMap::new();
    for id in tree.ids().filter(has_content) {
        let size = tree.entry(id).size;
        let owner = (size < SHARED).then(|| ownership.owner(id));
        let alike = by_size.entry((size, owner)).or_default();
        alike.push(tree.inode(id));
    }
    let alike = by_size.into_values().map(|mut files| {
        // Hard links of one file are equal anyway.
        files.sort_unstable();
        files.dedup();
        files
    });
    alike.filter(|files| files.len() > 1).flatten().collect()
}

/// What each component weighs in a layer, in bytes of tar: headers and padding counted, what is
/// shared once, and what `lower` layers have not at all. What directories weigh on disk does not
/// count: it differs between file systems.
pub fn component_sizes(
    tree: &Tree,
    objects: &KnownObjects,
    ownership: &Ownership,
    sharing: Sharing,
    lower: Option<&Overlay>,
) -> Vec<u64> {
    let homes = Homes::new(tree, objects, ownership, sharing, lower);
    let mut sizes = vec![0; ownership.components().len()];
    for id in tree.ids() {
        let Some(home) = homes.of(id) else { continue };
        let content = match home == id {
            true => tree.entry(id).size.div_ceil(HEADER).saturating_mul(HEADER),
            false => 0,
        };
        let size: &mut u64 = &mut sizes[ownership.owner(home).index()];
        // A hostile tree can have sparse files of exabytes.
        *size = size.saturating_add(content).saturating_add(HEADER);
    }
    sizes
}

/// The entries of every planned layer, in canonical order, each in exactly one; directories that
/// have something in them, and what lower layers have, in none.
#[derive(Debug)]
pub struct Assignment {
    layers: Vec<Vec<EntryId>>,
}

impl Assignment {
    /// Spreads the entries of `tree` over the layers of `plan`, whose items are the components
    /// in `items`.
    pub fn new(
        tree: &Tree,
        objects: &KnownObjects,
        ownership: &Ownership,
        items: &[ComponentId],
        plan: &Plan,
        sharing: Sharing,
        lower: Option<&Overlay>,
    ) -> Self {
        let mut layer_of: HashMap<ComponentId, usize> = HashMap::new();
        for (at, layer) in plan.layers.iter().enumerate() {
            layer_of.extend(layer.items.iter().map(|item| (items[*item], at)));
        }
        let homes = Homes::new(tree, objects, ownership, sharing, lower);
        let mut layers = vec![Vec::new(); plan.layers.len()];
        for id in tree.ids() {
            let layer = homes
                .of(id)
                .and_then(|home| layer_of.get(&ownership.owner(home)));
            if let Some(layer) = layer {
                layers[*layer].push(id);
            }
        }
        Self { layers }
    }

    /// The entries of each layer.
    pub fn layers(&self) -> &[Vec<EntryId>] {
        &self.layers
    }
}
