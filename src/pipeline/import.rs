//! An image becomes a commit in a repository, whole or not at all.
//!
//! Layers of an encapsulated image that the repository has taken over before are neither read nor
//! fetched: what an update costs is the layers that changed. That nothing is missing is never taken
//! from that, but looked at for each object that the commit reaches.

use std::collections::HashSet;
use std::thread::Scope;

use anyhow::{Context, Result, bail, ensure};
use camino::Utf8PathBuf;
use serde::Serialize;

use super::labels::{COMMIT, FINAL_DIFF_ID, encapsulated_layers};
use super::read_ahead::{Layers, ProgressReader};
use super::system::commit_info;
use super::{CommitOptions, write};
use crate::checksum::Checksum;
use crate::layers::{CommitObject, Merged, NamedFiles, unpack_commit_layer, unpack_content_layer};
use crate::ostree::{
    Commit, ImportedLayers, MetadataKind, ObjectStore, PublicKeys, Repository, StoredCommit,
    Transaction, check_extent, load_metadata, parse,
};
use crate::progress::Progress;
use crate::registry::{Access, Image, Reference};
use crate::remedy::{Advised, Remedy};
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
    /// The commit that the image carries under layers of others; none when there are no such
    /// layers, or no commit.
    pub base: Option<String>,
    /// Layers of the image.
    pub layers: usize,
    /// Layers that were read: all but those whose objects the repository had from earlier images.
    pub layers_read: usize,
}

/// Imports the image.
///
/// # Errors
/// When the image cannot be read, is damaged or incomplete, or is not signed as it must be; when
/// the repository cannot be written. The repository is as it was then.
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
        imported_layers: ImportedLayers::of(repository.path()),
        transaction: repository.transaction()?,
        progress,
        layers_read: 0,
        options,
    };
    // How much the layers are uncompressed no image says.
    progress.begin("importing layers", 0);
    let name = import.options.image.to_string();
    let run = std::thread::scope(|scope| import.run(scope));
    let Done {
        commit,
        base,
        encapsulated,
    } = run.with_context(|| format!("importing {name}"))?;
    progress.end();
    import.transaction.commit(&commit, branch.as_deref())?;
    import.imported_layers.add(&encapsulated);
    Ok(Imported {
        commit: commit.checksum.to_string(),
        base: base.map(|base| base.to_string()),
        layers: image.layers().len(),
        layers_read: import.layers_read,
    })
}

/// What has come of the layers.
struct Done {
    commit: Commit,
    /// The commit that it is based on.
    base: Option<Checksum>,
    /// The diff ids of the layers with objects of a commit.
    encapsulated: Vec<Checksum>,
}

struct Import<'a> {
    image: &'a Image,
    repository: &'a Repository,
    imported_layers: ImportedLayers,
    transaction: Transaction<'a>,
    progress: &'a dyn Progress,
    layers_read: usize,
    options: ImportOptions,
}

impl<'a> Import<'a> {
    /// Reads the layers that are not there.
    fn run<'s>(&mut self, scope: &'s Scope<'s, 'a>) -> Result<Done> {
        match encapsulated_layers(self.image)? {
            Some(count) => {
                let commit = self.commit_of_layers(scope, count)?;
                let layers = &self.image.layers()[1..count];
                let encapsulated = layers.iter().map(|(_, diff_id)| *diff_id).collect();
                if count == self.image.layers().len() {
                    return Ok(Done {
                        commit,
                        base: None,
                        encapsulated,
                    });
                }
                ensure!(
                    self.options.verify.is_none(),
                    Advised::new(
                        Remedy::SkipSignature,
                        format!(
                            "{} layers lie on top of the signed commit, and no signature covers them; import the image that they were put on",
                            self.image.layers().len() - count
                        )
                    )
                );
                let base = commit.checksum;
                let stored = StoredCommit::read(self.repository, base)?;
                let merged = Merged::on(&stored.tree, &stored.objects)?;
                Ok(Done {
                    commit: self.commit_of(scope, merged, count)?,
                    base: Some(base),
                    encapsulated,
                })
            }
            None => {
                ensure!(
                    self.options.verify.is_none(),
                    "it carries no commit (its label {FINAL_DIFF_ID} names none of its layers), so no signature can be checked"
                );
                let commit = self.commit_of(scope, Merged::default(), 0)?;
                self.compare_with_annotation(&commit);
                Ok(Done {
                    commit,
                    base: None,
                    encapsulated: Vec::new(),
                })
            }
        }
    }

    /// The encapsulated commit in the first `count` layers, with every object that it reaches.
    fn commit_of_layers<'s>(&mut self, scope: &'s Scope<'s, 'a>, count: usize) -> Result<Commit> {
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
        let (imported, new): (Vec<usize>, Vec<usize>) =
            (1..count).partition(|at| self.imported_layers.has(self.image.layers()[*at].1));
        let layers = self.read(scope, [&[0], &new[..]].concat())?;
        let layer = self.next_layer(&layers, 0)?;
        let (layer, object, named) = unpack_commit_layer(layer, &mut self.transaction, accept)
            .with_context(|| self.name_of(0))?;
        layer.finish()?;
        self.content_of(&layers, &new, &named)?;
        let CommitObject {
            checksum,
            object,
            detached,
        } = object;
        // Written before the layers above it are read: they may be put on its tree.
        self.transaction
            .metadata(MetadataKind::Commit, checksum, &object)?;
        let mut missing = Missing::of(self.repository, checksum)?;
        if missing.count > 0 && !imported.is_empty() {
            tracing::info!(
                "the repository lacks objects of layers that it had: they are read again"
            );
            let layers = self.read(scope, imported.clone())?;
            self.content_of(&layers, &imported, &named)?;
            missing = Missing::of(self.repository, checksum)?;
        }
        missing.into_result(checksum)?;
        Ok(Commit {
            checksum,
            object,
            detached,
            dirmetas: Default::default(),
            dirtrees: Default::default(),
        })
    }

    /// Takes over the content of layers that are read.
    fn content_of(
        &mut self,
        layers: &Layers<'_>,
        which: &[usize],
        named: &NamedFiles,
    ) -> Result<()> {
        for at in which {
            let layer = self.next_layer(layers, *at)?;
            let layer = unpack_content_layer(layer, named, &mut self.transaction)
                .with_context(|| self.name_of(*at))?;
            layer.finish()?;
        }
        Ok(())
    }

    /// Applies the layers from `first` on and makes the commit of what comes out.
    fn commit_of<'s>(
        &mut self,
        scope: &'s Scope<'s, 'a>,
        mut merged: Merged<'_, Checksum>,
        first: usize,
    ) -> Result<Commit> {
        let which = first..self.image.layers().len();
        let layers = self.read(scope, which.clone().collect())?;
        for at in which {
            let layer = self.next_layer(&layers, at)?;
            let layer = merged
                .apply(layer, &mut self.transaction)
                .with_context(|| self.name_of(at))?;
            layer.finish()?;
        }
        let filter = std::mem::take(&mut self.options.filter);
        let (tree, objects) = merged.finish(&filter, &mut self.transaction)?;
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

    /// Starts to read the layers at the places `which`.
    fn read<'s>(&mut self, scope: &'s Scope<'s, 'a>, which: Vec<usize>) -> Result<Layers<'a>> {
        self.layers_read += which.len();
        let image = self.image;
        let open = |at, next| image.open_layer_before(at, next);
        Layers::start(scope, which, open, self.progress)
    }

    fn next_layer<'l>(&self, layers: &'l Layers<'_>, at: usize) -> Result<ProgressReader<'l>> {
        let digest = self.image.layers()[at].0.digest.to_digest();
        layers.next(at, &digest)
    }

    fn name_of(&self, at: usize) -> String {
        let (layer, _) = &self.image.layers()[at];
        format!("reading layer {at} ({})", layer.digest.to_digest())
    }
}

/// Objects that a commit reaches and that the repository does not have.
#[derive(Default)]
struct Missing {
    /// Some of them, with their paths.
    listed: Vec<String>,
    count: usize,
}

impl Missing {
    /// Looks for every object that the commit reaches.
    fn of(repository: &Repository, commit: Checksum) -> Result<Self> {
        let mut walk = ReachabilityCheck {
            repository,
            seen: HashSet::new(),
            missing: Self::default(),
        };
        walk.commit(commit)?;
        Ok(walk.missing)
    }

    fn add(&mut self, checksum: Checksum, extension: &str, path: &str) {
        self.count += 1;
        if self.listed.len() < LISTED {
            let object = format!("object {checksum}.{extension} ({path})");
            self.listed.push(object);
        }
    }

    /// None must be.
    fn into_result(self, commit: Checksum) -> Result<()> {
        if self.count == 0 {
            return Ok(());
        }
        let more = match self.count - self.listed.len() {
            0 => String::new(),
            n => format!("\n  and {n} more"),
        };
        bail!(
            "commit {commit} is not whole: the image lacks\n  {}{more}",
            self.listed.join("\n  ")
        )
    }
}

/// Walks over all objects that a commit reaches; what is missing is told once.
struct ReachabilityCheck<'a> {
    repository: &'a Repository,
    /// Objects that were looked for, by kind: one name may be used for several.
    seen: HashSet<(&'static str, Checksum)>,
    missing: Missing,
}

impl ReachabilityCheck<'_> {
    fn commit(&mut self, checksum: Checksum) -> Result<()> {
        let object = load_metadata(self.repository, MetadataKind::Commit, checksum)?;
        let commit = parse::commit(&object)
            .with_context(|| format!("object {checksum}.commit is damaged"))?;
        check_extent(commit.dirtree, |dirtree| self.list(dirtree))
            .with_context(|| format!("commit {checksum}"))?;
        let root = (String::new(), commit.dirtree, commit.dirmeta);
        let mut path = String::from("/");
        // The directories on the way, each with those still to be looked at.
        let mut open = vec![(0, vec![root])];
        while let Some((len, directories)) = open.last_mut() {
            path.truncate((*len).max(1));
            let Some((name, dirtree, dirmeta)) = directories.pop() else {
                open.pop();
                continue;
            };
            if *len > 1 {
                path.push('/');
            }
            path.push_str(&name);
            if self.seen.insert(("dirmeta", dirmeta))
                && self
                    .repository
                    .metadata(MetadataKind::Dirmeta, dirmeta)?
                    .is_none()
            {
                self.missing.add(dirmeta, "dirmeta", &path);
            }
            if !self.seen.insert(("dirtree", dirtree)) {
                continue;
            }
            let Some(listed) = self.list(dirtree)? else {
                self.missing.add(dirtree, "dirtree", &path);
                continue;
            };
            for (name, content) in listed.files {
                if self.seen.insert(("file", content)) && !self.repository.has_file(content)? {
                    let slash = if path == "/" { "" } else { "/" };
                    self.missing
                        .add(content, "file", &format!("{path}{slash}{name}"));
                }
            }
            open.push((path.len(), listed.directories));
        }
        Ok(())
    }

    fn list(&self, dirtree: Checksum) -> Result<Option<parse::ParsedDirtree>> {
        let object = self.repository.metadata(MetadataKind::Dirtree, dirtree)?;
        let listed = object.map(|object| parse::dirtree(&object)).transpose();
        listed.with_context(|| format!("object {dirtree}.dirtree is damaged"))
    }
}
