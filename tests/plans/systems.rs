//! What updates cost on many systems of many kinds: those that `contrib/bench/systems.py` makes of
//! Debian's lists of packages, of `main` alone and with updates and security. `AOH_SYSTEMS` names
//! its output, and `AOH_LAYERS` is the budget, 64 if not given; `contrib/bench/updates systems`
//! runs it so.
//!
//! A component is a source of the size that its packages install, and it changes when the version
//! of any of them does. So there are no parts of sources, nothing that builds make, and no layer
//! for the commit.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::num::NonZeroUsize;

use apt_ostree_helper::dpkg;
use apt_ostree_helper::plan::{Item, Plan, plan};
use serde::Deserialize;

#[derive(Deserialize)]
struct System {
    release: String,
    kind: String,
    old: Vec<Source>,
    new: Vec<Source>,
}

/// Name, bytes, version, versions of its packages.
#[derive(Deserialize)]
struct Source(String, u64, String, Vec<String>);

/// Shares of the new system: of the sources that changed, of what a client of the old system
/// fetches, and of that when the new plan follows the old one.
#[derive(Default, Clone, Copy)]
struct Shares {
    systems: f64,
    changed: f64,
    fetched: f64,
    followed: f64,
}

impl std::ops::AddAssign for Shares {
    fn add_assign(&mut self, other: Self) {
        self.systems += other.systems;
        self.changed += other.changed;
        self.fetched += other.fetched;
        self.followed += other.followed;
    }
}

fn items(sources: &[Source]) -> Vec<Item> {
    let item = |Source(name, size, version, _): &Source| Item {
        name: name.clone(),
        size: *size,
        chance: dpkg::change_chance(name, version),
        cause: Some(dpkg::update_of(name).to_owned()),
    };
    sources.iter().map(item).collect()
}

/// The sources of each layer, with what they are.
fn layers<'a>(sources: &'a [Source], plan: &Plan) -> Vec<Vec<(&'a str, &'a [String])>> {
    let layer = |items: &Vec<usize>| {
        let sources = items.iter().map(|&at| &sources[at]);
        sources
            .map(|source| (source.0.as_str(), &source.3[..]))
            .collect()
    };
    plan.layers
        .iter()
        .map(|layer_of| layer(&layer_of.items))
        .collect()
}

fn shares(system: &System, max: NonZeroUsize) -> Shares {
    let (old_items, new_items) = (items(&system.old), items(&system.new));
    let old = plan(&old_items, max, None);
    let kept = layers(&system.old, &old);
    let names: Vec<Vec<String>> = kept
        .iter()
        .map(|layer| layer.iter().map(|(name, _)| (*name).to_owned()).collect())
        .collect();
    let kept: HashSet<_> = kept.into_iter().collect();
    let total: u64 = system.new.iter().map(|source| source.1).sum();
    let share = |bytes: u64| bytes as f64 / total as f64;
    let fetched = |plan: &Plan| {
        let all = layers(&system.new, plan).into_iter().zip(&plan.layers);
        let new = all.filter(|(layer, _)| !kept.contains(layer));
        share(new.map(|(_, layer)| layer.size).sum())
    };
    let before: HashMap<&str, &[String]> = system
        .old
        .iter()
        .map(|source| (source.0.as_str(), &source.3[..]))
        .collect();
    let changed = system
        .new
        .iter()
        .filter(|source| before.get(&source.0[..]) != Some(&&source.3[..]));
    Shares {
        systems: 1.0,
        changed: share(changed.map(|source| source.1).sum()),
        fetched: fetched(&plan(&new_items, max, None)),
        followed: fetched(&plan(&new_items, max, Some(&names))),
    }
}

#[test]
#[ignore = "wants AOH_SYSTEMS"]
fn updates_of_many_systems() {
    let file = std::env::var_os("AOH_SYSTEMS").expect("AOH_SYSTEMS names a file");
    let layers = std::env::var("AOH_LAYERS").map_or(64, |layers| layers.parse().unwrap());
    let max = NonZeroUsize::new(layers).unwrap();
    let text = std::fs::read_to_string(file).unwrap();
    let systems: Vec<System> = serde_json::from_str(&text).unwrap();
    let mut kinds: BTreeMap<String, Shares> = BTreeMap::new();
    let mut all = Shares::default();
    for system in &systems {
        let shares = shares(system, max);
        let kind = format!("{}, {}", system.release, system.kind);
        *kinds.entry(kind).or_default() += shares;
        all += shares;
    }
    kinds.insert("all".to_owned(), all);
    println!("{layers} layers: changed, fetched, fetched with the earlier plan");
    for (kind, shares) in kinds {
        let mean = |sum: f64| 100.0 * sum / shares.systems;
        println!(
            "{kind:20} {:6.2} % {:6.2} % {:6.2} %",
            mean(shares.changed),
            mean(shares.fetched),
            mean(shares.followed)
        );
    }
    // What stands in contrib/docs/src/layers.md, with some room.
    assert!(layers < 64 || all.fetched <= 1.12 * all.changed);
}
