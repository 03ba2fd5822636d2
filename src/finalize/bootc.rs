//! What bootc asks an image when it is installed, and kernel-install(8) when a kernel is.

use anyhow::Result;

use super::change::Plan;
use super::root::{Kind, Root};
use super::system::System;

const INSTALL: &str = "usr/lib/bootc/install";
const INSTALL_FILE: &str = "usr/lib/bootc/install/00-apt-ostree-helper.toml";
const INSTALL_TEXT: &str = "[install.filesystem.root]\ntype = \"ext4\"\n";
const LAYOUT: &str = "usr/lib/kernel/install.conf.d/50-ostree.conf";

/// Writes the answers, where nobody else has given them.
pub fn plan<'a>(system: &System<'a>) -> Result<Plan<'a>> {
    let root = system.root;
    let mut plan = Plan::new(root);
    if system.kernel()?.is_none() {
        return Ok(plan);
    }
    let is_answered = root
        .list(INSTALL)?
        .iter()
        .any(|file| file.ends_with(".toml"));
    if !is_answered {
        let why = "bootc asks for the file system of the root when it installs the image; another file here comes first";
        plan.write(INSTALL_FILE, INSTALL_TEXT, why)?;
    }
    if has(root, "usr/bin/kernel-install")? {
        let why = "the kernel stays beside its modules when one is installed";
        plan.write(LAYOUT, "layout=ostree\n", why)?;
    }
    Ok(plan)
}

fn has(root: &Root, path: &str) -> Result<bool> {
    Ok(root.kind(path)? == Kind::File)
}
