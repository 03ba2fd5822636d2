//! What layers mean, and that merging takes time proportional to their bytes: steps are counted,
//! not seconds.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;
use crate::oci::{Member, MemberKind, TarWriter};
use crate::tree::Filter;

/// Remembers content by its checksum.
struct Sums;

impl ContentSink for Sums {
    type Handle = Checksum;

    fn file(&mut self, _: &LayerFile<'_>, content: &mut dyn Read) -> Result<Checksum> {
        let mut bytes = Vec::new();
        content.read_to_end(&mut bytes)?;
        Ok(Checksum::of(&bytes))
    }

    fn link(&mut self, _: &Metadata, target: &[u8]) -> Result<Checksum> {
        Ok(Checksum::of(target))
    }
}

/// A layer of members; a name alone is an empty file, `NAME/` a directory, `NAME=TARGET` a hard
/// link, `NAME>TARGET` a symbolic one.
fn layer(members: impl IntoIterator<Item = impl AsRef<str>>) -> Vec<u8> {
    let mut writer = TarWriter::new(Vec::new());
    for member in members {
        let member = member.as_ref();
        let (path, kind) = if let Some((path, target)) = member.split_once('=') {
            (path, MemberKind::HardLink(target))
        } else if let Some((path, target)) = member.split_once('>') {
            (path, MemberKind::Symlink(target))
        } else if member.ends_with('/') {
            (member, MemberKind::Directory)
        } else {
            writer.append_bytes(member, member.as_bytes()).unwrap();
            continue;
        };
        let member = Member {
            path,
            kind,
            permissions: 0o755,
            uid: 0,
            gid: 0,
            mtime: 0,
        };
        writer.append(&member, &[]).unwrap();
    }
    writer.finish().unwrap()
}

fn merged<const N: usize>(layers: [Vec<u8>; N]) -> Merged<'static, Checksum> {
    let mut merged = Merged::default();
    for layer in layers {
        merged.apply(layer.as_slice(), &mut Sums).unwrap();
    }
    merged
}

fn paths(merged: &Merged<'_, Checksum>) -> Vec<String> {
    let mut paths = Vec::new();
    merged
        .walk(None, |path, _, _| {
            paths.push(path.to_owned());
            Ok(())
        })
        .unwrap();
    paths
}

#[test]
fn names_of_other_builders_mean_what_a_runtime_takes_them_for() {
    let lower = layer(["/usr/a", "/usr/b", "./usr/c", "usr/x/../d"]);
    let upper = layer([
        "/usr/.wh.a",
        "/usr/e=/usr/b",
        "/.wh..wh.plnk/1",
        "/.wh.none",
    ]);
    let merged = merged([lower, upper]);
    assert_eq!(paths(&merged), ["usr", "usr/b", "usr/c", "usr/d", "usr/e"]);
    let kept = |path: &str| merged.find(path).unwrap().kept;
    assert_eq!(kept("usr/e"), kept("usr/b"));
}

#[test]
fn a_link_hides_the_directory_in_whose_place_it_is() {
    let merged = merged([layer(["d/a", "d/b/c"]), layer(["d>usr"])]);
    assert_eq!(paths(&merged), ["d"]);
}

#[test]
fn steps_grow_with_the_members_whatever_they_hide() {
    /// Files, as many whiteouts, and what is left.
    fn steps(count: usize) -> [u64; 4] {
        let files = |at: &str| (0..count).map(|n| format!("{at}{n}")).collect::<Vec<_>>();
        let opaque = |at: &str| vec![format!("{at}.wh..wh..opq"); count];
        let deep: String = (0..100).map(|_| "d/").collect();
        let each_level = (1..100).rev().map(|n| "d/".repeat(n) + ".wh..wh..opq");
        let each_level: Vec<String> = each_level.collect();
        [
            // Opaque whiteouts of the root among files of one layer, and over those of another.
            merged([layer([files("usr/"), opaque("")].concat())]).steps(),
            merged([layer(files("usr/")), layer(opaque(""))]).steps(),
            // Of every directory on the way to files of the same layer.
            merged([layer([files(&deep), each_level].concat())]).steps(),
            // A directory of another layer that is hidden once for each of its files.
            merged([
                layer(files("usr/")),
                layer([files("usr/"), vec![".wh.usr".into(); count]].concat()),
            ])
            .steps(),
        ]
    }
    for (few, many) in steps(500).into_iter().zip(steps(2000)) {
        assert!(many <= 5 * few.max(500), "{few} steps become {many}");
        assert!(many <= 5 * 2000, "{many} steps for 2000 files");
    }
}

#[test]
fn what_is_replaced_is_freed() {
    let name = "n".repeat(200);
    let directory = format!("d/{name}");
    let mut merged: Merged<'_, Checksum> = Merged::default();
    for _ in 0..50 {
        let layer = layer((0..300).map(|_| directory.as_str()));
        merged.apply(layer.as_slice(), &mut Sums).unwrap();
    }
    assert!(merged.nodes.all_mut().count() < 10);
}

proptest! {
    #[test]
    fn any_change_of_a_layer_makes_no_panic(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)
    ) {
        let members = ["usr/", "usr/a", "usr/b=usr/a", "c>usr", "usr/.wh.b", ".wh..wh..opq", "e/f/g"];
        let mut bytes = layer(members);
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
            // A checksum that is right leads further.
            let block = at / 512 * 512;
            if let Some(header) = bytes.get_mut(block..block + 512) {
                header[148..156].fill(b' ');
                let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
                header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            }
        }
        let mut merged: Merged<'_, Checksum> = Merged::default();
        let lower = layer(members);
        merged.apply(lower.as_slice(), &mut Sums).unwrap();
        if merged.apply(bytes.as_slice(), &mut Sums).is_ok() {
            prop_assert!(paths(&merged).iter().all(|path| path.split('/').all(|name| name != "..")));
            let _ = merged.finish(&Filter::default(), &mut Sums);
        }
    }
}
