//! JSON as images have it: objects whose fields are there and of the right type, or an error that
//! names the field.

use std::collections::BTreeMap;
use std::io::Read;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Map, Value};

use super::{JSON_LIMIT, up_to};

/// The object that `bytes` are.
pub(super) fn object(bytes: &[u8]) -> Result<Map<String, Value>> {
    match serde_json::from_slice(bytes).context("it is not valid JSON")? {
        Value::Object(object) => Ok(object),
        _ => bail!("it is not a JSON object"),
    }
}

/// The object in a file of at most [`JSON_LIMIT`] bytes.
pub(super) fn object_from(file: impl Read) -> Result<Map<String, Value>> {
    let bytes = up_to(file, JSON_LIMIT)?;
    ensure!(
        bytes.len() as u64 <= JSON_LIMIT,
        "it has more than {JSON_LIMIT} bytes"
    );
    object(&bytes)
}

/// The text in a field that must be there.
pub(super) fn text<'a>(object: &'a Map<String, Value>, name: &str) -> Result<&'a str> {
    match object.get(name) {
        Some(Value::String(text)) => Ok(text),
        Some(_) => bail!("its '{name}' is not a string"),
        None => bail!("it has no '{name}'"),
    }
}

/// The list in a field that must be there.
pub(super) fn list<'a>(object: &'a Map<String, Value>, name: &str) -> Result<&'a [Value]> {
    match object.get(name) {
        Some(Value::Array(list)) => Ok(list),
        Some(_) => bail!("its '{name}' is not a list"),
        None => bail!("it has no '{name}'"),
    }
}

/// The strings by name in a field that may be missing or `null`.
pub(super) fn strings(object: &Map<String, Value>, name: &str) -> Result<BTreeMap<String, String>> {
    let fields = match object.get(name) {
        None | Some(Value::Null) => return Ok(BTreeMap::new()),
        Some(Value::Object(fields)) => fields,
        Some(_) => bail!("its '{name}' is not an object"),
    };
    let mut strings = BTreeMap::new();
    for (key, value) in fields {
        let Value::String(value) = value else {
            bail!("'{key}' in its '{name}' is not a string");
        };
        strings.insert(key.clone(), value.clone());
    }
    Ok(strings)
}
