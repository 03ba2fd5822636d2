//! From components and a plan over them to the entries of each layer.

use std::collections::HashMap;

use crate::checksum::Checksum;
use crate::component::{ComponentId, Ownership};
use crate::ostree::ContentObjects;
use crate::plan::Plan;
use crate::tree::{EntryId, Kind, Tree};

/// Bytes of a tar header.
const HEADER: u64 = 512;

/// Where each entry is at home. Equal files are one object and hard links one file, in one layer
/// only: they are at home with the first of them. Empty files, links and empty
/// directories stay with their own component (also empty files that are one: a commit does not know
/// that they are, and its image must have the same layers); other directories come with what is in them.
struct Homes<'a> {
    tree: &'a Tree,
    objects: &'a ContentObjects,
    first: HashMap<Checksum, EntryId>,
}

impl<'a> Homes<'a> {
    fn new(tree: &'a Tree, objects: &'a ContentObjects) -> Self {
        let first = objects.first_entries(tree);
        Self {
            tree,
            objects,
            first,
        }
    }

    /// The entry whose owner decides about `id`; none for a directory with something in it.
    fn of(&self, id: EntryId) -> Option<EntryId> {
        let entry = self.tree.entry(id);
        match entry.kind {
            Kind::Directory => self.tree.children(id).is_empty().then_some(id),
            Kind::Regular if entry.size > 0 => self.first.get(&self.objects.checksum(id)).copied(),
            Kind::Regular | Kind::Symlink => Some(id),
        }
    }
}

/// What each component weighs in a layer, in bytes of tar: headers and padding counted, equal
/// files once. What directories weigh on disk does not count: it differs between file systems.
pub fn component_sizes(tree: &Tree, objects: &ContentObjects, ownership: &Ownership) -> Vec<u64> {
    let homes = Homes::new(tree, objects);
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
/// have something in them in none.
#[derive(Debug)]
pub struct Assignment {
    layers: Vec<Vec<EntryId>>,
}

impl Assignment {
    /// Spreads the entries of `tree` over the layers of `plan`, whose items are the components
    /// in `items`.
    pub fn new(
        tree: &Tree,
        objects: &ContentObjects,
        ownership: &Ownership,
        items: &[ComponentId],
        plan: &Plan,
    ) -> Self {
        let mut layer_of: HashMap<ComponentId, usize> = HashMap::new();
        for (at, layer) in plan.layers.iter().enumerate() {
            layer_of.extend(layer.items.iter().map(|item| (items[*item], at)));
        }
        let homes = Homes::new(tree, objects);
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
