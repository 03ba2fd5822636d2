//! Images and plans, for a person.

use std::fmt::Write;

use super::shown;
use super::summary::{human_size, named_commit, shortened};
use crate::pipeline::{
    ChangedPackage, Difference, DryRun, Explained, FetchedLayer, FoundFile, Inspected,
};

/// How many packages or layers are listed before the rest is only counted.
const LISTED: usize = 40;

/// The layers that a build would make, and what is explained.
pub fn dry_run_text(plan: &DryRun) -> String {
    let total: u64 = plan.layers.iter().map(|layer| layer.size).sum();
    let mut text = String::from("layer      size  share  chance  components\n");
    for (at, layer) in plan.layers.iter().enumerate() {
        line(
            &mut text,
            at,
            layer.size,
            total,
            Some(layer.chance),
            &layer.components,
        );
    }
    // Writing to a String cannot fail, here and below.
    let _ = writeln!(
        text,
        "{} layers, {}; about {} expected for the next update; {} packages{}",
        plan.layers.len(),
        human_size(total),
        human_size(plan.expected_bytes as u64),
        plan.packages,
        named_commit(plan.commit.as_deref(), ";")
    );
    plan.explained
        .iter()
        .for_each(|explained| explain(&mut text, explained));
    text
}

fn explain(text: &mut String, explained: &Explained) {
    let Explained {
        what,
        component,
        rule,
        layer,
        part_layers,
        size,
        chance,
        interval,
        cause,
        with,
    } = explained;
    let _ = writeln!(text, "\n{}", shown(what));
    let _ = writeln!(
        text,
        "  component  {} ({}): {}",
        shown(component),
        human_size(*size),
        shown(rule)
    );
    let _ = writeln!(
        text,
        "  chance     {chance:.3} to change until the next pull"
    );
    if let Some(days) = interval {
        let _ = writeln!(
            text,
            "  interval   {days} days from one change to the next, as told"
        );
    }
    if let Some(cause) = cause {
        let _ = writeln!(
            text,
            "  changes    together with what shares the cause '{}'",
            shown(cause)
        );
    }
    match layer {
        Some(layer) if with.is_empty() => {
            let _ = writeln!(text, "  layer      {layer}, alone");
        }
        Some(layer) => {
            let _ = writeln!(text, "  layer      {layer}, with {}", shortened(with));
        }
        None => {
            let _ = writeln!(text, "  layer      none: it has no content");
        }
    }
    if !part_layers.is_empty() {
        let layers: Vec<String> = part_layers.iter().map(ToString::to_string).collect();
        let _ = writeln!(
            text,
            "  its parts  in other layers, too: {}",
            layers.join(", ")
        );
    }
}

fn line(
    text: &mut String,
    at: usize,
    size: u64,
    total: u64,
    chance: Option<f64>,
    components: &[String],
) {
    let share = 100.0 * size as f64 / total.max(1) as f64;
    let chance = chance.map_or_else(|| "-".to_owned(), |chance| format!("{chance:.3}"));
    let components = shortened(components);
    let _ = writeln!(
        text,
        "{at:>5}  {:>8}  {share:>4.1}%  {chance:>6}  {components}",
        human_size(size)
    );
}

/// What an image tells of itself; with `packages` also those.
pub fn inspected_text(image: &Inspected, packages: bool) -> String {
    let mut text = String::new();
    let _ = writeln!(text, "digest        {}", image.digest);
    let _ = writeln!(
        text,
        "created       {}",
        shown(image.created.as_deref().unwrap_or("unknown"))
    );
    let _ = writeln!(text, "architecture  {}", shown(&image.architecture));
    let kind = if image.encapsulated {
        "an encapsulated commit"
    } else {
        "an ordinary image"
    };
    match &image.commit {
        Some(commit) => {
            let _ = writeln!(text, "commit        {} ({kind})", shown(commit));
        }
        None => {
            let _ = writeln!(text, "commit        none ({kind})");
        }
    }
    let _ = writeln!(text, "packages      {}", image.packages.len());
    let total: u64 = image.layers.iter().map(|layer| layer.size).sum();
    let expected: f64 = image
        .layers
        .iter()
        .map(|layer| layer.size as f64 * layer.chance.unwrap_or(1.0))
        .sum();
    let _ = writeln!(
        text,
        "layers        {}, {}",
        image.layers.len(),
        human_size(total)
    );
    if image.layers.iter().any(|layer| layer.chance.is_some()) {
        let _ = writeln!(
            text,
            "update        about {} expected",
            human_size(expected as u64)
        );
    }
    let dead = image.layers.iter().filter_map(|layer| layer.dead_size);
    let dead: u64 = dead.sum();
    if dead > 0 {
        let _ = writeln!(
            text,
            "of no use     {} before compression: files that upper layers replace or hide",
            human_size(dead)
        );
    }
    let _ = writeln!(text, "\nlayer      size  share  chance  components");
    let commit = ["(the commit)".to_owned()];
    for (at, layer) in image.layers.iter().enumerate() {
        let is_commit = image.encapsulated && at == 0 && layer.components.is_empty();
        let components = if is_commit {
            &commit[..]
        } else {
            &layer.components
        };
        line(&mut text, at, layer.size, total, layer.chance, components);
    }
    if packages {
        text.push('\n');
        for package in &image.packages {
            let _ = writeln!(
                text,
                "{}:{} {} ({})",
                shown(&package.name),
                shown(&package.architecture),
                shown(&package.version),
                shown(&package.source)
            );
        }
    }
    text
}

/// The files that were found of `what`, each with its layer, component and package.
pub fn found_text(found: &[FoundFile<'_>], what: &str) -> String {
    let mut text = String::from("layer      size  component (package)  path\n");
    for file in found {
        let package = file.package.map(|package| format!(" ({})", shown(package)));
        let _ = writeln!(
            text,
            "{:>5}  {:>8}  {}{}  /{}",
            file.layer,
            human_size(file.size),
            shown(file.component),
            package.unwrap_or_default(),
            shown(file.path)
        );
    }
    let total = human_size(found.iter().map(|file| file.size).sum());
    let _ = writeln!(text, "{} files, {total}: {}", found.len(), shown(what));
    text
}

/// What is new in an image, and what it costs.
pub fn difference_text(difference: &Difference) -> String {
    let mut text = String::new();
    if difference.is_none() {
        return format!("the same image, {}\n", difference.new);
    }
    for note in &difference.notes {
        let _ = writeln!(text, "note      {note}");
    }
    let (added, removed, changed) = (&difference.added, &difference.removed, &difference.changed);
    let _ = writeln!(
        text,
        "packages  {} added, {} removed, {} changed",
        added.len(),
        removed.len(),
        changed.len()
    );
    listed(
        &mut text,
        added
            .iter()
            .map(|package| format!("  + {} {}", shown(&package.name), shown(&package.version))),
    );
    listed(
        &mut text,
        removed
            .iter()
            .map(|package| format!("  - {} {}", shown(&package.name), shown(&package.version))),
    );
    listed(
        &mut text,
        changed.iter().map(|p| {
            format!(
                "  ~ {} {} -> {}{}",
                shown(&p.name),
                shown(&p.from),
                shown(&p.to),
                shown(&marks(p, difference))
            )
        }),
    );
    let total = difference.bytes_kept + difference.bytes_fetched;
    let _ = writeln!(
        text,
        "layers    {} kept ({}), {} fetched: {} of {}, {:.1} %",
        difference.layers_kept,
        human_size(difference.bytes_kept),
        difference.fetched.len(),
        human_size(difference.bytes_fetched),
        human_size(total),
        100.0 * difference.bytes_fetched as f64 / total.max(1) as f64
    );
    let sum = |bytes: fn(&FetchedLayer) -> u64| difference.fetched.iter().map(bytes).sum();
    let along = along(
        sum(|layer| layer.unchanged_bytes),
        sum(|layer| layer.time_bytes),
    );
    if let Some(along) = along {
        let _ = writeln!(text, "          {along}");
    }
    let _ = writeln!(
        text,
        "floor     {} of files that the old image has nowhere",
        human_size(difference.floor_bytes)
    );
    for layer in &difference.fetched {
        let _ = writeln!(
            text,
            "{:>5}  {:>8}  {}",
            layer.layer,
            human_size(layer.size),
            why(layer)
        );
        // In a plain image most files of an updated package have another time; a few of them are
        // not worth names.
        let is_worth_names = layer.updated.is_empty() || layer.time_bytes >= layer.size / 10;
        let named = if is_worth_names {
            &layer.files[..]
        } else {
            &[]
        };
        for file in named {
            let time = if file.only_time {
                ", another time only"
            } else {
                ""
            };
            let _ = writeln!(
                text,
                "                   /{} ({}{time})",
                shown(&file.path),
                human_size(file.size)
            );
        }
    }
    text
}

/// What a reader must not miss of a changed package.
fn marks(package: &ChangedPackage, difference: &Difference) -> String {
    let mut marks = Vec::new();
    if package.downgraded {
        marks.push("lower".to_owned());
    }
    let of_package = difference
        .sources
        .iter()
        .find(|source| source.name == package.source);
    if let Some(source) = of_package.filter(|source| source.security) {
        let urgency = source.urgency.as_deref().unwrap_or("unknown");
        marks.push(format!("security, urgency {urgency}"));
        marks.extend(source.cves.iter().cloned());
    }
    match marks.as_slice() {
        [] => String::new(),
        marks => format!(" ({})", marks.join(", ")),
    }
}

/// Why a layer is fetched, and what comes along.
fn why(layer: &FetchedLayer) -> String {
    let mut why = match (layer.components.as_slice(), layer.updated.as_slice()) {
        ([], _) => "(the commit, or not ours)".to_owned(),
        (components, []) => format!(
            "{}: no package of it has changed, but",
            shortened(components)
        ),
        (_, updated) => shortened(updated),
    };
    if let Some(along) = along(layer.unchanged_bytes, layer.time_bytes) {
        let _ = write!(why, " ({along})");
    }
    why
}

/// What a client fetches although it has it, but for a time.
fn along(unchanged_bytes: u64, time_bytes: u64) -> Option<String> {
    let along = [
        (unchanged_bytes, "unchanged"),
        (time_bytes, "with another time only"),
    ];
    let along: Vec<String> = along
        .iter()
        .filter(|(bytes, _)| *bytes > 0)
        .map(|(bytes, what)| format!("{} {what}", human_size(*bytes)))
        .collect();
    (!along.is_empty()).then(|| format!("{} come along", along.join(", ")))
}

fn listed(text: &mut String, lines: impl ExactSizeIterator<Item = String>) {
    let more = lines.len().saturating_sub(LISTED);
    for line in lines.take(LISTED) {
        let _ = writeln!(text, "{line}");
    }
    if more > 0 {
        let _ = writeln!(text, "    and {more} more");
    }
}
