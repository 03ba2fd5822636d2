//! What a system tells of how often its sources change: a release that is finished by versions, testing and unstable by
//! changelogs, where they are.

use std::io::Read;

use anyhow::Result;

use crate::dpkg::{self, Files, Package};

/// So much of a changelog is read, in bytes: its newest entries come first.
const BEGIN: u64 = 64 << 10;

/// Where evidence comes from.
pub struct Evidence<'a> {
    files: &'a dyn Files,
    is_rolling: bool,
}

impl<'a> Evidence<'a> {
    /// Looks at which release it is: testing and unstable have no version (os-release(5), `VERSION_ID`).
    ///
    /// # Errors
    /// When the file that tells is there and cannot be read.
    pub fn of(files: &'a dyn Files) -> Result<Self> {
        let release = files.read("/usr/lib/os-release")?.unwrap_or_default();
        let release = String::from_utf8_lossy(&release);
        let has = |field: &str| release.lines().any(|line| line.starts_with(field));
        Ok(Self {
            files,
            is_rolling: has("ID=debian") && !has("VERSION_ID="),
        })
    }

    /// The chance that the source of a package changes until the next pull.
    ///
    /// # Errors
    /// When its changelog is there and cannot be read.
    pub fn chance(&self, package: &Package) -> Result<f64> {
        if !self.is_rolling {
            return Ok(dpkg::change_chance(
                &package.source,
                &package.source_version,
            ));
        }
        Ok(dpkg::rolling_chance(
            &package.source,
            self.interval(&package.name)?,
        ))
    }

    /// Native packages have no Debian revision, and their changelog no such name (Debian policy 12.7). One that is damaged, or
    /// linked to another package's, tells nothing.
    fn interval(&self, package: &str) -> Result<Option<f64>> {
        for name in ["changelog.Debian.gz", "changelog.gz"] {
            if let Some(compressed) = self
                .files
                .read(&format!("/usr/share/doc/{package}/{name}"))?
            {
                let mut begin = Vec::new();
                let decoder = flate2::read::MultiGzDecoder::new(compressed.as_slice());
                // What was read before an error counts.
                let _ = decoder.take(BEGIN).read_to_end(&mut begin);
                return Ok(dpkg::upload_interval(&begin));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeMap;
    use std::io::Write;

    use super::*;
    use crate::dpkg::Database;

    struct System(BTreeMap<String, Vec<u8>>);

    impl Files for System {
        fn read(&self, path: &str) -> Result<Option<Vec<u8>>> {
            Ok(self.0.get(path).cloned())
        }

        fn list(&self, _: &str) -> Result<Option<Vec<String>>> {
            Ok(None)
        }
    }

    fn chance(release: &str, changelog: &[u8]) -> f64 {
        let status = "Package: foo\nStatus: install ok installed\nArchitecture: all\nVersion: 1-1+deb12u9\n\n";
        let files = [
            ("/usr/lib/os-release", release.as_bytes().to_vec()),
            ("/var/lib/dpkg/status", status.as_bytes().to_vec()),
            ("/usr/share/doc/foo/changelog.Debian.gz", changelog.to_vec()),
        ];
        let files = files.map(|(path, content)| (path.to_owned(), content));
        let system = System(
            files
                .into_iter()
                .filter(|(_, content)| !content.is_empty())
                .collect(),
        );
        let database = Database::load(&system, None).unwrap().unwrap();
        Evidence::of(&system)
            .unwrap()
            .chance(&database.packages[0])
            .unwrap()
    }

    fn monthly() -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        for month in ["May", "Apr", "Mar", "Feb"] {
            writeln!(encoder, " -- A <a@b>  Thu, 01 {month} 2025 00:00:00 +0000").unwrap();
        }
        encoder.finish().unwrap()
    }

    #[test]
    fn a_release_goes_by_versions_and_what_is_none_by_changelogs() {
        const STABLE: &str = "ID=debian\nVERSION_ID=\"12\"\n";
        const ROLLING: &str = "PRETTY_NAME=\"Debian GNU/Linux forky/sid\"\nID=debian\n";
        for (release, changelog, expected) in [
            (STABLE, monthly(), 0.1),
            (ROLLING, monthly(), 0.6),
            (ROLLING, Vec::new(), 0.02),
            (ROLLING, b"not gzip".to_vec(), 0.02),
            (ROLLING, monthly()[..30].to_vec(), 0.02),
            ("ID=other\n", monthly(), 0.1),
            ("", monthly(), 0.1),
        ] {
            let found = chance(release, &changelog);
            assert!((found - expected).abs() < 1e-9, "{release}: {found}");
        }
    }
}
