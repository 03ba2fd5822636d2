//! The plan of an image as it travels: in a label of its config, which outlives copies and derived
//! builds (annotations of layers mostly do not). What files have of it is in [`super::plan_file`].

use anyhow::{Context, Result, bail, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};

/// The label of the config.
pub const LABEL: &str = "apt-ostree-helper.plan";
/// The version of the form.
pub(super) const VERSION: u32 = 1;
/// A label longer than this, in bytes, is compressed.
const LONG: usize = 32 * 1024;
/// How a compressed label begins; zstd in base64 follows.
const COMPRESSED: &str = "zstd:";
/// What a label may hold at most when it is read, in bytes: a hostile one must not fill the memory.
const LIMIT: u64 = 16 << 20;

/// A plan: JSON with `version` 1 and `layers`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LayerPlan {
    version: u32,
    /// The layers of the image, the lowest first.
    pub layers: Vec<PlannedLayer>,
}

/// A layer of a plan.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct PlannedLayer {
    /// The names of its components; none for the layer of the commit.
    pub components: Vec<String>,
    /// The chance that it changes until the next pull.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chance: Option<f64>,
    /// What tells it apart from layers with other bytes, in hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Its diff id: a layer that another tool has put in its place is not the one with that key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub diff_id: Option<String>,
    /// Bytes before compression.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uncompressed_size: Option<u64>,
    /// Bytes of files and links that the image does not use: those that layers above it replace or
    /// hide.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dead_size: Option<u64>,
    /// Where it is not planned: what it is instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
}

/// What a layer is that no plan has made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// A layer of the base image.
    Base,
    /// What hides and mends what layers of the base image have.
    Mending,
    /// The unified kernel image of a sealed image.
    Kernel,
}

impl LayerPlan {
    /// A plan with these layers.
    pub fn new(layers: Vec<PlannedLayer>) -> Self {
        Self {
            version: VERSION,
            layers,
        }
    }

    /// Reads a plan from JSON.
    ///
    /// # Errors
    /// When it is not a plan, or of a version that is not known.
    pub fn parse(json: &[u8]) -> Result<Self> {
        let plan: Self = serde_json::from_slice(json).context("it is not a plan")?;
        ensure!(
            plan.version == VERSION,
            "it is a plan of version {}; this program knows version {VERSION}",
            plan.version
        );
        Ok(plan)
    }

    /// Reads the label of a config.
    ///
    /// # Errors
    /// As [`LayerPlan::parse`].
    pub fn from_label(text: &str) -> Result<Self> {
        use std::io::Read;
        let Some(compressed) = text.strip_prefix(COMPRESSED) else {
            return Self::parse(text.as_bytes());
        };
        let compressed = BASE64.decode(compressed).context("it is not base64")?;
        let mut json = Vec::new();
        let decoder = zstd::Decoder::new(compressed.as_slice())?;
        decoder
            .take(LIMIT + 1)
            .read_to_end(&mut json)
            .context("it is not zstd")?;
        if json.len() as u64 > LIMIT {
            bail!("it is larger than {LIMIT} bytes");
        }
        Self::parse(&json)
    }

    /// The label of a config.
    ///
    /// # Errors
    /// None that a plan can have.
    pub fn to_label(&self) -> Result<String> {
        let json = serde_json::to_string(self)?;
        if json.len() <= LONG {
            return Ok(json);
        }
        let compressed = zstd::bulk::compress(json.as_bytes(), zstd::DEFAULT_COMPRESSION_LEVEL)?;
        Ok(format!("{COMPRESSED}{}", BASE64.encode(compressed)))
    }

    /// The components of each planned layer that has any.
    pub fn components(&self) -> Vec<Vec<String>> {
        let planned = self.layers.iter().filter(|layer| layer.role.is_none());
        let layers = planned.map(|layer| layer.components.clone());
        layers.filter(|components| !components.is_empty()).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn plan(layers: usize) -> LayerPlan {
        let layer = |at: usize| PlannedLayer {
            components: (0..at).map(|n| format!("component-{at}-{n}")).collect(),
            chance: Some(0.25),
            key: Some("0123456789abcdef".repeat(4)),
            diff_id: Some(format!("sha256:{}", "0123456789abcdef".repeat(4))),
            uncompressed_size: Some(1),
            dead_size: (at == 1).then_some(7),
            role: (at == 0).then_some(Role::Base),
        };
        LayerPlan::new((0..layers).map(layer).collect())
    }

    #[test]
    fn a_plan_survives_as_label() {
        for layers in [0, 1, 3, 200] {
            let plan = plan(layers);
            let label = plan.to_label().unwrap();
            assert_eq!(LayerPlan::from_label(&label).unwrap(), plan);
        }
        let label = plan(200).to_label().unwrap();
        assert!(
            label.starts_with(COMPRESSED) && label.len() < 128 * 1024,
            "{}",
            label.len()
        );
    }

    #[test]
    fn a_plan_may_be_written_by_hand() {
        let plan =
            LayerPlan::parse(br#"{"version": 1, "layers": [{"components": ["a", "b"]}]}"#).unwrap();
        assert_eq!(plan.components(), [["a", "b"]]);
    }

    #[test]
    fn what_is_no_plan_is_refused() {
        for text in [
            "",
            "{}",
            "[]",
            r#"{"version": 2, "layers": []}"#,
            "zstd:",
            "zstd:!",
            "zstd:AAAA",
        ] {
            assert!(LayerPlan::from_label(text).is_err(), "{text}");
        }
        let bomb = zstd::bulk::compress(&vec![b' '; 17 << 20], 19).unwrap();
        let error = LayerPlan::from_label(&format!("zstd:{}", BASE64.encode(bomb))).unwrap_err();
        assert!(error.to_string().contains("larger"), "{error}");
    }
}
