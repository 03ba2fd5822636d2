//! The plan of an image, with the entries that go into each layer.

use std::collections::HashSet;
use std::num::NonZeroUsize;

use anyhow::{Result, ensure};

use super::below::Below;
use super::system::System;
use super::{ContentMetadata, Format, LayerOptions, PlanFile};
use crate::component::{ComponentId, Ownership};
use crate::layers::{Assignment, component_sizes};
use crate::plan::{self, Item, Plan};
use crate::remedy::{Advised, Remedy};

/// Pulls in a year: the chances of sources are for the time from one to the next, about a month.
const PULLS_IN_A_YEAR: f64 = 12.0;

/// The plan, and the entries of its layers.
pub struct Planned {
    /// Which component is in which layer.
    pub plan: Plan,
    /// Which entry is in which layer.
    pub assignment: Assignment,
    /// The names of the components in each layer.
    pub components: Vec<Vec<String>>,
    /// What was planned with.
    pub items: Vec<Item>,
}

impl Planned {
    /// Plans the layers of `system`, whose entries belong to the components of `ownership`, above
    /// those of the base image, if there is one.
    ///
    /// # Errors
    /// When these leave too few layers.
    pub fn new(
        system: &System,
        ownership: &Ownership,
        options: &LayerOptions,
        below: Option<&Below>,
    ) -> Result<Self> {
        let sharing = options.format.sharing();
        let lower = below.map(|below| &below.overlay);
        let sizes = component_sizes(&system.tree, &system.objects, ownership, sharing, lower);
        // In the encapsulated format the first layer is the commit's.
        let taken = match options.format {
            Format::Ostree(_) => 1 + below.map_or(0, Below::layers),
            Format::Plain => below.map_or(0, Below::layers),
        };
        let left = options.max_layers.get().saturating_sub(taken);
        // Empty directories are planned, too, even where no layer is needed for them.
        let chosen = below.and_then(|below| below.for_new);
        let chosen = chosen.map_or(left, |for_new| for_new.max(1));
        let budget = NonZeroUsize::new(left.min(chosen));
        let owned = system.tree.ids().map(|id| ownership.owner(id));
        let mut ids: Vec<ComponentId> = owned.collect();
        ids.sort_unstable();
        ids.dedup();
        // A component that only has directories with something in them weighs nothing and is in no
        // layer.
        ids.retain(|id| sizes[id.index()] > 0);
        let component = |id: &ComponentId| &ownership.components()[id.index()];
        let items: Vec<Item> = ids
            .iter()
            .map(|id| Item {
                name: component(id).name.clone(),
                size: sizes[id.index()],
                chance: component(id).chance,
                cause: component(id).cause.clone(),
            })
            .collect();
        ensure!(
            below.is_none() || budget.is_some() || items.is_empty(),
            Advised::new(
                Remedy::AllowMoreLayers,
                format!(
                    "the layers that stay, and what belongs to them, are {taken} already, and only {} are allowed",
                    options.max_layers
                )
            )
        );
        // What layers of an earlier image lack is written whatever happens: no plan is to be kept.
        let follows = below.is_none_or(|below| below.for_new.is_none());
        let previous = options.previous.as_ref().filter(|_| follows);
        let previous = previous.map(|previous| previous.plan.as_slice());
        let plan = plan::plan(&items, budget.unwrap_or(NonZeroUsize::MIN), previous);
        let (tree, objects) = (&system.tree, &system.objects);
        let assignment = Assignment::new(tree, objects, ownership, &ids, &plan, sharing, lower);
        let names = |layer: &plan::PlannedLayer| {
            let names = layer.items.iter().map(|item| items[*item].name.clone());
            let mut names: Vec<String> = names.collect();
            names.sort_unstable();
            names
        };
        let components = plan.layers.iter().map(names).collect();
        Ok(Self {
            plan,
            assignment,
            components,
            items,
        })
    }

    /// The plan for a file, below it that of layers which stay. A component that is in both is in
    /// the lower one.
    pub fn file(&self, kept: &[Vec<String>]) -> PlanFile {
        let mut seen: HashSet<&str> = HashSet::new();
        let layers = kept.iter().chain(&self.components);
        let layers = layers.map(|layer| {
            let new = layer.iter().filter(|name| seen.insert(name.as_str()));
            new.cloned().collect::<Vec<String>>()
        });
        PlanFile {
            layers: layers.filter(|layer| !layer.is_empty()).collect(),
        }
    }

    /// The components as rpm-ostree describes them, largest first.
    pub fn content_metadata(&self) -> Vec<ContentMetadata> {
        let describe = |item: &Item| ContentMetadata {
            identifier: item.name.clone(),
            name: item.name.clone(),
            srcid: item.name.clone(),
            change_time_offset: 0,
            change_frequency: changes_in_a_year(item.chance),
            size: item.size,
        };
        let mut all: Vec<ContentMetadata> = self.items.iter().map(describe).collect();
        all.sort_by(|a, b| b.size.cmp(&a.size).then_with(|| a.name.cmp(&b.name)));
        all
    }
}

/// The rate of changes that gives a chance to change until the next pull, for a year. What always
/// changes has the largest number, as in rpm-ostree.
fn changes_in_a_year(chance: f64) -> u32 {
    if chance >= 1.0 {
        return u32::MAX;
    }
    // Rates of chances are finite, small and not negative.
    (-(1.0 - chance).ln() * PULLS_IN_A_YEAR).round() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chance_until_the_next_pull_is_a_yearly_number() {
        for (chance, changes) in [(0.0, 0), (0.08, 1), (0.5, 8), (1.0, u32::MAX)] {
            assert_eq!(changes_in_a_year(chance), changes, "{chance}");
        }
    }
}
