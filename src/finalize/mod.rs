//! A Debian root filesystem becomes what bootc and OSTree expect, in place, by small named steps.
//!
//! A step reads the system and says what it would change, as values; then the changes are made, one
//! after the other. What is as it should be is no change, so a second run makes none, and one that
//! was stopped is completed by the next. Files are moved, never lost: each change replaces a file
//! by renaming a complete one over it, or copies before it removes. Nothing outside the system is
//! reached, whatever links it holds.

mod bootc;
mod byte_code;
mod change;
mod cpio;
mod diversions;
mod factory;
mod identity;
mod initramfs;
mod kernel;
mod layout;
mod leftovers;
mod lint;
mod opt;
mod package_state;
mod password_days;
mod prepare_root;
mod presets;
mod root;
mod run_tmp;
mod steps;
mod system;
mod sysusers;
mod tmpfiles;
mod var;
mod write;

use anyhow::{Context, Result, bail, ensure};
use camino::Utf8PathBuf;
use serde::Serialize;

pub use change::{Action, Change};
pub use lint::{CHECKS, Check, Finding, Level, LintReport, check_names, lint};
pub use steps::{STEPS, Step};

use root::{Kind, Root};
use system::System;
use write::Writer;

/// What is to be done.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The root of the Debian system.
    pub root: Utf8PathBuf,
    /// Only tell what would be done.
    pub dry_run: bool,
    /// A system without a kernel is an error.
    pub bootable: bool,
    /// Steps that are left out.
    pub skip: Vec<String>,
    /// Steps that are done, when not all are.
    pub only: Vec<String>,
}

/// What was done, or would be.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The root of the system.
    #[serde(serialize_with = "as_text")]
    pub root: Utf8PathBuf,
    /// Nothing was changed.
    pub dry_run: bool,
    /// The version of the kernel, where there is one.
    pub kernel: Option<String>,
    /// The steps, in order.
    pub steps: Vec<StepReport>,
}

/// What one step did, or would do.
#[derive(Debug, Clone, Serialize)]
pub struct StepReport {
    /// Its name.
    pub name: &'static str,
    /// Its status.
    pub status: Status,
    /// The changes, in order.
    pub changes: Vec<Change>,
    /// What was left as it is, and why.
    pub notes: Vec<String>,
}

/// How a step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// There was nothing to do.
    Unchanged,
    /// It has made changes, or would make them in a dry run.
    Changed,
    /// It was left out.
    Skipped,
}

impl Report {
    /// How many changes there are.
    pub fn changes(&self) -> usize {
        self.steps.iter().map(|step| step.changes.len()).sum()
    }
}

fn as_text<S: serde::Serializer>(path: &Utf8PathBuf, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(path.as_str())
}

/// Refuses names of steps that do not exist.
///
/// # Errors
/// When there is such a name.
pub fn check_steps(options: &Options) -> Result<()> {
    steps::wanted(options).map(drop)
}

/// Finalizes a system. `before` is told of each change on disk before it is made, and can stop it.
///
/// # Errors
/// When the system cannot be finalized: this is found out before anything is changed. When a change
/// cannot be made: those before it stay, and another run completes them.
pub fn finalize(options: &Options, before: &dyn Fn(&str) -> Result<()>) -> Result<Report> {
    let wanted = steps::wanted(options)?;
    let root = Root::open(&options.root)?;
    let check = || -> Result<Option<String>> {
        let system = System::read(&root, options)?;
        refuse(&system, &wanted)?;
        system.kernel()
    };
    let kernel = check().with_context(|| format!("{} cannot be finalized", options.root))?;
    let mut report = Report {
        root: options.root.clone(),
        dry_run: options.dry_run,
        kernel,
        steps: Vec::new(),
    };
    let writer = Writer::new(&root, before);
    for step in &STEPS {
        if !wanted.contains(&step.name) {
            report.steps.push(StepReport {
                name: step.name,
                status: Status::Skipped,
                changes: Vec::new(),
                notes: Vec::new(),
            });
            continue;
        }
        let done = run(step, &root, options, &writer);
        let done = done.with_context(|| format!("step '{}'", step.name))?;
        report.steps.push(done);
    }
    Ok(report)
}

fn run(step: &Step, root: &Root, options: &Options, writer: &Writer<'_>) -> Result<StepReport> {
    let system = System::read(root, options)?;
    let plan = (step.plan)(&system)?;
    if !options.dry_run {
        for change in &plan.changes {
            tracing::debug!("{}: {} {}", step.name, change.action.name(), change.path);
            match &change.action {
                Action::Make { command } => initramfs::make(&system, writer, change, command)?,
                _ => change::apply(root, writer, change)?,
            }
        }
    }
    Ok(StepReport {
        name: step.name,
        status: match plan.changes.is_empty() {
            true => Status::Unchanged,
            false => Status::Changed,
        },
        changes: plan.changes,
        notes: plan.notes,
    })
}

/// Refuses what would fail in the middle.
fn refuse(system: &System<'_>, wanted: &[&str]) -> Result<()> {
    let root = system.root;
    let is_booted = root.kind("run")? == Kind::Directory
        && (root.kind("run/systemd")? == Kind::Directory
            && root.kind("run/systemd/system")? == Kind::Directory
            || root.kind("run/ostree-booted")? != Kind::Absent);
    ensure!(
        !(root.is_own() && is_booted),
        "it is the running system of this machine, not a build step; name the root filesystem"
    );
    for path in ["usr", "usr/lib", "usr/share", "etc", "var", "var/lib"] {
        ensure!(
            root.kind(path)? == Kind::Directory,
            "/{path} is not a directory: this is not a Debian system, or one that is finalized otherwise"
        );
    }
    if root.kind("lib")? == Kind::Directory {
        bail!(
            "/lib is a directory of its own: /usr is not merged; install the package usrmerge first"
        );
    }
    ensure!(
        root.kind("usr/etc")? == Kind::Absent,
        "there is /usr/etc, which only a commit has: this is a checkout of one, and /etc belongs to it"
    );
    let flags = rustix::fs::fstatvfs(root.dir())?.f_flag;
    ensure!(
        system.options.dry_run || !flags.contains(rustix::fs::StatVfsMountFlags::RDONLY),
        "it is mounted read-only; mount it so that it can be written"
    );
    for step in STEPS.iter().filter(|step| wanted.contains(&step.name)) {
        (step.check)(system)?;
    }
    Ok(())
}
