//! The law of plans without memory: a change of a few packages moves few others. Of a made system,
//! and of real ones, whose components `plan --json` tells: packages grow, shrink, come, go, five at
//! once, or change in nothing but their content.
//!
//! `AOH_ROOTFS_SETS`, directories with colons between them, names more real systems.

use std::collections::{BTreeSet, HashSet};
use std::num::NonZeroUsize;

use crate::common::run;
use apt_ostree_helper::plan::{Item, Plan, plan};
use serde_json::Value;

/// Changes of each kind.
const TRIES: usize = 100;
const LAYERS: usize = 63;

/// Numbers that are the same every time (SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    /// In `0..1`.
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[derive(Clone, Copy)]
enum Change {
    Size,
    More,
    Less,
    Content,
}

fn source(item: &Item) -> &str {
    item.name.split(':').next().unwrap()
}

/// Changes one source, and adds the names of its components to `changed`.
fn change(
    items: &mut Vec<Item>,
    sources: &[String],
    kind: Change,
    random: &mut Random,
    changed: &mut HashSet<String>,
) {
    let name = &sources[random.below(sources.len())];
    let of_source = |item: &&mut Item| source(item) == name;
    match kind {
        Change::Size => {
            let factor = [1.2, 1.0 / 1.2][random.below(2)];
            for item in items.iter_mut().filter(of_source) {
                item.size = (item.size as f64 * factor) as u64;
                changed.insert(item.name.clone());
            }
        }
        Change::Content => {
            let names = items.iter_mut().filter(of_source);
            changed.extend(names.map(|item| item.name.clone()));
        }
        Change::Less => {
            let names = items.iter_mut().filter(of_source);
            changed.extend(names.map(|item| item.name.clone()));
            items.retain(|item| source(item) != name);
        }
        // Of the size and the chance of another one.
        Change::More => {
            let Some(like) = items.iter().find(|item| item.name == *name).cloned() else {
                return;
            };
            let name = format!("new-{}", random.below(1_000_000));
            changed.insert(name.clone());
            items.push(Item {
                cause: Some(name.clone()),
                name,
                ..like
            });
        }
    }
}

/// The layers without what changed.
fn unchanged<'a>(
    items: &'a [Item],
    plan: &Plan,
    changed: &HashSet<String>,
) -> Vec<(BTreeSet<&'a str>, u64)> {
    let of_layer = |layer: &[usize]| {
        let of = layer.iter().map(|&at| &items[at]);
        let of: Vec<&Item> = of.filter(|item| !changed.contains(&item.name)).collect();
        (
            of.iter().map(|item| item.name.as_str()).collect(),
            of.iter().map(|item| item.size).sum(),
        )
    };
    plan.layers
        .iter()
        .map(|layer| of_layer(&layer.items))
        .collect()
}

/// The share of the bytes that are in another company than before though nothing about them has
/// changed.
fn moved(old: (&[Item], &Plan), new: (&[Item], &Plan), changed: &HashSet<String>) -> f64 {
    let before = unchanged(old.0, old.1, changed);
    let before: HashSet<BTreeSet<&str>> = before.into_iter().map(|(names, _)| names).collect();
    let all: u64 = new.0.iter().map(|item| item.size).sum();
    let moved = unchanged(new.0, new.1, changed).into_iter();
    let moved = moved.filter(|(names, _)| !before.contains(names));
    moved.map(|(_, size)| size).sum::<u64>() as f64 / all as f64
}

/// The mean and the worst of changes of one source each, and of five at once.
fn measure(items: &[Item]) -> ((f64, f64), (f64, f64)) {
    let layers = NonZeroUsize::new(LAYERS).unwrap();
    let before = plan(items, layers, None);
    // What no package owns has a slash in its name.
    let names = items.iter().map(source).filter(|name| !name.contains('/'));
    let sources: BTreeSet<String> = names.map(str::to_owned).collect();
    let sources: Vec<String> = sources.into_iter().collect();
    let mut random = Random(7);
    let kinds = [Change::Size, Change::More, Change::Less, Change::Content];
    let mut of = |kinds: &[Change]| {
        let mut items = items.to_vec();
        let original = items.clone();
        let mut changed = HashSet::new();
        for kind in kinds {
            change(&mut items, &sources, *kind, &mut random, &mut changed);
        }
        let after = plan(&items, layers, None);
        moved((&original, &before), (&items, &after), &changed)
    };
    let mut one = Vec::new();
    let mut five = Vec::new();
    for attempt in 0..TRIES {
        one.extend(kinds.iter().map(|kind| of(&[*kind])));
        let start = attempt % 3;
        five.push(of(&[0, 1, 2, 0, 1].map(|at| kinds[(start + at) % 3])));
    }
    let told = |of: &[f64]| {
        let mean = of.iter().sum::<f64>() / of.len() as f64;
        (mean, of.iter().copied().fold(0.0, f64::max))
    };
    (told(&one), told(&five))
}

/// Prints what is measured, too: `cargo test --test plans stability:: -- --nocapture`.
fn check(name: &str, items: &[Item]) {
    let (one, five) = measure(items);
    println!(
        "{name}, {} components: one change moves {:.2} %, at worst {:.2} %; five {:.2} %, {:.2} %",
        items.len(),
        100.0 * one.0,
        100.0 * one.1,
        100.0 * five.0,
        100.0 * five.1
    );
    assert!(
        one.0 <= 0.01,
        "{name}: one change moves {} on average",
        one.0
    );
    assert!(one.1 <= 0.2, "{name}: one change moves {} at worst", one.1);
    assert!(five.0 <= 0.03, "{name}: five move {} on average", five.0);
}

#[test]
fn a_made_system_is_steady() {
    let mut random = Random(1);
    let mut items: Vec<Item> = (0..380)
        .map(|_| {
            // Twelve uniform numbers make a normal one.
            let normal = (0..12).map(|_| random.unit()).sum::<f64>() - 6.0;
            let name = format!("{:08x}", random.next() >> 32);
            Item {
                size: (13.0 + 1.9 * normal).exp().clamp(1e4, 1e8) as u64,
                // As of a Debian: three of four have never been updated.
                chance: match random.below(4) {
                    0 => 0.013 * 30f64.powf(random.unit()),
                    _ => 0.002,
                },
                cause: Some(name.clone()),
                name,
            }
        })
        .collect();
    items.push(Item {
        name: "state/packages".into(),
        size: 2_700_000,
        chance: 1.0,
        cause: None,
    });
    check("made", &items);
}

#[test]
fn real_systems_are_steady() {
    let of_tests = ["AOH_ROOTFS_TRIXIE", "AOH_ROOTFS_BOOKWORM"];
    let of_tests = of_tests.iter().filter_map(|name| std::env::var(name).ok());
    let sets = std::env::var("AOH_ROOTFS_SETS").unwrap_or_default();
    let sets = sets.split(':').filter(|set| !set.is_empty());
    for rootfs in of_tests.chain(sets.map(str::to_owned)) {
        let told = run(&["plan", "--rootfs", &rootfs, "--json"]);
        let told: Value = serde_json::from_str(&told).unwrap();
        let components = told["components"].as_array().unwrap().iter();
        let items: Vec<Item> = components
            .map(|component| Item {
                name: component["name"].as_str().unwrap().to_owned(),
                size: component["size"].as_u64().unwrap(),
                chance: component["chance"].as_f64().unwrap(),
                cause: component["cause"].as_str().map(str::to_owned),
            })
            .collect();
        assert!(items.len() > 100, "{rootfs}: {} components", items.len());
        check(&rootfs, &items);
    }
}
