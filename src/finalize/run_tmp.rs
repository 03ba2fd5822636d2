//! `/run` and `/tmp`, which the booted system fills. What a build leaves in them is in no image.

use anyhow::Result;

use super::change::Plan;
use super::root::Kind;
use super::system::System;

/// Empties them; in a build step on the system itself they are in use.
pub fn plan<'a>(system: &System<'a>) -> Result<Plan<'a>> {
    let root = system.root;
    let mut plan = Plan::new(root);
    if root.is_own() {
        return Ok(plan);
    }
    for dir in ["run", "tmp"] {
        if root.kind(dir)? != Kind::Directory || root.is_mounted(dir) {
            continue;
        }
        for name in root.list(dir)? {
            plan.remove(
                &format!("{dir}/{name}"),
                "a booted system has a file system of its own there",
            )?;
        }
    }
    Ok(plan)
}
