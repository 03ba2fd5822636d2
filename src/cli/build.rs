//! `build`.

use std::collections::BTreeMap;
use std::io::Read;
use std::num::NonZeroUsize;

use anyhow::{Context, Result, anyhow};
use camino::Utf8PathBuf;
use clap::{Args, ValueEnum};
use tracing_subscriber::filter::LevelFilter;

use super::{UsageError, print_result, say};
use crate::layers::FormatVersion;
use crate::oci::{self, BaseConfig, Compression, Platform};
use crate::pipeline::{self, BuildOptions, Built, Format};
use crate::registry::Destination;
use crate::report::{ProgressMode, TerminalProgress, layer_table, summary_line};
use crate::tree::{Filter, SpecialFiles};

/// Make a chunked image of a Debian root filesystem.
///
/// Reads the rootfs in place, makes its OSTree commit, puts source packages into layers by how
/// often they change, and writes the image. The digest of its manifest goes to standard output.
///
/// What the running system fills (/dev, /proc, /sys, /run, /tmp) and what is below /sysroot is
/// left out; those directories stay, empty.
#[derive(Debug, Args)]
pub struct BuildArgs {
    /// Root of the Debian system [default: /rootfs, where there is one]
    #[arg(long, value_name = "DIR")]
    rootfs: Option<Utf8PathBuf>,

    /// Where the image goes: oci:PATH[:TAG], oci-archive:PATH[:TAG], a path (an OCI archive), or
    /// - for an OCI archive on standard output
    ///
    /// An existing layout or archive is replaced in one step; with a tag, only that tag of a layout.
    #[arg(short, long, value_name = "DEST")]
    output: Destination,

    /// Kind of image: an encapsulated OSTree commit, or an ordinary image
    #[arg(long, value_enum, default_value = "ostree")]
    format: FormatName,

    /// Version of the encapsulated format: 1 leaves parent directories out of content layers
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=2))]
    format_version: u8,

    /// How many layers the image may have in all
    #[arg(long, value_name = "N", default_value = "64")]
    max_layers: NonZeroUsize,

    /// Compression of layers: none, gzip or zstd [default: none for oci:, gzip for archives]
    #[arg(long, value_name = "METHOD")]
    compression: Option<String>,

    /// Level: 1 to 9 for gzip (6), 1 to 22 for zstd (3)
    #[arg(long, value_name = "LEVEL")]
    compression_level: Option<i32>,

    /// Config to begin with, - for standard input: an OCI config, or the output of podman
    /// inspect or docker inspect
    #[arg(long, value_name = "FILE")]
    config: Option<Utf8PathBuf>,

    /// Set a label, or remove it with K-
    #[arg(short, long = "label", value_name = "K=V|K-", value_parser = label)]
    labels: Vec<(String, Option<String>)>,

    /// Set an annotation of the manifest
    #[arg(long = "annotation", value_name = "K=V", value_parser = annotation)]
    annotations: Vec<(String, String)>,

    /// Command of a container, one argument each time
    #[arg(long, value_name = "ARG", allow_hyphen_values = true)]
    cmd: Vec<String>,

    /// Architecture, by its Debian or OCI name [default: the config's, else dpkg's]
    #[arg(long, value_name = "ARCH", value_parser = Platform::from_name)]
    arch: Option<Platform>,

    /// Name of the image in the layout or archive
    #[arg(long, value_name = "NAME", value_parser = tag)]
    tag: Option<String>,

    /// Leave out a path and all below it; with a trailing slash only what is below it
    #[arg(long, value_name = "PATH")]
    prune: Vec<String>,

    /// Leave out sockets, fifos and device nodes instead of failing
    #[arg(long)]
    skip_special_files: bool,

    /// Directory of dpkg's database in the rootfs [default: looked for]
    #[arg(long, value_name = "DIR")]
    admindir: Option<String>,

    /// Date of image and commit, in seconds since 1970 or as RFC 3339; later file times are
    /// clamped to it [default: SOURCE_DATE_EPOCH, else the time of the newest file]
    #[arg(long, value_name = "TIME", value_parser = timestamp)]
    timestamp: Option<u64>,

    /// Threads that read, hash and compress [default: as many as there are processors]
    #[arg(short = 'j', long, value_name = "N")]
    threads: Option<NonZeroUsize>,

    /// Write the image's id (the digest of its config) to a file
    #[arg(long, value_name = "FILE")]
    iidfile: Option<Utf8PathBuf>,

    /// Write the digest of the manifest to a file
    #[arg(long, value_name = "FILE")]
    digestfile: Option<Utf8PathBuf>,

    /// Print a JSON description of the image instead of its digest
    #[arg(long)]
    json: bool,

    /// Print the result and errors only
    #[arg(short, long, conflicts_with = "verbose")]
    quiet: bool,

    /// Print the layers too; twice for debugging
    #[arg(short, long, action = clap::ArgAction::Count)]
    verbose: u8,

    /// How progress is shown on standard error
    #[arg(long, value_enum, default_value = "auto")]
    progress: ProgressMode,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum FormatName {
    Ostree,
    Plain,
}

impl BuildArgs {
    /// How much is logged.
    pub fn verbosity(&self) -> LevelFilter {
        match (self.quiet, self.verbose) {
            (true, _) => LevelFilter::ERROR,
            (false, 0) => LevelFilter::WARN,
            (false, 1) => LevelFilter::INFO,
            (false, _) => LevelFilter::DEBUG,
        }
    }
}

/// Builds and reports.
pub fn run(args: &BuildArgs) -> Result<()> {
    for file in [&args.iidfile, &args.digestfile].into_iter().flatten() {
        check_parent(file)?;
    }
    warn_of_many_layers(args.max_layers.get());
    let progress = TerminalProgress::new(args.progress, args.quiet);
    let built = pipeline::build(options(args)?, &progress)?;
    for (file, text) in [
        (&args.iidfile, &built.image_id),
        (&args.digestfile, &built.digest),
    ] {
        if let Some(file) = file {
            std::fs::write(file, text).with_context(|| format!("writing {file}"))?;
        }
    }
    report(args, &built)
}

fn report(args: &BuildArgs, built: &Built) -> Result<()> {
    if !args.quiet {
        if args.verbose > 0 {
            say(&layer_table(&built.layers));
        }
        say(&summary_line(built));
    }
    let result = match args.json {
        true => serde_json::to_string_pretty(built)?,
        false => built.digest.clone(),
    };
    // Standard output has the archive itself.
    if let Destination::Stdout { .. } = args.output {
        if !args.quiet {
            say(&result);
        }
        return Ok(());
    }
    print_result(&format!("{result}\n"))
}

fn options(args: &BuildArgs) -> Result<BuildOptions> {
    let base = match &args.config {
        Some(path) => read_config(path)?,
        None => BaseConfig::default(),
    };
    let mut filter = Filter::default();
    if args.skip_special_files {
        filter.special_files = SpecialFiles::Skip;
    }
    for path in &args.prune {
        filter.prune(path).map_err(|e| usage(format!("{e:#}")))?;
    }
    let format = match (args.format, args.format_version) {
        (FormatName::Plain, _) => Format::Plain,
        (FormatName::Ostree, 1) => Format::Ostree(FormatVersion::V1),
        (FormatName::Ostree, _) => Format::Ostree(FormatVersion::V2),
    };
    let annotations: BTreeMap<_, _> = args.annotations.iter().cloned().collect();
    Ok(BuildOptions {
        rootfs: rootfs(args)?,
        destination: destination(args)?,
        format,
        max_layers: args.max_layers,
        compression: compression(args)?,
        base,
        labels: args.labels.clone(),
        annotations,
        cmd: (!args.cmd.is_empty()).then(|| args.cmd.clone()),
        platform: args.arch.clone(),
        filter,
        admin_dir: args.admindir.clone(),
        timestamp: match args.timestamp {
            Some(given) => Some(given),
            None => source_date_epoch()?,
        },
        threads: args.threads.unwrap_or_else(oci::available_threads),
    })
}

fn rootfs(args: &BuildArgs) -> Result<Utf8PathBuf> {
    const USUAL: &str = "/rootfs";
    match &args.rootfs {
        Some(given) => Ok(given.clone()),
        None if std::path::Path::new(USUAL).is_dir() => Ok(USUAL.into()),
        None => Err(usage(format!(
            "no rootfs: there is no {USUAL}; mount one there or give --rootfs DIR"
        ))),
    }
}

/// The destination, with the name that `--tag` gives.
fn destination(args: &BuildArgs) -> Result<Destination> {
    let mut destination = args.output.clone();
    let Some(wanted) = &args.tag else {
        return Ok(destination);
    };
    let (Destination::Layout { tag, .. }
    | Destination::Archive { tag, .. }
    | Destination::Stdout { tag }) = &mut destination;
    match tag {
        Some(other) if other != wanted => Err(usage(format!(
            "two names for the image: '{other}' in --output and '{wanted}' in --tag; give one"
        ))),
        _ => {
            *tag = Some(wanted.clone());
            Ok(destination)
        }
    }
}

fn compression(args: &BuildArgs) -> Result<Compression> {
    let usual = match args.output {
        Destination::Layout { .. } => "none",
        Destination::Archive { .. } | Destination::Stdout { .. } => "gzip",
    };
    let name = args.compression.as_deref().unwrap_or(usual);
    Compression::from_name(name, args.compression_level).map_err(|e| usage(format!("{e:#}")))
}

fn read_config(path: &Utf8PathBuf) -> Result<BaseConfig> {
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
    BaseConfig::parse(&json).with_context(|| format!("the config from {name} cannot be used"))
}

/// The date that a reproducible build has (reproducible-builds.org, "SOURCE_DATE_EPOCH").
fn source_date_epoch() -> Result<Option<u64>> {
    const VARIABLE: &str = "SOURCE_DATE_EPOCH";
    match std::env::var(VARIABLE) {
        Ok(text) if !text.is_empty() => match text.parse() {
            Ok(seconds) => Ok(Some(seconds)),
            Err(_) => Err(usage(format!(
                "{VARIABLE} is '{text}', which is no number of seconds since 1970"
            ))),
        },
        _ => Ok(None),
    }
}

fn check_parent(file: &Utf8PathBuf) -> Result<()> {
    let parent = file.parent().filter(|p| !p.as_str().is_empty());
    match parent {
        Some(parent) if !parent.is_dir() => Err(usage(format!(
            "cannot write {file}: there is no directory {parent}"
        ))),
        _ => Ok(()),
    }
}

fn warn_of_many_layers(layers: usize) {
    let reason = match layers {
        501.. => "containers-storage takes images of at most 500 layers",
        128.. => {
            "docker, bootc before 1.1 and podman of Debian 12 run images of at most 127 layers"
        }
        _ => return,
    };
    tracing::warn!("--max-layers {layers}: {reason}");
}

fn usage(message: String) -> anyhow::Error {
    anyhow!(UsageError(message))
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
    if OURS.contains(&name) {
        return Err(anyhow!(
            "the label {name} says what is in the image and cannot be changed"
        ));
    }
    Ok((name.to_owned(), value))
}

fn annotation(text: &str) -> Result<(String, String)> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(anyhow!("write K=V")),
    }
}

fn tag(text: &str) -> Result<String> {
    oci::check_tag(text)?;
    Ok(text.to_owned())
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
        for wrong in ["a", "=b", "-", "ostree.commit=x", "ostree.final-diffid-"] {
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
