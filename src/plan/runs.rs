//! The best plan among those that cut one order of the items into runs.
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

use super::{LAYER_COST, Part};

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

/// Cuts `parts` into at most `max_layers` runs with the lowest cost, [`LAYER_COST`] included: exact
/// for up to [`EXACT`] parts; of more it makes at most [`EXACT`] runs, far beyond what container
/// stores take. Each run lists the positions of its parts.
pub(super) fn best_runs(parts: &[Part], max_layers: usize) -> Vec<Vec<usize>> {
    if parts.is_empty() {
        return Vec::new();
    }
    let ends = joined_ends(parts);
    let blocks: Vec<Part> = starts(&ends)
        .zip(&ends)
        .map(|(from, &to)| {
            parts[from..to]
                .iter()
                .fold(Part::EMPTY, |sum, &part| sum.join(part))
        })
        .collect();
    let block_ends = cut(&blocks, max_layers.min(blocks.len()));
    starts(&block_ends)
        .zip(&block_ends)
        .map(|(from, &to)| {
            let first = if from == 0 { 0 } else { ends[from - 1] };
            (first..ends[to - 1]).collect()
        })
        .collect()
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

/// The cheapest cut of `blocks` into at most `max_runs` runs, as the position after each run.
/// Dynamic programming over the number of runs; of equal costs the fewest runs and the earliest
/// cuts.
fn cut(blocks: &[Part], max_runs: usize) -> Vec<usize> {
    let n = blocks.len();
    // Row `to` holds the cost of the runs `from..=to`, for each `from`.
    let run_costs: Vec<Vec<f64>> = (0..n)
        .map(|to| {
            let mut row = vec![0.0; to + 1];
            let mut run = Part::EMPTY;
            for from in (0..=to).rev() {
                run = run.join(blocks[from]);
                row[from] = run.cost();
            }
            row
        })
        .collect();

    // `best[to]`: the cost of blocks `0..=to` in exactly as many runs as the round says.
    let mut best: Vec<f64> = run_costs.iter().map(|row| row[0]).collect();
    let mut last_starts: Vec<Vec<usize>> = vec![vec![0; n]];
    let mut cheapest = (best[n - 1] + LAYER_COST as f64, 1);
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
        let cost = best[n - 1] + LAYER_COST as f64 * runs as f64;
        if cost < cheapest.0 {
            cheapest = (cost, runs);
        }
    }

    let mut ends = vec![n];
    for starts in last_starts[1..cheapest.1].iter().rev() {
        let end = ends[ends.len() - 1];
        ends.push(starts[end - 1]);
    }
    ends.reverse();
    ends
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use proptest::prelude::*;

    use super::*;

    fn cost(parts: &[Part], ends: &[usize]) -> f64 {
        starts(ends)
            .zip(ends)
            .map(|(from, &to)| {
                let sum = parts[from..to]
                    .iter()
                    .fold(Part::EMPTY, |sum, &part| sum.join(part));
                sum.cost() + LAYER_COST as f64
            })
            .sum()
    }

    proptest! {
        #[test]
        fn no_cut_is_cheaper(
            given in prop::collection::vec((0u32..500_000, 0.0..=1.0f64), 1..9),
            max_runs in 1usize..5,
        ) {
            let parts: Vec<Part> =
                given.iter().map(|&(size, stay)| Part { size: size.into(), stay }).collect();
            let found = cost(&parts, &cut(&parts, max_runs));
            for cuts in 0..1usize << (parts.len() - 1) {
                let mut ends: Vec<usize> =
                    (1..parts.len()).filter(|&end| cuts >> (end - 1) & 1 == 1).collect();
                ends.push(parts.len());
                if ends.len() <= max_runs {
                    prop_assert!(found <= cost(&parts, &ends) * (1.0 + 1e-12));
                }
            }
        }
    }

    #[test]
    fn joins_neighbours_down_to_the_limit_and_keeps_all() {
        for n in [1, EXACT, EXACT + 1, 3 * EXACT + 7] {
            let parts: Vec<Part> = (0..n)
                .map(|i| Part {
                    size: (i % 7) as f64,
                    stay: 0.5,
                })
                .collect();
            let ends = joined_ends(&parts);
            assert_eq!(ends.len(), n.min(EXACT));
            assert_eq!(ends.last(), Some(&n));
            assert!(ends.is_sorted_by(|a, b| a < b));
        }
    }

    #[test]
    fn order_puts_what_cannot_change_first_and_what_must_change_last() {
        let part = |size, stay| Part { size, stay };
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
