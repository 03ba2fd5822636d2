#![allow(clippy::unwrap_used)]

use std::io::Write;

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}

/// A skippable frame with four bytes in it.
const SKIPPABLE: &[u8] = b"\x5a\x2a\x4d\x18\x04\0\0\0abcd";

fn descriptor(media_type: &str, blob: &[u8]) -> Descriptor {
    Descriptor::parse(&json!({
        "mediaType": media_type,
        "digest": Checksum::of(blob).to_digest(),
        "size": blob.len(),
    }))
    .unwrap()
}

fn layer(blob: &[u8]) -> Descriptor {
    descriptor("application/vnd.oci.image.layer.v1.tar", blob)
}

/// All of a blob, read as `descriptor` and `diff_id` say it is, in pieces of `piece` bytes.
fn read(blob: &[u8], descriptor: &Descriptor, diff_id: Checksum, piece: usize) -> Result<Vec<u8>> {
    let mut reader = LayerReader::new(Box::new(blob), descriptor, diff_id)?;
    let (mut all, mut buffer) = (Vec::new(), vec![0; piece]);
    loop {
        let got = reader.read(&mut buffer)?;
        if got == 0 {
            break;
        }
        all.extend_from_slice(&buffer[..got]);
    }
    reader.finish()?;
    Ok(all)
}

fn content() -> Vec<u8> {
    (0..5000_u32).flat_map(|n| (n * n).to_le_bytes()).collect()
}

#[test]
fn every_packing_is_read_whole_whatever_the_media_type_says() {
    let content = content();
    let (first, second) = content.split_at(7000);
    for (what, blob) in [
        ("plain", content.clone()),
        ("gzip", gzip(&content)),
        ("two members", [gzip(first), gzip(second)].concat()),
        ("an empty member", [gzip(&content), gzip(b"")].concat()),
        ("zstd", zstd(&content)),
        ("two frames", [zstd(first), zstd(second)].concat()),
        ("an empty frame", [zstd(&content), zstd(b"")].concat()),
        (
            "skippable frames",
            [SKIPPABLE, &zstd(first), SKIPPABLE, &zstd(second), SKIPPABLE].concat(),
        ),
    ] {
        for media_type in [
            "application/vnd.oci.image.layer.v1.tar",
            "application/vnd.oci.image.layer.v1.tar+gzip",
            "application/vnd.oci.image.layer.v1.tar+zstd",
        ] {
            let descriptor = descriptor(media_type, &blob);
            for piece in [1, 512, 1 << 20] {
                let found = read(&blob, &descriptor, Checksum::of(&content), piece).unwrap();
                assert!(
                    found == content,
                    "{what} as {media_type} in pieces of {piece}"
                );
            }
        }
    }
    assert!(
        read(b"", &layer(b""), Checksum::of(b""), 9)
            .unwrap()
            .is_empty()
    );
}

#[test]
fn a_reader_that_gives_little_is_read_as_well() {
    struct Dripping<'a>(&'a [u8]);
    impl Read for Dripping<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let len = buffer.len().min(1);
            self.0.read(&mut buffer[..len])
        }
    }
    let content = content();
    for blob in [gzip(&content), zstd(&content)] {
        let raw = Box::new(Dripping(&blob));
        let mut reader = LayerReader::new(raw, &layer(&blob), Checksum::of(&content)).unwrap();
        let mut all = Vec::new();
        assert_eq!(reader.read(&mut []).unwrap(), 0);
        reader.read_to_end(&mut all).unwrap();
        assert!(all == content);
        reader.finish().unwrap();
    }
}

#[test]
fn finish_reads_what_was_not_read() {
    let content = content().repeat(40);
    assert!(content.len() > 2 * BUFFER);
    for blob in [content.clone(), gzip(&content), zstd(&content)] {
        let (descriptor, diff_id) = (layer(&blob), Checksum::of(&content));
        let mut reader = LayerReader::new(Box::new(&*blob), &descriptor, diff_id).unwrap();
        reader.read_exact(&mut [0; 10]).unwrap();
        reader.finish().unwrap();
    }
}

#[test]
fn each_mismatch_names_the_layer_and_both_values() {
    let content = content();
    let of = |bytes: &[u8]| Checksum::of(bytes);
    for blob in [content.clone(), gzip(&content), zstd(&content)] {
        let good = layer(&blob);
        let failing = |descriptor: &Descriptor, diff_id: Checksum| {
            let error = format!("{:#}", read(&blob, descriptor, diff_id, 512).unwrap_err());
            assert!(error.contains(&descriptor.digest.to_digest()), "{error}");
            error
        };
        let error = failing(&good, of(b"other"));
        assert!(error.contains(&of(b"other").to_digest()), "{error}");
        assert!(error.contains(&of(&content).to_digest()), "{error}");
        let other = Descriptor {
            digest: of(b"other"),
            ..good.clone()
        };
        let error = failing(&other, of(&content));
        assert!(error.contains(&of(&blob).to_digest()), "{error}");
        let longer = Descriptor {
            size: good.size + 1,
            ..good.clone()
        };
        let error = failing(&longer, of(&content));
        let both = format!("after {} of {} bytes", good.size, good.size + 1);
        assert!(error.contains(&both), "{error}");
        let shorter = Descriptor {
            size: good.size - 1,
            ..good.clone()
        };
        let error = failing(&shorter, of(&content));
        let limit = format!("more than {} bytes", good.size - 1);
        assert!(error.contains(&limit), "{error}");
    }
}

#[test]
fn bytes_behind_the_compressed_stream_are_an_error() {
    for blob in [gzip(b"x"), zstd(b"x")] {
        let blob = [&blob[..], b"behind"].concat();
        let error = read(&blob, &layer(&blob), Checksum::of(b"x"), 512).unwrap_err();
        let name = Checksum::of(&blob).to_digest();
        assert!(error.to_string().contains(&name), "{error}");
    }
}

#[test]
fn a_blob_that_never_ends_is_left() {
    let descriptor = layer(b"abc");
    let reader = LayerReader::new(Box::new(io::repeat(7)), &descriptor, Checksum::of(b"abc"));
    let error = format!("{:#}", reader.err().unwrap());
    assert!(error.contains("more than 3 bytes"), "{error}");
}

#[test]
fn what_cannot_be_unpacked_is_refused() {
    for (media_type, blob, why) in [
        (
            "application/vnd.oci.image.layer.v1.tar+gzip+encrypted",
            &b"x"[..],
            "is encrypted",
        ),
        (
            "application/vnd.oci.image.layer.v1.tar",
            b"\xfd7zXZ\0rest",
            "with xz",
        ),
    ] {
        let descriptor = descriptor(media_type, blob);
        let error = read(blob, &descriptor, Checksum::of(b"x"), 9)
            .unwrap_err()
            .to_string();
        assert!(error.contains(why), "{error}");
        assert!(error.contains(&descriptor.digest.to_digest()), "{error}");
    }
}

#[test]
fn truncation_at_every_length_fails() {
    let content = &content()[..600];
    for blob in [content.to_vec(), gzip(content), zstd(content)] {
        let (whole, diff_id) = (layer(&blob), Checksum::of(content));
        assert!(read(&blob, &whole, diff_id, 512).is_ok());
        for len in 0..blob.len() {
            let short = &blob[..len];
            let error = format!("{:#}", read(short, &whole, diff_id, 512).unwrap_err());
            assert!(error.contains(&whole.digest.to_digest()), "{error}");
            // Even when the manifest was made for the truncated blob.
            let error = read(short, &layer(short), diff_id, 512).unwrap_err();
            let name = Checksum::of(short).to_digest();
            assert!(format!("{error:#}").contains(&name), "{error:#}");
        }
    }
}

#[test]
fn a_flip_of_every_byte_fails() {
    let content = &content()[..300];
    for blob in [content.to_vec(), gzip(content), zstd(content)] {
        let (whole, diff_id) = (layer(&blob), Checksum::of(content));
        for at in 0..blob.len() {
            let mut flipped = blob.clone();
            flipped[at] ^= 0x10;
            assert!(read(&flipped, &whole, diff_id, 512).is_err(), "byte {at}");
        }
    }
}

proptest! {
    #[test]
    fn what_was_packed_is_read(
        content in proptest::collection::vec(any::<u8>(), 0..3000),
        at in any::<prop::sample::Index>(),
        piece in 1_usize..700,
    ) {
        let (first, second) = content.split_at(at.index(content.len() + 1));
        for blob in [
            [gzip(first), gzip(second)].concat(),
            [zstd(first), zstd(second)].concat(),
        ] {
            let found = read(&blob, &layer(&blob), Checksum::of(&content), piece).unwrap();
            prop_assert!(found == content);
        }
    }

    #[test]
    fn any_bytes_make_no_panic(
        magic in prop::sample::select(vec![&b""[..], b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd", SKIPPABLE]),
        rest in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let blob = [magic, &rest].concat();
        if let Ok(found) = read(&blob, &layer(&blob), Checksum::of(&blob), 512) {
            prop_assert!(found == blob, "only a plain blob unpacks to itself");
        }
    }
}
