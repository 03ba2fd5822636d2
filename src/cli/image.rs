//! The job of every command that makes an image: one description of what its arguments ask for,
//! and the one function that does it. A command adds its own names and defaults to the description.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use camino::{Utf8Path, Utf8PathBuf};
use clap::{Args, ValueEnum};

use super::access::OutputAccessArgs;
use super::args::{self, ConfigArgs, FilterArgs, LayerArgs, LogArgs, usage};
use super::previous::{self, Earlier, PlanArgs};
use super::result::ResultArgs;
use super::say;
use super::source::{BackendArgs, BaseConfigArgs, Opened, SourceArgs};
use crate::layers::FormatVersion;
use crate::oci::BaseConfig;
use crate::pipeline::{self, Built, CommitOptions, Format, ImageOptions};
use crate::registry::{Access, Destination, Reference};
use crate::source::{self, Backends, BuildOptions, Source};

/// The options of every command that makes an image, whatever it makes it of.
#[derive(Debug, Args)]
pub struct ImageArgs {
    /// Name of the image in the layout or archive, or its tag in the registry
    #[arg(long, value_name = "NAME", value_parser = args::tag)]
    tag: Option<String>,

    #[command(flatten)]
    pub layers: LayerArgs,

    #[command(flatten)]
    base: BaseConfigArgs,

    #[command(flatten)]
    config: ConfigArgs,

    #[command(flatten)]
    plan: PlanArgs,

    #[command(flatten)]
    backend: BackendArgs,

    #[command(flatten)]
    access: OutputAccessArgs,

    #[command(flatten)]
    result: ResultArgs,
}

impl ImageArgs {
    /// What is logged.
    pub fn log(&self) -> &LogArgs {
        &self.result.log
    }

    /// The destination, with the name that --tag gives to the image.
    pub fn tagged(&self, destination: &Destination) -> Result<Destination> {
        args::tagged(destination, self.tag.as_ref())
    }
}

/// Where an image goes, as an option.
#[derive(Debug, Args)]
pub struct OutputArgs {
    /// Where the image goes: oci:PATH[:TAG], oci-archive:PATH[:TAG], docker://HOST/NAME[:TAG],
    /// containers-storage:NAME, a path (an OCI archive), or - for an OCI archive on standard output
    ///
    /// An existing layout or archive is replaced in one step; with a tag, only that tag of a
    /// layout. A registry (docker://) is sent the layers that it lacks, and its digest is read
    /// back.
    #[arg(short, long, value_name = "DEST")]
    pub output: Destination,
}

/// Which kind of image is made of a root filesystem.
#[derive(Debug, Args)]
pub struct FormatArgs {
    /// Kind of image: an encapsulated OSTree commit, or an ordinary image
    #[arg(long, value_enum, default_value = "ostree")]
    format: FormatName,
}

/// What kind of image is made.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum FormatName {
    /// An encapsulated OSTree commit.
    Ostree,
    /// An ordinary image.
    Plain,
}

impl FormatArgs {
    /// The format, of the version that is asked for. `is_signed` is whether the image is to carry a
    /// signed commit.
    pub fn format(&self, layers: &LayerArgs, is_signed: bool) -> Result<Format> {
        match self.format {
            FormatName::Plain if is_signed => Err(usage(
                "--sign-commit: a plain image carries no commit to sign; use --format ostree"
                    .into(),
            )),
            FormatName::Plain => Ok(Format::Plain),
            FormatName::Ostree => Ok(Format::Ostree(layers.version(FormatVersion::V2))),
        }
    }
}

/// Whether a root filesystem is finalized before an image is made of it.
#[derive(Debug, Args)]
pub struct FinalizeBeforeArgs {
    /// Make the system first what bootc and OSTree expect, as 'finalize' does, in a view of it:
    /// what is read stays as it is
    #[arg(long)]
    pub finalize: bool,
}

/// One image to make.
pub struct Job<'a> {
    /// The command that is given, for the image's history.
    pub command: &'static str,
    /// What it is made of.
    pub origin: Origin<'a>,
    /// Where it goes.
    pub destination: Destination,
    /// What kind of image it is.
    pub format: Format,
    /// What all commands ask for alike.
    pub args: &'a ImageArgs,
    /// The earlier image that is followed where --previous names none.
    pub earlier: Option<Earlier>,
    /// The file with the config that containers run with, where neither --config nor --config-from
    /// names one.
    pub container_config: Option<&'a Utf8PathBuf>,
    /// Whether the image says that bootc can boot it, whatever is in it.
    pub bootc: bool,
    /// Metadata of the commit that goes to labels; an error when it is not there.
    pub copied_metadata: &'a [String],
    /// Metadata of the commit that goes to labels where it is there.
    pub optional_metadata: &'a [String],
    /// The file for what each component weighs and how often it changes.
    pub content_metadata: Option<&'a Utf8PathBuf>,
    /// The image that the layers are compared with.
    pub compared: Option<&'a Reference>,
}

/// What an image is made of.
pub enum Origin<'a> {
    /// A root filesystem, and the commit that is made of it.
    Rootfs(Box<RootfsOrigin<'a>>),
    /// A commit of a repository, by its branch or checksum.
    Commit(&'a Utf8Path, &'a str),
}

/// A root filesystem that a commit and an image are made of.
pub struct RootfsOrigin<'a> {
    /// Where it is.
    pub system: SystemOrigin<'a>,
    /// Whether it is finalized first.
    pub finalize: bool,
    /// What is said of its commit, and where that is stored too.
    pub commit: CommitOptions,
}

/// Where a root filesystem is.
pub enum SystemOrigin<'a> {
    /// It is there.
    Source(&'a SourceArgs),
    /// The build of a Containerfile makes it.
    Containerfile(BuildOptions, &'a FilterArgs),
}

impl<'a> Job<'a> {
    /// A job in which a command adds nothing of its own.
    pub fn new(
        command: &'static str,
        origin: Origin<'a>,
        destination: Destination,
        format: Format,
        args: &'a ImageArgs,
    ) -> Self {
        Self {
            command,
            origin,
            destination,
            format,
            args,
            earlier: None,
            container_config: None,
            bootc: false,
            copied_metadata: &[],
            optional_metadata: &[],
            content_metadata: None,
            compared: None,
        }
    }

    /// Makes the image, and tells of it.
    ///
    /// # Errors
    /// As [`pipeline::build`] and [`pipeline::encapsulate`]. What is wrong with the arguments, the
    /// files beside the image or the registries is found before any work.
    pub fn run(self) -> Result<()> {
        let args = self.args;
        let mut files = args.result.side_files(&self.destination)?;
        args.plan.add_to(&mut files)?;
        files.add(self.content_metadata, content_metadata)?;
        args.base.check(&args.access.reading)?;
        let stdin = &args.access.reading;
        stdin.refuse_stdin("--image-config", self.container_config)?;
        args.layers.warn_of_many();
        let mut image = self.image_options()?;
        let earlier = args.plan.earlier(self.earlier.clone());
        // An ordinary user's process may begin anew here: before standard input is read.
        let backends = self.origin.enter(&args.backend)?;
        let access = self.access(&earlier)?;
        let platform = args.config.arch.as_ref();
        // Both are read before the image is written, which may replace them.
        let compared = self
            .compared
            .map(|image| previous::layer_sizes(image, &access));
        let compared = compared.transpose()?;
        let previous = args.plan.previous(&earlier, &access, platform)?;
        let config = self.named_config(&access)?;
        let system = self.origin.open(backends.as_ref(), args, &access)?;
        image.base = config.unwrap_or_else(|| system.config());
        if system.has_date() {
            image.base.forget_created();
        }
        let told = system.annotations();
        let lower = (args.plan).lower(&earlier, told, &access, platform, previous.as_ref())?;
        image.layers.previous = previous;
        image.layers.lower = lower;
        image.access = access.clone();

        let progress = args.result.log.progress();
        let ready = |built: &Built| files.write(built);
        let built = match &system {
            OpenedOrigin::Rootfs(opened, commit) => {
                pipeline::build(&opened.rootfs, commit, image, &ready, &progress)
            }
            OpenedOrigin::Commit(repo, name) => {
                pipeline::encapsulate(repo, name, image, &ready, &progress)
            }
        }?;
        args.result
            .finish(files, &built, &self.destination, &access)?;
        if let Some(old) = compared {
            say(&crate::report::comparison(&old, &built.layers));
        }
        args.result.report(&built, &self.destination)
    }

    /// The options of the job, but for what is read first: its config and earlier images.
    fn image_options(&self) -> Result<ImageOptions> {
        let (layers, config) = (&self.args.layers, &self.args.config);
        let destination = self.destination.clone();
        Ok(ImageOptions {
            compression: layers.compression(&self.destination)?,
            labels: config.labels.clone(),
            copied_metadata: self.copied_metadata.to_vec(),
            optional_metadata: self.optional_metadata.to_vec(),
            annotations: config.annotations(),
            cmd: config.cmd(),
            platform: config.arch.clone(),
            bootc: self.bootc,
            created_by: format!("apt-ostree-helper {}", self.command),
            bill: self.args.result.sbom.is_some(),
            ..ImageOptions::new(destination, layers.options(self.format)?)
        })
    }

    /// How registries are reached: the one that is written to, and those of what is read.
    fn access(&self, earlier: &Earlier) -> Result<Access> {
        let args = self.args;
        let (config, origin) = (args.base.host()?, self.origin.host()?);
        let others = [
            self.compared.and_then(Reference::host),
            earlier.host(),
            args.plan.base_host(),
            config.as_deref(),
            origin.as_deref(),
        ];
        args.access.access(&self.destination, others)
    }

    /// The config to begin with, where one is named.
    fn named_config(&self, access: &Access) -> Result<Option<BaseConfig>> {
        let args = self.args;
        match self.container_config {
            Some(file) => args::read_config(file, BaseConfig::parse_container).map(Some),
            None => {
                let access = access.for_source_of(args.config.arch.as_ref());
                args.base.named(&args.backend, &access)
            }
        }
    }
}

impl Origin<'_> {
    /// The backend that is needed to read it, if one is, in its user namespace.
    fn enter(&self, backend: &BackendArgs) -> Result<Option<Backends>> {
        match self {
            Self::Commit(..) => Ok(None),
            Self::Rootfs(rootfs) => match &rootfs.system {
                SystemOrigin::Source(source) => source.enter(backend),
                SystemOrigin::Containerfile(..) => backend.enter().map(Some),
            },
        }
    }

    /// The registry that it is read from, if it is in one.
    fn host(&self) -> Result<Option<String>> {
        match self {
            Self::Commit(..) => Ok(None),
            Self::Rootfs(rootfs) => match &rootfs.system {
                SystemOrigin::Source(source) => source.host(),
                SystemOrigin::Containerfile(..) => Ok(None),
            },
        }
    }

    /// Builds and mounts what is to be built and mounted, with the backend that [`Self::enter`]
    /// gave.
    fn open(
        &self,
        backends: Option<&Backends>,
        args: &ImageArgs,
        access: &Access,
    ) -> Result<OpenedOrigin<'_>> {
        let rootfs = match self {
            Self::Commit(repo, name) => return Ok(OpenedOrigin::Commit(repo, name)),
            Self::Rootfs(rootfs) => rootfs,
        };
        let admin_dir = args.layers.admindir.as_ref();
        let mut opened = match &rootfs.system {
            SystemOrigin::Source(source) => {
                source.open(backends, admin_dir, access, args.config.arch.as_ref())
            }
            SystemOrigin::Containerfile(options, filter) => {
                let backends =
                    backends.context("building a Containerfile needs podman or buildah")?;
                let id = source::build(backends, options)?;
                filter.of_source(Source::image(backends, &id)?, admin_dir)
            }
        }?;
        if rootfs.finalize {
            opened.finalize()?;
        }
        Ok(OpenedOrigin::Rootfs(Box::new(opened), &rootfs.commit))
    }
}

/// What an image is made of, ready to be read.
enum OpenedOrigin<'a> {
    Rootfs(Box<Opened>, &'a CommitOptions),
    Commit(&'a Utf8Path, &'a str),
}

impl OpenedOrigin<'_> {
    /// The config that comes with it.
    fn config(&self) -> BaseConfig {
        match self {
            Self::Rootfs(opened, _) => opened.config.clone(),
            Self::Commit(..) => BaseConfig::default(),
        }
    }

    /// The annotations that come with it.
    fn annotations(&self) -> Option<&BTreeMap<String, String>> {
        match self {
            Self::Rootfs(opened, _) => Some(&opened.annotations),
            Self::Commit(..) => None,
        }
    }

    /// Whether the date of the image is not that of its config.
    fn has_date(&self) -> bool {
        match self {
            Self::Rootfs(_, commit) => commit.timestamp.is_some(),
            Self::Commit(..) => true,
        }
    }
}

fn content_metadata(built: &Built) -> Result<String> {
    Ok(serde_json::to_string(&built.content_metadata)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::{BTreeMap, BTreeSet};

    use clap::{Arg, Command};

    use super::super::args::CommitArgs;
    use super::super::definition;
    use super::*;

    /// What a command that makes an image has of its own, and whether it reads a root filesystem.
    const OWN: [(&[&str], &[&str]); 6] = [
        (&["build"], &["branch", "repo", "finalize", "format"]),
        (
            &["compose", "build-image"],
            &[
                "bootc",
                "build-arg",
                "file",
                "finalize",
                "format",
                "platform",
                "target",
            ],
        ),
        (
            &["compose", "build-chunked-oci"],
            &["bootc", "previous-build", "reference"],
        ),
        (&["encapsulate"], &OF_A_COMMIT),
        (&["compose", "container-encapsulate"], &OF_A_COMMIT),
        (&["container-encapsulate"], &OF_A_COMMIT),
    ];
    const OF_A_COMMIT: [&str; 7] = [
        "compare-with-build",
        "copymeta",
        "copymeta-opt",
        "image-config",
        "previous-build-manifest",
        "repo",
        "write-contentmeta-json",
    ];

    /// The long options of a command, with all that is said of each.
    fn options(command: &Command) -> BTreeMap<String, String> {
        let told = |argument: &Arg| {
            let help = argument.get_help().map(ToString::to_string);
            format!("{help:?} {argument} {:?}", argument.get_default_values())
        };
        let arguments = command.get_arguments();
        let named = arguments.filter_map(|a| Some((a.get_long()?.to_owned(), told(a))));
        named.filter(|(name, _)| name != "help").collect()
    }

    fn of<T: Args>() -> BTreeMap<String, String> {
        let mut command = T::augment_args(Command::new("any"));
        command.build();
        options(&command)
    }

    #[test]
    fn commands_that_make_images_have_the_same_options() {
        let shared = of::<ImageArgs>();
        let of_rootfs: BTreeMap<_, _> =
            [of::<SourceArgs>(), of::<CommitArgs>(), of::<OutputArgs>()]
                .into_iter()
                .flatten()
                .collect();
        let mut definition = definition();
        definition.build();
        for (path, own) in OWN {
            let mut command = &definition;
            for word in path {
                command = command.find_subcommand(word).unwrap();
            }
            let has = options(command);
            for (name, told) in &shared {
                assert_eq!(has.get(name), Some(told), "--{name} of {path:?}");
            }
            let has: BTreeSet<&str> = has.keys().map(String::as_str).collect();
            let expected = own.iter().copied().chain(shared.keys().map(String::as_str));
            let expected: BTreeSet<&str> = expected.collect();
            let more: Vec<&&str> = has.difference(&expected).collect();
            match has.contains("timestamp") {
                true => assert!(
                    more.iter().all(|name| of_rootfs.contains_key(**name)),
                    "{path:?}: {more:?}"
                ),
                false => assert!(more.is_empty(), "{path:?}: {more:?}"),
            }
            for name in own {
                assert!(has.contains(name), "{path:?} has no --{name}");
            }
        }
    }
}
