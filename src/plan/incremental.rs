//! The plan that follows an earlier one: which items stay, where new items go, and when layers are
//! reorganised because the plan has drifted from what it should be.
//!
//! A layer that a client has is worth its bytes, so nothing that can stay moves. That leaves three
//! decisions, each taken by the same account, bytes over the next [`HORIZON`] pulls: what the
//! layers cost then, and what changing them now costs once, which is their bytes if they would have
//! stayed.

use super::Parts;
use super::layers::{Layers, NONE};

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
pub(super) type PlacedLayer = (Option<usize>, Vec<usize>);

/// Distributes `parts` over at most `max_layers` layers of which `homes` says where each part was.
/// `initial_cost` is what a plan without memory costs.
pub(super) fn follow(
    parts: &Parts,
    homes: &[Option<usize>],
    max_layers: usize,
    initial_cost: f64,
) -> Vec<PlacedLayer> {
    let mut kept = KeptLayers::earlier(parts, homes);
    while kept.layers.len() > max_layers {
        kept.merge_cheapest();
    }
    let mut new: Vec<usize> = (0..homes.len()).filter(|&at| homes[at].is_none()).collect();
    // Large ones first: small ones then find layers that suit them.
    let size = |at: usize| parts.list[at].size;
    new.sort_by(|&a, &b| size(b).total_cmp(&size(a)).then(a.cmp(&b)));
    for at in new {
        let (_, to) = kept.cheapest(at, NONE, max_layers);
        kept.put(at, to);
    }
    if kept.layers.total_cost() > initial_cost * DRIFTED {
        for _ in 0..MAX_MOVES {
            let moved = kept.move_best(max_layers);
            if !moved || kept.layers.total_cost() <= initial_cost * REPAIRED {
                break;
            }
        }
    }
    kept.places.into_iter().zip(kept.layers.groups).collect()
}

struct KeptLayers<'a> {
    parts: &'a Parts,
    layers: Layers<'a>,
    /// For each layer, its place in the earlier plan.
    places: Vec<Option<usize>>,
}

impl<'a> KeptLayers<'a> {
    /// The earlier layers with what is left of them.
    fn earlier(parts: &'a Parts, homes: &[Option<usize>]) -> Self {
        let count = homes.iter().flatten().max().map_or(0, |last| last + 1);
        let mut groups = vec![Vec::new(); count];
        for (at, home) in homes.iter().enumerate() {
            if let Some(home) = home {
                groups[*home].push(at);
            }
        }
        let is_there = |place: &usize| !groups[*place].is_empty();
        let places = (0..count).filter(is_there).map(Some).collect();
        groups.retain(|group| !group.is_empty());
        Self {
            parts,
            layers: Layers::new(parts, groups),
            places,
        }
    }

    /// Bytes of changing a layer now, less what it is expected to cost anyway.
    fn change(&self, index: usize) -> f64 {
        match self.places[index] {
            Some(_) => self.layers.size(index) * self.layers.stay(index),
            None => 0.0,
        }
    }

    /// Makes one layer of the two that it costs least to join. The larger keeps its place.
    fn merge_cheapest(&mut self) {
        let mut best = (f64::INFINITY, 0, 1);
        for one in 0..self.layers.len() {
            for other in one + 1..self.layers.len() {
                let cost = HORIZON * self.layers.merge_cost(one, other)
                    + self.change(one)
                    + self.change(other);
                if cost < best.0 {
                    best = (cost, one, other);
                }
            }
        }
        let (_, one, other) = best;
        if self.layers.size(other) > self.layers.size(one) {
            self.places.swap(one, other);
        }
        self.layers.merge(one, other);
        self.places.swap_remove(other);
    }

    /// The layer in which a part costs least, or the number of layers for a new one, and before it
    /// what that costs beyond what the layer costs anyway. Where no layer suits the part and none
    /// may be added, any will do.
    fn cheapest(&self, at: usize, except: Option<usize>, max_layers: usize) -> (f64, usize) {
        let mut best = (f64::INFINITY, 0);
        if self.layers.len() < max_layers {
            best = (
                HORIZON * self.parts.list[at].layer_cost(),
                self.layers.len(),
            );
        }
        let others = || (0..self.layers.len()).filter(|to| Some(*to) != except);
        let suits = |to: &usize| self.layers.suits(*to, at, max_layers);
        let none = best.0.is_infinite() && !others().any(|to| suits(&to));
        for to in others().filter(|to| none || suits(to)) {
            let more = self.layers.cost_with(to, NONE, Some(at)) - self.layers.cost(to);
            let cost = HORIZON * more + self.change(to);
            if cost < best.0 {
                best = (cost, to);
            }
        }
        best
    }

    /// Adds a part that is in no layer; `to` is the number of layers for a new one.
    fn put(&mut self, at: usize, to: usize) {
        if to == self.layers.len() {
            self.places.push(None);
        }
        self.layers.put(at, to);
    }

    /// Moves the item whose move saves most, if it pays. Layers with a single item stay, and so do
    /// items that share a cause.
    fn move_best(&mut self, max_layers: usize) -> bool {
        let mut best = (0.0, 0, 0);
        for from in 0..self.layers.len() {
            if self.layers.groups[from].len() < 2 {
                continue;
            }
            for &at in &self.layers.groups[from] {
                if self.parts.list[at].cause.is_some() {
                    continue;
                }
                let less = self.layers.cost(from) - self.layers.cost_with(from, Some(at), NONE);
                let saved = HORIZON * less - self.change(from);
                if saved <= best.0 {
                    continue;
                }
                let (added, to) = self.cheapest(at, Some(from), max_layers);
                if saved - added > best.0 {
                    best = (saved - added, at, to);
                }
            }
        }
        let (gain, at, to) = best;
        if gain <= 0.0 {
            return false;
        }
        if to == self.layers.len() {
            self.places.push(None);
        }
        // Its layer had another item, so that none is gone.
        self.layers.transfer(at, to);
        true
    }
}
