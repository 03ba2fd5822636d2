//! What a step would do, as values: planned first, shown or made then.

use anyhow::{Result, bail};
use rustix::fs::Timespec;
use serde::Serialize;

use super::root::{Kind, Root};
use super::write::{Owner, Writer};

/// One change of the system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// What is changed: a path from the root of the system, with a slash in front.
    pub path: String,
    /// What happens to it.
    #[serde(flatten)]
    pub action: Action,
    /// Why.
    pub why: String,
}

/// What happens to a path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "action", rename_all = "kebab-case")]
pub enum Action {
    /// A directory is made.
    Directory {
        /// Who owns it.
        #[serde(skip)]
        owner: Owner,
    },
    /// A symbolic link is put there.
    Link {
        /// Where it leads.
        to: String,
    },
    /// A file is written.
    Write {
        /// What is in it.
        #[serde(skip)]
        content: Vec<u8>,
        /// Who owns it.
        #[serde(skip)]
        owner: Owner,
        /// The time that it gets; none is the present.
        #[serde(skip)]
        modified: Option<Timespec>,
    },
    /// A file, link or directory is moved. What is at the other place is replaced, a directory is
    /// merged with it.
    Move {
        /// Where to: from the root, with a slash in front.
        to: String,
    },
    /// A file, link or directory is removed, with all below it.
    Remove,
    /// A program of the system makes it.
    Make {
        /// The program with its arguments.
        command: Vec<String>,
    },
}

impl Action {
    /// The action in a word, as JSON has it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Directory { .. } => "directory",
            Self::Link { .. } => "link",
            Self::Write { .. } => "write",
            Self::Move { .. } => "move",
            Self::Remove => "remove",
            Self::Make { .. } => "make",
        }
    }
}

/// What one step would do. What is mounted over a path is not the system's, and left alone.
#[derive(Debug)]
pub struct Plan<'a> {
    root: &'a Root,
    /// The changes, in order.
    pub changes: Vec<Change>,
    /// What the user should know: what was left as it is, and why.
    pub notes: Vec<String>,
}

impl<'a> Plan<'a> {
    /// Nothing yet.
    pub fn new(root: &'a Root) -> Self {
        Self {
            root,
            changes: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// Tells the user something.
    pub fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }

    fn push(&mut self, path: &str, action: Action, why: &str) {
        if self.root.is_mounted(path) {
            self.note(format!("/{path} is left alone: something is mounted there"));
            return;
        }
        self.changes.push(Change {
            path: format!("/{path}"),
            action,
            why: why.to_owned(),
        });
    }

    /// A directory of root's, where none is.
    pub fn directory(&mut self, path: &str, mode: u32, why: &str) -> Result<()> {
        self.directory_of(path, Owner::root(mode), why)
    }

    /// A directory with that owner and mode, where none is.
    pub fn directory_of(&mut self, path: &str, owner: Owner, why: &str) -> Result<()> {
        if self.root.kind(path)? != Kind::Directory {
            self.push(path, Action::Directory { owner }, why);
        }
        Ok(())
    }

    /// A symbolic link, where it is not there yet.
    pub fn link(&mut self, path: &str, to: &str, why: &str) -> Result<()> {
        if self.root.kind(path)? != Kind::Link(to.to_owned()) {
            self.push(path, Action::Link { to: to.to_owned() }, why);
        }
        Ok(())
    }

    /// A file, where it is not there with that content. One that is there keeps its owner and mode.
    pub fn write(&mut self, path: &str, content: impl AsRef<[u8]>, why: &str) -> Result<()> {
        let content = content.as_ref();
        let found = self.root.read(path)?;
        if found.as_deref() == Some(content) {
            return Ok(());
        }
        let owner = match (found, self.root.stat(path)?) {
            (Some(_), Some(stat)) => Owner::of(&stat),
            _ => Owner::root(0o644),
        };
        // A time of its own would be another one after each build.
        let time = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        self.replace(path, content.to_vec(), owner, Some(time), why);
        Ok(())
    }

    /// A file with all that it is to have.
    pub fn replace(
        &mut self,
        path: &str,
        content: Vec<u8>,
        owner: Owner,
        modified: Option<Timespec>,
        why: &str,
    ) {
        let action = Action::Write {
            content,
            owner,
            modified,
        };
        self.push(path, action, why);
    }

    /// Moves what is at `from`, where something is.
    pub fn rename(&mut self, from: &str, to: &str, why: &str) -> Result<()> {
        if self.root.kind(from)? != Kind::Absent {
            let to = format!("/{to}");
            self.push(from, Action::Move { to }, why);
        }
        Ok(())
    }

    /// Removes what is at a path, where something is.
    pub fn remove(&mut self, path: &str, why: &str) -> Result<()> {
        if self.root.kind(path)? != Kind::Absent {
            self.push(path, Action::Remove, why);
        }
        Ok(())
    }

    /// Has a program make a file.
    pub fn make(&mut self, path: &str, command: Vec<String>, why: &str) {
        self.push(path, Action::Make { command }, why);
    }
}

/// Makes a change.
///
/// # Errors
/// When it cannot be made; what was there is then still there.
pub fn apply(root: &Root, writer: &Writer<'_>, change: &Change) -> Result<()> {
    let path = change.path.trim_start_matches('/');
    let make_parent = |path: &str| match path.rsplit_once('/') {
        Some((above, _)) => writer.make_directory(above, Owner::root(0o755)),
        None => Ok(()),
    };
    match &change.action {
        Action::Directory { owner } => writer.make_directory(path, *owner),
        Action::Link { to } => {
            make_parent(path)?;
            writer.link(path, to)
        }
        Action::Write {
            content,
            owner,
            modified,
        } => {
            make_parent(path)?;
            writer.write(path, *owner, content, *modified)
        }
        Action::Move { to } => {
            let to = to.trim_start_matches('/');
            make_parent(to)?;
            merge(root, writer, path, to)
        }
        Action::Remove => writer.remove_tree(path),
        Action::Make { .. } => bail!("{} is made by its step", change.path),
    }
}

/// Moves what is at `from` to `to`. Where there are directories at both, what is below is moved,
/// and replaces what has the same name: programs know the first of the two paths, so what is there
/// is newer.
fn merge(root: &Root, writer: &Writer<'_>, from: &str, to: &str) -> Result<()> {
    match (root.kind(from)?, root.kind(to)?) {
        (Kind::Directory, Kind::Directory) => {
            for name in root.list(from)? {
                merge(
                    root,
                    writer,
                    &format!("{from}/{name}"),
                    &format!("{to}/{name}"),
                )?;
            }
            writer.remove_directory(from)
        }
        (Kind::Directory, Kind::Absent) | (Kind::File | Kind::Link(_), Kind::Absent) => {
            writer.rename(from, to)
        }
        (Kind::File | Kind::Link(_), Kind::File | Kind::Link(_)) => writer.rename(from, to),
        (Kind::Special, _) => bail!(
            "{} is neither a file, a link nor a directory: remove it",
            root.name(from)
        ),
        _ => bail!(
            "{} cannot be moved to {}, where something of another kind is: remove one of them",
            root.name(from),
            root.name(to)
        ),
    }
}
