//! Laws that every plan obeys.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{HashMap, HashSet};

use proptest::prelude::*;

use super::*;

mod best;
mod stability;

fn layers(max: usize) -> NonZeroUsize {
    NonZeroUsize::new(max).unwrap()
}

fn item(name: &str, size: u64, chance: f64) -> Item {
    Item {
        name: name.to_owned(),
        size,
        chance,
        cause: None,
    }
}

/// Parts of which some share a cause.
pub(super) fn any_parts(count: std::ops::Range<usize>) -> impl Strategy<Value = Parts> {
    let chance = prop_oneof![Just(0.0), Just(1.0), 0.0..=1.0f64];
    let cause = prop_oneof![Just(None), "[a-c]".prop_map(Some)];
    let item = (0..500_000u64, chance, cause).prop_map(|(size, chance, cause)| Item {
        name: String::new(),
        size,
        chance,
        cause,
    });
    prop::collection::vec(item, count).prop_map(|items| Parts::of(items.iter()))
}

/// Names of each layer's items.
fn names<'a>(items: &'a [Item], plan: &Plan) -> Vec<Vec<&'a str>> {
    let of_layer = |layer: &PlannedLayer| {
        layer
            .items
            .iter()
            .map(|&i| items[i].name.as_str())
            .collect()
    };
    plan.layers.iter().map(of_layer).collect()
}

fn any_item() -> impl Strategy<Value = Item> {
    let size = prop_oneof![
        Just(0),
        Just(4096),
        Just(u64::MAX),
        0..100_000u64,
        0..1_000_000_000u64,
        any::<u64>()
    ];
    let chance = prop_oneof![
        Just(0.0),
        Just(-0.0),
        Just(1.0),
        Just(f64::NAN),
        Just(f64::NEG_INFINITY),
        Just(1e-17),
        0.0..=1.0f64,
        any::<f64>()
    ];
    // Few names, so that many are there twice.
    let cause = prop_oneof![Just(None), "[a-c]".prop_map(Some)];
    ("[a-d]{1,2}", size, chance, cause).prop_map(|(name, size, chance, cause)| Item {
        name,
        size,
        chance,
        cause,
    })
}

proptest! {
    #[test]
    fn loses_nothing_doubles_nothing_and_keeps_to_the_budget(
        items in prop::collection::vec(any_item(), 0..40),
        max in prop_oneof![1..6usize, Just(100), Just(usize::MAX)],
    ) {
        let plan = plan(&items, layers(max), None);
        prop_assert!(plan.layers.len() <= max);
        prop_assert!(plan.expected_bytes() >= 0.0);
        prop_assert_eq!(plan.layers.is_empty(), items.is_empty());

        let mut seen: Vec<usize> = Vec::new();
        for layer in &plan.layers {
            prop_assert!(!layer.items.is_empty());
            prop_assert!((0.0..=1.0).contains(&layer.chance));
            let size = layer.items.iter().fold(0u64, |sum, &i| sum.saturating_add(items[i].size));
            prop_assert_eq!(layer.size, size);
            prop_assert!(layer.items.is_sorted_by_key(|&i| &items[i].name));
            seen.extend(&layer.items);
        }
        seen.sort_unstable();
        prop_assert_eq!(seen, (0..items.len()).collect::<Vec<_>>());
        prop_assert!(plan.layers.is_sorted_by_key(|layer| layer.chance));
    }

    #[test]
    fn does_not_depend_on_the_order_of_the_items(
        (items, shuffled) in prop::collection::vec(any_item(), 0..40)
            .prop_flat_map(|items| (Just(items.clone()), Just(items).prop_shuffle())),
        max in 1..8usize,
    ) {
        let described = |items: &[Item]| -> Vec<Vec<String>> {
            let of_item = |&i: &usize| {
                let Item { name, size, chance, cause } = &items[i];
                format!("{name} {size} {} {cause:?}", clamped(*chance).to_bits())
            };
            plan(items, layers(max), None).layers.iter().map(|l| l.items.iter().map(of_item).collect()).collect()
        };
        prop_assert_eq!(described(&items), described(&shuffled));
    }
}

proptest! {
    /// Whatever the earlier plan says: names twice, names of nobody, empty layers.
    #[test]
    fn the_same_laws_hold_after_an_earlier_plan(
        items in prop::collection::vec(any_item(), 0..40),
        previous in prop::collection::vec(prop::collection::vec("[a-e]{1,2}", 0..6), 0..10),
        max in prop_oneof![1..6usize, Just(100), Just(usize::MAX)],
    ) {
        let plan = plan(&items, layers(max), Some(&previous));
        prop_assert!(plan.layers.len() <= max);
        let mut seen: Vec<usize> = Vec::new();
        for layer in &plan.layers {
            prop_assert!(!layer.items.is_empty());
            seen.extend(&layer.items);
        }
        seen.sort_unstable();
        prop_assert_eq!(seen, (0..items.len()).collect::<Vec<_>>());
    }
}

/// A plan as the next build is given it.
fn remembered(items: &[Item], plan: &Plan) -> Vec<Vec<String>> {
    let owned = |names: Vec<&str>| names.into_iter().map(str::to_owned).collect();
    names(items, plan).into_iter().map(owned).collect()
}

#[test]
fn after_itself_a_plan_is_the_same() {
    for (count, max) in [(0, 5), (1, 1), (400, 64), (400, 127), (3000, 64)] {
        let items = packages(count, 3);
        let first = plan(&items, layers(max), None);
        let second = plan(&items, layers(max), Some(&remembered(&items, &first)));
        assert_eq!(first, second, "{count} items");
    }
}

#[test]
fn after_a_change_every_item_that_was_there_is_where_it_was() {
    let mut items = packages(400, 5);
    let first = remembered(&items, &plan(&items, layers(64), None));
    items.drain(50..60);
    for item in &mut items[100..110] {
        item.size += item.size / 5;
        item.chance = (item.chance * 1.2).min(1.0);
    }
    items.extend(packages(15, 6));
    let second = remembered(&items, &plan(&items, layers(64), Some(&first)));
    // In the same order, without the layers of which nothing is left.
    let there = |name: &&String| items.iter().any(|item| item.name == **name);
    let left = first
        .iter()
        .filter(|layer| layer.iter().any(|name| there(&name)));
    for (before, after) in left.zip(&second) {
        assert!(before.iter().filter(there).all(|name| after.contains(name)));
    }
}

#[test]
fn with_fewer_layers_than_before_layers_are_merged() {
    let items = packages(400, 5);
    let first = remembered(&items, &plan(&items, layers(64), None));
    let fewer = first.len() - 3;
    let second = remembered(&items, &plan(&items, layers(fewer), Some(&first)));
    assert_eq!(second.len(), fewer);
    let whole = first.iter().filter(|layer| second.contains(layer)).count();
    assert!(
        whole + 6 >= first.len(),
        "{whole} of {} layers are as they were",
        first.len()
    );
}

#[test]
fn nothing_makes_no_layer() {
    assert_eq!(plan(&[], layers(5), None), Plan::default());
}

#[test]
fn one_layer_takes_all() {
    let items = [item("b", 10, 0.5), item("a", 20, 0.5)];
    let plan = plan(&items, layers(1), None);
    assert_eq!(
        plan.layers,
        [PlannedLayer {
            items: vec![1, 0],
            size: 30,
            chance: 0.75
        }]
    );
    assert_eq!(plan.expected_bytes(), 30.0 * 0.75 + LAYER_COST as f64);
}

#[test]
fn what_never_changes_and_what_always_changes_get_a_layer_each() {
    let items = [
        item("a", 50_000_000, 0.0),
        item("b", 40_000_000, 1.0),
        item("c", 10_000_000, 0.0),
        item("d", 60_000_000, 1.0),
    ];
    assert_eq!(
        names(&items, &plan(&items, layers(4), None)),
        [["a", "c"], ["b", "d"]]
    );
}

#[test]
fn an_empty_item_that_always_changes_does_not_spoil_a_large_one() {
    let items = [
        item("large", 100_000_000, 0.01),
        item("empty", 0, 1.0),
        item("log", 70_000, 0.9),
    ];
    let plan = plan(&items, layers(2), None);
    assert_eq!(names(&items, &plan), [vec!["large"], vec!["empty", "log"]]);
}

#[test]
fn layers_that_save_less_than_they_cost_are_not_made() {
    let small: Vec<Item> = (0..20)
        .map(|i| item(&i.to_string(), 500, 0.1 + f64::from(i) / 50.0))
        .collect();
    assert_eq!(plan(&small, layers(20), None).layers.len(), 1);
    let empty: Vec<Item> = (0..20).map(|i| item(&i.to_string(), 0, 1.0)).collect();
    assert_eq!(plan(&empty, layers(20), None).layers.len(), 1);
}

#[test]
fn a_giant_is_left_alone() {
    let mut items: Vec<Item> = (0..9)
        .map(|i| item(&i.to_string(), 1_000_000, 0.2))
        .collect();
    items.push(item("giant", u64::MAX, 0.2));
    let plan = plan(&items, layers(2), None);
    assert_eq!(plan.layers[0].items, [9]);
    assert_eq!(plan.layers[1].items.len(), 9);
}

#[test]
fn equal_items_are_spread_evenly_and_equal_layers_ordered_by_name() {
    let items: Vec<Item> = ["d", "b", "c", "a"]
        .map(|name| item(name, 9_000_000, 0.5))
        .into();
    assert_eq!(
        names(&items, &plan(&items, layers(2), None)),
        [["a", "b"], ["c", "d"]]
    );
}

/// What is hot has mostly changed when a client comes back after some pulls, and shares layers
/// then: so there are more for what is cold.
#[test]
fn layers_go_to_what_nobody_expects() {
    let hot = (0..60).map(|i| item(&format!("hot{i}"), 8_000_000, 0.4));
    let cold = (0..400).map(|i| item(&format!("cold{i}"), 4_000_000, 0.002));
    let items: Vec<Item> = hot.chain(cold).collect();
    let plan = plan(&items, layers(64), None);
    let is_cold = |layer: &&PlannedLayer| layer.items.iter().all(|at| items[*at].chance < 0.1);
    let cold = plan.layers.iter().filter(is_cold).count();
    assert!(cold >= 40, "{cold} layers are cold ones");
}

#[test]
fn many_items() {
    let items = packages(2000, 7);
    let plan = plan(&items, layers(64), None);
    assert_eq!(
        plan.layers
            .iter()
            .map(|layer| layer.items.len())
            .sum::<usize>(),
        2000
    );
    let of_bins = plan.expected_bytes() / hashed(&items, 64).expected_bytes();
    assert!(of_bins < 0.8, "{of_bins}");
}

/// SplitMix64: the same numbers on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// In `0..1`.
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Like a Debian: sizes log-normal from 10 KB to 100 MB, chances from 0.02 to 0.6, and three
/// components that are in every update (the package database, say).
fn packages(count: usize, seed: u64) -> Vec<Item> {
    let mut random = Random(seed);
    (0..count)
        .map(|i| {
            // Twelve uniform numbers make a normal one.
            let normal = (0..12).map(|_| random.unit()).sum::<f64>() - 6.0;
            let size = (13.0 + 1.9 * normal).exp().clamp(1e4, 1e8) as u64;
            let chance = if i < 3 {
                1.0
            } else {
                0.02 * 30f64.powf(random.unit())
            };
            item(&format!("{:08x}", random.next() >> 32), size, chance)
        })
        .collect()
}

/// Bins by a hash of the name.
fn hashed(items: &[Item], bins: u64) -> Plan {
    let mut layers: HashMap<u64, Vec<usize>> = HashMap::new();
    for (i, item) in items.iter().enumerate() {
        let hash = item
            .name
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
            });
        layers.entry(hash % bins).or_default().push(i);
    }
    Plan {
        layers: layers
            .into_values()
            .map(|members| {
                let stay = Parts::of(items.iter()).stay_of(members.iter().copied());
                planned_layer(items, members, 1.0 - stay)
            })
            .collect(),
    }
}

/// Where a source is cut into parts does not change what is expected of it.
#[test]
fn two_halves_of_a_part_change_as_often_as_the_part() {
    let of = |odds: f64| Item {
        cause: Some("source".into()),
        ..item("part", 1, 0.3 * odds / (1.0 + odds))
    };
    let source = Item {
        cause: Some("source".into()),
        ..item("source", 1, 0.3)
    };
    let whole = Parts::of([&source, &of(0.8)].into_iter());
    let halves = Parts::of([&source, &of(0.4), &of(0.4)].into_iter());
    let difference = whole.stay_of([1].into_iter()) - halves.stay_of([1, 2].into_iter());
    assert!(difference.abs() < 1e-12, "{difference}");
    let all = halves.stay_of([0, 1, 2].into_iter());
    assert!((all - 0.7).abs() < 1e-12, "{all}");
}

#[test]
fn parts_of_different_sources_do_not_share_a_layer() {
    let mut items = packages(200, 9);
    for (source, chance) in [("hot", 0.5), ("warm", 0.2)] {
        for part in 0..12 {
            items.push(Item {
                cause: Some(source.into()),
                ..item(
                    &format!("{source}:{part}"),
                    3_000_000 + 100_000 * part,
                    chance * part as f64 / 11.0,
                )
            });
        }
    }
    let found = plan(&items, layers(64), None);
    let sources = |layer: &PlannedLayer| -> HashSet<Option<&str>> {
        layer
            .items
            .iter()
            .map(|&i| items[i].cause.as_deref())
            .collect()
    };
    let split = found
        .layers
        .iter()
        .filter(|layer| sources(layer).iter().any(Option::is_some));
    assert!(split.clone().count() > 4);
    assert!(split.clone().all(|layer| sources(layer).len() == 1));
}

/// As after an update of this program: what was one component has parts now.
#[test]
fn new_parts_go_to_their_source() {
    let mut items = packages(300, 8);
    let source = items.iter().position(|item| item.chance < 0.3).unwrap();
    let first = remembered(&items, &plan(&items, layers(64), None));
    let name = items[source].name.clone();
    items[source].cause = Some(name.clone());
    let part = Item {
        cause: Some(name.clone()),
        ..item("part", 9_000_000, items[source].chance / 4.0)
    };
    items.push(part);
    let second = remembered(&items, &plan(&items, layers(64), Some(&first)));
    let both = |layer: &Vec<String>| layer.contains(&name) && layer.contains(&"part".into());
    assert!(second.len() > first.len() || second.iter().any(both));
}

#[test]
fn what_is_sure_to_change_is_with_nothing_else() {
    let items = packages(400, 4);
    let found = plan(&items, layers(64), None);
    let is_sure = |&i: &usize| items[i].chance == 1.0;
    let with_sure = |layer: &&PlannedLayer| layer.items.iter().any(is_sure);
    let sure: Vec<&PlannedLayer> = found.layers.iter().filter(with_sure).collect();
    assert_eq!(sure.len(), 3);
    assert!(sure.iter().all(|layer| layer.items.iter().all(is_sure)));
}
