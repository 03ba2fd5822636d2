//! The kernel where bootc and OSTree look for it: `/usr/lib/modules/VERSION/vmlinuz`, and nothing
//! in `/boot`, which is a partition on the booted system.

use anyhow::{Result, bail};

use super::change::Plan;
use super::diversions::Diversions;
use super::root::Kind;
use super::system::{MODULES, System};

/// What Debian's kernel packages have in `/boot`, each with the version in its name, and what it is
/// called beside the modules.
const FILES: [&str; 3] = ["vmlinuz", "config", "System.map"];
/// Links to the newest kernel and the one before (linux-update-symlinks(1)), at the root or in
/// `/boot`.
const LINKS: [&str; 4] = ["vmlinuz", "vmlinuz.old", "initrd.img", "initrd.img.old"];
/// The only files in the directory of a kernel that is gone: what is made on the system, not
/// unpacked.
const LEFT_BEHIND: [&str; 3] = ["initramfs.img", "initramfs.sources", "modules."];

/// The kernel's configuration in `/boot`, where initramfs-tools looks for it.
pub fn config_link(kernel: &str) -> String {
    format!("boot/config-{kernel}")
}

/// Where a link in its place leads.
pub fn config_target(kernel: &str) -> String {
    format!("../{MODULES}/{kernel}/config")
}

/// Refuses what no image can be: several kernels, or none where one is asked for.
pub fn check(system: &System<'_>) -> Result<()> {
    let kernels = system.kernels()?;
    if kernels.len() > 1 {
        bail!(
            "there are {} kernels ({}), and an image boots one: remove the others, such as with 'apt-get purge linux-image-{}'",
            kernels.len(),
            kernels.join(", "),
            kernels[0]
        );
    }
    let Some(kernel) = kernels.first() else {
        if system.options.bootable {
            bail!(
                "there is no kernel, neither /usr/lib/modules/*/vmlinuz nor /boot/vmlinuz-*: install one, such as with 'apt-get install linux-image-amd64'"
            );
        }
        return Ok(());
    };
    if system.root.kind(&format!("{MODULES}/{kernel}"))? != Kind::Directory {
        bail!(
            "the kernel {kernel} has no modules: there is no /{MODULES}/{kernel}; install its package again"
        );
    }
    if system.root.is_mounted("boot") {
        bail!(
            "something is mounted at /boot, whose files belong to the system: unmount it, so that its kernel can be moved"
        );
    }
    Ok(())
}

/// Moves the kernel and its companions.
pub fn plan<'a>(system: &System<'a>) -> Result<Plan<'a>> {
    let mut plan = Plan::new(system.root);
    if let Some(kernel) = system.kernel()? {
        let mut diversions = Diversions::read(system)?;
        let mut moves = Vec::new();
        for file in FILES {
            let from = format!("boot/{file}-{kernel}");
            let to = format!("{MODULES}/{kernel}/{file}");
            if system.root.kind(&from)? == Kind::Link(config_target(&kernel)) {
                plan.remove(&from, "a run that was stopped has left it")?;
                continue;
            }
            // dpkg then verifies, upgrades and removes it at its new place.
            if system.owner(&from).is_some() {
                diversions.add(&from, &to);
            }
            moves.push((from, to));
        }
        diversions.drop_kernels_but(&kernel);
        diversions.plan(
            &mut plan,
            "dpkg knows the kernel's files at their new place",
        )?;
        for (from, to) in moves {
            match system.owner(&to) {
                // A package has it there already, and its script has made a copy.
                Some(_)
                    if system.root.kind(&to)? == Kind::File && system.owner(&from).is_none() =>
                {
                    let why = "a copy of what the kernel's package has beside its modules";
                    plan.remove(&from, why)?;
                }
                _ => plan.rename(
                    &from,
                    &to,
                    "bootc and OSTree look for the kernel beside its modules",
                )?,
            }
        }
    }
    for link in LINKS {
        for path in [link.to_owned(), format!("boot/{link}")] {
            if let Kind::Link(_) = system.root.kind(&path)? {
                plan.remove(
                    &path,
                    "it leads to a file in /boot, which is empty in an image",
                )?;
            }
        }
    }
    remove_old_kernels(system, &mut plan)?;
    Ok(plan)
}

/// A purge of a kernel leaves what others have made in its directory.
fn remove_old_kernels(system: &System<'_>, plan: &mut Plan<'_>) -> Result<()> {
    let kernels = system.kernels()?;
    for version in system.root.list(MODULES)? {
        let dir = format!("{MODULES}/{version}");
        if kernels.contains(&version) || system.root.kind(&dir)? != Kind::Directory {
            continue;
        }
        let files = system.root.list(&dir)?;
        let is_made = |file: &String| LEFT_BEHIND.iter().any(|name| file.starts_with(name));
        if system.owner(&dir).is_none() && files.iter().all(is_made) {
            plan.remove(&dir, "its kernel has been removed")?;
        }
    }
    Ok(())
}
