//! An image becomes a commit in a repository, whole or not at all.

use std::collections::HashSet;

use anyhow::{Context, Result, bail, ensure};
use camino::Utf8PathBuf;
use serde::Serialize;

use super::labels::{COMMIT, FINAL_DIFF_ID, encapsulated_layers};
use super::read_ahead::{Layers, ProgressReader};
use super::system::commit_info;
use super::{CommitOptions, write};
use crate::checksum::Checksum;
use crate::layers::{CommitObject, Merged, unpack_commit_layer, unpack_content_layer};
use crate::ostree::{
    Commit, MetadataKind, ObjectStore, PublicKeys, Repository, StoredCommit, Transaction,
    check_extent, load_metadata, parse,
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
        transaction: repository.transaction()?,
        options,
    };
    // How much the layers are uncompressed no image says.
    progress.begin("importing layers", 0);
    let name = import.options.image.to_string();
    let all = 0..image.layers().len();
    let run = std::thread::scope(|scope| {
        let open = |at, next| image.open_layer_before(at, next);
        import.run(&Layers::start(scope, all, open, progress)?)
    });
    let (commit, base) = run.with_context(|| format!("importing {name}"))?;
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
}

impl<'a> Import<'a> {
    /// Reads all layers; gives the commit, and the one that it is based on.
    fn run(&mut self, layers: &Layers<'_>) -> Result<(Commit, Option<Checksum>)> {
        match encapsulated_layers(self.image)? {
            Some(count) => {
                let commit = self.commit_of_layers(layers, count)?;
                if count == self.image.layers().len() {
                    return Ok((commit, None));
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
                Ok((self.commit_of(layers, merged, count)?, Some(base)))
            }
            None => {
                ensure!(
                    self.options.verify.is_none(),
                    "it carries no commit (its label {FINAL_DIFF_ID} names none of its layers), so no signature can be checked"
                );
                let commit = self.commit_of(layers, Merged::default(), 0)?;
                self.compare_with_annotation(&commit);
                Ok((commit, None))
            }
        }
    }

    /// The encapsulated commit in the first `count` layers, with every object that it reaches.
    fn commit_of_layers(&mut self, layers: &Layers<'_>, count: usize) -> Result<Commit> {
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
        let layer = self.next_layer(layers, 0)?;
        let (layer, object, named) = unpack_commit_layer(layer, &mut self.transaction, accept)
            .with_context(|| self.name_of(0))?;
        layer.finish()?;
        for at in 1..count {
            let layer = self.next_layer(layers, at)?;
            let layer = unpack_content_layer(layer, &named, &mut self.transaction)
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
    fn commit_of(
        &mut self,
        layers: &Layers<'_>,
        mut merged: Merged<'_, Checksum>,
        first: usize,
    ) -> Result<Commit> {
        for at in first..self.image.layers().len() {
            let layer = self.next_layer(layers, at)?;
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

    fn next_layer<'l>(&self, layers: &'l Layers<'l>, at: usize) -> Result<ProgressReader<'l>> {
        let digest = self.image.layers()[at].0.digest.to_digest();
        layers.next(at, &digest)
    }

    fn name_of(&self, at: usize) -> String {
        let (layer, _) = &self.image.layers()[at];
        format!("reading layer {at} ({})", layer.digest.to_digest())
    }

    /// Looks for every object that a commit reaches.
    fn require_reachable(&self, commit: Checksum) -> Result<()> {
        let mut walk = ReachabilityCheck {
            repository: self.repository,
            seen: HashSet::new(),
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

/// Walks over all objects that a commit reaches; what is missing is told once.
struct ReachabilityCheck<'a> {
    repository: &'a Repository,
    /// Objects that were looked for, by kind: one name may be used for several.
    seen: HashSet<(&'static str, Checksum)>,
    missing: Vec<String>,
    count: usize,
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
                self.lacks(dirmeta, "dirmeta", &path);
            }
            if !self.seen.insert(("dirtree", dirtree)) {
                continue;
            }
            let Some(listed) = self.list(dirtree)? else {
                self.lacks(dirtree, "dirtree", &path);
                continue;
            };
            for (name, content) in listed.files {
                if self.seen.insert(("file", content)) && !self.repository.has_file(content)? {
                    let slash = if path == "/" { "" } else { "/" };
                    self.lacks(content, "file", &format!("{path}{slash}{name}"));
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

    fn lacks(&mut self, checksum: Checksum, extension: &str, path: &str) {
        self.count += 1;
        if self.missing.len() < LISTED {
            self.missing
                .push(format!("object {checksum}.{extension} ({path})"));
        }
    }
}
