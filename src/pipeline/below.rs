//! The layers that an image takes over, unchanged, from another image and keeps below the layers
//! that are written; whoever has that other image has them already. Of the base image that the root
//! filesystem was built from, all layers stay; of an earlier image of the same system, those in
//! which enough bytes are still in use.

use std::collections::HashSet;
use std::thread;

use anyhow::{Context, Error, Result, anyhow};

use super::layer_plan::{PlannedLayer, Role};
use super::lower_image::LowerImage;
use super::read_ahead::Layers;
use super::system::{Packages, System};
use super::times::Times;
use super::{Format, LayerOptions};
use crate::layers::{Compared, LowerLayers, Overlay};
use crate::oci::{Layer, Stage};
use crate::plan::{Kept, Usage, keep_used};
use crate::progress::Progress;
use crate::remedy::Remedy;

/// The image of which layers stay.
#[derive(Debug)]
pub enum Lower {
    /// The one that the root filesystem was built from: all its layers stay.
    Base(LowerImage),
    /// An earlier image of the same system.
    Previous {
        /// The image.
        image: LowerImage,
        /// How much of the new image may be of no use, as a share of what is.
        max_waste: f64,
    },
}

impl Lower {
    /// The image.
    pub(super) fn image(&self) -> &LowerImage {
        match self {
            Self::Base(image) | Self::Previous { image, .. } => image,
        }
    }
}

/// The layers that stay, and what is to be put over them.
pub struct Below {
    /// Those that stay, the lowest first.
    pub kept: Vec<KeptLayer>,
    /// What they lack, and what they have that is no more.
    pub overlay: Overlay,
    /// Into how many layers at most the rest goes, where that is chosen: above an earlier image.
    pub for_new: Option<usize>,
}

/// A layer that stays.
#[derive(Debug)]
pub struct KeptLayer {
    /// The layer as the new image has it.
    pub layer: Layer,
    /// What is told of it.
    pub planned: PlannedLayer,
}

impl KeptLayer {
    /// Whether it is one of a base image.
    pub fn is_base(&self) -> bool {
        self.planned.role == Some(Role::Base)
    }
}

impl Below {
    /// Reads the layers that may stay of the image that `options` names, if it names one, compares
    /// them with `system`, and chooses. Their blobs are brought to `stage`, where there is one.
    ///
    /// # Errors
    /// When a layer cannot be read; of a base image also when its layers cannot stay in an image of
    /// that format.
    pub fn of(
        system: &System,
        packages: &Packages,
        options: &LayerOptions,
        stage: Option<&Stage>,
        progress: &dyn Progress,
    ) -> Result<Option<Self>> {
        let Some(lower) = &options.lower else {
            return Ok(None);
        };
        match lower {
            Lower::Base(image) => {
                let what = "reading the base image";
                let read = Read::of(image, options, stage, what, progress)
                    .with_context(|| format!("keeping the layers of the base image {image}"))?;
                read.below(system, packages, None).map(Some)
            }
            Lower::Previous { image, max_waste } => {
                if let Some(why) = unfit(image, options)? {
                    tracing::warn!(
                        remedy = Remedy::of(&why).map(tracing::field::debug),
                        "no layer of the previous image {image} stays with changes above it: {why:#}"
                    );
                    return Ok(None);
                }
                let what = "reading the previous image";
                let read = Read::of(image, options, stage, what, progress)
                    .with_context(|| format!("keeping layers of the previous image {image}"))?;
                let below = read.below(system, packages, Some(*max_waste))?;
                Ok((!below.kept.is_empty()).then_some(below))
            }
        }
    }

    /// The components of the layers that stay, where an earlier plan made them.
    pub fn components(&self) -> Vec<Vec<String>> {
        let planned = self.kept.iter().filter(|layer| !layer.is_base());
        let layers = planned.map(|layer| layer.planned.components.clone());
        layers.collect()
    }

    /// How many layers of the image are not planned because of this.
    pub fn layers(&self) -> usize {
        self.kept.len() + usize::from(self.overlay.needs_mending())
    }
}

/// Why no layer of an earlier image may stay, when that is so.
fn unfit(image: &LowerImage, options: &LayerOptions) -> Result<Option<Error>> {
    if options.format == Format::Plain && image.is_encapsulated()? {
        let why = "it is an encapsulated commit, and this is an ordinary image";
        return Ok(Some(anyhow!(why)));
    }
    Ok(image.content_layers(options.format).err())
}

/// Layers that were read.
struct Read<'a> {
    image: &'a LowerImage,
    options: &'a LayerOptions,
    /// Where their blobs were brought to, if they were.
    stage: Option<&'a Stage>,
    /// Their places in the image, what it tells of them, and how large they are uncompressed.
    layers: Vec<(usize, PlannedLayer, u64)>,
    lower: LowerLayers,
}

impl<'a> Read<'a> {
    fn of(
        image: &'a LowerImage,
        options: &'a LayerOptions,
        stage: Option<&'a Stage>,
        what: &'static str,
        progress: &dyn Progress,
    ) -> Result<Self> {
        let told = image.content_layers(options.format)?;
        progress.begin(what, 0);
        let mut lower = LowerLayers::default();
        let mut layers = Vec::new();
        let places: Vec<usize> = told.iter().map(|(at, _)| *at).collect();
        thread::scope(|scope| {
            let open = |at, next| match stage {
                Some(stage) => {
                    image.take(at, stage)?;
                    image.open_taken(at, stage)
                }
                None => image.open_layer_before(at, next),
            };
            let ahead = Layers::start(scope, places, open, progress)?;
            for (at, planned) in told {
                let name = image.digest(at);
                let mut read = || lower.read(ahead.next(at, &name)?)?.finish();
                let size = read().with_context(|| format!("reading layer {at} ({name})"))?;
                layers.push((at, planned, size));
            }
            anyhow::Ok(())
        })?;
        progress.end();
        Ok(Self {
            image,
            options,
            stage,
            layers,
            lower,
        })
    }

    /// Compares, and chooses where so much may be of no use.
    fn below(
        mut self,
        system: &System,
        packages: &Packages,
        max_waste: Option<f64>,
    ) -> Result<Below> {
        let (tree, options) = (&system.tree, self.options);
        let times = Times::new(tree, &packages.ownership, options.times, system.timestamp());
        let compared = Compared {
            tree,
            objects: system.content_objects()?,
            sharing: options.format.sharing(),
            mtime: &|id| times.of(id),
        };
        let (mut overlay, mut usage) = self.lower.overlay(&compared, |_| true)?;
        let mut for_new = None;
        if let Some(max_waste) = max_waste {
            let written = overlay.missing(tree, compared.sharing);
            let has_changed = written > 0 || overlay.needs_mending();
            let kept = self.choose(&usage, written, has_changed, max_waste);
            if kept.stays.contains(&false) {
                (overlay, usage) = self.lower.overlay(&compared, |at| kept.stays[at])?;
            }
            self.drop_others(&kept.stays)?;
            for_new = Some(kept.for_new);
        }
        let below = tree.ids().filter(|id| overlay.is_below(*id)).count();
        tracing::info!(
            "{} layers of {} stay; they have {below} of {} entries as they are, and {} paths that are hidden",
            self.layers.len(),
            self.image,
            tree.len(),
            overlay.hidden()
        );
        let kept = self.layers.into_iter().zip(usage);
        let kept = kept.map(|((at, planned, size), usage)| {
            let planned = PlannedLayer {
                diff_id: Some(self.image.diff_id(at)),
                uncompressed_size: Some(size),
                ..planned
            };
            let (planned, comment) = match max_waste {
                None => (of_base(planned), "layer of the base image".to_owned()),
                Some(_) => {
                    let comment = planned.components.join(",");
                    (of_earlier(planned, usage), comment)
                }
            };
            let layer = self.image.layer(at, size, comment)?;
            Ok(KeptLayer { layer, planned })
        });
        Ok(Below {
            kept: kept.collect::<Result<_>>()?,
            overlay,
            for_new,
        })
    }

    /// Which layers of an earlier image stay, when so many bytes are in none of them. What was made
    /// for that image as a whole does not: it is made anew, or by another command.
    fn choose(&self, usage: &[Usage], written: u64, has_changed: bool, max_waste: f64) -> Kept {
        let of_commit = usize::from(self.options.format != Format::Plain);
        // Where anything changes, there may be something to hide.
        let taken = of_commit + usize::from(has_changed);
        let room = self.options.max_layers.get().saturating_sub(taken);
        let layers = self.layers.iter().zip(usage);
        let layers = layers.map(|((_, planned, _), usage)| match planned.role {
            None | Some(Role::Base) => *usage,
            Some(Role::Mending | Role::Kernel) => Usage::default(),
        });
        keep_used(&layers.collect::<Vec<_>>(), written, max_waste, room)
    }

    /// Forgets the layers that do not stay.
    fn drop_others(&mut self, stays: &[bool]) -> Result<()> {
        let layers = std::mem::take(&mut self.layers).into_iter().zip(stays);
        let (kept, others): (Vec<_>, Vec<_>) = layers.partition(|(_, stays)| **stays);
        self.layers = kept.into_iter().map(|(layer, _)| layer).collect();
        let kept = self.layers.iter().map(|(at, ..)| self.image.digest(*at));
        let kept: HashSet<String> = kept.collect();
        for ((at, ..), _) in others {
            let stage = self
                .stage
                .filter(|_| !kept.contains(&self.image.digest(at)));
            if let Some(stage) = stage {
                self.image.leave(at, stage)?;
            }
        }
        Ok(())
    }
}

fn of_base(planned: PlannedLayer) -> PlannedLayer {
    PlannedLayer {
        role: Some(Role::Base),
        dead_size: None,
        ..planned
    }
}

fn of_earlier(planned: PlannedLayer, usage: Usage) -> PlannedLayer {
    PlannedLayer {
        dead_size: (usage.dead > 0).then_some(usage.dead),
        ..planned
    }
}
