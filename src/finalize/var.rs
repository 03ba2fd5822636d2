//! `/var` belongs to the machine: an update does not change it, and a machine gets an image's only
//! when it is installed. So what is in it is made at each boot where it is missing, by lines for
//! tmpfiles.d(5); files that matter are below `/usr/share/factory/var`, from where they are copied;
//! and what only tells of the build is removed.
//!
//! Directories and links stay, as nothing makes them in a container.

use std::collections::HashMap;

use anyhow::Result;

use super::change::Plan;
use super::diversions::Diversions;
use super::factory::{self, FACTORY};
use super::opt;
use super::root::{Kind, Root};
use super::system::System;
use super::tmpfiles;
use super::write::UNFINISHED;

/// The file with the lines.
const FILE: &str = "apt-ostree-helper-var.conf";
const DIR: &str = "usr/lib/tmpfiles.d";

/// Files that tell of the build, or are made anew: what is below a path, and why it is of no use.
const DROPPED: [(&str, &str); 17] = [
    ("var/log", "a log of the build"),
    ("var/backups", "a backup of what the build did"),
    ("var/cache/apt", "apt makes it anew"),
    ("var/cache/ldconfig", "ldconfig makes it anew"),
    ("var/cache/man", "mandb makes it anew"),
    ("var/cache/fontconfig", "fontconfig makes it anew"),
    ("var/cache/dracut", "dracut makes it anew"),
    ("var/lib/apt/lists", "apt fetches it anew"),
    (
        "var/lib/apt/periodic",
        "when apt did something during the build",
    ),
    ("var/lib/apt/daily_lock", "a lock"),
    ("var/lib/systemd/random-seed", "each machine has its own"),
    (
        "var/lib/systemd/credential.secret",
        "each machine has its own",
    ),
    ("var/lib/dbus/machine-id", "each machine has its own"),
    (
        "var/lib/logrotate/status",
        "when logs of the build were rotated",
    ),
    ("var/lib/wtmpdb", "who logged in during the build"),
    ("var/tmp", "a temporary file"),
    ("var/.updated", "systemd makes it anew"),
];

/// Directories that packages own and every Containerfile removes with what is in them. apt fails
/// without the last, and dpkg reports the others as missing.
const OFTEN_REMOVED: [&str; 5] = [
    "var/lib/apt/lists",
    "var/lib/apt/lists/partial",
    "var/cache/apt/archives",
    "var/cache/apt/archives/partial",
    "var/log/apt",
];

/// Whether a file below `/var` is of no use, and why.
pub fn is_dropped(path: &str) -> Option<&'static str> {
    let found = DROPPED.iter().find(|(prefix, _)| {
        path.strip_prefix(prefix)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    });
    found.map(|(_, why)| *why)
}

/// Moves or removes files, and writes the lines.
pub fn plan<'a>(system: &System<'a>) -> Result<Plan<'a>> {
    let root = system.root;
    let mut plan = Plan::new(root);
    let mut diversions = Diversions::read(system)?;
    let mut files = Vec::new();
    // In a dry run they are still there.
    let to_opt = opt::moved(system)?;
    for (path, kind) in root.below("var")? {
        if kind != Kind::File || is_package_state(&path) || is_unfinished(&path) {
            continue;
        }
        if opt::is_moved(&path, &to_opt) {
            continue;
        }
        match is_dropped(&path) {
            Some(why) => plan.remove(&path, why)?,
            None => {
                let target = format!("{FACTORY}/{path}");
                if system.owner(&path).is_some() {
                    diversions.add(&path, &target);
                }
                files.push(path);
            }
        }
    }
    diversions.plan(&mut plan, "dpkg knows packages' files at their new place")?;
    for path in &files {
        factory::plan(root, &mut plan, path, path)?;
    }
    let mut removed = Vec::new();
    for path in OFTEN_REMOVED {
        if system.owner(path).is_some() && root.kind(path)? == Kind::Absent {
            plan.directory(
                path,
                0o755,
                "a package has it, and something has removed it",
            )?;
            removed.push(path);
        }
    }
    let lines = lines(system, &files, &removed)?;
    let path = format!("{DIR}/{FILE}");
    match lines.is_empty() {
        true => plan.remove(&path, "nothing in /var needs it")?,
        false => {
            let text = format!(
                "# What this image has in /var, made by 'apt-ostree-helper finalize': a machine gets what it lacks.\n{lines}"
            );
            plan.write(&path, text, "nothing else makes this in /var on a machine")?;
        }
    }
    Ok(plan)
}

/// What a run that was stopped has left, which this one replaces.
fn is_unfinished(path: &str) -> bool {
    path.split('/').any(|name| name.ends_with(UNFINISHED))
}

/// What the step for the state of packages does.
pub fn is_package_state(path: &str) -> bool {
    use super::package_state::{DIRECTORIES, FILES};
    let directories = DIRECTORIES.iter().any(|(dir, _)| {
        path.strip_prefix(dir)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    });
    directories
        || FILES.iter().any(|(file, _)| path == *file)
        || path == super::package_state::MARKS
}

/// The lines for all that is in `/var`, or will be when files are moved and directories made, and
/// that no other file makes.
fn lines(system: &System<'_>, moved: &[String], made: &[&str]) -> Result<String> {
    let root = system.root;
    let declared = tmpfiles::declared(root, FILE)?;
    let names = Names::read(root)?;
    let mut lines: Vec<(String, String)> = Vec::new();
    let mut add = |path: &str, kind: &str, rest: String| {
        if !declared.contains(path) {
            let name = tmpfiles::escaped(path);
            lines.push((path.to_owned(), format!("{kind} /{name} {rest}\n")));
        }
    };
    let to_opt = opt::moved(system)?;
    for (path, kind) in will_be(root)? {
        if opt::is_moved(&path, &to_opt) {
            continue;
        }
        match kind {
            Kind::Directory => {
                if let Some(stat) = root.stat(&path)? {
                    add(&path, "d", format!("{} -", names.owner(&stat)));
                }
            }
            Kind::Link(target) => {
                add(
                    &path,
                    "L",
                    format!("- - - - {}", tmpfiles::escaped(&target)),
                );
            }
            _ => {}
        }
    }
    for path in made {
        add(path, "d", "0755 root root -".into());
    }
    let mut factory: Vec<String> = moved.to_vec();
    for (path, kind) in root.below(&format!("{FACTORY}/var"))? {
        if kind == Kind::File {
            factory.extend(path.strip_prefix(&format!("{FACTORY}/")).map(str::to_owned));
        }
    }
    factory.sort_unstable();
    factory.dedup();
    for path in factory {
        let source = tmpfiles::escaped(&format!("/{FACTORY}/{path}"));
        add(&path, "C", format!("- - - - {source}"));
    }
    lines.sort_unstable();
    Ok(lines.into_iter().map(|(_, line)| line).collect())
}

/// What is in `/var` when the steps before have been done: what they make is there as it will be.
fn will_be(root: &Root) -> Result<Vec<(String, Kind)>> {
    let mut entries = Vec::new();
    for (path, kind) in root.below("var")? {
        if !is_package_state(&path) && !is_unfinished(&path) {
            entries.push((path, kind));
        }
    }
    use super::package_state::{DIRECTORIES, FILES, SYSIMAGE, up_to};
    for (path, name) in DIRECTORIES.iter().chain(&FILES) {
        let target = format!("{SYSIMAGE}/{name}");
        if root.kind(path)? != Kind::Absent || root.kind(&target)? != Kind::Absent {
            entries.push(((*path).to_owned(), Kind::Link(up_to(path, &target))));
        }
    }
    Ok(entries)
}

/// Users and groups by number.
struct Names {
    users: HashMap<u32, String>,
    groups: HashMap<u32, String>,
}

impl Names {
    fn read(root: &Root) -> Result<Self> {
        let parse = |text: String| {
            let lines = text.lines().rev().filter_map(|line| {
                let mut fields = line.split(':');
                let name = fields.next()?.to_owned();
                Some((fields.nth(1)?.parse().ok()?, name))
            });
            lines.collect()
        };
        Ok(Self {
            users: parse(root.text("etc/passwd")?),
            groups: parse(root.text("etc/group")?),
        })
    }

    /// Mode, user and group as a line has them: by name, as the numbers of a machine may be others.
    fn owner(&self, stat: &rustix::fs::Stat) -> String {
        let name = |names: &HashMap<u32, String>, number: u32| {
            names.get(&number).cloned().unwrap_or(number.to_string())
        };
        format!(
            "{:04o} {} {}",
            stat.st_mode & 0o7777,
            name(&self.users, stat.st_uid),
            name(&self.groups, stat.st_gid)
        )
    }
}
