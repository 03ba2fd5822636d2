//! Destinations as containers-transports(5) writes them.

use std::str::FromStr;

use anyhow::{Error, Result, anyhow, bail, ensure};
use camino::Utf8PathBuf;

use super::RegistryName;
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
    /// `docker://NAME` or `registry:NAME`, an image in a registry.
    Registry(RegistryName),
}

impl Destination {
    /// The image's name in the layout or archive, or its tag in the registry; none where the
    /// destination itself is a name.
    pub fn tag_mut(&mut self) -> Option<&mut Option<String>> {
        match self {
            Self::Layout { tag, .. } | Self::Archive { tag, .. } | Self::Stdout { tag } => {
                Some(tag)
            }
            Self::Registry(name) => Some(&mut name.tag),
            Self::Storage { .. } => None,
        }
    }

    /// The registry that it is in, if it is in one.
    pub fn host(&self) -> Option<&str> {
        match self {
            Self::Registry(name) => Some(name.host()),
            _ => None,
        }
    }
}

/// Transports that other tools have, with what to do instead.
const ELSEWHERE: [(&str, &str); 3] = [
    ("docker-archive", "skopeo copy oci:PATH docker-archive:FILE"),
    ("docker-daemon", "skopeo copy oci:PATH docker-daemon:NAME"),
    ("dir", "skopeo copy oci:PATH dir:DIRECTORY"),
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
            Some(("docker" | "registry", rest)) => {
                let name = registry_name(text, rest)?;
                ensure!(
                    name.digest().is_none(),
                    "{text}: a digest names one image for ever, so nothing else can be written there; name a tag, as in docker://HOST/NAME:TAG"
                );
                Ok(Self::Registry(name))
            }
            Some((other, _)) => match ELSEWHERE.iter().find(|(name, _)| *name == other) {
                Some((_, instead)) => bail!(
                    "{text}: writing to '{other}:' is not supported; write an oci: layout and then run '{instead}'"
                ),
                None => bail!(
                    "{text}: unknown transport '{other}:'; use oci:PATH[:TAG], docker://HOST/NAME[:TAG], containers-storage:NAME or oci-archive:PATH[:TAG] (for a path with a colon in it, too)"
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
    let (domain, rest) = match path.split_once('/') {
        Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => (first, rest),
        _ => ("localhost", path),
    };
    let whole = format!("{domain}/{rest}:{tag}");
    let fits = domain_fits(domain) && rest.split('/').all(part_fits) && tag_fits(tag);
    // An id of an image is not a name, and a longer name is refused (distribution/reference,
    // NameTotalLengthMax).
    let is_id = rest.len() == 64 && rest.bytes().all(|b| b.is_ascii_hexdigit());
    if !fits || is_id || domain.len() + rest.len() >= 255 {
        bail!(
            "'{name}' cannot name an image in the storage: write NAME[:TAG] or DOMAIN/NAME[:TAG], the name in lower case, of letters, digits and single '.', '_' and '-' between them"
        );
    }
    Ok(whole)
}

/// A part of a name (distribution/reference, "path-component"): letters and digits, with one of
/// `.`, `_`, `__` or some `-` between them.
fn part_fits(part: &str) -> bool {
    let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let between = part.trim_matches(is_word);
    let separators = between.split(is_word).filter(|s| !s.is_empty());
    let fits = |s: &str| matches!(s, "." | "_" | "__") || s.bytes().all(|b| b == b'-');
    part.starts_with(is_word) && part.ends_with(is_word) && separators.into_iter().all(fits)
}

/// A host, with its port ("domain").
fn domain_fits(domain: &str) -> bool {
    let (host, port) = domain.split_once(':').unwrap_or((domain, "1"));
    let part_fits = |part: &str| {
        let is_word = |c: char| c.is_ascii_alphanumeric();
        part.starts_with(is_word)
            && part.ends_with(is_word)
            && part.chars().all(|c| is_word(c) || c == '-')
    };
    host.split('.').all(part_fits)
        && !port.is_empty()
        && port.bytes().all(|byte| byte.is_ascii_digit())
}

/// A tag ("tag").
fn tag_fits(tag: &str) -> bool {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    tag.starts_with(is_word)
        && tag.len() <= 128
        && tag.chars().all(|c| is_word(c) || c == '.' || c == '-')
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

/// What follows `docker:` or `registry:`.
pub(super) fn registry_name(text: &str, rest: &str) -> Result<RegistryName> {
    ensure!(
        rest.starts_with("//") || !text.starts_with("docker:"),
        "{text}: write docker://{rest}"
    );
    let name = rest.trim_start_matches("//");
    ensure!(!name.is_empty(), "{text}: the image's name is missing");
    RegistryName::parse(name)
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
            (
                "registry:quay.io/a/b:1",
                Destination::Registry(RegistryName::parse("quay.io/a/b:1").unwrap()),
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
            ("dir:a", "skopeo copy oci:PATH dir:"),
            ("docker:quay.io/a", "write docker://quay.io/a"),
            ("docker://quay.io/A", "cannot name an image in a registry"),
            (
                "docker://quay.io/a@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
                "names one image for ever",
            ),
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
        for right in ["a__b", "a--b.c_d", "host:5000/a", "a:_x", "0/1"] {
            assert!(storage_name(right).is_ok(), "{right}");
        }
        for wrong in ["", "A", "a b", "a:", "a/", "a@sha256:0", "a:b c"] {
            assert!(storage_name(wrong).is_err(), "{wrong}");
        }
    }

    /// What the storage refuses was once refused after all the work.
    #[test]
    fn names_that_the_storage_refuses_are_refused_first() {
        let (id, long) = ("0".repeat(64), "a".repeat(256));
        let tag = format!("a:{}", "t".repeat(129));
        for wrong in [
            "a..b", "a___b", ".a", "a-", "-a", "a._b", "a/-b", "a//b", "a:.b", "a:-b", "h.x:y/a",
            "-h.x/a", &id, &long, &tag,
        ] {
            assert!(storage_name(wrong).is_err(), "{wrong}");
        }
    }
}
