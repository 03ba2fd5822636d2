//! The digest that bootc gives a directory with the files of an image, by the crates that it uses:
//! `composefs-digest DIR`. This is what `bootc container compute-composefs-digest` does.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use composefs::erofs::format::FormatVersion;
use composefs::fs::read_container_root;
use composefs::fsverity::{FsVerityHashValue, Sha512HashValue};
use composefs::repository::Repository;
use composefs_boot::BootOps;
use rustix::fs::{Mode, OFlags, open};

type NoRepository = Option<Arc<Repository<Sha512HashValue>>>;

#[tokio::main]
async fn main() -> Result<()> {
    let dir = std::env::args()
        .nth(1)
        .context("usage: composefs-digest DIR")?;
    let root = open(
        dir.as_str(),
        OFlags::RDONLY | OFlags::DIRECTORY,
        Mode::empty(),
    )?;
    let here = PathBuf::from(".");
    let none: NoRepository = None;
    let mut files = read_container_root(root.try_clone()?, here, none, &Default::default()).await?;
    files.transform_for_boot_from_dir(&root)?;
    println!("{}", files.compute_image_id(FormatVersion::V1).to_hex());
    Ok(())
}
