//! `--sbom`: bills of materials in files, and attached to images in registries.

use anyhow::{Context, Result};
use camino::{Utf8Path, Utf8PathBuf};

use super::args::usage;
use crate::pipeline::{Bill, Built};
use crate::registry::{self, Access, Artifact, Destination, Failure, FailureKind, Reference};
use crate::report::{cyclonedx, spdx};

/// A format of bills of materials.
struct Format {
    name: &'static str,
    media_type: &'static str,
    write: fn(&str, &Bill) -> String,
}

/// The formats, with the media types that are registered for them.
const FORMATS: [Format; 2] = [
    Format {
        name: "spdx",
        media_type: "application/spdx+json",
        write: spdx,
    },
    Format {
        name: "cyclonedx",
        media_type: "application/vnd.cyclonedx+json",
        write: cyclonedx,
    },
];

/// When an artifact was made (image-spec, annotations.md).
const CREATED: &str = oci_spec::image::ANNOTATION_CREATED;

/// What `--sbom` asks for.
#[derive(Clone)]
pub struct Sbom {
    format: &'static Format,
    /// The file.
    pub path: Utf8PathBuf,
}

impl Sbom {
    /// Reads the words of the option.
    ///
    /// # Errors
    /// When there is no such format.
    pub fn parse(words: &[String]) -> Result<Self> {
        let [name, file] = words else {
            return Err(usage("--sbom wants a format and a file".to_owned()));
        };
        let format = FORMATS.iter().find(|format| format.name == name);
        let format = format
            .ok_or_else(|| usage(format!("--sbom {name}: the formats are spdx and cyclonedx")))?;
        Ok(Self {
            format,
            path: Utf8Path::new(file).to_owned(),
        })
    }

    /// The bill of the image that the user calls `name`.
    pub fn text(&self, name: &str, bill: &Bill) -> String {
        (self.format.write)(name, bill)
    }

    /// The bill of the image that is built for `destination`.
    ///
    /// # Errors
    /// When none was made.
    pub fn text_of(&self, built: &Built, destination: &Destination) -> Result<String> {
        let bill = built.bill.as_ref();
        let bill = bill.context("no bill of materials was made of the image")?;
        let name = Reference::of_destination(destination);
        let name = name.map_or_else(|| "-".to_owned(), |reference| reference.to_string());
        Ok(self.text(&name, bill))
    }

    /// Attaches the bill to the image that was built, where that is in a registry. That one does
    /// not take artifacts is no failure: the file is there.
    ///
    /// # Errors
    /// When the registry cannot be written to.
    pub fn attach(&self, built: &Built, destination: &Destination, access: &Access) -> Result<()> {
        let Destination::Registry(name) = destination else {
            return Ok(());
        };
        let text = self.text_of(built, destination)?;
        let created = built.bill.as_ref().and_then(|bill| bill.created.as_ref());
        let artifact = Artifact {
            media_type: self.format.media_type,
            content: text.as_bytes(),
            annotations: created
                .map(|date| (CREATED.to_owned(), date.clone()))
                .into_iter()
                .collect(),
        };
        let attached = registry::attach(&artifact, &built.descriptor, name, access);
        let refused = |error: &anyhow::Error| {
            Failure::of(error).is_some_and(|failure| failure.kind == FailureKind::Other)
        };
        match attached {
            Ok(digest) => tracing::info!("attached {} as {}", self.path, digest.to_digest()),
            Err(error) if refused(&error) => tracing::warn!(
                "{error:#}; the image is in its place, and its bill of materials in {} only",
                self.path
            ),
            Err(error) => {
                return Err(error.context(
                    "the image is in place, but its bill of materials is not attached to it",
                ));
            }
        }
        Ok(())
    }
}
