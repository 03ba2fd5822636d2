//! The best partition of an ordered list of items into contiguous layers ("runs").
//!
//! Why an order at all: let item `i` (size `s`, stay `q`) choose between layers A and B (sizes `S`,
//! stays `Q`, both without it). Its cost in A, less what A costs anyway, is `s - s*q*Q_A +
//! S_A*Q_A*(1 - q)`, so that A is the cheaper one when
//!
//! ```text
//! (1 - q) / (s * q) * (S_A*Q_A - S_B*Q_B)  <  Q_A - Q_B
//! ```
//!
//! All that the item brings to this is `(1 - q) / (s * q)`, its odds to change per byte. Neither
//! its chance nor its size alone sorts items into layers: a small item spoils a layer for everyone
//! else in it, a large one is spoilt by everyone else. An optimal plan need not be made of runs,
//! since the item's own leaving changes the sums; but the best runs are mostly within 1 % of the
//! best plan, and `refine` follows.
//!
//! Runs also keep: an item more or less shifts a few cuts by an item or two, and leaves the other
//! layers alone.

use super::{LAYER_COST, Part, Parts, stay_with_odds};

/// Above this many items neighbours are joined first, since the search below takes (items)^2 *
/// layers steps.
const EXACT: usize = 600;

/// The odds that an item changes, per byte of its size.
fn odds_per_byte(part: &Part) -> f64 {
    let change = 1.0 - part.stay;
    if change == 0.0 {
        0.0 // also for size 0
    } else {
        change / (part.stay * part.size) // infinite for chance 1 and for size 0
    }
}

/// The order in which [`best_runs`] wants `parts`, as their indices: by odds per byte. Of infinite
/// odds those of size 0 come first and chance 1 last, with its like. Equals stay in the order
/// given.
pub(super) fn order(parts: &[Part]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..parts.len()).collect();
    order.sort_by(|&a, &b| {
        let (x, y) = (&parts[a], &parts[b]);
        odds_per_byte(x)
            .total_cmp(&odds_per_byte(y))
            .then(y.stay.total_cmp(&x.stay))
    });
    order
}

/// The cheapest cuts of a list of parts, for each number of runs: exact for up to [`EXACT`] parts;
/// of more it makes at most [`EXACT`] runs, far beyond what container stores take.
pub(super) struct Cuts {
    /// The position after the last part of each block, which is never cut.
    ends: Vec<usize>,
    /// For each number of runs less one, what they cost, [`LAYER_COST`] included.
    costs: Vec<f64>,
    /// For each number of runs less one, where the last run starts of those that end with each
    /// block.
    last_starts: Vec<Vec<usize>>,
}

impl Cuts {
    /// Cuts `parts`, which are not none, into up to `max_runs` runs.
    pub(super) fn of(parts: &Parts, max_runs: usize) -> Self {
        let ends = joined_ends(&parts.list);
        let joined = |(from, &to): (usize, &usize)| match &parts.list[from..to] {
            [alone] => *alone,
            several => {
                let several = several.iter().copied();
                several.fold(Part::alone(0.0, 1.0), Part::join)
            }
        };
        let blocks = Parts {
            list: starts(&ends).zip(&ends).map(joined).collect(),
            causes: parts.causes.clone(),
        };
        let (costs, last_starts) = cut(&blocks, max_runs.min(blocks.list.len()));
        Self {
            ends,
            costs,
            last_starts,
        }
    }

    /// The largest number of runs.
    pub(super) fn most(&self) -> usize {
        self.costs.len()
    }

    /// What so many runs cost.
    pub(super) fn cost(&self, runs: usize) -> f64 {
        self.costs[runs - 1]
    }

    /// The cheapest number of runs up to `max_runs`, and before it what they cost; of equal costs
    /// the fewest.
    pub(super) fn cheapest(&self, max_runs: usize) -> (f64, usize) {
        let mut cheapest = (f64::INFINITY, 1);
        for runs in 1..=max_runs.min(self.most()) {
            if self.cost(runs) < cheapest.0 {
                cheapest = (self.cost(runs), runs);
            }
        }
        cheapest
    }

    /// The positions of the parts of each of `runs` runs.
    pub(super) fn runs(&self, runs: usize) -> Vec<Vec<usize>> {
        let mut block_ends = vec![self.ends.len()];
        for starts in self.last_starts[1..runs].iter().rev() {
            let end = block_ends[block_ends.len() - 1];
            block_ends.push(starts[end - 1]);
        }
        block_ends.reverse();
        starts(&block_ends)
            .zip(&block_ends)
            .map(|(from, &to)| {
                let first = if from == 0 { 0 } else { self.ends[from - 1] };
                (first..self.ends[to - 1]).collect()
            })
            .collect()
    }
}

/// Where the runs begin that end before `ends`.
fn starts(ends: &[usize]) -> impl Iterator<Item = usize> + '_ {
    std::iter::once(0).chain(ends.iter().copied())
}

/// Joins neighbours that cost least to join until no more than [`EXACT`] blocks are left. Returns
/// the position after the last part of each block.
fn joined_ends(parts: &[Part]) -> Vec<usize> {
    let mut ends: Vec<usize> = (1..=parts.len()).collect();
    let mut blocks = parts.to_vec();
    while blocks.len() > EXACT {
        let mut too_many = blocks.len() - EXACT;
        let costs: Vec<f64> = blocks
            .windows(2)
            .map(|pair| pair[0].merge_cost(pair[1]))
            .collect();
        let mut sorted = costs.clone();
        sorted.sort_by(f64::total_cmp);
        let limit = sorted[too_many.min(sorted.len()) - 1];
        let (mut next_ends, mut next_blocks) = (Vec::new(), Vec::new());
        let mut at = 0;
        while at < blocks.len() {
            // Each block joins once a round, so that no block swallows all while its costs are out
            // of date.
            if too_many > 0 && at < costs.len() && costs[at] <= limit {
                next_blocks.push(blocks[at].join(blocks[at + 1]));
                next_ends.push(ends[at + 1]);
                too_many -= 1;
                at += 2;
            } else {
                next_blocks.push(blocks[at]);
                next_ends.push(ends[at]);
                at += 1;
            }
        }
        (ends, blocks) = (next_ends, next_blocks);
    }
    ends
}

/// What the cheapest cuts of `blocks` into 1 to `max_runs` runs cost, and for each number where the
/// last run starts of those that end with each block. Dynamic programming over the number of runs;
/// of equal costs the earliest cuts.
fn cut(blocks: &Parts, max_runs: usize) -> (Vec<f64>, Vec<Vec<usize>>) {
    let n = blocks.list.len();
    let run_costs = run_costs(blocks);

    // `best[to]`: the cost of blocks `0..=to` in exactly as many runs as the round says.
    let mut best: Vec<f64> = run_costs.iter().map(|row| row[0]).collect();
    let mut last_starts: Vec<Vec<usize>> = vec![vec![0; n]];
    let mut costs = vec![best[n - 1] + LAYER_COST as f64];
    for runs in 2..=max_runs {
        let mut next = vec![f64::INFINITY; n];
        let mut starts = vec![0; n];
        for to in runs - 1..n {
            for from in (runs - 1..=to).rev() {
                // Longer runs only cost more, whatever comes before them.
                if run_costs[to][from] > next[to] {
                    break;
                }
                let cost = best[from - 1] + run_costs[to][from];
                if cost <= next[to] {
                    (next[to], starts[to]) = (cost, from);
                }
            }
        }
        best = next;
        last_starts.push(starts);
        costs.push(best[n - 1] + LAYER_COST as f64 * runs as f64);
    }
    (costs, last_starts)
}

/// In row `to` the cost of the runs `from..=to`, for each `from`.
fn run_costs(blocks: &Parts) -> Vec<Vec<f64>> {
    let mut odds = vec![0.0; blocks.causes.len()];
    let mut rows = Vec::with_capacity(blocks.list.len());
    for to in 0..blocks.list.len() {
        let mut row = vec![0.0; to + 1];
        let (mut size, mut stay) = (0.0, 1.0);
        for from in (0..=to).rev() {
            let part = blocks.list[from];
            size += part.size;
            match part.cause {
                None => stay *= part.stay,
                Some(cause) => {
                    // Of a cause as good as certain a trace is left to divide by.
                    let chance = blocks.causes[cause].min(1.0 - 1e-9);
                    let before = stay_with_odds(chance, odds[cause]);
                    odds[cause] += part.odds;
                    stay *= stay_with_odds(chance, odds[cause]) / before;
                }
            }
            row[from] = size * (1.0 - stay);
        }
        odds.fill(0.0);
        rows.push(row);
    }
    rows
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use proptest::prelude::*;

    use super::*;

    use super::super::tests::any_parts;

    fn cost(parts: &Parts, ends: &[usize]) -> f64 {
        starts(ends)
            .zip(ends)
            .map(|(from, &to)| {
                let size: f64 = parts.list[from..to].iter().map(|part| part.size).sum();
                size * (1.0 - parts.stay_of(from..to)) + LAYER_COST as f64
            })
            .sum()
    }

    proptest! {
        #[test]
        fn no_cut_is_cheaper(
            parts in any_parts(1..9),
            max_runs in 1usize..5,
        ) {
            let count = parts.list.len();
            let cuts = Cuts::of(&parts, max_runs);
            let runs = cuts.runs(cuts.cheapest(max_runs).1);
            let ends: Vec<usize> = runs.iter().map(|run| run[run.len() - 1] + 1).collect();
            let found = cost(&parts, &ends);
            for cuts in 0..1usize << (count - 1) {
                let mut ends: Vec<usize> =
                    (1..count).filter(|&end| cuts >> (end - 1) & 1 == 1).collect();
                ends.push(count);
                if ends.len() <= max_runs {
                    prop_assert!(found <= cost(&parts, &ends) * (1.0 + 1e-6));
                }
            }
        }
    }

    #[test]
    fn joins_neighbours_down_to_the_limit_and_keeps_all() {
        for n in [1, EXACT, EXACT + 1, 3 * EXACT + 7] {
            let parts: Vec<Part> = (0..n).map(|i| Part::alone((i % 7) as f64, 0.5)).collect();
            let ends = joined_ends(&parts);
            assert_eq!(ends.len(), n.min(EXACT));
            assert_eq!(ends.last(), Some(&n));
            assert!(ends.is_sorted_by(|a, b| a < b));
        }
    }

    #[test]
    fn order_puts_what_cannot_change_first_and_what_must_change_last() {
        let part = Part::alone;
        let parts = [
            part(9.0, 0.0),
            part(0.0, 0.5),
            part(9.0, 0.5),
            part(1.0, 0.5),
            part(0.0, 1.0),
        ];
        assert_eq!(order(&parts), [4, 2, 3, 1, 0]);
    }
}
