//! The documents of an image by oci-spec's types (image-spec, manifest.md, descriptor.md and
//! image-index.md). What is written is made of them. What is read is checked by them, and kept as
//! JSON beside: they know no fields but their own, and others must survive.

use std::collections::BTreeMap;

use anyhow::Result;
pub use oci_spec::image::MediaType;
use oci_spec::image::{self, Digest, ToDockerV2S2};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::checksum::Checksum;

/// What names `size` bytes with that digest.
///
/// # Errors
/// None that is known: oci-spec takes the digest as text.
pub fn descriptor(media_type: MediaType, digest: Checksum, size: u64) -> Result<image::Descriptor> {
    let digest: Digest = digest.to_digest().parse()?;
    Ok(image::Descriptor::new(media_type, size, digest))
}

/// A descriptor of a whole document, as JSON.
///
/// # Errors
/// As [`descriptor`].
pub fn describe(media_type: MediaType, digest: Checksum, document: &[u8]) -> Result<Value> {
    to_json(&descriptor(media_type, digest, document.len() as u64)?)
}

/// A document as JSON. oci-spec has annotations in hash maps: they are sorted, so that a document
/// always has the same bytes.
///
/// # Errors
/// When it is none of JSON.
pub fn to_json(document: &impl Serialize) -> Result<Value> {
    let mut json = serde_json::to_value(document)?;
    sort_annotations(&mut json);
    Ok(json)
}

fn sort_annotations(json: &mut Value) {
    match json {
        Value::Object(fields) => {
            for (name, value) in fields {
                match value {
                    Value::Object(annotations) if name == "annotations" => annotations.sort_keys(),
                    other => sort_annotations(other),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(sort_annotations),
        _ => {}
    }
}

/// A document of that type.
///
/// # Errors
/// When a field that it must have is missing, or one is bad: the field is named.
pub fn from_json<T: DeserializeOwned>(json: &Value) -> Result<T> {
    serde_path_to_error::deserialize(json).map_err(|error| {
        let field = error.path().to_string();
        let why = error.into_inner();
        match field.as_str() {
            "." => anyhow::anyhow!("{why}"),
            field => anyhow::anyhow!("its '{}': {why}", field.escape_debug()),
        }
    })
}

/// Annotations, sorted.
pub fn sorted(
    annotations: Option<&std::collections::HashMap<String, String>>,
) -> BTreeMap<String, String> {
    let annotations = annotations.into_iter().flatten();
    annotations.map(|(k, v)| (k.clone(), v.clone())).collect()
}

/// Whether a media type is `kind`, as OCI names it or as docker does.
pub fn is_either(media_type: &str, kind: &MediaType) -> bool {
    media_type == kind.as_ref()
        || kind
            .to_docker_v2s2()
            .is_ok_and(|docker| docker == media_type)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn annotations_are_written_in_order() {
        let names = (0..50).map(|n| (format!("name-{n:02}"), n.to_string()));
        let mut described = descriptor(MediaType::ImageLayer, Checksum::of(b"a"), 1).unwrap();
        described.set_annotations(Some(names.clone().collect()));
        let json = to_json(&[described]).unwrap();
        let written = json[0]["annotations"].as_object().unwrap();
        let expected: Vec<String> = names.map(|(name, _)| name).collect();
        assert_eq!(written.keys().cloned().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_kind_has_two_names() {
        for name in [
            "application/vnd.oci.image.index.v1+json",
            "application/vnd.docker.distribution.manifest.list.v2+json",
        ] {
            assert!(is_either(name, &MediaType::ImageIndex), "{name}");
            assert!(!is_either(name, &MediaType::ImageManifest), "{name}");
        }
        assert!(!is_either("", &MediaType::ImageLayerZstd));
    }
}
