//! Who owns each path. Claimants are asked in turn, and the first that claims an entry has it:
//! hints that a user left, the package state, dpkg, named rules for what packages generate,
//! then big files, and one component for the rest.

mod files;
mod packages;
mod rules;

use std::collections::HashMap;

use anyhow::Result;

use crate::dpkg::{self, Database};
use crate::tree::{EntryId, Hint, Tree};

pub use files::TreeFiles;

/// A set of entries that change together, and so belong into one layer.
#[derive(Debug, Clone, PartialEq)]
pub struct Component {
    /// The source package's name, or for what no package owns the rule's name with a slash in
    /// it (which no package name has). Never with a comma: names are joined by them.
    pub name: String,
    /// The chance that it changes between two pulls, 0 to 1.
    pub chance: f64,
    /// What makes it change, where several components may have that in common.
    pub cause: Option<String>,
}

/// A component in [`Ownership`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ComponentId(u32);

impl ComponentId {
    /// The position in [`Ownership::components`].
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// What one claimant says of an entry.
#[derive(Debug, Clone, PartialEq)]
enum Claim {
    /// It belongs to that package (its position in the database).
    Package(usize),
    /// It belongs to a component of that name and chance.
    Own(String, f64),
}

/// A claim, and whether the entry was made on the system, not unpacked.
struct Claimed {
    owner: Claim,
    made: bool,
}

/// The components of a tree, and the owner of each entry.
#[derive(Debug)]
pub struct Ownership {
    components: Vec<Component>,
    owners: Vec<ComponentId>,
    made: Vec<bool>,
}

impl Ownership {
    /// Finds the owner of every entry of `tree`. `database` is what dpkg knows, read through `files`.
    ///
    /// # Errors
    /// When a file of the database cannot be read or understood.
    pub fn of_tree(
        tree: &Tree,
        database: Option<&Database>,
        files: &dyn dpkg::Files,
    ) -> Result<Self> {
        let installed = database.map_or(&[][..], |database| &database.packages);
        let owned = packages::owned_entries(tree, database, files)?;
        let view = rules::View::new(tree, database, &owned);
        let mut ownership = Self {
            components: Vec::new(),
            owners: Vec::with_capacity(tree.len()),
            made: Vec::with_capacity(tree.len()),
        };
        let mut names: HashMap<String, ComponentId> = HashMap::new();
        let mut of_package: Vec<Option<ComponentId>> = vec![None; installed.len()];
        let mut hints: Vec<Option<ComponentId>> = Vec::with_capacity(tree.len());
        for id in tree.ids() {
            let hint = match tree.hint(id) {
                Some(hint) => {
                    let (name, chance) = from_hint(hint);
                    Some(ownership.component(&mut names, name, chance))
                }
                None if id == EntryId::ROOT => None,
                None => hints[tree.entry(id).parent.index()],
            };
            hints.push(hint);
            let claimed = view.claim(id);
            let owner = match hint {
                Some(component) => component,
                None => match claimed.owner {
                    Claim::Own(name, chance) => ownership.component(&mut names, name, chance),
                    Claim::Package(at) => match of_package[at] {
                        Some(known) => known,
                        None => {
                            let package = &installed[at];
                            let chance =
                                dpkg::change_chance(&package.source, &package.source_version);
                            let source = package.source.clone();
                            let component = ownership.component(&mut names, source, chance);
                            of_package[at] = Some(component);
                            component
                        }
                    },
                },
            };
            ownership.owners.push(owner);
            ownership.made.push(claimed.made);
        }
        Ok(ownership)
    }

    /// All components, in the order in which the tree first has an entry of them.
    pub fn components(&self) -> &[Component] {
        &self.components
    }

    /// The owner of an entry.
    pub fn owner(&self, id: EntryId) -> ComponentId {
        self.owners[id.index()]
    }

    /// Whether an entry was made on the system from what packages brought (a cache, byte code, a
    /// link): its time tells when that was, and nothing about its content.
    pub fn is_made(&self, id: EntryId) -> bool {
        self.made[id.index()]
    }

    /// The component of that name; a name that stands for several sources of evidence keeps the
    /// highest chance.
    fn component(
        &mut self,
        names: &mut HashMap<String, ComponentId>,
        name: String,
        chance: f64,
    ) -> ComponentId {
        if let Some(id) = names.get(&name) {
            let known = &mut self.components[id.index()];
            known.chance = known.chance.max(chance);
            return *id;
        }
        let id = ComponentId(self.components.len() as u32);
        names.insert(name.clone(), id);
        self.components.push(Component {
            name,
            chance,
            cause: None,
        });
        id
    }
}

/// How often a component changes when its hint does not say.
const HINTED_CHANCE: f64 = 0.2;
/// Days between two pulls that a stated interval is held against.
const DAYS_BETWEEN_PULLS: f64 = 7.0;

fn from_hint(hint: &Hint) -> (String, f64) {
    let name = format!("user/{}", hint.component.replace(',', "%2C"));
    let days = hint.interval.as_deref().and_then(interval_days);
    if let (Some(interval), None) = (&hint.interval, days) {
        tracing::warn!(
            "user.update-interval '{interval}' of component '{}' is neither a number of days nor daily, weekly, biweekly, monthly, quarterly or yearly; it is ignored",
            hint.component
        );
    }
    let chance = days.map_or(HINTED_CHANCE, |days| {
        1.0 - (-DAYS_BETWEEN_PULLS / days).exp()
    });
    (name, chance)
}

/// Days in an interval as rpm-ostree and chunkah write it.
fn interval_days(text: &str) -> Option<f64> {
    let days = match text {
        "daily" => 1.0,
        "weekly" => 7.0,
        "biweekly" => 14.0,
        "monthly" => 30.0,
        "quarterly" => 91.0,
        "yearly" => 365.0,
        number => number.parse().ok()?,
    };
    (days > 0.0 && f64::is_finite(days)).then_some(days)
}

#[cfg(test)]
mod tests;
