//! Chooses between podman and buildah, by what is installed and what the user asked for.

use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Error, Result, bail};
use camino::Utf8Path;

use super::backend::Backend;
use super::description::Kind;
use crate::remedy::{Advised, Remedy};
use crate::tree::is_mount_point;

/// The time that a call may take which does not fetch or build anything.
pub const USUAL_LIMIT: Duration = Duration::from_secs(300);

/// Which backend is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Choice {
    /// Whichever is there.
    #[default]
    Auto,
    /// This one.
    Only(Kind),
}

impl FromStr for Choice {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "auto" | "" => Ok(Self::Auto),
            "podman" => Ok(Self::Only(Kind::Podman)),
            "buildah" => Ok(Self::Only(Kind::Buildah)),
            _ => bail!("'{text}' is not a backend: use podman, buildah or auto"),
        }
    }
}

/// The backends that can be used, and how.
#[derive(Debug, Clone)]
pub struct Backends {
    kinds: Vec<Kind>,
    limit: Duration,
}

impl Backends {
    /// Finds what is there.
    ///
    /// # Errors
    /// When the one that is wanted is not there, or none is.
    pub fn detect(choice: Choice, limit: Duration) -> Result<Self> {
        let kinds = match choice {
            Choice::Only(kind) if kind.is_installed() => vec![kind],
            Choice::Only(kind) => bail!(Advised::new(
                Remedy::ChooseBackend,
                format!(
                    "{kind} is not on the PATH: install the package {kind} (apt-get install {kind})"
                )
            )),
            Choice::Auto => {
                let mut kinds = Kind::ALL.to_vec();
                // A podman in a container would migrate the database of the host's, which then
                // no longer knows its containers; buildah has none.
                if shares_storage() {
                    kinds.retain(|kind| *kind == Kind::Buildah);
                }
                kinds.retain(|kind| kind.is_installed());
                kinds
            }
        };
        if kinds.is_empty() {
            if shares_storage() && Kind::Podman.is_installed() {
                bail!(Advised::new(
                    Remedy::InsistOnPodman,
                    "podman is not used on storage that is mounted into a container: it can make a podman outside lose its containers; install the package buildah (apt-get install buildah)"
                ));
            }
            bail!(Advised::new(
                Remedy::ReadDirectory,
                "neither podman nor buildah is on the PATH, and one of them is needed for images and containers: install the package podman or buildah (apt-get install podman)"
            ));
        }
        Ok(Self { kinds, limit })
    }

    /// The preferred one.
    pub fn first(&self) -> Backend {
        self.like(self.kinds.first().copied().unwrap_or(Kind::Podman))
    }

    /// One of that kind, whether it is there or not.
    pub fn like(&self, kind: Kind) -> Backend {
        Backend::new(kind, self.limit)
    }

    /// All, the preferred first.
    pub fn all(&self) -> impl Iterator<Item = Backend> + '_ {
        self.kinds.iter().map(|kind| self.like(*kind))
    }
}

/// Whether this is a container (podman, buildah and docker leave a file that says so) to which a
/// storage of images is bound that may be another podman's.
fn shares_storage() -> bool {
    const MARKS: [&str; 2] = ["/run/.containerenv", "/.dockerenv"];
    const STORAGE: [&str; 2] = ["/var/lib/containers", "/var/lib/containers/storage"];
    MARKS.iter().any(|file| Path::new(file).exists())
        && STORAGE
            .iter()
            .any(|path| is_mount_point(Utf8Path::new(path)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn backends_are_named() {
        assert_eq!(
            "podman".parse::<Choice>().unwrap(),
            Choice::Only(Kind::Podman)
        );
        assert_eq!("auto".parse::<Choice>().unwrap(), Choice::Auto);
        assert!("docker".parse::<Choice>().is_err());
    }
}
