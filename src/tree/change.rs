//! Changes to a tree that has been read.

use super::{EntryId, Kind, Tree, Xattrs};

/// Owner, permissions and attributes of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectoryMetadata {
    /// Numeric owner.
    pub uid: u32,
    /// Numeric group.
    pub gid: u32,
    /// Permission bits (`07777`).
    pub permissions: u32,
    /// Extended attributes, sorted by name.
    pub xattrs: Xattrs,
}

impl Tree {
    /// Makes root the owner of everything, takes special bits, write access of others and
    /// attributes away: what `ostree commit --canonical-permissions --no-xattrs` does, and a
    /// repository of mode `bare-user-only` can hold.
    pub fn make_canonical(&mut self) {
        for entry in &mut self.entries {
            (entry.uid, entry.gid, entry.xattrs) = (0, 0, 0);
            if entry.kind != Kind::Symlink {
                entry.permissions &= 0o755;
            }
        }
        // The first set of attributes of a tree that is not exact is the empty one.
        self.xattrs.truncate(1);
    }

    /// Gives directory `id` other metadata.
    pub fn set_directory(&mut self, id: EntryId, metadata: DirectoryMetadata) {
        let known = self.xattrs.iter().position(|x| *x == metadata.xattrs);
        let at = known.unwrap_or_else(|| {
            self.xattrs.push(metadata.xattrs);
            self.xattrs.len() - 1
        });
        let entry = &mut self.entries[id.index()];
        (entry.uid, entry.gid) = (metadata.uid, metadata.gid);
        entry.permissions = (metadata.permissions & 0o7777) as u16;
        entry.xattrs = at as u32;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::{Metadata, TreeBuilder};
    use super::*;

    #[test]
    fn directories_change_and_everything_becomes_canonical() {
        let xattrs = vec![(b"user.a".to_vec(), b"1".to_vec())];
        let odd = Metadata {
            uid: 3,
            gid: 4,
            xattrs: xattrs.clone(),
            ..Metadata::directory(0o2777)
        };
        let mut builder = TreeBuilder::new(Metadata::directory(0o755));
        builder.push(EntryId::ROOT, "a", "", odd.clone()).unwrap();
        let link = Metadata {
            kind: Kind::Symlink,
            ..odd
        };
        builder.push(EntryId::ROOT, "b", "t", link).unwrap();
        let (mut tree, ids) = builder.finish();
        let metadata = DirectoryMetadata {
            uid: 1,
            gid: 2,
            permissions: 0o1700,
            xattrs: vec![(b"user.b".to_vec(), b"2".to_vec())],
        };
        tree.set_directory(ids[1], metadata.clone());
        let entry = tree.entry(ids[1]);
        assert_eq!((entry.uid, entry.gid, entry.permissions()), (1, 2, 0o1700));
        assert_eq!(tree.xattrs(ids[1]), &metadata.xattrs);
        assert_eq!(tree.xattrs(ids[2]), &xattrs);

        tree.make_canonical();
        let all = [1, 2].map(|at| {
            let entry = tree.entry(ids[at]);
            (
                entry.uid,
                entry.gid,
                entry.permissions(),
                tree.xattrs(ids[at]).len(),
            )
        });
        assert_eq!(all, [(0, 0, 0o700, 0), (0, 0, 0o2777, 0)]);
    }
}
