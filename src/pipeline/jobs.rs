//! The layers that must be written, besides those taken over from another image: what goes into
//! each, and how it is made.

use super::below::Below;
use super::planned::Planned;
use super::system::System;
use super::{Format, LayerOptions};
use crate::layers::Overlay;
use crate::tree::EntryId;

/// One layer to write.
pub struct Job<'a> {
    /// Its place in the image.
    pub at: usize,
    /// What it is.
    pub content: Content<'a>,
    /// The entries of the tree that it has.
    pub entries: &'a [EntryId],
    /// How likely it changes until the next pull.
    pub chance: f64,
    /// Bytes of content, for the order of work.
    pub size: u64,
}

impl Job<'_> {
    /// Whether it is the layer of the commit.
    pub fn is_commit(&self) -> bool {
        matches!(self.content, Content::Commit)
    }
}

/// What a layer that is written has.
#[derive(Clone, Copy)]
pub enum Content<'a> {
    /// The commit.
    Commit,
    /// What hides and mends what the layers of the base image have.
    Mending(&'a Overlay),
    /// These components.
    Components(&'a [String]),
}

impl<'a> Content<'a> {
    /// Its components, where it was planned.
    pub fn components(self) -> &'a [String] {
        match self {
            Self::Components(components) => components,
            Self::Commit | Self::Mending(_) => &[],
        }
    }
}

/// The layers of an image that are to be written, in their order: that of the commit, what mends
/// the base image, and those that were planned.
pub fn jobs<'a>(
    system: &System,
    planned: &'a Planned,
    below: Option<&'a Below>,
    options: &LayerOptions,
) -> Vec<Job<'a>> {
    let tree = &system.tree;
    let size = |entries: &[EntryId]| {
        let sizes = entries.iter().map(|id| tree.entry(*id).size);
        sizes.fold(0, u64::saturating_add)
    };
    let mut jobs = Vec::new();
    if let Format::Ostree(_) = options.format {
        // With one layer allowed, the commit layer holds everything.
        let alone = options.max_layers.get() == 1 && below.is_none();
        let everything = planned.assignment.layers().first().filter(|_| alone);
        let entries = everything.map_or(&[][..], Vec::as_slice);
        jobs.push(Job {
            at: 0,
            content: Content::Commit,
            entries,
            chance: 1.0,
            size: size(entries),
        });
        if alone {
            return jobs;
        }
    }
    let overlay = below.map(|below| &below.overlay);
    if let Some(overlay) = overlay.filter(|overlay| overlay.needs_mending()) {
        jobs.push(Job {
            at: jobs.len(),
            content: Content::Mending(overlay),
            entries: &[],
            chance: 1.0,
            size: 0,
        });
    }
    for (at, entries) in planned.assignment.layers().iter().enumerate() {
        // The commit layer has the directories already.
        let only_directories = entries.iter().all(|id| tree.entry(*id).is_dir());
        if only_directories && (options.format != Format::Plain || entries.is_empty()) {
            continue;
        }
        jobs.push(Job {
            at: jobs.len(),
            content: Content::Components(&planned.components[at]),
            entries,
            chance: planned.plan.layers[at].chance,
            size: size(entries),
        });
    }
    jobs
}
