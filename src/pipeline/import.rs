//! An image becomes a commit in a repository, whole or not at all.

use std::collections::{HashMap, HashSet};
use std::io::{self, Read};

use anyhow::{Context, Result, bail, ensure};
use camino::Utf8PathBuf;
use serde::Serialize;

use super::labels::{COMMIT, FINAL_DIFF_ID};
use super::system::commit_info;
use super::{CommitOptions, write};
use crate::checksum::Checksum;
use crate::layers::{CommitObject, Merged, unpack_commit_layer, unpack_content_layer};
use crate::oci::read::LayerReader;
use crate::ostree::{
    Commit, MAX_DEPTH, MetadataKind, ObjectStore, PublicKeys, Repository, StoredCommit,
    Transaction, load_metadata, parse,
};
use crate::progress::Progress;
use crate::registry::{Access, Image, Reference};
use crate::tree::Filter;

/// How many missing objects are listed before the rest is only counted.
const LISTED: usize = 10;

/// What to import, and how.
#[derive(Debug)]
pub struct ImportOptions {
    /// The image.
    pub image: Reference,
    /// How registries are talked to.
    pub access: Access,
    /// The repository.
    pub repo: Utf8PathBuf,
    /// The branch that points at the commit then.
    pub branch: Option<String>,
    /// Keys of which one must have signed the commit.
    pub verify: Option<PublicKeys>,
    /// What of layers that are no commit is left out.
    pub filter: Filter,
}

/// What was imported.
#[derive(Debug, Serialize)]
pub struct Imported {
    /// The commit.
    pub commit: String,
    /// The commit that the image carries under layers of others; none when there are no such layers, or
    /// no commit.
    pub base: Option<String>,
    /// Layers of the image.
    pub layers: usize,
}

/// Imports the image.
///
/// # Errors
/// When the image cannot be read, is damaged or incomplete, or is not signed as it must be; when the
/// repository cannot be written. The repository is as it was then.
pub fn import(options: ImportOptions, progress: &dyn Progress) -> Result<Imported> {
    let repository = Repository::open(&options.repo)?;
    if let Some(branch) = &options.branch {
        repository.check_branch(branch)?;
    }
    ensure!(
        !repository.is_canonical_only(),
        "the repository {} has the mode bare-user-only, which cannot hold the owners and attributes of files; import to one of mode bare, bare-user or archive",
        options.repo
    );
    let image = Image::open(&options.image, &options.access)?;
    let branch = options.branch.clone();
    let mut import = Import {
        image: &image,
        repository: &repository,
        transaction: repository.transaction()?,
        options,
        progress,
    };
    // How much the layers are uncompressed no image says.
    progress.begin("importing layers", 0);
    let name = import.options.image.to_string();
    let (commit, base) = import.run().with_context(|| format!("importing {name}"))?;
    progress.end();
    import.transaction.commit(&commit, branch.as_deref())?;
    Ok(Imported {
        commit: commit.checksum.to_string(),
        base: base.map(|base| base.to_string()),
        layers: image.layers().len(),
    })
}

struct Import<'a> {
    image: &'a Image,
    repository: &'a Repository,
    transaction: Transaction<'a>,
    options: ImportOptions,
    progress: &'a dyn Progress,
}

impl<'a> Import<'a> {
    /// Reads all layers; gives the commit, and the one that it is based on.
    fn run(&mut self) -> Result<(Commit, Option<Checksum>)> {
        match self.encapsulated_layers()? {
            Some(count) => {
                let commit = self.commit_of_layers(count)?;
                if count == self.image.layers().len() {
                    return Ok((commit, None));
                }
                ensure!(
                    self.options.verify.is_none(),
                    "{} layers lie on top of the signed commit, and no signature covers them; import the image that they were put on, or leave --sign-verify out",
                    self.image.layers().len() - count
                );
                let base = commit.checksum;
                let stored = StoredCommit::read(self.repository, base)?;
                let merged = Merged::on(&stored.tree, &stored.objects, self.take_filter());
                Ok((self.commit_of(merged, count)?, Some(base)))
            }
            None => {
                ensure!(
                    self.options.verify.is_none(),
                    "it carries no commit (it has no label {FINAL_DIFF_ID}), so no signature can be checked"
                );
                let merged = Merged::new(self.take_filter());
                let commit = self.commit_of(merged, 0)?;
                self.compare_with_annotation(&commit);
                Ok((commit, None))
            }
        }
    }

    /// How many layers belong to an encapsulated commit; none when the image has no such commit.
    fn encapsulated_layers(&self) -> Result<Option<usize>> {
        let Some(last) = self.image.config.labels.get(FINAL_DIFF_ID) else {
            return Ok(None);
        };
        let wanted = Checksum::from_digest(last)
            .with_context(|| format!("its label {FINAL_DIFF_ID} is '{last}'"))?;
        let layers = self.image.layers();
        let at = layers.iter().position(|(_, diff_id)| *diff_id == wanted);
        let at = at.with_context(|| {
            format!(
                "its label {FINAL_DIFF_ID} names {last}, which is none of its {} layers",
                layers.len()
            )
        })?;
        Ok(Some(at + 1))
    }

    /// The encapsulated commit in the first `count` layers, with every object that it reaches.
    fn commit_of_layers(&mut self, count: usize) -> Result<Commit> {
        let verify = self.options.verify.clone();
        let stated = self.image.config.labels.get(COMMIT).cloned();
        let accept = |commit: &CommitObject| {
            let checksum = commit.checksum.to_string();
            if let Some(stated) = stated.filter(|stated| *stated != checksum) {
                bail!("it has commit {checksum}, but the image's label {COMMIT} says {stated}");
            }
            match &verify {
                Some(keys) => keys.verify(&commit.object, commit.detached.as_deref()),
                None => Ok(()),
            }
        };
        let layer = self.open_layer(0)?;
        let (layer, object) = unpack_commit_layer(layer, &mut self.transaction, accept)
            .with_context(|| self.name_of(0))?;
        layer.finish()?;
        for at in 1..count {
            let layer = self.open_layer(at)?;
            let layer = unpack_content_layer(layer, &mut self.transaction)
                .with_context(|| self.name_of(at))?;
            layer.finish()?;
        }
        let CommitObject {
            checksum,
            object,
            detached,
        } = object;
        // Written before the layers above it are read: they may be put on its tree.
        self.transaction
            .metadata(MetadataKind::Commit, checksum, &object)?;
        self.require_reachable(checksum)?;
        Ok(Commit {
            checksum,
            object,
            detached,
            dirmetas: Default::default(),
            dirtrees: Default::default(),
        })
    }

    /// Applies the layers from `first` on and makes the commit of what comes out.
    fn commit_of(&mut self, mut merged: Merged, first: usize) -> Result<Commit> {
        for at in first..self.image.layers().len() {
            let layer = self.open_layer(at)?;
            let layer = merged
                .apply(layer, &mut self.transaction)
                .with_context(|| self.name_of(at))?;
            layer.finish()?;
        }
        let (tree, objects) = merged.finish()?;
        let options = CommitOptions {
            timestamp: Some(self.created()),
            ..CommitOptions::default()
        };
        let info = commit_info(&tree, &options)?;
        let commit = Commit::of_tree(&tree, &objects, &info)?;
        for (checksum, object) in &commit.dirmetas {
            self.transaction
                .metadata(MetadataKind::Dirmeta, *checksum, object)?;
        }
        for (checksum, object) in &commit.dirtrees {
            self.transaction
                .metadata(MetadataKind::Dirtree, *checksum, object)?;
        }
        Ok(commit)
    }

    /// When the image was made, in seconds since the epoch.
    fn created(&self) -> u64 {
        let created = self.image.config.created.as_deref().unwrap_or_default();
        let time = created.parse::<jiff::Timestamp>().map(|t| t.as_second());
        u64::try_from(time.unwrap_or(0)).unwrap_or(0)
    }

    /// A plain image of ours says what commit its tree is.
    fn compare_with_annotation(&self, commit: &Commit) {
        let stated = self.image.manifest.annotations.get(write::PLAIN_COMMIT);
        if let Some(stated) = stated.filter(|s| **s != commit.checksum.to_string()) {
            tracing::warn!(
                "the image says that its tree is commit {stated}, and it is {}: it has been changed since it was built",
                commit.checksum
            );
        }
    }

    fn open_layer(&self, at: usize) -> Result<Watched<'a>> {
        Ok(Watched {
            layer: self.image.open_layer(at)?,
            progress: self.progress,
        })
    }

    fn name_of(&self, at: usize) -> String {
        let (layer, _) = &self.image.layers()[at];
        format!("reading layer {at} ({})", layer.digest.to_digest())
    }

    fn take_filter(&mut self) -> Filter {
        std::mem::take(&mut self.options.filter)
    }

    /// Looks for every object that a commit reaches.
    fn require_reachable(&self, commit: Checksum) -> Result<()> {
        let mut walk = Reach {
            repository: self.repository,
            seen: HashSet::new(),
            dirtrees: HashMap::new(),
            missing: Vec::new(),
            count: 0,
        };
        walk.commit(commit)?;
        if walk.count == 0 {
            return Ok(());
        }
        let more = match walk.count - walk.missing.len() {
            0 => String::new(),
            n => format!("\n  and {n} more"),
        };
        bail!(
            "commit {commit} is not whole: the image lacks\n  {}{more}",
            walk.missing.join("\n  ")
        )
    }
}

/// A layer that is read, with progress told in uncompressed bytes.
struct Watched<'a> {
    layer: LayerReader<'a>,
    progress: &'a dyn Progress,
}

impl Watched<'_> {
    /// Reads what is left, and checks that the layer was what the image says.
    fn finish(self) -> Result<()> {
        self.layer.finish()
    }
}

impl Read for Watched<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.layer.read(buffer)?;
        self.progress.advance(got as u64);
        Ok(got)
    }
}

/// Walks over all objects that a commit reaches; what is missing is told once.
struct Reach<'a> {
    repository: &'a Repository,
    /// Files and the metadata of directories.
    seen: HashSet<Checksum>,
    /// How deep each dirtree has been met at most.
    dirtrees: HashMap<Checksum, usize>,
    missing: Vec<String>,
    count: usize,
}

impl Reach<'_> {
    fn commit(&mut self, checksum: Checksum) -> Result<()> {
        let object = load_metadata(self.repository, MetadataKind::Commit, checksum)?;
        let commit = parse::commit(&object)
            .with_context(|| format!("object {checksum}.commit is damaged"))?;
        let mut pending = vec![(Utf8PathBuf::from("/"), commit.dirtree, commit.dirmeta)];
        while let Some((path, dirtree, dirmeta)) = pending.pop() {
            if self.seen.insert(dirmeta) && self.metadata(MetadataKind::Dirmeta, dirmeta)?.is_none()
            {
                self.lacks(dirmeta, "dirmeta", &path);
            }
            // One that is shared is followed again where it lies deeper than before.
            let depth = path.components().count();
            let known = self.dirtrees.get(&dirtree).copied();
            if known.is_some_and(|known| depth <= known) {
                continue;
            }
            self.dirtrees.insert(dirtree, depth);
            ensure!(
                depth <= MAX_DEPTH + 1,
                "the directories of commit {checksum} lie more than {MAX_DEPTH} deep, deeper than OSTree goes"
            );
            let Some(object) = self.metadata(MetadataKind::Dirtree, dirtree)? else {
                if known.is_none() {
                    self.lacks(dirtree, "dirtree", &path);
                }
                continue;
            };
            let listed = parse::dirtree(&object)
                .with_context(|| format!("object {dirtree}.dirtree is damaged"))?;
            for (name, content) in listed.files {
                if self.seen.insert(content) && !self.repository.has_file(content)? {
                    self.lacks(content, "file", &path.join(name));
                }
            }
            let below = listed.directories.into_iter();
            pending.extend(below.map(|(name, tree, meta)| (path.join(name), tree, meta)));
        }
        Ok(())
    }

    fn metadata(&self, kind: MetadataKind, checksum: Checksum) -> Result<Option<Vec<u8>>> {
        self.repository.metadata(kind, checksum)
    }

    fn lacks(&mut self, checksum: Checksum, extension: &str, path: &Utf8PathBuf) {
        self.count += 1;
        if self.missing.len() < LISTED {
            self.missing
                .push(format!("object {checksum}.{extension} ({path})"));
        }
    }
}
