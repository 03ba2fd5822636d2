//! Artifacts attached to images in registries: a manifest with the image as its `subject`
//! (image-spec 1.1, "Guidelines for Artifact Usage"), and the list of such manifests under a tag
//! that the image's digest makes (distribution-spec 1.1, "Referrers Tag Schema").
//!
//! A registry that has the API for referrers lists the manifest by itself. skopeo does not tell
//! whether one has, so that the tag is always written: there it is one tag more, and readers ask
//! the API first. No signature is made of an artifact.

use std::collections::HashMap;

use anyhow::{Context, Result, ensure};
use oci_spec::image::{ImageManifestBuilder, SCHEMA_VERSION};
use serde_json::{Value, json};

use super::failure::{Failure, FailureKind};
use super::open::{as_index, raw_manifest};
use super::push::{run, words};
use super::skopeo::{Side, options, retrying};
use super::{Access, RegistryName};
use crate::checksum::Checksum;
use crate::oci::read::Descriptor;
use crate::oci::{MediaType, Stage, spec};
use crate::process::Call;

/// The config of a manifest that is no image's (image-spec, manifest.md, "Guidance for an Empty
/// Descriptor").
const EMPTY: &[u8] = b"{}";
/// `EMPTY` in base64.
const EMPTY_DATA: &str = "e30=";
/// How often a list is written that somebody else writes at the same time.
const ATTEMPTS: u32 = 4;
/// What skopeo says of a list of which it does not know each field (before 1.14 the type of an
/// artifact): it would leave them out.
const UNKNOWN_FIELD: &str = "must be converted";

/// What is attached to an image.
#[derive(Debug)]
pub struct Artifact<'a> {
    /// Its media type, by which readers look for it.
    pub media_type: &'a str,
    /// Its bytes.
    pub content: &'a [u8],
    /// Annotations of its manifest.
    pub annotations: HashMap<String, String>,
}

/// Attaches `artifact` to the image that `subject` (a descriptor) names in the repository of
/// `name`. Gives the digest of the artifact's manifest. The same artifact is attached once.
///
/// # Errors
/// With a [`Failure`], when the registry does not have it afterwards. One of the kind
/// [`FailureKind::Other`] says that the registry, or skopeo, does not take artifacts.
pub fn attach(
    artifact: &Artifact<'_>,
    subject: &Value,
    name: &RegistryName,
    access: &Access,
) -> Result<Checksum> {
    let subject = Descriptor::parse(subject)?;
    let attached = || -> Result<Checksum> {
        let stage = Stage::new_temporary()?;
        let mut descriptor = manifest(&stage, artifact, &subject)?;
        let digest = Descriptor::parse(&descriptor)?.digest;
        send(&stage, &descriptor, &name.at(digest), access, &[])?;
        descriptor["annotations"] = json!(artifact.annotations);
        descriptor["artifactType"] = artifact.media_type.into();
        list(&stage, descriptor, &name.referrers(subject.digest), access)?;
        Ok(digest)
    };
    attached().with_context(|| {
        let (kind, image) = (artifact.media_type, name.at(subject.digest));
        format!("attaching {kind} to {image}")
    })
}

/// Writes the manifest of an artifact and its blobs to a stage; gives its descriptor.
fn manifest(stage: &Stage, artifact: &Artifact<'_>, subject: &Descriptor) -> Result<Value> {
    let size = EMPTY.len() as u64;
    let mut config = spec::descriptor(MediaType::EmptyJSON, stage.add_bytes(EMPTY)?, size)?;
    config.set_data(Some(EMPTY_DATA.to_owned()));
    let kind = MediaType::from(artifact.media_type);
    let (content, size) = (stage.add_bytes(artifact.content)?, artifact.content.len());
    let manifest = ImageManifestBuilder::default()
        .schema_version(SCHEMA_VERSION)
        .media_type(MediaType::ImageManifest)
        .artifact_type(kind.clone())
        .config(config)
        .layers(vec![spec::descriptor(kind, content, size as u64)?])
        .subject(spec::descriptor(
            subject.media_type.clone(),
            subject.digest,
            subject.size,
        )?)
        .annotations(artifact.annotations.clone())
        .build()?;
    let manifest = spec::to_json(&manifest)?.to_string();
    let digest = stage.add_bytes(manifest.as_bytes())?;
    spec::describe(MediaType::ImageManifest, digest, manifest.as_bytes())
}

/// Adds a manifest to the list at `tag`. Two may do so at once: what was written is read again.
fn list(stage: &Stage, descriptor: Value, tag: &RegistryName, access: &Access) -> Result<()> {
    for _ in 0..ATTEMPTS {
        let Some(listed) = with(listed(tag, access)?, &descriptor) else {
            return Ok(());
        };
        if let Err(error) = send_index(stage, listed, tag, access) {
            ensure!(is_of_unknown_field(&error), error);
            let mut plain = descriptor.clone();
            if let Some(fields) = plain.as_object_mut() {
                fields.shift_remove("artifactType");
            }
            let Some(listed) = with(self::listed(tag, access)?, &plain) else {
                return Ok(());
            };
            send_index(stage, listed, tag, access)?;
            tracing::warn!(
                "this skopeo cannot write the type of an artifact to the list {tag}: readers that ask for a type do not find it there; skopeo 1.14 or newer can (Debian 13 has it)"
            );
        }
    }
    let message = format!("somebody else writes the list {tag} all the time; try again");
    Err(Failure::new(FailureKind::Faulty, message).into())
}

/// The list at `tag`, or a new one.
fn listed(tag: &RegistryName, access: &Access) -> Result<Value> {
    let raw = match raw_manifest(tag, access) {
        Ok(raw) => raw,
        Err(error) if is_missing(&error) => {
            return Ok(
                json!({"schemaVersion": 2, "mediaType": MediaType::ImageIndex, "manifests": []}),
            );
        }
        Err(error) => return Err(error),
    };
    as_index(&raw).ok_or_else(|| {
        let what = "is no list of what is attached to an image; remove that tag";
        Failure::new(FailureKind::Other, format!("{tag} {what}")).into()
    })
}

/// The list with one more; none where it is there.
fn with(index: Value, descriptor: &Value) -> Option<Value> {
    let mut index = index;
    let listed = index["manifests"].as_array_mut()?;
    let is_there = |known: &Value| known["digest"] == descriptor["digest"];
    if listed.iter().any(is_there) {
        return None;
    }
    listed.push(descriptor.clone());
    Some(index)
}

fn is_missing(error: &anyhow::Error) -> bool {
    Failure::of(error).is_some_and(|failure| failure.kind == FailureKind::Missing)
}

fn is_of_unknown_field(error: &anyhow::Error) -> bool {
    format!("{error:#}").contains(UNKNOWN_FIELD)
}

fn send_index(stage: &Stage, index: Value, tag: &RegistryName, access: &Access) -> Result<()> {
    let index = index.to_string();
    let digest = stage.add_bytes(index.as_bytes())?;
    let descriptor = spec::describe(MediaType::ImageIndex, digest, index.as_bytes())?;
    // What it names is there.
    send(
        stage,
        &descriptor,
        tag,
        access,
        &["--multi-arch", "index-only"],
    )
}

/// Sends what `descriptor` names from a stage to `name`.
fn send(
    stage: &Stage,
    descriptor: &Value,
    name: &RegistryName,
    access: &Access,
    more: &[&str],
) -> Result<()> {
    stage.be_layout_of(descriptor)?;
    let sent = retrying(access, name, || {
        let secret = access.secret_for(name)?;
        let mut arguments = words(&["--insecure-policy", "copy", "--preserve-digests"]);
        arguments.extend(words(more));
        arguments.extend(options(access, Side::Destination, secret.is_some())?);
        arguments.extend(["oci:.".to_owned(), name.for_skopeo()]);
        let call = Call::new("skopeo", arguments).directory(stage.layout());
        run(call, secret)
    });
    sent.map(drop)
}
