//! Signs images in registries with a sigstore key, through skopeo: the options it needs, and what
//! its messages mean.

use anyhow::{Error, Result};
use camino::Utf8PathBuf;

use super::RegistryName;
use super::skopeo::absolute;
use crate::remedy::{Advised, Remedy};

/// Keys by which skopeo signs (sigstore), in files.
#[derive(Debug, Clone)]
pub struct Signing {
    /// The private key.
    pub key: Utf8PathBuf,
    /// The passphrase of the key.
    pub passphrase_file: Option<Utf8PathBuf>,
}

impl Signing {
    /// The options by which skopeo signs an image that is to have the name `name`, wherever it
    /// sends it.
    pub(super) fn options(&self, name: &RegistryName) -> Result<Vec<String>> {
        let mut options = vec![
            "--sign-by-sigstore-private-key".to_owned(),
            absolute(&self.key)?,
            "--sign-identity".to_owned(),
            name.identity(),
        ];
        if let Some(file) = &self.passphrase_file {
            options.extend(["--sign-passphrase-file".to_owned(), absolute(file)?]);
        }
        Ok(options)
    }

    /// What skopeo failed with when it signed for the registry of `name`, with what that means and
    /// what helps where it is known.
    pub(super) fn explain(&self, error: Error, name: &RegistryName) -> Error {
        let said = format!("{error:#}");
        match self.meaning(&said, name) {
            _ if said.contains("Cannot prompt for a passphrase") => error.context(Advised::new(
                Remedy::GivePassphrase,
                format!("signing: the key {} has a passphrase", self.key),
            )),
            Some(meaning) => error.context(format!("signing: {meaning}")),
            None => error,
        }
    }

    /// What it means that skopeo `said` this; none, when that is about something else.
    fn meaning(&self, said: &str, name: &RegistryName) -> Option<String> {
        let key = &self.key;
        let host = name.host();
        let told_by = |words: &[&str]| words.iter().any(|word| said.contains(word));
        let meaning = if told_by(&["sigstore disabled", "unknown flag: --sign-by-sigstore"]) {
            "this skopeo cannot sign with sigstore keys, as that of Debian 12; the one of Debian 13 (1.18) can, and \
             cosign can sign the digest of an image that is pushed without a signature"
                .to_owned()
        } else if told_by(&[
            "sigstore attachments is disabled",
            "sigstore attachments are disabled",
        ]) {
            format!(
                "signatures for {host} are not configured; write 'docker: {{\"{host}\": {{use-sigstore-attachments: \
                 true}}}}' to a file in /etc/containers/registries.d (containers-registries.d(5))"
            )
        } else if told_by(&["decryption failed"]) {
            match &self.passphrase_file {
                Some(file) => format!("the passphrase in {file} is not that of the key {key}"),
                None => format!("the key {key} needs a passphrase"),
            }
        } else if told_by(&[
            "initializing private key",
            "invalid pem block",
            "unsupported pem type",
        ]) {
            format!(
                "{key} is no sigstore private key; 'skopeo generate-sigstore-key' (Debian 13) and 'cosign \
                 generate-key-pair' make them"
            )
        } else {
            return None;
        };
        Some(meaning)
    }
}
