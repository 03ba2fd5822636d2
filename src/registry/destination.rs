//! Destinations as containers-transports(5) writes them.

use std::str::FromStr;

use anyhow::{Error, Result, anyhow, bail, ensure};
use camino::Utf8PathBuf;

use crate::oci::check_tag;

/// Where an image is written to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// `oci:PATH[:TAG]`, an image layout.
    Layout {
        /// The layout's directory.
        path: Utf8PathBuf,
        /// The image's name in the layout.
        tag: Option<String>,
    },
    /// `oci-archive:PATH[:TAG]`, or a path alone: a layout in a tar file.
    Archive {
        /// The archive.
        path: Utf8PathBuf,
        /// The image's name in the archive.
        tag: Option<String>,
    },
    /// `-`: an archive on standard output.
    Stdout {
        /// The image's name in the archive.
        tag: Option<String>,
    },
    /// `containers-storage:NAME`, the storage of podman and buildah.
    Storage {
        /// The image's whole name, as podman completes it.
        name: String,
    },
}

impl Destination {
    /// The image's name in the layout or archive; none where the destination itself is a name.
    pub fn tag_mut(&mut self) -> Option<&mut Option<String>> {
        match self {
            Self::Layout { tag, .. } | Self::Archive { tag, .. } | Self::Stdout { tag } => {
                Some(tag)
            }
            Self::Storage { .. } => None,
        }
    }
}

/// Transports that other tools have, with what to do instead.
const ELSEWHERE: [(&str, &str); 6] = [
    (
        "docker",
        "skopeo copy --preserve-digests oci:PATH docker://NAME",
    ),
    (
        "registry",
        "skopeo copy --preserve-digests oci:PATH docker://NAME",
    ),
    ("docker-archive", "skopeo copy oci:PATH docker-archive:FILE"),
    ("docker-daemon", "skopeo copy oci:PATH docker-daemon:NAME"),
    ("dir", "skopeo copy oci:PATH dir:DIRECTORY"),
    (
        "ostree-unverified-image",
        "skopeo copy oci:PATH docker://NAME",
    ),
];

impl FromStr for Destination {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if text == "-" {
            return Ok(Self::Stdout { tag: None });
        }
        ensure!(
            !text.is_empty(),
            "the output is empty: use oci:PATH[:TAG], oci-archive:PATH[:TAG], a path, or -"
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
            Some(("containers-storage", name)) => {
                let name = storage_name(name).map_err(|e| anyhow!("{text}: {e}"))?;
                Ok(Self::Storage { name })
            }
            Some((other, _)) => match ELSEWHERE.iter().find(|(name, _)| *name == other) {
                Some((_, instead)) => bail!(
                    "{text}: writing to '{other}:' is not supported; write an oci: layout and then run '{instead}'"
                ),
                None => bail!(
                    "{text}: unknown transport '{other}:'; use oci:PATH[:TAG], containers-storage:NAME or oci-archive:PATH[:TAG] (for a path with a colon in it, too)"
                ),
            },
            None => Ok(Self::Archive {
                path: text.into(),
                tag: None,
            }),
        }
    }
}

/// The name under which podman and buildah keep what `-t NAME` names: on `localhost`, and `latest`,
/// where nothing else is said.
///
/// # Errors
/// When it cannot name an image.
pub fn storage_name(name: &str) -> Result<String> {
    let name = name.strip_prefix("//").unwrap_or(name);
    let (path, tag) = match name.rsplit_once(':') {
        // What follows the last colon may be a port and a path.
        Some((path, tag)) if !tag.contains('/') => (path, tag),
        _ => (name, "latest"),
    };
    let part_fits = |part: &str| {
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-".contains(c);
        !part.is_empty() && part.chars().all(fits)
    };
    let (domain, rest) = match path.split_once('/') {
        Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => (first, rest),
        _ => ("localhost", path),
    };
    let tag_fits = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let fits = rest.split('/').all(part_fits) && !tag.is_empty() && tag.chars().all(tag_fits);
    if !fits || name.contains('@') {
        bail!(
            "'{name}' cannot name an image in the storage: write NAME[:TAG] or DOMAIN/NAME[:TAG], the name in lower case"
        );
    }
    Ok(format!("{domain}/{rest}:{tag}"))
}

/// The transport that `text` begins with, and what follows it.
pub(super) fn split_transport(text: &str) -> Option<(&str, &str)> {
    let is_transport = |word: &str| {
        let mut bytes = word.bytes();
        bytes.next().is_some_and(|b| b.is_ascii_lowercase())
            && bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    text.split_once(':').filter(|(word, _)| is_transport(word))
}

/// Splits at the first colon, as containers/image does.
pub(super) fn path_and_tag(text: &str, rest: &str) -> Result<(Utf8PathBuf, Option<String>)> {
    let (path, tag) = match rest.split_once(':') {
        Some((path, tag)) => (path, Some(tag)),
        None => (rest, None),
    };
    ensure!(!path.is_empty(), "{text}: the path is missing");
    if let Some(tag) = tag {
        check_tag(tag)?;
    }
    Ok((path.into(), tag.map(str::to_owned)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn reads_what_users_write() {
        let layout = |path: &str, tag: Option<&str>| Destination::Layout {
            path: path.into(),
            tag: tag.map(str::to_owned),
        };
        let archive = |path: &str, tag: Option<&str>| Destination::Archive {
            path: path.into(),
            tag: tag.map(str::to_owned),
        };
        for (text, expected) in [
            ("-", Destination::Stdout { tag: None }),
            ("oci:/a/b", layout("/a/b", None)),
            ("oci:b:latest", layout("b", Some("latest"))),
            (
                "oci:b:quay.io/x/y:1.0",
                layout("b", Some("quay.io/x/y:1.0")),
            ),
            ("oci-archive:b.tar", archive("b.tar", None)),
            ("b.tar", archive("b.tar", None)),
            ("./odd:name", archive("./odd:name", None)),
            (
                "containers-storage:my-os",
                Destination::Storage {
                    name: "localhost/my-os:latest".into(),
                },
            ),
        ] {
            assert_eq!(text.parse::<Destination>().unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn refuses_the_rest_and_says_what_to_do() {
        for (text, why) in [
            ("", "output is empty"),
            ("oci:", "path is missing"),
            ("oci:a:", "cannot name an image"),
            ("oci:a:b c", "cannot name an image"),
            ("containers-storage:", "cannot name an image in the storage"),
            ("docker://quay.io/a/b", "skopeo copy --preserve-digests"),
            ("foo:bar", "unknown transport 'foo:'"),
        ] {
            let error = text.parse::<Destination>().unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn names_are_completed_as_podman_does() {
        for (given, whole) in [
            ("my-os", "localhost/my-os:latest"),
            ("my-os:1", "localhost/my-os:1"),
            ("//my/os:V1.0", "localhost/my/os:V1.0"),
            ("localhost/a", "localhost/a:latest"),
            ("quay.io/a/b", "quay.io/a/b:latest"),
            ("registry:5000/a", "registry:5000/a:latest"),
        ] {
            assert_eq!(storage_name(given).unwrap(), whole);
        }
        for wrong in ["", "A", "a b", "a:", "a/", "a@sha256:0", "a:b c"] {
            assert!(storage_name(wrong).is_err(), "{wrong}");
        }
    }
}
