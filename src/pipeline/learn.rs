//! Learns how often components change by comparing a series of images of different dates.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};

use super::inspect::{InspectedImage, inspect};
use crate::checksum::Checksum;
use crate::registry::{Access, Reference};

const SECONDS_A_DAY: f64 = 86_400.0;

/// What was observed.
#[derive(Debug)]
pub struct Learned {
    /// How many images.
    pub images: usize,
    /// The date of the first, RFC 3339.
    pub from: String,
    /// The date of the last.
    pub to: String,
    /// By component that changed, the days from one change to the next.
    pub intervals: BTreeMap<String, f64>,
}

/// What tells the components of an image apart from those of another.
struct Seen {
    seconds: i64,
    date: String,
    components: BTreeMap<String, Checksum>,
}

/// Reads `images`, in the order of their dates, and counts how often each component differs from
/// one to the next. Its interval is the time over which it was there, divided by that. Several
/// changes between two images are one.
///
/// A component that never changed has no interval: that it did not in a few months says little.
///
/// # Errors
/// When there are less than two images of different dates, or one cannot be read or has no date.
pub fn learn(images: &[Reference], access: &Access) -> Result<Learned> {
    let seen = images.iter().map(|reference| {
        let image = inspect(reference, access)?;
        Seen::of(&image).with_context(|| format!("learning from the image {reference}"))
    });
    let mut seen: Vec<Seen> = seen.collect::<Result<_>>()?;
    seen.sort_by_key(|image| image.seconds);
    let (Some(first), Some(last)) = (seen.first(), seen.last()) else {
        return Ok(of(&[]));
    };
    ensure!(
        first.seconds < last.seconds,
        "all images are of {}; to learn how often components change, name images of different dates",
        first.date
    );
    Ok(of(&seen))
}

fn of(seen: &[Seen]) -> Learned {
    // By component, the seconds over which it was there, and how often it changed.
    let mut observed: BTreeMap<&str, (i64, u32)> = BTreeMap::new();
    for pair in seen.windows(2) {
        let [old, new] = pair else { continue };
        for (name, identity) in &old.components {
            if let Some(then) = new.components.get(name) {
                let sum = observed.entry(name).or_default();
                sum.0 += new.seconds - old.seconds;
                sum.1 += u32::from(then != identity);
            }
        }
    }
    let interval = |(name, (seconds, changes)): (&str, (i64, u32))| {
        let days = seconds as f64 / SECONDS_A_DAY / f64::from(changes);
        let days = (days * 10.0).round() / 10.0;
        (name.to_owned(), days.max(0.1))
    };
    let changed = observed
        .into_iter()
        .filter(|(_, (_, changes))| *changes > 0);
    let date = |image: Option<&Seen>| image.map(|seen| seen.date.clone()).unwrap_or_default();
    Learned {
        images: seen.len(),
        from: date(seen.first()),
        to: date(seen.last()),
        intervals: changed.map(interval).collect(),
    }
}

impl Seen {
    fn of(image: &InspectedImage) -> Result<Self> {
        let date = image.summary.created.clone();
        let date = date.context("its config does not say when it was made")?;
        let time: jiff::Timestamp = date
            .parse()
            .with_context(|| format!("its config has the date '{date}'"))?;
        let mut hashers: BTreeMap<&str, Sha256> = BTreeMap::new();
        for (path, file) in &image.files {
            let Some(owner) = image.owners.owner(path) else {
                continue;
            };
            let hasher = hashers.entry(owner.component).or_default();
            hasher.update(path.as_bytes());
            hasher.update([0]);
            let identity = file.timeless.unwrap_or(file.identity);
            hasher.update(identity.to_string().as_bytes());
        }
        let components = hashers.into_iter();
        let components =
            components.map(|(name, hasher)| (name.to_owned(), Checksum::finish(hasher)));
        Ok(Self {
            seconds: time.as_second(),
            date,
            components: components.collect(),
        })
    }
}

impl Learned {
    /// A file that `--intervals` reads: JSON lines, by name.
    pub fn to_lines(&self) -> String {
        let Self {
            images,
            from,
            to,
            intervals,
        } = self;
        let mut text = format!("# Learned from {images} images, {from} to {to}\n");
        for (component, interval) in intervals {
            let line = serde_json::json!({ "component": component, "interval": interval });
            text += &format!("{line}\n");
        }
        text
    }
}
