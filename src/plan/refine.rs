//! Improves a plan by moving and swapping items, where that pays well.

use super::layers::{Layers, NONE};
use super::{LAYER_COST, Parts};

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
pub(super) fn refine(parts: &Parts, groups: Vec<Vec<usize>>, max_layers: usize) -> Vec<Vec<usize>> {
    let mut layers = Layers::new(parts, groups);
    let least_gain = layers.total_cost() * WORTHWHILE;
    for _ in 0..MAX_ROUNDS {
        let moved = move_items(&mut layers, parts, max_layers, least_gain);
        let swapped = parts.list.len() <= MAX_SWAPPED && swap_items(&mut layers, parts, least_gain);
        if !moved && !swapped {
            break;
        }
    }
    layers.groups
}

/// Moves each item to the layer where it costs least, or into a new one.
fn move_items(layers: &mut Layers<'_>, parts: &Parts, max_layers: usize, least_gain: f64) -> bool {
    let mut changed = false;
    for (at, part) in parts.list.iter().enumerate() {
        let home = layers.home(at);
        let saved = layers.cost(home) - layers.cost_with(home, Some(at), NONE);
        if saved <= least_gain {
            continue;
        }
        let mut best = (f64::INFINITY, layers.len());
        if layers.groups[home].len() > 1 && layers.len() < max_layers {
            best.0 = part.layer_cost();
        }
        for index in 0..layers.len() {
            if index == home {
                continue;
            }
            let added = layers.cost_with(index, NONE, Some(at)) - layers.cost(index);
            if added < best.0 {
                best = (added, index);
            }
        }
        if saved - best.0 > least_gain {
            layers.transfer(at, best.1);
            changed = true;
        }
    }
    changed
}

/// Exchanges two items of different layers, where neither alone would move.
fn swap_items(layers: &mut Layers<'_>, parts: &Parts, least_gain: f64) -> bool {
    let mut changed = false;
    for a in 0..parts.list.len() {
        let mut best = (least_gain, a);
        let home = layers.home(a);
        for b in a + 1..parts.list.len() {
            let other = layers.home(b);
            if other == home {
                continue;
            }
            let now = layers.cost(home) + layers.cost(other);
            if now - 2.0 * LAYER_COST as f64 <= best.0 {
                continue;
            }
            let then = layers.cost_with(home, Some(a), Some(b))
                + layers.cost_with(other, Some(b), Some(a));
            if now - then > best.0 {
                best = (now - then, b);
            }
        }
        if best.1 != a {
            layers.exchange(a, best.1);
            changed = true;
        }
    }
    changed
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use proptest::prelude::*;

    use super::super::tests::any_parts;
    use super::*;

    proptest! {
        /// From any start, not only a good one.
        #[test]
        fn never_makes_a_plan_worse(
            (parts, homes) in any_parts(1..30).prop_flat_map(|parts| {
                let count = parts.list.len();
                (Just(parts), prop::collection::vec(0usize..5, count))
            }),
            more in 0usize..3,
        ) {
            let mut start = vec![Vec::new(); 5];
            for (at, home) in homes.iter().enumerate() {
                start[*home].push(at);
            }
            start.retain(|group| !group.is_empty());
            let max_layers = start.len() + more;
            let before = Layers::new(&parts, start.clone()).total_cost();

            let groups = refine(&parts, start, max_layers);
            let after = Layers::new(&parts, groups.clone()).total_cost();
            prop_assert!(after <= before * (1.0 + 1e-12));
            prop_assert!(groups.len() <= max_layers && groups.iter().all(|group| !group.is_empty()));
            let mut all = groups.concat();
            all.sort_unstable();
            prop_assert_eq!(all, (0..parts.list.len()).collect::<Vec<_>>());
        }
    }
}
