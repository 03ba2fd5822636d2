//! How registries are reached: credentials, certificates, retries. A secret is handed to a program
//! as a file in memory that only that program has open: it is never an argument, and never on a
//! disk.

use std::fmt;
use std::fs::File;
use std::io::{Seek, Write};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use camino::Utf8PathBuf;
use rustix::fs::{MemfdFlags, Mode, fchmod, memfd_create};
use serde_json::json;

use super::{RegistryName, Signing};
use crate::oci::Platform;

/// The pause before the first new attempt; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// How long a registry may take to tell what an image is: longer than skopeo itself waits and tries
/// again where it has too much to do. In seconds.
const ANSWER: u32 = 300;

/// What images are opened and written with.
#[derive(Debug, Clone)]
pub struct Access {
    /// File with credentials (containers-auth.json(5)); none: where podman and skopeo look for one.
    pub authfile: Option<Utf8PathBuf>,
    /// Credentials for one registry.
    pub credentials: Option<Credentials>,
    /// Directory with certificates (containers-certs.d(5)).
    pub cert_dir: Option<Utf8PathBuf>,
    /// Whether certificates are checked; none: as the configuration of containers says.
    pub tls_verify: Option<bool>,
    /// How often is tried again what may well succeed then.
    pub retry_times: u32,
    /// How many seconds a registry may take to tell what an image is.
    pub answer_within: u32,
    /// How images are signed that are sent to a registry.
    pub signing: Option<Signing>,
    /// Which image of an index is meant, by a Debian or OCI name; none: the one for this machine.
    pub architecture: Option<String>,
    /// Whether an image that is in no index is taken whatever it is for.
    pub takes_any_alone: bool,
}

impl Default for Access {
    fn default() -> Self {
        Self {
            authfile: None,
            credentials: None,
            cert_dir: None,
            tls_verify: None,
            retry_times: 0,
            answer_within: ANSWER,
            signing: None,
            architecture: None,
            takes_any_alone: false,
        }
    }
}

impl Access {
    /// The same for the image of an index that is for `architecture`.
    pub fn for_architecture(&self, architecture: Option<&str>) -> Self {
        Self {
            architecture: architecture.map(str::to_owned),
            takes_any_alone: false,
            ..self.clone()
        }
    }

    /// The same for the image of an index that is for `platform`.
    pub fn for_platform(&self, platform: Option<&Platform>) -> Self {
        self.for_architecture(platform.map(Platform::name))
    }

    /// The same for what an image for `platform` is made of: of an index the one for that; an image
    /// alone as it is.
    pub fn for_source_of(&self, platform: Option<&Platform>) -> Self {
        Self {
            takes_any_alone: true,
            ..self.for_platform(platform)
        }
    }

    /// How long a registry may take to tell what an image is.
    pub(super) fn answer_within(&self) -> Duration {
        Duration::from_secs(self.answer_within.into())
    }

    /// The pause before attempt `attempt`, which is 1 for the second one.
    pub(super) fn pause(attempt: u32) -> Duration {
        let factor = 2_u32.saturating_pow(attempt.saturating_sub(1));
        FIRST_PAUSE.saturating_mul(factor).min(LONGEST_PAUSE)
    }

    /// The credentials for that registry, as the content of an authfile.
    ///
    /// # Errors
    /// When there is no memory for the file.
    pub(super) fn secret_for(&self, name: &RegistryName) -> Result<Option<File>> {
        match &self.credentials {
            Some(credentials) if credentials.host == name.host() => {
                credentials.authfile().map(Some)
            }
            _ => Ok(None),
        }
    }
}

/// A user's name and password for one registry.
#[derive(Clone)]
pub struct Credentials {
    host: String,
    /// `USER:PASSWORD`.
    secret: String,
}

impl Credentials {
    /// Reads `USER:PASSWORD`, for the registry `host`; one newline at its end is not part of it.
    ///
    /// # Errors
    /// When it is something else. The error does not tell it.
    pub fn parse(text: &str, host: &str) -> Result<Self> {
        let line = text.strip_suffix('\n').unwrap_or(text);
        let line = line.strip_suffix('\r').unwrap_or(line);
        let is_pair = line
            .split_once(':')
            .is_some_and(|(user, _)| !user.is_empty());
        ensure!(
            is_pair && !line.contains('\n'),
            "the credentials are not of the form USER:PASSWORD on one line"
        );
        Ok(Self {
            host: host.to_owned(),
            secret: line.to_owned(),
        })
    }

    /// An authfile (containers-auth.json(5)) in memory, at its beginning.
    fn authfile(&self) -> Result<File> {
        let make = || -> Result<File> {
            let file = memfd_create("authfile", MemfdFlags::CLOEXEC)?;
            fchmod(&file, Mode::RUSR | Mode::WUSR)?;
            let mut file = File::from(file);
            let entry = json!({"auth": BASE64.encode(&self.secret)});
            let mut auths = json!({"auths": {}});
            auths["auths"][&self.host] = entry;
            file.write_all(auths.to_string().as_bytes())?;
            file.rewind()?;
            Ok(file)
        };
        make().context("making a file in memory for the credentials")
    }
}

/// Never tells the secret.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials for {}", self.host)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::Read;

    use super::*;

    #[test]
    fn credentials_are_for_one_registry_and_not_told() {
        let access = Access {
            credentials: Some(Credentials::parse("me:pa:ss\n", "a.example").unwrap()),
            ..Access::default()
        };
        let name = |text| RegistryName::parse(text).unwrap();
        assert!(access.secret_for(&name("b.example/x")).unwrap().is_none());
        let mut file = access.secret_for(&name("a.example/x")).unwrap().unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, r#"{"auths":{"a.example":{"auth":"bWU6cGE6c3M="}}}"#);
        assert!(!format!("{access:?}").contains("pa:ss"));
        for wrong in ["", "me", ":secret", "me:secret\nmore"] {
            let error = Credentials::parse(wrong, "a.example").unwrap_err();
            assert!(!format!("{error:?}").contains("secret"), "{error:?}");
        }
    }

    #[test]
    fn pauses_grow_up_to_a_limit() {
        let pauses: Vec<u64> = (1..9).map(|n| Access::pause(n).as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(Access::pause(u32::MAX).as_secs(), 60);
    }
}
