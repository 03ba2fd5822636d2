//! CycloneDX 1.5 as JSON.

use serde_json::{Value, json};

use super::licence::identifier;
use super::{date, package_url};
use crate::pipeline::{Bill, BilledPackage};

/// A bill of materials of the image that a user calls `name`.
pub fn cyclonedx(name: &str, bill: &Bill) -> String {
    let components = bill.packages.iter().map(|billed| component(bill, billed));
    let document = json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "timestamp": date(bill),
            "tools": {
                "components": [{
                    "type": "application",
                    "name": "apt-ostree-helper",
                    "version": env!("CARGO_PKG_VERSION"),
                }],
            },
            "component": {
                "type": "container",
                "bom-ref": bill.digest,
                "name": name,
                "version": bill.digest,
            },
        },
        "components": components.collect::<Vec<_>>(),
    });
    format!("{document:#}\n")
}

fn component(bill: &Bill, billed: &BilledPackage) -> Value {
    let package = &billed.package;
    let url = package_url(bill, billed);
    let licences = billed.licences.iter().map(|words| match identifier(words) {
        Some(id) if !id.contains(' ') => json!({ "license": { "id": id } }),
        _ => json!({ "license": { "name": words } }),
    });
    let mut licences: Vec<Value> = licences.collect();
    licences.dedup();
    let of_layers = billed.layers.iter();
    let of_layers = of_layers.map(|digest| property("layer", digest));
    let mut properties = vec![
        property("source", &package.source),
        property("source-version", &package.source_version),
    ];
    properties.extend(of_layers);
    json!({
        "type": "library",
        "bom-ref": url,
        "name": package.name,
        "version": package.version,
        "licenses": licences,
        "purl": url,
        "properties": properties,
    })
}

fn property(name: &str, value: &str) -> Value {
    json!({ "name": format!("apt-ostree-helper:{name}"), "value": value })
}
