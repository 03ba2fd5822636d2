//! The plan that follows an earlier one: what stays, where new items go, and how drift is repaired.
//!
//! A layer that a client has is worth its bytes, so nothing that can stay moves. That leaves three
//! decisions, each taken by the same account, bytes over the next [`HORIZON`] pulls: what the layers
//! cost then, and what changing them now costs once, which is their bytes if they would have stayed.

use super::{LAYER_COST, Part};

/// How many pulls a change of the plan has to pay for itself in. A release lives for some 20 to 40
/// monthly pulls, and few clients are there from the first to the last.
const HORIZON: f64 = 12.0;

/// Items move when the plan costs more than this share of what a fresh one costs.
const DRIFTED: f64 = 1.10;

/// They move until it costs no more than this share.
const REPAIRED: f64 = 1.05;

/// At most so many items move at once.
const MAX_MOVES: usize = 8;

/// One layer: its place in the earlier plan, where it had one, and the positions of its parts.
pub(super) type Kept = (Option<usize>, Vec<usize>);

/// Distributes `parts` over at most `max_layers` layers of which `homes` says where each part was.
/// `fresh_cost` is what a plan without memory costs.
pub(super) fn keep(
    parts: &[Part],
    homes: &[Option<usize>],
    max_layers: usize,
    fresh_cost: f64,
) -> Vec<Kept> {
    let mut layers = Layers::earlier(parts, homes);
    while layers.0.len() > max_layers {
        layers.merge_cheapest();
    }
    let mut new: Vec<usize> = (0..parts.len()).filter(|&at| homes[at].is_none()).collect();
    // Large ones first: small ones then find layers that suit them.
    new.sort_by(|&a, &b| parts[b].size.total_cmp(&parts[a].size).then(a.cmp(&b)));
    for at in new {
        layers.add(parts, at, max_layers);
    }
    if layers.cost() > fresh_cost * DRIFTED {
        for _ in 0..MAX_MOVES {
            let moved = layers.move_best(parts, max_layers);
            if !moved || layers.cost() <= fresh_cost * REPAIRED {
                break;
            }
        }
    }
    layers
        .0
        .into_iter()
        .map(|layer| (layer.earlier, layer.members))
        .collect()
}

struct Layer {
    earlier: Option<usize>,
    /// Ascending.
    members: Vec<usize>,
    sum: Part,
}

impl Layer {
    /// Bytes of changing it now, less what it is expected to cost anyway.
    fn change(&self) -> f64 {
        match self.earlier {
            Some(_) => self.sum.size * self.sum.stay,
            None => 0.0,
        }
    }

    fn sum_without(&self, parts: &[Part], leaves: usize) -> Part {
        let others = self.members.iter().filter(|&&at| at != leaves);
        others.fold(Part::EMPTY, |sum, &at| sum.join(parts[at]))
    }
}

struct Layers(Vec<Layer>);

impl Layers {
    /// The earlier layers with what is left of them.
    fn earlier(parts: &[Part], homes: &[Option<usize>]) -> Self {
        let count = homes.iter().flatten().max().map_or(0, |last| last + 1);
        let mut layers: Vec<Layer> = (0..count)
            .map(|at| Layer {
                earlier: Some(at),
                members: Vec::new(),
                sum: Part::EMPTY,
            })
            .collect();
        for (at, home) in homes.iter().enumerate() {
            if let Some(home) = home {
                layers[*home].members.push(at);
                layers[*home].sum = layers[*home].sum.join(parts[at]);
            }
        }
        layers.retain(|layer| !layer.members.is_empty());
        Self(layers)
    }

    /// Bytes expected at the next pull.
    fn cost(&self) -> f64 {
        let costs = self.0.iter().map(|layer| layer.sum.cost());
        costs.sum::<f64>() + LAYER_COST as f64 * self.0.len() as f64
    }

    /// Makes one layer of the two that it costs least to join. The larger keeps its place.
    fn merge_cheapest(&mut self) {
        let mut best = (f64::INFINITY, 0, 1);
        for (a, one) in self.0.iter().enumerate() {
            for (b, other) in self.0.iter().enumerate().skip(a + 1) {
                let cost = HORIZON * one.sum.merge_cost(other.sum) + one.change() + other.change();
                if cost < best.0 {
                    best = (cost, a, b);
                }
            }
        }
        let (_, a, b) = best;
        let other = self.0.remove(b);
        let layer = &mut self.0[a];
        if other.sum.size > layer.sum.size {
            layer.earlier = other.earlier;
        }
        layer.members.extend(other.members);
        layer.members.sort_unstable();
        layer.sum = layer.sum.join(other.sum);
    }

    /// Puts a new part where it costs least.
    fn add(&mut self, parts: &[Part], at: usize, max_layers: usize) {
        let (_, to) = self.cheapest(parts[at], None, max_layers);
        self.put(parts, at, to);
    }

    /// The layer in which `part` costs least, the number of layers for a new one, and what that costs beyond what
    /// the layer costs anyway.
    fn cheapest(&self, part: Part, except: Option<usize>, max_layers: usize) -> (f64, usize) {
        let mut best = (f64::INFINITY, 0);
        if self.0.len() < max_layers {
            best = (HORIZON * (part.cost() + LAYER_COST as f64), self.0.len());
        }
        for (to, layer) in self.0.iter().enumerate() {
            let cost = HORIZON * (part.cost() + layer.sum.merge_cost(part)) + layer.change();
            if Some(to) != except && cost < best.0 {
                best = (cost, to);
            }
        }
        best
    }

    /// `to` is the number of layers for a new one.
    fn put(&mut self, parts: &[Part], at: usize, to: usize) {
        if to == self.0.len() {
            self.0.push(Layer {
                earlier: None,
                members: Vec::new(),
                sum: Part::EMPTY,
            });
        }
        let layer = &mut self.0[to];
        layer.members.push(at);
        layer.members.sort_unstable();
        layer.sum = layer.sum.join(parts[at]);
    }

    /// Moves the item whose move saves most, if it pays. Layers with a single item stay.
    fn move_best(&mut self, parts: &[Part], max_layers: usize) -> bool {
        let mut best = (0.0, 0, 0, 0);
        for (from, layer) in self.0.iter().enumerate() {
            if layer.members.len() < 2 {
                continue;
            }
            for &at in &layer.members {
                let rest = layer.sum_without(parts, at);
                let saved = HORIZON * (layer.sum.cost() - rest.cost()) - layer.change();
                if saved <= best.0 {
                    continue;
                }
                let (added, to) = self.cheapest(parts[at], Some(from), max_layers);
                if saved - added > best.0 {
                    best = (saved - added, at, from, to);
                }
            }
        }
        let (gain, at, from, to) = best;
        if gain <= 0.0 {
            return false;
        }
        self.put(parts, at, to);
        let rest = self.0[from].sum_without(parts, at);
        self.0[from].sum = rest;
        self.0[from].members.retain(|&member| member != at);
        true
    }
}
