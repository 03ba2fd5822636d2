//! What a command that makes an image leaves besides the image: files beside it, what is attached
//! to it, and what it prints.

use anyhow::Result;
use camino::Utf8PathBuf;
use clap::{ArgAction, Args};

use super::args::LogArgs;
use super::sbom::Sbom;
use super::side_file::SideFiles;
use super::{print_result, say};
use crate::pipeline::Built;
use crate::registry::{Access, Destination};
use crate::report::{layer_table, summary_line};

/// How an image is reported.
#[derive(Debug, Args)]
pub struct ResultArgs {
    /// Write the image's id (the digest of its config) to a file
    #[arg(long, value_name = "FILE")]
    pub iidfile: Option<Utf8PathBuf>,

    /// Write the digest of the manifest to a file
    #[arg(long, value_name = "FILE")]
    pub digestfile: Option<Utf8PathBuf>,

    /// Write a bill of materials to a file, as spdx (2.3) or cyclonedx (1.5): the one that
    /// 'inspect' makes. Of an image in a registry it is attached to that, too (an OCI referrer)
    #[arg(long, num_args = 2, value_names = ["FORMAT", "FILE"], action = ArgAction::Set)]
    pub sbom: Option<Vec<String>>,

    /// Print a JSON description of the image instead of its digest
    #[arg(long)]
    pub json: bool,

    #[command(flatten)]
    pub log: LogArgs,
}

impl ResultArgs {
    /// The files that are asked for; those that cannot be written are refused before any work.
    pub fn side_files(&self, destination: &Destination) -> Result<SideFiles> {
        let mut files = SideFiles::default();
        if let Some(sbom) = self.sbom()? {
            let (path, destination) = (sbom.path.clone(), destination.clone());
            files.add(Some(&path), move |built| sbom.text_of(built, &destination))?;
        }
        files.add(self.iidfile.as_ref(), |built| Ok(built.image_id.clone()))?;
        files.add(self.digestfile.as_ref(), |built| Ok(built.digest.clone()))?;
        Ok(files)
    }

    fn sbom(&self) -> Result<Option<Sbom>> {
        self.sbom.as_deref().map(Sbom::parse).transpose()
    }

    /// Does what is left when an image is in its place: puts the files beside it, attaches what is
    /// to be attached.
    pub fn finish(
        &self,
        files: SideFiles,
        built: &Built,
        destination: &Destination,
        access: &Access,
    ) -> Result<()> {
        files.publish()?;
        match self.sbom()? {
            Some(sbom) => sbom.attach(built, destination, access),
            None => Ok(()),
        }
    }

    /// Tells the user.
    pub fn report(&self, built: &Built, destination: &Destination) -> Result<()> {
        if !self.log.quiet {
            if self.log.verbose > 0 {
                say(&layer_table(&built.layers));
            }
            say(&summary_line(built));
        }
        let result = match self.json {
            true => serde_json::to_string_pretty(built)?,
            false => built.digest.clone(),
        };
        // Standard output has the archive itself.
        if let Destination::Stdout { .. } = destination {
            if !self.log.quiet {
                say(&result);
            }
            return Ok(());
        }
        print_result(&format!("{result}\n"))
    }
}
