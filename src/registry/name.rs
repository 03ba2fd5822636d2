//! Names of images in registries, as docker:// and registry: write them (containers-transports(5);
//! the distribution specification, "Pulling manifests").

use std::fmt;

use anyhow::{Result, bail, ensure};

use crate::checksum::Checksum;

/// The registry of names that name none.
const DOCKER_HUB: &str = "docker.io";

/// `HOST/REPOSITORY[:TAG][@DIGEST]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistryName {
    /// The name as it was given, without tag and digest.
    given: String,
    host: String,
    repository: String,
    /// The tag; none stands for `latest` where there is no digest either.
    pub tag: Option<String>,
    /// The digest of a manifest, which then is what is meant, whatever the tag.
    digest: Option<Checksum>,
}

impl RegistryName {
    /// Reads a name without its transport.
    ///
    /// # Errors
    /// When it cannot name an image.
    pub fn parse(text: &str) -> Result<Self> {
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(Checksum::from_digest(digest)?)),
            None => (text, None),
        };
        let (given, tag) = match rest.rsplit_once(':') {
            // What follows the last colon may be a port and a path.
            Some((given, tag)) if !tag.contains('/') => (given, Some(tag)),
            _ => (rest, None),
        };
        let is_host = |word: &str| word.contains(['.', ':']) || word == "localhost";
        let (host, repository) = match given.split_once('/') {
            Some((host, path)) if is_host(host) => (host, path.to_owned()),
            Some(_) => (DOCKER_HUB, given.to_owned()),
            None => (DOCKER_HUB, format!("library/{given}")),
        };
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-".contains(c);
        let is_part = |part: &str| {
            let ends = [part.chars().next(), part.chars().next_back()];
            ends.iter()
                .all(|end| end.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit()))
                && part.chars().all(fits)
        };
        let is_host = |c: char| c.is_ascii_alphanumeric() || ".:-[]_".contains(c);
        if !repository.split('/').all(is_part) || !host.chars().all(is_host) {
            bail!(
                "'{}' cannot name an image in a registry: write HOST/NAME[:TAG], the name in lower case",
                text.escape_debug()
            );
        }
        let name = Self {
            given: given.to_owned(),
            host: host.to_owned(),
            repository,
            tag: tag.map(str::to_owned),
            digest,
        };
        name.check_tag()?;
        Ok(name)
    }

    /// Refuses a tag that no registry takes.
    ///
    /// # Errors
    /// Then.
    pub fn check_tag(&self) -> Result<()> {
        let Some(tag) = &self.tag else { return Ok(()) };
        let begins = tag.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
        let fits = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        ensure!(
            begins && tag.len() <= 128 && tag.chars().all(fits),
            "'{}' cannot be a tag in a registry: use up to 128 letters, digits, '_', '.' and '-', and neither '.' nor '-' first",
            tag.escape_debug()
        );
        Ok(())
    }

    /// The registry: a host, and its port where there is one.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The path of the image in its registry, without its tag.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// Whether both are in the same repository of the same registry.
    pub fn is_in_repository_of(&self, other: &Self) -> bool {
        (&self.host, &self.repository) == (&other.host, &other.repository)
    }

    /// The digest that is asked for, if one is.
    pub fn digest(&self) -> Option<Checksum> {
        self.digest
    }

    /// The manifest with that digest in the same repository.
    pub fn at(&self, digest: Checksum) -> Self {
        Self {
            tag: None,
            digest: Some(digest),
            ..self.clone()
        }
    }

    /// The list of what is attached to the manifest with that digest (distribution-spec, "Referrers
    /// Tag Schema").
    pub(super) fn referrers(&self, digest: Checksum) -> Self {
        Self {
            tag: Some(format!("sha256-{digest}")),
            digest: None,
            ..self.clone()
        }
    }

    /// The whole name, as a signature has it: with its registry and its tag.
    pub(super) fn identity(&self) -> String {
        let tag = self.tag.as_deref().unwrap_or("latest");
        format!("{}/{}:{tag}", self.host, self.repository)
    }

    /// The name for skopeo, which takes a tag or a digest.
    pub fn for_skopeo(&self) -> String {
        match (&self.tag, self.digest) {
            (_, Some(digest)) => format!("docker://{}@{}", self.given, digest.to_digest()),
            (Some(tag), None) => format!("docker://{}:{tag}", self.given),
            (None, None) => format!("docker://{}", self.given),
        }
    }
}

impl fmt::Display for RegistryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.for_skopeo())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn hosts_and_repositories_are_completed_as_docker_does() {
        for (text, host, repository, tag) in [
            ("quay.io/a/b:1", "quay.io", "a/b", Some("1")),
            ("localhost:5000/a", "localhost:5000", "a", None),
            ("localhost/a:x", "localhost", "a", Some("x")),
            ("[::1]:5000/a", "[::1]:5000", "a", None),
            ("debian", "docker.io", "library/debian", None),
            ("me/debian:13", "docker.io", "me/debian", Some("13")),
        ] {
            let name = RegistryName::parse(text).unwrap();
            assert_eq!((name.host(), name.repository()), (host, repository));
            assert_eq!(name.tag.as_deref(), tag);
            assert_eq!(name.to_string(), format!("docker://{text}"));
        }
    }

    #[test]
    fn a_digest_is_what_is_meant() {
        let digest = Checksum::of(b"x").to_digest();
        let name = RegistryName::parse(&format!("quay.io/a:1@{digest}")).unwrap();
        assert_eq!(name.for_skopeo(), format!("docker://quay.io/a@{digest}"));
        let other = RegistryName::parse("quay.io/a:2").unwrap();
        assert!(name.is_in_repository_of(&other));
        assert_eq!(other.at(Checksum::of(b"x")).to_string(), name.to_string());
        let listed = name.referrers(Checksum::of(b"x")).to_string();
        let tag = digest.replace(':', "-");
        assert_eq!(listed, format!("docker://quay.io/a:{tag}"));
    }

    #[test]
    fn what_names_no_image_is_refused() {
        for text in [
            "",
            "quay.io/",
            "quay.io/A",
            "quay.io/a:",
            "quay.io/a:-x",
            "a b",
            "quay.io//a",
            "quay.io/a@sha256:00",
            "--help",
            "quay.io/a:b c",
        ] {
            assert!(RegistryName::parse(text).is_err(), "{text}");
        }
    }
}
