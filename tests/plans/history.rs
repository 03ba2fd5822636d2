//! A year of weekly updates, made, of made systems and of real ones: whether plans decay, with
//! memory and without.

use std::collections::{BTreeSet, HashMap};
use std::num::NonZeroUsize;

use crate::common::run;
use apt_ostree_helper::plan::{Item, plan};
use serde_json::Value;

const WEEKS: usize = 52;
/// A chance is for a month; a week has this share of it.
const WEEK: f64 = 12.0 / 52.0;

/// What a layer holds: names and versions.
type Content = BTreeSet<(String, u64)>;

/// Numbers that are the same every time (SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// In `0..1`.
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

fn item(name: &str, size: u64, chance: f64) -> Item {
    Item {
        name: name.to_owned(),
        size,
        chance,
        cause: None,
    }
}

/// Like one of a Debian: sizes log-normal from 10 KB to 100 MB, chances from 0.02 to 0.6.
fn package(random: &mut Random) -> Item {
    // Twelve uniform numbers make a normal one.
    let normal = (0..12).map(|_| random.unit()).sum::<f64>() - 6.0;
    let size = (13.0 + 1.9 * normal).exp().clamp(1e4, 1e8) as u64;
    let chance = 0.02 * 30f64.powf(random.unit());
    item(&format!("{:08x}", random.next() >> 32), size, chance)
}

struct System {
    items: Vec<Item>,
    versions: HashMap<String, u64>,
}

impl System {
    /// 380 sources as in a Debian, eight of them large with a dozen parts each, and two components
    /// that are in every update.
    fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let mut items: Vec<Item> = (0..377).map(|_| package(&mut random)).collect();
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
        Self::of(items)
    }

    /// One of these components.
    fn of(items: Vec<Item>) -> Self {
        let versions = items.iter().map(|item| (item.name.clone(), 0)).collect();
        Self { items, versions }
    }

    /// Each cause occurs with its chance, each of its parts changes with the rest of its own; what
    /// changes has another size. Every fourth week a package comes, and another one goes.
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
            // Neither state nor a part of something.
            let alone: Vec<usize> = (0..self.items.len())
                .filter(|at| !self.items[*at].name.contains(['/', ':']))
                .collect();
            self.items
                .remove(alone[random.below(alone.len() as u64) as usize]);
            let mut new = package(random);
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
        let plan = plan(&self.items, NonZeroUsize::new(64).unwrap(), previous);
        let names = |items: &Vec<usize>| {
            items
                .iter()
                .map(|at| self.items[*at].name.clone())
                .collect()
        };
        plan.layers
            .iter()
            .map(|layer| names(&layer.items))
            .collect()
    }
}

fn fetched(old: &HashMap<Content, u64>, new: &HashMap<Content, u64>) -> f64 {
    let missing = new
        .iter()
        .filter(|(content, _)| !old.contains_key(*content));
    missing.map(|(_, size)| *size as f64).sum()
}

/// Bytes fetched in a year: by plans that follow each other, and by plans without memory, each as a
/// multiple of what a plan costs that is made anew each week and that the client's image was made
/// by, too.
fn a_year(mut system: System, seed: u64) -> (f64, f64) {
    let (mut fresh, mut forgetful, mut kept) = (0.0, 0.0, 0.0);
    let mut random = Random(1000 + seed);
    let mut remembered = system.planned(None);
    let mut forgotten = system.contents(&remembered);
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
        remembered = system.planned(Some(&remembered));
        let contents = system.contents(&remembered);
        kept += fetched(&known, &contents);
        known = contents;
    }
    (kept / fresh, forgetful / fresh)
}

/// Prints what is measured, too: `cargo test --test plans history:: -- --nocapture`.
fn check(name: &str, system: System, seed: u64) {
    let (kept, forgetful) = a_year(system, seed);
    println!("{name}: {kept:.3} times a fresh plan with memory, {forgetful:.3} without");
    assert!(kept <= 1.2, "{name}: with memory {kept} times a fresh plan");
    assert!(
        forgetful <= 1.5,
        "{name}: without memory {forgetful} times a fresh plan"
    );
}

#[test]
fn a_year_of_updates_costs_little_more_than_the_best_plans() {
    check("made", System::new(0), 0);
}

/// The components of a real system, with its sizes and chances.
#[test]
fn a_year_of_updates_of_a_debian_does_too() {
    for name in ["AOH_ROOTFS_TRIXIE", "AOH_ROOTFS_BOOKWORM"] {
        let Ok(rootfs) = std::env::var(name) else {
            continue;
        };
        let told: Value =
            serde_json::from_str(&run(&["plan", "--rootfs", &rootfs, "--json"])).unwrap();
        let items = told["components"]
            .as_array()
            .unwrap()
            .iter()
            .map(|component| Item {
                name: component["name"].as_str().unwrap().to_owned(),
                size: component["size"].as_u64().unwrap(),
                chance: component["chance"].as_f64().unwrap(),
                cause: component["cause"].as_str().map(str::to_owned),
            });
        let items: Vec<Item> = items.collect();
        assert!(items.len() > 100, "{rootfs}: {} components", items.len());
        check(&rootfs, System::of(items), 1);
    }
}
