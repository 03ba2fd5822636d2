//! What was built, for a person.

use std::fmt::Write;

use super::shown;
use crate::pipeline::{Built, Committed, Imported, LayerSummary};

/// A size as people read it: three digits and a decimal unit, as podman prints sizes.
pub fn human_size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["kB", "MB", "GB", "TB", "PB"];
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    let mut size = bytes as f64 / 1000.0;
    let mut unit = 0;
    while size >= 999.5 && unit + 1 < UNITS.len() {
        size /= 1000.0;
        unit += 1;
    }
    let digits = match size {
        s if s < 9.995 => 2,
        s if s < 99.95 => 1,
        _ => 0,
    };
    format!("{size:.digits$} {}", UNITS[unit])
}

/// One line about the image.
pub fn summary_line(built: &Built) -> String {
    let dead: u64 = built.layers.iter().map(|layer| layer.dead_size).sum();
    let dead = match dead {
        0 => String::new(),
        dead => format!(" ({} uncompressed of no use)", human_size(dead)),
    };
    format!(
        "{} entries, {} packages, {} layers, {}{dead}{}",
        built.entries,
        built.packages,
        built.layers.len(),
        human_size(built.size()),
        named_commit(built.commit.as_deref(), ",")
    )
}

/// What a summary says of the commit at its end, after `separator`.
pub fn named_commit(commit: Option<&str>, separator: &str) -> String {
    commit.map_or_else(String::new, |commit| format!("{separator} commit {commit}"))
}

/// One line about a commit.
pub fn committed_line(committed: &Committed) -> String {
    format!(
        "{} entries; {} files of {} were new to the repository",
        committed.entries,
        committed.objects_written,
        human_size(committed.bytes_written)
    )
}

/// One line about an imported image.
pub fn imported_line(imported: &Imported) -> String {
    let mut line = format!("{} layers", imported.layers);
    if imported.layers_read < imported.layers {
        line += &format!(", {} of them read", imported.layers_read);
    }
    if let Some(base) = &imported.base {
        line += &format!(", on top of commit {base}");
    }
    line
}

/// Which layers two images share, in the words of rpm-ostree's `--compare-with-build`: `old` has
/// digests and sizes.
pub fn comparison(old: &[(String, u64)], new: &[LayerSummary]) -> String {
    let count = |name: &str, sizes: Vec<u64>| {
        let total = human_size(sizes.iter().sum());
        format!("{name:<18}{:<5}Size: {total}\n", sizes.len())
    };
    let is_new = |layer: &&LayerSummary| !old.iter().any(|(digest, _)| *digest == layer.digest);
    let is_gone = |old: &&(String, u64)| !new.iter().any(|layer| layer.digest == old.0);
    let added = new.iter().filter(is_new).map(|layer| layer.size);
    let removed = old.iter().filter(is_gone).map(|(_, size)| *size);
    count(
        "Total new layers:",
        new.iter().map(|layer| layer.size).collect(),
    ) + &count("Removed layers:", removed.collect())
        + &count("Added layers:", added.collect())
}

/// A line a layer: number, size, share of the image, chance to change, components.
pub fn layer_table(layers: &[LayerSummary]) -> String {
    let total: u64 = layers.iter().map(|layer| layer.size).sum();
    let mut table = String::from("layer      size  share  chance  components\n");
    for (at, layer) in layers.iter().enumerate() {
        let share = 100.0 * layer.size as f64 / total.max(1) as f64;
        let components = match layer.components.as_slice() {
            [] => "(the commit)".to_owned(),
            components => shortened(components),
        };
        // Writing to a String cannot fail.
        let _ = writeln!(
            table,
            "{at:>5}  {:>8}  {share:>4.1}%  {:>6.3}  {components}",
            human_size(layer.size),
            layer.chance
        );
    }
    table
}

/// The first names, and how many more there are.
pub(super) fn shortened(names: &[String]) -> String {
    const WIDTH: usize = 60;
    let mut line = String::new();
    for (at, name) in names.iter().enumerate() {
        if at > 0 && line.len() + name.len() > WIDTH {
            let _ = write!(line, " and {} more", names.len() - at);
            break;
        }
        if at > 0 {
            line.push(' ');
        }
        line.push_str(&shown(name));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_three_digits() {
        for (bytes, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.00 kB"),
            (12_345, "12.3 kB"),
            (999_499, "999 kB"),
            (999_500, "1.00 MB"),
            (1_234_567_890, "1.23 GB"),
        ] {
            assert_eq!(human_size(bytes), text);
        }
    }

    #[test]
    fn a_comparison_counts_what_is_new_and_what_is_gone() {
        let layer = |digest: &str, size| LayerSummary {
            digest: digest.into(),
            diff_id: String::new(),
            size,
            uncompressed_size: 0,
            chance: 0.0,
            components: Vec::new(),
            dead_size: 0,
            taken_over: false,
            base: false,
        };
        let old = [("a".to_owned(), 10), ("b".to_owned(), 2000)];
        let text = comparison(&old, &[layer("a", 10), layer("c", 30)]);
        assert_eq!(
            text,
            "Total new layers: 2    Size: 40 B\nRemoved layers:   1    Size: 2.00 kB\nAdded layers:     1    Size: 30 B\n"
        );
    }

    #[test]
    fn long_lists_are_shortened() {
        let names: Vec<String> = (0..100).map(|n| format!("name-{n}")).collect();
        let line = shortened(&names);
        assert!(line.len() < 90 && line.contains(" and "), "{line}");
        assert_eq!(shortened(&names[..2]), "name-0 name-1");
    }
}
