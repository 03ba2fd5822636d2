//! Writes an image: every layer first, then its config and manifest.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::io::Write;

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use super::below::{Below, KeptLayer};
use super::bill::{BilledImage, layers_being_built};
use super::jobs::{Content, Job, jobs};
use super::layer_plan::{PlannedLayer, Role};
use super::output::Output;
use super::planned::Planned;
use super::system::{Packages, System};
use super::times::Times;
use super::{
    Bill, Built, Format, ImageOptions, LayerOptions, LayerPlan, LayerSummary, PLAN_LABEL, Previous,
    labels, verified,
};
use crate::checksum::Checksum;
use crate::layers::{
    self, Source, WrittenContent, write_commit_layer, write_content_layer, write_mending_layer,
    write_plain_layer,
};
use crate::oci::{Blob, Compression, Image, ImageDetails, Layer, Platform, Stage};
use crate::parallel;
use crate::progress::{Part, Progress, Silent};
use crate::remedy::{Advised, Remedy};

/// A whole image, not published yet.
pub struct Written {
    stage: Stage,
    image: Image,
    /// Digests and sizes of the layers.
    layers: Vec<(Checksum, u64)>,
    built: Built,
}

impl Written {
    /// What it is.
    pub fn built(&self) -> &Built {
        &self.built
    }

    /// Makes it appear at its destination.
    ///
    /// # Errors
    /// When it cannot be written; what was at the destination is untouched then.
    pub fn publish(self, output: &Output, progress: &dyn Progress) -> Result<Built> {
        let layers = self.layers;
        let image = self.image;
        let descriptor = image.descriptor;
        let sent = output.publish(self.stage, descriptor, &image.blobs, &layers, progress)?;
        if let Some(sent) = sent {
            let bytes = layers.iter().filter(|(digest, _)| sent.contains(digest));
            tracing::info!(
                "sent {} of {} layers, {} bytes; the repository has the rest",
                sent.len(),
                layers.len(),
                bytes.map(|(_, size)| size).sum::<u64>()
            );
        }
        Ok(self.built)
    }
}

/// Writes the image.
pub fn write_image(
    system: &System,
    packages: &Packages,
    planned: &Planned,
    below: Option<Below>,
    options: ImageOptions,
    stage: Stage,
    progress: &dyn Progress,
) -> Result<Written> {
    let jobs = jobs(system, planned, below.as_ref(), &options.layers);
    let mut order: Vec<&Job<'_>> = jobs.iter().collect();
    order.sort_by_key(|job| Reverse(job.size));
    // It names the objects of all others.
    let (commit, order): (Vec<_>, Vec<_>) = order.into_iter().partition(|job| job.is_commit());
    let source = Source {
        tree: &system.tree,
        contents: system.contents.as_ref(),
        objects: &system.objects,
        progress,
        written: match options.layers.names_commit() {
            true => WrittenContent::Bytes,
            false => WrittenContent::BytesAlone,
        },
    };
    let date = system.timestamp();
    let times = Times::new(
        &system.tree,
        &packages.ownership,
        options.layers.times,
        date,
    );
    let writer = LayerWriter {
        source,
        system,
        times,
        format: options.layers.format,
        compression: options.compression,
        stage: &stage,
        previous: options.layers.previous.as_ref(),
    };
    let total = jobs.iter().map(|job| job.size);
    progress.begin("writing layers", total.fold(0, u64::saturating_add));
    let write = |jobs: &[&Job<'_>]| {
        parallel::map_with(
            stage.idle(),
            options.layers.threads,
            jobs,
            layers::read_buffer,
            |buffer, job| Ok((job.at, writer.make(job, buffer)?)),
        )
    };
    let mut blobs = write(&order)?;
    blobs.extend(write(&commit)?);
    progress.end();
    blobs.sort_by_key(|(at, _)| *at);

    let compression = options.compression;
    let commit = commit_of(system, &options.layers)?;
    let commit_comment = match (system.info.subject.as_str(), &commit) {
        ("", Some(commit)) => format!("ostree export of commit {commit}"),
        (subject, _) => subject.to_owned(),
    };
    let written = jobs.iter().zip(&blobs).map(|(job, (_, made))| Finished {
        layer: layer(job, &made.blob, compression, commit_comment.clone()),
        summary: summary(job, made),
        planned: planned_layer(job, made),
    });
    let mut finished: Vec<Finished> = written.collect();
    let kept_components = below.as_ref().map(Below::components).unwrap_or_default();
    // The commit has to be first.
    let first = match options.layers.format {
        Format::Ostree(_) => 1,
        Format::Plain => 0,
    };
    let billed = options
        .bill
        .then(|| layers_being_built(system, packages, &jobs, below.as_ref(), first));
    let kept = below.map(|below| below.kept).unwrap_or_default();
    finished.splice(first..first, kept.into_iter().map(Finished::kept));
    let (mut layers, mut summaries, mut plan) = (Vec::new(), Vec::new(), Vec::new());
    for one in finished {
        layers.push(one.layer);
        summaries.push(one.summary);
        plan.push(one.planned);
    }
    let plan = LayerPlan::new(plan);
    let details = details(system, packages, &layers, &plan, options)?;
    let created = details.created.clone();
    let image = Image::write(&stage, &layers, details)?;
    let bill = billed.map(|by_package| {
        let image = BilledImage {
            digest: image.manifest.to_digest(),
            created: Some(created),
            layers: digests(&layers),
            by_package,
        };
        Bill::of_system(image, system, packages)
    });
    let refused = blobs.iter().filter_map(|(_, made)| made.refused);
    let refused: Vec<Checksum> = refused.collect();
    verified::remove_others(&stage, &image, &refused)?;
    let sizes = layers
        .iter()
        .map(|layer| (layer.blob.digest, layer.blob.size));
    let built = Built {
        digest: image.manifest.to_digest(),
        image_id: image.config.to_digest(),
        commit: commit.map(|commit| commit.to_string()),
        timestamp: system.timestamp(),
        entries: system.tree.len(),
        packages: packages.installed.len(),
        layers: summaries,
        plan: planned.file(&kept_components),
        descriptor: image.descriptor.clone(),
        bill: bill.transpose()?,
        content_metadata: planned.content_metadata(),
    };
    Ok(Written {
        stage,
        image,
        layers: sizes.collect(),
        built,
    })
}

fn digests(layers: &[Layer]) -> Vec<String> {
    let digests = layers.iter().map(|layer| layer.blob.digest.to_digest());
    digests.collect()
}

/// A layer that is there, and what is told of it.
struct Finished {
    layer: Layer,
    summary: LayerSummary,
    planned: PlannedLayer,
}

impl Finished {
    fn kept(kept: KeptLayer) -> Self {
        let base = kept.is_base();
        let KeptLayer { layer, planned } = kept;
        let blob = &layer.blob;
        Self {
            summary: LayerSummary {
                digest: blob.digest.to_digest(),
                diff_id: blob.diff_id.to_digest(),
                size: blob.size,
                uncompressed_size: blob.uncompressed_size,
                chance: planned.chance.unwrap_or(0.0),
                components: planned.components.clone(),
                dead_size: planned.dead_size.unwrap_or(0),
                taken_over: true,
                base,
            },
            layer,
            planned,
        }
    }
}

/// What every layer is written with.
struct LayerWriter<'a> {
    source: Source<'a>,
    system: &'a System,
    times: Times<'a>,
    format: Format,
    compression: Compression,
    stage: &'a Stage,
    previous: Option<&'a Previous>,
}

/// A layer that is there.
struct WrittenLayer {
    blob: Blob,
    /// Unknown where the image does not name its commit.
    key: Option<Checksum>,
    taken_over: bool,
    /// What the previous image had under this key, and what the layer is not.
    refused: Option<Checksum>,
}

/// What else decides the bytes of a layer than its entries: this program's own version, with which
/// compressors change.
const WRITER: &str = concat!("apt-ostree-helper ", env!("CARGO_PKG_VERSION"), " layer");

impl LayerWriter<'_> {
    /// Takes the layer over from the previous image, or writes it.
    fn make(&self, job: &Job<'_>, buffer: &mut [u8]) -> Result<WrittenLayer> {
        let name = match job.content {
            Content::Commit => "commit",
            Content::Mending(_) => "changes to lower layers",
            Content::Components(names) => names.first().map_or("", String::as_str),
        };
        let name = format!("layer {} {name}", job.at);
        let _part = Part::begin(self.source.progress, &name, job.size);
        let mut refused = None;
        if let Some(previous) = self.previous {
            let key = self.key(job, buffer)?;
            let blob = match &key {
                Some(key) => previous.take(&key.to_string(), self.stage)?,
                None => None,
            };
            if let Some(blob) = blob {
                if !previous.is_verified() || self.is_really(job, &blob, buffer)? {
                    self.source.progress.advance(job.size);
                    return Ok(WrittenLayer {
                        blob,
                        key,
                        taken_over: true,
                        refused,
                    });
                }
                refused = Some(blob.digest);
            }
        }
        let name = format!("layer-{}", job.at);
        let out = self.stage.blob_writer(&name, self.compression)?;
        let blob = self.stage.add(self.write(job, self.source, out, buffer)?)?;
        Ok(WrittenLayer {
            blob,
            // What it is made of may be known only now.
            key: self.key(job, buffer)?,
            taken_over: false,
            refused,
        })
    }

    /// Whether a blob holds the bytes that this layer has.
    fn is_really(&self, job: &Job<'_>, blob: &Blob, buffer: &mut [u8]) -> Result<bool> {
        // Progress is told once.
        let source = Source {
            progress: &Silent,
            ..self.source
        };
        let made = self.write(job, source, Sha256::new(), buffer)?;
        verified::holds(self.stage, blob, Checksum::finish(made))
    }

    /// The hash of all that decides the bytes of a layer, where the names of its files are learnt.
    fn key(&self, job: &Job<'_>, buffer: &mut [u8]) -> Result<Option<Checksum>> {
        if self.source.written == WrittenContent::BytesAlone {
            return Ok(None);
        }
        let source = Source {
            written: WrittenContent::Name,
            ..self.source
        };
        let mut hasher = Sha256::new();
        writeln!(hasher, "{WRITER} {:?} {:?}", self.format, self.compression)?;
        let hasher = self.write(job, source, hasher, buffer)?;
        Ok(Some(Checksum::finish(hasher)))
    }

    fn write<W: Write>(
        &self,
        job: &Job<'_>,
        source: Source<'_>,
        out: W,
        buffer: &mut [u8],
    ) -> Result<W> {
        let entries = job.entries;
        Ok(match (self.format, job.content) {
            (_, Content::Mending(overlay)) => write_mending_layer(source, overlay, out, buffer)?,
            (Format::Plain, _) => {
                write_plain_layer(source, entries, &|id| self.times.of(id), out, buffer)?
            }
            (Format::Ostree(_), Content::Commit) => {
                write_commit_layer(source, self.system.commit()?, entries, out, buffer)?
            }
            (Format::Ostree(version), Content::Components(_)) => {
                write_content_layer(source, entries, version, out, buffer)?
            }
        })
    }
}

fn layer(job: &Job<'_>, blob: &Blob, compression: Compression, of_commit: String) -> Layer {
    let commented = |comment: String| Layer {
        blob: blob.clone(),
        media_type: compression.media_type(),
        annotations: BTreeMap::new(),
        comment,
    };
    let components = match job.content {
        Content::Components(components) => components,
        Content::Mending(_) => return commented("changes to lower layers".to_owned()),
        Content::Commit => return commented(of_commit),
    };
    let names = components.join(",");
    let annotations = [
        // What rpm-ostree and ostree-ext read.
        ("ostree.components", names.clone()),
        // What chunkah's analysis reads.
        ("org.chunkah.component", names.clone()),
        ("org.chunkah.stability", format!("{:.3}", 1.0 - job.chance)),
    ];
    Layer {
        annotations: annotations.map(|(k, v)| (k.to_owned(), v)).into(),
        ..commented(names)
    }
}

fn planned_layer(job: &Job<'_>, made: &WrittenLayer) -> PlannedLayer {
    PlannedLayer {
        components: job.content.components().to_vec(),
        chance: Some((job.chance * 1e4).round() / 1e4),
        key: made.key.map(|key| key.to_string()),
        diff_id: Some(made.blob.diff_id.to_digest()),
        uncompressed_size: Some(made.blob.uncompressed_size),
        dead_size: None,
        role: matches!(job.content, Content::Mending(_)).then_some(Role::Mending),
    }
}

fn summary(job: &Job<'_>, made: &WrittenLayer) -> LayerSummary {
    let blob = &made.blob;
    LayerSummary {
        digest: blob.digest.to_digest(),
        diff_id: blob.diff_id.to_digest(),
        size: blob.size,
        uncompressed_size: blob.uncompressed_size,
        chance: job.chance,
        components: job.content.components().to_vec(),
        dead_size: 0,
        taken_over: made.taken_over,
        base: false,
    }
}

fn details(
    system: &System,
    packages: &Packages,
    layers: &[Layer],
    plan: &LayerPlan,
    options: ImageOptions,
) -> Result<ImageDetails> {
    let last = layers.last().map(|layer| layer.blob.diff_id.to_digest());
    let image_labels = labels::of_image(&options, system, &last.unwrap_or_default())?;
    let platform = platform(options.platform(), packages)?;
    let mut config = options.base;
    warn_of_other_platform(&platform, config.os(), packages.architecture.as_ref());
    config.set_platform(&platform);
    if let Some(cmd) = options.cmd.as_ref().or(system.container_cmd.as_ref()) {
        config.set_cmd(cmd);
    }
    config.set_label(PLAN_LABEL, Some(&plan.to_label()?));
    for (name, value) in image_labels {
        config.set_label(&name, Some(&value));
    }
    for (name, value) in &options.labels {
        config.set_label(name, value.as_deref());
    }
    let mut annotations = options.annotations;
    if options.layers.format == Format::Plain {
        let commit = commit_of(system, &options.layers)?;
        annotations.extend(commit.map(|commit| (PLAIN_COMMIT.into(), commit.to_string())));
    }
    labels::annotate_version(&config, &mut annotations);
    let created = match config.created() {
        Some(created) => created.to_owned(),
        None => rfc3339(system.timestamp())?,
    };
    Ok(ImageDetails {
        config,
        annotations,
        created,
        created_by: options.created_by,
    })
}

/// The commit that an image names.
pub fn commit_of(system: &System, layers: &LayerOptions) -> Result<Option<Checksum>> {
    let commit = layers.names_commit().then(|| system.commit()).transpose()?;
    Ok(commit.map(|commit| commit.checksum))
}

/// The platform that an image is for: the one that is `named`, else dpkg's.
pub fn platform(named: Option<Platform>, packages: &Packages) -> Result<Platform> {
    if let Some(platform) = named.or_else(|| packages.architecture.clone()) {
        return Ok(platform);
    }
    Platform::from_name(std::env::consts::ARCH).context(Advised::new(
        Remedy::NamePlatform,
        "the rootfs does not tell its architecture",
    ))
}

/// Tells that the image says to be for another machine than its packages are.
fn warn_of_other_platform(said: &Platform, os: &str, of_packages: Option<&Platform>) {
    if os != "linux" {
        tracing::warn!(
            "the config says that the image is for {os}, and it is of packages for linux; container tools will not run it"
        );
    }
    if let Some(of_packages) = of_packages.filter(|p| p.architecture != said.architecture) {
        tracing::warn!(
            "the image says that it is for {}, and its packages are for {}; container tools will take it for the other",
            said.architecture,
            of_packages.architecture
        );
    }
}

/// The annotation of a plain image that names the commit its tree would be.
pub const PLAIN_COMMIT: &str = "apt-ostree-helper.commit";

fn rfc3339(timestamp: u64) -> Result<String> {
    let time = i64::try_from(timestamp).ok();
    let time = time.and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
    let time =
        time.with_context(|| format!("{timestamp} is not a time that can be written as a date"))?;
    Ok(time.to_string())
}
