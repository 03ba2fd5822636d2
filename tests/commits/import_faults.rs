//! Damaged images: each is refused with an error that names what is wrong, and the repository is as
//! it was. Digests are right unless it is a digest that is tested: nothing but the check in
//! question can find the fault.

use std::path::Path;

use crate::common::{
    ImageWriter, OBJECTS, Place, Tar, What, checksum, diff_id, find, gzip, keys, objects, place,
    run,
};

#[test]
fn one_byte_flipped_in_each_kind_of_object() {
    // Each mode stores files in its own way.
    for mode in ["bare", "bare-user", "archive"] {
        if let Some((place, good)) = place(mode) {
            one_byte_flipped(&place, &good);
        }
    }
}

fn one_byte_flipped(place: &Place, good: &ImageWriter) {
    for (extension, of_size) in [
        ("commit", 1..usize::MAX),
        ("dirtree", 80..usize::MAX),
        ("dirmeta", 1..usize::MAX),
        ("file", 200_000..200_001),
        ("file", 1..200),
        ("file-xattrs-link", 5..usize::MAX),
    ] {
        let (at, position, checksum, size) = find(good, extension, |size| of_size.contains(&size));
        let mut bad = good.clone();
        bad.layers[at][position + 512 + size / 2] ^= 1;
        bad.label_last();
        place.refuses(extension, &bad, &[&checksum, "layer"]);
    }
    // A link has its content in the header: its target, owner and mode.
    let (at, position, checksum, _) = find(good, "file", |size| size == 0);
    let mut bad = good.clone();
    let header = &mut bad.layers[at][position..position + 512];
    assert_eq!(&header[157..160], b"the", "the link");
    header[157] ^= 1;
    let mut parsed = tar::Header::new_gnu();
    parsed.as_mut_bytes().copy_from_slice(header);
    parsed.set_cksum();
    header.copy_from_slice(parsed.as_bytes());
    bad.label_last();
    place.refuses("link", &bad, &[&checksum]);
    place.takes(good);
}

#[test]
fn a_signature_that_was_changed() {
    let Some((place, _)) = place("bare") else {
        return;
    };
    let (secret, public) = keys(place.dir.path(), 1);
    let rootfs = place.dir.path().join("rootfs").display().to_string();
    let layout = place.dir.path().join("signed");
    let output = format!("oci:{}", layout.display());
    let build = ["build", "-q", "--rootfs", &rootfs, "-o", &output];
    run(&[&build[..], &["--sign-commit", &secret]].concat());
    let good = ImageWriter::read(&layout);
    let verify = ["--sign-verify", public.as_str()];
    let (at, position, sum, size) = find(&good, "commitmeta", |_| true);
    assert_eq!((at, &*sum), (0, &*place.commit));
    let header = b"ostree.sign.ed25519".len();
    for (what, byte, expected) in [
        ("the signature", size / 2, "somebody else"),
        ("its name", header - 1, "not signed"),
        ("its framing", size - 1, "damaged"),
    ] {
        let mut bad = good.clone();
        bad.layers[0][position + 512 + byte] ^= 1;
        bad.label_last();
        place.refuses_with(&verify, what, &bad, &[expected, "layer 0"]);
    }
    // What cannot be read is not stored either when nobody asks who signed.
    let mut bad = good.clone();
    bad.layers[0][position + 512 + size - 1] ^= 1;
    bad.label_last();
    place.refuses("framing", &bad, &[&sum, "commitmeta"]);

    // The digit before the extension is another now.
    let mut other = good.clone();
    let block = &mut other.layers[0][position..position + 512];
    let mut header = tar::Header::from_byte_slice(block).clone();
    let name = &mut header.as_old_mut().name;
    let dot = name.iter().position(|byte| *byte == b'.').unwrap();
    name[dot - 1] = if name[dot - 1] == b'0' { b'1' } else { b'0' };
    header.set_cksum();
    block.copy_from_slice(header.as_bytes());
    other.label_last();
    place.refuses("of another", &other, &["belongs to another commit", &sum]);
    place.takes(&good);
}

/// A layer without the members whose paths `leave` takes, nor what belongs to them.
fn without(layer: &[u8], leave: &dyn Fn(&str) -> bool) -> Vec<u8> {
    let mut archive = tar::Archive::new(layer);
    let mut kept = Vec::new();
    let mut start = 0;
    let mut skipping = false;
    let mut cut = |end: usize, skip: bool, kept: &mut Vec<u8>| {
        if !skipping {
            kept.extend_from_slice(&layer[start..end]);
        }
        (start, skipping) = (end, skip);
    };
    for entry in archive.entries().unwrap() {
        let entry = entry.unwrap();
        let path = String::from_utf8(entry.path_bytes().to_vec()).unwrap();
        // A long name stands in a record of two blocks before the header, where that has no prefix.
        let is_split = entry.header().as_ustar().is_some();
        let records = if path.len() > 100 && !is_split {
            1024
        } else {
            0
        };
        let links_to = entry
            .link_name_bytes()
            .map(|l| String::from_utf8(l.to_vec()).unwrap());
        let more = if links_to.as_ref().is_some_and(|l| l.len() > 100) {
            1024
        } else {
            0
        };
        let skip = leave(&path) || links_to.is_some_and(|l| leave(&l));
        let header = entry.raw_header_position() as usize;
        cut(header - records - more, skip, &mut kept);
    }
    let end = layer.len() - 1024;
    cut(end, false, &mut kept);
    kept.extend_from_slice(&[0; 1024]);
    kept
}

#[test]
fn one_object_missing() {
    let Some((place, good)) = place("bare") else {
        return;
    };
    for extension in ["dirtree", "dirmeta", "file"] {
        let has = |sum: &str| {
            let path = Path::new(&place.repo).join("objects").join(&sum[..2]);
            path.join(format!("{}.{extension}", &sum[2..])).exists()
        };
        let all = good.layers.iter().enumerate().flat_map(|(at, layer)| {
            let found = objects(layer, extension).into_iter();
            found.map(move |(_, path, size)| (at, checksum(&path), size))
        });
        let mut candidates = all.filter(|(_, sum, size)| *size > 0 && !has(sum));
        let (at, sum, _) = candidates.next().unwrap();
        let mut bad = good.clone();
        let (prefix, rest) = sum.split_at(2);
        let name = format!("{OBJECTS}{prefix}/{rest}.");
        bad.layers[at] = without(&good.layers[at], &|path| path.starts_with(&name));
        assert!(bad.layers[at].len() < good.layers[at].len());
        bad.label_last();
        place.refuses(
            extension,
            &bad,
            &["is not whole", &format!("{sum}.{extension}"), "(/"],
        );
    }
    let mut bad = good.clone();
    bad.layers[0] = without(&good.layers[0], &|path| path.ends_with(".commit"));
    place.refuses("commit", &bad, &["begins with", "and not with a commit"]);
    place.takes(&good);
}

#[test]
fn layers_in_another_order() {
    let Some((place, good)) = place("bare") else {
        return;
    };
    let count = good.layers.len();
    let mut swapped: Vec<usize> = (0..count).collect();
    swapped.swap(1, 2);
    let mut bad = good.clone();
    bad.order = Some(swapped);
    place.refuses(
        "in the manifest",
        &bad,
        &[&diff_id(&good.layers[1]), &diff_id(&good.layers[2])],
    );

    let mut bad = good.clone();
    bad.layers.swap(0, 1);
    place.refuses("the commit is second", &bad, &["not with a commit"]);

    // The label says that the last but one ends the commit now.
    let mut bad = good.clone();
    bad.layers.swap(count - 1, count - 2);
    place.refuses("the last two", &bad, &["is not whole", ".file"]);

    // Content layers may come in any order as long as the label is right.
    let mut fine = good.clone();
    fine.layers.swap(1, 2);
    fine.label_last();
    place.takes(&fine);
}

#[test]
fn blobs_and_digests_that_are_wrong() {
    let Some((place, good)) = place("bare") else {
        return;
    };
    let digest = diff_id(&good.layers[1]);
    let mut bad = good.clone();
    bad.cut = Some((1, 700));
    place.refuses("truncated", &bad, &[&digest]);
    let mut bad = good.clone();
    bad.left_out = vec![1];
    place.refuses("missing", &bad, &[&digest]);
    let mut bad = good.clone();
    let mut blob = good.layers[1].clone();
    let middle = blob.len() / 2;
    blob[middle] ^= 1;
    bad.instead = Some((1, blob));
    place.refuses("a byte of the blob", &bad, &[&digest]);
    for (what, packed) in [
        ("gzip", gzip(&good.layers[1])),
        (
            "zstd",
            zstd::encode_all(good.layers[1].as_slice(), 1).unwrap(),
        ),
    ] {
        let half = packed[..packed.len() / 2].to_vec();
        let more = [&packed[..], b"more"].concat();
        for blob in [half, more] {
            let named = diff_id(&blob);
            let mut bad = good.clone();
            bad.blobs[1] = Some(blob);
            place.refuses(what, &bad, &[&named, "layer"]);
        }
    }
    let ids: Vec<String> = good.layers.iter().map(|layer| diff_id(layer)).collect();
    let mut wrong = ids.clone();
    wrong[1] = diff_id(b"something else");
    let mut bad = good.clone();
    bad.diff_ids = Some(wrong.clone());
    place.refuses("diff id", &bad, &[&digest, &wrong[1]]);
    bad.diff_ids = Some(ids[1..].to_vec());
    place.refuses(
        "number of diff ids",
        &bad,
        &[&ids.len().to_string(), "diff ids"],
    );

    for (label, why) in [
        ("nonsense", "'nonsense'"),
        (ids[1].as_str(), "is not whole"),
    ] {
        let mut bad = good.clone();
        bad.labels["ostree.final-diffid"] = label.into();
        place.refuses(
            label,
            &bad,
            &[
                why,
                label
                    .get(..8)
                    .filter(|_| why != "is not whole")
                    .unwrap_or("file"),
            ],
        );
    }
    let mut bad = good.clone();
    bad.labels["ostree.commit"] = "0".repeat(64).into();
    place.refuses(
        "label of the commit",
        &bad,
        &[&place.commit, "ostree.commit"],
    );
    place.takes(&good);
}

#[test]
fn layers_that_break_the_rules_of_the_format() {
    let Some((place, good)) = place("bare") else {
        return;
    };
    let append = |layer: &[u8], more: &Tar| [&layer[..layer.len() - 1024], &more.end()].concat();
    let (at, position, sum, _) = find(&good, "dirmeta", |_| true);
    let dirmeta = good.layers[at][position + 512..position + 512 + 12].to_vec();
    let name = |sum: &str, kind: &str| format!("{OBJECTS}{}/{}.{kind}", &sum[..2], &sum[2..]);
    let mut metadata = Tar::default();
    metadata.add(&name(&sum, "dirmeta"), What::File(&dirmeta));
    let (file_layer, _, file, _) = find(&good, "file", |size| size == 0);
    let link = What::Link("the-target-of-the-link");
    let mut twice = Tar::default();
    twice
        .add(&name(&file, "file-xattrs-link"), What::File(b""))
        .add(&name(&file, "file"), link);
    let mut alone = Tar::default();
    alone.add(&name(&file, "file-xattrs-link"), What::File(b""));
    let mut bare = Tar::default();
    bare.add(&name(&file, "file"), link);
    let mut strange = Tar::default();
    strange.add(&name(&file, "payload-link"), What::File(b""));
    let mut dangling = Tar::default();
    dangling.add(
        &name(&file, "file-xattrs-link"),
        What::Hard(&name(&sum, "file-xattrs")),
    );
    let mut second = Tar::default();
    second.add(&name(&sum, "commit"), What::File(b"x"));
    for (what, layer, more, expected) in [
        (
            "metadata in a content layer",
            1,
            &metadata,
            "only in the first layer",
        ),
        ("the same object twice", file_layer, &twice, "has it twice"),
        ("attributes alone", 1, &alone, "not that object itself"),
        (
            "an object without attributes",
            1,
            &bare,
            "attributes are not before it",
        ),
        ("an unknown kind", 1, &strange, "'payload-link' are unknown"),
        (
            "attributes that are not there",
            1,
            &dangling,
            "is not there before it",
        ),
        ("a second commit", 0, &second, "second commit"),
    ] {
        let mut bad = good.clone();
        bad.layers[layer] = append(&good.layers[layer], more);
        bad.label_last();
        place.refuses(what, &bad, &[expected, "layer"]);
    }
    place.takes(&good);
}
