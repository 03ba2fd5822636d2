//! What of a system is in the image that bootc boots (composefs, doc/oci.md): all but what is in
//! `/boot`, where the digest itself ends up, `/run` and `/sysroot`. The root has the metadata of
//! `/usr`, because layers mostly do not tell it.

use std::collections::HashMap;

use anyhow::{Context, Result, bail, ensure};

use super::xattrs::Xattrs;
use crate::tree::{EntryId, Kind, Tree};

/// Those that must be there, and are empty in the image.
const EMPTIED: [&str; 2] = ["boot", "sysroot"];
/// The same, where it is there.
const EMPTIED_IF_THERE: &str = "run";
/// The one attribute of files that counts; others may be of the machine that made the layers.
const KEPT_XATTR: &[u8] = b"security.capability";
/// Says which policy SELinux has: files would be labelled by it.
const SELINUX: &str = "etc/selinux/config";

/// Owner, mode and time of an inode.
#[derive(Debug, Clone, Copy)]
pub struct Stat {
    /// With type bits.
    pub mode: u32,
    /// Numeric owner.
    pub uid: u32,
    /// Numeric group.
    pub gid: u32,
    /// Seconds since the epoch; one before it is a very large number, as in the image.
    pub mtime: u64,
}

/// A system, without what is left out.
pub struct View<'a> {
    /// All of it.
    pub tree: &'a Tree,
    usr: EntryId,
    emptied: Vec<EntryId>,
    /// Of each file its first name, and how many it has; by what the tree calls the inode.
    links: HashMap<EntryId, (EntryId, usize)>,
}

impl<'a> View<'a> {
    /// Looks at a system.
    ///
    /// # Errors
    /// When bootc would not take it.
    pub fn new(tree: &'a Tree) -> Result<Self> {
        let usr = directory(tree, "usr")?.context("there is no directory /usr")?;
        let mut emptied = Vec::new();
        for name in EMPTIED {
            emptied.push(directory(tree, name)?.with_context(|| {
                format!("there is no directory /{name}, which bootc asks for; 'finalize' makes it")
            })?);
        }
        emptied.extend(directory(tree, EMPTIED_IF_THERE)?);
        ensure!(
            tree.locate(SELINUX).is_none(),
            "there is /{SELINUX}: SELinux would label the files by a policy, and the digest of that is not known here; seal it with 'bootc container ukify'"
        );
        let mut view = Self {
            tree,
            usr,
            emptied,
            links: HashMap::new(),
        };
        view.count_links();
        Ok(view)
    }

    fn count_links(&mut self) {
        let mut pending = vec![EntryId::ROOT];
        // In the order of paths: what is pushed last is taken next.
        while let Some(id) = pending.pop() {
            let entry = self.tree.entry(id);
            if entry.is_dir() {
                pending.extend(self.children(id).iter().rev());
                continue;
            }
            let links = self.links.entry(self.tree.inode(id)).or_insert((id, 0));
            links.1 += 1;
        }
    }

    /// What is in a directory, sorted by name.
    pub fn children(&self, id: EntryId) -> &'a [EntryId] {
        match self.emptied.contains(&id) {
            true => &[],
            false => self.tree.children(id),
        }
    }

    /// The first name of a file, and how many it has.
    pub fn links(&self, id: EntryId) -> (EntryId, usize) {
        let links = self.links.get(&self.tree.inode(id));
        links.copied().unwrap_or((id, 1))
    }

    /// The regular files whose content is in the image, each once: by what the tree calls the
    /// inode.
    pub fn files(&self) -> Vec<EntryId> {
        let inodes = self.links.keys().copied();
        let mut files: Vec<EntryId> = inodes
            .filter(|id| self.tree.entry(*id).kind == Kind::Regular)
            .collect();
        files.sort_unstable();
        files
    }

    /// Owner, mode and time.
    pub fn stat(&self, id: EntryId) -> Stat {
        let entry = self.tree.entry(self.instead(id));
        let usr = self.tree.entry(self.usr);
        let mtime = match self.emptied.contains(&id) {
            true => usr.mtime,
            false => entry.mtime,
        };
        Stat {
            mode: entry.mode(),
            uid: entry.uid,
            gid: entry.gid,
            mtime: mtime as u64,
        }
    }

    /// The attributes.
    pub fn xattrs(&self, id: EntryId) -> Xattrs {
        let mut xattrs = Xattrs::default();
        self.add_xattrs(id, &mut xattrs);
        xattrs
    }

    /// Adds the attributes to others.
    pub fn add_xattrs(&self, id: EntryId, xattrs: &mut Xattrs) {
        let all = self.tree.content_xattrs(self.instead(id));
        for (name, value) in all.iter().filter(|(name, _)| name == KEPT_XATTR) {
            xattrs.add(name, value.clone());
        }
    }

    fn instead(&self, id: EntryId) -> EntryId {
        match id == EntryId::ROOT {
            true => self.usr,
            false => id,
        }
    }
}

/// The directory at the root of that name; none where there is nothing.
fn directory(tree: &Tree, name: &str) -> Result<Option<EntryId>> {
    let found = tree.children(EntryId::ROOT).iter();
    let found = found.copied().find(|id| tree.name(*id) == name);
    if found.is_some_and(|id| !tree.entry(id).is_dir()) {
        bail!("/{name} is no directory");
    }
    Ok(found)
}
