//! `/usr/share/factory`: files of which a machine gets a copy when it has none (tmpfiles.d(5), type
//! C).

use anyhow::Result;

use super::change::Plan;
use super::root::Root;
use super::write::Owner;

/// Where they are.
pub const FACTORY: &str = "usr/share/factory";

/// Moves the file at `from`, which a machine will have at `path`. The directories of its new place
/// are as those of the old one: what others may not see they still may not.
pub fn plan(root: &Root, plan: &mut Plan<'_>, from: &str, path: &str) -> Result<()> {
    let mut source = parent(from);
    let mut target = parent(path);
    let mut directories = Vec::new();
    while let Some(at) = target {
        directories.push((source.unwrap_or(at).to_owned(), at.to_owned()));
        source = source.and_then(parent);
        target = parent(at);
    }
    for (source, target) in directories.into_iter().rev() {
        let target = format!("{FACTORY}/{target}");
        let name = format!("/{target}");
        let is_planned = plan.changes.iter().any(|change| change.path == name);
        if let (false, Some(stat)) = (is_planned, root.stat(&source)?) {
            plan.directory_of(&target, Owner::of(&stat), "for a file below it")?;
        }
    }
    let target = format!("{FACTORY}/{path}");
    plan.rename(
        from,
        &target,
        "a machine gets a copy of it when it has none",
    )
}

fn parent(path: &str) -> Option<&str> {
    path.rsplit_once('/').map(|(above, _)| above)
}
