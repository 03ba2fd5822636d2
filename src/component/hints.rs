//! What users say in extended attributes: `user.component` names the component of a file, or of all
//! below a directory, `user.update-interval` how often it changes. An interval alone is for the
//! component that the file, or all below the directory, belongs to anyway.

use std::collections::BTreeSet;

use super::{Component, ComponentId, ComponentsBuilder, chance_of_days, interval_days};
use crate::tree::{EntryId, Hint, Tree};

/// Components that are named in a warning.
const NAMED: usize = 3;

/// For each entry, the component that the nearest hint at or above it names.
pub(super) fn named(builder: &mut ComponentsBuilder, tree: &Tree) -> Vec<Option<ComponentId>> {
    let mut found: Vec<Option<ComponentId>> = Vec::with_capacity(tree.len());
    for id in tree.ids() {
        let hint = tree.hint(id);
        let here = hint.and_then(|hint| Some((hint, hint.component.as_deref()?)));
        found.push(match here {
            Some((hint, name)) => {
                let days = days(hint, &|| format!("component '{name}'"));
                Some(builder.component(&Component::of_user(name, days)))
            }
            None if id == EntryId::ROOT => None,
            None => found[tree.entry(id).parent.index()],
        });
    }
    found
}

/// Gives components the intervals of hints that name none: of several the shortest.
pub(super) fn follow_intervals(tree: &Tree, owners: &[ComponentId], components: &mut [Component]) {
    let hints = tree.ids().filter_map(|id| Some((id, tree.hint(id)?)));
    for (id, hint) in hints.filter(|(_, hint)| hint.component.is_none()) {
        let path = || format!("/{}", tree.path(id));
        let Some(days) = days(hint, &path) else {
            continue;
        };
        let below = owners_below(tree, id, owners);
        let mut ids = below.iter();
        if let (Some(only), None) = (ids.next(), ids.next()) {
            let component = &mut components[only.index()];
            if component.interval.is_none_or(|known| days < known) {
                component.interval = Some(days);
                component.chance = chance_of_days(days);
            }
            continue;
        }
        let names = below
            .iter()
            .take(NAMED)
            .map(|id| &components[id.index()].name);
        let names: Vec<&str> = names.map(String::as_str).collect();
        let more = if below.len() > NAMED { ", ..." } else { "" };
        tracing::warn!(
            "user.update-interval of {} is ignored: what is there belongs to {} components ({}{more}); name one with user.component",
            path(),
            below.len(),
            names.join(", ")
        );
    }
}

/// Whose `id` is; of a directory, whose the files below it are.
fn owners_below(tree: &Tree, id: EntryId, owners: &[ComponentId]) -> BTreeSet<ComponentId> {
    let mut found = BTreeSet::new();
    let mut pending = vec![id];
    while let Some(id) = pending.pop() {
        let children = tree.children(id);
        if children.is_empty() {
            found.insert(owners[id.index()]);
        }
        pending.extend(children);
    }
    found
}

/// The days in a hint; a warning tells `whose` cannot be understood.
fn days(hint: &Hint, whose: &dyn Fn() -> String) -> Option<f64> {
    let interval = hint.interval.as_deref()?;
    let days = interval_days(interval);
    if days.is_none() {
        tracing::warn!(
            "user.update-interval '{}' of {} is neither a number of days nor daily, weekly, biweekly, monthly, quarterly or yearly; it is ignored",
            interval.escape_debug(),
            whose()
        );
    }
    days
}
