//! Classifies failures to read or write an image: a caller may go on without an image that does not
//! exist, but not when the registry is unreachable. skopeo reports failures only as text, which
//! comes from Go and from the registry.

use std::fmt;

use super::RegistryName;
use crate::process::NotInstalled;

/// What went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum FailureKind {
    /// There is no such image.
    Missing,
    /// There is none for the architecture that is asked for.
    OtherArchitecture,
    /// The registry wants (other) credentials, or does not allow it.
    Refused,
    /// The certificate of the registry is not to be trusted, or it speaks HTTP only.
    Untrusted,
    /// Nothing answers.
    Unreachable,
    /// The registry has too much to do, or is at fault (429 and 5xx), or the connection broke.
    Faulty,
    /// What came is not what its digest says.
    Damaged,
    /// The program that is asked is too old.
    TooOld,
    /// Anything else.
    Other,
}

/// A failure to read or write an image.
#[derive(Debug, Clone)]
pub struct Failure {
    /// What went wrong.
    pub kind: FailureKind,
    message: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

impl Failure {
    /// A failure in the words of `message`.
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
        }
    }

    /// The failure that an error has among its causes.
    pub fn of(error: &anyhow::Error) -> Option<&Self> {
        error.downcast_ref::<Self>()
    }

    /// What skopeo, or the proxy that it is, said of the image `name` in its registry.
    pub(super) fn of_registry(error: &anyhow::Error, name: &RegistryName) -> Self {
        let said = words(error);
        let kind = kind_of(&said);
        let (host, repository) = (name.host(), name.repository());
        let message = match kind {
            FailureKind::Missing => format!("there is no image {name}: {said}"),
            FailureKind::OtherArchitecture => {
                format!("the image {name} is not for this architecture: {said}")
            }
            FailureKind::Refused => {
                format!("the registry {host} refuses access to {repository}: {said}")
            }
            FailureKind::Untrusted => {
                format!(
                    "the connection to the registry {host} ({repository}) is not to be trusted: {said}"
                )
            }
            FailureKind::Unreachable => {
                format!("the registry {host} ({repository}) cannot be reached: {said}")
            }
            FailureKind::Faulty => {
                format!("the registry {host} ({repository}) does not answer as it should: {said}")
            }
            FailureKind::Damaged => {
                format!("the registry {host} has damaged content in {repository}: {said}")
            }
            FailureKind::TooOld => format!(
                "this skopeo is too old ({said}); install skopeo 1.9 or newer (Debian 12 has it)"
            ),
            FailureKind::Other => format!("{name}: {said}"),
        };
        Self { kind, message }
    }

    /// Whether a new attempt may well succeed.
    pub(super) fn is_worth_retrying(&self) -> bool {
        matches!(self.kind, FailureKind::Unreachable | FailureKind::Faulty)
            && !self.message.contains("no such host")
    }
}

/// The same, where skopeo is missing: that is not the registry's failure.
pub(super) fn of_call(error: anyhow::Error, name: &RegistryName) -> anyhow::Error {
    match error.is::<NotInstalled>() {
        true => error.context(
            "images in registries are read and written by skopeo (1.9 or newer), which is missing",
        ),
        false => Failure::of_registry(&error, name).into(),
    }
}

/// What skopeo said, without the form of its log and the name of the image, which is said anyway.
fn words(error: &anyhow::Error) -> String {
    let text = format!("{error:#}");
    const FATAL: &str = "level=fatal msg=\"";
    let said = match text.rfind(FATAL) {
        Some(at) => unquoted(&text[at + FATAL.len()..]),
        None => text,
    };
    let said = said.trim();
    let said = said
        .strip_prefix("proxy request returned error: ")
        .unwrap_or(said);
    match said.strip_prefix("Error parsing image name \"") {
        Some(rest) => rest
            .split_once("\": ")
            .map_or(rest, |(_, said)| said)
            .to_owned(),
        None => said.to_owned(),
    }
}

/// The text up to a closing quotation mark, as Go's `%q` writes it.
fn unquoted(text: &str) -> String {
    let mut plain = String::new();
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        match c {
            '"' => break,
            '\\' => match characters.next() {
                Some('n' | 't') => plain.push(' '),
                Some(other) => plain.push(other),
                None => break,
            },
            other => plain.push(other),
        }
    }
    plain
}

/// What tells each kind, in lower case, the first that fits: the words of Go's network library and
/// containers/image, and the error codes of the distribution specification ("Error Codes").
const TOLD_BY: [(FailureKind, &[&str]); 8] = [
    (FailureKind::TooOld, &["unknown flag", "unknown command"]),
    (
        FailureKind::Untrusted,
        &[
            "x509:",
            "server gave http response to https client",
            "tls: failed to verify",
            "first record does not look like a tls handshake",
        ],
    ),
    (
        FailureKind::OtherArchitecture,
        &[
            "no image found in manifest list for",
            "no image found in image index for",
        ],
    ),
    (
        FailureKind::Refused,
        &[
            "unauthorized",
            "authentication required",
            "access to the resource is denied",
            "denied:",
            "invalid username/password",
            "unable to retrieve auth token",
            "status 401",
            "status 403",
            "statuscode: 401",
            "statuscode: 403",
            "401 unauthorized",
            "403 forbidden",
            "from registry 401",
            "from registry 403",
        ],
    ),
    (
        FailureKind::Damaged,
        &[
            "digest did not match",
            "does not match",
            "mismatch",
            "corrupt blob",
            "corrupted blob",
        ],
    ),
    (
        FailureKind::Faulty,
        &[
            "toomanyrequests",
            "too many requests",
            "status: 429",
            "statuscode: 429",
            "status: 5",
            "statuscode: 5",
            "status 5",
            "500 internal",
            "502 bad gateway",
            "503 service",
            "504 gateway",
            "connection reset",
            "broken pipe",
            "eof",
            "server misbehaving",
            "blob upload unknown",
            "blob upload invalid",
        ],
    ),
    (
        FailureKind::Missing,
        &[
            "manifest unknown",
            "name unknown",
            "repository name not known",
            "not found",
        ],
    ),
    (
        FailureKind::Unreachable,
        &[
            "connection refused",
            "no such host",
            "no route to host",
            "network is unreachable",
            "i/o timeout",
            "handshake timeout",
            "deadline exceeded",
            "timeout awaiting",
            "did not end within",
            "did not answer within",
            "pinging container registry",
        ],
    ),
];

fn kind_of(said: &str) -> FailureKind {
    let said = said.to_ascii_lowercase();
    let found = TOLD_BY
        .iter()
        .find(|(_, words)| words.iter().any(|word| said.contains(word)));
    found.map_or(FailureKind::Other, |(kind, _)| *kind)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn what_skopeo_says_is_told_apart() {
        use FailureKind::*;
        for (said, kind) in [
            (
                "reading manifest 9 in h/a: manifest unknown: manifest unknown",
                Missing,
            ),
            (
                "reading manifest 9 in h/a: name unknown: repository name not known to registry",
                Missing,
            ),
            (
                "reading manifest 1 in h/a: unauthorized: authentication required",
                Refused,
            ),
            ("requested access to the resource is denied", Refused),
            (
                "pinging container registry h: invalid status code from registry 403 (Forbidden)",
                Refused,
            ),
            (
                "unable to retrieve auth token: invalid username/password: unauthorized",
                Refused,
            ),
            (
                "pinging container registry h: Get \"https://h/v2/\": dial tcp 127.0.0.1:1: connect: connection refused",
                Unreachable,
            ),
            (
                "pinging container registry h: Get \"https://h/v2/\": dial tcp: lookup h: no such host",
                Unreachable,
            ),
            (
                "pinging container registry h: Get \"https://h/v2/\": x509: certificate signed by unknown authority",
                Untrusted,
            ),
            (
                "pinging container registry h: received unexpected HTTP status: 503 Service Unavailable",
                Faulty,
            ),
            ("uploading layer chunked: StatusCode: 500, broken", Faulty),
            (
                "writing blob: uploading layer to https://h/v2/: unexpected EOF",
                Faulty,
            ),
            ("toomanyrequests: slow down", Faulty),
            ("the registry did not answer within 300 s", Unreachable),
            (
                "choosing image instance: no image found in manifest list for architecture arm64",
                OtherArchitecture,
            ),
            (
                "Digest did not match, expected sha256:a, got sha256:b",
                Damaged,
            ),
            ("unknown flag: --preserve-digests", TooOld),
            ("something else", Other),
        ] {
            let line = format!(
                "'skopeo copy' failed (exit status: 1): time=\"2026-01-01T00:00:00Z\" level=warning msg=\"401 x\"\n\
                 time=\"2026-01-01T00:00:00Z\" level=fatal msg=\"Error parsing image name \\\"docker://h/a:1\\\": {}\"",
                said.replace('"', "\\\"")
            );
            let name = RegistryName::parse("h.example/a:1").unwrap();
            let failure = Failure::of_registry(&anyhow!(line), &name);
            assert_eq!(failure.kind, kind, "{said}");
            assert!(failure.to_string().contains(said), "{failure}");
        }
    }
}
