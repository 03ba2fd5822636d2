//! Who owns each path. Claimants are asked in turn, and the first that claims an entry has it:
//! hints that a user left, the user's table, the package state, dpkg, named rules for what packages
//! generate, then big files, and one component for the rest. Large sources have several components.

mod claims;
mod files;
mod hints;
mod intervals;
mod numbers;
mod packages;
mod parts;
mod pattern;
mod rules;
mod table;
mod unpackaged;

use std::collections::HashMap;

use anyhow::Result;

use crate::dpkg::{self, Database, Package};
use crate::tree::{EntryId, Tree};

use claims::{Claim, Claimed, Claims};
pub use files::TreeFiles;
pub use intervals::Intervals;
use numbers::Numbers;
pub use packages::owned_entries;
use parts::SourceParts;
pub use table::ComponentTable;
use table::RowId;

/// A set of entries that change together, and so belong into one layer.
#[derive(Debug, Clone, PartialEq)]
pub struct Component {
    /// The source package's name, or for what no package owns the rule's name with a slash in it
    /// (which no package name has). A part of a source is `SOURCE:PATH`. Never with a comma: names
    /// are joined by them.
    pub name: String,
    /// The chance that it changes between two pulls, 0 to 1.
    pub chance: f64,
    /// What makes it change, where several components may have that in common.
    pub cause: Option<String>,
    /// Days from one change to the next, where a user has told or learned them.
    pub interval: Option<f64>,
}

impl Component {
    /// One that a user has named, and which changes every `days` days, if that is told; commas,
    /// which separate names, are written as `%2C`.
    fn of_user(name: &str, days: Option<f64>) -> Self {
        Self {
            name: format!("user/{}", name.replace(',', "%2C")),
            chance: days.map_or(HINTED_CHANCE, chance_of_days),
            cause: None,
            interval: days,
        }
    }
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

/// The components of a tree, and the owner of each entry.
#[derive(Debug)]
pub struct Ownership {
    components: Vec<Component>,
    owners: Vec<ComponentId>,
    made: Vec<bool>,
    /// The source that each entry was unpacked from.
    unpacked: Numbers,
    /// The package that each entry is in the list of.
    packages: Numbers,
    table: ComponentTable,
    /// The row of the table that has each entry; empty where the table is.
    rows: Vec<Option<RowId>>,
}

impl Ownership {
    /// Finds the owner of every entry of `tree`. `database` is what dpkg knows, read through
    /// `files`; `table` is what the user says.
    ///
    /// # Errors
    /// When a file of the database cannot be read or understood.
    pub fn of_tree(
        tree: &Tree,
        database: Option<&Database>,
        files: &dyn dpkg::Files,
        table: Option<&ComponentTable>,
    ) -> Result<Self> {
        let installed = database.map_or(&[][..], |database| &database.packages);
        let owned = packages::owned_entries(tree, database, files)?;
        let view = rules::View::new(tree, database, &owned);
        let mut builder = ComponentsBuilder::default();
        let mut hints = hints::named(&mut builder, tree);
        let table = table.cloned().unwrap_or_default();
        let mut rows = table.rows_of(tree);
        for (row, hint) in rows.iter_mut().zip(&mut hints) {
            match (*hint, *row) {
                (Some(_), _) => *row = None,
                (None, Some(at)) => *hint = Some(builder.component(table.component(at))),
                (None, None) => {}
            }
        }
        let mut claims = Claims::for_entries(tree.len());
        tree.ids().for_each(|id| claims.push(view.claim(id)));
        let sources = Sources::of(installed);
        // Only what was unpacked: an update does not spare what is made anew on every system.
        let unpacked = claims.entries.iter().map(|claim| match claim {
            Claimed {
                owner: Claim::Package(at),
                made: false,
            } => Some(sources.of_package[*at as usize]),
            _ => None,
        });
        let unpacked: Vec<Option<u32>> = unpacked.collect();
        let unhinted = unpacked.iter().zip(&hints);
        let unhinted = unhinted
            .map(|(source, hint)| source.filter(|at| hint.is_none() && sources.has_parts(*at)));
        let unhinted: Vec<Option<u32>> = unhinted.collect();
        let parts = SourceParts::find(tree, &unhinted);

        let mut owners = Vec::with_capacity(tree.len());
        for (id, claim) in tree.ids().zip(&claims.entries) {
            let owner = match (hints[id.index()], claim.owner) {
                (Some(component), _) => component,
                (None, Claim::Own(at)) => builder.component(claims.own(at)),
                (None, Claim::Package(at)) => {
                    let source = sources.of_package[at as usize];
                    builder.of_source(tree, &sources, source, &parts, parts.part(id))
                }
            };
            owners.push(owner);
        }
        hints::follow_intervals(tree, &owners, &mut builder.components);
        Ok(Self {
            components: builder.components,
            owners,
            rows: if table.is_empty() { Vec::new() } else { rows },
            table,
            unpacked: unpacked.into_iter().collect(),
            packages: owned.into_iter().collect(),
            made: tree
                .ids()
                .map(|id| claims.entries[id.index()].made || parts.has_no_time(tree, id))
                .collect(),
        })
    }

    /// All components, in the order in which the tree first has an entry of them.
    pub fn components(&self) -> &[Component] {
        &self.components
    }

    /// The owner of an entry.
    pub fn owner(&self, id: EntryId) -> ComponentId {
        self.owners[id.index()]
    }

    /// The line of the user's table that has an entry, if one has.
    pub fn line_of(&self, id: EntryId) -> Option<String> {
        let row = self.rows.get(id.index()).copied().flatten();
        row.map(|row| self.table.describe(row))
    }

    /// The position in the database of the package that has an entry in its list, as
    /// [`owned_entries`] tells it.
    pub fn package(&self, id: EntryId) -> Option<usize> {
        self.packages.get(id).map(|at| at as usize)
    }

    /// The source package that an entry was unpacked from, as a number; none for what was made on
    /// the system.
    pub fn unpacked_from(&self, id: EntryId) -> Option<u32> {
        self.unpacked.get(id)
    }

    /// Whether the time of an entry tells nothing about its content: it was made on the system from
    /// what packages brought (a cache, byte code, a link), or is what an update leaves as it is but
    /// for the time it was built.
    pub fn is_generated(&self, id: EntryId) -> bool {
        self.made[id.index()]
    }
}

/// The sources of the installed packages.
struct Sources<'a> {
    /// For each package, its source.
    of_package: Vec<u32>,
    /// Their names, and the chance that they change.
    all: Vec<(&'a str, f64)>,
}

impl<'a> Sources<'a> {
    fn of(installed: &'a [Package]) -> Self {
        let mut sources = Self {
            of_package: Vec::with_capacity(installed.len()),
            all: Vec::new(),
        };
        let mut known: HashMap<&str, u32> = HashMap::new();
        for package in installed {
            let chance = dpkg::change_chance(package.source(), package.source_version());
            let next = sources.all.len() as u32;
            let source = *known.entry(package.source()).or_insert(next);
            if source == next {
                sources.all.push((package.source(), chance));
            }
            let (_, highest) = &mut sources.all[source as usize];
            *highest = highest.max(chance);
            sources.of_package.push(source);
        }
        sources
    }

    /// Whether an update may leave some of its files as they are.
    fn has_parts(&self, source: u32) -> bool {
        !dpkg::is_replaced_whole(self.all[source as usize].0)
    }

    fn component(&self, source: u32) -> Component {
        let (name, chance) = self.all[source as usize];
        Component {
            name: name.to_owned(),
            chance,
            cause: Some(dpkg::update_of(name).to_owned()),
            interval: None,
        }
    }
}

/// Components being collected.
#[derive(Default)]
struct ComponentsBuilder {
    components: Vec<Component>,
    by_name: HashMap<String, ComponentId>,
    of_sources: HashMap<(u32, Option<EntryId>), ComponentId>,
}

impl ComponentsBuilder {
    /// The component of that name; a name that stands for several sources of evidence keeps the
    /// highest chance, and an interval that is told counts more than none.
    fn component(&mut self, wanted: &Component) -> ComponentId {
        if let Some(id) = self.by_name.get(&wanted.name) {
            let known = &mut self.components[id.index()];
            match (known.interval, wanted.interval) {
                (Some(_), None) => {}
                (None, Some(_)) => known.clone_from(wanted),
                (Some(a), Some(b)) if b >= a => {}
                (Some(_), Some(_)) => known.clone_from(wanted),
                (None, None) => known.chance = known.chance.max(wanted.chance),
            }
            return *id;
        }
        let id = ComponentId(self.components.len() as u32);
        self.by_name.insert(wanted.name.clone(), id);
        self.components.push(wanted.clone());
        id
    }

    /// The component of a source, or of a part of it.
    fn of_source(
        &mut self,
        tree: &Tree,
        sources: &Sources<'_>,
        source: u32,
        parts: &SourceParts,
        part: Option<EntryId>,
    ) -> ComponentId {
        if let Some(id) = self.of_sources.get(&(source, part)) {
            return *id;
        }
        let mut component = sources.component(source);
        if let Some(part) = part {
            let path = tree.path(part).as_str().replace(',', "%2C");
            component.name = format!("{}:{path}", component.name);
            component.chance *= parts.change(source, part);
        }
        let id = self.component(&component);
        self.of_sources.insert((source, part), id);
        id
    }
}

/// How often a component changes when its hint does not say.
const HINTED_CHANCE: f64 = 0.2;
/// Days between two pulls that a stated interval is held against: a month, as for the chances of
/// sources.
const DAYS_BETWEEN_PULLS: f64 = 30.0;

/// The chance that what changes every so many days changes between two pulls.
fn chance_of_days(days: f64) -> f64 {
    1.0 - (-DAYS_BETWEEN_PULLS / days).exp()
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
