//! How stable plans are that follow no earlier one.

use super::*;

/// How many items of both plans would have to change layers, for the best naming of layers
/// (greedily).
fn moved(old: (&[Item], &Plan), new: (&[Item], &Plan)) -> usize {
    let new_home: HashMap<&str, usize> = names(new.0, new.1)
        .into_iter()
        .enumerate()
        .flat_map(|(index, names)| names.into_iter().map(move |name| (name, index)))
        .collect();
    let mut shared: HashMap<(usize, usize), usize> = HashMap::new();
    for (index, layer) in names(old.0, old.1).iter().enumerate() {
        for home in layer.iter().filter_map(|name| new_home.get(name)) {
            *shared.entry((index, *home)).or_default() += 1;
        }
    }
    let total: usize = shared.values().sum();
    let mut pairs: Vec<_> = shared
        .into_iter()
        .map(|(pair, count)| (count, pair))
        .collect();
    pairs.sort_unstable_by(|a, b| b.cmp(a));
    let (mut old_used, mut new_used) = (HashSet::new(), HashSet::new());
    let mut stayed = 0;
    for (count, (a, b)) in pairs {
        if !old_used.contains(&a) && !new_used.contains(&b) {
            old_used.insert(a);
            new_used.insert(b);
            stayed += count;
        }
    }
    total - stayed
}

/// The mean of `moved` over changes of single items, 400 items in 64 layers.
fn mean_moved(change: impl Fn(&mut Vec<Item>, usize)) -> f64 {
    let (mut total, mut count) = (0, 0);
    for seed in 100..102 {
        let items = packages(400, seed);
        let before = plan(&items, layers(64), None);
        for at in (0..items.len()).step_by(25) {
            let mut changed = items.clone();
            change(&mut changed, at);
            total += moved(
                (&items, &before),
                (&changed, &plan(&changed, layers(64), None)),
            );
            count += 1;
        }
    }
    f64::from(u32::try_from(total).unwrap()) / f64::from(count)
}

/// Where the number of bins follows that of the items, or tiers are cut by mean and deviation,
/// nearly all move.
#[test]
fn an_item_less_moves_few_others() {
    let mean = mean_moved(|items, at| drop(items.remove(at)));
    assert!(mean <= 4.0, "{mean} of 400 items moved");
}

#[test]
fn an_item_that_grows_by_a_hundredth_moves_few_others() {
    let mean = mean_moved(|items, at| items[at].size += items[at].size / 100);
    assert!(mean <= 2.0, "{mean} of 400 items moved");
}
