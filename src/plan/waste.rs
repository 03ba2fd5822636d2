//! Chooses which layers of an earlier image stay in the next one although some of their bytes are
//! no longer used.
//!
//! A layer in which one file of a hundred has changed need not be written again: it stays, the new
//! file goes into a layer above it, and the old one is dead weight. That is how a log-structured
//! file system writes, and as there somebody has to clean up: an image may carry so much dead
//! weight and no more, and it may have so many layers and no more. What costs least is rewritten
//! then, by what cleaning frees for what it writes (Rosenblum and Ousterhout, "The Design and
//! Implementation of a Log-Structured File System", 3.5):
//!
//! - a layer without anything of use goes; it costs nothing;
//! - while there is too much dead weight, the layer goes that has most of it for each byte that is
//!   of use and has to be written again;
//! - while there are too many layers, the one goes with the fewest bytes of use.
//!
//! What is of use in the layers that go is planned anew with what has changed, into as many layers
//! as have gone and one more, and where there is no room, into one. So an update takes one place,
//! and as places run out the small layers of earlier updates are joined, each some few times until
//! it is as large as others.

use std::cmp::Ordering;

/// How much of a layer is of use, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// What is of use.
    pub live: u64,
    /// What is not.
    pub dead: u64,
}

/// What is done with the layers of an earlier image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Which of them stay.
    pub stays: Vec<bool>,
    /// Into how many layers at most the rest goes, with what is new.
    pub for_new: usize,
}

/// Which of `layers` stay when `written` bytes of use are in none of them. At most `max_waste` of
/// the image's bytes are dead then, as a share of all, and what stays and what is written has
/// `max_layers`, if that is one at least.
pub fn keep_used(layers: &[Usage], written: u64, max_waste: f64, max_layers: usize) -> Kept {
    let mut stays: Vec<bool> = layers.iter().map(|layer| layer.live > 0).collect();
    let live: u128 = layers.iter().map(|layer| u128::from(layer.live)).sum();
    let used = (live + u128::from(written)) as f64;
    let share = max_waste.clamp(0.0, 0.99);
    // Of dead + used bytes, dead may be that share.
    let allowed = used * share / (1.0 - share);
    let mut dead: f64 = staying(layers, &stays).map(|layer| layer.dead as f64).sum();

    let mut order: Vec<usize> = (0..layers.len()).filter(|at| stays[*at]).collect();
    order.sort_by(|a, b| by_worth(layers[*a], layers[*b]).then(b.cmp(a)));
    let mut gone = Vec::new();
    for at in order {
        if dead <= allowed {
            break;
        }
        stays[at] = false;
        dead -= layers[at].dead as f64;
        gone.push(at);
    }
    // The last one may have freed so much that another one can stay.
    gone.sort_by_key(|at| std::cmp::Reverse(layers[*at].live));
    for at in gone {
        let with = dead + layers[at].dead as f64;
        if with <= allowed {
            stays[at] = true;
            dead = with;
        }
    }

    let mut order: Vec<usize> = (0..layers.len()).filter(|at| stays[*at]).collect();
    order.sort_by_key(|at| (layers[*at].live, *at));
    let gone = layers.len() - order.len();
    let is_new = written > 0 || gone > 0 || order.len() > max_layers;
    let room = max_layers.saturating_sub(usize::from(is_new));
    let joined = order.len().saturating_sub(room);
    for at in &order[..joined] {
        stays[*at] = false;
    }
    let free = max_layers.saturating_sub(order.len() - joined);
    Kept {
        stays,
        for_new: if is_new { free.clamp(1, gone + 1) } else { 0 },
    }
}

fn staying<'a>(layers: &'a [Usage], stays: &'a [bool]) -> impl Iterator<Item = &'a Usage> {
    let layers = layers.iter().zip(stays);
    layers.filter(|(_, stays)| **stays).map(|(layer, _)| layer)
}

/// The layer first that frees most for each byte that has to be written again.
fn by_worth(a: Usage, b: Usage) -> Ordering {
    let product = |dead: u64, live: u64| u128::from(dead) * u128::from(live);
    product(b.dead, a.live).cmp(&product(a.dead, b.live))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn usage(pairs: &[(u64, u64)]) -> Vec<Usage> {
        let usage = pairs.iter().map(|&(live, dead)| Usage { live, dead });
        usage.collect()
    }

    fn staying_of(pairs: &[(u64, u64)], written: u64, waste: f64, layers: usize) -> Vec<bool> {
        keep_used(&usage(pairs), written, waste, layers).stays
    }

    #[test]
    fn what_is_of_use_stays() {
        let layers = usage(&[(100, 0), (100, 9), (0, 50), (100, 0)]);
        let kept = keep_used(&layers, 9, 0.1, 64);
        assert_eq!(kept.stays, [true, true, false, true]);
        // The place of the one that goes, and one more.
        assert_eq!(kept.for_new, 2);
        assert_eq!(keep_used(&layers, 9, 0.1, 4).for_new, 1);
        // Nothing is written and nothing goes: no layer is kept free.
        let kept = keep_used(&usage(&[(1, 0); 16]), 0, 0.0, 16);
        assert_eq!((kept.stays, kept.for_new), (vec![true; 16], 0));
        assert_eq!(keep_used(&[], 5, 0.1, 1).for_new, 1);
    }

    #[test]
    fn the_layer_that_is_cheapest_to_clean_goes() {
        let layers = [(1000, 30), (10, 20), (1000, 10)];
        assert_eq!(staying_of(&layers, 60, 0.02, 64), [true, false, true]);
        // 1 in 1000 is too little for any.
        assert_eq!(staying_of(&layers, 60, 0.001, 64), [false; 3]);
        // The second goes first and is not enough; when the first is gone too, it may stay.
        let layers = [(1000, 300), (10, 20), (5000, 1)];
        assert_eq!(staying_of(&layers, 0, 0.01, 64), [false, true, true]);
    }

    #[test]
    fn the_smallest_layers_make_room() {
        let layers = [(30, 0), (10, 0), (20, 0)];
        assert_eq!(staying_of(&layers, 1, 0.5, 4), [true; 3]);
        assert_eq!(staying_of(&layers, 1, 0.5, 3), [true, false, true]);
        assert_eq!(staying_of(&layers, 0, 0.5, 2), [true, false, false]);
        assert_eq!(staying_of(&layers, 1, 0.5, 1), [false; 3]);
        assert_eq!(staying_of(&layers, 1, 0.5, 0), [false; 3]);
    }

    proptest! {
        #[test]
        fn no_image_carries_more_than_it_may(
            pairs in prop::collection::vec((0..1u64 << 40, 0..1u64 << 40), 0..80),
            written in 0..1u64 << 40,
            max_waste in 0.0..1.0,
            max_layers in 0..100usize,
        ) {
            let layers = usage(&pairs);
            let Kept { stays, for_new } = keep_used(&layers, written, max_waste, max_layers);
            prop_assert_eq!(stays.len(), layers.len());
            let kept: Vec<&Usage> = staying(&layers, &stays).collect();
            prop_assert!(kept.iter().all(|layer| layer.live > 0));
            let dead: u64 = kept.iter().map(|layer| layer.dead).sum();
            let used: u64 = written + layers.iter().map(|layer| layer.live).sum::<u64>();
            prop_assert!(dead as f64 <= max_waste * (used + dead) as f64 + 1.0);
            let is_new = written > 0 || stays.contains(&false);
            prop_assert_eq!(is_new, for_new > 0);
            prop_assert!(kept.len() + for_new <= max_layers.max(1));
        }
    }
}
