//! `/opt` of packages that are installed when it is a link into `/var` already: dpkg follows the
//! link, and an update would not bring them to a machine. `/opt` becomes a directory of the image
//! again, as it is where they were installed before the system was finalized, and `dpkg -V` finds
//! their files.

use anyhow::Result;

use super::change::Plan;
use super::root::Kind;
use super::system::System;

/// Where dpkg put them.
const BEHIND: &str = "var/opt";
const OPT: &str = "opt";

/// Moves them.
pub fn plan<'a>(system: &System<'a>) -> Result<Plan<'a>> {
    let root = system.root;
    let mut plan = Plan::new(root);
    let moved = moved(system)?;
    if moved.is_empty() {
        return Ok(plan);
    }
    let why = "packages have files below it, which are the image's";
    match root.kind(OPT)? {
        Kind::Link(to) if to.trim_matches('/') == BEHIND => {
            plan.remove(OPT, why)?;
            plan.directory(OPT, 0o755, why)?;
        }
        Kind::Absent | Kind::Directory => plan.directory(OPT, 0o755, why)?,
        _ => {
            plan.note("/opt is neither a directory nor a link to /var/opt, and left alone");
            return Ok(plan);
        }
    }
    for path in moved {
        let (from, to) = (format!("{BEHIND}/{path}"), format!("{OPT}/{path}"));
        plan.rename(&from, &to, "an update brings it to a machine there")?;
    }
    Ok(plan)
}

/// Whether a path, without a leading slash, is or is below one of those that are to be moved.
pub fn is_moved(path: &str, moved: &[String]) -> bool {
    let Some(path) = path
        .strip_prefix(BEHIND)
        .and_then(|path| path.strip_prefix('/'))
    else {
        return false;
    };
    moved.iter().any(|top| {
        path.strip_prefix(top.as_str())
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    })
}

/// What is to be moved, from [`BEHIND`] on: what packages have below `/opt`, and what else is
/// beside it, as `/opt` does not lead there any more. Not what packages have in `/var/opt` itself.
/// Those by which it is known that there is something to do come last, so that a run that is
/// stopped is completed by the next.
///
/// # Errors
/// When a directory cannot be read.
pub fn moved(system: &System<'_>) -> Result<Vec<String>> {
    let (mut owned, mut others) = (Vec::new(), Vec::new());
    for name in system.root.list(BEHIND)? {
        match owners(system, &name) {
            (true, false) => owned.push(name),
            (true, true) => owned.extend(below(system, &name)?),
            (false, false) => others.push(name),
            (false, true) => {}
        }
    }
    if owned.is_empty() {
        return Ok(owned);
    }
    others.extend(owned);
    Ok(others)
}

/// In a directory that packages have at both places: what is theirs below `/opt` alone.
fn below(system: &System<'_>, path: &str) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for name in system.root.list(&format!("{BEHIND}/{path}"))? {
        let child = format!("{path}/{name}");
        match owners(system, &child) {
            (true, false) => found.push(child),
            (true, true) => found.extend(below(system, &child)?),
            _ => {}
        }
    }
    Ok(found)
}

/// Whether a package has the path below `/opt`, and whether one has it below `/var/opt`.
fn owners(system: &System<'_>, path: &str) -> (bool, bool) {
    let has = |dir: &str| system.owner(&format!("{dir}/{path}")).is_some();
    (has(OPT), has(BEHIND))
}
