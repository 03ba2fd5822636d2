//! The options of a job.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroUsize;

use camino::Utf8PathBuf;

use super::{FileTimes, Lower, Previous, StoreOptions};
use crate::checksum::Checksum;
use crate::component::{ComponentTable, Intervals};
use crate::layers::{FormatVersion, Sharing};
use crate::oci::{BaseConfig, Compression, Platform, available_threads};
use crate::ostree::{MetadataValue, SecretKey};
use crate::registry::{Access, Destination, Reference};
use crate::tree::Filter;

/// What kind of image is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// An encapsulated OSTree commit.
    Ostree(FormatVersion),
    /// An ordinary image.
    Plain,
}

impl Format {
    /// What files have in common that are written once.
    pub fn sharing(self) -> Sharing {
        match self {
            Self::Ostree(_) => Sharing::Content,
            Self::Plain => Sharing::HardLinks,
        }
    }
}

/// Where a root filesystem is.
#[derive(Debug, Clone)]
pub enum Place {
    /// In a directory, the root of the Debian system.
    Directory(Utf8PathBuf),
    /// In the layers of an image, which are read and not mounted.
    Image(Reference, Box<Access>),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(path) => path.fmt(f),
            Self::Image(reference, _) => write!(f, "image {reference}"),
        }
    }
}

/// The root filesystem to read.
#[derive(Debug)]
pub struct RootfsOptions {
    /// Where it is.
    pub rootfs: Place,
    /// What to leave out.
    pub filter: Filter,
    /// Where dpkg's database is, when not where it is looked for.
    pub admin_dir: Option<String>,
    /// Root owns everything, without special bits and attributes.
    pub canonical_permissions: bool,
    /// The directory with the checksums of files that earlier builds have read.
    pub cache: Option<Utf8PathBuf>,
}

/// The commit that a commit follows.
#[derive(Debug, Clone, Default)]
pub enum Parent {
    /// None.
    None,
    /// The one that the branch points at, where there is a branch.
    #[default]
    Branch,
    /// This one.
    Commit(Checksum),
}

impl RootfsOptions {
    /// All of the system in a directory but what is filled when it runs.
    pub fn new(directory: impl Into<Utf8PathBuf>) -> Self {
        Self {
            rootfs: Place::Directory(directory.into()),
            filter: Filter::default(),
            admin_dir: None,
            canonical_permissions: false,
            cache: None,
        }
    }
}

/// What the commit of a root filesystem says.
#[derive(Debug, Default)]
pub struct CommitOptions {
    /// The date of commit (and image), in seconds since the epoch; without it the time of the
    /// newest file.
    pub timestamp: Option<u64>,
    /// The first line of the message.
    pub subject: String,
    /// The rest of the message.
    pub body: String,
    /// The commit it follows.
    pub parent: Parent,
    /// The version, in its metadata.
    pub version: Option<String>,
    /// More metadata.
    pub metadata: BTreeMap<String, MetadataValue>,
    /// The keys that sign it.
    pub sign: Vec<SecretKey>,
    /// Where it is stored too.
    pub store: Option<StoreOptions>,
}

/// How the content of a system is put into layers.
#[derive(Debug)]
pub struct LayerOptions {
    /// What kind of image they are for.
    pub format: Format,
    /// At most so many layers in all.
    pub max_layers: NonZeroUsize,
    /// An earlier image, whose plan is kept as far as it fits, and whose layers are where they are
    /// the same.
    pub previous: Option<Previous>,
    /// The image of which layers stay as they are, below those that are written.
    pub lower: Option<Lower>,
    /// Which times the files of a plain image have.
    pub times: FileTimes,
    /// Whether a plain image names the commit that its tree would be, and what its layers are made
    /// of: without, no content is hashed but as part of a layer, and no later image can take layers
    /// over.
    pub commit_checksum: bool,
    /// Where dpkg's database is in a commit, when not where it is looked for.
    pub admin_dir: Option<String>,
    /// What the user says of paths.
    pub components: Option<ComponentTable>,
    /// How often components change, as the user says.
    pub intervals: Option<Intervals>,
    /// How many threads read, hash and compress.
    pub threads: NonZeroUsize,
}

impl LayerOptions {
    /// At most 64 layers that follow no earlier image, with all processors.
    pub fn new(format: Format) -> Self {
        Self {
            format,
            max_layers: NonZeroUsize::MIN.saturating_add(63),
            previous: None,
            lower: None,
            times: FileTimes::Keep,
            commit_checksum: true,
            admin_dir: None,
            components: None,
            intervals: None,
            threads: available_threads(),
        }
    }
}

/// The image to make.
#[derive(Debug)]
pub struct ImageOptions {
    /// Its layers.
    pub layers: LayerOptions,
    /// Where the image goes.
    pub destination: Destination,
    /// How registries are reached.
    pub access: Access,
    /// How layers are compressed.
    pub compression: Compression,
    /// The config to begin with.
    pub base: BaseConfig,
    /// Labels to set, or without a value to remove, in this order.
    pub labels: Vec<(String, Option<String>)>,
    /// Metadata of the commit to copy to labels; an error when it is not there.
    pub copied_metadata: Vec<String>,
    /// Metadata of the commit to copy to labels where it is there.
    pub optional_metadata: Vec<String>,
    /// Annotations of the manifest.
    pub annotations: BTreeMap<String, String>,
    /// The command, when not the base config's.
    pub cmd: Option<Vec<String>>,
    /// The platform, when neither the base config nor dpkg is to tell.
    pub platform: Option<Platform>,
    /// Whether the image says that bootc can boot it, even if the commit does not.
    pub bootc: bool,
    /// The command that makes it, for the image's history.
    pub created_by: String,
    /// Whether a bill of materials is made of it.
    pub bill: bool,
}

impl ImageOptions {
    /// An image whose layers are not compressed and that says nothing of itself but what its system
    /// and commit do.
    pub fn new(destination: Destination, layers: LayerOptions) -> Self {
        Self {
            layers,
            destination,
            access: Access::default(),
            compression: Compression::None,
            base: BaseConfig::default(),
            labels: Vec::new(),
            copied_metadata: Vec::new(),
            optional_metadata: Vec::new(),
            annotations: BTreeMap::new(),
            cmd: None,
            platform: None,
            bootc: false,
            created_by: "apt-ostree-helper".to_owned(),
            bill: false,
        }
    }

    /// The platform that the image is for: the one that is given, else its base config's.
    pub fn platform(&self) -> Option<Platform> {
        self.platform.clone().or_else(|| self.base.platform())
    }
}
