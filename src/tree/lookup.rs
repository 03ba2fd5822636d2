//! Finding entries by path, with links followed as a process chrooted into the tree would.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};

use super::{EntryId, Kind, Tree};
use crate::limits::{LINKS, PATH_BYTES};

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
        let mut steps = 0;
        self.walk_counted(start, path, follow_last, &mut steps)
    }

    /// As [`Tree::walk`]; counts in `steps` the components that were looked at.
    fn walk_counted(
        &self,
        start: EntryId,
        path: &str,
        follow_last: bool,
        steps: &mut usize,
    ) -> Option<EntryId> {
        if path.len() > PATH_BYTES {
            return None;
        }
        let found = self.way(start, path, follow_last, LINKS, steps);
        found.ok().map(|(id, _)| id)
    }

    /// Where a way ends, and how many links it took, of which `budget` may be followed.
    fn way(
        &self,
        start: EntryId,
        path: &str,
        follow_last: bool,
        budget: usize,
        steps: &mut usize,
    ) -> Result<(EntryId, usize), Fault> {
        let mut at = match path.starts_with('/') {
            true => EntryId::ROOT,
            false => start,
        };
        let mut links = 0;
        let mut parts = path.trim_end_matches('/').split('/').peekable();
        while let Some(part) = parts.next() {
            *steps += 1;
            at = match part {
                "" | "." => continue,
                ".." => self.entry(at).parent,
                name => {
                    let next = self.child(at, name).ok_or(Fault::Missing)?;
                    let is_last = parts.peek().is_none();
                    if self.entry(next).kind == Kind::Symlink && (follow_last || !is_last) {
                        let (target, used) = self.follow_within(next, budget - links, steps)?;
                        links += used;
                        target
                    } else {
                        next
                    }
                }
            };
        }
        Ok((at, links))
    }

    /// Where link `id` leads in the end, and how many links that took. What was found once is
    /// remembered: however many paths lead through a link, its target is walked along [`LINKS`]
    /// times at most, and once where it leads anywhere.
    fn follow_within(
        &self,
        id: EntryId,
        budget: usize,
        steps: &mut usize,
    ) -> Result<(EntryId, usize), Fault> {
        let known = self.followed.get(id);
        match known {
            Some(Followed::To(target, links)) if links <= budget => return Ok((target, links)),
            Some(Followed::To(..)) => return Err(Fault::Loop),
            Some(Followed::Nowhere) => return Err(Fault::Missing),
            Some(Followed::ThroughMoreThan(links)) if links >= budget => return Err(Fault::Loop),
            _ if budget == 0 => return Err(Fault::Loop),
            _ => {}
        }
        let parent = self.entry(id).parent;
        let found = self.way(parent, self.target(id), true, budget - 1, steps);
        let found = found.map(|(target, links)| (target, links + 1));
        self.followed.insert(
            id,
            match found {
                Ok((target, links)) => Followed::To(target, links),
                Err(Fault::Missing) => Followed::Nowhere,
                Err(Fault::Loop) => Followed::ThroughMoreThan(budget),
            },
        );
        found
    }
}

/// Why a way has no end.
#[derive(Debug, Clone, Copy)]
enum Fault {
    Missing,
    /// Too many links.
    Loop,
}

/// Where a link leads.
#[derive(Debug, Clone, Copy)]
enum Followed {
    /// There, through that many links, itself included.
    To(EntryId, usize),
    Nowhere,
    /// To an end, or to none, behind more than that many links.
    ThroughMoreThan(usize),
}

/// What is known of links.
#[derive(Debug, Default)]
pub(super) struct FollowedLinks(Mutex<HashMap<EntryId, Followed>>);

impl FollowedLinks {
    fn get(&self, link: EntryId) -> Option<Followed> {
        self.known().get(&link).copied()
    }

    fn insert(&self, link: EntryId, followed: Followed) {
        self.known().insert(link, followed);
    }

    /// What a thread that panicked has left is right all the same.
    fn known(&self) -> MutexGuard<'_, HashMap<EntryId, Followed>> {
        let known = self.0.lock();
        known.unwrap_or_else(|poisoned| poisoned.into_inner())
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

    /// 40 links, each of which leads to the next by 300 detours, and many paths through them.
    #[test]
    fn steps_grow_with_paths_and_links_not_with_their_product() {
        let tree = |links: usize, detours: usize| {
            let mut builder = TreeBuilder::new(Metadata::directory(0o755));
            let dir = Metadata::directory(0o755);
            builder.push(EntryId::ROOT, "d", "", dir).unwrap();
            let link = Metadata {
                kind: Kind::Symlink,
                ..Metadata::directory(0o777)
            };
            for at in 0..links {
                let next = if at + 1 == links {
                    "d".into()
                } else {
                    format!("l{}", at + 1)
                };
                let target = "d/../".repeat(detours) + &next;
                builder
                    .push(EntryId::ROOT, &format!("l{at}"), &target, link.clone())
                    .unwrap();
            }
            builder.finish().0
        };
        let mut steps = 0;
        let found = tree(40, 300);
        for _ in 0..10_000 {
            let end = found.walk_counted(EntryId::ROOT, "l0/../l0", true, &mut steps);
            // Two times 40 links are more than 40.
            assert_eq!(end, None);
            assert!(
                found
                    .walk_counted(EntryId::ROOT, "l0", true, &mut steps)
                    .is_some()
            );
        }
        assert!(steps < 40 * 601 * 2 + 10_000 * 8, "{steps}");
        // One link more, and neither its beginning nor a loop is walked along again and again.
        let long = tree(200, 300);
        let mut steps = 0;
        for at in (0..160).cycle().take(10_000) {
            let end = long.walk_counted(EntryId::ROOT, &format!("l{at}"), true, &mut steps);
            assert_eq!(end, None);
        }
        for at in 160..200 {
            assert!(long.resolve(&format!("l{at}")).is_some(), "{at}");
        }
        assert!(steps < 200 * 601 * LINKS + 10_000, "{steps}");
        assert_eq!(
            long.resolve(&"d/../".repeat(1000)),
            None,
            "longer than a path"
        );
    }
}
