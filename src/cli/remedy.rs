//! Which option helps against a failure. The library says what is wrong and what helps in its own
//! terms ([`Remedy`], [`FailureKind`], [`Unrepresentable`]); this is the one place that turns those
//! into words with an option in them, to be said after the text of the error or warning.

use std::fmt;

use tracing_subscriber::fmt::format::Writer;

use crate::registry::{Failure, FailureKind};
use crate::remedy::Remedy;
use crate::tree::Unrepresentable;

/// What is said after an error; nothing when no option helps.
pub fn hint(error: &anyhow::Error) -> &'static str {
    let unrepresentable = error.downcast_ref::<Unrepresentable>();
    if unrepresentable.is_some_and(Unrepresentable::has_special_files) {
        return "\nremove special files, or leave them out with --skip-special-files";
    }
    if let Some(remedy) = Remedy::of(error) {
        return words(remedy);
    }
    match Failure::of(error).map(|failure| failure.kind) {
        Some(FailureKind::Refused) => {
            "; log in with 'podman login' or 'skopeo login', or give --authfile FILE or --creds-stdin"
        }
        Some(FailureKind::Untrusted) => {
            "; give the authority's certificate with --cert-dir DIR, or leave TLS out with --tls-verify=false"
        }
        Some(FailureKind::OtherArchitecture) => "; choose one with --arch",
        _ => "",
    }
}

/// The words that go on with the text of an error that carries `remedy`.
fn words(remedy: Remedy) -> &'static str {
    match remedy {
        Remedy::SkipSpecialFiles => "; leave such files out with --skip-special-files",
        Remedy::LeaveOutDirectory => ", or leave its directory out with --prune",
        Remedy::LeaveOutRepository => "; leave it out with --prune /sysroot to build without it",
        Remedy::ChooseBackend => ", or choose another with --backend",
        Remedy::ChoosePodman => "; use --backend podman, which mounts the image itself",
        Remedy::InsistOnPodman => ", or use podman all the same with --backend podman",
        Remedy::ReadDirectory => ", or give a directory with --rootfs",
        Remedy::RemoveLeftovers => "; 'apt-ostree-helper umount --leftovers' tries again",
        Remedy::NamePlatform => "; give it with --arch",
        Remedy::MatchFormat => {
            "; name an image that was built with --format ostree, or build with --format plain"
        }
        Remedy::SplitKeptImage => "; build it with --max-layers 2 or more",
        Remedy::AllowMoreLayers => "; allow more with --max-layers, or build without --base",
        Remedy::SkipSignature => ", or leave --sign-verify out",
        Remedy::CopyIfPresent => ", or use --copymeta-opt",
        Remedy::GivePassphrase => "; give a file with it by --sign-passphrase-file",
    }
}

/// Writes one field of an event of the log: the message as it is, then in words the field `remedy`
/// of a warning that has one.
pub fn log_field(
    writer: &mut Writer<'_>,
    field: &tracing::field::Field,
    value: &dyn fmt::Debug,
) -> fmt::Result {
    match field.name() {
        "message" => write!(writer, "{value:?}"),
        "remedy" => {
            let name = format!("{value:?}");
            let told = Remedy::ALL.into_iter().find(|r| format!("{r:?}") == name);
            writer.write_str(told.map_or("", words))
        }
        name => write!(writer, " {name}={value:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Error;

    use crate::remedy::Advised;

    #[test]
    fn each_remedy_has_words_that_name_an_option() {
        for remedy in Remedy::ALL {
            let error = Error::new(Advised::new(remedy, "it failed")).context("building");
            assert!(hint(&error).contains("--"), "{remedy:?}");
        }
    }
}
