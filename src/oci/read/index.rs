//! Which image of an index is meant (image-spec, image-index.md).

use std::collections::BTreeSet;
use std::fmt;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::manifest::{Descriptor, is_index, names_image};
use crate::oci::Platform;
use crate::oci::layout::REF_NAME;

/// The image in the `index.json` of a layout that is called `tag`; without a tag the only one, as
/// skopeo chooses it, or the only one that has none. It may be an index in turn. Where one tag, or
/// none, has several images, `architecture` decides as in [`choose_platform`].
///
/// # Errors
/// When there is no such image or no tag to choose one of several; the tags there are follow.
pub fn find_manifest(
    index: &Value,
    tag: Option<&str>,
    architecture: Option<&str>,
) -> Result<Descriptor> {
    let images = images(index)?;
    let candidates = candidates(&images, tag);
    match (candidates.as_slice(), tag) {
        ([], None) => bail!("there is no image in it"),
        ([], Some(tag)) => bail!(
            "there is no image '{}' in it; {}",
            tag.escape_debug(),
            names(&images)
        ),
        ([one], _) => {
            let says_platform = one["platform"].is_object() && !is_index(media_type(one));
            match architecture.filter(|_| says_platform) {
                Some(_) => choose(&candidates, architecture),
                None => Descriptor::parse(one),
            }
        }
        (several, None) if several.iter().any(|image| name(image).is_some()) => bail!(
            "there are {} images in it, so one must be named with a tag; {}",
            several.len(),
            names(several)
        ),
        (several, _) => choose(several, architecture),
    }
}

/// Whether `tag`, or no tag, names one image in the `index.json` of a layout, and no index.
///
/// # Errors
/// When that is damaged.
pub fn is_alone(index: &Value, tag: Option<&str>) -> Result<bool> {
    let images = images(index)?;
    Ok(matches!(candidates(&images, tag).as_slice(), [one] if !is_index(media_type(one))))
}

/// There is no image for the platform that is wanted. The message names those that there are.
#[derive(Debug)]
pub struct NoImageForPlatform(String);

impl fmt::Display for NoImageForPlatform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NoImageForPlatform {}

/// The images called `tag`; without a tag those without a name, or all where each has one.
fn candidates<'a>(images: &[&'a Value], tag: Option<&str>) -> Vec<&'a Value> {
    let is_called = |image: &&Value| name(image) == tag;
    let called: Vec<&Value> = images.iter().copied().filter(is_called).collect();
    match tag {
        None if called.is_empty() => images.to_vec(),
        _ => called,
    }
}

/// The image of an index (or docker's manifest list) that is for `architecture`, a Debian or OCI
/// name, or for the running machine. It may be an index in turn.
///
/// # Errors
/// With [`NoImageForPlatform`], when there is none.
pub fn choose_platform(index: &Value, architecture: Option<&str>) -> Result<Descriptor> {
    choose(&images(index)?, architecture)
}

/// An equal variant is best, one that is not stated next; who asks for none takes any.
fn choose(images: &[&Value], architecture: Option<&str>) -> Result<Descriptor> {
    let wanted = match architecture {
        Some(name) => Platform::from_name(name)?,
        None => Platform::of_this_machine().context("choosing an image for this machine")?,
    };
    let fits = |image: &&&Value| {
        let platform = &image["platform"];
        let is_linux = platform["os"].as_str().is_none_or(|os| os == "linux");
        is_linux && platform["architecture"].as_str() == Some(&wanted.architecture)
    };
    let fitting: Vec<&Value> = images.iter().filter(fits).copied().collect();
    let with = |variant: Option<&str>| fitting.iter().find(|image| variant_of(image) == variant);
    let chosen = with(wanted.variant.as_deref())
        .or_else(|| with(None))
        .or_else(|| fitting.first().filter(|_| wanted.variant.is_none()));
    match chosen {
        Some(image) => Descriptor::parse(image),
        None => Err(NoImageForPlatform(format!(
            "there is no image for linux/{}{} in it; {}",
            wanted.architecture,
            wanted.variant.map(|v| format!("/{v}")).unwrap_or_default(),
            platforms(images)
        ))
        .into()),
    }
}

/// The descriptors of images and indexes; others (signatures, say) cannot be meant.
fn images(index: &Value) -> Result<Vec<&Value>> {
    let Some(manifests) = index["manifests"].as_array() else {
        bail!("the index has no list of manifests; it is damaged: copy the image again");
    };
    let images = manifests.iter().filter(|one| names_image(media_type(one)));
    Ok(images.collect())
}

fn media_type(image: &Value) -> &str {
    image["mediaType"].as_str().unwrap_or_default()
}

fn name(image: &Value) -> Option<&str> {
    image["annotations"][REF_NAME].as_str()
}

fn variant_of(image: &Value) -> Option<&str> {
    let variant = image["platform"]["variant"].as_str();
    variant.filter(|variant| !variant.is_empty())
}

fn names(images: &[&Value]) -> String {
    let names: BTreeSet<&str> = images.iter().filter_map(|image| name(image)).collect();
    listed(
        "the tags there are:",
        names.iter().map(|name| (*name).to_owned()),
    )
    .unwrap_or_else(|| "no image there has a tag".to_owned())
}

fn platforms(images: &[&Value]) -> String {
    let platforms: BTreeSet<String> = images
        .iter()
        .filter_map(|image| {
            let platform = &image["platform"];
            let os = platform["os"].as_str().unwrap_or("linux");
            let architecture = platform["architecture"].as_str()?;
            let variant = variant_of(image).map(|v| format!("/{v}"));
            Some(format!(
                "{os}/{architecture}{}",
                variant.unwrap_or_default()
            ))
        })
        .collect();
    listed("the platforms there are:", platforms.into_iter())
        .unwrap_or_else(|| "no image there has a platform".to_owned())
}

fn listed(what: &str, words: impl Iterator<Item = String>) -> Option<String> {
    let words: Vec<String> = words.map(|word| word.escape_debug().to_string()).collect();
    (!words.is_empty()).then(|| format!("{what} {}", words.join(", ")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::checksum::Checksum;
    use crate::oci::spec::MediaType;

    /// A descriptor whose digest is that of `id`, with a tag and a platform unless they are empty.
    fn image(id: &str, tag: &str, platform: &str) -> Value {
        let digest = Checksum::of(id.as_bytes()).to_digest();
        let mut image = json!({"mediaType": MediaType::ImageManifest, "digest": digest, "size": 1});
        if !tag.is_empty() {
            image["annotations"] = json!({REF_NAME: tag});
        }
        let mut words = platform.split('/');
        if let (Some(os), Some(architecture)) = (words.next(), words.next()) {
            image["platform"] = json!({"os": os, "architecture": architecture});
            if let Some(variant) = words.next() {
                image["platform"]["variant"] = variant.into();
            }
        }
        image
    }

    fn index(images: &[Value]) -> Value {
        json!({"schemaVersion": 2, "manifests": images})
    }

    #[test]
    fn finds_images_by_tag_and_platform() {
        let signature = json!({"mediaType": "application/vnd.x", "digest": "sha256:0", "size": 1});
        let one = index(&[signature, image("a", "", "linux/s390x")]);
        let named = index(&[
            image("a", "1.0", ""),
            image("b", "2.0", ""),
            image("c", "", ""),
        ]);
        let unnamed = index(&[image("a", "1.0", ""), image("c", "", "")]);
        let same = index(&[
            image("a", "t", "linux/amd64"),
            image("b", "t", "linux/arm64/v8"),
        ]);
        let bare = index(&[image("a", "", "linux/amd64"), image("b", "", "linux/arm64")]);
        for (index, tag, architecture, expected) in [
            (&one, None, None, "a"),
            (&one, None, Some("s390x"), "a"),
            (&named, Some("1.0"), None, "a"),
            (&named, Some("2.0"), Some("arm64"), "b"),
            (&same, Some("t"), Some("amd64"), "a"),
            (&same, Some("t"), Some("arm64"), "b"),
            (&bare, None, Some("aarch64"), "b"),
            (&unnamed, None, None, "c"),
        ] {
            let found = find_manifest(index, tag, architecture).unwrap();
            assert_eq!(
                found.digest,
                Checksum::of(expected.as_bytes()),
                "{tag:?} {architecture:?}"
            );
        }
    }

    #[test]
    fn says_what_there_is() {
        let named = index(&[
            image("a", "1.0", ""),
            image("b", "2.0", ""),
            image("c", "2.0", "linux/s390x"),
        ]);
        let one = index(&[image("a", "", "linux/s390x")]);
        let arm = index(&[
            image("a", "", "linux/arm/v6"),
            image("b", "", "windows/amd64"),
        ]);
        for (index, tag, architecture, why) in [
            (&json!({}), None, None, "no list of manifests"),
            (&index(&[]), None, None, "there is no image in it"),
            (
                &named,
                None,
                None,
                "there are 3 images in it, so one must be named with a tag; the tags there are: 1.0, 2.0",
            ),
            (
                &named,
                Some("3\n"),
                None,
                "no image '3\\n' in it; the tags there are: 1.0, 2.0",
            ),
            (&one, Some("x"), None, "no image there has a tag"),
            (
                &one,
                None,
                Some("amd64"),
                "no image for linux/amd64 in it; the platforms there are: linux/s390x",
            ),
            (
                &arm,
                None,
                Some("armhf"),
                "no image for linux/arm/v7 in it; the platforms there are: linux/arm/v6, windows/amd64",
            ),
            (&arm, None, Some("amd64"), "no image for linux/amd64"),
            (&arm, None, Some("pdp11"), "unknown architecture 'pdp11'"),
        ] {
            let error = find_manifest(index, tag, architecture).unwrap_err();
            let error = format!("{error:#}");
            assert!(error.contains(why), "{why}: {error}");
        }
    }

    #[test]
    fn the_best_variant_is_chosen() {
        let images = |platforms: &[&str]| {
            let images: Vec<Value> = platforms.iter().map(|p| image(p, "", p)).collect();
            index(&images)
        };
        for (platforms, architecture, expected) in [
            (
                &["linux/arm/v6", "linux/arm/v7"][..],
                "armhf",
                "linux/arm/v7",
            ),
            (&["linux/arm/v6", "linux/arm"], "armhf", "linux/arm"),
            (&["linux/arm64/v8"], "arm64", "linux/arm64/v8"),
            (&["linux/arm64/v9", "linux/arm64"], "arm64", "linux/arm64"),
            (&["unknown/unknown", "linux/386"], "i386", "linux/386"),
        ] {
            let chosen = choose_platform(&images(platforms), Some(architecture)).unwrap();
            assert_eq!(
                chosen.digest,
                Checksum::of(expected.as_bytes()),
                "{platforms:?}"
            );
        }
    }

    #[test]
    fn the_running_machine_is_the_default() {
        let here = Platform::of_this_machine().unwrap().architecture;
        let other = if here == "amd64" { "arm64" } else { "amd64" };
        let index = index(&[
            image("other", "", &format!("linux/{other}")),
            image("here", "", &format!("linux/{here}")),
        ]);
        assert_eq!(
            choose_platform(&index, None).unwrap().digest,
            Checksum::of(b"here")
        );
        let mut nested = image("nested", "t", "");
        nested["mediaType"] = MediaType::ImageIndex.as_ref().into();
        let index = json!({"manifests": [nested]});
        assert!(
            find_manifest(&index, Some("t"), Some("arm64"))
                .unwrap()
                .is_index()
        );
    }

    proptest! {
        #[test]
        fn any_change_of_a_byte_makes_no_panic(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let named = [image("a", "1.0", "linux/amd64"), image("b", "2.0", "linux/arm/v7")];
            let mut bytes = index(&named).to_string().into_bytes();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            if let Ok(index) = serde_json::from_slice(&bytes) {
                let _ = find_manifest(&index, Some("1.0"), None);
                let _ = choose_platform(&index, Some("armhf"));
            }
        }
    }
}
