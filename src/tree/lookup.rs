//! Finding entries by path, with links followed as a process chrooted into the tree would.

use super::{EntryId, Kind, Tree};

/// As many links as the kernel follows before it reports a loop (path_resolution(7)).
const MAX_LINKS: usize = 40;

impl Tree {
    /// The entry called `name` in directory `id`.
    pub fn child(&self, id: EntryId, name: &str) -> Option<EntryId> {
        let children = self.children(id);
        children
            .binary_search_by(|child| self.name(*child).cmp(name))
            .ok()
            .map(|at| children[at])
    }

    /// The entry that `path` names when every link is followed.
    pub fn resolve(&self, path: &str) -> Option<EntryId> {
        self.walk(EntryId::ROOT, path, true)
    }

    /// The entry that `path` names when links are followed in all but its last component: the
    /// path as dpkg recorded it, where a parent has become a link (merged `/usr`).
    pub fn locate(&self, path: &str) -> Option<EntryId> {
        self.walk(EntryId::ROOT, path, false)
    }

    /// The entry that symbolic link `id` leads to in the end.
    pub fn follow(&self, id: EntryId) -> Option<EntryId> {
        match self.entry(id).kind {
            Kind::Symlink => self.walk(self.entry(id).parent, self.target(id), true),
            _ => Some(id),
        }
    }

    fn walk(&self, start: EntryId, path: &str, follow_last: bool) -> Option<EntryId> {
        let mut at = if path.starts_with('/') {
            EntryId::ROOT
        } else {
            start
        };
        // Components still to walk, the next one last.
        let mut pending: Vec<&str> = path.split('/').rev().collect();
        let mut links = 0;
        while let Some(part) = pending.pop() {
            at = match part {
                "" | "." => continue,
                ".." => self.entry(at).parent,
                name => {
                    let next = self.child(at, name)?;
                    let last = pending.iter().all(|p| p.is_empty());
                    if self.entry(next).kind == Kind::Symlink && (follow_last || !last) {
                        links += 1;
                        if links > MAX_LINKS {
                            return None;
                        }
                        let target = self.target(next);
                        pending.extend(target.split('/').rev());
                        if target.starts_with('/') {
                            EntryId::ROOT
                        } else {
                            at
                        }
                    } else {
                        next
                    }
                }
            };
        }
        Some(at)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::{Metadata, TreeBuilder};
    use super::*;

    #[test]
    fn follows_links_inside_the_root_only() {
        let mut builder = TreeBuilder::new(Metadata::directory(0o755));
        let dir = Metadata::directory(0o755);
        let link = Metadata {
            kind: Kind::Symlink,
            ..Metadata::directory(0o777)
        };
        let usr = builder.push(EntryId::ROOT, "usr", "", dir.clone()).unwrap();
        let lib = builder.push(usr, "lib", "", dir).unwrap();
        for (parent, name, target) in [
            (EntryId::ROOT, "lib", "usr/lib"),
            (EntryId::ROOT, "abs", "/usr/lib"),
            (EntryId::ROOT, "out", "../../usr/lib"),
            (EntryId::ROOT, "loop", "loop"),
            (lib, "libfoo.so", "libfoo.so.1"),
        ] {
            builder.push(parent, name, target, link.clone()).unwrap();
        }
        let file = Metadata {
            kind: Kind::Regular,
            ..Metadata::directory(0o644)
        };
        builder.push(lib, "libfoo.so.1", "", file).unwrap();
        let (tree, _) = builder.finish();
        let path = |id: Option<EntryId>| id.map(|id| tree.path(id).into_string());
        for start in ["/lib", "abs", "out", "/usr/lib", "usr/../usr//lib/"] {
            let real = format!("{start}/libfoo.so");
            assert_eq!(
                path(tree.resolve(&real)).unwrap(),
                "usr/lib/libfoo.so.1",
                "{real}"
            );
            assert_eq!(
                path(tree.locate(&real)).unwrap(),
                "usr/lib/libfoo.so",
                "{real}"
            );
        }
        assert_eq!(path(tree.locate("/lib")).unwrap(), "lib");
        assert_eq!(tree.resolve("/loop/x"), None);
        assert_eq!(tree.resolve("/usr/none"), None);
    }
}
