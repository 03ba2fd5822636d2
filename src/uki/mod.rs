//! Kernel, initramfs and command line become one file that firmware starts (a UKI), by systemd's
//! ukify(1), signed for Secure Boot where a key is given.

pub mod arguments;

use std::time::Duration;

use anyhow::{Result, bail};
use camino::{Utf8Path, Utf8PathBuf};

use crate::process::Call;

/// It takes seconds; more than this is a fault.
const LIMIT: Duration = Duration::from_secs(600);
const PROGRAM: &str = "ukify";

/// What signs for Secure Boot.
#[derive(Debug, Clone)]
pub struct Keys {
    /// The private key, in PEM.
    pub key: Utf8PathBuf,
    /// Its certificate, in PEM.
    pub certificate: Utf8PathBuf,
}

/// What a UKI is made of.
#[derive(Debug)]
pub struct Parts<'a> {
    /// The kernel.
    pub linux: &'a Utf8Path,
    /// Its initramfs.
    pub initrd: &'a Utf8Path,
    /// Its version.
    pub version: &'a str,
    /// Its command line.
    pub command_line: &'a str,
    /// os-release(5) of the system.
    pub os_release: &'a Utf8Path,
    /// What machine it is for, a `GOARCH`.
    pub architecture: &'a str,
    /// The time that what ukify writes of itself has, in seconds since the epoch.
    pub timestamp: u64,
    /// What signs it.
    pub keys: Option<&'a Keys>,
}

/// Makes a UKI at `output`.
///
/// # Errors
/// When there is no ukify, or it fails; when firmware of that machine knows no UKI.
pub fn make(parts: &Parts<'_>, output: &Utf8Path) -> Result<()> {
    let mut call = Call::new(PROGRAM, ["build"])
        .limit(LIMIT)
        .environment([("SOURCE_DATE_EPOCH".into(), parts.timestamp.to_string())]);
    let os_release = format!("@{}", parts.os_release);
    for (option, value) in [
        ("linux", parts.linux.as_str()),
        ("initrd", parts.initrd.as_str()),
        ("uname", parts.version),
        ("cmdline", parts.command_line),
        ("os-release", &os_release),
        ("efi-arch", firmware_name(parts.architecture)?),
        ("output", output.as_str()),
    ] {
        call = call.word(format!("--{option}={value}"));
    }
    if let Some(keys) = parts.keys {
        call = call.word(format!("--secureboot-private-key={}", keys.key));
        call = call.word(format!("--secureboot-certificate={}", keys.certificate));
    }
    call.run().map_err(|e| {
        let packages = match parts.keys {
            Some(_) => "systemd-ukify, systemd-boot-efi and sbsigntool",
            None => "systemd-ukify and systemd-boot-efi",
        };
        e.context(format!(
            "making a unified kernel image, which asks for the packages {packages}"
        ))
    })?;
    Ok(())
}

/// The name that UEFI has for a machine.
fn firmware_name(architecture: &str) -> Result<&'static str> {
    Ok(match architecture {
        "amd64" => "x64",
        "arm64" => "aa64",
        "386" => "ia32",
        "arm" => "arm",
        "riscv64" => "riscv64",
        "loong64" => "loongarch64",
        other => bail!("there are no unified kernel images for machines of {other}"),
    })
}

/// The name that bootc has for a machine in the files of kernel arguments: Rust's.
pub fn rust_name(architecture: &str) -> &str {
    match architecture {
        "amd64" => "x86_64",
        "arm64" => "aarch64",
        "386" => "x86",
        "loong64" => "loongarch64",
        "ppc64" | "ppc64le" => "powerpc64",
        same => same,
    }
}
