//! OCI images as bytes: the tar dialect, blobs, the config, the manifest, layouts and archives.
//! Written here, read in [`read`]. Knows nothing of trees, packages or plans.

mod archive;
mod blob;
mod change;
mod config;
mod deflate;
mod gzip;
mod image;
mod layout;
mod lock;
mod reach;
pub mod read;
mod regular_file;
pub mod spec;
mod stage;
mod sync;
mod take;
mod tar;

pub use archive::write_archive;
pub use blob::{Blob, Compression, available_threads};
pub use config::{BaseConfig, Platform};
pub use image::{Image, ImageDetails, Layer};
pub use layout::{IN_PLACE, LayoutTarget, REF_NAME, check_tag, parent_directory};
pub use regular_file::RegularFile;
pub use spec::MediaType;
pub use stage::{Stage, remove_abandoned, temporary_directory};
pub use take::OlderBlob;
pub use tar::{Member, MemberKind, TarWriter};

#[cfg(test)]
mod tests {
    /// Bytes that no compressor makes smaller.
    pub fn noise(len: usize) -> Vec<u8> {
        let mut state = 1u64;
        let next = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 56) as u8
        };
        std::iter::repeat_with(next).take(len).collect()
    }
}
