//! The cheapest plan for an image of a few layers. The rules of `initial` need many layers to keep
//! unlike things apart; with few, cost alone decides.

use std::collections::HashSet;

use super::Parts;
use super::layers::Layers;
use super::partition::{self, Cuts};
use super::refine::refine;
use super::wholes::Wholes;

/// A source is split into at most so many layers.
const MAX_SPLIT: usize = 24;

/// In how many steps layers are set aside for splitting.
const GRAINS: usize = 8;

/// Distributes `parts` over at most `max_layers` layers, fewer than
/// [`FEW_LAYERS`](super::FEW_LAYERS): in wholes that are split, or in parts that are not held
/// together, whichever costs less.
pub(super) fn few_layers(parts: &Parts, max_layers: usize) -> Vec<Vec<usize>> {
    let (whole, loose) = (best_of(parts, max_layers), loose(parts, max_layers));
    let cost = |groups: &Vec<Vec<usize>>| Layers::new(parts, groups.clone()).total_cost();
    if cost(&loose) < cost(&whole) {
        loose
    } else {
        whole
    }
}

/// The plan of parts that are not held together.
fn loose(parts: &Parts, max_layers: usize) -> Vec<Vec<usize>> {
    if parts.list.is_empty() {
        return Vec::new();
    }
    let order = partition::order(&parts.list);
    let ordered = parts.reordered(&order);
    let cuts = Cuts::of(&ordered, max_layers);
    let runs = cuts.runs(cuts.cheapest(max_layers).1);
    let groups = refine(&ordered, runs, max_layers).into_iter();
    let original = groups.map(|group| {
        let mut group: Vec<usize> = group.into_iter().map(|at| order[at]).collect();
        group.sort_unstable();
        group
    });
    original.collect()
}

/// The plan of wholes, split where that pays.
fn best_of(parts: &Parts, max_layers: usize) -> Vec<Vec<usize>> {
    let wholes = Wholes::of(parts);
    if wholes.members.is_empty() {
        return Vec::new();
    }
    let cuts = Cuts::of(&wholes.parts, max_layers);
    let unsplit = wholes.planned(&cuts, max_layers, 0);
    let steps = wholes.steps(parts, max_layers);
    let mut reserved = best_reserve(&cuts, &steps, max_layers);
    let mut best = (Layers::new(parts, unsplit.clone()).total_cost(), unsplit);
    // Only a source that has a layer of its own can be split, which the plan decides only then:
    // what it leaves of the reserve goes back.
    while reserved > 0 {
        let mut groups = wholes.planned(&cuts, max_layers, reserved);
        let used = wholes.split(&mut groups, &steps, reserved);
        let cost = Layers::new(parts, groups.clone()).total_cost();
        if cost < best.0 {
            best = (cost, groups);
        }
        reserved = if used < reserved { used } else { 0 };
    }
    best.1
}

/// A split that saves this share of all for each of its layers is made at any rate, as that of an
/// initramfs from its kernel.
const PLAIN: f64 = 0.02;

/// Layers to keep for splitting, so that both together cost least: of equal costs the fewest. A
/// multiple of a [`GRAINS`]th of all, since one layer more for splits cuts everything else anew.
fn best_reserve(cuts: &Cuts, steps: &[Step], max_layers: usize) -> usize {
    let saved = |reserved: usize| {
        let taken = fitting(steps, reserved, |_| true);
        taken.map(|step| step.saved).sum::<f64>()
    };
    let all = cuts.cheapest(max_layers).0;
    let plain = steps
        .iter()
        .take_while(|step| step.saved > all * PLAIN * step.layers as f64);
    let first = plain.map(|step| step.layers).sum::<usize>() % max_layers;
    let grain = max_layers.div_ceil(GRAINS);
    let mut best = (f64::INFINITY, 0);
    for reserved in [0].into_iter().chain((first..max_layers).step_by(grain)) {
        let cost = cuts.cheapest(max_layers - reserved).0 - saved(reserved);
        if cost < best.0 {
            best = (cost, reserved);
        }
    }
    best.1
}

/// The steps that fit into so many layers, in their order: of a whole that `may` be split, each
/// only after those before it.
fn fitting(
    steps: &[Step],
    mut layers: usize,
    may: impl Fn(usize) -> bool,
) -> impl Iterator<Item = &Step> {
    let mut stopped: HashSet<usize> = HashSet::new();
    steps.iter().filter(move |step| {
        if stopped.contains(&step.whole) || step.layers > layers || !may(step.whole) {
            stopped.insert(step.whole);
            return false;
        }
        layers -= step.layers;
        true
    })
}

/// One more split of a whole.
struct Step {
    /// The whole's position.
    whole: usize,
    /// How many layers more than the step before it.
    layers: usize,
    /// What that saves, in bytes.
    saved: f64,
    /// The layers after it, as positions of parts.
    groups: Vec<Vec<usize>>,
}

impl Wholes {
    /// The plan of wholes that leaves `reserved` layers.
    fn planned(&self, cuts: &Cuts, max_layers: usize, reserved: usize) -> Vec<Vec<usize>> {
        let budget = max_layers - reserved;
        let runs = cuts.cheapest(budget).1;
        let groups = refine(&self.parts, cuts.runs(runs), budget);
        let parts_of = |group: Vec<usize>| {
            let parts = group.iter().flat_map(|&whole| self.members[whole].iter());
            let mut parts: Vec<usize> = parts.copied().collect();
            parts.sort_unstable();
            parts
        };
        groups.into_iter().map(parts_of).collect()
    }

    /// How each whole would be split further and further, the best first: what saves most per
    /// layer.
    fn steps(&self, parts: &Parts, max_layers: usize) -> Vec<Step> {
        let mut steps: Vec<Step> = Vec::new();
        for (whole, members) in self.members.iter().enumerate() {
            if members.len() < 2 {
                continue;
            }
            // Cold ones first. Their odds per byte would set large and small ones apart, which the
            // cause, that all have in common, does not.
            let mut order = members.clone();
            order.sort_by(|&a, &b| parts.list[a].odds.total_cmp(&parts.list[b].odds));
            let cuts = Cuts::of(&parts.reordered(&order), MAX_SPLIT.min(max_layers));
            let mut from = 1;
            loop {
                let gain = |runs: usize| (cuts.cost(from) - cuts.cost(runs)) / (runs - from) as f64;
                let further = from + 1..=cuts.most();
                let best = further.max_by(|a, b| gain(*a).total_cmp(&gain(*b)).then(b.cmp(a)));
                let Some(to) = best.filter(|to| gain(*to) > 0.0) else {
                    break;
                };
                let groups = cuts.runs(to).into_iter();
                let groups = groups.map(|run| {
                    let mut group: Vec<usize> = run.into_iter().map(|at| order[at]).collect();
                    group.sort_unstable();
                    group
                });
                steps.push(Step {
                    whole,
                    layers: to - from,
                    saved: cuts.cost(from) - cuts.cost(to),
                    groups: groups.collect(),
                });
                from = to;
            }
        }
        // Gains per layer fall within a whole, so that its steps stay in their order.
        let rate = |step: &Step| step.saved / step.layers as f64;
        steps.sort_by(|a, b| rate(b).total_cmp(&rate(a)));
        steps
    }

    /// Splits the wholes that are alone in their layer, at most `reserved` layers more, and returns
    /// how many more there are.
    fn split(&self, groups: &mut Vec<Vec<usize>>, steps: &[Step], reserved: usize) -> usize {
        let is_alone = |whole: usize| groups.contains(&self.members[whole]);
        let mut best: Vec<Option<&Step>> = vec![None; self.members.len()];
        let mut used = 0;
        for step in fitting(steps, reserved, is_alone) {
            used += step.layers;
            best[step.whole] = Some(step);
        }
        for step in best.into_iter().flatten() {
            groups.retain(|group| *group != self.members[step.whole]);
            groups.extend(step.groups.iter().cloned());
        }
        used
    }
}
