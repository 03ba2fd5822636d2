//! Calls skopeo for one image in one registry, with the options and credentials it needs, and tries
//! again where that may help.

use std::time::Instant;

use anyhow::{Context, Result};
use camino::Utf8Path;

use super::failure::{Failure, of_call};
use super::{Access, RegistryName};
use crate::process::Call;

/// Which side of a call the options of a registry are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// The only one, of `skopeo inspect`.
    Only,
    /// The source of `skopeo copy`.
    Source,
    /// Its destination.
    Destination,
}

impl Side {
    fn option(self, name: &str) -> String {
        match self {
            Self::Only => format!("--{name}"),
            Self::Source => format!("--src-{name}"),
            Self::Destination => format!("--dest-{name}"),
        }
    }
}

/// The options by which a registry is reached. An authfile that is in memory comes as standard
/// input.
pub(super) fn options(access: &Access, side: Side, has_secret: bool) -> Result<Vec<String>> {
    let mut options = Vec::new();
    if has_secret {
        options.extend([side.option("authfile"), "/proc/self/fd/0".to_owned()]);
    } else if let Some(authfile) = &access.authfile {
        options.extend([side.option("authfile"), absolute(authfile)?]);
    }
    if let Some(cert_dir) = &access.cert_dir {
        options.extend([side.option("cert-dir"), absolute(cert_dir)?]);
    }
    if let Some(verify) = access.tls_verify {
        options.push(format!("{}={verify}", side.option("tls-verify")));
    }
    Ok(options)
}

/// The whole path: some calls run in another directory.
pub(super) fn absolute(path: &Utf8Path) -> Result<String> {
    let path = camino::absolute_utf8(path).with_context(|| format!("finding {path}"))?;
    Ok(path.into_string())
}

/// Runs `skopeo inspect` with `more` on an image in a registry and gives what it prints.
///
/// # Errors
/// With a [`Failure`], when that fails for good.
pub(super) fn inspect(name: &RegistryName, access: &Access, more: &[&str]) -> Result<String> {
    retrying(access, name, || {
        let secret = access.secret_for(name)?;
        let mut arguments = vec!["inspect".to_owned()];
        arguments.extend(more.iter().map(|word| (*word).to_owned()));
        arguments.extend(options(access, Side::Only, secret.is_some())?);
        arguments.push(name.for_skopeo());
        let call = Call::new("skopeo", arguments).limit(access.answer_within());
        match secret {
            Some(secret) => call.input(secret),
            None => call,
        }
        .run()
    })
}

/// Runs `skopeo inspect` on what is in no registry.
///
/// # Errors
/// When that fails: what it says is in the error.
pub(super) fn inspect_elsewhere(name: &str, more: &[&str]) -> Result<String> {
    let arguments = ["inspect"].iter().chain(more).chain([&name]).copied();
    Call::new("skopeo", arguments).run()
}

/// Runs `call`, which talks to the registry of `name`, again where that may help.
pub(super) fn retrying<T>(
    access: &Access,
    name: &RegistryName,
    call: impl Fn() -> Result<T>,
) -> Result<T> {
    let start = Instant::now();
    let mut attempt = 0;
    loop {
        let error = match call() {
            Ok(done) => return Ok(done),
            Err(error) => of_call(error, name),
        };
        let again = Failure::of(&error).is_some_and(Failure::is_worth_retrying);
        if !again || attempt == access.retry_times {
            return match attempt {
                0 => Err(error),
                n => {
                    let seconds = start.elapsed().as_secs();
                    Err(error.context(format!("given up after {} attempts in {seconds} s", n + 1)))
                }
            };
        }
        attempt += 1;
        let pause = Access::pause(attempt);
        tracing::warn!(
            "{error:#}; trying again in {} s ({attempt} of {})",
            pause.as_secs(),
            access.retry_times
        );
        std::thread::sleep(pause);
    }
}
