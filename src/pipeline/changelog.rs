//! What the changelogs in an image say of an update: entries between two versions, as
//! deb-changelog(5) has them.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

use anyhow::Result;
use serde::Serialize;

use super::contents::read_files;
use super::diff::Difference;
use super::inspect::InspectedImage;
use crate::dpkg::compare_versions;
use crate::registry::{Access, Reference};

/// Bytes of a changelog that are read, uncompressed: the newest entries come first.
const LIMIT: u64 = 8 << 20;
/// Entries of one source that are told.
const MAX_ENTRIES: usize = 100;

/// Bytes of the entries of one source that are told, and of all sources together.
const ENTRY_BYTES: usize = 1 << 20;
const ALL_BYTES: usize = 64 << 20;
/// What a line takes beside its text.
const LINE: usize = 48;

/// A source that was updated, with what its changelog says.
#[derive(Debug, Clone, Serialize)]
pub struct ChangedSource {
    /// The source.
    pub name: String,
    /// Its version in the first image.
    pub from: String,
    /// Its version in the second.
    pub to: String,
    /// Its packages of another version.
    pub packages: Vec<String>,
    /// Whether an entry was uploaded to a security archive, or names a CVE.
    pub security: bool,
    /// The numbers of vulnerabilities that the entries name.
    pub cves: Vec<String>,
    /// The highest urgency of the entries.
    pub urgency: Option<String>,
    /// The entries since the version in the first image, the newest first; none where the image has
    /// no changelog of it, or its version is lower.
    pub entries: Vec<ChangelogEntry>,
}

/// An entry of a changelog.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ChangelogEntry {
    /// The version.
    pub version: String,
    /// Where it was uploaded to.
    pub distributions: String,
    /// How urgent it was said to be.
    pub urgency: String,
    /// Its lines, without the space before them.
    pub changes: Vec<String>,
}

impl Difference {
    /// Reads what the changelogs of the second image say of the sources that were updated.
    /// `reference` names that image.
    ///
    /// # Errors
    /// When the image cannot be read again.
    pub fn read_changelogs(
        &mut self,
        reference: &Reference,
        access: &Access,
        new: &InspectedImage,
    ) -> Result<()> {
        let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for package in &self.changed {
            for name in ["changelog.Debian.gz", "changelog.gz"] {
                let path = new.followed(&format!("usr/share/doc/{}/{name}", package.name));
                if new.files.contains_key(&path) {
                    places.entry(package.source.clone()).or_default().push(path);
                }
            }
        }
        let first = places.values().filter_map(|paths| paths.first());
        let wanted: BTreeSet<String> = first.cloned().collect();
        let contents = read_files(reference, access, new, &wanted)?;
        let mut left = ALL_BYTES;
        for source in &mut self.sources {
            let place = places.get(&source.name).and_then(|paths| paths.first());
            if let Some(content) = place.and_then(|path| contents.get(path)) {
                source.read(content, &mut left);
            }
        }
        Ok(())
    }
}

impl ChangedSource {
    /// Whether the version in the second image is lower.
    pub fn is_downgrade(&self) -> bool {
        compare_versions(&self.to, &self.from).is_lt()
    }

    /// Reads a changelog, compressed or not, and keeps no more than `left` bytes of it, which
    /// become fewer.
    fn read(&mut self, content: &[u8], left: &mut usize) {
        let mut text = Vec::new();
        let read = match content.starts_with(&[0x1f, 0x8b]) {
            true => flate2::read::MultiGzDecoder::new(content)
                .take(LIMIT)
                .read_to_end(&mut text),
            false => content.take(LIMIT).read_to_end(&mut text),
        };
        if let Err(error) = read {
            tracing::warn!("the changelog of {} cannot be read: {error}", self.name);
        }
        let mut own = ENTRY_BYTES.min(*left);
        *left -= own;
        self.entries = entries(
            &String::from_utf8_lossy(&text),
            &self.from,
            &self.to,
            &mut own,
        );
        if own == 0 {
            tracing::warn!(
                "the changelog of {} tells too much of this update; the rest of it is left out",
                self.name
            );
        }
        *left += own;
        let cves: BTreeSet<String> = self
            .entries
            .iter()
            .flat_map(|entry| entry.changes.iter())
            .flat_map(|line| cves(line))
            .collect();
        self.cves = cves.into_iter().collect();
        let is_security = |entry: &ChangelogEntry| entry.distributions.contains("-security");
        self.security = !self.cves.is_empty() || self.entries.iter().any(is_security);
        let urgencies = self.entries.iter().map(|entry| entry.urgency.as_str());
        self.urgency = urgencies
            .max_by_key(|urgency| rank(urgency))
            .map(str::to_owned);
    }
}

/// How urgent (deb-changelog(5)).
fn rank(urgency: &str) -> usize {
    let known = ["low", "medium", "high", "emergency", "critical"];
    known
        .iter()
        .position(|name| *name == urgency)
        .map_or(0, |at| at + 1)
}

/// The entries with versions above `from` and not above `to`, up to `left` bytes of them, which
/// become fewer.
fn entries(text: &str, from: &str, to: &str, left: &mut usize) -> Vec<ChangelogEntry> {
    let mut entries: Vec<ChangelogEntry> = Vec::new();
    let mut is_open = false;
    for line in text.lines() {
        if let Some(entry) = header(line) {
            if compare_versions(&entry.version, from).is_le() || entries.len() == MAX_ENTRIES {
                break;
            }
            is_open = compare_versions(&entry.version, to).is_le();
            if is_open {
                if !spend(left, line.len()) {
                    break;
                }
                entries.push(entry);
            }
        } else if line.starts_with(" -- ") {
            is_open = false;
        } else if let (true, Some(entry), Some(change)) =
            (is_open, entries.last_mut(), line.strip_prefix("  "))
        {
            let change = change.trim_end();
            if change.is_empty() {
                continue;
            }
            if !spend(left, change.len()) {
                break;
            }
            entry.changes.push(change.to_owned());
        }
    }
    entries
}

/// Takes what a line of that length takes from `left`; whether there was as much.
fn spend(left: &mut usize, bytes: usize) -> bool {
    let rest = left.checked_sub(bytes + LINE);
    *left = rest.unwrap_or(0);
    rest.is_some()
}

/// `SOURCE (VERSION) DISTRIBUTIONS; urgency=URGENCY`
fn header(line: &str) -> Option<ChangelogEntry> {
    if line.starts_with([' ', '\t']) {
        return None;
    }
    let (_, rest) = line.split_once(" (")?;
    let (version, rest) = rest.split_once(')')?;
    let (distributions, metadata) = rest.split_once(';')?;
    let urgency = metadata
        .split(',')
        .find_map(|pair| pair.trim().strip_prefix("urgency="));
    Some(ChangelogEntry {
        version: version.to_owned(),
        distributions: distributions.trim().to_owned(),
        urgency: urgency.unwrap_or("unknown").trim().to_lowercase(),
        changes: Vec::new(),
    })
}

/// The CVE numbers in a line: `CVE-YEAR-NUMBER`.
fn cves(line: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in line.match_indices("CVE-") {
        let rest = &line[at + 4..];
        let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
        let year = digits(rest);
        let Some(number) = rest.get(year..).and_then(|rest| rest.strip_prefix('-')) else {
            continue;
        };
        let length = digits(number);
        if year == 4 && length >= 4 {
            found.push(line[at..at + 4 + year + 1 + length].to_owned());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
openssl (3.0.3-1) unstable; urgency=medium

  * Not there yet.

 -- A <a@example.org>  Mon, 01 Jan 2024 00:00:00 +0000

openssl (3.0.2-1~deb12u2) bookworm-security; urgency=HIGH, binary-only=yes

  * CVE-2023-0001 (a), and CVE-2023-123456.
  * CVE-1-2 and CVE-2023-1 are none.

 -- A <a@example.org>  Mon, 01 Jan 2024 00:00:00 +0000

openssl (3.0.2-1~deb12u1) bookworm; urgency=low

  [ B ]
  * Older.

 -- A <a@example.org>  Mon, 01 Jan 2024 00:00:00 +0000

openssl (3.0.1-1) bookworm; urgency=critical
";

    #[test]
    fn the_entries_between_two_versions_are_told() {
        let mut source = ChangedSource {
            name: "openssl".to_owned(),
            from: "3.0.1-1".to_owned(),
            to: "3.0.2-1~deb12u2".to_owned(),
            packages: Vec::new(),
            security: false,
            cves: Vec::new(),
            urgency: None,
            entries: Vec::new(),
        };
        source.read(TEXT.as_bytes(), &mut { ALL_BYTES });
        let versions: Vec<&str> = source.entries.iter().map(|e| e.version.as_str()).collect();
        assert_eq!(versions, ["3.0.2-1~deb12u2", "3.0.2-1~deb12u1"]);
        assert_eq!(source.entries[1].changes, ["[ B ]", "* Older."]);
        assert_eq!(source.cves, ["CVE-2023-0001", "CVE-2023-123456"]);
        assert!(source.security);
        assert_eq!(source.urgency.as_deref(), Some("high"));
        source.from = "3.0.2-1~deb12u1".to_owned();
        source.read(b"\x1f\x8bdamaged", &mut { ALL_BYTES });
        assert!(source.entries.is_empty() && !source.security);
    }
}
