//! Finds the image that a root filesystem was built from, by what the config and annotations of the
//! built image say.

use std::collections::BTreeMap;

use anyhow::{Context, Result};

use crate::registry::Reference;

/// What an image says of the one that it was built from (image-spec, annotations.md): its name and
/// the digest of its manifest.
const BASE_NAME: &str = oci_spec::image::ANNOTATION_BASE_IMAGE_NAME;
const BASE_DIGEST: &str = oci_spec::image::ANNOTATION_BASE_IMAGE_DIGEST;

/// The image that an image with these annotations was built from; none where they do not tell.
///
/// One without a registry of its own is in the storage of podman and buildah.
///
/// # Errors
/// When they name what cannot be an image.
pub fn base_of(annotations: &BTreeMap<String, String>) -> Result<Option<Reference>> {
    let Some(name) = annotations.get(BASE_NAME).filter(|name| !name.is_empty()) else {
        return Ok(None);
    };
    let context = || format!("the annotation {BASE_NAME} is '{}'", name.escape_debug());
    if crate::registry::has_transport(name) {
        return name.parse().map(Some).with_context(context);
    }
    let reference = match (name.starts_with("localhost/"), annotations.get(BASE_DIGEST)) {
        (true, _) => format!("containers-storage:{name}"),
        (false, None) => format!("docker://{name}"),
        (false, Some(digest)) => {
            let (last, tag) = (name.rfind('/'), name.rfind(':'));
            let end = tag.filter(|tag| last.is_none_or(|last| *tag > last));
            format!("docker://{}@{digest}", &name[..end.unwrap_or(name.len())])
        }
    };
    reference.parse().map(Some).with_context(context)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn base(name: &str, digest: Option<&str>) -> Option<String> {
        let mut annotations = BTreeMap::from([(BASE_NAME.to_owned(), name.to_owned())]);
        annotations.extend(digest.map(|digest| (BASE_DIGEST.to_owned(), digest.to_owned())));
        base_of(&annotations).unwrap().map(|base| base.to_string())
    }

    #[test]
    fn annotations_name_the_base() {
        let digest = crate::checksum::Checksum::of(b"").to_digest();
        let pinned = |name: &str| base(name, Some(&digest)).unwrap();
        assert_eq!(
            pinned("docker.io/library/debian:trixie"),
            format!("docker://docker.io/library/debian@{digest}")
        );
        assert_eq!(
            pinned("host:5000/a"),
            format!("docker://host:5000/a@{digest}")
        );
        assert_eq!(pinned("localhost/a:b"), "containers-storage:localhost/a:b");
        assert_eq!(base("quay.io/a:b", None).unwrap(), "docker://quay.io/a:b");
        assert_eq!(base("", None), None);
        assert_eq!(base_of(&BTreeMap::new()).unwrap(), None);
        let bad = BTreeMap::from([(BASE_NAME.to_owned(), "A/B C".to_owned())]);
        assert!(base_of(&bad).is_err());
    }
}
