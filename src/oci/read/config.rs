//! The config of an image (image-spec, config.md): what it says of the layers and of itself.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::json;
use super::manifest::{Descriptor, Manifest};
use crate::checksum::Checksum;

/// The config of an image.
#[derive(Debug, Clone)]
pub struct ImageConfig {
    /// The checksums of the layers before compression, the lowest first.
    pub diff_ids: Vec<Checksum>,
    /// The labels of its container config.
    pub labels: BTreeMap<String, String>,
    /// What machine it is for, a `GOARCH`.
    pub architecture: String,
    /// The variant of the architecture, such as `v7`.
    pub variant: Option<String>,
    /// When it was made, in RFC 3339 as it is written there, not checked.
    pub created: Option<String>,
}

/// Of a config what is used here; whatever else it has is passed over and takes no memory.
#[derive(Deserialize)]
struct Fields {
    rootfs: Option<Value>,
    config: Option<Value>,
    architecture: Option<Value>,
    os: Option<Value>,
    variant: Option<Value>,
    created: Option<Value>,
}

impl Fields {
    fn parse(bytes: &[u8]) -> Result<Map<String, Value>> {
        let is_object = bytes.trim_ascii_start().starts_with(b"{");
        ensure!(is_object, "it is not a JSON object");
        let fields: Self = serde_json::from_slice(bytes).context("it is not valid JSON")?;
        let fields = [
            ("rootfs", fields.rootfs),
            ("config", fields.config),
            ("architecture", fields.architecture),
            ("os", fields.os),
            ("variant", fields.variant),
            ("created", fields.created),
        ];
        let fields = fields.into_iter();
        Ok(fields
            .filter_map(|(name, value)| Some((name.to_owned(), value?)))
            .collect())
    }
}

impl ImageConfig {
    /// Reads a config, OCI's or docker's.
    ///
    /// # Errors
    /// When a field that it must have is missing, or one is bad.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        Self::from_bytes(bytes).context("the image's config cannot be read")
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let fields = Fields::parse(bytes)?;
        let rootfs = object_or_null(&fields, "rootfs")?.context("it has no 'rootfs'")?;
        let diff_ids = json::list(rootfs, "diff_ids")?.iter();
        let diff_ids = diff_ids.map(|id| match id {
            Value::String(id) => Checksum::from_digest(id).context("in its 'diff_ids'"),
            _ => bail!("one of its 'diff_ids' is not a string"),
        });
        // Every image is for a system, though nobody asks here for which.
        json::text(&fields, "os")?;
        Ok(Self {
            diff_ids: diff_ids.collect::<Result<_>>()?,
            labels: match object_or_null(&fields, "config")? {
                Some(container) => json::strings(container, "Labels")?,
                None => BTreeMap::new(),
            },
            architecture: json::text(&fields, "architecture")?.to_owned(),
            variant: text_or_null(&fields, "variant")?,
            created: text_or_null(&fields, "created")?,
        })
    }
}

/// The layers of an image with their diff ids, the lowest first.
///
/// # Errors
/// When manifest and config do not have as many of them as the other.
pub fn layers_with_diff_ids<'a>(
    manifest: &'a Manifest,
    config: &ImageConfig,
) -> Result<Vec<(&'a Descriptor, Checksum)>> {
    let (layers, diff_ids) = (manifest.layers.len(), config.diff_ids.len());
    ensure!(
        layers == diff_ids,
        "the manifest {} has {layers} layers, but its config has {diff_ids} diff ids; the image is damaged: build it again",
        manifest.digest.to_digest()
    );
    let diff_ids = config.diff_ids.iter().copied();
    Ok(manifest.layers.iter().zip(diff_ids).collect())
}

fn object_or_null<'a>(
    fields: &'a Map<String, Value>,
    name: &str,
) -> Result<Option<&'a Map<String, Value>>> {
    match fields.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Object(object)) => Ok(Some(object)),
        Some(_) => bail!("its '{name}' is not an object"),
    }
}

/// The text in a field that may be missing, `null`, or empty, which is the same.
fn text_or_null(fields: &Map<String, Value>, name: &str) -> Result<Option<String>> {
    match fields.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(_) => {
            let text = json::text(fields, name)?;
            Ok(Some(text.to_owned()).filter(|text| !text.is_empty()))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn config() -> Value {
        json!({"architecture": "arm", "os": "linux", "variant": "v7", "created": "2025-01-01T00:00:00Z",
            "config": {"Labels": {"ostree.final-diffid": "x"}, "Cmd": ["sh"]},
            "rootfs": {"type": "layers", "diff_ids": [Checksum::of(b"a").to_digest(), Checksum::of(b"b").to_digest()]},
            "history": [{"comment": "1"}, {"comment": "2"}]})
    }

    fn parsed(value: &Value) -> Result<ImageConfig> {
        ImageConfig::parse(value.to_string().as_bytes())
    }

    #[test]
    fn reads_what_a_config_says() {
        let read = parsed(&config()).unwrap();
        assert_eq!(read.diff_ids, [Checksum::of(b"a"), Checksum::of(b"b")]);
        assert_eq!(read.labels["ostree.final-diffid"], "x");
        assert_eq!(read.architecture, "arm");
        assert_eq!(read.variant.as_deref(), Some("v7"));
        assert_eq!(read.created.as_deref(), Some("2025-01-01T00:00:00Z"));
        let least = json!({"architecture": "amd64", "os": "linux", "config": {"Labels": null},
            "variant": "", "created": null, "history": null, "rootfs": {"diff_ids": []}});
        let read = parsed(&least).unwrap();
        assert!(read.labels.is_empty());
        assert_eq!((read.variant, read.created), (None, None));
    }

    #[test]
    fn refuses_bad_fields_by_name() {
        for (at, value, why) in [
            ("/rootfs", Value::Null, "no 'rootfs'"),
            ("/rootfs", json!([]), "'rootfs' is not an object"),
            ("/rootfs/diff_ids", json!("x"), "'diff_ids' is not a list"),
            ("/rootfs/diff_ids/0", json!(1), "'diff_ids' is not a string"),
            (
                "/rootfs/diff_ids/0",
                json!("md5:0"),
                "'md5:0' is not of SHA-256",
            ),
            ("/config", json!([]), "'config' is not an object"),
            ("/config/Labels", json!([]), "'Labels' is not an object"),
            (
                "/config/Labels/ostree.final-diffid",
                json!(1),
                "'ostree.final-diffid' in its 'Labels'",
            ),
            ("/architecture", json!(1), "'architecture' is not a string"),
            ("/os", json!(1), "'os' is not a string"),
            ("/variant", json!(1), "'variant' is not a string"),
            ("/created", json!(1), "'created' is not a string"),
        ] {
            let mut given = config();
            *given.pointer_mut(at).unwrap() = value;
            let error = format!("{:#}", parsed(&given).unwrap_err());
            assert!(error.contains(why), "{at}: {error}");
        }
    }

    #[test]
    fn every_layer_needs_a_diff_id() {
        let layer = |content: &[u8]| {
            json!({"mediaType": "application/vnd.oci.image.layer.v1.tar", "size": content.len(),
                "digest": Checksum::of(content).to_digest()})
        };
        let manifest = |layers: &[Value]| {
            let manifest = json!({"schemaVersion": 2, "layers": layers,
                "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "size": 1,
                           "digest": Checksum::of(b"c").to_digest()}});
            Manifest::parse(manifest.to_string().as_bytes()).unwrap()
        };
        let config = parsed(&config()).unwrap();
        let whole = manifest(&[layer(b"x"), layer(b"y")]);
        let joined = layers_with_diff_ids(&whole, &config).unwrap();
        let joined: Vec<_> = joined
            .iter()
            .map(|(l, diff_id)| (l.digest, *diff_id))
            .collect();
        let of = Checksum::of;
        assert_eq!(joined, [(of(b"x"), of(b"a")), (of(b"y"), of(b"b"))]);
        let short = manifest(&[layer(b"x")]);
        let error = layers_with_diff_ids(&short, &config)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("has 1 layers, but its config has 2 diff ids"),
            "{error}"
        );
    }

    proptest! {
        #[test]
        fn any_change_of_a_byte_makes_no_panic(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let mut bytes = config().to_string().into_bytes();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            if let Ok(read) = ImageConfig::parse(&bytes) {
                prop_assert!(read.diff_ids.len() <= 2);
            }
        }

        #[test]
        fn any_bytes_make_no_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = ImageConfig::parse(&bytes);
        }
    }
}
