//! A plain image is sealed: the digest of what bootc makes of it goes onto the command line of its
//! kernel, and kernel, initramfs and command line into one file, which is one more layer. The
//! layers that were there stay, byte for byte. The file is in `/boot`, which the digest leaves out.

use std::fs::{self, File};
use std::io::{BufReader, Read, Write};
use std::num::NonZeroUsize;

use anyhow::{Context, Result, ensure};
use camino::{Utf8Path, Utf8PathBuf};
use serde::Serialize;

use super::image_root::ImageRoot;
use super::labels::{self, BOOTC, COMMIT, IMAGE_VERSION, UNIFIED_KERNELS};
use super::layer_plan::{PlannedLayer, Role};
use super::lower_image::LowerImage;
use super::options::Place;
use super::output::Output;
use super::previous::told_layers;
use super::sealed_kernel::{INITRAMFS, KERNEL, KernelSource, MODULES, command_line, of_image};
use super::{LayerPlan, PLAN_LABEL};
use crate::checksum::Checksum;
use crate::component::TreeFiles;
use crate::composefs::{self, ImageId};
use crate::dpkg::Files;
use crate::oci::{
    BaseConfig, Compression, Image, ImageDetails, Layer, MediaType, Member, MemberKind, Stage,
    TarWriter,
};
use crate::progress::Progress;
use crate::registry::{self, Access, Destination, Image as Opened, Reference};
use crate::tree::{Contents, Filter, Tree};
use crate::uki::{self, Keys, Parts};

/// Where bootc has what its initramfs needs.
const BOOTC_INITRAMFS: &str = "usr/lib/bootc/initramfs-setup";
/// The name of what the last layer holds, as a component.
const COMPONENT: &str = "boot/uki";
const BUFFER: usize = 256 * 1024;

/// What is to be sealed, and how.
#[derive(Debug)]
pub struct SealOptions {
    /// The image.
    pub image: Reference,
    /// Where the sealed one goes.
    pub destination: Destination,
    /// How registries are reached.
    pub access: Access,
    /// A directory with `vmlinuz` and `initramfs.img`, called as the kernel's version; without it
    /// those of the image are taken.
    pub kernel: Option<Utf8PathBuf>,
    /// More arguments of the kernel.
    pub arguments: Vec<String>,
    /// Whether a machine whose file system has no fs-verity may boot it.
    pub allow_missing_verity: bool,
    /// What signs it for Secure Boot.
    pub keys: Option<Keys>,
    /// Only find out what it would be.
    pub dry_run: bool,
    /// The command that makes it, for the image's history.
    pub created_by: String,
    /// How many threads hash.
    pub threads: NonZeroUsize,
}

/// What was sealed, or would be.
#[derive(Debug, Serialize)]
pub struct Sealed {
    /// The digest of the manifest; none in a dry run.
    pub digest: Option<String>,
    /// The digest of the config; none in a dry run.
    pub image_id: Option<String>,
    /// The digest of the composefs image.
    pub composefs: String,
    /// The version of the kernel.
    pub kernel: String,
    /// What the kernel is started with.
    pub command_line: String,
    /// The file that was made; none in a dry run.
    pub uki: Option<KernelFile>,
    /// Layers of the image, that of the file included.
    pub layers: usize,
}

/// A kernel with all that it needs.
#[derive(Debug, Serialize)]
pub struct KernelFile {
    /// Its path in the image.
    pub path: String,
    /// Bytes of it.
    pub size: u64,
    /// The digest of its layer.
    pub layer: String,
    /// Whether it is signed.
    pub signed: bool,
}

/// Seals an image.
///
/// # Errors
/// When it is no plain image of this program, cannot be read, or has no kernel; when no unified
/// kernel image can be made of it, or the output cannot be written. Nothing is left at the
/// destination then that was not there before.
pub fn seal(options: &SealOptions, progress: &dyn Progress) -> Result<Sealed> {
    let output = match options.dry_run {
        true => None,
        false => Some(Output::prepare(&options.destination, &options.access)?),
    };
    let sealing = Sealing::open(options, progress);
    let sealing = sealing.with_context(|| format!("sealing {}", options.image))?;
    let mut sealed = sealing.sealed();
    if let Some(output) = output {
        sealing.publish(&output, &mut sealed, progress)?;
    }
    Ok(sealed)
}

/// An image that was read.
struct Sealing<'a> {
    options: &'a SealOptions,
    image: LowerImage,
    /// What the image says of the layers that stay.
    layers: Vec<PlannedLayer>,
    tree: Tree,
    contents: Box<dyn Contents>,
    kernel: KernelSource,
    id: ImageId,
    command_line: String,
}

impl<'a> Sealing<'a> {
    fn open(options: &'a SealOptions, progress: &dyn Progress) -> Result<Self> {
        let image = Opened::open(&options.image, &options.access)?;
        let image = LowerImage::of(&options.image, image);
        let layers = layers_that_stay(&image)?;
        let place = Place::Image(options.image.clone(), Box::new(options.access.clone()));
        let root = ImageRoot::read(&image.image, &Filter::default(), &place, progress)?;
        let tree = root.tree;
        ensure!(
            layers.len() < image.image.layers().len() || !labels::has_unified_kernel(&tree),
            "it has a file in /{UNIFIED_KERNELS} already; seal the image without it"
        );
        let contents: Box<dyn Contents> = Box::new(root.files.into_contents());
        let kernel = KernelSource::find(options.kernel.as_deref(), &tree)?;
        if tree.locate(BOOTC_INITRAMFS).is_none() {
            tracing::warn!(
                "the image has no /{BOOTC_INITRAMFS}: without bootc its initramfs mounts no composefs image"
            );
        }
        let id = composefs::image_id(&tree, contents.as_ref(), options.threads, progress)?;
        let files = TreeFiles {
            tree: &tree,
            contents: contents.as_ref(),
        };
        let architecture = &image.image.config.architecture;
        let of_image = of_image(&files, uki::rust_name(architecture))?;
        let command_line = command_line(of_image, id, options);
        Ok(Self {
            options,
            image,
            layers,
            tree,
            contents,
            kernel,
            id,
            command_line,
        })
    }

    fn sealed(&self) -> Sealed {
        Sealed {
            digest: None,
            image_id: None,
            composefs: self.id.to_string(),
            kernel: self.kernel.version.clone(),
            command_line: self.command_line.clone(),
            uki: None,
            layers: self.layers.len() + 1,
        }
    }

    fn publish(self, output: &Output, sealed: &mut Sealed, progress: &dyn Progress) -> Result<()> {
        let stage = output.stage()?;
        let made = self.make(&stage)?;
        let size = fs::metadata(&made).with_context(|| format!("looking at {made}"))?;
        let path = format!("{UNIFIED_KERNELS}/{}.efi", self.kernel.version);
        let layer = self.layer(&stage, &made, &path, size.len())?;
        sealed.uki = Some(KernelFile {
            path: format!("/{path}"),
            size: size.len(),
            layer: layer.blob.digest.to_digest(),
            signed: self.options.keys.is_some(),
        });
        let mut layers = Vec::new();
        let is_there = self.image.is_at(&self.options.destination);
        for (at, planned) in self.layers.iter().enumerate() {
            if !is_there {
                self.image.take(at, &stage)?;
            }
            let size = planned.uncompressed_size.unwrap_or_default();
            let comment = planned.components.join(",");
            layers.push(self.image.layer(at, size, comment)?);
        }
        layers.push(layer);
        let image = Image::write(&stage, &layers, self.details(&layers)?)?;
        sealed.digest = Some(image.manifest.to_digest());
        sealed.image_id = Some(image.config.to_digest());
        let sizes = layers.iter().map(|l| (l.blob.digest, l.blob.size));
        let sizes: Vec<(Checksum, u64)> = sizes.collect();
        output.publish(stage, image.descriptor, &image.blobs, &sizes, progress)?;
        Ok(())
    }

    /// Has the file made in the stage.
    fn make(&self, stage: &Stage) -> Result<Utf8PathBuf> {
        let place = |name: &str| stage.path().join(name);
        let (linux, initrd) = match &self.kernel.directory {
            Some(directory) => (directory.join(KERNEL), directory.join(INITRAMFS)),
            None => {
                let below = format!("{MODULES}/{}", self.kernel.version);
                let (linux, initrd) = (place(KERNEL), place(INITRAMFS));
                self.write_out(&format!("{below}/{KERNEL}"), &linux)?;
                self.write_out(&format!("{below}/{INITRAMFS}"), &initrd)?;
                (linux, initrd)
            }
        };
        let os_release = place("os-release");
        fs::write(&os_release, self.os_release()?)
            .with_context(|| format!("writing {os_release}"))?;
        let made = place("uki");
        let parts = Parts {
            linux: &linux,
            initrd: &initrd,
            version: &self.kernel.version,
            command_line: &self.command_line,
            os_release: &os_release,
            architecture: &self.image.image.config.architecture,
            timestamp: self.timestamp(),
            keys: self.options.keys.as_ref(),
        };
        uki::make(&parts, &made)?;
        Ok(made)
    }

    fn write_out(&self, path: &str, to: &Utf8Path) -> Result<()> {
        let id = self.tree.locate(path);
        let id = id.with_context(|| format!("there is no /{path}"))?;
        let context = || format!("copying /{path} to {to}");
        let mut content = self.contents.open(&self.tree, id).with_context(context)?;
        let mut file = File::create(to).with_context(context)?;
        std::io::copy(&mut content, &mut file).with_context(context)?;
        Ok(())
    }

    fn os_release(&self) -> Result<Vec<u8>> {
        let files = TreeFiles {
            tree: &self.tree,
            contents: self.contents.as_ref(),
        };
        Ok(files.read("/etc/os-release")?.unwrap_or_default())
    }

    /// The layer of the file that lies at `made`.
    fn layer(&self, stage: &Stage, made: &Utf8Path, path: &str, size: u64) -> Result<Layer> {
        let compression = compression(&self.image)?;
        let mut tar = TarWriter::new(stage.blob_writer("layer", compression)?);
        let member = Member {
            path,
            kind: MemberKind::Regular(size),
            permissions: 0o644,
            uid: 0,
            gid: 0,
            mtime: 0,
        };
        for (at, _) in path.match_indices('/') {
            self.directory(&path[..at], &mut tar)?;
        }
        let file = File::open(made).with_context(|| format!("opening {made}"))?;
        let mut content: Box<dyn Read> = Box::new(BufReader::new(file));
        tar.append_content(
            &member,
            &[],
            &mut content,
            &mut vec![0; BUFFER],
            &mut |_| Ok(()),
        )?;
        Ok(Layer {
            blob: stage.add(tar.finish()?)?,
            media_type: compression.media_type(),
            annotations: [("ostree.components".to_owned(), COMPONENT.to_owned())].into(),
            comment: COMPONENT.to_owned(),
        })
    }

    /// Writes a directory as it is in the image: the digest is also of the metadata of /boot.
    fn directory<W: Write>(&self, path: &str, tar: &mut TarWriter<W>) -> Result<()> {
        let mut directory = Member {
            path,
            kind: MemberKind::Directory,
            permissions: 0o755,
            uid: 0,
            gid: 0,
            mtime: 0,
        };
        let known = self.tree.locate(path);
        let Some(known) = known.filter(|id| self.tree.entry(*id).is_dir()) else {
            return tar.append(&directory, &[]);
        };
        let entry = self.tree.entry(known);
        directory.permissions = entry.permissions();
        (directory.uid, directory.gid) = (entry.uid, entry.gid);
        directory.mtime = u64::try_from(entry.mtime).unwrap_or_default();
        tar.append(&directory, &self.tree.content_xattrs(known))
    }

    /// Seconds since the epoch: when the image was made.
    fn timestamp(&self) -> u64 {
        let created = self.image.image.config.created.as_deref();
        let created = created.and_then(|text| text.parse::<jiff::Timestamp>().ok());
        let seconds = created.map(jiff::Timestamp::as_second);
        seconds.and_then(|s| u64::try_from(s).ok()).unwrap_or(0)
    }

    fn details(&self, layers: &[Layer]) -> Result<ImageDetails> {
        let image = &self.image.image;
        let stored = registry::read_config(&self.options.image, &self.options.access)?;
        ensure!(
            Checksum::of(&stored) == image.manifest.config.digest,
            "another image has taken the place of {} meanwhile; try again",
            self.options.image
        );
        let mut config = BaseConfig::parse(&stored)?;
        let mut plan = self.layers.clone();
        plan.extend(layers.last().map(|layer| PlannedLayer {
            components: vec![COMPONENT.to_owned()],
            chance: Some(1.0),
            diff_id: Some(layer.blob.diff_id.to_digest()),
            uncompressed_size: Some(layer.blob.uncompressed_size),
            role: Some(Role::Kernel),
            ..PlannedLayer::default()
        }));
        config.set_label(PLAN_LABEL, Some(&LayerPlan::new(plan).to_label()?));
        config.set_label(BOOTC, Some("1"));
        let created = jiff::Timestamp::from_second(i64::try_from(self.timestamp())?)?;
        if !config.has_label(IMAGE_VERSION) {
            let version = labels::version(&self.os_release()?, self.timestamp());
            config.set_label(IMAGE_VERSION, Some(&version));
        }
        let mut annotations = image.manifest.annotations.clone();
        labels::annotate_version(&config, &mut annotations);
        Ok(ImageDetails {
            config,
            annotations,
            created: created.to_string(),
            created_by: self.options.created_by.clone(),
        })
    }
}

/// What the image tells of its layers, without that of an earlier seal. All must be of this
/// program: of other layers it is not known that their times are as they are read here.
fn layers_that_stay(image: &LowerImage) -> Result<Vec<PlannedLayer>> {
    let image = &image.image;
    ensure!(
        !image.config.labels.contains_key(COMMIT),
        "it carries an OSTree commit, which bootc's composefs backend does not read; build it as an ordinary image (the plain format)"
    );
    let mut layers = told_layers(image);
    if layers.last().and_then(|layer| layer.role) == Some(Role::Kernel) {
        layers.pop();
    }
    for (at, layer) in layers.iter().enumerate() {
        let is_ours = layer.key.is_some() && layer.role != Some(Role::Base);
        ensure!(
            is_ours,
            "its layer {at} was not made by this program; build the image of one root filesystem, without a base"
        );
    }
    Ok(layers)
}

/// As the layers that are there.
fn compression(image: &LowerImage) -> Result<Compression> {
    let like = image.image.layers().last();
    let like = like.and_then(|(layer, _)| Compression::media_type_like(&layer.media_type));
    let name = match like {
        Some(MediaType::ImageLayerGzip) => "gzip",
        Some(MediaType::ImageLayerZstd) => "zstd",
        _ => "none",
    };
    Compression::from_name(name, None)
}
