//! `import`.

use anyhow::Result;
use camino::Utf8PathBuf;
use clap::Args;

use super::access::{AccessArgs, ArchitectureArgs};
use super::args::LogArgs;
use super::{print_result, say};
use crate::ostree::PublicKeys;
use crate::pipeline::{self, ImportOptions};
use crate::registry::Reference;
use crate::report::imported_line;
use crate::tree::{Filter, SpecialFiles};

/// Make an OSTree commit of a container image in a repository.
///
/// An encapsulated commit is taken out as it is: each object is checked, and the commit counts, and
/// the branch points at it, only when every object is there. Of an ordinary image, or of layers on
/// top of a commit, the commit is made: the layers are applied, /etc becomes /usr/etc, and what a
/// running system fills (/dev, /proc, /sys, /run, /tmp) stays empty. The commit's checksum goes to
/// standard output.
///
/// Layers whose objects the repository has taken over before are neither fetched nor read: of an
/// update, only those that changed are.
///
/// Files that a later layer replaces are stored too; 'ostree prune' removes them.
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// The repository, of mode bare, bare-user or archive
    #[arg(long, value_name = "DIR")]
    repo: Utf8PathBuf,

    /// The image: oci:PATH[:TAG], oci-archive:PATH[:TAG], a path, or through skopeo docker://NAME,
    /// containers-storage:NAME and others
    #[arg(value_name = "IMAGE")]
    image: Reference,

    /// Branch that is to point at the commit
    #[arg(short, long, value_name = "REF")]
    branch: Option<String>,

    /// Refuse an image whose commit is not signed with one of the public keys in a file:
    /// ed25519=FILE (32 bytes in base64 on a line) or spki=FILE (PEM); or a key itself as
    /// ed25519=inline:KEY
    #[arg(long, value_name = "TYPE=FILE", value_parser = PublicKeys::from_option)]
    sign_verify: Option<PublicKeys>,

    /// Leave out fifos and device nodes of an ordinary image instead of failing
    #[arg(long)]
    skip_special_files: bool,

    #[command(flatten)]
    architecture: ArchitectureArgs,

    #[command(flatten)]
    access: AccessArgs,

    /// Print a JSON description of the commit instead of its checksum
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    log: LogArgs,
}

impl ImportArgs {
    /// What is logged.
    pub fn log(&self) -> &LogArgs {
        &self.log
    }
}

/// Imports and reports.
pub fn run(args: &ImportArgs) -> Result<()> {
    let mut filter = Filter::default();
    if args.skip_special_files {
        filter.special_files = SpecialFiles::Skip;
    }
    let options = ImportOptions {
        image: args.image.clone(),
        access: args
            .access
            .access([args.image.host()])?
            .for_architecture(args.architecture.arch.as_deref()),
        repo: args.repo.clone(),
        branch: args.branch.clone(),
        verify: args.sign_verify.clone(),
        filter,
    };
    let imported = pipeline::import(options, &args.log.progress())?;
    if !args.log.quiet {
        say(&imported_line(&imported));
    }
    let result = match args.json {
        true => serde_json::to_string_pretty(&imported)?,
        false => imported.commit,
    };
    print_result(&format!("{result}\n"))
}
