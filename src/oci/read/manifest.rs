//! Manifests and descriptors (image-spec, manifest.md and descriptor.md; docker's image manifest
//! version 2, schema 2, which differs in media types only).

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use oci_spec::image::{self, ImageManifest};
use serde_json::{Map, Value};

use super::json;
use crate::checksum::Checksum;
use crate::oci::spec::{self, MediaType};

/// How the media types of docker's schema 1 begin.
const DOCKER_SCHEMA_1: &str = "application/vnd.docker.distribution.manifest.v1+";
/// How the media types of layers begin.
const LAYER_TYPES: [&str; 2] = [
    "application/vnd.oci.image.layer.",
    "application/vnd.docker.image.rootfs.",
];

/// What names a blob.
#[derive(Debug, Clone, PartialEq)]
pub struct Descriptor {
    /// What kind of blob it is.
    pub media_type: MediaType,
    /// The checksum of its bytes.
    pub digest: Checksum,
    /// Its bytes.
    pub size: u64,
    /// What else is said of it.
    pub annotations: BTreeMap<String, String>,
    /// The whole descriptor.
    pub raw: Value,
}

impl Descriptor {
    /// Reads a descriptor.
    ///
    /// # Errors
    /// When a field that it must have is missing or bad, or its digest is not of SHA-256.
    pub fn parse(raw: &Value) -> Result<Self> {
        ensure!(raw.is_object(), "a descriptor is not a JSON object");
        let parse = || {
            let mut known = raw.clone();
            // By it an index is searched, and one that names no system is for Linux there.
            known
                .as_object_mut()
                .map(|fields| fields.remove("platform"));
            Self::from_spec(&spec::from_json(&known)?, raw)
        };
        parse().with_context(|| match &raw["digest"] {
            Value::String(digest) => format!("the descriptor of {}", digest.escape_debug()),
            _ => "a descriptor".to_owned(),
        })
    }

    fn from_spec(spec: &image::Descriptor, raw: &Value) -> Result<Self> {
        Ok(Self {
            media_type: spec.media_type().clone(),
            digest: Checksum::from_digest(spec.digest().as_ref())?,
            size: spec.size(),
            annotations: spec::sorted(spec.annotations().as_ref()),
            raw: raw.clone(),
        })
    }

    /// Whether it names an index (or a manifest list, as docker calls it).
    pub fn is_index(&self) -> bool {
        is_index(self.media_type.as_ref())
    }

    /// Whether it names a layer that images are allowed not to carry.
    pub fn is_foreign(&self) -> bool {
        let kinds = [".nondistributable.", ".foreign."];
        let media_type = self.media_type.as_ref();
        is_layer(media_type) && kinds.iter().any(|kind| media_type.contains(kind))
    }
}

/// The manifest of an image.
#[derive(Debug, Clone)]
pub struct Manifest {
    /// The checksum of its bytes: the image's digest.
    pub digest: Checksum,
    /// What names the config.
    pub config: Descriptor,
    /// What names the layers, the lowest first.
    pub layers: Vec<Descriptor>,
    /// What else is said of the image.
    pub annotations: BTreeMap<String, String>,
    /// The manifest as it is stored.
    pub raw: Vec<u8>,
}

impl Manifest {
    /// Reads the manifest of an image, OCI's or docker's schema 2.
    ///
    /// # Errors
    /// When it is another kind of manifest (docker's schema 1, an index, an artifact), or a field
    /// is missing or bad.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let fields = json::object(bytes).context("the manifest cannot be read")?;
        check_kind(&fields)?;
        let parse = || -> Result<Self> {
            let fields = Value::Object(fields);
            let spec: ImageManifest = spec::from_json(&fields)?;
            let raw = fields["layers"].as_array().into_iter().flatten();
            let layers = spec.layers().iter().zip(raw);
            let layers = layers.map(|(layer, raw)| Descriptor::from_spec(layer, raw));
            Ok(Self {
                digest: Checksum::of(bytes),
                config: Descriptor::from_spec(spec.config(), &fields["config"])?,
                layers: layers.collect::<Result<_>>()?,
                annotations: spec::sorted(spec.annotations().as_ref()),
                raw: bytes.to_vec(),
            })
        };
        let manifest = parse().context("the manifest cannot be read")?;
        manifest.check_types()?;
        Ok(manifest)
    }

    /// Artifacts (signatures, charts, attestations) are manifests too: they have other types.
    fn check_types(&self) -> Result<()> {
        let config = self.config.media_type.as_ref();
        ensure!(
            spec::is_either(config, &MediaType::ImageConfig),
            "the manifest is not of an image but of an artifact: its config has the media type '{}'",
            config.escape_debug()
        );
        let other = self
            .layers
            .iter()
            .find(|layer| !is_layer(layer.media_type.as_ref()));
        if let Some(other) = other {
            bail!(
                "the manifest is not of an image but of an artifact: {} has the media type '{}', which is not that of a layer",
                other.digest.to_digest(),
                other.media_type.as_ref().escape_debug()
            );
        }
        Ok(())
    }
}

/// Whether a media type is that of a manifest or an index: of what can name an image.
pub(super) fn names_image(media_type: &str) -> bool {
    is_index(media_type) || spec::is_either(media_type, &MediaType::ImageManifest)
}

/// Whether a media type is that of an index.
pub(in crate::oci) fn is_index(media_type: &str) -> bool {
    spec::is_either(media_type, &MediaType::ImageIndex)
}

fn is_layer(media_type: &str) -> bool {
    LAYER_TYPES.iter().any(|kind| media_type.starts_with(kind)) && media_type.contains(".tar")
}

/// A document may leave its media type out, and then is what its fields say; one that is two
/// kinds at once is nothing (CVE-2021-41190).
fn check_kind(fields: &Map<String, Value>) -> Result<()> {
    let media_type = match fields.get("mediaType") {
        None => None,
        Some(Value::String(media_type)) => Some(media_type.as_str()),
        Some(_) => bail!("the manifest's 'mediaType' is not a string"),
    };
    let version = fields.get("schemaVersion").and_then(Value::as_u64);
    if version == Some(1) || media_type.is_some_and(|kind| kind.starts_with(DOCKER_SCHEMA_1)) {
        bail!(
            "the manifest is of docker's schema 1, which is not read; convert the image with 'skopeo copy --format oci'"
        );
    }
    if media_type.is_some_and(is_index)
        || (media_type.is_none() && fields.contains_key("manifests"))
    {
        bail!("it is an index of several images, where the manifest of one is needed");
    }
    if let Some(kind) = media_type.filter(|kind| !names_image(kind)) {
        bail!(
            "it has the media type '{}', which is not an image manifest's",
            kind.escape_debug()
        );
    }
    ensure!(
        version == Some(2),
        "it is not an image manifest: its 'schemaVersion' is not 2"
    );
    ensure!(
        !fields.contains_key("manifests"),
        "the manifest has 'manifests' as an index has; it is ambiguous and not read"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
    const CONFIG_TYPE: &str = "application/vnd.oci.image.config.v1+json";
    const INDEX_TYPE: &str = "application/vnd.oci.image.index.v1+json";
    const DOCKER_MANIFEST_TYPE: &str = "application/vnd.docker.distribution.manifest.v2+json";
    const DOCKER_INDEX_TYPE: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
    const DOCKER_CONFIG_TYPE: &str = "application/vnd.docker.container.image.v1+json";

    fn digest(of: &str) -> String {
        Checksum::of(of.as_bytes()).to_digest()
    }

    fn manifest(media_type: &str, config: &str, layer: &str) -> Value {
        json!({"schemaVersion": 2, "mediaType": media_type,
            "config": {"mediaType": config, "digest": digest("c"), "size": 1},
            "layers": [{"mediaType": layer, "digest": digest("l"), "size": 2,
                        "annotations": {"ostree.components": "a,b"}}],
            "annotations": {"k": "v"}})
    }

    const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar+zstd";

    fn oci() -> Value {
        manifest(MANIFEST_TYPE, CONFIG_TYPE, OCI_LAYER)
    }

    #[test]
    fn reads_manifests_of_both_families() {
        let docker_layer = "application/vnd.docker.image.rootfs.diff.tar.gzip";
        let docker = manifest(DOCKER_MANIFEST_TYPE, DOCKER_CONFIG_TYPE, docker_layer);
        let mut untyped = oci();
        untyped.as_object_mut().unwrap().remove("mediaType");
        for (given, layer) in [
            (oci(), OCI_LAYER),
            (docker, docker_layer),
            (untyped, OCI_LAYER),
        ] {
            let bytes = given.to_string().into_bytes();
            let read = Manifest::parse(&bytes).unwrap();
            assert_eq!(read.digest, Checksum::of(&bytes));
            assert_eq!(read.config.digest, Checksum::of(b"c"));
            assert_eq!(read.annotations["k"], "v");
            assert_eq!(read.raw, bytes);
            let [found] = read.layers.as_slice() else {
                unreachable!("{read:?}");
            };
            assert_eq!(found.media_type.as_ref(), layer);
            assert_eq!((found.digest, found.size), (Checksum::of(b"l"), 2));
            assert_eq!(found.annotations["ostree.components"], "a,b");
            assert_eq!(found.raw, given["layers"][0]);
        }
    }

    #[test]
    fn refuses_what_is_no_image_and_says_what_it_is() {
        let with = |at: &str, value: Value| {
            let mut manifest = oci();
            *manifest.pointer_mut(at).unwrap() = value;
            manifest
        };
        let mut ambiguous = oci();
        ambiguous["manifests"] = json!([]);
        let without = |name: &str| {
            let mut manifest = oci();
            manifest.as_object_mut().unwrap().remove(name);
            manifest
        };
        for (given, why) in [
            (json!([]), "not a JSON object"),
            (
                json!({"schemaVersion": 1, "fsLayers": []}),
                "docker's schema 1",
            ),
            (
                json!({"mediaType": "application/vnd.docker.distribution.manifest.v1+prettyjws"}),
                "docker's schema 1",
            ),
            (with("/mediaType", INDEX_TYPE.into()), "index of several"),
            (
                with("/mediaType", DOCKER_INDEX_TYPE.into()),
                "index of several",
            ),
            (
                json!({"schemaVersion": 2, "manifests": []}),
                "index of several",
            ),
            (
                with("/mediaType", "text/plain".into()),
                "'text/plain', which is not an image",
            ),
            (with("/mediaType", 7.into()), "'mediaType' is not a string"),
            (json!({}), "'schemaVersion' is not 2"),
            (ambiguous, "ambiguous"),
            (without("layers"), "missing field `layers`"),
            (without("config"), "missing field `config`"),
            (
                with("/layers", json!({})),
                "its 'layers': invalid type: map",
            ),
            (
                with("/layers/0/digest", "sha512:00".into()),
                "its 'layers[0].digest'",
            ),
            (
                with("/layers/0/digest", "sha256:00".into()),
                "its 'layers[0].digest'",
            ),
            (
                with("/layers/0/digest", "other:00".into()),
                "'other:00' is not of SHA-256",
            ),
            (with("/layers/0/size", (-1).into()), "its 'layers[0].size'"),
            (with("/layers/0/size", "1".into()), "its 'layers[0].size'"),
            (
                with("/layers/0/annotations/ostree.components", 1.into()),
                "its 'layers[0].annotations.ostree.components'",
            ),
            (
                with(
                    "/config/mediaType",
                    "application/vnd.oci.empty.v1+json".into(),
                ),
                "of an artifact: its config",
            ),
            (
                with("/layers/0/mediaType", "application/vnd.in-toto+json".into()),
                "'application/vnd.in-toto+json', which is not that of a layer",
            ),
        ] {
            let error = Manifest::parse(given.to_string().as_bytes()).unwrap_err();
            let error = format!("{error:#}");
            assert!(error.contains(why), "{given}: {error}");
        }
    }

    #[test]
    fn a_descriptor_may_have_a_platform_without_a_system() {
        let mut raw = oci()["config"].clone();
        raw["platform"] = json!({"architecture": "amd64"});
        assert_eq!(Descriptor::parse(&raw).unwrap().raw, raw);
    }

    #[test]
    fn knows_foreign_layers() {
        for (media_type, foreign) in [
            (
                "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
                true,
            ),
            (
                "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
                true,
            ),
            (OCI_LAYER, false),
        ] {
            let raw = manifest(MANIFEST_TYPE, CONFIG_TYPE, media_type);
            let read = Manifest::parse(raw.to_string().as_bytes()).unwrap();
            assert_eq!(read.layers[0].is_foreign(), foreign, "{media_type}");
        }
    }

    proptest! {
        #[test]
        fn any_change_of_a_byte_makes_no_panic(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let mut bytes = oci().to_string().into_bytes();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            if let Ok(read) = Manifest::parse(&bytes) {
                prop_assert_eq!(read.digest, Checksum::of(&bytes));
            }
        }

        #[test]
        fn any_bytes_make_no_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Manifest::parse(&bytes);
        }
    }
}
