//! The steps, in order.

use anyhow::{Result, bail};

use super::change::Plan;
use super::system::System;
use super::{
    Options, bootc, byte_code, identity, initramfs, kernel, layout, leftovers, opt, package_state,
    password_days, prepare_root, presets, run_tmp, sysusers, var,
};

/// A step by its name.
pub struct Step {
    /// The name, by which it is left out.
    pub name: &'static str,
    /// What it does, in a line.
    pub summary: &'static str,
    /// Refuses a system, before anything is changed.
    pub(super) check: fn(&System<'_>) -> Result<()>,
    /// What it would change.
    pub(super) plan: for<'a> fn(&System<'a>) -> Result<Plan<'a>>,
}

/// All steps. The initramfs comes last: it is made of what the others leave.
pub const STEPS: [Step; 15] = [
    Step {
        name: "kernel",
        summary: "the kernel beside its modules, and known to dpkg there",
        check: kernel::check,
        plan: kernel::plan,
    },
    Step {
        name: "prepare-root",
        summary: "how the initramfs mounts a deployment",
        check: nothing,
        plan: prepare_root::plan,
    },
    Step {
        name: "bootc",
        summary: "what bootc and kernel-install ask an image",
        check: nothing,
        plan: bootc::plan,
    },
    Step {
        name: "identity",
        summary: "no machine id, host keys, host name or name servers of the build",
        check: nothing,
        plan: identity::plan,
    },
    Step {
        name: "leftovers",
        summary: "no backups and locks",
        check: nothing,
        plan: leftovers::plan,
    },
    Step {
        name: "password-days",
        summary: "no day of the build in /etc/shadow",
        check: nothing,
        plan: password_days::plan,
    },
    Step {
        name: "presets",
        summary: "the first boot enables what is enabled, and nothing else",
        check: nothing,
        plan: presets::plan,
    },
    Step {
        name: "sysusers",
        summary: "lines for sysusers.d for users and groups that no package declares",
        check: nothing,
        plan: sysusers::plan,
    },
    Step {
        name: "run-tmp",
        summary: "/run and /tmp empty",
        check: nothing,
        plan: run_tmp::plan,
    },
    Step {
        name: "byte-code",
        summary: "Python's byte code records hashes, not times",
        check: nothing,
        plan: byte_code::plan,
    },
    Step {
        name: "opt",
        summary: "what packages have below /opt, when that is a link, belongs to the image again",
        check: nothing,
        plan: opt::plan,
    },
    Step {
        name: "layout",
        summary: "/home, /root, /srv, /mnt, /opt and /media are links; /sysroot and /ostree",
        check: nothing,
        plan: layout::plan,
    },
    Step {
        name: "package-state",
        summary: "the state of packages below /usr/lib/sysimage, with links to it in /var",
        check: nothing,
        plan: package_state::plan,
    },
    Step {
        name: "var",
        summary: "/var without files, and made on each machine as tmpfiles.d says",
        check: nothing,
        plan: var::plan,
    },
    Step {
        name: "initramfs",
        summary: "the initramfs beside the kernel, for OSTree and any machine",
        check: initramfs::check,
        plan: initramfs::plan,
    },
];

fn nothing(_: &System<'_>) -> Result<()> {
    Ok(())
}

/// The names of the steps that are to be done.
///
/// # Errors
/// When a step that is named does not exist.
pub fn wanted(options: &Options) -> Result<Vec<&'static str>> {
    for name in options.skip.iter().chain(&options.only) {
        if !STEPS.iter().any(|step| step.name == name) {
            let names: Vec<&str> = STEPS.iter().map(|step| step.name).collect();
            bail!("there is no step '{name}', but {}", names.join(", "));
        }
    }
    let is_wanted = |name: &str| {
        let is_chosen = options.only.is_empty() || options.only.iter().any(|only| only == name);
        is_chosen && !options.skip.iter().any(|skip| skip == name)
    };
    let names = STEPS.iter().map(|step| step.name);
    Ok(names.filter(|name| is_wanted(name)).collect())
}
