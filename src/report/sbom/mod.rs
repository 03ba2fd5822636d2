//! Bills of materials in the formats of others: SPDX 2.3 (ISO/IEC 5962 as JSON) and CycloneDX 1.5.
//!
//! The same image makes the same bytes: the date is the image's, and nothing is numbered at random.

mod cyclonedx;
mod licence;
mod spdx;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

pub use cyclonedx::cyclonedx;
pub use spdx::spdx;

use crate::pipeline::{Bill, BilledPackage};

/// What a package URL keeps (ECMA-427, "Character encoding").
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// The package URL of a package (the type `deb` of the package URL's list of types).
fn package_url(bill: &Bill, billed: &BilledPackage) -> String {
    let encoded = |text: &str| utf8_percent_encode(text, ENCODED).to_string();
    let package = &billed.package;
    let mut url = format!(
        "pkg:deb/{}/{}@{}?arch={}",
        encoded(&bill.system),
        encoded(&package.name),
        encoded(&package.version),
        encoded(&package.architecture),
    );
    if let Some(release) = &bill.release {
        url += &format!("&distro={}-{}", encoded(&bill.system), encoded(release));
    }
    url
}

/// `text` as SPDX's identifiers have it: letters, digits, dots and hyphens only.
fn plain(text: &str) -> String {
    text.replace(
        |c: char| !(c.is_ascii_alphanumeric() || c == '.' || c == '-'),
        "-",
    )
}

/// The image's date as both formats want it, in seconds and UTC; the epoch where it has none.
fn date(bill: &Bill) -> String {
    let created = bill.created.as_deref().unwrap_or_default();
    let time: jiff::Timestamp = created.parse().unwrap_or_default();
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
