//! The plan of an image that follows no earlier one. It is stable by construction: a small change
//! of what is planned makes a small change of the plan.
//!
//! The cheapest plan depends on everything: one package less, and the best cuts among hundreds that
//! are as cold as each other all shift a little, each of which a client pays with two layers. So
//! what may share a layer follows from what an item is itself, and only how finely that is divided
//! depends on the others:
//!
//! * What changes together (the parts of a source, a kernel and its initramfs) is one whole. A part
//!   never lies beside another source's: an estimate of what an update spares that is wrong costs
//!   the bytes of its own source, and spoils nobody else's layer.
//! * Each whole has a key: the power of four of its bytes for each odds to change (the order that
//!   `partition` cuts, backwards), the power of four of its size, and then the bits of a hash of
//!   its name. Keys make a tree, with the wholes as its leaves: each node divides those below it by
//!   one bit. A whole that has a layer of its own is divided further, cold parts from hot ones.
//! * A layer is all that is below one node. Which nodes are layers is what costs least within the
//!   budget, exactly.
//! * Costs are those of a client that pulls once in [`PULLS`] pulls. Where all chances are small
//!   that is the same plan. But what is hot has then changed nearly for sure, so that it pays less
//!   to keep it from its like, and there are more layers for what is cold: a client that pulls each
//!   time loses little by that, and one that skips some gains much.
//!
//! The law: a whole that comes, goes, grows or shrinks leaves the tree of the others as it is. It
//! changes what a division saves only along its own way to the root, and, as it takes or leaves a
//! layer, whether the division that was just worth one is still made elsewhere: then the layers of
//! one node become one, or two. `tests/plans/stability.rs` holds it on made systems and real ones.
//!
//! Why bytes for each odds: for wholes of size `s` and chance `p`, which are small, a layer costs
//! `sum(s) * sum(p)`, which is least for a given `sum(sqrt(s * p))` when `s / p` is the same for
//! all (Cauchy and Schwarz). Of a class, whose ratios differ by a factor of four, it is at most
//! 1.13 times that (Kantorovich). The sizes then keep the large, which suffer from others, from
//! the small, which others suffer from.
//!
//! The trade: what a tree cannot tell apart lies together, so that such a plan is expected to cost
//! some hundredths more than the cheapest one by the same chances. Of real systems one change moves
//! 0.2 to 1.0 % on average; in the worst of a hundred, as when a large source goes that has many
//! layers, and others take those, 3 to 15 %.

use super::few_layers::few_layers;
use super::wholes::Wholes;
use super::{FEW_LAYERS, LAYER_COST, Part, Parts};

/// What is sure to change has a layer each as long as that is no more than one of so many.
const SURE_SHARE: usize = 16;

/// No container store takes as many layers.
const MOST_LAYERS: usize = 1000;

/// A whole is cut into so many layers at most.
const MAX_SPLIT: usize = 24;

/// How many pulls' changes a client fetches at once: a quarter of a year's, when the chances are
/// those of a month.
///
/// On 180 made systems (closures of packages of bookworm, trixie and bullseye, `main` alone against
/// security and updates) and two real desktops, 3 to 6 were alike, and better than 1 where hundreds
/// of components share 64 layers: 1.31 and not 1.39 times what changed on bookworm's desktops.
const PULLS: usize = 3;

/// Distributes `parts` over at most `max_layers` layers.
pub(super) fn initial(parts: &Parts, max_layers: usize) -> Vec<Vec<usize>> {
    if max_layers < FEW_LAYERS {
        return few_layers(parts, max_layers);
    }
    let is_sure = |at: &usize| parts.list[*at].stay == 0.0;
    let (sure, others): (Vec<usize>, Vec<usize>) = (0..parts.list.len()).partition(is_sure);
    // One of them may have stayed after all, when an image is built again of the same packages.
    let mut groups: Vec<Vec<usize>> = match sure.len() * SURE_SHARE <= max_layers {
        true => sure.into_iter().map(|at| vec![at]).collect(),
        false => vec![sure],
    };
    groups.retain(|group| !group.is_empty());
    if others.is_empty() {
        return groups;
    }
    let parts = parts.reordered(&others).over(PULLS);
    let budget = (max_layers - groups.len()).min(MOST_LAYERS);
    let of_others = Tree::of(&parts, budget).layers();
    groups.extend(of_others.into_iter().map(|group| {
        let mut group: Vec<usize> = group.into_iter().map(|at| others[at]).collect();
        group.sort_unstable();
        group
    }));
    groups
}

/// The key of a whole: what it is itself, most significant first.
fn key(part: &Part) -> u64 {
    let ratio = part.size * part.stay / (1.0 - part.stay);
    class(ratio) << 60 | class(part.size) << 56 | part.key >> 8
}

/// In which power of four a number is, from 64 Ki on: 0 to 15.
fn class(number: f64) -> u64 {
    let mut class = 0;
    let mut bound = 65536.0;
    while number >= bound && class < 15 {
        class += 1;
        bound *= 4.0;
    }
    class
}

/// What is below a node, divided into one layer, two, and so on.
struct Node {
    /// For each number of layers less one, what they cost.
    costs: Vec<f64>,
    below: Below,
}

enum Below {
    /// Wholes that are not divided: one, or what has the same key. For each number of layers less
    /// one, the layers.
    Leaf(Vec<Vec<Vec<usize>>>),
    /// Nodes by position, and for each number of layers less one how many are the first one's: none
    /// where all are one.
    Two(usize, usize, Vec<usize>),
}

struct Tree<'a> {
    parts: &'a Parts,
    wholes: Wholes,
    /// The wholes by their keys.
    order: Vec<(u64, usize)>,
    nodes: Vec<Node>,
    most: usize,
    root: usize,
}

impl<'a> Tree<'a> {
    /// The tree of `parts`, which are not none, each node divided into at most `most` layers.
    fn of(parts: &'a Parts, most: usize) -> Self {
        let wholes = Wholes::of(parts);
        let keys = wholes.parts.list.iter().map(key);
        let mut order: Vec<(u64, usize)> = keys.zip(0..).collect();
        order.sort_unstable();
        let mut tree = Self {
            parts,
            wholes,
            order,
            nodes: Vec::new(),
            most,
            root: 0,
        };
        tree.root = tree.grow(0, tree.order.len());
        tree
    }

    /// Makes the node of the wholes from one place in their order to another, and returns its
    /// position.
    fn grow(&mut self, from: usize, to: usize) -> usize {
        let of = &self.order[from..to];
        let (first, last) = (of[0].0, of[of.len() - 1].0);
        let node = if first == last {
            self.leaf(from, to)
        } else {
            let bit = 63 - (first ^ last).leading_zeros();
            let middle = from + of.partition_point(|(key, _)| key >> bit & 1 == 0);
            let (left, right) = (self.grow(from, middle), self.grow(middle, to));
            self.join(from, to, left, right)
        };
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    fn leaf(&self, from: usize, to: usize) -> Node {
        let members = |(_, whole): &(u64, usize)| self.wholes.members[*whole].iter().copied();
        let members: Vec<usize> = self.order[from..to].iter().flat_map(members).collect();
        let mut divisions = vec![vec![members]];
        if to - from == 1 {
            divisions = divided(self.parts, divisions, self.most.min(MAX_SPLIT));
        }
        let cost = |layers: &Vec<Vec<usize>>| -> f64 {
            layers
                .iter()
                .map(|layer| cost(self.parts, layer) + LAYER_COST as f64)
                .sum()
        };
        Node {
            costs: divisions.iter().map(cost).collect(),
            below: Below::Leaf(divisions),
        }
    }

    fn join(&self, from: usize, to: usize, left: usize, right: usize) -> Node {
        let list = &self.wholes.parts.list;
        let together = self.order[from..to].iter().map(|(_, whole)| list[*whole]);
        let together = together.fold(Part::alone(0.0, 1.0), Part::join);
        let (one, other) = (&self.nodes[left].costs, &self.nodes[right].costs);
        let count = (one.len() + other.len()).min(self.most);
        let mut costs = vec![f64::INFINITY; count];
        let mut shares = vec![0; count];
        costs[0] = together.layer_cost();
        for (a, cost_a) in one.iter().enumerate() {
            for (b, cost_b) in other.iter().enumerate().take(count.saturating_sub(a + 1)) {
                let cost = cost_a + cost_b;
                if cost < costs[a + b + 1] {
                    costs[a + b + 1] = cost;
                    shares[a + b + 1] = a + 1;
                }
            }
        }
        Node {
            costs,
            below: Below::Two(left, right, shares),
        }
    }

    /// The cheapest layers, of equal costs the fewest.
    fn layers(&self) -> Vec<Vec<usize>> {
        let costs = &self.nodes[self.root].costs;
        let cheapest =
            (0..costs.len()).min_by(|&a, &b| costs[a].total_cmp(&costs[b]).then(a.cmp(&b)));
        let mut layers = Vec::new();
        self.collect(self.root, cheapest.map_or(1, |at| at + 1), &mut layers);
        layers
    }

    fn collect(&self, node: usize, count: usize, layers: &mut Vec<Vec<usize>>) {
        match &self.nodes[node].below {
            Below::Leaf(divisions) => layers.extend(divisions[count - 1].iter().cloned()),
            Below::Two(left, right, shares) => match shares[count - 1] {
                0 => {
                    let first = layers.len();
                    self.collect(*left, 1, layers);
                    self.collect(*right, 1, layers);
                    let together = layers.split_off(first).concat();
                    layers.push(together);
                }
                share => {
                    self.collect(*left, share, layers);
                    self.collect(*right, count - share, layers);
                }
            },
        }
    }
}

/// Bytes expected to be fetched for a layer at the next pull.
fn cost(parts: &Parts, layer: &[usize]) -> f64 {
    let size: f64 = layer.iter().map(|&at| parts.list[at].size).sum();
    size * (1.0 - parts.stay_of(layer.iter().copied()))
}

/// The one division that is there, and those into two layers and more that follow when the cut that
/// saves most is made in any one of them.
fn divided(
    parts: &Parts,
    mut divisions: Vec<Vec<Vec<usize>>>,
    most: usize,
) -> Vec<Vec<Vec<usize>>> {
    while divisions.len() < most {
        let layers = &divisions[divisions.len() - 1];
        let cuts = layers.iter().enumerate();
        let cuts = cuts.filter_map(|(at, layer)| Some((at, best_cut(parts, layer)?)));
        let best = cuts.max_by(|(a, x), (b, y)| x.saved.total_cmp(&y.saved).then(b.cmp(a)));
        let Some((at, cut)) = best else { break };
        let mut layers = layers.clone();
        layers[at] = cut.left;
        layers.push(cut.right);
        divisions.push(layers);
    }
    divisions
}

/// One layer in two.
struct Cut {
    saved: f64,
    left: Vec<usize>,
    right: Vec<usize>,
}

/// The cut that saves most, if any does: cold parts from hot ones. Their odds per byte would set
/// large and small ones apart, which the cause, that all have in common, does not.
fn best_cut(parts: &Parts, layer: &[usize]) -> Option<Cut> {
    let mut order = layer.to_vec();
    order.sort_by(|&a, &b| {
        let (x, y) = (&parts.list[a], &parts.list[b]);
        x.odds.total_cmp(&y.odds).then(a.cmp(&b))
    });
    let whole = cost(parts, &order);
    let mut best: Option<(f64, usize)> = None;
    for at in 1..order.len() {
        let (left, right) = order.split_at(at);
        let saved = whole - cost(parts, left) - cost(parts, right);
        if saved > LAYER_COST as f64 && best.is_none_or(|(most, _)| saved > most) {
            best = Some((saved, at));
        }
    }
    best.map(|(saved, at)| {
        let right = order.split_off(at);
        Cut {
            saved,
            left: order,
            right,
        }
    })
}
