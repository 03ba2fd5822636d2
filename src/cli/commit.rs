//! `commit`.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;

use anyhow::{Result, anyhow};
use camino::Utf8PathBuf;
use clap::Args;

use super::args::{CommitArgs, LogArgs, RootfsArgs};
use super::{print_result, say};
use crate::checksum::Checksum;
use crate::oci;
use crate::ostree::MetadataValue;
use crate::pipeline::{self, CommitOptions, Parent, StoreOptions};
use crate::report::committed_line;

/// Make an OSTree commit of a Debian root filesystem in a repository.
///
/// /etc becomes /usr/etc. What the running system fills (/dev, /proc, /sys, /run, /tmp) and what is
/// below /sysroot is left out; those directories stay, empty. Objects that the repository has are
/// not written again. A kernel at /usr/lib/modules/VERSION/vmlinuz makes the commit bootable
/// (ostree.bootable, ostree.linux). The commit's checksum goes to standard output.
#[derive(Debug, Args)]
pub struct CommitCommandArgs {
    #[command(flatten)]
    rootfs: RootfsArgs,

    /// The repository, of any mode; in one of mode bare-user-only, permissions become canonical
    #[arg(long, value_name = "DIR")]
    repo: Utf8PathBuf,

    /// Branch that is to point at the commit
    #[arg(short, long, value_name = "REF", required_unless_present = "orphan")]
    branch: Option<String>,

    /// Make a commit that no branch points at
    #[arg(long, conflicts_with = "branch")]
    orphan: bool,

    /// Commit that this one follows: a checksum, or none [default: the one the branch points at]
    #[arg(long, value_name = "COMMIT", value_parser = parent)]
    parent: Option<Parent>,

    /// First line of the message
    #[arg(short, long, value_name = "TEXT", default_value = "")]
    subject: String,

    /// Rest of the message
    #[arg(short = 'm', long, value_name = "TEXT", default_value = "")]
    body: String,

    /// Version of the system, in the commit's metadata
    #[arg(long, value_name = "VERSION")]
    version: Option<String>,

    /// Add text to the commit's metadata
    #[arg(long = "add-metadata-string", value_name = "K=V", value_parser = metadata_string)]
    metadata_strings: Vec<(String, String)>,

    /// Add a value to the commit's metadata: true, false, or text in quotes, as GVariant writes it
    #[arg(long = "add-metadata", value_name = "K=VALUE", value_parser = metadata_value)]
    metadata_values: Vec<(String, MetadataValue)>,

    /// Make root the owner of everything and take special permissions and attributes away
    #[arg(long)]
    canonical_permissions: bool,

    #[command(flatten)]
    commit: CommitArgs,

    /// Threads that read and hash [default: as many as there are processors]
    #[arg(short = 'j', long, value_name = "N")]
    threads: Option<NonZeroUsize>,

    /// Print a JSON description of the commit instead of its checksum
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    log: LogArgs,
}

impl CommitCommandArgs {
    /// What is logged.
    pub fn log(&self) -> &LogArgs {
        &self.log
    }
}

/// Commits and reports.
pub fn run(args: &CommitCommandArgs) -> Result<()> {
    let mut rootfs = args.rootfs.options(None)?;
    rootfs.canonical_permissions = args.canonical_permissions;
    let mut metadata: BTreeMap<String, MetadataValue> =
        args.metadata_values.iter().cloned().collect();
    let strings = args.metadata_strings.iter().cloned();
    metadata.extend(strings.map(|(key, text)| (key, MetadataValue::String(text))));
    let store = StoreOptions {
        repo: args.repo.clone(),
        branch: args.branch.clone(),
    };
    let options = CommitOptions {
        timestamp: args.commit.timestamp()?,
        subject: args.subject.clone(),
        body: args.body.clone(),
        parent: args.parent.clone().unwrap_or_default(),
        version: args.version.clone(),
        metadata,
        sign: args.commit.sign_commits.clone(),
        store: Some(store),
    };
    let threads = args.threads.unwrap_or_else(oci::available_threads);
    let committed = pipeline::commit(rootfs, options, threads, &args.log.progress())?;
    if !args.log.quiet {
        say(&committed_line(&committed));
    }
    let result = match args.json {
        true => serde_json::to_string_pretty(&committed)?,
        false => committed.commit,
    };
    print_result(&format!("{result}\n"))
}

fn parent(text: &str) -> Result<Parent> {
    match text {
        "none" => Ok(Parent::None),
        checksum => {
            let checksum = Checksum::from_hex(checksum);
            let checksum =
                checksum.map_err(|_| anyhow!("write the 64 digits of a commit, or none"))?;
            Ok(Parent::Commit(checksum))
        }
    }
}

fn metadata_string(text: &str) -> Result<(String, String)> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() && !value.contains('\0') => {
            Ok((key.to_owned(), value.to_owned()))
        }
        _ => Err(anyhow!("write K=V")),
    }
}

fn metadata_value(text: &str) -> Result<(String, MetadataValue)> {
    let (key, value) = metadata_string(text)?;
    let quoted = |quote: char| {
        let inner = value.strip_prefix(quote)?.strip_suffix(quote)?;
        // What GVariant's text form would take for something else is not guessed at.
        (!inner.contains([quote, '\\'])).then(|| inner.to_owned())
    };
    let value = match (value.as_str(), quoted('\'').or_else(|| quoted('"'))) {
        ("true", _) => MetadataValue::Bool(true),
        ("false", _) => MetadataValue::Bool(false),
        (_, Some(text)) => MetadataValue::String(text),
        _ => {
            return Err(anyhow!(
                "the value is neither true, false nor text in quotes; for plain text use --add-metadata-string"
            ));
        }
    };
    Ok((key, value))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn metadata_is_text_or_a_truth_value() {
        let string = |text: &str| MetadataValue::String(text.to_owned());
        for (text, value) in [
            ("k=true", MetadataValue::Bool(true)),
            ("k=false", MetadataValue::Bool(false)),
            ("k='it is'", string("it is")),
            ("k=\"it's\"", string("it's")),
            ("k=''", string("")),
        ] {
            assert_eq!(
                metadata_value(text).unwrap(),
                ("k".to_owned(), value),
                "{text}"
            );
        }
        for wrong in ["k", "=true", "k=1", "k=text", "k='a'b'", "k='a\\'", "k='"] {
            assert!(metadata_value(wrong).is_err(), "{wrong}");
        }
        assert_eq!(
            metadata_string("a=b=c").unwrap(),
            ("a".into(), "b=c".into())
        );
    }
}
