//! Checks for what would keep a system from booting, from updating, or from being built
//! reproducibly: those of bootc's own lint, those that Debian needs, and what `finalize` would
//! still change. Nothing is changed.

mod boot;
mod names;
mod state;

use anyhow::{Context, Result, bail};
use camino::Utf8PathBuf;
use serde::Serialize;

use super::root::Root;
use super::system::System;
use super::{Options, as_text};

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// The image does not boot, cannot be deployed, or loses data.
    Fatal,
    /// It boots, and something is worse than it could be.
    Warning,
}

/// One thing to look for.
pub struct Check {
    /// Its name, by which it is left out.
    pub name: &'static str,
    /// How bad it is.
    pub level: Level,
    /// What it looks for, in a line.
    pub summary: &'static str,
    /// Why it matters.
    why: &'static str,
    /// What to do about it.
    advice: &'static str,
    /// The paths where it is so, without a leading slash, or other names.
    find: fn(&System<'_>) -> Result<Vec<String>>,
}

/// What was found.
#[derive(Debug, Clone, Serialize)]
pub struct Finding {
    /// The name of the check.
    pub name: &'static str,
    /// How bad it is.
    pub level: Level,
    /// Where, or what: paths with a slash in front.
    pub paths: Vec<String>,
    /// Why it matters.
    pub why: &'static str,
    /// What to do about it.
    pub advice: &'static str,
}

/// All that was found.
#[derive(Debug, Clone, Serialize)]
pub struct LintReport {
    /// The root of the system.
    #[serde(serialize_with = "as_text")]
    pub root: Utf8PathBuf,
    /// How many findings are fatal.
    pub fatal: usize,
    /// How many are warnings.
    pub warnings: usize,
    /// The findings, in the order of the checks.
    pub findings: Vec<Finding>,
}

const FINALIZE: &str = "run 'apt-ostree-helper finalize' as the last step of the build";

/// All checks, the fatal ones first.
pub const CHECKS: [Check; 26] = [
    Check {
        name: "base-directories",
        level: Level::Fatal,
        summary: "the directories that every system has",
        why: "the booted system mounts its own file systems there",
        advice: "make the directories, empty and owned by root",
        find: boot::base_directories,
    },
    Check {
        name: "root-layout",
        level: Level::Fatal,
        summary: "/sysroot, and the link /ostree to what is in it",
        why: "the booted system has its repository there",
        advice: FINALIZE,
        find: boot::root_layout,
    },
    Check {
        name: "usr-etc",
        level: Level::Fatal,
        summary: "/usr/etc beside /etc",
        why: "a commit has /etc there, and cannot have both",
        advice: "move what it holds to /etc, and remove it",
        find: boot::usr_etc,
    },
    Check {
        name: "var-run",
        level: Level::Fatal,
        summary: "/var/run that is not a link to /run",
        why: "programs would write to the disk what is to be gone at a reboot",
        advice: "remove the directory, and make it a link to /run",
        find: state::var_run,
    },
    Check {
        name: "kernels",
        level: Level::Fatal,
        summary: "more than one kernel",
        why: "an image boots one kernel, and nobody can tell which",
        advice: "remove the others with 'apt-get purge'",
        find: boot::several_kernels,
    },
    Check {
        name: "kernel-place",
        level: Level::Fatal,
        summary: "a kernel that is not beside its modules",
        why: "bootc and OSTree look for /usr/lib/modules/VERSION/vmlinuz only",
        advice: FINALIZE,
        find: boot::kernel_place,
    },
    Check {
        name: "initramfs",
        level: Level::Fatal,
        summary: "a kernel whose initramfs is missing or cannot be read",
        why: "the image does not boot without it",
        advice: FINALIZE,
        find: boot::initramfs,
    },
    Check {
        name: "initramfs-ostree",
        level: Level::Fatal,
        summary: "an initramfs without ostree-prepare-root",
        why: "nothing mounts the deployment, and the boot ends in an emergency shell",
        advice: "install dracut and ostree-boot, and run 'apt-ostree-helper finalize'",
        find: boot::initramfs_ostree,
    },
    Check {
        name: "initramfs-config",
        level: Level::Fatal,
        summary: "an initramfs without the system's prepare-root.conf",
        why: "the deployment is mounted otherwise than the system says",
        advice: FINALIZE,
        find: boot::initramfs_config,
    },
    Check {
        name: "kernel-arguments",
        level: Level::Fatal,
        summary: "files in /usr/lib/bootc/kargs.d that bootc cannot read",
        why: "bootc refuses to install or update the image",
        advice: "write TOML with 'kargs = [...]' into files that end in .toml",
        find: boot::kernel_arguments,
    },
    Check {
        name: "names",
        level: Level::Fatal,
        summary: "files that neither OSTree nor an image can hold",
        why: "sockets, devices, names that are not UTF-8 and names of whiteouts cannot be in an image",
        advice: "remove or rename them; a build can also leave out sockets, pipes and devices",
        find: names::refused,
    },
    Check {
        name: "package-state",
        level: Level::Fatal,
        summary: "state of packages that an update does not bring to a machine",
        why: "a machine keeps its /var: dpkg and apt would tell of the packages of the image that was installed first",
        advice: FINALIZE,
        find: state::package_state,
    },
    Check {
        name: "prepare-root",
        level: Level::Warning,
        summary: "no prepare-root.conf for a system with a kernel",
        why: "it says whether composefs is used and the root is read-only",
        advice: FINALIZE,
        find: boot::prepare_root,
    },
    Check {
        name: "boot-files",
        level: Level::Warning,
        summary: "files in /boot",
        why: "/boot is a partition on the booted system, where they are never seen",
        advice: FINALIZE,
        find: boot::boot_files,
    },
    Check {
        name: "run-tmp",
        level: Level::Warning,
        summary: "files in /run and /tmp",
        why: "the booted system has file systems of its own there",
        advice: FINALIZE,
        find: state::run_tmp,
    },
    Check {
        name: "var-files",
        level: Level::Warning,
        summary: "files in /var",
        why: "a machine gets them when it is installed, and never an update of them",
        advice: FINALIZE,
        find: state::var_files,
    },
    Check {
        name: "var-log",
        level: Level::Warning,
        summary: "logs of the build",
        why: "they are of no use on a machine, and other ones after each build",
        advice: FINALIZE,
        find: state::var_log,
    },
    Check {
        name: "var-tmpfiles",
        level: Level::Warning,
        summary: "directories and links in /var that no tmpfiles.d line makes",
        why: "a machine that is updated does not get them, and what needs them fails",
        advice: FINALIZE,
        find: state::var_tmpfiles,
    },
    Check {
        name: "sysusers",
        level: Level::Warning,
        summary: "users and groups that no sysusers.d line makes",
        why: "a machine that has an /etc of its own does not get them with an update",
        advice: FINALIZE,
        find: state::sysusers,
    },
    Check {
        name: "identity",
        level: Level::Warning,
        summary: "what tells one machine from another",
        why: "all machines would share it, and with another machine-id than 'uninitialized' the first boot is none",
        advice: FINALIZE,
        find: state::identity,
    },
    Check {
        name: "leftovers",
        level: Level::Warning,
        summary: "backups, locks, and days of the build in /etc/shadow",
        why: "they are other ones after each build, and change layers without need",
        advice: FINALIZE,
        find: state::leftovers,
    },
    Check {
        name: "byte-code",
        level: Level::Warning,
        summary: "Python's byte code that records times",
        why: "a deployment has the time 0 for all files: Python compiles such modules anew at each start",
        advice: FINALIZE,
        find: state::byte_code,
    },
    Check {
        name: "presets",
        level: Level::Warning,
        summary: "no preset file that says what is enabled",
        why: "the first boot enables all units that no preset mentions",
        advice: FINALIZE,
        find: state::presets,
    },
    Check {
        name: "usr-writable",
        level: Level::Warning,
        summary: "directories below /usr that others than root may write to, and links from there into /var",
        why: "/usr is read-only on the booted system",
        advice: "move such data below /var, with a line in tmpfiles.d",
        find: names::writable,
    },
    Check {
        name: "container-stubs",
        level: Level::Warning,
        summary: "empty files that container tools leave in /etc",
        why: "they hide what the system would have there",
        advice: "remove them after the build; 'build' leaves them out",
        find: state::stubs,
    },
    Check {
        name: "podman",
        level: Level::Warning,
        summary: "a bootc image without podman and netavark",
        why: "'bootc upgrade' and 'bootc switch' need them",
        advice: "install the packages podman and netavark",
        find: boot::podman,
    },
];

/// Looks for everything but what is in `skip`.
///
/// # Errors
/// When a check that is named does not exist, or the system cannot be read.
pub fn lint(root: &camino::Utf8Path, skip: &[String]) -> Result<LintReport> {
    check_names(skip)?;
    let options = Options {
        root: root.to_owned(),
        dry_run: true,
        ..Options::default()
    };
    let opened = Root::open(root)?;
    let system = System::read(&opened, &options)?;
    let mut findings = Vec::new();
    for check in &CHECKS {
        if skip.iter().any(|name| name == check.name) {
            continue;
        }
        let paths = (check.find)(&system).with_context(|| format!("check '{}'", check.name))?;
        if !paths.is_empty() {
            findings.push(Finding {
                name: check.name,
                level: check.level,
                paths,
                why: check.why,
                advice: check.advice,
            });
        }
    }
    let count = |level| findings.iter().filter(|found| found.level == level).count();
    Ok(LintReport {
        root: root.to_owned(),
        fatal: count(Level::Fatal),
        warnings: count(Level::Warning),
        findings,
    })
}

/// Refuses names of checks that do not exist.
///
/// # Errors
/// When there is such a name.
pub fn check_names(skip: &[String]) -> Result<()> {
    for name in skip {
        if !CHECKS.iter().any(|check| check.name == name) {
            let names: Vec<&str> = CHECKS.iter().map(|check| check.name).collect();
            bail!("there is no check '{name}', but {}", names.join(", "));
        }
    }
    Ok(())
}

/// What a step of `finalize` would change.
fn would_change(plan: Result<super::change::Plan<'_>>) -> Result<Vec<String>> {
    Ok(plan?
        .changes
        .into_iter()
        .map(|change| change.path)
        .collect())
}
