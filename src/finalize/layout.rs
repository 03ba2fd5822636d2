//! The top of the file system: what is a machine's own is a link into `/var`, which outlives
//! updates.

use anyhow::Result;

use super::change::Plan;
use super::diversions::Diversions;
use super::factory::{self, FACTORY};
use super::root::Kind;
use super::system::System;

/// Directories that become links: the name, where it leads, whether what it holds stays where it
/// is, as packages put files there.
const LINKS: [(&str, &str, bool); 6] = [
    ("home", "var/home", false),
    ("root", "var/roothome", false),
    ("srv", "var/srv", false),
    ("mnt", "var/mnt", false),
    ("media", "run/media", false),
    ("opt", "var/opt", true),
];

const WHY: &str = "it is the machine's own, and outlives updates";

/// Makes the links, and the directories behind them.
pub fn plan<'a>(system: &System<'a>) -> Result<Plan<'a>> {
    let root = system.root;
    let mut plan = Plan::new(root);
    let mut diversions = Diversions::read(system)?;
    let (mut files, mut directories) = (Vec::new(), Vec::new());
    let repository = "where the booted system has its OSTree repository";
    plan.directory("sysroot", 0o755, repository)?;
    if root.kind("ostree")? == Kind::Absent {
        plan.link("ostree", "sysroot/ostree", repository)?;
    }
    for (name, target, stays) in LINKS {
        match root.kind(name)? {
            Kind::Directory if root.is_mounted(name) => {
                plan.note(format!("/{name} is left alone: something is mounted there"));
                continue;
            }
            Kind::Directory if stays && !root.list(name)?.is_empty() => {
                plan.note(format!(
                    "/{name} stays a directory, for it holds something: it is part of the image and read-only on the booted system"
                ));
                continue;
            }
            Kind::Directory if target.starts_with("var/") => {
                for (path, kind) in root.below(name)? {
                    if kind == Kind::File {
                        let new = path.replacen(name, target, 1);
                        if system.owner(&path).is_some() {
                            diversions.add(&path, &format!("{FACTORY}/{new}"));
                        }
                        files.push((path, new));
                    }
                }
                directories.push((name, target));
                continue;
            }
            Kind::Directory => {
                if !root.list(name)?.is_empty() {
                    plan.note(format!("/{name} stays a directory, for it holds something"));
                    continue;
                }
            }
            Kind::Link(found) if found != target => continue,
            Kind::Link(_) | Kind::Absent => {
                if target.starts_with("var/") {
                    plan.directory(target, mode_of(name), "what a link at the root leads to")?;
                }
            }
            Kind::File | Kind::Special => {
                plan.note(format!("/{name} is not a directory, and left alone"));
                continue;
            }
        }
        plan.link(name, target, WHY)?;
    }
    diversions.plan(&mut plan, "dpkg knows packages' files at their new place")?;
    for (path, new) in &files {
        factory::plan(root, &mut plan, path, new)?;
    }
    for (name, target) in directories {
        plan.rename(name, target, WHY)?;
        plan.link(name, target, WHY)?;
    }
    Ok(plan)
}

fn mode_of(name: &str) -> u32 {
    match name {
        "root" => 0o700,
        _ => 0o755,
    }
}
