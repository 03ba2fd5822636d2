//! A year of weekly updates, made: whether plans decay, with memory and without.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeSet, HashMap};

use super::tests::{Random, item, layers, packages, remembered};
use super::*;

const WEEKS: usize = 52;
/// A chance is for a month; a week has this share of it.
const WEEK: f64 = 12.0 / 52.0;

/// What a layer holds: names and versions.
type Content = BTreeSet<(String, u64)>;

struct System {
    items: Vec<Item>,
    versions: HashMap<String, u64>,
}

impl System {
    /// 380 sources as in a Debian, eight of them large with a dozen parts each, and two components that are in every
    /// update.
    fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let mut items = packages(380, seed);
        items.retain(|item| item.chance < 1.0);
        items.push(item("state/packages", 2_700_000, 1.0));
        items.push(item("state/machine", 60_000, 1.0));
        for source in 0..8 {
            let chance = 0.05 * 12f64.powf(random.unit());
            for part in 0..12 {
                let share = if part == 0 { 1.0 } else { random.unit() };
                let size = 1_000_000 + random.below(5_000_000);
                items.push(Item {
                    cause: Some(format!("large{source}")),
                    ..item(&format!("large{source}:{part}"), size, chance * share)
                });
            }
        }
        let versions = items.iter().map(|item| (item.name.clone(), 0)).collect();
        Self { items, versions }
    }

    /// Each cause occurs with its chance, each of its parts changes with the rest of its own; what changes has another
    /// size. Every fourth week a package comes, and another one goes.
    fn next_week(&mut self, week: usize, random: &mut Random) {
        let mut causes: HashMap<String, (f64, bool)> = HashMap::new();
        for item in &self.items {
            let cause = item.cause.as_ref().unwrap_or(&item.name);
            let known = causes.entry(cause.clone()).or_insert((0.0, false));
            known.0 = known.0.max(item.chance);
        }
        let mut names: Vec<String> = causes.keys().cloned().collect();
        names.sort_unstable();
        for name in names {
            let cause = causes.get_mut(&name).unwrap();
            let share = if cause.0 < 1.0 { WEEK } else { 1.0 };
            cause.1 = random.unit() < cause.0 * share;
        }
        for item in &mut self.items {
            let (chance, occurs) = causes[item.cause.as_ref().unwrap_or(&item.name)];
            if occurs && random.unit() < item.chance / chance {
                item.size += item.size / 100 * random.below(3);
                *self.versions.get_mut(&item.name).unwrap() += 1;
            }
        }
        if week % 4 == 3 {
            let gone = random.below(300) as usize;
            self.items.remove(gone);
            let mut new = packages(4, random.below(1 << 40)).remove(3);
            new.name = format!("new{week}");
            self.versions.insert(new.name.clone(), 0);
            self.items.push(new);
        }
    }

    /// The layers that `plan` makes, with their sizes; what the system has not is left out.
    fn contents(&self, plan: &[Vec<String>]) -> HashMap<Content, u64> {
        let sizes: HashMap<&str, u64> = self
            .items
            .iter()
            .map(|i| (i.name.as_str(), i.size))
            .collect();
        let of_layer = |names: &Vec<String>| {
            let there = names
                .iter()
                .filter(|name| sizes.contains_key(name.as_str()));
            let there: Vec<&String> = there.collect();
            let size = there.iter().map(|name| sizes[name.as_str()]).sum();
            let versions = there
                .iter()
                .map(|name| ((*name).clone(), self.versions[*name]));
            (versions.collect(), size)
        };
        plan.iter().map(of_layer).collect()
    }

    fn planned(&self, previous: Option<&[Vec<String>]>) -> Vec<Vec<String>> {
        remembered(&self.items, &plan(&self.items, layers(64), previous))
    }
}

fn fetched(old: &HashMap<Content, u64>, new: &HashMap<Content, u64>) -> f64 {
    let missing = new
        .iter()
        .filter(|(content, _)| !old.contains_key(*content));
    missing.map(|(_, size)| *size as f64).sum()
}

/// Measured over five years made so: with memory 1.001 times what a plan costs that is made anew each week and that the
/// client's image was made by, too; without memory 1.18 times.
#[test]
fn a_year_of_updates_costs_little_more_than_the_best_plans() {
    let (mut fresh, mut forgetful, mut kept) = (0.0, 0.0, 0.0);
    for seed in 0..1 {
        let mut random = Random(1000 + seed);
        let mut system = System::new(seed);
        let mut remembered_plan = system.planned(None);
        let mut forgotten = system.contents(&remembered_plan);
        let mut known = forgotten.clone();
        for week in 0..WEEKS {
            let before = System {
                items: system.items.clone(),
                versions: system.versions.clone(),
            };
            system.next_week(week, &mut random);
            let anew = system.planned(None);
            let contents = system.contents(&anew);
            fresh += fetched(&before.contents(&anew), &contents);
            forgetful += fetched(&forgotten, &contents);
            forgotten = contents;
            remembered_plan = system.planned(Some(&remembered_plan));
            let contents = system.contents(&remembered_plan);
            kept += fetched(&known, &contents);
            known = contents;
        }
    }
    assert!(kept <= 1.2 * fresh, "{} times a fresh plan", kept / fresh);
    assert!(
        forgetful <= 1.5 * fresh,
        "{} times a fresh plan",
        forgetful / fresh
    );
}
