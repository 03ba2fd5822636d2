//! Explains why a path, package or component is in the layer that it is in.

use anyhow::{Result, bail};
use serde::Serialize;

use super::planned::Planned;
use super::system::{Packages, System};
use crate::dpkg::Package;
use crate::tree::Kind;

/// Why something is where it is.
#[derive(Debug, Serialize)]
pub struct Explained {
    /// What is asked about.
    pub what: String,
    /// The component that it belongs to.
    pub component: String,
    /// The rule or package that makes it so.
    pub rule: String,
    /// Its layer, counted as in `layers`; none for what weighs nothing.
    pub layer: Option<usize>,
    /// Of a source package, the layers of its parts, where those are others.
    pub part_layers: Vec<usize>,
    /// Bytes of the component.
    pub size: u64,
    /// The chance that the component changes until the next pull.
    pub chance: f64,
    /// Days from one change to the next, where those are told: by an attribute, the components file
    /// or --intervals.
    pub interval: Option<f64>,
    /// What makes it change together with others.
    pub cause: Option<String>,
    /// What it shares its layer with.
    pub with: Vec<String>,
}

/// Explains `what`: a path (with a slash in it), an installed package (`NAME` or
/// `NAME:ARCHITECTURE`), or a component.
///
/// # Errors
/// When there is nothing of that name.
pub fn explained(
    what: &str,
    system: &System,
    packages: &Packages,
    planned: &Planned,
) -> Result<Explained> {
    let entry = match what.contains('/') {
        true => system.tree.locate(what),
        false => None,
    };
    let known = |name: &str| planned.items.iter().find(|item| item.name == name);
    let (name, rule) = if let Some(id) = entry {
        let ownership = &packages.ownership;
        let name = &ownership.components()[ownership.owner(id).index()].name;
        let kind = system.tree.entry(id).kind;
        let rule = match ownership.line_of(id) {
            Some(line) => with_kind(line, kind),
            None => rule(name, kind),
        };
        (name.clone(), rule)
    } else if let Some(package) = installed(packages, what) {
        let name = package.source().to_owned();
        let rule = rule(&name, Kind::Regular);
        (name, rule)
    } else if let Some(item) = known(what) {
        (item.name.clone(), rule(&item.name, Kind::Regular))
    } else {
        bail!(
            "explaining {what}: there is no such path in the rootfs, no such package installed, and no such component (a source package, or a name that the plan shows)"
        );
    };
    let layers = || planned.components.iter().enumerate();
    let layer = layers().find(|(_, names)| names.contains(&name));
    let part = format!("{name}:");
    let has_part = |names: &[String]| names.iter().any(|other| other.starts_with(&part));
    let part_layers = layers()
        .filter(|(at, names)| has_part(names) && layer.is_none_or(|(layer, _)| layer != *at))
        .map(|(at, _)| at)
        .collect();
    let item = known(&name);
    let mut told = packages.ownership.components().iter();
    let told = told.find(|component| component.name == name);
    let with = layer.map_or(&[][..], |(_, names)| names);
    Ok(Explained {
        what: what.to_owned(),
        rule,
        layer: layer.map(|(at, _)| at),
        part_layers,
        size: item.map_or(0, |item| item.size),
        chance: item.map_or(0.0, |item| item.chance),
        interval: told.and_then(|component| component.interval),
        cause: item.and_then(|item| item.cause.clone()),
        with: with
            .iter()
            .filter(|other| **other != name)
            .cloned()
            .collect(),
        component: name,
    })
}

/// The installed package that `what` names, of any architecture where it says none.
fn installed<'a>(packages: &'a Packages, what: &str) -> Option<&'a Package> {
    let (name, architecture) = match what.split_once(':') {
        Some((name, architecture)) => (name, Some(architecture)),
        None => (what, None),
    };
    packages.installed.iter().find(|package| {
        package.name() == name && architecture.is_none_or(|wanted| package.architecture() == wanted)
    })
}

/// What makes a component one, by its name: packages have no slash in theirs, and hints say so.
fn rule(component: &str, kind: Kind) -> String {
    let rule = match component.split_once('/') {
        None => "the source package whose files dpkg lists".to_owned(),
        Some((source, _)) if source.contains(':') => {
            "a part of a source package that updates mostly leave alone".to_owned()
        }
        Some(("user", _)) => "the attribute user.component, or a components file".to_owned(),
        Some((group, rule)) => format!("the rule '{group}/{rule}' for files that no package owns"),
    };
    with_kind(rule, kind)
}

fn with_kind(rule: String, kind: Kind) -> String {
    match kind {
        Kind::Directory => rule + "; a directory is written with what is in it",
        _ => rule,
    }
}
