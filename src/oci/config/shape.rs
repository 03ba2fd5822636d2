//! What type each field of a config has (image-spec, config.md; docker's image specification v1.2).
//! podman, skopeo and buildah, which decode into types, refuse the whole image for one wrong field.

use anyhow::{Result, bail};
use serde_json::{Map, Value};

#[derive(Clone, Copy)]
enum Shape {
    Text,
    Texts,
    Bool,
    Number,
    /// Names, each with an empty object.
    Names,
    /// Texts by name.
    TextMap,
    /// A date and time of RFC 3339.
    Time,
    /// An object with these fields.
    Fields(&'static [(&'static str, Shape)]),
}

use Shape::{Bool, Fields, Names, Number, Text, TextMap, Texts, Time};

const IMAGE: [(&str, Shape); 8] = [
    ("architecture", Text),
    ("author", Text),
    ("config", Fields(&CONTAINER)),
    ("created", Time),
    ("os", Text),
    ("os.features", Texts),
    ("os.version", Text),
    ("variant", Text),
];

const CONTAINER: [(&str, Shape); 14] = [
    ("ArgsEscaped", Bool),
    ("Cmd", Texts),
    ("Entrypoint", Texts),
    ("Env", Texts),
    ("ExposedPorts", Names),
    ("Healthcheck", Fields(&HEALTHCHECK)),
    ("Labels", TextMap),
    ("OnBuild", Texts),
    ("Shell", Texts),
    ("StopSignal", Text),
    ("StopTimeout", Number),
    ("User", Text),
    ("Volumes", Names),
    ("WorkingDir", Text),
];

const HEALTHCHECK: [(&str, Shape); 6] = [
    ("Interval", Number),
    ("Retries", Number),
    ("StartInterval", Number),
    ("StartPeriod", Number),
    ("Test", Texts),
    ("Timeout", Number),
];

/// Checks the fields of a config that are known; what others put there is not looked at.
///
/// # Errors
/// When one has another type, or is no date: it is named.
pub(super) fn check(config: &Map<String, Value>) -> Result<()> {
    check_fields(config, &IMAGE, "")
}

fn check_fields(found: &Map<String, Value>, known: &[(&str, Shape)], of: &str) -> Result<()> {
    for (name, shape) in known {
        // `null` is as good as nothing: docker writes it.
        if let Some(value) = found.get(*name).filter(|value| !value.is_null()) {
            check_value(value, *shape, &format!("{of}{name}"))?;
        }
    }
    Ok(())
}

fn check_value(value: &Value, shape: Shape, name: &str) -> Result<()> {
    let fits = match (shape, value) {
        (Fields(known), Value::Object(fields)) => {
            return check_fields(fields, known, &format!("{name}."));
        }
        (Text, Value::String(_)) | (Bool, Value::Bool(_)) => true,
        (Number, value) => value.is_i64(),
        (Texts, Value::Array(texts)) => texts.iter().all(Value::is_string),
        (Names, Value::Object(names)) => names.values().all(is_empty_object),
        (TextMap, Value::Object(texts)) => match texts.iter().find(|(_, v)| !v.is_string()) {
            Some((key, _)) => bail!("'{}' in its '{name}' is not a string", key.escape_debug()),
            None => true,
        },
        (Time, Value::String(time)) => time.is_empty() || time.parse::<jiff::Timestamp>().is_ok(),
        _ => false,
    };
    if !fits {
        bail!(
            "its '{name}' is not {}, which no container tool would read",
            match shape {
                Text => "a string",
                Texts => "a list of strings",
                Bool => "true or false",
                Number => "a whole number",
                Names => "an object of names with '{}' each",
                TextMap => "an object of strings",
                Time => "a date and time as 2025-01-31T12:00:00Z",
                Fields(_) => "an object",
            }
        );
    }
    Ok(())
}

fn is_empty_object(value: &Value) -> bool {
    value.is_null() || value.as_object().is_some_and(Map::is_empty)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;
    use serde_json::json;

    use super::super::BaseConfig;
    use super::*;

    #[test]
    fn every_wrong_type_is_an_error_that_names_the_field() {
        let wrong = [
            json!(7),
            json!("x"),
            json!([1]),
            json!({"a": 1}),
            json!(true),
        ];
        let right = |shape: Shape, value: &Value| match shape {
            Text => value.is_string(),
            Number => value.is_i64(),
            Bool => value.is_boolean(),
            _ => false,
        };
        let mut tried = 0;
        for (place, known) in [
            ("", &IMAGE[..]),
            ("config", &CONTAINER),
            ("health", &HEALTHCHECK),
        ] {
            for (name, shape) in known {
                for value in wrong.iter().filter(|value| !right(*shape, value)) {
                    // Fields of an object that are not known are left alone.
                    if matches!(shape, Fields(_)) && value.is_object() {
                        continue;
                    }
                    let given = match place {
                        "" => json!({*name: value, "rootfs": {}}),
                        "config" => json!({"config": {*name: value}}),
                        _ => json!({"config": {"Healthcheck": {*name: value}}}),
                    };
                    let error = BaseConfig::parse(given.to_string().as_bytes());
                    let error = error.unwrap_err().to_string();
                    assert!(error.contains(name), "{given}: {error}");
                    tried += 1;
                }
            }
        }
        assert!(tried > 100, "{tried}");
    }

    #[test]
    fn what_podman_inspect_prints_is_checked_too() {
        for (given, name) in [
            (json!({"Config": {"Env": "A=b"}}), "config.Env"),
            (json!({"Config": 7}), "Config"),
            (json!({"Config": {}, "Architecture": 7}), "architecture"),
            (json!({"Config": {}, "Created": "yesterday"}), "created"),
            (
                json!({"Config": {}, "Healthcheck": {"Test": 1}}),
                "Healthcheck.Test",
            ),
        ] {
            let error = BaseConfig::parse(given.to_string().as_bytes());
            let error = error.unwrap_err().to_string();
            assert!(error.contains(name), "{given}: {error}");
        }
    }

    #[test]
    fn what_tools_write_passes() {
        let given = json!({"created": "0001-01-01T00:00:00Z", "os.features": null, "config": {
            "ExposedPorts": {"80/tcp": {}}, "Volumes": null, "Env": ["A=b"], "Labels": {"a": ""},
            "Healthcheck": {"Test": ["NONE"], "Interval": 30_000_000_000_i64}, "NoSuch": 7}});
        assert!(BaseConfig::parse(given.to_string().as_bytes()).is_ok());
    }

    proptest! {
        #[test]
        fn any_change_of_a_byte_makes_no_panic(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let given = json!({"architecture": "amd64", "created": "2025-01-01T00:00:00Z",
                "config": {"Env": ["A=b"], "Labels": {"a": "b"}, "Volumes": {"/v": {}}}});
            let mut bytes = given.to_string().into_bytes();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            let _ = BaseConfig::parse(&bytes);
        }
    }
}
