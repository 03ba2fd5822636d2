//! Files that programs leave behind and nobody reads: backups of changed files, and locks. They
//! differ from build to build.

use anyhow::Result;

use super::change::Plan;
use super::root::Kind;
use super::system::System;

const BACKUP: &str = "a backup of what the build changed";
const LOCK: &str = "a lock, which is made when it is taken";

/// Files, each with why it goes.
const FILES: [(&str, &str); 9] = [
    ("etc/passwd-", BACKUP),
    ("etc/group-", BACKUP),
    ("etc/shadow-", BACKUP),
    ("etc/gshadow-", BACKUP),
    ("etc/subuid-", BACKUP),
    ("etc/subgid-", BACKUP),
    ("etc/.pwd.lock", LOCK),
    ("etc/apt/trusted.gpg~", BACKUP),
    ("etc/.updated", "systemd makes it anew"),
];

/// Where package state has them: in its old place or its new one.
const DPKG: [&str; 2] = ["var/lib/dpkg", "usr/lib/sysimage/dpkg"];
const DPKG_FILES: [(&str, &str); 6] = [
    ("status-old", BACKUP),
    ("diversions-old", BACKUP),
    ("statoverride-old", BACKUP),
    ("lock", LOCK),
    ("lock-frontend", LOCK),
    ("triggers/Lock", LOCK),
];
const DEBCONF: [&str; 2] = ["var/cache/debconf", "usr/lib/sysimage/debconf"];
const UCF: [&str; 2] = ["var/lib/ucf", "usr/lib/sysimage/ucf"];

/// Removes them.
pub fn plan<'a>(system: &System<'a>) -> Result<Plan<'a>> {
    let root = system.root;
    let mut plan = Plan::new(root);
    for (path, why) in FILES {
        if root.kind(path)? == Kind::File {
            plan.remove(path, why)?;
        }
    }
    for dir in DPKG {
        if root.kind(dir)? != Kind::Directory {
            continue;
        }
        for (file, why) in DPKG_FILES {
            if root.kind(&format!("{dir}/triggers"))? == Kind::Directory || !file.contains('/') {
                plan.remove(&format!("{dir}/{file}"), why)?;
            }
        }
    }
    for dir in DEBCONF.into_iter().filter(|dir| is_directory(system, dir)) {
        for file in root.list(dir)? {
            if file.ends_with(".dat-old") {
                plan.remove(&format!("{dir}/{file}"), BACKUP)?;
            }
        }
    }
    for dir in UCF.into_iter().filter(|dir| is_directory(system, dir)) {
        for file in root.list(dir)? {
            let number = file.rsplit_once('.').map(|(_, number)| number);
            if number.is_some_and(|n| n.bytes().all(|b| b.is_ascii_digit())) {
                plan.remove(&format!("{dir}/{file}"), BACKUP)?;
            }
        }
    }
    Ok(plan)
}

fn is_directory(system: &System<'_>, dir: &str) -> bool {
    matches!(system.root.kind(dir), Ok(Kind::Directory))
}
