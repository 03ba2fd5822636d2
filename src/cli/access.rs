//! How registries are reached: the options of every command that talks to one.

use std::io::Read;
use std::sync::OnceLock;

use anyhow::{Context, Result};
use camino::Utf8PathBuf;
use clap::{ArgAction, Args};

use super::args::usage;
use crate::registry::{Access, Credentials, Destination, Signing};

/// So many bytes of credentials are read at most.
const LONGEST_CREDENTIALS: u64 = 64 * 1024;

/// How registries are reached.
#[derive(Debug, Args)]
pub struct AccessArgs {
    /// File with credentials for registries [default: where podman, skopeo and docker keep theirs]
    #[arg(long, value_name = "FILE", help_heading = "Registries")]
    authfile: Option<Utf8PathBuf>,

    /// Read USER:PASSWORD for the registry from standard input: for the one that is written to,
    /// else the one that is read
    #[arg(long, help_heading = "Registries", conflicts_with = "authfile")]
    creds_stdin: bool,

    /// Directory with certificates for registries: *.crt of authorities, *.cert and *.key of a
    /// client
    #[arg(long, value_name = "DIR", help_heading = "Registries")]
    cert_dir: Option<Utf8PathBuf>,

    /// Whether registries must use HTTPS with a valid certificate
    #[arg(long, value_name = "BOOL", action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", help_heading = "Registries")]
    tls_verify: Option<bool>,

    /// How often to try again, with growing pauses, when a connection breaks or a registry has too
    /// much to do
    #[arg(
        long,
        value_name = "N",
        default_value = "3",
        help_heading = "Registries"
    )]
    retry_times: u32,

    #[arg(skip)]
    from_stdin: OnceLock<String>,
}

impl AccessArgs {
    /// What registries ask for. `hosts` are those that the command talks to, the first in first
    /// place: credentials from standard input are for that one.
    pub fn access<'a>(&self, hosts: impl IntoIterator<Item = Option<&'a str>>) -> Result<Access> {
        let host = hosts.into_iter().flatten().next();
        let credentials = match (self.creds_stdin, host) {
            (false, _) => None,
            (true, Some(host)) => Some(Credentials::parse(self.stdin()?, host)?),
            (true, None) => {
                return Err(usage(
                    "--creds-stdin: no image of this command is in a registry (docker://NAME)"
                        .into(),
                ));
            }
        };
        Ok(Access {
            authfile: self.authfile.clone(),
            credentials,
            cert_dir: self.cert_dir.clone(),
            tls_verify: self.tls_verify,
            retry_times: self.retry_times,
            ..Access::default()
        })
    }

    /// Refuses that `option` reads standard input too, when it does.
    pub fn refuse_stdin(&self, option: &str, file: Option<&Utf8PathBuf>) -> Result<()> {
        match self.creds_stdin && file.is_some_and(|file| file == "-") {
            true => Err(usage(format!(
                "{option} - and --creds-stdin cannot both read standard input"
            ))),
            false => Ok(()),
        }
    }

    /// Standard input, which can be read once.
    fn stdin(&self) -> Result<&str> {
        if let Some(read) = self.from_stdin.get() {
            return Ok(read);
        }
        let mut text = String::new();
        let stdin = std::io::stdin().lock();
        let read = stdin.take(LONGEST_CREDENTIALS).read_to_string(&mut text);
        read.context("reading the credentials from standard input")?;
        Ok(self.from_stdin.get_or_init(|| text))
    }
}

/// How images are signed that go to a registry.
#[derive(Debug, Args)]
pub struct SigningArgs {
    /// Have skopeo sign the image in the registry with a sigstore private key in a file
    #[arg(long, value_name = "FILE", help_heading = "Registries")]
    sign_by_sigstore_private_key: Option<Utf8PathBuf>,

    /// File with the passphrase of that key
    #[arg(
        long,
        value_name = "FILE",
        requires = "sign_by_sigstore_private_key",
        help_heading = "Registries"
    )]
    sign_passphrase_file: Option<Utf8PathBuf>,
}

impl SigningArgs {
    /// Adds what signs an image at `destination`.
    pub fn add_to(&self, access: Access, destination: &Destination) -> Result<Access> {
        let Some(key) = self.sign_by_sigstore_private_key.clone() else {
            return Ok(access);
        };
        if destination.host().is_none() {
            return Err(usage(
                "--sign-by-sigstore-private-key signs images in registries (docker://NAME); this one goes elsewhere"
                    .into(),
            ));
        }
        for file in [Some(&key), self.sign_passphrase_file.as_ref()]
            .into_iter()
            .flatten()
        {
            std::fs::File::open(file).with_context(|| format!("opening {file}"))?;
        }
        Ok(Access {
            signing: Some(Signing {
                key,
                passphrase_file: self.sign_passphrase_file.clone(),
            }),
            ..access
        })
    }
}

/// How a command reaches registries that writes an image.
#[derive(Debug, Args)]
pub struct OutputAccessArgs {
    #[command(flatten)]
    pub reading: AccessArgs,

    #[command(flatten)]
    signing: SigningArgs,
}

impl OutputAccessArgs {
    /// What registries ask for, of a command that writes to `destination` and talks to the `others`
    /// too.
    pub fn access<'a>(
        &self,
        destination: &'a Destination,
        others: impl IntoIterator<Item = Option<&'a str>>,
    ) -> Result<Access> {
        let hosts = std::iter::once(destination.host()).chain(others);
        self.signing
            .add_to(self.reading.access(hosts)?, destination)
    }
}

/// Which image of an index is read.
#[derive(Debug, Args)]
pub struct ArchitectureArgs {
    /// Of images for several architectures, the one to read, by its Debian or OCI name [default:
    /// this machine's]
    #[arg(long, value_name = "ARCH", value_parser = architecture)]
    pub arch: Option<String>,
}

fn architecture(text: &str) -> Result<String> {
    crate::oci::Platform::from_name(text)?;
    Ok(text.to_owned())
}
