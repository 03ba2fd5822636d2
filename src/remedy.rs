//! What helps against a failure, in the library's own terms. An error that the caller can do
//! something about carries a [`Remedy`] beside its text; which option of the command line that is,
//! only `cli` knows, and says it after the text. So the text of an error is true for every caller,
//! and a program that uses the library can offer the remedy in its own way.

use std::fmt;

/// What a caller can do so that the failure does not happen again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remedy {
    /// Leave special files out of the tree (`tree::SpecialFiles::Skip`).
    SkipSpecialFiles,
    /// Leave the directory of the output out of the tree (`tree::Filter::prune`).
    LeaveOutDirectory,
    /// Leave the repository that the rootfs carries, in /sysroot, out of the tree.
    LeaveOutRepository,
    /// Take another backend than the one that was chosen.
    ChooseBackend,
    /// Take podman, which mounts an image without a container.
    ChoosePodman,
    /// Take podman although it shares its storage with another one.
    InsistOnPodman,
    /// Read a directory instead of an image.
    ReadDirectory,
    /// Remove what is left of earlier runs.
    RemoveLeftovers,
    /// Say which platform the image is for.
    NamePlatform,
    /// Write an ordinary image, or keep the layers of an encapsulated one.
    MatchFormat,
    /// Build the image whose layers are to be kept with more layers.
    SplitKeptImage,
    /// Allow the image more layers, or keep none.
    AllowMoreLayers,
    /// Import without checking signatures.
    SkipSignature,
    /// Copy the metadata only where the commit has it.
    CopyIfPresent,
    /// Give the passphrase of the key.
    GivePassphrase,
}

impl Remedy {
    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::SkipSpecialFiles,
        Self::LeaveOutDirectory,
        Self::LeaveOutRepository,
        Self::ChooseBackend,
        Self::ChoosePodman,
        Self::InsistOnPodman,
        Self::ReadDirectory,
        Self::RemoveLeftovers,
        Self::NamePlatform,
        Self::MatchFormat,
        Self::SplitKeptImage,
        Self::AllowMoreLayers,
        Self::SkipSignature,
        Self::CopyIfPresent,
        Self::GivePassphrase,
    ];

    /// The remedy that an error carries, whatever context was added to it.
    pub fn of(error: &anyhow::Error) -> Option<Self> {
        error.downcast_ref::<Advised>().map(|error| error.remedy)
    }
}

/// An error, or the context of one, with what helps against it.
#[derive(Debug)]
pub struct Advised {
    remedy: Remedy,
    message: String,
}

impl Advised {
    /// What went wrong is in `message`, which does not mention the remedy.
    pub fn new(remedy: Remedy, message: impl Into<String>) -> Self {
        Self {
            remedy,
            message: message.into(),
        }
    }
}

impl fmt::Display for Advised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Advised {}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::{Context, Error, anyhow};

    #[test]
    fn a_remedy_is_found_under_context_and_as_context() {
        let advised = || Advised::new(Remedy::ChooseBackend, "podman is missing");
        let below = Error::new(advised())
            .context("mounting")
            .context("building");
        let above = Err::<(), _>(anyhow!("a cause")).context(advised());
        let above = above.context("building").err();
        assert_eq!(
            format!("{below:#}"),
            "building: mounting: podman is missing"
        );
        assert_eq!(Remedy::of(&below), Some(Remedy::ChooseBackend));
        let above = above.as_ref().and_then(Remedy::of);
        assert_eq!(above, Some(Remedy::ChooseBackend));
        assert_eq!(Remedy::of(&anyhow!("something else")), None);
    }
}
