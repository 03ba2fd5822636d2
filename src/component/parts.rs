//! Large sources split into parts: directories and large files that most updates of the source
//! leave unchanged.
//!
//! Debian's builds are reproducible: an update of a source changes its programs, its libraries,
//! what carries its version, and the few other files that it is about. Counted over pairs of
//! systems (bookworm, trixie and bullseye with and without security and updates, testing against
//! sid): of the files of an updated source, programs and libraries changed in 68 to 100 % (by
//! bytes), man pages and changelogs in 52 to 92 %, plug-ins (`*.so` outside the library path that
//! are not called `lib*`) in 14 % where there was one update and in 76 % and more where there were
//! many, modules of script languages in 2 % on stable and 8 % on sid (by number), and headers,
//! message catalogues, tables and other data in 0.1 % on stable (the kernel's headers in 1.2 %) and
//! 1 % on sid.
//!
//! So the directories that hold much of the last kinds, and single files that are as large, are
//! components of their own, but for archives, whose members have times, and for sources of which an
//! update is another release (browsers). Of two parts of a size, the one of fewer files is spared
//! more often, and data more often than modules. What is left, and all of a small source, is the
//! source's own component.
//!
//! How much more often follows the 91 parts of updated sources that those four pairs have (31
//! changed), and how many updates each source had in between, as its changelog tells. Odds in one
//! update of 0.0005 for each file of data and 0.007 for each module make what was seen likeliest;
//! 0.0003 to 0.001 and 0.003 to 0.02 are nearly as good. Stable alone says 0.0002 and 0.015. The
//! same odds for both would be 150 times less likely at best.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::tree::{EntryId, Kind, Tree};

/// A part has as many bytes in files that updates may spare: less is not worth a component.
const LEAST_PART: u64 = 1 << 20;
/// A source with less has no parts.
const LEAST_SOURCE: u64 = 4 << 20;

/// The odds that an update of its source changes a part, for each file of data in it. Odds add up,
/// where chances would multiply.
const DATA_ODDS: f64 = 0.0005;
/// The same for each module of a script language: it is code, and what updates are about. The
/// figure is that of stable.
const MODULE_ODDS: f64 = 0.015;
/// The same for each plug-in.
const PLUG_IN_ODDS: f64 = 0.25;

/// How modules of script languages are named. Perl's `.pl` files are tables of Unicode, but for a
/// few.
const MODULES: [&str; 5] = ["py", "pm", "rb", "php", "js"];

/// How archives in the format of zip are named: of Java and Mozilla, and documents of office
/// programs, which are templates and galleries there. Each member has a time, which a build sets to
/// that of the newest changelog entry (`SOURCE_DATE_EPOCH`), so that every update changes them all.
const ARCHIVES: [&str; 21] = [
    "zip", "jar", "war", "ja", "xpi", "crx", "whl", "egg", "epub", "bau", "oxt", "odt", "ott",
    "ods", "ots", "odp", "otp", "odg", "otg", "docx", "xlsx",
];

/// What is in a part.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Counts {
    data: u32,
    modules: u32,
    plug_ins: u32,
}

impl Counts {
    /// The chance that an update changes any of them.
    fn change(self) -> f64 {
        let odds = DATA_ODDS * f64::from(self.data)
            + MODULE_ODDS * f64::from(self.modules)
            + PLUG_IN_ODDS * f64::from(self.plug_ins);
        odds / (1.0 + odds)
    }
}

/// A file that an update of its source may spare.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Spared {
    Data,
    Module,
    PlugIn,
}

/// The parts of all sources.
#[derive(Default)]
pub struct SourceParts {
    /// For each entry, the directory (or large file) whose part it is in.
    of_entry: Vec<Option<EntryId>>,
    counts: HashMap<(u32, EntryId), Counts>,
}

impl SourceParts {
    /// Finds the parts. `sources` has for each entry the number of the source whose package brought
    /// it.
    pub fn find(tree: &Tree, sources: &[Option<u32>]) -> Self {
        let large = large_sources(tree, sources);
        let candidates = tree.ids().filter_map(|id| {
            let source = sources[id.index()].filter(|source| large.contains(source))?;
            Some((id, source, spared(tree, id)?))
        });
        let candidates: Vec<(EntryId, u32, Spared)> = candidates.collect();
        let chosen = chosen(tree, &candidates);

        let mut parts = Self {
            of_entry: vec![None; tree.len()],
            counts: HashMap::new(),
        };
        for (id, source, spared) in candidates {
            let mut part = id;
            while part != EntryId::ROOT && !chosen.contains(&(source, part)) {
                part = tree.entry(part).parent;
            }
            if part != EntryId::ROOT {
                parts.of_entry[id.index()] = Some(part);
                let counts = parts.counts.entry((source, part)).or_default();
                match spared {
                    Spared::Data => counts.data += 1,
                    Spared::Module => counts.modules += 1,
                    Spared::PlugIn => counts.plug_ins += 1,
                }
            }
        }
        parts
    }

    /// The directory or large file whose part of its source `id` is in.
    pub fn part(&self, id: EntryId) -> Option<EntryId> {
        self.of_entry[id.index()]
    }

    /// Whether a file is in a part, where an update mostly changes its time and no more. Python
    /// compares a module's time with the one in its byte code (PEP 3147).
    pub fn has_no_time(&self, tree: &Tree, id: EntryId) -> bool {
        self.of_entry[id.index()].is_some() && !tree.name(id).ends_with(".py")
    }

    /// The chance that an update of a source changes its part `part`.
    pub fn change(&self, source: u32, part: EntryId) -> f64 {
        self.counts
            .get(&(source, part))
            .map_or(1.0, |counts| counts.change())
    }
}

fn large_sources(tree: &Tree, sources: &[Option<u32>]) -> HashSet<u32> {
    let mut sizes: HashMap<u32, u64> = HashMap::new();
    for id in tree.ids() {
        if let Some(source) = sources[id.index()] {
            let size = sizes.entry(source).or_default();
            *size = size.saturating_add(tree.entry(id).size);
        }
    }
    let large = sizes.into_iter().filter(|(_, size)| *size >= LEAST_SOURCE);
    large.map(|(source, _)| source).collect()
}

/// The directories and files that are parts: from the deepest up, those that have enough left when
/// what is below them has been taken out.
fn chosen(tree: &Tree, candidates: &[(EntryId, u32, Spared)]) -> HashSet<(u32, EntryId)> {
    let mut left: BTreeMap<(EntryId, u32), u64> = BTreeMap::new();
    let add = |left: &mut BTreeMap<_, u64>, place, source, size: u64| {
        let sum = left.entry((place, source)).or_default();
        *sum = sum.saturating_add(size);
    };
    for (id, source, _) in candidates {
        add(&mut left, *id, *source, tree.entry(*id).size);
    }
    let mut chosen = HashSet::new();
    // What is in a directory comes after it.
    while let Some(((place, source), size)) = left.pop_last() {
        if place == EntryId::ROOT {
            continue;
        }
        if size >= LEAST_PART {
            chosen.insert((source, place));
        } else {
            add(&mut left, tree.entry(place).parent, source, size);
        }
    }
    chosen
}

/// What kind of file that updates may spare `id` is; `None` for one that changes with every update,
/// as far as names and modes tell.
fn spared(tree: &Tree, id: EntryId) -> Option<Spared> {
    let entry = tree.entry(id);
    if entry.kind != Kind::Regular {
        return None;
    }
    let name = tree.name(id);
    let path = tree.path(id);
    let path = path.as_str();
    if name.ends_with(".so") && !name.starts_with("lib") && !is_library_path(path) {
        return Some(Spared::PlugIn);
    }
    let is_program = entry.permissions() & 0o111 != 0;
    let is_binary = [".so", ".a", ".o", ".pyc", ".ko"]
        .iter()
        .any(|suffix| name.ends_with(suffix))
        || name.contains(".so.")
        || name.contains(".ko.")
        || path.starts_with("boot/")
        || path.starts_with("usr/lib/modules/")
        || path.starts_with("lib/modules/");
    let is_told_of = path.starts_with("usr/share/man/")
        || path.starts_with("usr/share/doc/") && name.to_ascii_lowercase().contains("changelog");
    if is_program || is_binary || is_told_of || carries_version(name) {
        return None;
    }
    let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension);
    if ARCHIVES.contains(&extension) {
        return None;
    }
    Some(if MODULES.contains(&extension) {
        Spared::Module
    } else {
        Spared::Data
    })
}

/// Whether a file's name promises what each build of a source says of itself: `version.h`,
/// `patchlevel-debian.h`, `Config_heavy.pl`, `_sysconfigdata__x86_64-linux-gnu.py`.
fn carries_version(name: &str) -> bool {
    let stem = name.split('.').next().unwrap_or(name).to_ascii_lowercase();
    stem == "version" || stem.starts_with("patchlevel") || stem.contains("config")
}

/// Whether a file lies where the dynamic linker looks: `/usr/lib` or `/usr/lib/TRIPLET`, or the
/// same in `/lib`.
fn is_library_path(path: &str) -> bool {
    let below = path.strip_prefix("usr/").unwrap_or(path);
    let Some((directory, _)) = below.rsplit_once('/') else {
        return false;
    };
    match directory.split_once('/') {
        None => directory.starts_with("lib"),
        Some((lib, triplet)) => {
            lib == "lib" && !triplet.contains('/') && triplet.contains("-linux-")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_libraries_lie() {
        for (path, expected) in [
            ("usr/lib/x86_64-linux-gnu/libc.so.6", true),
            ("lib/aarch64-linux-gnu/libc.so", true),
            ("usr/lib64/ld.so", true),
            ("usr/lib/x86_64-linux-gnu/perl/5.36.0/auto/re/re.so", false),
            ("usr/lib/python3.11/lib-dynload/x.so", false),
            ("opt/x.so", false),
            ("x.so", false),
        ] {
            assert_eq!(is_library_path(path), expected, "{path}");
        }
    }

    #[test]
    fn what_carries_the_version() {
        for (name, expected) in [
            ("version.h", true),
            ("patchlevel-debian.h", true),
            ("Config_heavy.pl", true),
            ("_sysconfigdata__x86_64-linux-gnu.py", true),
            ("version9.txt", false),
            ("versions", false),
            ("handy.h", false),
            ("", false),
        ] {
            assert_eq!(carries_version(name), expected, "{name}");
        }
    }
}
