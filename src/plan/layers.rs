//! Layers under construction: what each costs, and what it would cost with one item more or less.

use super::{FEW_LAYERS, LAYER_COST, Part, Parts, stay_with_odds};

/// A partition of parts.
pub(super) struct Layers<'a> {
    parts: &'a Parts,
    /// Positions in `parts` of each layer's members, ascending.
    pub(super) groups: Vec<Vec<usize>>,
    sums: Vec<Sum>,
    /// For each part, its layer.
    home: Vec<usize>,
    /// For each part, the chance that nothing else in its layer changes.
    others_stay: Vec<f64>,
}

/// What is known of a layer as a whole.
#[derive(Clone, Default)]
struct Sum {
    size: f64,
    stay: f64,
    /// The causes that several parts have and one of this layer has, ascending.
    causes: Vec<usize>,
    /// The cause that all its members have.
    only_cause: Option<usize>,
    /// Whether all its members are sure to change.
    sure: bool,
}

/// Nobody, where a part is left out or put in.
pub(super) const NONE: Option<usize> = None;

impl<'a> Layers<'a> {
    pub(super) fn new(parts: &'a Parts, groups: Vec<Vec<usize>>) -> Self {
        let mut layers = Layers {
            parts,
            groups: Vec::new(),
            sums: Vec::new(),
            home: vec![0; parts.list.len()],
            others_stay: vec![1.0; parts.list.len()],
        };
        for group in groups {
            layers.push(group);
        }
        layers
    }

    pub(super) fn len(&self) -> usize {
        self.groups.len()
    }

    pub(super) fn home(&self, at: usize) -> usize {
        self.home[at]
    }

    pub(super) fn size(&self, index: usize) -> f64 {
        self.sums[index].size
    }

    pub(super) fn stay(&self, index: usize) -> f64 {
        self.sums[index].stay
    }

    /// Whether the part may join a layer: where the others of its cause are, if any are, and else
    /// where no cause has a layer to itself. What is sure to change keeps out what is not, and the
    /// other way round, where `max_layers` allows it.
    pub(super) fn suits(&self, index: usize, at: usize, max_layers: usize) -> bool {
        let part = &self.parts.list[at];
        let sum = &self.sums[index];
        if max_layers >= FEW_LAYERS && sum.sure != (part.stay == 0.0) {
            return false;
        }
        let has = |sum: &Sum, cause| sum.causes.binary_search(&cause).is_ok();
        match part.cause {
            Some(cause) if self.sums.iter().any(|sum| has(sum, cause)) => has(sum, cause),
            _ => sum.only_cause.is_none(),
        }
    }

    /// Bytes expected at the next pull.
    pub(super) fn total_cost(&self) -> f64 {
        (0..self.len()).map(|index| self.cost(index)).sum()
    }

    /// Bytes expected to be fetched for a layer, with [`LAYER_COST`].
    pub(super) fn cost(&self, index: usize) -> f64 {
        self.cost_with(index, NONE, NONE)
    }

    /// The same were `leaves`, one of its members, not in it, and `enters` were. An empty layer
    /// costs nothing.
    pub(super) fn cost_with(
        &self,
        index: usize,
        leaves: Option<usize>,
        enters: Option<usize>,
    ) -> f64 {
        let mut size = self.sums[index].size;
        if let Some(at) = leaves {
            if self.groups[index].len() == 1 && enters.is_none() {
                return 0.0;
            }
            size -= self.parts.list[at].size;
        }
        if let Some(at) = enters {
            size += self.parts.list[at].size;
        }
        size.max(0.0) * (1.0 - self.stay_with(index, leaves, enters)) + LAYER_COST as f64
    }

    fn stay_with(&self, index: usize, leaves: Option<usize>, enters: Option<usize>) -> f64 {
        let base = leaves.map_or(self.sums[index].stay, |at| self.others_stay[at]);
        let Some(at) = enters else { return base };
        let part = self.parts.list[at];
        match part.cause {
            Some(cause) if self.sums[index].causes.binary_search(&cause).is_ok() => {
                let others = self.groups[index].iter().copied();
                let others = others.filter(|member| Some(*member) != leaves);
                self.parts.stay_of(others.chain([at]))
            }
            _ => base * part.stay,
        }
    }

    /// What one layer of `one` and `other` costs more than both apart.
    pub(super) fn merge_cost(&self, one: usize, other: usize) -> f64 {
        let (a, b) = (&self.sums[one], &self.sums[other]);
        let common = |cause: &usize| b.causes.binary_search(cause).is_ok();
        let stay = if a.causes.iter().any(common) {
            let members = self.groups[one].iter().chain(&self.groups[other]);
            self.parts.stay_of(members.copied())
        } else {
            a.stay * b.stay
        };
        let joined = (a.size + b.size) * (1.0 - stay);
        joined - a.size * (1.0 - a.stay) - b.size * (1.0 - b.stay) - LAYER_COST as f64
    }

    /// Makes `group` the layer at `index` and brings all that depends on it up to date.
    fn set(&mut self, index: usize, group: Vec<usize>) {
        let list = &self.parts.list;
        for &at in &group {
            self.home[at] = index;
        }
        let size = group.iter().map(|&at| list[at].size).sum();
        let sure = group.iter().all(|&at| list[at].stay == 0.0);
        let only_cause = self.parts.only_cause(&group);

        // The members by cause, those without one first, each alone.
        let mut members: Vec<usize> = group.clone();
        members.sort_by_key(|&at| list[at].cause);
        let together = |a: &usize, b: &usize| {
            let cause = list[*a].cause;
            cause.is_some() && cause == list[*b].cause
        };
        let of_cause: Vec<&[usize]> = members.chunk_by(together).collect();
        let stays: Vec<f64> = of_cause
            .iter()
            .map(|members| self.parts.stay_of(members.iter().copied()))
            .collect();
        for (members, outside) in of_cause.iter().zip(of_others(&stays, 1.0, |a, b| a * b)) {
            let [first, _, ..] = members else {
                self.others_stay[members[0]] = outside;
                continue;
            };
            let chance = list[*first]
                .cause
                .map_or(0.0, |cause| self.parts.causes[cause]);
            let odds: Vec<f64> = members.iter().map(|&at| list[at].odds).collect();
            for (&at, others) in members.iter().zip(of_others(&odds, 0.0, |a, b| a + b)) {
                self.others_stay[at] = outside * stay_with_odds(chance, others);
            }
        }

        let mut causes: Vec<usize> = members.iter().filter_map(|&at| list[at].cause).collect();
        causes.dedup();
        self.sums[index] = Sum {
            size,
            stay: stays.iter().product(),
            causes,
            only_cause,
            sure,
        };
        self.groups[index] = group;
    }

    pub(super) fn push(&mut self, group: Vec<usize>) {
        self.groups.push(Vec::new());
        self.sums.push(Sum::default());
        self.set(self.groups.len() - 1, group);
    }

    /// Adds a part that is in no layer. `to` is the number of layers for a new one.
    pub(super) fn put(&mut self, at: usize, to: usize) {
        if to == self.len() {
            self.push(vec![at]);
        } else {
            self.set(to, exchanged(self.groups[to].clone(), NONE, Some(at)));
        }
    }

    /// Moves a part. Returns the layer that is empty and gone because of that; the last one has its
    /// place now. `to` is the number of layers for a new one.
    pub(super) fn transfer(&mut self, at: usize, to: usize) -> Option<usize> {
        let home = self.home[at];
        self.put(at, to);
        let rest = exchanged(self.groups[home].clone(), Some(at), NONE);
        if rest.is_empty() {
            self.remove(home);
            return Some(home);
        }
        self.set(home, rest);
        None
    }

    /// Exchanges two parts of different layers.
    pub(super) fn exchange(&mut self, a: usize, b: usize) {
        let (one, other) = (self.home[a], self.home[b]);
        let (gives, takes) = (self.groups[one].clone(), self.groups[other].clone());
        self.set(one, exchanged(gives, Some(a), Some(b)));
        self.set(other, exchanged(takes, Some(b), Some(a)));
    }

    /// Joins `other` to `one`; the last layer has its place then.
    pub(super) fn merge(&mut self, one: usize, other: usize) {
        let mut group = [&self.groups[one][..], &self.groups[other]].concat();
        group.sort_unstable();
        self.set(one, group);
        self.groups[other].clear();
        self.remove(other);
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
}

/// For each number all others joined, from `none` on. Nothing is taken back, which zeros and
/// infinite numbers do not allow.
fn of_others(numbers: &[f64], none: f64, join: impl Fn(f64, f64) -> f64) -> Vec<f64> {
    let mut joined = Vec::with_capacity(numbers.len());
    let mut before = none;
    for number in numbers {
        joined.push(before);
        before = join(before, *number);
    }
    let mut after = none;
    for (joined, number) in joined.iter_mut().zip(numbers).rev() {
        *joined = join(*joined, after);
        after = join(after, *number);
    }
    joined
}

impl Part {
    /// What a layer of this part alone costs.
    pub(super) fn layer_cost(self) -> f64 {
        self.size * (1.0 - self.stay) + LAYER_COST as f64
    }
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

    use super::super::tests::any_parts;
    use super::*;

    proptest! {
        /// The numbers that changes are judged by are those of the layers after the change.
        #[test]
        fn a_cost_foretold_is_the_cost_found(
            (parts, homes) in any_parts(2..14).prop_flat_map(|parts| {
                let count = parts.list.len();
                (Just(parts), prop::collection::vec(0usize..3, count))
            }),
        ) {
            let mut groups = vec![Vec::new(); 3];
            for (at, home) in homes.iter().enumerate() {
                groups[*home].push(at);
            }
            groups.retain(|group| !group.is_empty());
            let close = |a: f64, b: f64| (a - b).abs() <= 1e-9 * a.abs().max(1.0);
            let cost = |group: &[usize]| match group {
                [] => 0.0,
                _ => {
                    let size: f64 = group.iter().map(|&at| parts.list[at].size).sum();
                    size * (1.0 - parts.stay_of(group.iter().copied())) + LAYER_COST as f64
                }
            };
            let layers = Layers::new(&parts, groups.clone());
            for (index, group) in groups.iter().enumerate() {
                prop_assert!(close(layers.cost(index), cost(group)));
                for &leaves in group {
                    let rest = exchanged(group.clone(), Some(leaves), NONE);
                    prop_assert!(close(layers.cost_with(index, Some(leaves), NONE), cost(&rest)));
                    for enters in (0..homes.len()).filter(|at| !group.contains(at)) {
                        let then = exchanged(rest.clone(), NONE, Some(enters));
                        let foretold = layers.cost_with(index, Some(leaves), Some(enters));
                        prop_assert!(close(foretold, cost(&then)));
                    }
                }
                for (other, members) in groups.iter().enumerate().skip(index + 1) {
                    let both = [&group[..], members].concat();
                    let more = cost(&both) - cost(group) - cost(members);
                    prop_assert!((layers.merge_cost(index, other) - more).abs() <= 1e-9 * cost(&both));
                }
            }
        }
    }
}
