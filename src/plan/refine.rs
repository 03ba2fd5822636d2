//! Improves a plan by moving and swapping items, where that pays well.

use super::{LAYER_COST, Part};

/// An exchange has to save this share of the plan's cost.
///
/// Not for speed: small gains are what makes a plan depend on everything. On 400 packages, 64
/// layers and one package less, exchanges down to a millionth make plans 0.6 % cheaper, and move
/// some 20 other packages where this limit lets 1 or 2 move. Each move is a fetch of two layers,
/// and the cost, which knows one plan only, does not count it.
const WORTHWHILE: f64 = 1e-3;

/// Rounds over all items. Two or three are usual; the bound is there so that nothing can run away.
const MAX_ROUNDS: usize = 20;

/// Swaps are tried up to this many items: there are as many as pairs, and with many items hardly
/// one is worthwhile.
const MAX_SWAPPED: usize = 1000;

/// Returns `groups` (positions in `parts`, ascending) improved: still at most `max_layers` of them,
/// and none empty.
pub(super) fn refine(
    parts: &[Part],
    groups: Vec<Vec<usize>>,
    max_layers: usize,
) -> Vec<Vec<usize>> {
    let mut layers = Layers::new(parts, groups, max_layers);
    for _ in 0..MAX_ROUNDS {
        let moved = layers.move_items();
        let swapped = parts.len() <= MAX_SWAPPED && layers.swap_items();
        if !moved && !swapped {
            break;
        }
    }
    layers.groups
}

struct Layers<'a> {
    parts: &'a [Part],
    max_layers: usize,
    /// What a gain must exceed, in bytes.
    least_gain: f64,
    /// Positions in `parts`, ascending.
    groups: Vec<Vec<usize>>,
    /// For each group, its parts joined.
    sums: Vec<Part>,
    /// For each part, its group.
    home: Vec<usize>,
    /// For each part, the chance that nothing else in its group changes. Not a quotient: that would
    /// not exist for chance 1, nor for groups that are as good as sure to change.
    others_stay: Vec<f64>,
}

impl<'a> Layers<'a> {
    fn new(parts: &'a [Part], groups: Vec<Vec<usize>>, max_layers: usize) -> Self {
        let mut layers = Layers {
            parts,
            max_layers,
            least_gain: 0.0,
            groups: vec![Vec::new(); groups.len()],
            sums: vec![Part::EMPTY; groups.len()],
            home: vec![0; parts.len()],
            others_stay: vec![1.0; parts.len()],
        };
        for (index, group) in groups.into_iter().enumerate() {
            layers.set(index, group);
        }
        let cost: f64 = layers.sums.iter().map(|sum| layer_cost(*sum)).sum();
        layers.least_gain = cost * WORTHWHILE;
        layers
    }

    /// Makes `group` the one at `index` and brings all that depends on it up to date.
    fn set(&mut self, index: usize, group: Vec<usize>) {
        let mut before = Part::EMPTY;
        for &at in &group {
            self.home[at] = index;
            self.others_stay[at] = before.stay;
            before = before.join(self.parts[at]);
        }
        let mut stay_after = 1.0;
        for &at in group.iter().rev() {
            self.others_stay[at] *= stay_after;
            stay_after *= self.parts[at].stay;
        }
        self.sums[index] = before;
        self.groups[index] = group;
    }

    fn push(&mut self, group: Vec<usize>) {
        self.groups.push(Vec::new());
        self.sums.push(Part::EMPTY);
        self.set(self.groups.len() - 1, group);
    }

    fn remove(&mut self, index: usize) {
        self.groups.swap_remove(index);
        self.sums.swap_remove(index);
        if let Some(moved) = self.groups.get(index) {
            for &at in moved {
                self.home[at] = index;
            }
        }
    }

    /// The group of the part at `at`, without it.
    fn without(&self, at: usize) -> Part {
        let sum = self.sums[self.home[at]];
        Part {
            size: (sum.size - self.parts[at].size).max(0.0),
            stay: self.others_stay[at],
        }
    }

    /// Moves each item to the layer where it costs least, or into a new one.
    fn move_items(&mut self) -> bool {
        let mut changed = false;
        for at in 0..self.parts.len() {
            let (home, part) = (self.home[at], self.parts[at]);
            let alone = self.groups[home].len() == 1;
            let saved = if alone {
                layer_cost(part)
            } else {
                self.sums[home].cost() - self.without(at).cost()
            };
            let mut best = (f64::INFINITY, self.groups.len());
            if !alone && self.groups.len() < self.max_layers {
                best.0 = layer_cost(part);
            }
            for (index, sum) in self.sums.iter().enumerate() {
                let added = part.cost() + sum.merge_cost(part);
                if index != home && added < best.0 {
                    best = (added, index);
                }
            }
            if saved - best.0 > self.least_gain {
                self.move_item(at, best.1);
                changed = true;
            }
        }
        changed
    }

    /// `to` is the number of groups for a new one.
    fn move_item(&mut self, at: usize, to: usize) {
        let home = self.home[at];
        if to == self.groups.len() {
            self.push(vec![at]);
        } else {
            self.set(to, exchanged(self.groups[to].clone(), None, Some(at)));
        }
        let rest = exchanged(self.groups[home].clone(), Some(at), None);
        if rest.is_empty() {
            self.remove(home);
        } else {
            self.set(home, rest);
        }
    }

    /// Exchanges two items of different layers, where neither alone would move.
    fn swap_items(&mut self) -> bool {
        let mut changed = false;
        for a in 0..self.parts.len() {
            let mut best = (self.least_gain, a);
            let (home, rest) = (self.home[a], self.without(a));
            for b in a + 1..self.parts.len() {
                let other = self.home[b];
                if other == home {
                    continue;
                }
                let now = self.sums[home].cost() + self.sums[other].cost();
                let then =
                    rest.join(self.parts[b]).cost() + self.without(b).join(self.parts[a]).cost();
                if now - then > best.0 {
                    best = (now - then, b);
                }
            }
            let b = best.1;
            if b != a {
                let other = self.home[b];
                let (gives, takes) = (self.groups[home].clone(), self.groups[other].clone());
                self.set(home, exchanged(gives, Some(a), Some(b)));
                self.set(other, exchanged(takes, Some(b), Some(a)));
                changed = true;
            }
        }
        changed
    }
}

/// What a layer of these parts costs.
fn layer_cost(sum: Part) -> f64 {
    sum.cost() + LAYER_COST as f64
}

/// `group` with one item less or more, still ascending.
fn exchanged(mut group: Vec<usize>, leaves: Option<usize>, enters: Option<usize>) -> Vec<usize> {
    group.retain(|&at| Some(at) != leaves);
    if let Some(enters) = enters {
        group.insert(group.partition_point(|&at| at < enters), enters);
    }
    group
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use proptest::prelude::*;

    use super::*;

    fn cost(parts: &[Part], groups: &[Vec<usize>]) -> f64 {
        let sum = |group: &Vec<usize>| {
            group
                .iter()
                .fold(Part::EMPTY, |sum, &at| sum.join(parts[at]))
        };
        groups.iter().map(|group| layer_cost(sum(group))).sum()
    }

    proptest! {
        /// From any start, not only a good one.
        #[test]
        fn never_makes_a_plan_worse(
            given in prop::collection::vec((0u32..1_000_000, 0.0..=1.0f64, 0usize..5), 1..30),
            more in 0usize..3,
        ) {
            let parts: Vec<Part> =
                given.iter().map(|&(size, stay, _)| Part { size: size.into(), stay }).collect();
            let mut start = vec![Vec::new(); 5];
            for (at, given) in given.iter().enumerate() {
                start[given.2].push(at);
            }
            start.retain(|group| !group.is_empty());
            let max_layers = start.len() + more;
            let before = cost(&parts, &start);

            let groups = refine(&parts, start, max_layers);
            prop_assert!(cost(&parts, &groups) <= before);
            prop_assert!(groups.len() <= max_layers && groups.iter().all(|group| !group.is_empty()));
            let mut all = groups.concat();
            all.sort_unstable();
            prop_assert_eq!(all, (0..parts.len()).collect::<Vec<_>>());
        }

        /// The sums that exchanges are judged by stay true through exchanges.
        #[test]
        fn others_stay_is_the_product_of_the_others(
            stays in prop::collection::vec(prop_oneof![Just(0.0), 0.1..=1.0f64], 1..12),
        ) {
            let parts: Vec<Part> = stays.iter().map(|&stay| Part { size: 1.0, stay }).collect();
            let layers = Layers::new(&parts, vec![(0..parts.len()).collect()], 1);
            for at in 0..parts.len() {
                let others: f64 = (0..parts.len()).filter(|&i| i != at).map(|i| stays[i]).product();
                prop_assert!((layers.others_stay[at] - others).abs() < 1e-12);
            }
        }
    }
}
