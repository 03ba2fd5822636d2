//! Searches an image: which layer, component and package a path belongs to, and which paths a
//! component has.

use anyhow::{Result, bail};

use super::image_components::source;
use super::inspect::{ImageFile, InspectedImage};

/// A file of an image, and who has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundFile<'a> {
    /// Its path, without a slash before it.
    pub path: &'a str,
    /// Its layer.
    pub layer: usize,
    /// Bytes of its content.
    pub size: u64,
    /// Its component.
    pub component: &'a str,
    /// Its package, if one has it.
    pub package: Option<&'a str>,
}

impl InspectedImage {
    /// The file `path`, through links on the way to it, or all files below the directory of that
    /// name.
    ///
    /// # Errors
    /// When there is nothing of that name.
    pub fn files_at(&self, path: &str) -> Result<Vec<FoundFile<'_>>> {
        let plain = self.resolved(path);
        if let Some((path, file)) = self.files.get_key_value(&plain) {
            return Ok(vec![self.found(path, file)]);
        }
        let below = match plain.as_str() {
            "" => String::new(),
            plain => format!("{plain}/"),
        };
        let files = self.files.range(below.clone()..);
        let files = files.take_while(|(path, _)| path.starts_with(&below));
        let found: Vec<FoundFile<'_>> = files.map(|(path, file)| self.found(path, file)).collect();
        if found.is_empty() {
            bail!("the image has no file {path}, and none below a directory of that name");
        }
        Ok(found)
    }

    /// The files of the component `name`, or of all parts of the source of that name.
    ///
    /// # Errors
    /// When there is no such component.
    pub fn files_of(&self, name: &str) -> Result<Vec<FoundFile<'_>>> {
        let files = self.files.iter().map(|(path, file)| self.found(path, file));
        let is_meant =
            |file: &FoundFile<'_>| file.component == name || source(file.component) == name;
        let mut found: Vec<FoundFile<'_>> = files.filter(is_meant).collect();
        if found.is_empty() {
            bail!(
                "the image has no component '{name}'; components are source packages (a binary package is told with its source by the list of packages), parts of them such as 'perl:usr/share/perl', and rules such as 'rest/files'"
            );
        }
        found.sort_by(|a, b| (a.layer, b.size, a.path).cmp(&(b.layer, a.size, b.path)));
        Ok(found)
    }

    fn found<'a>(&'a self, path: &'a str, file: &ImageFile) -> FoundFile<'a> {
        let owner = self.owners.owner(path);
        FoundFile {
            path,
            layer: file.layer,
            size: file.size,
            component: owner.map_or("-", |owner| owner.component),
            package: owner.and_then(|owner| owner.package),
        }
    }

    /// The file that `path` stands for, links at its end followed, too.
    pub(super) fn followed(&self, path: &str) -> String {
        const MAX_LINKS: usize = 40;
        let mut path = self.resolved(path);
        for _ in 0..MAX_LINKS {
            let Some(target) = self.files.get(&path).and_then(|file| file.target.as_ref()) else {
                break;
            };
            let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
            path = match target.strip_prefix('/') {
                Some(absolute) => self.resolved(absolute),
                None => self.resolved(&format!("{parent}/{target}")),
            };
        }
        path
    }

    /// `path` as files are named here: links in the place of directories are followed, as the
    /// kernel does, at most 40.
    pub(super) fn resolved(&self, path: &str) -> String {
        const MAX_LINKS: usize = 40;
        let mut pending: Vec<String> = path.split('/').rev().map(str::to_owned).collect();
        let mut resolved: Vec<String> = Vec::new();
        let mut links = 0;
        while let Some(part) = pending.pop() {
            match part.as_str() {
                "" | "." => continue,
                ".." => {
                    resolved.pop();
                    continue;
                }
                _ => resolved.push(part),
            }
            if pending.iter().all(String::is_empty) || links == MAX_LINKS {
                continue;
            }
            let at = resolved.join("/");
            if let Some(target) = self.files.get(&at).and_then(|file| file.target.as_ref()) {
                links += 1;
                resolved.pop();
                if target.starts_with('/') {
                    resolved.clear();
                }
                pending.extend(target.split('/').rev().map(str::to_owned));
            }
        }
        resolved.join("/")
    }
}
