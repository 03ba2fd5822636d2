//! Where a root filesystem comes from: the options of every command that reads one.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;

use super::access::AccessArgs;
use super::args::{FilterArgs, RootfsArgs, read_config, usage};
use super::{EndsWith, tell_of_end};
use crate::finalize;
use crate::oci::{BaseConfig, Platform};
use crate::pipeline::{Place, RootfsOptions};
use crate::registry::{self, Access, Reference};
use crate::source::{self, Backends, Choice, Source, Unshared, View};

/// The backend of images and containers.
#[derive(Debug, Args)]
pub struct BackendArgs {
    /// The container tool to use: podman, buildah, or auto for the one that is installed (podman
    /// first; buildah alone in a container with the storage of another system)
    #[arg(
        long,
        value_name = "NAME",
        default_value = "auto",
        env = "APT_OSTREE_HELPER_BACKEND"
    )]
    pub backend: Choice,

    /// Time limit in seconds for each call of the backend, but for those that fetch or build
    #[arg(long, value_name = "SECONDS", default_value = "300", env = "APT_OSTREE_HELPER_BACKEND_TIMEOUT",
        value_parser = clap::value_parser!(u64).range(1..))]
    pub backend_timeout: u64,
}

impl BackendArgs {
    /// Finds the backend.
    pub fn detect(&self) -> Result<Backends> {
        Backends::detect(self.backend, Duration::from_secs(self.backend_timeout))
    }

    /// Finds the backend, in its user namespace: for an ordinary user the job is done by another
    /// process, with whose status this one then ends.
    pub fn enter(&self) -> Result<Backends> {
        let backends = self.detect()?;
        match source::enter(&backends, tell_of_end())? {
            Unshared::Here => Ok(backends),
            Unshared::Done(status) => Err(EndsWith::status(status).into()),
        }
    }
}

/// Which root filesystem is read.
#[derive(Debug, Args)]
pub struct SourceArgs {
    #[command(flatten)]
    rootfs: RootfsArgs,

    /// Read an image. One with a transport (oci:PATH[:TAG], oci-archive:PATH[:TAG], docker://NAME,
    /// containers-storage:NAME) is read layer by layer, without podman and without privilege, its
    /// files kept meanwhile in an unnamed file in TMPDIR; one without is an image of podman or
    /// buildah, which is mounted meanwhile, and fetched where it is not in the storage
    #[arg(long, value_name = "IMAGE", conflicts_with = "rootfs")]
    from: Option<String>,

    /// Read a container of podman or buildah, which is mounted meanwhile
    #[arg(long, value_name = "NAME", conflicts_with_all = ["rootfs", "from"])]
    container: Option<String>,
}

/// A root filesystem to read; what is mounted stays so as long as this lives.
pub struct Opened {
    /// Where it is and what of it is read.
    pub rootfs: RootfsOptions,
    /// The config of the image or container.
    pub config: BaseConfig,
    /// The annotations of the image.
    pub annotations: BTreeMap<String, String>,
    _view: Option<View>,
    _source: Option<Source>,
}

impl Opened {
    /// Puts a view of the system in its place, in which it is finalized.
    pub fn finalize(&mut self) -> Result<()> {
        let Place::Directory(read) = &self.rootfs.rootfs else {
            return Err(usage(format!(
                "--finalize: {} is read without being mounted, and programs of it have to run; name one in the storage of podman or buildah",
                self.rootfs.rootfs
            )));
        };
        let view = View::of(read).with_context(|| {
            format!(
                "making a view of {read} to finalize; 'apt-ostree-helper finalize' does it in place"
            )
        })?;
        let options = finalize::Options {
            root: view.path().to_owned(),
            ..finalize::Options::default()
        };
        let report = finalize::finalize(&options, &|_| Ok(()))?;
        tracing::info!("finalized with {} changes", report.changes());
        self.rootfs.rootfs = Place::Directory(view.path().to_owned());
        self._view = Some(view);
        Ok(())
    }
}

impl SourceArgs {
    /// The registry that has the image whose layers are read, if one does.
    pub fn host(&self) -> Result<Option<String>> {
        let reference = self.layered().map(|image| from(image)).transpose()?;
        Ok(reference.and_then(|r| r.host().map(str::to_owned)))
    }

    /// The image whose layers are read without being mounted, if there is one.
    fn layered(&self) -> Option<&String> {
        let image = self.from.as_ref();
        image.filter(|image| registry::has_transport(image))
    }

    /// The backend that has what is read, if one has, in its user namespace.
    pub fn enter(&self, backend: &BackendArgs) -> Result<Option<Backends>> {
        let is_mounted =
            self.layered().is_none() && (self.from.is_some() || self.container.is_some());
        is_mounted.then(|| backend.enter()).transpose()
    }

    /// Mounts what is to be mounted, with the backend that [`Self::enter`] gave. Of an index the
    /// image for `platform` is read.
    pub fn open(
        &self,
        backends: Option<&Backends>,
        admin_dir: Option<&String>,
        access: &Access,
        platform: Option<&Platform>,
    ) -> Result<Opened> {
        if let Some(image) = self.layered() {
            return self.open_layers(image, admin_dir, access.for_source_of(platform));
        }
        let source = match (backends, &self.from, &self.container) {
            (Some(backends), Some(image), _) => Source::image(backends, image)?,
            (Some(backends), None, Some(name)) => Source::container(backends, name)?,
            _ => {
                return Ok(Opened {
                    rootfs: self.rootfs.options(admin_dir)?,
                    config: BaseConfig::default(),
                    annotations: BTreeMap::new(),
                    _view: None,
                    _source: None,
                });
            }
        };
        self.rootfs.filter.of_source(source, admin_dir)
    }

    /// Reads what is known of an image whose layers are to be read.
    fn open_layers(
        &self,
        image: &str,
        admin_dir: Option<&String>,
        access: Access,
    ) -> Result<Opened> {
        let reference = from(image)?;
        let found = registry::describe(&reference, &access)?;
        let config = BaseConfig::parse(&found.config)
            .with_context(|| format!("reading the config of the image {reference}"))?;
        let place = Place::Image(reference, Box::new(access));
        Ok(Opened {
            rootfs: self.rootfs.filter.options(place, admin_dir)?,
            config,
            annotations: found.manifest.annotations,
            _view: None,
            _source: None,
        })
    }
}

impl FilterArgs {
    /// The options of a job that reads what is mounted.
    pub fn of_source(&self, source: Source, admin_dir: Option<&String>) -> Result<Opened> {
        Ok(Opened {
            rootfs: self.options(Place::Directory(source.path().to_owned()), admin_dir)?,
            config: source.config().clone(),
            annotations: source.annotations().clone(),
            _view: None,
            _source: Some(source),
        })
    }
}

/// The config to begin with, where it is not that of what is read.
#[derive(Debug, Args)]
pub struct BaseConfigArgs {
    /// Config to begin with, - for standard input: an OCI config, or the output of podman
    /// inspect or docker inspect [default: that of the image or container that is read]
    #[arg(long, value_name = "FILE", conflicts_with = "config_from")]
    config: Option<camino::Utf8PathBuf>,

    /// Image whose config to begin with: with a transport (oci:PATH[:TAG], docker://NAME), or the
    /// name of one in the storage of podman or buildah
    #[arg(long, value_name = "IMAGE")]
    config_from: Option<String>,
}

impl BaseConfigArgs {
    /// The registry that has the image whose config is taken, if one does.
    pub fn host(&self) -> Result<Option<String>> {
        let image = self.config_from.as_ref();
        let image = image.filter(|image| registry::has_transport(image));
        let reference = image.map(|image| reference_of(image)).transpose()?;
        Ok(reference.and_then(|r| r.host().map(str::to_owned)))
    }

    /// Refuses that standard input is read for two things.
    pub fn check(&self, access: &AccessArgs) -> Result<()> {
        access.refuse_stdin("--config", self.config.as_ref())
    }

    /// The config that is named, if one is.
    pub fn named(&self, backend: &BackendArgs, access: &Access) -> Result<Option<BaseConfig>> {
        match (&self.config, &self.config_from) {
            (Some(file), _) => read_config(file, BaseConfig::parse).map(Some),
            (None, Some(image)) => config_of(image, backend, access).map(Some),
            (None, None) => Ok(None),
        }
    }
}

fn from(image: &str) -> Result<Reference> {
    image.parse().map_err(|e| usage(format!("--from {e:#}")))
}

fn reference_of(image: &str) -> Result<Reference> {
    image
        .parse()
        .map_err(|e| usage(format!("--config-from {e:#}")))
}

fn config_of(image: &str, backend: &BackendArgs, access: &Access) -> Result<BaseConfig> {
    if !registry::has_transport(image) || image.starts_with("containers-storage:") {
        return source::image_config(&backend.detect()?, image);
    }
    let reference = reference_of(image)?;
    BaseConfig::parse(&registry::read_config(&reference, access)?)
}
