//! Options that several commands share: each is defined once, here.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Read};
use std::num::NonZeroUsize;

use anyhow::{Context, Result, anyhow, ensure};
use camino::{Utf8Path, Utf8PathBuf};
use clap::Args;
use tracing_subscriber::filter::LevelFilter;

use super::UsageError;
use crate::component::{ComponentTable, Intervals};
use crate::layers::FormatVersion;
use crate::oci::{self, BaseConfig, Compression, Platform};
use crate::ostree::SecretKey;
use crate::pipeline::{
    CommitOptions, FileTimes, Format, LayerOptions, Place, RootfsOptions, StoreOptions,
};
use crate::registry::Destination;
use crate::report::{ProgressMode, TerminalProgress};
use crate::tree::{Filter, SpecialFiles};

/// Which root filesystem is read, and what of it.
#[derive(Debug, Args)]
pub struct RootfsArgs {
    /// Root of the Debian system [default: /rootfs, where there is one]
    #[arg(long, value_name = "DIR")]
    pub rootfs: Option<Utf8PathBuf>,

    #[command(flatten)]
    pub filter: FilterArgs,
}

impl RootfsArgs {
    /// The options of a job.
    pub fn options(&self, admin_dir: Option<&String>) -> Result<RootfsOptions> {
        const USUAL: &str = "/rootfs";
        let rootfs = match &self.rootfs {
            Some(given) => given.clone(),
            None if std::path::Path::new(USUAL).is_dir() => USUAL.into(),
            None => {
                return Err(usage(format!(
                    "no rootfs: there is no {USUAL}; mount one there or give --rootfs DIR"
                )));
            }
        };
        self.filter.options(Place::Directory(rootfs), admin_dir)
    }
}

/// What of a root filesystem is left out.
#[derive(Debug, Args)]
pub struct FilterArgs {
    /// Leave out a path and all below it; with a trailing slash only what is below it
    #[arg(long, value_name = "PATH")]
    prune: Vec<String>,

    /// Leave out sockets, fifos and device nodes instead of failing
    #[arg(long)]
    skip_special_files: bool,

    /// Keep the checksums of files in a directory, so that the next build reads those only that
    /// have changed since: by file system, inode, size and times
    #[arg(long, value_name = "DIR")]
    cache: Option<Utf8PathBuf>,
}

impl FilterArgs {
    /// The options of a job that reads the system in `rootfs`.
    pub fn options(&self, rootfs: Place, admin_dir: Option<&String>) -> Result<RootfsOptions> {
        let mut filter = Filter::default();
        if self.skip_special_files {
            filter.special_files = SpecialFiles::Skip;
        }
        for path in &self.prune {
            let pruned = filter.prune(path);
            pruned.map_err(|e| usage(format!("--prune {path}: {e:#}")))?;
        }
        Ok(RootfsOptions {
            rootfs,
            filter,
            admin_dir: admin_dir.cloned(),
            canonical_permissions: false,
            cache: self.cache.clone(),
        })
    }
}

/// What is said of the commit of a root filesystem.
#[derive(Debug, Args)]
pub struct CommitArgs {
    /// Date of the commit and the image, in seconds since 1970 or as RFC 3339; see --mtime for
    /// file times after it [default: SOURCE_DATE_EPOCH, else the time of the newest file]
    #[arg(long, value_name = "TIME", value_parser = timestamp)]
    pub timestamp: Option<u64>,

    /// Sign the commit with the secret keys in a file: ed25519=FILE (64 bytes in base64 on a line,
    /// as for ostree sign) or, where libostree knows it, spki=FILE (PEM)
    #[arg(long = "sign-commit", value_name = "TYPE=FILE", value_parser = SecretKey::from_option)]
    pub sign_commits: Vec<SecretKey>,
}

impl CommitArgs {
    /// The options of the commit of a root filesystem, which may go to a repository too.
    pub fn options(&self, store: Option<StoreOptions>) -> Result<CommitOptions> {
        Ok(CommitOptions {
            timestamp: self.timestamp()?,
            sign: self.sign_commits.clone(),
            store,
            ..CommitOptions::default()
        })
    }

    /// The date, if one is given.
    pub fn timestamp(&self) -> Result<Option<u64>> {
        match self.timestamp {
            Some(given) => Ok(Some(given)),
            None => source_date_epoch(),
        }
    }
}

/// No components file is larger, in bytes.
const MAX_TABLE: u64 = 16 << 20;

/// How content is put into layers.
#[derive(Debug, Args)]
pub struct LayerArgs {
    /// How many layers the image may have in all
    #[arg(long, value_name = "N", default_value = "64")]
    pub max_layers: NonZeroUsize,

    /// Version of the encapsulated format: 1 leaves parent directories out of content layers
    /// [default: 2; 1 for the compose commands, as in rpm-ostree]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=2))]
    pub format_version: Option<u8>,

    /// Times of the files of a plain image: keep what packages gave and make 0 of what is after the
    /// date otherwise, clamp what is after the date, or zero
    #[arg(long, value_name = "RULE", default_value = "keep", value_parser = FileTimes::from_name)]
    pub mtime: FileTimes,

    /// Leave the checksum of the commit that the tree would be, and those that tell layers apart,
    /// out of a plain image: a third of the processors' time without compression. No later image
    /// can take its layers over
    #[arg(long, conflicts_with_all = ["previous", "previous_required", "base"])]
    pub no_commit_checksum: bool,

    /// Compression of layers: none, gzip or zstd [default: none for oci: and containers-storage:,
    /// gzip for archives and registries]
    #[arg(long, value_name = "METHOD")]
    pub compression: Option<String>,

    /// Level: 1 to 12 for gzip (5), 1 to 22 for zstd (2)
    #[arg(long, value_name = "LEVEL")]
    pub compression_level: Option<i32>,

    /// Directory of dpkg's database in the system [default: looked for]
    #[arg(long, value_name = "DIR")]
    pub admindir: Option<String>,

    /// File with the components of paths that no package owns: a line PATTERN COMPONENT [INTERVAL]
    /// each, or JSON {"path": ..., "component": ..., "interval": ...}; the first that matches a
    /// path or a directory above it counts
    #[arg(long, value_name = "FILE")]
    pub components: Option<Utf8PathBuf>,

    /// File with how often components change: a line COMPONENT INTERVAL each, or JSON {"component":
    /// ..., "interval": ...}, in days or as daily to yearly; 'plan --learn' writes one. Names are
    /// those that 'plan' shows, or of sources
    #[arg(long, value_name = "FILE")]
    pub intervals: Option<Utf8PathBuf>,

    /// Threads that read, hash and compress [default: as many as there are processors]
    #[arg(short = 'j', long, value_name = "N")]
    pub threads: Option<NonZeroUsize>,
}

impl LayerArgs {
    /// What the user says of paths, read.
    fn component_table(&self) -> Result<Option<ComponentTable>> {
        let Some(path) = &self.components else {
            return Ok(None);
        };
        let text = table(path).with_context(|| format!("reading the components from {path}"))?;
        ComponentTable::parse(&text, path.as_str())
            .context("reading the components")
            .map(Some)
    }

    /// What the user says of how often components change, read.
    fn intervals(&self) -> Result<Option<Intervals>> {
        let Some(path) = &self.intervals else {
            return Ok(None);
        };
        let text = table(path).with_context(|| format!("reading the intervals from {path}"))?;
        Intervals::parse(&text, path.as_str())
            .context("reading the intervals")
            .map(Some)
    }

    /// The options of a job, but for earlier images.
    pub fn options(&self, format: Format) -> Result<LayerOptions> {
        let usual = LayerOptions::new(format);
        if self.no_commit_checksum && format != Format::Plain {
            return Err(usage(
                "--no-commit-checksum is for --format plain: an encapsulated commit has its checksum"
                    .to_owned(),
            ));
        }
        Ok(LayerOptions {
            max_layers: self.max_layers,
            times: self.mtime,
            commit_checksum: !self.no_commit_checksum,
            admin_dir: self.admindir.clone(),
            components: self.component_table()?,
            intervals: self.intervals()?,
            threads: self.threads.unwrap_or(usual.threads),
            ..usual
        })
    }

    /// The version of the format, where nothing else is said `usual`.
    pub fn version(&self, usual: FormatVersion) -> FormatVersion {
        match self.format_version {
            None => usual,
            Some(1) => FormatVersion::V1,
            Some(_) => FormatVersion::V2,
        }
    }

    /// The compression, for a destination.
    pub fn compression(&self, destination: &Destination) -> Result<Compression> {
        let usual = match destination {
            Destination::Layout { .. } | Destination::Storage { .. } => "none",
            Destination::Archive { .. } | Destination::Stdout { .. } | Destination::Registry(_) => {
                "gzip"
            }
        };
        let name = self.compression.as_deref().unwrap_or(usual);
        Compression::from_name(name, self.compression_level).map_err(|e| usage(format!("{e:#}")))
    }

    /// Warns of more layers than some programs take.
    pub fn warn_of_many(&self) {
        let layers = self.max_layers.get();
        let reason = match layers {
            501.. => "containers-storage takes images of at most 500 layers",
            128.. => {
                "docker, bootc before 1.1 and podman of Debian 12 run images of at most 127 layers"
            }
            _ => return,
        };
        tracing::warn!("--max-layers {layers}: {reason}");
    }
}

/// The text of a table.
fn table(path: &Utf8Path) -> Result<String> {
    let mut text = String::new();
    let file = std::fs::File::open(path)?;
    let size = file.take(MAX_TABLE + 1).read_to_string(&mut text)?;
    ensure!(
        size as u64 <= MAX_TABLE,
        "it has more than {MAX_TABLE} bytes"
    );
    Ok(text)
}

/// What the image says of itself.
#[derive(Debug, Args)]
pub struct ConfigArgs {
    /// Set a label, or remove it with K-
    #[arg(short, long = "label", value_name = "K=V|K-", value_parser = label)]
    pub labels: Vec<(String, Option<String>)>,

    /// Set an annotation of the manifest
    #[arg(long = "annotation", value_name = "K=V", value_parser = annotation)]
    pub annotations: Vec<(String, String)>,

    /// Command of a container, one argument each time
    #[arg(long, value_name = "ARG", allow_hyphen_values = true)]
    pub cmd: Vec<String>,

    /// Architecture, by its Debian or OCI name, and which image of an index is read or followed
    /// [default: the config's, else dpkg's; of an index this machine's]
    #[arg(long, value_name = "ARCH", value_parser = Platform::from_name)]
    pub arch: Option<Platform>,
}

impl ConfigArgs {
    /// The command, where one is given.
    pub fn cmd(&self) -> Option<Vec<String>> {
        (!self.cmd.is_empty()).then(|| self.cmd.clone())
    }

    /// The annotations by name.
    pub fn annotations(&self) -> BTreeMap<String, String> {
        self.annotations.iter().cloned().collect()
    }
}

/// What is printed while a job runs.
#[derive(Debug, Args)]
pub struct LogArgs {
    /// Print the result and errors only
    #[arg(short, long, conflicts_with = "verbose")]
    pub quiet: bool,

    /// Print more: for an image its layers; twice for debugging
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub verbose: u8,

    /// How progress is shown on standard error
    #[arg(long, value_enum, default_value = "auto")]
    pub progress: ProgressMode,
}

impl LogArgs {
    /// How much is logged.
    pub fn verbosity(&self) -> LevelFilter {
        match (self.quiet, self.verbose) {
            (true, _) => LevelFilter::ERROR,
            (false, 0) => LevelFilter::WARN,
            (false, 1) => LevelFilter::INFO,
            (false, _) => LevelFilter::DEBUG,
        }
    }

    /// What shows progress.
    pub fn progress(&self) -> TerminalProgress {
        TerminalProgress::new(self.progress, self.quiet)
    }
}

/// A destination with the name that an option gives to the image.
pub fn tagged(destination: &Destination, wanted: Option<&String>) -> Result<Destination> {
    if matches!(destination, Destination::Stdout { .. }) && std::io::stdout().is_terminal() {
        return Err(usage(
            "an archive cannot go to a terminal; send standard output to a file or a program, or give another destination"
                .to_owned(),
        ));
    }
    let mut destination = destination.clone();
    let Some(wanted) = wanted else {
        return Ok(destination);
    };
    let Some(tag) = destination.tag_mut() else {
        return Err(usage(format!(
            "--tag {wanted}: the destination names the image already; leave --tag out"
        )));
    };
    match tag {
        Some(other) if other != wanted => Err(usage(format!(
            "two names for the image: '{other}' in the destination and '{wanted}' in --tag; give one"
        ))),
        tag => {
            *tag = Some(wanted.clone());
            if let Destination::Registry(name) = &destination {
                name.check_tag()
                    .map_err(|e| usage(format!("--tag {e:#}")))?;
            }
            Ok(destination)
        }
    }
}

/// Reads a file with `parse`; `-` is standard input.
pub fn read_config(
    path: &Utf8Path,
    parse: impl FnOnce(&[u8]) -> Result<BaseConfig>,
) -> Result<BaseConfig> {
    let mut json = Vec::new();
    let (read, name) = match path.as_str() {
        "-" => (
            std::io::stdin().lock().read_to_end(&mut json),
            "standard input",
        ),
        file => (
            std::fs::File::open(file).and_then(|mut f| f.read_to_end(&mut json)),
            file,
        ),
    };
    read.with_context(|| format!("reading the config from {name}"))?;
    parse(&json).with_context(|| format!("the config from {name} cannot be used"))
}

/// The date that a reproducible build has (reproducible-builds.org, "SOURCE_DATE_EPOCH").
fn source_date_epoch() -> Result<Option<u64>> {
    const VARIABLE: &str = "SOURCE_DATE_EPOCH";
    match std::env::var(VARIABLE) {
        Ok(text) if !text.is_empty() => match text.parse() {
            Ok(seconds) => Ok(Some(seconds)),
            Err(_) => Err(usage(format!(
                "{VARIABLE} is '{text}', which is not a number of seconds since 1970"
            ))),
        },
        _ => Ok(None),
    }
}

/// An error of usage.
pub fn usage(message: String) -> anyhow::Error {
    anyhow!(UsageError(message))
}

/// The name of an image.
pub fn tag(text: &str) -> Result<String> {
    oci::check_tag(text)?;
    Ok(text.to_owned())
}

fn label(text: &str) -> Result<(String, Option<String>)> {
    const OURS: [&str; 2] = ["ostree.commit", "ostree.final-diffid"];
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => match text.strip_suffix('-') {
            Some(name) => (name, None),
            None => return Err(anyhow!("write K=V to set a label, or K- to remove it")),
        },
    };
    if name.is_empty() {
        return Err(anyhow!("the label has no name; write K=V"));
    }
    if OURS.contains(&name) || name.starts_with("apt-ostree-helper.") {
        return Err(anyhow!(
            "the label {name} says what is in the image and cannot be changed"
        ));
    }
    Ok((name.to_owned(), value))
}

/// An annotation.
pub fn annotation(text: &str) -> Result<(String, String)> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(anyhow!("write K=V")),
    }
}

fn timestamp(text: &str) -> Result<u64> {
    let seconds = match text.parse::<i64>() {
        Ok(seconds) => seconds,
        Err(_) => text
            .parse::<jiff::Timestamp>()
            .map_err(|_| {
                anyhow!("write seconds since 1970, or a date such as 2025-01-31T12:00:00Z")
            })?
            .as_second(),
    };
    u64::try_from(seconds).map_err(|_| anyhow!("times before 1970 cannot be used"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn labels_are_set_or_removed() {
        let pair = |k: &str, v: Option<&str>| (k.to_owned(), v.map(str::to_owned));
        assert_eq!(label("a=b=c").unwrap(), pair("a", Some("b=c")));
        assert_eq!(label("a=").unwrap(), pair("a", Some("")));
        assert_eq!(label("a-").unwrap(), pair("a", None));
        assert_eq!(label("a-=b-").unwrap(), pair("a-", Some("b-")));
        for wrong in [
            "apt-ostree-helper.plan=x",
            "a",
            "=b",
            "-",
            "ostree.commit=x",
            "ostree.final-diffid-",
        ] {
            assert!(label(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn times_are_seconds_or_dates() {
        assert_eq!(timestamp("12").unwrap(), 12);
        assert_eq!(timestamp("1970-01-02T00:00:00Z").unwrap(), 86400);
        assert_eq!(timestamp("1970-01-01T02:00:00+01:00").unwrap(), 3600);
        for wrong in ["-1", "now", "", "1969-12-31T00:00:00Z"] {
            assert!(timestamp(wrong).is_err(), "{wrong}");
        }
    }
}
