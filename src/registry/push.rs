//! Images sent to registries. skopeo asks the registry for each blob before it wants it from the
//! layout that it sends: what the registry has is neither sent nor needs to be there. Nothing
//! counts as done before the registry has told the digest back.

use std::collections::BTreeSet;
use std::fs::File;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::failure::{Failure, FailureKind};
use super::open::raw_manifest;
use super::skopeo::{Side, options, retrying};
use super::watch::{Watched, while_watched};
use super::{Access, Reference, RegistryName, describe};
use crate::checksum::Checksum;
use crate::oci::Stage;
use crate::oci::read::Descriptor;
use crate::process::Call;
use crate::progress::Progress;

/// Asks the registry for what is at `name`, so that a wrong password or a host that does not answer
/// is known before any work. That nothing is there is fine.
///
/// # Errors
/// With a [`Failure`], when it does not answer or refuses.
pub fn check_writable(name: &RegistryName, access: &Access) -> Result<()> {
    match raw_manifest(name, access) {
        Ok(_) => Ok(()),
        Err(error) => match Failure::of(&error).map(|failure| failure.kind) {
            Some(FailureKind::Missing) => Ok(()),
            _ => Err(error),
        },
    }
}

/// Sends the image, or the index with all its images, that `descriptor` names from a stage to
/// `name`. Layers may be missing in the stage that the registry has. Gives the `layers` that were
/// sent.
///
/// # Errors
/// With a [`Failure`], when the registry does not have it afterwards.
pub fn push(
    stage: &Stage,
    descriptor: &Value,
    layers: &[(Checksum, u64)],
    name: &RegistryName,
    access: &Access,
    progress: &dyn Progress,
) -> Result<BTreeSet<Checksum>> {
    let sent = || -> Result<BTreeSet<Checksum>> {
        let descriptor = Descriptor::parse(descriptor)?;
        stage.be_layout_of(&descriptor.raw)?;
        let total = layers.iter().map(|(_, size)| size);
        progress.begin(
            "pushing layers",
            total.fold(0, |sum, size| sum.saturating_add(*size)),
        );
        let watched = layers.iter().map(|(digest, size)| Watched {
            digest: *digest,
            size: *size,
            path: stage.blob_path(*digest),
        });
        let watched: Vec<Watched> = watched.collect();
        let send = || {
            send_signed(name, descriptor.digest, access, |to, signing| {
                send(stage, to, access, signing)
            })
        };
        let (done, sent) = while_watched(&watched, progress, send);
        progress.end();
        done?;
        read_back(name, descriptor.digest, access)?;
        Ok(sent)
    };
    sent().with_context(|| format!("pushing to {name}"))
}

fn send(stage: &Stage, name: &RegistryName, access: &Access, signing: &[String]) -> Result<String> {
    let secret = access.secret_for(name)?;
    // What we have made needs no signature; a machine without a policy has none to ask for one.
    let mut arguments = words(&["--insecure-policy", "copy", "--all", "--preserve-digests"]);
    arguments.extend_from_slice(signing);
    arguments.extend(options(access, Side::Destination, secret.is_some())?);
    // Whatever the path of the stage is, a colon in it too.
    arguments.extend(["oci:.".to_owned(), name.for_skopeo()]);
    run(
        Call::new("skopeo", arguments).directory(stage.layout()),
        secret,
    )
}

/// Copies an image, or `all` that an index names, from one registry to another, as it is: what the
/// second one has is not fetched from the first. Gives the digest.
///
/// # Errors
/// With a [`Failure`], when the second registry does not have it afterwards.
pub fn copy(
    from: &RegistryName,
    to: &RegistryName,
    access: &Access,
    all: bool,
) -> Result<Checksum> {
    let context = || format!("copying {from} to {to}");
    let digest = match all {
        true => Checksum::of(&raw_manifest(from, access)?),
        false => {
            describe(&Reference::Registry(from.clone()), access)?
                .manifest
                .digest
        }
    };
    let source = from.at(digest);
    send_signed(to, digest, access, |to, signing| {
        let (of_source, of_destination) = (access.secret_for(from)?, access.secret_for(to)?);
        let mut arguments = words(&["copy", "--preserve-digests"]);
        if all {
            arguments.push("--all".into());
        }
        arguments.extend_from_slice(signing);
        arguments.extend(options(access, Side::Source, of_source.is_some())?);
        arguments.extend(options(
            access,
            Side::Destination,
            of_destination.is_some(),
        )?);
        arguments.extend([source.for_skopeo(), to.for_skopeo()]);
        // Credentials are for one registry.
        run(Call::new("skopeo", arguments), of_destination.or(of_source))
    })
    .with_context(context)?;
    read_back(to, digest, access).with_context(context)?;
    Ok(digest)
}

pub(super) fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

pub(super) fn run(call: Call, secret: Option<File>) -> Result<String> {
    match secret {
        Some(secret) => call.input(secret),
        None => call,
    }
    .run()
}

/// Has `send` send an image with the digest `digest` to `name`. One that is to be signed is sent by
/// its digest first, with its signature: a tag never names an image that could not be signed.
fn send_signed<T>(
    name: &RegistryName,
    digest: Checksum,
    access: &Access,
    send: impl Fn(&RegistryName, &[String]) -> Result<T>,
) -> Result<T> {
    if let Some(signing) = &access.signing {
        let (by_digest, options) = (name.at(digest), signing.options(name)?);
        retrying(access, name, || send(&by_digest, &options))
            .map_err(|error| signing.explain(error, name))?;
    }
    retrying(access, name, || send(name, &[]))
}

/// Compares what the registry has under a name with what was sent.
fn read_back(name: &RegistryName, sent: Checksum, access: &Access) -> Result<()> {
    let found = raw_manifest(name, access).context("reading back what was pushed")?;
    let found = Checksum::of(&found);
    if found != sent {
        bail!(Failure::new(
            FailureKind::Damaged,
            format!(
                "the registry {} has the digest {} there, not {}: it has changed the manifest, or somebody else has pushed meanwhile",
                name.host(),
                found.to_digest(),
                sent.to_digest()
            )
        ));
    }
    Ok(())
}
