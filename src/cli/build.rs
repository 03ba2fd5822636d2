//! `build`.

use anyhow::Result;
use camino::Utf8PathBuf;
use clap::{Args, ValueEnum};

use super::access::OutputAccessArgs;
use super::args::{self, CommitArgs, ConfigArgs, LayerArgs, LogArgs, usage};
use super::image::image_options;
use super::previous::PlanArgs;
use super::result::ResultArgs;
use super::source::{BaseConfigArgs, SourceArgs};
use crate::layers::FormatVersion;
use crate::pipeline::{self, CommitOptions, Format, ImageOptions, StoreOptions};
use crate::registry::Destination;

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

    /// Where the image goes: oci:PATH[:TAG], oci-archive:PATH[:TAG], docker://HOST/NAME[:TAG],
    /// containers-storage:NAME, a path (an OCI archive), or - for an OCI archive on standard output
    ///
    /// An existing layout or archive is replaced in one step; with a tag, only that tag of a
    /// layout. A registry (docker://) is sent the layers that it lacks, and its digest is read
    /// back.
    #[arg(short, long, value_name = "DEST")]
    output: Destination,

    /// Name of the image in the layout or archive, or its tag in the registry
    #[arg(long, value_name = "NAME", value_parser = args::tag)]
    tag: Option<String>,

    /// Kind of image: an encapsulated OSTree commit, or an ordinary image
    #[arg(long, value_enum, default_value = "ostree")]
    format: FormatName,

    /// Make the system first what bootc and OSTree expect, as 'finalize' does, in a view of it:
    /// what is read stays as it is
    #[arg(long)]
    finalize: bool,

    #[command(flatten)]
    layers: LayerArgs,

    #[command(flatten)]
    base: BaseConfigArgs,

    #[command(flatten)]
    image: ConfigArgs,

    #[command(flatten)]
    plan: PlanArgs,

    #[command(flatten)]
    commit: CommitArgs,

    /// Store the commit in an OSTree repository too
    #[arg(long, value_name = "DIR")]
    repo: Option<Utf8PathBuf>,

    /// Branch of the repository that is to point at the commit, which then follows the one that the
    /// branch pointed at
    #[arg(long, value_name = "REF", requires = "repo")]
    branch: Option<String>,

    #[command(flatten)]
    access: OutputAccessArgs,

    #[command(flatten)]
    result: ResultArgs,
}

/// What kind of image is made.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum FormatName {
    /// An encapsulated OSTree commit.
    Ostree,
    /// An ordinary image.
    Plain,
}

impl FormatName {
    /// With the version that is asked for, where nothing else is said `usual`. Whether the image is
    /// to carry a signed commit.
    pub fn format(
        self,
        layers: &LayerArgs,
        usual: FormatVersion,
        is_signed: bool,
    ) -> Result<Format> {
        match self {
            Self::Plain if is_signed => Err(usage(
                "--sign-commit: a plain image carries no commit to sign; use --format ostree"
                    .into(),
            )),
            Self::Plain => Ok(Format::Plain),
            Self::Ostree => Ok(Format::Ostree(layers.version(usual))),
        }
    }
}

impl BuildArgs {
    /// What is logged.
    pub fn log(&self) -> &LogArgs {
        &self.result.log
    }
}

/// Builds and reports.
pub fn run(args: &BuildArgs) -> Result<()> {
    let destination = args::tagged(&args.output, args.tag.as_ref())?;
    let mut files = args.result.side_files(&destination)?;
    args.plan.add_to(&mut files)?;
    args.base.check(&args.access.reading)?;
    args.layers.warn_of_many();
    let timestamp = args.commit.timestamp()?;
    let image = image(args, &destination)?;
    let (config_host, from_host) = (args.base.host()?, args.source.host()?);
    let others = [
        args.plan.host(),
        args.plan.base_host(),
        config_host.as_deref(),
        from_host.as_deref(),
    ];
    let platform = args.image.arch.as_ref();
    let access = || args.access.access(&destination, others);
    // An ordinary user's process may begin anew here: before standard input is read.
    let admin_dir = args.layers.admindir.as_ref();
    let mut opened = args.source.open(admin_dir, access, platform)?;
    if args.finalize {
        opened.finalize()?;
    }
    let access = access()?;
    let backend = &args.source.backend;
    let base = args.base.base(
        backend,
        opened.config,
        timestamp.is_some(),
        &access.for_source_of(platform),
    )?;
    let previous = args.plan.previous(&access, platform)?;
    let told = &opened.annotations;
    let lower = args
        .plan
        .lower(told, &access, platform, previous.as_ref())?;
    let image = ImageOptions {
        previous,
        lower,
        access: access.clone(),
        base,
        ..image
    };
    let commit = CommitOptions {
        timestamp,
        sign: args.commit.sign_commits.clone(),
        store: args.repo.clone().map(|repo| StoreOptions {
            repo,
            branch: args.branch.clone(),
        }),
        ..CommitOptions::default()
    };
    let built = pipeline::build(
        &opened.rootfs,
        &commit,
        image,
        &|built| files.write(built),
        &args.result.log.progress(),
    )?;
    args.result.finish(files, &built, &destination, &access)?;
    args.result.report(&built, &destination)
}

fn image(args: &BuildArgs, destination: &Destination) -> Result<ImageOptions> {
    let signs_image = !args.commit.sign_commits.is_empty() && args.repo.is_none();
    let format = args
        .format
        .format(&args.layers, FormatVersion::V2, signs_image)?;
    let (layers, config, result) = (&args.layers, &args.image, &args.result);
    image_options("build", destination.clone(), format, layers, config, result)
}
