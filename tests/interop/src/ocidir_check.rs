//! Reads a layout by ocidir, which bootc and coreos use: `ocidir-check LAYOUT [TAG]`. Every blob
//! must be what its digest says, and prints the digest of the image for this machine.

use anyhow::{Context, Result, ensure};
use ocidir::cap_std::ambient_authority;
use ocidir::cap_std::fs::Dir;
use ocidir::{OciDir, OciRead};

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let layout = arguments
        .next()
        .context("usage: ocidir-check LAYOUT [TAG]")?;
    let tag = arguments.next();
    let directory = Dir::open_ambient_dir(&layout, ambient_authority())?;
    let layout = OciDir::open(directory)?;
    let blobs = layout.fsck()?;
    let image = layout.open_image_this_platform(tag.as_deref())?;
    let layers = image.manifest.layers();
    ensure!(blobs as usize > layers.len(), "{blobs} blobs were read");
    for layer in layers {
        ensure!(layout.has_blob(layer)?, "{} is missing", layer.digest());
    }
    println!("{}", image.manifest_descriptor.digest());
    Ok(())
}
