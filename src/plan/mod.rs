//! Which component goes into which layer.
//!
//! A client that updates fetches every layer that changed, whole. A layer changes when any of its
//! items does, so that the plan with the fewest expected bytes keeps apart what changes at
//! different times, within a budget of layers:
//!
//! ```text
//! cost(plan) = sum over layers of size * (1 - product over its items of (1 - chance))
//!            + LAYER_COST * number of layers
//! ```
//!
//! where items that share a cause (the parts of one source, a kernel and its initramfs) are one
//! factor, with the chance `C` that the cause occurs: `1 - C * O / (1 + O)`, where `O` is the sum
//! of the items' odds to change then, `chance / (C - chance)` each. Odds are added up, and not
//! chances multiplied, since what an update is about lies together; and two halves of a part are
//! then as likely to change as the part.
//!
//! Two things make updates cheap, and they pull apart: a plan that fits these chances, and a plan
//! that is the same for the next image, of which a package more or less must not move others.
//! `initial` is the plan of an image that knows no other, and puts the second first; its law is
//! told there. Of less than eight layers `few_layers` makes the cheapest plan that it finds:
//! `partition` finds the best among those that cut one particular order of the items into runs
//! (odds to change per byte), and `refine` moves and swaps items out of that order where it pays
//! well. Against all partitions of small cases those are optimal in 95 % or more, at worst 1.05
//! times the optimum (held by tests). `incremental` is the plan that follows an earlier one.
//! `waste` chooses the layers of an earlier image that stay although not all of their bytes are of
//! use any more.
//!
//! Everything here is a function of its arguments, and of nothing but additions, multiplications,
//! divisions and comparisons of `f64` in a fixed order: any machine gives the same plan.

use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroUsize;

mod few_layers;
mod incremental;
mod initial;
mod layers;
mod partition;
mod refine;
#[cfg(test)]
mod tests;
mod waste;
mod wholes;

pub(crate) use waste::{Kept, Usage, keep_used};

/// What one more layer costs, in bytes, whether or not it changes.
///
/// A layer that is fetched is a request and its answer's headers, mostly with a redirect to a
/// second server (some 4 KiB together), and a round trip, in which a link of 10 Mbit/s and 10 ms
/// would have carried 12 KiB. A layer that is not fetched still has a descriptor, a diff id and a
/// history entry in each manifest and config (some 500 bytes), and its parent directories once
/// more. 16 KiB is the sum, rounded. It only decides about layers of that order of size; the budget
/// decides about the rest.
pub const LAYER_COST: u64 = 16 * 1024;

/// From so many layers on a plan leaves one free.
const MAKES_ROOM: usize = 32;

/// With so many layers or more there is one for what is sure to change: a package database belongs
/// with nothing that is to stay, however small that is. With fewer, parts of a source go wherever
/// they cost least.
const FEW_LAYERS: usize = 8;

/// Something that is placed whole: a component, most often a package.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    /// Breaks ties, and orders the items of a layer. Need not be unique.
    pub name: String,
    /// What a client fetches for it, in bytes.
    pub size: u64,
    /// How likely it changes until a client's next pull. Clamped to `0..=1`; NaN counts as 1, since
    /// what is unknown must not spoil what is known to be stable.
    pub chance: f64,
    /// What makes it change, where it shares that with other items: those of one cause change
    /// in the same update, or none of them does. The cause occurs with the highest chance among
    /// its items, and each item then changes, by itself, as often as its own chance asks for.
    pub cause: Option<String>,
}

/// One layer of a [`Plan`]; never empty.
#[derive(Debug, Clone, PartialEq)]
pub struct PlannedLayer {
    /// Indices into the items that were given, ordered by name.
    pub items: Vec<usize>,
    /// Sum of the items' sizes in bytes, saturating.
    pub size: u64,
    /// How likely the layer changes, that is any of its items, in `0..=1`.
    pub chance: f64,
}

/// Layers in the order in which they are stacked.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Plan {
    /// Those of an earlier plan first, in its order. Then stable ones before others, since
    /// container stores key a layer by the whole chain below it: what lies above a layer that
    /// changed is unpacked again. Equal chances are ordered by the first item's name.
    pub layers: Vec<PlannedLayer>,
}

impl Plan {
    /// Expected bytes that a client fetches at its next update, with [`LAYER_COST`] for each layer.
    pub fn expected_bytes(&self) -> f64 {
        self.layers
            .iter()
            .map(|layer| layer.size as f64 * layer.chance + LAYER_COST as f64)
            .sum()
    }
}

/// Distributes `items` over at most `max_layers` layers so that [`Plan::expected_bytes`] is small.
///
/// Every item is in exactly one layer and no layer is empty; without items there are no layers.
/// Fewer layers than allowed are used where one more would not pay, and of 32 or more one at least
/// is left free for what the next image brings. The order of `items` does not matter.
///
/// One item more, less or of another size, or of another chance, moves few others.
///
/// `previous` is the plan of the image that clients have, as the names of each layer's items. Items
/// stay in their layer; names that are gone are forgotten, of a name in several layers the first
/// counts. New items go where they cost least, and layers beyond the budget are merged where that
/// costs least. Only when the plan has become much worse than one without memory would be (the
/// limits are in `incremental`), some items move.
pub fn plan(items: &[Item], max_layers: NonZeroUsize, previous: Option<&[Vec<String>]>) -> Plan {
    let by_name = indices_by_name(items);
    let parts = Parts::of(by_name.iter().map(|&i| &items[i]));
    let initial = initial::initial(&parts, max_layers.get() - room(max_layers));
    let homes = previous.map(|layers| {
        let earlier = layer_by_name(layers);
        let home = |&i: &usize| earlier.get(items[i].name.as_str()).copied();
        by_name.iter().map(home).collect::<Vec<_>>()
    });
    let groups = match homes {
        Some(homes) if homes.iter().any(Option::is_some) => {
            let initial_cost = layers::Layers::new(&parts, initial).total_cost();
            incremental::follow(&parts, &homes, max_layers.get(), initial_cost)
        }
        _ => initial.into_iter().map(|group| (None, group)).collect(),
    };

    let mut layers: Vec<(usize, Vec<usize>, PlannedLayer)> = groups
        .into_iter()
        .map(|(earlier, group)| {
            let stay = parts.stay_of(group.iter().copied());
            let members = group.iter().map(|&rank| by_name[rank]).collect();
            let layer = planned_layer(items, members, 1.0 - stay);
            (earlier.unwrap_or(usize::MAX), group, layer)
        })
        .collect();
    layers.sort_by(|(place_a, ranks_a, a), (place_b, ranks_b, b)| {
        place_a
            .cmp(place_b)
            .then_with(|| a.chance.total_cmp(&b.chance))
            .then_with(|| ranks_a.cmp(ranks_b))
    });
    Plan {
        layers: layers.into_iter().map(|(.., layer)| layer).collect(),
    }
}

/// Layers that a plan without memory leaves free: the next plan then has one for what is new, which
/// else would take a layer along that clients have. Of a small budget it would be too much.
fn room(max_layers: NonZeroUsize) -> usize {
    usize::from(max_layers.get() >= MAKES_ROOM)
}

fn layer_by_name(layers: &[Vec<String>]) -> HashMap<&str, usize> {
    let mut layer_of = HashMap::new();
    for (at, names) in layers.iter().enumerate() {
        for name in names {
            layer_of.entry(name.as_str()).or_insert(at);
        }
    }
    layer_of
}

/// Indices of `items` by name, and of equal names by what else tells the items apart.
fn indices_by_name(items: &[Item]) -> Vec<usize> {
    let mut indices: Vec<usize> = (0..items.len()).collect();
    indices.sort_by(|&a, &b| {
        let (x, y) = (&items[a], &items[b]);
        x.name
            .cmp(&y.name)
            .then(x.size.cmp(&y.size))
            .then(clamped(x.chance).total_cmp(&clamped(y.chance)))
            .then_with(|| x.cause.cmp(&y.cause))
            .then(a.cmp(&b))
    });
    indices
}

fn planned_layer(items: &[Item], members: Vec<usize>, chance: f64) -> PlannedLayer {
    let sizes = members.iter().map(|&i| items[i].size);
    PlannedLayer {
        size: sizes.fold(0, u64::saturating_add),
        items: members,
        chance,
    }
}

/// A number that stands for a name: FNV-1a, and SplitMix64's last steps, which spread it over all
/// bits.
fn key(name: &str) -> u64 {
    let fnv = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    let mut hash = name.bytes().fold(0xcbf2_9ce4_8422_2325, fnv);
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

fn clamped(chance: f64) -> f64 {
    if chance.is_nan() {
        1.0
    } else {
        // The sum turns -0.0, which `total_cmp` tells apart, into 0.0.
        chance.clamp(0.0, 1.0) + 0.0
    }
}

/// What the cost of a layer depends on, for one item or for several together.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Part {
    /// In bytes. A float, so that sums cannot overflow.
    size: f64,
    /// The chance that nothing in it changes.
    stay: f64,
    /// The position in [`Parts::causes`] of what it shares with others.
    cause: Option<usize>,
    /// The odds that it changes when its cause occurs; infinite when it does for sure.
    odds: f64,
    /// Stands for its name, or that of its cause.
    key: u64,
}

impl Part {
    fn alone(size: f64, stay: f64) -> Part {
        Part {
            size,
            stay,
            cause: None,
            odds: f64::INFINITY,
            key: 0,
        }
    }

    /// Both as one, as if they had nothing in common.
    fn join(self, other: Part) -> Part {
        Part::alone(self.size + other.size, self.stay * other.stay)
    }

    /// Bytes that one layer of both costs more than one layer for each, without [`LAYER_COST`] and
    /// as if they had nothing in common: each side is fetched in vain when only the other one
    /// changes. Never negative.
    fn merge_cost(self, other: Part) -> f64 {
        self.size * self.stay * (1.0 - other.stay) + other.size * other.stay * (1.0 - self.stay)
    }
}

/// What is planned, as numbers.
#[derive(Debug, Clone)]
struct Parts {
    list: Vec<Part>,
    /// The chance of each cause that several parts have.
    causes: Vec<f64>,
}

impl Parts {
    fn of<'a>(items: impl Iterator<Item = &'a Item> + Clone) -> Self {
        let mut counts: HashMap<&str, usize> = HashMap::new();
        for cause in items.clone().filter_map(|item| item.cause.as_deref()) {
            *counts.entry(cause).or_default() += 1;
        }
        let mut known: HashMap<&str, usize> = HashMap::new();
        let mut causes: Vec<f64> = Vec::new();
        let mut list: Vec<Part> = Vec::new();
        for item in items {
            let mut part = Part::alone(item.size as f64, 1.0 - clamped(item.chance));
            part.key = key(item.cause.as_deref().unwrap_or(&item.name));
            let shared = item.cause.as_deref().filter(|cause| counts[cause] > 1);
            if let Some(name) = shared {
                let cause = *known.entry(name).or_insert(causes.len());
                if cause == causes.len() {
                    causes.push(0.0);
                }
                causes[cause] = causes[cause].max(1.0 - part.stay);
                part.cause = Some(cause);
            }
            list.push(part);
        }
        let mut parts = Self { list, causes };
        parts.set_odds();
        parts
    }

    /// The same over so many pulls: what stays has stayed each time.
    fn over(mut self, pulls: usize) -> Self {
        let stays = |stay: f64| std::iter::repeat_n(stay, pulls).product::<f64>();
        for part in &mut self.list {
            part.stay = stays(part.stay);
        }
        for chance in &mut self.causes {
            *chance = 1.0 - stays(1.0 - *chance);
        }
        self.set_odds();
        self
    }

    fn set_odds(&mut self) {
        for part in &mut self.list {
            if let Some(cause) = part.cause {
                let chance = self.causes[cause];
                let change = 1.0 - part.stay;
                part.odds = match chance > 0.0 {
                    true => change / (chance - change),
                    false => 0.0,
                };
            }
        }
    }

    fn reordered(&self, order: &[usize]) -> Self {
        Self {
            list: order.iter().map(|&rank| self.list[rank]).collect(),
            causes: self.causes.clone(),
        }
    }

    /// The cause that all of `members` have.
    fn only_cause(&self, members: &[usize]) -> Option<usize> {
        let (first, others) = members.split_first()?;
        let cause = self.list[*first].cause?;
        let has_it = |at: &usize| self.list[*at].cause == Some(cause);
        others.iter().all(has_it).then_some(cause)
    }

    /// The chance that nothing changes in a layer of `members`.
    fn stay_of(&self, members: impl Iterator<Item = usize>) -> f64 {
        let mut stay = 1.0;
        // By cause, the odds that any of its members changes.
        let mut odds: BTreeMap<usize, f64> = BTreeMap::new();
        for part in members.map(|at| self.list[at]) {
            match part.cause {
                None => stay *= part.stay,
                Some(cause) => *odds.entry(cause).or_insert(0.0) += part.odds,
            }
        }
        let of_cause = |(cause, odds): (usize, f64)| stay_with_odds(self.causes[cause], odds);
        stay * odds.into_iter().map(of_cause).product::<f64>()
    }
}

/// The chance that something does not change whose cause occurs with `chance`, and which then
/// changes with `odds`.
fn stay_with_odds(chance: f64, odds: f64) -> f64 {
    1.0 - chance * (1.0 - 1.0 / (1.0 + odds))
}
