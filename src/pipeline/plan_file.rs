//! The plan as a file that lies beside a Containerfile under version control: which component is in
//! which layer, and nothing that changes from one build to the next while that stays. So it has no
//! sizes, chances or digests, which the label of an image has ([`super::layer_plan`]).
//!
//! Each component has a line of its own, sorted in its layer, so that two branches that add
//! components can be merged by lines.

use anyhow::{Context, Result};
use serde::Serialize;

use super::LayerPlan;
use super::layer_plan::VERSION;

/// A plan as a file: JSON with `version` 1 and `layers`, which contrib/docs/schema describes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PlanFile {
    /// The components of each layer that has any, the lowest layer first.
    pub layers: Vec<Vec<String>>,
}

impl PlanFile {
    /// Reads a plan from a file: one that this program wrote, an earlier release too, one written
    /// by hand, or one that git has merged with `merge=union`, which may lack commas between lines.
    ///
    /// A layer without components is left out. Of a component in several layers the first counts.
    ///
    /// # Errors
    /// When it is not a plan, or of a version that is not known.
    pub fn parse(text: &[u8]) -> Result<Self> {
        let plan = LayerPlan::parse(text).or_else(|error| match mended(text) {
            Some(mended) => LayerPlan::parse(mended.as_bytes()).map_err(|_| error),
            None => Err(error),
        });
        Ok(Self {
            layers: plan?.components(),
        })
    }

    /// The text of the file, the same for the same plan.
    ///
    /// # Errors
    /// None that a plan can have.
    pub fn to_json(&self) -> Result<String> {
        #[derive(Serialize)]
        struct File<'a> {
            version: u32,
            layers: Vec<Layer<'a>>,
        }
        #[derive(Serialize)]
        struct Layer<'a> {
            components: Vec<&'a str>,
        }
        let layers = self.layers.iter().map(|names| {
            let mut components: Vec<&str> = names.iter().map(String::as_str).collect();
            components.sort_unstable();
            components.dedup();
            Layer { components }
        });
        let file = File {
            version: VERSION,
            layers: layers
                .filter(|layer| !layer.components.is_empty())
                .collect(),
        };
        let json = serde_json::to_string_pretty(&file).context("describing the plan")?;
        Ok(json + "\n")
    }
}

/// The text with a comma between lines that need one and none where a list ends. A merge by lines
/// takes the last line of a list, which has no comma, from each side. None when it is not text.
fn mended(text: &[u8]) -> Option<String> {
    let lines = std::str::from_utf8(text).ok()?.lines();
    let mut mended = String::with_capacity(text.len());
    for line in lines.map(str::trim).filter(|line| !line.is_empty()) {
        let begins = |with: [char; 2]| line.starts_with(with);
        if begins([']', '}']) && mended.ends_with(',') {
            mended.pop();
        } else if begins(['"', '{']) && mended.ends_with(['"', '}', ']']) {
            mended.push(',');
        }
        mended.push_str(line);
    }
    Some(mended)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn plan(layers: &[&[&str]]) -> PlanFile {
        let names = |layer: &&[&str]| layer.iter().map(|name| (*name).to_owned()).collect();
        PlanFile {
            layers: layers.iter().map(names).collect(),
        }
    }

    #[test]
    fn a_file_has_one_line_for_each_component_in_order() {
        let text = plan(&[&["b", "a", "b"], &[], &["c,\"d"]])
            .to_json()
            .unwrap();
        let expected = r#"{
  "version": 1,
  "layers": [
    {
      "components": [
        "a",
        "b"
      ]
    },
    {
      "components": [
        "c,\"d"
      ]
    }
  ]
}
"#;
        assert_eq!(text, expected);
        assert_eq!(
            PlanFile::parse(text.as_bytes()).unwrap(),
            plan(&[&["a", "b"], &["c,\"d"]])
        );
    }

    #[test]
    fn a_plan_with_what_earlier_releases_wrote_is_read() {
        let text = r#"{"version": 1, "layers": [{"components": []},
            {"components": ["a"], "chance": 0.5, "key": "00", "diff_id": "sha256:00",
             "uncompressed_size": 3}]}"#;
        assert_eq!(PlanFile::parse(text.as_bytes()).unwrap(), plan(&[&["a"]]));
    }

    /// Both sides have added a component at the end of a layer, and a layer at the end.
    #[test]
    fn a_merge_of_all_lines_is_a_plan() {
        let text = "{\n\"version\": 1,\n\"layers\": [\n{\n\"components\": [\n\"a\",\n\"b\"\n\"c\"\n]\n\
                    }\n{\n\"components\": [\n\"d\",\n]\n},\n{\n\"components\": [\n\"e\"\n]\n},\n]\n}\n";
        assert!(LayerPlan::parse(text.as_bytes()).is_err());
        assert_eq!(
            PlanFile::parse(text.as_bytes()).unwrap(),
            plan(&[&["a", "b", "c"], &["d"], &["e"]])
        );
    }

    #[test]
    fn what_is_no_plan_is_refused() {
        let marks = "{\"version\": 1, \"layers\": [\n<<<<<<< ours\n]}";
        let newer = "{\"version\": 2,\n\"layers\": []}";
        for text in ["", "[]", "{}", "\"a\"\n\"b\"", "\u{0}", marks, newer] {
            assert!(PlanFile::parse(text.as_bytes()).is_err(), "{text}");
        }
        let error = PlanFile::parse(newer.as_bytes()).unwrap_err();
        assert!(error.to_string().contains("version 2"), "{error}");
        assert!(PlanFile::parse(&[0xff, b'\n']).is_err());
    }
}
