//! A page that shows an image, or the difference of two: one file that fetches nothing.
//!
//! The template, its style and its script (`page/`) are the same in every page; what is told of
//! images comes in as JSON, in which no sign can end the element that holds it. The policy in the
//! page lets exactly this script run, by its hash, and nothing be fetched. The script sets names as
//! text only.

use std::collections::HashMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::summary::human_size;
use crate::pipeline::{Change, Cost, Difference, Inspected, InspectedImage};

/// How many files a page names, the largest first: with them a page of any system stays below 2 MB.
const FILES: usize = 10_000;

const TEMPLATE: &str = include_str!("page/page.html");
const STYLE: &str = include_str!("page/page.css");
const SCRIPT: &str = include_str!("page/page.js");

/// The page of one image, which the reader knows as `name`.
pub fn inspected_page(name: &str, image: &InspectedImage) -> String {
    let summary = &image.summary;
    let stored: u64 = summary.layers.iter().map(|layer| layer.size).sum();
    let size: u64 = summary.components.iter().map(|c| c.size).sum();
    let expected = expected_bytes(summary);
    let places = summary.components.iter().enumerate();
    let places: HashMap<(usize, &str), usize> = places
        .map(|(at, c)| ((c.layer, c.name.as_str()), at))
        .collect();
    let sentence = format!(
        "{} in {} layers, with {} packages; an update is expected to cost a client about {}.",
        human_size(stored),
        summary.layers.len(),
        summary.packages.len(),
        human_size(expected)
    );
    page(&json!({
        "kind": "inspect",
        "title": format!("Image {name}"),
        "sentence": sentence,
        "numbers": [
            {"name": "the whole image", "bytes": stored, "note": format!("as stored; {} of files", human_size(size))},
            {"name": "an update, expected", "bytes": expected,
                "note": "sum of each layer's size times its chance to change"},
            {"name": "layers", "text": summary.layers.len().to_string(),
                "note": format!("{} components", summary.components.len())},
        ],
        "about": about(summary, ""),
        "size": size,
        "components": summary.components,
        "files": files(image, &places),
        "listed": listed(image),
    }))
}

/// The page of an update from `old` to `new`, which the reader knows by these names.
pub fn difference_page(
    names: (&str, &str),
    old: &InspectedImage,
    new: &InspectedImage,
    difference: &Difference,
) -> String {
    let places = difference.components.iter().enumerate();
    let places = places.filter(|(_, c)| c.change != Change::Gone);
    let places: HashMap<(usize, &str), usize> = places
        .map(|(at, c)| ((c.layer, c.name.as_str()), at))
        .collect();
    let total = difference.bytes_kept + difference.bytes_fetched;
    let share = 100.0 * difference.bytes_fetched as f64 / total.max(1) as f64;
    let cost =
        |cost: &Cost| json!({"name": cost.name, "bytes": cost.bytes, "why": cost_reason(cost)});
    let costs: Vec<Value> = difference.costs.iter().map(cost).collect();
    let mut about = about(&old.summary, "old ");
    about.extend(self::about(&new.summary, "new "));
    page(&json!({
        "kind": "diff",
        "title": format!("From {} to {}", names.0, names.1),
        "sentence": difference_sentence(difference),
        "numbers": [
            {"name": "a client fetches", "bytes": difference.bytes_fetched,
                "note": format!("{share:.1} % of {}, in {} layers", human_size(total), difference.fetched.len())},
            {"name": "the floor", "bytes": difference.floor_bytes,
                "note": "files that the old image has nowhere"},
            {"name": "kept", "bytes": difference.bytes_kept,
                "note": format!("{} layers", difference.layers_kept)},
        ],
        "costs": costs,
        "about": about,
        "size": total,
        "components": difference.components,
        "files": files(new, &places),
        "listed": listed(new),
    }))
}

/// An update in one sentence.
pub fn difference_sentence(difference: &Difference) -> String {
    if difference.is_none() {
        return "The images are the same: a client fetches nothing.".to_owned();
    }
    let (added, removed, changed) = (&difference.added, &difference.removed, &difference.changed);
    let mut packages = Vec::new();
    for (count, what) in [
        (changed.len(), "changed"),
        (added.len(), "added"),
        (removed.len(), "removed"),
    ] {
        if count > 0 {
            packages.push(format!("{count} {what}"));
        }
    }
    let packages = match packages.as_slice() {
        [] => "No package differs".to_owned(),
        packages => format!("Packages: {}", packages.join(", ")),
    };
    let most = difference.costs.first().map(|cost| {
        let share = 100.0 * cost.bytes as f64 / difference.bytes_fetched.max(1) as f64;
        format!("; {share:.0} % of that is {}", cost.name)
    });
    let total = difference.bytes_kept + difference.bytes_fetched;
    format!(
        "{packages}; a client fetches {} of {}{}.",
        human_size(difference.bytes_fetched),
        human_size(total),
        most.unwrap_or_default()
    )
}

/// Why something costs what it costs.
pub fn cost_reason(cost: &Cost) -> String {
    let version = |version: &Option<String>| version.clone().unwrap_or_else(|| "none".to_owned());
    match cost.change {
        Change::Updated => format!("{} → {}", version(&cost.from), version(&cost.to)),
        Change::Added if cost.to.is_none() => {
            "generated, or not from a package; not in the old image".to_owned()
        }
        Change::Added => "new in this image".to_owned(),
        Change::Changed if cost.to.is_none() => {
            "generated, or not from a package; its content differs".to_owned()
        }
        Change::Changed => "its files differ, though its version does not".to_owned(),
        Change::Time => "only times of its files differ".to_owned(),
        Change::Along => "unchanged; something else in its layer changed".to_owned(),
        Change::Kept | Change::Gone => "nothing is fetched for it".to_owned(),
    }
}

/// The bytes that an update is expected to cost; layers that tell no chance always change.
pub fn expected_bytes(image: &Inspected) -> u64 {
    let cost = |size: u64, chance: Option<f64>| size as f64 * chance.unwrap_or(1.0);
    let layers = image.layers.iter();
    layers
        .map(|layer| cost(layer.size, layer.chance))
        .sum::<f64>() as u64
}

fn about(image: &Inspected, which: &str) -> Vec<Value> {
    let unknown = || "unknown".to_owned();
    vec![
        json!([format!("{which}digest"), image.digest]),
        json!([
            format!("{which}created"),
            image.created.clone().unwrap_or_else(unknown)
        ]),
        json!([format!("{which}architecture"), image.architecture]),
        json!([
            format!("{which}commit"),
            image.commit.clone().unwrap_or_else(|| "none".to_owned())
        ]),
    ]
}

/// The largest files: path, bytes, the position of the component.
fn files(image: &InspectedImage, places: &HashMap<(usize, &str), usize>) -> Vec<Value> {
    let mut files: Vec<_> = image.files.iter().collect();
    files.sort_by(|a, b| b.1.size.cmp(&a.1.size).then_with(|| a.0.cmp(b.0)));
    files.truncate(FILES);
    let place = |path: &str, layer: usize| {
        let owner = image.owners.owner(path)?;
        places.get(&(layer, owner.component)).copied()
    };
    let files = files.into_iter();
    let files =
        files.filter_map(|(path, file)| Some(json!([path, file.size, place(path, file.layer)?])));
    files.collect()
}

fn listed(image: &InspectedImage) -> String {
    match image.files.len() {
        more if more > FILES => format!(
            "The search knows the largest {FILES} of {more} files; 'inspect IMAGE --path PATH' knows all."
        ),
        all => format!("The search knows all {all} files."),
    }
}

fn page(data: &Value) -> String {
    let parts = [
        ("@SCRIPT_HASH@", hash(SCRIPT)),
        ("@STYLE_HASH@", hash(STYLE)),
        ("@VERSION@", env!("CARGO_PKG_VERSION").to_owned()),
        ("@STYLE@", STYLE.to_owned()),
        ("@DATA@", embedded(data)),
        ("@SCRIPT@", SCRIPT.to_owned()),
    ];
    // In the order of the template, so that nothing that was put in is looked at again.
    let mut page = String::new();
    let mut rest = TEMPLATE;
    for (mark, text) in parts {
        let (before, after) = rest.split_once(mark).unwrap_or((rest, ""));
        page.push_str(before);
        page.push_str(&text);
        rest = after;
    }
    page + rest
}

/// What a policy names a script or style by (CSP level 3, "hash-source").
fn hash(text: &str) -> String {
    format!("sha256-{}", BASE64.encode(Sha256::digest(text)))
}

/// JSON in which nothing ends a script element, and that JavaScript of any age takes for one line.
fn embedded(data: &Value) -> String {
    let json = data.to_string();
    let mut safe = String::with_capacity(json.len());
    for sign in json.chars() {
        match sign {
            '<' => safe.push_str("\\u003c"),
            '>' => safe.push_str("\\u003e"),
            '&' => safe.push_str("\\u0026"),
            '\u{2028}' => safe.push_str("\\u2028"),
            '\u{2029}' => safe.push_str("\\u2029"),
            other => safe.push(other),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_the_data_is_markup() {
        let data = json!({"a": "</script><!--\u{2028}\u{2029}&@SCRIPT@"});
        let safe = embedded(&data);
        assert!(
            safe.chars().all(|c| !"<>&\u{2028}\u{2029}".contains(c)),
            "{safe}"
        );
        assert_eq!(
            serde_json::from_str::<Value>(&safe).ok(),
            Some(data.clone())
        );
        let page = page(&data);
        assert_eq!(page.matches("</script>").count(), 2);
        assert!(
            page.contains("\\u0026@SCRIPT@"),
            "marks in the data stay what they are"
        );
        assert!(page.trim_end().ends_with("</html>"));
    }
}
