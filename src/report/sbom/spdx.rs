//! SPDX 2.3 as JSON.

use serde_json::{Value, json};

use super::licence::Expressions;
use super::{date, package_url, plain};
use crate::pipeline::{Bill, BilledPackage};

const IMAGE: &str = "SPDXRef-Image";

/// A bill of materials of the image that a user calls `name`.
pub fn spdx(name: &str, bill: &Bill) -> String {
    let mut expressions = Expressions::default();
    let hex = bill.digest.rsplit(':').next().unwrap_or_default();
    let image = json!({
        "SPDXID": IMAGE,
        "name": name,
        "versionInfo": bill.digest,
        "primaryPackagePurpose": "CONTAINER",
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": false,
        "checksums": [{ "algorithm": "SHA256", "checksumValue": hex }],
        "licenseConcluded": "NOASSERTION",
        "licenseDeclared": "NOASSERTION",
        "copyrightText": "NOASSERTION",
    });
    let mut packages = vec![image];
    let mut relationships = vec![relationship("SPDXRef-DOCUMENT", "DESCRIBES", IMAGE)];
    for (at, billed) in bill.packages.iter().enumerate() {
        let id = id(at, billed);
        relationships.push(relationship(IMAGE, "CONTAINS", &id));
        packages.push(package(bill, billed, &id, &mut expressions));
    }
    let references = expressions.references.iter().map(|(id, words)| {
        json!({
            "licenseId": id,
            "name": words,
            "extractedText": format!("'{words}' in the package's /usr/share/doc/*/copyright"),
        })
    });
    let document = json!({
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": name,
        "documentNamespace": format!("https://spdx.org/spdxdocs/apt-ostree-helper-{hex}"),
        "creationInfo": {
            "created": date(bill),
            "creators": [concat!("Tool: apt-ostree-helper-", env!("CARGO_PKG_VERSION"))],
        },
        "packages": packages,
        "hasExtractedLicensingInfos": references.collect::<Vec<_>>(),
        "relationships": relationships,
    });
    format!("{document:#}\n")
}

/// The number makes it the only one.
fn id(at: usize, billed: &BilledPackage) -> String {
    format!("SPDXRef-Package-{at}-{}", plain(&billed.package.name))
}

fn package(bill: &Bill, billed: &BilledPackage, id: &str, expressions: &mut Expressions) -> Value {
    let package = &billed.package;
    json!({
        "SPDXID": id,
        "name": package.name,
        "versionInfo": package.version,
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": false,
        "sourceInfo": format!("built from {} {}", package.source, package.source_version),
        "comment": format!("layers: {}", billed.layers.join(" ")),
        "licenseConcluded": "NOASSERTION",
        "licenseDeclared": expressions.all_of(&billed.licences),
        "copyrightText": "NOASSERTION",
        "externalRefs": [{
            "referenceCategory": "PACKAGE-MANAGER",
            "referenceType": "purl",
            "referenceLocator": package_url(bill, billed),
        }],
    })
}

fn relationship(from: &str, kind: &str, to: &str) -> Value {
    json!({ "spdxElementId": from, "relationshipType": kind, "relatedSpdxElement": to })
}
