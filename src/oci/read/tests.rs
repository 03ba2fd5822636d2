#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;

use camino::{Utf8Path, Utf8PathBuf};
use serde_json::json;

use super::*;
use crate::oci::{
    BaseConfig, Compression, Image, ImageDetails, Layer, LayoutTarget, Platform, Stage, TarWriter,
    write_archive,
};

const COMPRESSIONS: [Compression; 3] = [
    Compression::None,
    Compression::Gzip(6),
    Compression::Zstd(3),
];

/// A layout of two layers and an archive of the same, both tagged `t`.
fn images(dir: &Utf8Path, compression: Compression) -> (Layout, Archive) {
    let target = LayoutTarget::new(&dir.join("layout"), Some("t")).unwrap();
    let stage = target.stage().unwrap();
    let layers: Vec<Layer> = ["one", "two"]
        .iter()
        .map(|name| {
            let writer = stage.blob_writer("layer", compression).unwrap();
            let mut tar = TarWriter::new(writer);
            tar.append_bytes(name, name.repeat(1000).as_bytes())
                .unwrap();
            Layer {
                blob: stage.add(tar.finish().unwrap()).unwrap(),
                media_type: compression.media_type(),
                annotations: BTreeMap::from([("name".to_owned(), (*name).to_owned())]),
                comment: (*name).to_owned(),
            }
        })
        .collect();
    let image = write_image(&stage, &layers);
    let archive = dir.join("archive.tar");
    let out = fs::File::create(&archive).unwrap();
    let descriptor = image.descriptor.clone();
    write_archive(&stage, &image.blobs, descriptor, Some("t"), out).unwrap();
    target.publish(stage, image.descriptor).unwrap();
    (
        Layout::new(&dir.join("layout")).unwrap(),
        Archive::new(&archive).unwrap(),
    )
}

fn write_image(stage: &Stage, layers: &[Layer]) -> Image {
    let mut config = BaseConfig::default();
    config.set_platform(&Platform::from_name("riscv64").unwrap());
    config.set_label("ostree.final-diffid", Some("x"));
    let details = ImageDetails {
        config,
        annotations: BTreeMap::from([("a".to_owned(), "b".to_owned())]),
        created: "2025-01-01T00:00:00Z".into(),
        created_by: "test".into(),
    };
    Image::write(stage, layers, details).unwrap()
}

fn temp() -> (tempfile::TempDir, Utf8PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = Utf8PathBuf::try_from(dir.path().to_owned()).unwrap();
    (dir, path)
}

fn read_config(blobs: &dyn Blobs, manifest: &Manifest) -> ImageConfig {
    let config = read_small_blob(blobs, &manifest.config, JSON_LIMIT).unwrap();
    ImageConfig::parse(&config).unwrap()
}

#[test]
fn what_is_written_is_read_from_layouts_and_archives() {
    for compression in COMPRESSIONS {
        let (_guard, dir) = temp();
        let (layout, archive) = images(&dir, compression);
        for blobs in [&layout as &dyn Blobs, &archive] {
            let manifest = read_manifest(blobs, Some("t"), None).unwrap();
            assert_eq!(manifest.annotations["a"], "b");
            assert_eq!(
                read_manifest(blobs, None, Some("riscv64")).unwrap().digest,
                manifest.digest
            );
            let config = read_config(blobs, &manifest);
            assert_eq!(config.architecture, "riscv64");
            assert_eq!(config.labels["ostree.final-diffid"], "x");
            assert_eq!(config.created.as_deref(), Some("2025-01-01T00:00:00Z"));
            let layers = layers_with_diff_ids(&manifest, &config).unwrap();
            let mut found = Vec::new();
            for (descriptor, diff_id) in layers {
                assert_eq!(descriptor.media_type, compression.media_type());
                let layer = open_layer(blobs, descriptor, diff_id).unwrap();
                let mut tar = TarReader::new(layer);
                while let Some(entry) = tar.next_entry().unwrap() {
                    let mut content = String::new();
                    tar.read_to_string(&mut content).unwrap();
                    found.push((clean_path(&entry.path).unwrap(), content));
                }
                tar.into_inner().finish().unwrap();
            }
            let expected = ["one", "two"].map(|name| (name.to_owned(), name.repeat(1000)));
            assert_eq!(found, expected);
        }
    }
}

#[test]
fn a_wrong_name_lists_those_there_are() {
    let (_guard, dir) = temp();
    let (layout, archive) = images(&dir, Compression::None);
    for blobs in [&layout as &dyn Blobs, &archive] {
        for (tag, architecture, why) in [
            (Some("u"), None, "the tags there are: t"),
            (
                None,
                Some("amd64"),
                "the platforms there are: linux/riscv64",
            ),
        ] {
            let error = read_manifest(blobs, tag, architecture)
                .unwrap_err()
                .to_string();
            assert!(error.contains(why), "{error}");
        }
    }
}

#[test]
fn missing_and_damaged_blobs_are_named() {
    let (_guard, dir) = temp();
    let (layout, _) = images(&dir, Compression::Gzip(1));
    let manifest = read_manifest(&layout, None, None).unwrap();
    let config = read_config(&layout, &manifest);
    let path = |blob: &Descriptor| dir.join(format!("layout/blobs/sha256/{}", blob.digest));

    let [first, second] = manifest.layers.as_slice() else {
        unreachable!("{manifest:?}");
    };
    fs::remove_file(path(first)).unwrap();
    let error = open_layer(&layout, first, config.diff_ids[0])
        .err()
        .unwrap();
    for part in [first.digest.to_digest(), dir.join("layout").into_string()] {
        assert!(error.to_string().contains(&part), "{error}");
    }
    let mut foreign = first.clone();
    foreign.media_type = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip".into();
    let error = open_layer(&layout, &foreign, config.diff_ids[0])
        .err()
        .unwrap();
    assert!(error.to_string().contains("is foreign"), "{error}");
    fs::create_dir(path(first)).unwrap();
    let error = open_layer(&layout, first, config.diff_ids[0])
        .err()
        .unwrap();
    assert!(
        format!("{error:#}").contains("not a regular file"),
        "{error:#}"
    );

    let error = open_layer(&layout, second, config.diff_ids[0])
        .unwrap()
        .finish()
        .unwrap_err();
    assert!(
        error.to_string().contains(&second.digest.to_digest()),
        "{error}"
    );
    assert!(error.to_string().contains("diff id"), "{error}");

    let whole = fs::read(path(&manifest.config)).unwrap();
    for (damaged, why) in [
        (
            whole[1..].to_vec(),
            format!("has {}, not {} bytes", whole.len() - 1, whole.len()),
        ),
        (
            [&whole[..], b" "].concat(),
            format!("has more, not {} bytes", whole.len()),
        ),
        (vec![b' '; whole.len()], "is damaged".to_owned()),
    ] {
        fs::write(path(&manifest.config), damaged).unwrap();
        let error = read_small_blob(&layout, &manifest.config, JSON_LIMIT)
            .unwrap_err()
            .to_string();
        assert!(error.contains(&why), "{error}");
        assert!(
            error.contains(&manifest.config.digest.to_digest()),
            "{error}"
        );
    }
    let error = read_small_blob(&layout, &manifest.config, 10)
        .unwrap_err()
        .to_string();
    assert!(error.contains("only up to 10"), "{error}");
}

#[test]
fn what_is_no_layout_is_refused() {
    let (_guard, dir) = temp();
    let refused = |why: &str| {
        let error = format!("{:#}", Layout::new(&dir.join("l")).unwrap_err());
        assert!(error.contains(why), "{error}");
    };
    refused("opening the layout");
    fs::write(dir.join("l"), "").unwrap();
    refused("name it as oci-archive:");
    fs::remove_file(dir.join("l")).unwrap();
    fs::create_dir(dir.join("l")).unwrap();
    refused("not an OCI layout");
    for (marker, why) in [
        ("", "not valid JSON"),
        ("{}", "no 'imageLayoutVersion'"),
        (r#"{"imageLayoutVersion":"2.0.0"}"#, "only version 1"),
    ] {
        fs::write(dir.join("l/oci-layout"), marker).unwrap();
        refused(why);
    }
    fs::write(
        dir.join("l/oci-layout"),
        r#"{"imageLayoutVersion":"1.0.0"}"#,
    )
    .unwrap();
    let layout = Layout::new(&dir.join("l")).unwrap();
    assert!(
        layout
            .index_json()
            .unwrap_err()
            .to_string()
            .contains("index.json")
    );
    let mut large = fs::File::create(dir.join("l/index.json")).unwrap();
    large.write_all(b"{").unwrap();
    large.set_len(JSON_LIMIT + 1).unwrap();
    let error = format!("{:#}", layout.index_json().unwrap_err());
    assert!(error.contains("has more than 4194304 bytes"), "{error}");
}

/// Blobs in memory.
#[derive(Default)]
struct Memory {
    blobs: BTreeMap<Checksum, Vec<u8>>,
    index: Value,
}

impl Memory {
    fn add(&mut self, media_type: &str, platform: Value, content: &Value) -> Value {
        let bytes = content.to_string().into_bytes();
        let digest = Checksum::of(&bytes);
        let descriptor = json!({"mediaType": media_type, "digest": digest.to_digest(),
            "size": bytes.len(), "platform": platform});
        self.blobs.insert(digest, bytes);
        descriptor
    }
}

impl Blobs for Memory {
    fn open(&self, digest: Checksum) -> Result<Box<dyn Read + Send + '_>> {
        let blob = self.blobs.get(&digest).context("there is no such blob")?;
        Ok(Box::new(blob.as_slice()))
    }

    fn index_json(&self) -> Result<Value> {
        Ok(self.index.clone())
    }
}

const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

#[test]
fn nested_indexes_lead_to_the_image_of_the_platform() {
    for index_type in [OCI_INDEX, DOCKER_LIST] {
        let mut memory = Memory::default();
        let image = |memory: &mut Memory, architecture: &str| {
            let config = json!({"mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": Checksum::of(architecture.as_bytes()).to_digest(), "size": 1});
            let manifest = json!({"schemaVersion": 2, "config": config, "layers": []});
            let platform = json!({"os": "linux", "architecture": architecture});
            memory.add(OCI_MANIFEST, platform, &manifest)
        };
        let images = [image(&mut memory, "amd64"), image(&mut memory, "s390x")];
        let index = json!({"schemaVersion": 2, "manifests": images});
        let nested = memory.add(index_type, Value::Null, &index);
        memory.index = json!({"manifests": [nested]});
        for architecture in ["amd64", "s390x"] {
            let manifest = read_manifest(&memory, None, Some(architecture)).unwrap();
            assert_eq!(
                manifest.config.digest,
                Checksum::of(architecture.as_bytes())
            );
        }
        let error = read_manifest(&memory, None, Some("riscv64")).unwrap_err();
        let error = format!("{error:#}");
        assert!(error.contains("linux/amd64, linux/s390x"), "{error}");
    }
}

#[test]
fn indexes_are_followed_only_so_far() {
    let mut memory = Memory::default();
    let platform = json!({"os": "linux", "architecture": "amd64"});
    let mut index = json!({"manifests": []});
    for _ in 0..=INDEX_DEPTH {
        let descriptor = memory.add(OCI_INDEX, platform.clone(), &index);
        index = json!({"manifests": [descriptor]});
    }
    memory.index = index;
    let error = read_manifest(&memory, None, Some("amd64"))
        .unwrap_err()
        .to_string();
    assert!(error.contains("more than 4 indexes"), "{error}");
}
