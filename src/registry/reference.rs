//! Images to read, as containers-transports(5), rpm-ostree and ostree-ext write them.

use std::fmt;
use std::str::FromStr;

use anyhow::{Error, Result, bail, ensure};
use camino::Utf8PathBuf;

use super::destination::{path_and_tag, registry_name, split_transport};
use super::{Destination, RegistryName};

/// Where an image is read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reference {
    /// `oci:PATH[:TAG]`, an image layout.
    Layout {
        /// The layout's directory.
        path: Utf8PathBuf,
        /// The image's name in the layout.
        tag: Option<String>,
    },
    /// `oci-archive:PATH[:TAG]`, a layout in a tar file.
    Archive {
        /// The archive.
        path: Utf8PathBuf,
        /// The image's name in the archive.
        tag: Option<String>,
    },
    /// `docker://NAME` or `registry:NAME`, an image in a registry.
    Registry(RegistryName),
    /// A name for skopeo, transport included: what is in no registry.
    Skopeo(String),
}

/// Transports of skopeo's that images can be read from.
const OF_SKOPEO: [&str; 4] = [
    "containers-storage",
    "docker-archive",
    "docker-daemon",
    "dir",
];

/// What ostree-ext writes before a reference when signatures do not matter.
const UNVERIFIED: [&str; 2] = ["ostree-unverified-image", "ostree-unverified-registry"];

impl Reference {
    /// What is at a destination; none for standard output.
    pub fn of_destination(destination: &Destination) -> Option<Self> {
        match destination.clone() {
            Destination::Layout { path, tag } => Some(Self::Layout { path, tag }),
            Destination::Archive { path, tag } => Some(Self::Archive { path, tag }),
            Destination::Storage { name } => {
                Some(Self::Skopeo(format!("containers-storage:{name}")))
            }
            Destination::Registry(name) => Some(Self::Registry(name)),
            Destination::Stdout { .. } => None,
        }
    }

    /// The registry that has it, if one does.
    pub fn host(&self) -> Option<&str> {
        match self {
            Self::Registry(name) => Some(name.host()),
            _ => None,
        }
    }
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        ensure!(
            !text.is_empty(),
            "the image is empty: use oci:PATH[:TAG], oci-archive:PATH[:TAG], docker://NAME or another transport"
        );
        match split_transport(text) {
            Some(("oci", rest)) => {
                let (path, tag) = path_and_tag(text, rest)?;
                Ok(Self::Layout { path, tag })
            }
            Some(("oci-archive", rest)) => {
                let (path, tag) = path_and_tag(text, rest)?;
                Ok(Self::Archive { path, tag })
            }
            Some(("registry" | "ostree-unverified-registry" | "docker", rest)) => {
                registry_name(text, rest).map(Self::Registry)
            }
            Some((word, rest)) if UNVERIFIED.contains(&word) => rest.parse(),
            Some((word, rest)) if OF_SKOPEO.contains(&word) => {
                ensure!(
                    !rest.trim_start_matches("//").is_empty(),
                    "{text}: the image's name is missing"
                );
                Ok(Self::Skopeo(text.to_owned()))
            }
            Some((word, rest)) if word.starts_with("ostree-") => bail!(
                "{text}: '{word}:' leaves checking signatures to the configuration of a remote; name the image as {}, and give the key itself",
                rest.split_once(':').map_or(rest, |(_, image)| image)
            ),
            Some((other, _)) => bail!(
                "{text}: unknown transport '{other}:'; use oci:PATH[:TAG], oci-archive:PATH[:TAG], docker://NAME, {}:",
                OF_SKOPEO.join(":, ")
            ),
            None if std::path::Path::new(text).is_dir() => Ok(Self::Layout {
                path: text.into(),
                tag: None,
            }),
            None => Ok(Self::Archive {
                path: text.into(),
                tag: None,
            }),
        }
    }
}

/// Whether `text` begins with a transport that images are read from; else it may name an image in a
/// storage.
pub fn has_transport(text: &str) -> bool {
    const OTHERS: [&str; 5] = [
        "docker",
        "oci",
        "oci-archive",
        "registry",
        "ostree-unverified-registry",
    ];
    split_transport(text).is_some_and(|(word, rest)| {
        let known = OF_SKOPEO.iter().chain(&UNVERIFIED).chain(&OTHERS);
        // `docker` may be an image of that name, with a tag.
        known.into_iter().any(|name| *name == word) && (word != "docker" || rest.starts_with("//"))
    })
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (transport, path, tag) = match self {
            Self::Layout { path, tag } => ("oci", path, tag),
            Self::Archive { path, tag } => ("oci-archive", path, tag),
            Self::Registry(name) => return write!(f, "{name}"),
            Self::Skopeo(name) => return f.write_str(name),
        };
        write!(f, "{transport}:{path}")?;
        match tag {
            Some(tag) => write!(f, ":{tag}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn reads_what_users_write() {
        for (text, same) in [
            ("oci:/a/b:latest", "oci:/a/b:latest"),
            ("oci-archive:a.tar", "oci-archive:a.tar"),
            ("a.tar", "oci-archive:a.tar"),
            ("/", "oci:/"),
            ("docker://quay.io/a/b:1", "docker://quay.io/a/b:1"),
            ("registry:quay.io/a/b", "docker://quay.io/a/b"),
            (
                "containers-storage:localhost/a",
                "containers-storage:localhost/a",
            ),
            ("ostree-unverified-image:oci:a:b", "oci:a:b"),
            ("ostree-unverified-registry:quay.io/a", "docker://quay.io/a"),
            (
                "ostree-unverified-image:docker://quay.io/a",
                "docker://quay.io/a",
            ),
        ] {
            let reference = text.parse::<Reference>().unwrap();
            assert_eq!(reference.to_string(), same, "{text}");
        }
    }

    #[test]
    fn refuses_the_rest_and_says_what_to_do() {
        for (text, why) in [
            ("", "image is empty"),
            ("oci:", "path is missing"),
            ("docker:quay.io/a", "write docker://quay.io/a"),
            ("docker://", "name is missing"),
            ("docker://a/B", "cannot name an image in a registry"),
            ("foo:bar", "unknown transport 'foo:'"),
            ("ostree-remote-image:r:oci:a", "give the key itself"),
        ] {
            let error = text.parse::<Reference>().unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
