//! The plan without memory: items of one cause as a whole first, then split where that pays.
//!
//! What a source's update leaves alone is known far worse than how often it comes. So
//! the parts of a source share a layer with each other or, all together, with others, but a part
//! never lies beside another source's: an estimate that is wrong costs the bytes of its own source,
//! and spoils nobody else's layer.

use std::collections::HashSet;

use super::layers::Layers;
use super::refine::refine;
use super::runs::{self, Cuts};
use super::{FEW_LAYERS, Part, Parts};

/// A source is split into at most so many layers.
const MAX_SPLIT: usize = 24;

/// In how many steps layers are set aside for splitting.
const GRAINS: usize = 8;

/// What is sure to change has a layer each as long as that is no more than one of so many.
const SURE_SHARE: usize = 16;

/// Distributes `parts` over at most `max_layers` layers.
pub(super) fn fresh(parts: &Parts, max_layers: usize) -> Vec<Vec<usize>> {
    let is_sure = |at: &usize| parts.list[*at].stay == 0.0;
    let (sure, others): (Vec<usize>, Vec<usize>) = (0..parts.list.len()).partition(is_sure);
    if max_layers < FEW_LAYERS {
        let (whole, loose) = (best_of(parts, max_layers), loose(parts, max_layers));
        let cost = |groups: &Vec<Vec<usize>>| Layers::new(parts, groups.clone()).total_cost();
        return if cost(&loose) < cost(&whole) {
            loose
        } else {
            whole
        };
    }
    if sure.is_empty() || others.is_empty() {
        return best_of(parts, max_layers);
    }
    // One of them may have stayed after all, when an image is built again of the same packages.
    let of_sure: Vec<Vec<usize>> = match sure.len() * SURE_SHARE <= max_layers {
        true => sure.into_iter().map(|at| vec![at]).collect(),
        false => vec![sure],
    };
    let of_others = best_of(&parts.reordered(&others), max_layers - of_sure.len());
    let original = |group: Vec<usize>| group.into_iter().map(|at| others[at]).collect();
    let groups = of_others.into_iter().map(original);
    groups.chain(of_sure).collect()
}

/// The plan of parts that are not held together.
fn loose(parts: &Parts, max_layers: usize) -> Vec<Vec<usize>> {
    if parts.list.is_empty() {
        return Vec::new();
    }
    let order = runs::order(&parts.list);
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
    // Only a source that has a layer of its own can be split, which the plan decides only then: what it leaves of
    // the reserve goes back.
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

/// A split that saves this share of all for each of its layers is made at any rate, as that of an initramfs from its kernel.
const PLAIN: f64 = 0.02;

/// Layers to keep for splitting, so that both together cost least: of equal costs the fewest. A multiple of a
/// [`GRAINS`]th of all, since one layer more for splits cuts everything else anew.
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

/// The steps that fit into so many layers, in their order: of a whole that `may` be split, each only after those before
/// it.
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

/// Parts joined to what changes together.
struct Wholes {
    /// The positions of each whole's parts, ascending.
    members: Vec<Vec<usize>>,
    /// The wholes, in the order that `runs` cuts. They share no causes.
    parts: Parts,
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
    fn of(parts: &Parts) -> Self {
        let mut members: Vec<Vec<usize>> = Vec::new();
        let mut of_cause: Vec<Option<usize>> = vec![None; parts.causes.len()];
        for (at, part) in parts.list.iter().enumerate() {
            let known = part.cause.and_then(|cause| of_cause[cause]);
            match known {
                Some(whole) => members[whole].push(at),
                None => {
                    if let Some(cause) = part.cause {
                        of_cause[cause] = Some(members.len());
                    }
                    members.push(vec![at]);
                }
            }
        }
        let list = members.iter().map(|members| {
            let size = members.iter().map(|&at| parts.list[at].size).sum();
            Part::alone(size, parts.stay_of(members.iter().copied()))
        });
        let list: Vec<Part> = list.collect();
        let order = runs::order(&list);
        Self {
            members: order.iter().map(|&at| members[at].clone()).collect(),
            parts: Parts {
                list: order.iter().map(|&at| list[at]).collect(),
                causes: Vec::new(),
            },
        }
    }

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

    /// How each whole would be split further and further, the best first: what saves most per layer.
    fn steps(&self, parts: &Parts, max_layers: usize) -> Vec<Step> {
        let mut steps: Vec<Step> = Vec::new();
        for (whole, members) in self.members.iter().enumerate() {
            if members.len() < 2 {
                continue;
            }
            // Cold ones first. Their odds per byte would set large and small ones apart, which the cause, that all
            // have in common, does not.
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

    /// Splits the wholes that are alone in their layer, at most `reserved` layers more, and returns how many more
    /// there are.
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
