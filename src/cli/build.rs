//! `build`.

use anyhow::Result;
use camino::Utf8PathBuf;
use clap::Args;

use super::args::{CommitArgs, LogArgs};
use super::image::{
    FinalizeBeforeArgs, FormatArgs, ImageArgs, Job, Origin, OutputArgs, RootfsOrigin, SystemOrigin,
};
use super::source::SourceArgs;
use crate::pipeline::StoreOptions;

/// Make a chunked image of a Debian root filesystem.
///
/// Reads the rootfs (a directory, or an image or container of podman or buildah) in place, makes
/// its OSTree commit, puts source packages into layers by how often they change, and writes the
/// image. The digest of its manifest goes to standard output.
///
/// What the running system fills (/dev, /proc, /sys, /run, /tmp) and what is below /sysroot is
/// left out; those directories stay, empty. With --rootfs / also what is mounted there.
#[derive(Debug, Args)]
pub struct BuildArgs {
    #[command(flatten)]
    source: SourceArgs,

    #[command(flatten)]
    output: OutputArgs,

    #[command(flatten)]
    format: FormatArgs,

    #[command(flatten)]
    finalize: FinalizeBeforeArgs,

    #[command(flatten)]
    image: ImageArgs,

    #[command(flatten)]
    commit: CommitArgs,

    /// Store the commit in an OSTree repository too
    #[arg(long, value_name = "DIR", conflicts_with = "no_commit_checksum")]
    repo: Option<Utf8PathBuf>,

    /// Branch of the repository that is to point at the commit, which then follows the one that the
    /// branch pointed at
    #[arg(long, value_name = "REF", requires = "repo")]
    branch: Option<String>,
}

impl BuildArgs {
    /// What is logged.
    pub fn log(&self) -> &LogArgs {
        self.image.log()
    }
}

/// Builds and reports.
pub fn run(args: &BuildArgs) -> Result<()> {
    let signs_image = !args.commit.sign_commits.is_empty() && args.repo.is_none();
    let format = args.format.format(&args.image.layers, signs_image)?;
    let store = args.repo.clone().map(|repo| StoreOptions {
        repo,
        branch: args.branch.clone(),
    });
    let origin = Origin::Rootfs(Box::new(RootfsOrigin {
        system: SystemOrigin::Source(&args.source),
        finalize: args.finalize.finalize,
        commit: args.commit.options(store)?,
    }));
    let destination = args.image.tagged(&args.output.output)?;
    Job::new("build", origin, destination, format, &args.image).run()
}
