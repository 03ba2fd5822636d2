//! The image config (image-spec, config.md). A base config is kept as JSON, because tools put
//! fields in it that the specification does not know (Healthcheck, OnBuild, Shell) and that
//! must survive.

mod shape;

use anyhow::{Context, Result, bail, ensure};
use oci_spec::image::PlatformBuilder;
use serde_json::{Map, Value, json};

/// Fields of the container config that images have; `podman inspect` and `docker inspect` print
/// others too, which describe a container (docker's image specification v1.2, "config").
const CONTAINER_FIELDS: [&str; 14] = [
    "ArgsEscaped",
    "Cmd",
    "Entrypoint",
    "Env",
    "ExposedPorts",
    "Healthcheck",
    "Labels",
    "OnBuild",
    "Shell",
    "StopSignal",
    "StopTimeout",
    "User",
    "Volumes",
    "WorkingDir",
];

/// Fields of docker's own image format that describe a build, not an image.
const BUILD_FIELDS: [&str; 6] = [
    "container",
    "container_config",
    "docker_version",
    "id",
    "parent",
    "Size",
];

/// Fields of docker's that describe a container that runs, not an image.
const RUN_FIELDS: [&str; 9] = [
    "AttachStderr",
    "AttachStdin",
    "AttachStdout",
    "Domainname",
    "Hostname",
    "Image",
    "OpenStdin",
    "StdinOnce",
    "Tty",
];

/// Labels that speak of the image a config was taken from, and of no other.
fn is_stale_label(name: &str) -> bool {
    name.starts_with("ostree.")
        || name.starts_with("apt-ostree-helper.")
        || name == "rpmostree.inputhash"
        || name == "io.buildah.version"
}

/// The architecture that an image is for, as OCI names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Platform {
    /// `GOARCH`, such as `amd64`.
    pub architecture: String,
    /// `GOARM` and its like, such as `v7`.
    pub variant: Option<String>,
}

impl Platform {
    /// The same as image-spec's descriptors have it, for a system such as `linux`.
    ///
    /// # Errors
    /// None that is known: oci-spec wants architecture and system, which are there.
    pub fn to_spec(&self, os: &str) -> Result<oci_spec::image::Platform> {
        let mut platform = PlatformBuilder::default()
            .architecture(&*self.architecture)
            .os(os)
            .build()?;
        platform.set_variant(self.variant.clone());
        Ok(platform)
    }

    /// The platform that a Debian or an OCI architecture name stands for
    /// (dpkg-architecture(1); Go's list of GOARCH values).
    ///
    /// # Errors
    /// When the name is neither.
    pub fn from_name(name: &str) -> Result<Self> {
        let (architecture, variant) = match name {
            "amd64" | "x86_64" => ("amd64", None),
            "arm64" | "aarch64" => ("arm64", None),
            "armhf" => ("arm", Some("v7")),
            "armel" => ("arm", Some("v5")),
            "i386" | "386" => ("386", None),
            "ppc64el" | "ppc64le" => ("ppc64le", None),
            "mips64el" | "mips64le" => ("mips64le", None),
            "mipsel" | "mipsle" => ("mipsle", None),
            "loong64" | "riscv64" | "s390x" | "ppc64" | "arm" | "mips64" | "mips" => (name, None),
            _ => bail!(
                "unknown architecture '{name}': use a Debian or OCI name such as amd64, arm64, riscv64"
            ),
        };
        Ok(Self {
            architecture: architecture.to_owned(),
            variant: variant.map(str::to_owned),
        })
    }

    /// A name that stands for it in [`Self::from_name`], as far as one does.
    pub fn name(&self) -> &str {
        match (self.architecture.as_str(), self.variant.as_deref()) {
            ("arm", Some("v7")) => "armhf",
            ("arm", Some("v5")) => "armel",
            (name, _) => name,
        }
    }

    /// The platform that this program was built for.
    ///
    /// # Errors
    /// When it has no name in [`Platform::from_name`].
    pub fn of_this_machine() -> Result<Self> {
        let is_little = cfg!(target_endian = "little");
        Self::from_name(match (std::env::consts::ARCH, is_little) {
            ("x86", _) => "386",
            ("powerpc64", true) => "ppc64le",
            ("powerpc64", false) => "ppc64",
            ("loongarch64", _) => "loong64",
            ("mips64", true) => "mips64le",
            ("mips", true) => "mipsle",
            (name, _) => name,
        })
    }
}

/// A config to begin with: that of another image, or nothing.
#[derive(Debug, Clone, Default)]
pub struct BaseConfig {
    /// All fields but `config`.
    fields: Map<String, Value>,
    /// The fields of `config` but for `Labels`.
    container: Map<String, Value>,
    labels: Map<String, Value>,
}

impl BaseConfig {
    /// Reads an OCI config, or what `podman inspect`, `buildah inspect` and `docker inspect`
    /// print of an image. Labels that do not outlive the image are dropped.
    ///
    /// # Errors
    /// When it is none of these.
    pub fn parse(json: &[u8]) -> Result<Self> {
        let mut value: Value = serde_json::from_slice(json).context("it is not valid JSON")?;
        if let Value::Array(inspected) = &mut value {
            ensure!(
                inspected.len() == 1,
                "it describes {} images; inspect exactly one",
                inspected.len()
            );
            value = inspected.swap_remove(0);
        }
        if value["OCIv1"].is_object() {
            value = value["OCIv1"].take();
        }
        let Value::Object(fields) = value else {
            bail!("it is not a JSON object");
        };
        let mut fields = if fields.contains_key("Config") {
            from_inspection(fields)?
        } else {
            fields
        };
        let known = ["config", "architecture", "os", "rootfs"];
        ensure!(
            known.iter().any(|field| fields.contains_key(*field)),
            "it is neither an OCI config nor what podman or docker inspect print (no config, architecture or rootfs)"
        );
        shape::check(&fields)?;
        let mut container = object_or_null(fields.remove("config"), "config")?;
        let mut labels = object_or_null(container.remove("Labels"), "Labels")?;
        container
            .retain(|name, value| says_something(value) && !RUN_FIELDS.contains(&name.as_str()));
        labels.retain(|name, _| !is_stale_label(name));
        fields
            .retain(|name, value| !BUILD_FIELDS.contains(&name.as_str()) && says_something(value));
        Ok(Self {
            fields,
            container,
            labels,
        })
    }

    /// Reads the `config` object alone of an OCI config, as rpm-ostree's `--image-config` takes it,
    /// or all that [`BaseConfig::parse`] reads.
    ///
    /// # Errors
    /// When it is none of these.
    pub fn parse_container(json: &[u8]) -> Result<Self> {
        let value: Value = serde_json::from_slice(json).context("it is not valid JSON")?;
        let is_field = |name: &String| CONTAINER_FIELDS.contains(&name.as_str());
        match value.as_object() {
            Some(fields) if fields.is_empty() || fields.keys().any(is_field) => {
                Self::parse(json!({ "config": value }).to_string().as_bytes())
            }
            _ => Self::parse(json),
        }
    }

    /// The platform it states, if any.
    pub fn platform(&self) -> Option<Platform> {
        let text = |field: &str| self.fields.get(field)?.as_str().filter(|s| !s.is_empty());
        Some(Platform {
            architecture: text("architecture")?.to_owned(),
            variant: text("variant").map(str::to_owned),
        })
    }

    /// The operating system that it is for, `linux` where it states none.
    pub fn os(&self) -> &str {
        let os = self.fields.get("os").and_then(Value::as_str);
        os.filter(|os| !os.is_empty()).unwrap_or("linux")
    }

    /// When the image it is of was made, in RFC 3339, where it tells.
    pub fn created(&self) -> Option<&str> {
        let text = self.fields.get("created")?.as_str()?;
        text.parse::<jiff::Timestamp>().ok().map(|_| text)
    }

    /// Forgets when the image was made.
    pub fn forget_created(&mut self) {
        self.fields.remove("created");
    }

    /// Sets the platform.
    pub fn set_platform(&mut self, platform: &Platform) {
        self.fields
            .insert("architecture".into(), platform.architecture.clone().into());
        match &platform.variant {
            Some(variant) => self.fields.insert("variant".into(), variant.clone().into()),
            None => self.fields.remove("variant"),
        };
    }

    /// Whether it has that label.
    pub fn has_label(&self, name: &str) -> bool {
        self.labels.contains_key(name)
    }

    /// The value of a label, where it is text.
    pub fn label(&self, name: &str) -> Option<&str> {
        self.labels.get(name)?.as_str()
    }

    /// Sets a label, or removes it.
    pub fn set_label(&mut self, name: &str, value: Option<&str>) {
        match value {
            Some(value) => self.labels.insert(name.to_owned(), value.into()),
            None => self.labels.remove(name),
        };
    }

    /// Sets the command that a container runs.
    pub fn set_cmd(&mut self, cmd: &[String]) {
        self.container.insert("Cmd".into(), json!(cmd));
    }

    /// The finished config of an image with these layers, one history entry each. `created` is
    /// RFC 3339.
    pub fn finish(self, created: &str, diff_ids: &[String], history: Vec<Value>) -> Value {
        let mut container = self.container;
        if !self.labels.is_empty() {
            container.insert("Labels".into(), self.labels.into());
        }
        let mut fields = self.fields;
        fields.insert("created".into(), created.into());
        fields.entry("os").or_insert_with(|| "linux".into());
        fields.insert("config".into(), container.into());
        fields.insert(
            "rootfs".into(),
            json!({"type": "layers", "diff_ids": diff_ids}),
        );
        fields.insert("history".into(), history.into());
        in_order(Value::Object(fields))
    }
}

/// Whether a field is more than the absence of what it names: docker writes all fields, podman and
/// buildah those that say something.
fn says_something(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
        _ => true,
    }
}

/// Sorts the fields of all objects, so that the bytes do not depend on who told us.
fn in_order(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let mut fields: Vec<(String, Value)> = fields.into_iter().collect();
            fields.sort_by(|a, b| a.0.cmp(&b.0));
            fields
                .into_iter()
                .map(|(name, value)| (name, in_order(value)))
                .collect()
        }
        Value::Array(items) => items.into_iter().map(in_order).collect(),
        other => other,
    }
}

/// The object in a field that may be missing (or `null`, as docker writes it).
fn object_or_null(field: Option<Value>, name: &str) -> Result<Map<String, Value>> {
    match field {
        None | Some(Value::Null) => Ok(Map::new()),
        Some(Value::Object(object)) => Ok(object),
        Some(_) => bail!("its '{name}' is not an object"),
    }
}

/// The OCI config in what `podman inspect` and `docker inspect` print.
fn from_inspection(mut inspected: Map<String, Value>) -> Result<Map<String, Value>> {
    let health = inspected
        .remove("Healthcheck")
        .or_else(|| inspected.remove("HealthCheck"));
    let mut container = object_or_null(inspected.remove("Config"), "Config")?;
    if let Some(health) = health {
        // podman prints it beside the rest.
        container.entry("Healthcheck").or_insert(health);
    }
    container.retain(|name, value| CONTAINER_FIELDS.contains(&name.as_str()) && !value.is_null());
    let mut fields = Map::new();
    for (from, to) in [
        ("Architecture", "architecture"),
        ("Os", "os"),
        ("Variant", "variant"),
        ("Author", "author"),
        ("Created", "created"),
    ] {
        if let Some(value) = inspected.remove(from).filter(says_something) {
            fields.insert(to.into(), value);
        }
    }
    fields.insert("config".into(), container.into());
    Ok(fields)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_container_config_may_stand_alone() {
        let alone = br#"{"Cmd": ["sh"], "Labels": {"a": "b", "ostree.commit": "x"}}"#;
        let whole =
            br#"{"architecture": "arm64", "config": {"Cmd": ["sh"], "Labels": {"a": "b"}}}"#;
        for json in [&alone[..], whole] {
            let config = finished(BaseConfig::parse_container(json).unwrap());
            assert_eq!(
                config["config"],
                json!({"Cmd": ["sh"], "Labels": {"a": "b"}})
            );
        }
        assert!(BaseConfig::parse_container(b"{}").is_ok());
        for wrong in [&b"[]"[..], b"{\"a\": 1}", b"x"] {
            assert!(BaseConfig::parse_container(wrong).is_err());
        }
    }

    fn finished(base: BaseConfig) -> Value {
        base.finish("2025-01-01T00:00:00Z", &[], vec![])
    }

    #[test]
    fn reads_what_tools_print() {
        let oci = json!({"architecture": "arm64", "os": "linux", "variant": "v8", "os.features": ["x"],
            "config": {"Cmd": ["sh"], "Healthcheck": {"Test": ["NONE"]},
                       "Labels": {"a": "b", "ostree.commit": "x", "io.buildah.version": "1"}},
            "rootfs": {"type": "layers", "diff_ids": ["sha256:0"]}, "history": [{}]});
        let podman = json!([{"Id": "x", "Architecture": "arm64", "Os": "linux", "Variant": "v8",
            "RootFS": {}, "Config": {"Cmd": ["sh"], "Hostname": "h", "Healthcheck": {"Test": ["NONE"]},
            "Labels": {"a": "b", "ostree.final-diffid": "y"}}}]);
        let buildah = json!({"OCIv1": oci.clone(), "Docker": {}});
        for given in [oci, podman, buildah] {
            let base = BaseConfig::parse(given.to_string().as_bytes()).unwrap();
            assert_eq!(
                base.platform().unwrap(),
                Platform {
                    architecture: "arm64".into(),
                    variant: Some("v8".into())
                }
            );
            let config = finished(base);
            assert_eq!(
                config["config"],
                json!({"Cmd": ["sh"], "Healthcheck": {"Test": ["NONE"]}, "Labels": {"a": "b"}}),
                "{given}"
            );
            assert_eq!(config["rootfs"]["diff_ids"], json!([]));
        }
    }

    #[test]
    fn refuses_what_is_no_config() {
        for (given, why) in [
            ("{", "not valid JSON"),
            ("[]", "describes 0 images"),
            ("[{\"Config\":{}},{\"Config\":{}}]", "describes 2 images"),
            ("7", "not a JSON object"),
            ("{\"schemaVersion\":2}", "neither an OCI config"),
            ("{\"config\":[]}", "not an object"),
        ] {
            let error = BaseConfig::parse(given.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(why), "{given}: {error}");
        }
    }

    #[test]
    fn labels_come_and_go() {
        let mut base = BaseConfig::parse(br#"{"config":{"Labels":null},"os":"linux"}"#).unwrap();
        base.set_label("k", Some("v=w"));
        base.set_label("gone", Some("x"));
        base.set_label("gone", None);
        assert_eq!(finished(base)["config"]["Labels"], json!({"k": "v=w"}));
    }

    #[test]
    fn knows_debian_and_oci_architectures() {
        for (name, architecture, variant) in [
            ("amd64", "amd64", None),
            ("armhf", "arm", Some("v7")),
            ("ppc64el", "ppc64le", None),
            ("i386", "386", None),
        ] {
            let platform = Platform::from_name(name).unwrap();
            assert_eq!(platform.architecture, architecture);
            assert_eq!(platform.variant.as_deref(), variant);
        }
        assert!(Platform::from_name("pdp11").is_err());
    }
}
