//! The state of packages, which belongs to the image and not to the machine: it moves below
//! `/usr/lib/sysimage`, and links in `/var` lead there, so that dpkg and its scripts find it where
//! they look.
//!
//! A directory behind a link survives what programs do in it. A single file does not: those that
//! write it put a new one in its place by rename, and the link is gone. So apt is told by its
//! configuration where its marks of what it installed by itself are; and the list of shells, whose
//! program has no configuration, is taken back in at each run.

use anyhow::Result;

use super::change::Plan;
use super::root::Kind;
use super::system::System;

/// Where images keep the state of what they are made of.
pub const SYSIMAGE: &str = "usr/lib/sysimage";

/// Directories below `/var` that only package scripts write, and what they are called below
/// [`SYSIMAGE`].
pub const DIRECTORIES: [(&str, &str); 13] = [
    ("var/lib/dpkg", "dpkg"),
    ("var/lib/pam", "pam"),
    ("var/lib/ucf", "ucf"),
    ("var/cache/debconf", "debconf"),
    (
        "var/lib/systemd/deb-systemd-helper-enabled",
        "deb-systemd-helper-enabled",
    ),
    (
        "var/lib/systemd/deb-systemd-helper-masked",
        "deb-systemd-helper-masked",
    ),
    (
        "var/lib/systemd/deb-systemd-user-helper-enabled",
        "deb-systemd-user-helper-enabled",
    ),
    (
        "var/lib/systemd/deb-systemd-user-helper-masked",
        "deb-systemd-user-helper-masked",
    ),
    ("var/lib/python", "python"),
    ("var/lib/emacsen-common", "emacsen-common"),
    ("var/lib/dictionaries-common", "dictionaries-common"),
    ("var/lib/sgml-base", "sgml-base"),
    ("var/lib/xml-core", "xml-core"),
];

/// Files of the same kind, each written by one program.
pub const FILES: [(&str, &str); 1] = [("var/lib/shells.state", "shells.state")];

/// What apt installed by itself.
pub const MARKS: &str = "var/lib/apt/extended_states";
const MARKS_IN_IMAGE: &str = "usr/lib/sysimage/apt/extended_states";
/// Where apt is told so.
const APT_CONFIG: &str = "etc/apt/apt.conf.d/50sysimage";

/// Moves the state, and makes the links.
pub fn plan<'a>(system: &System<'a>) -> Result<Plan<'a>> {
    let root = system.root;
    let mut plan = Plan::new(root);
    for (path, name) in DIRECTORIES {
        let target = format!("{SYSIMAGE}/{name}");
        match root.kind(path)? {
            Kind::Directory => {
                let why = "it is the state of the image's packages, and must not be a machine's";
                plan.rename(path, &target, why)?;
            }
            Kind::Absent if root.kind(&target)? == Kind::Directory => {}
            _ => continue,
        }
        plan.link(path, &up_to(path, &target), "programs look for it here")?;
    }
    for (path, name) in FILES {
        let target = format!("{SYSIMAGE}/{name}");
        match root.kind(path)? {
            Kind::File => {
                let why = "it is the state of the image's packages, and must not be a machine's";
                plan.rename(path, &target, why)?;
            }
            Kind::Absent if root.kind(&target)? == Kind::File => {}
            _ => continue,
        }
        plan.link(path, &up_to(path, &target), "programs look for it here")?;
    }
    if root.kind("etc/apt/apt.conf.d")? == Kind::Directory {
        if root.kind(MARKS)? == Kind::File {
            let why = "apt's marks of what it installed by itself are the image's, not a machine's";
            plan.rename(MARKS, MARKS_IN_IMAGE, why)?;
        }
        let text = format!(
            "// The marks of what apt installed by itself belong to the image, not to a machine.\n\
             Dir::State::extended_states \"/{MARKS_IN_IMAGE}\";\n"
        );
        plan.write(
            APT_CONFIG,
            text,
            "apt replaces the file by rename, which no link outlives",
        )?;
    }
    Ok(plan)
}

/// The target of a link at `path` to `target`, both from the root: relative, so that it holds
/// wherever the root is.
pub fn up_to(path: &str, target: &str) -> String {
    let depth = path.matches('/').count();
    format!("{}{target}", "../".repeat(depth))
}
