//! This knows a plugin's config schema, as its `-dump` prints it: fills in defaults and refuses what Kong
//! would refuse when it loads the config.

use serde_json::{Map, Value as Json};

/// What is wrong with a plugin's config, in Kong's words and with the field's path.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("schema violation ({path}: {problem})")]
pub struct SchemaViolation {
    /// The field, such as `config.ca_certificates`.
    pub path: String,
    /// Kong's text for the problem.
    pub problem: String,
}

/// The fields of a record, in the form of Kong's `fields = { { name = {…} }, … }`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Schema {
    fields: Vec<(String, Json)>,
}

impl Schema {
    /// The schema of `config` in one plugin's entry of the `-dump` JSON. A plugin without a schema takes
    /// any config as it is.
    pub(crate) fn of_plugin(plugin: &Json) -> Option<Self> {
        let config =
            record_fields(&plugin["Schema"]).fields.into_iter().find(|(name, _)| name == "config")?;
        Some(record_fields(&config.1))
    }

    /// The config as Kong sends it: defaults filled in, nulls left out.
    pub(crate) fn fill(&self, config: &Json) -> Result<Map<String, Json>, SchemaViolation> {
        self.record(config, "config")
    }

    fn record(&self, value: &Json, path: &str) -> Result<Map<String, Json>, SchemaViolation> {
        let given = match value {
            Json::Object(map) => map,
            Json::Null => &Map::new(),
            _ => return violation(path, "expected a record"),
        };
        if let Some(unknown) = given.keys().find(|key| !self.fields.iter().any(|(name, _)| name == *key)) {
            return violation(&format!("{path}.{unknown}"), "unknown field");
        }
        let mut filled = Map::new();
        for (name, field) in &self.fields {
            let path = format!("{path}.{name}");
            // An explicit null is a value of its own in Kong: it switches the default off.
            let value = match given.get(name) {
                Some(Json::Null) => None,
                Some(value) => Some(value.clone()),
                None => default_of(field),
            };
            match value {
                Some(value) => {
                    filled.insert(name.clone(), check(field, &value, &path)?);
                }
                None if field["required"] == true => return violation(&path, "required field missing"),
                None => {}
            }
        }
        Ok(filled)
    }
}

fn record_fields(record: &Json) -> Schema {
    let named = |entry: &Json| {
        let (name, field) = entry.as_object()?.iter().next()?;
        Some((name.clone(), field.clone()))
    };
    let entries = record["fields"].as_array().into_iter().flatten();
    Schema { fields: entries.filter_map(named).collect() }
}

/// A missing field's value: its default; for a required record one made of its own fields' defaults.
fn default_of(field: &Json) -> Option<Json> {
    match field.get("default") {
        Some(Json::Null) | None => {}
        Some(default) => return Some(default.clone()),
    }
    (field["type"] == "record" && field["required"] == true).then(|| Json::Object(Map::new()))
}

/// The value of one field, with the defaults of nested records.
fn check(field: &Json, value: &Json, path: &str) -> Result<Json, SchemaViolation> {
    let kind = field["type"].as_str().unwrap_or("record");
    let checked = match (kind, value) {
        ("string", Json::String(s)) if s.is_empty() && field["len_min"] != 0 => {
            return violation(path, "length must be at least 1");
        }
        ("string", Json::String(_)) | ("boolean", Json::Bool(_)) | ("number", Json::Number(_)) => {
            value.clone()
        }
        ("integer", Json::Number(n)) if n.as_f64().is_some_and(|n| n.fract() == 0.0) => value.clone(),
        ("array" | "set", Json::Array(items)) => {
            let mut checked: Vec<Json> = Vec::new();
            for (i, item) in items.iter().enumerate() {
                let item = check(&field["elements"], item, &format!("{path}[{}]", i + 1))?;
                // Kong drops repeated members of a set.
                if kind == "array" || !checked.contains(&item) {
                    checked.push(item);
                }
            }
            Json::Array(checked)
        }
        ("map", Json::Object(map)) => {
            let mut checked = Map::new();
            for (key, item) in map {
                check(&field["keys"], &Json::String(key.clone()), path)?;
                checked.insert(key.clone(), check(&field["values"], item, &format!("{path}.{key}"))?);
            }
            Json::Object(checked)
        }
        ("record", _) => Json::Object(record_fields(field).record(value, path)?),
        ("string" | "boolean" | "number" | "set" | "map", _) => {
            return violation(path, &format!("expected a {kind}"));
        }
        ("integer" | "array", _) => return violation(path, &format!("expected an {kind}")),
        _ => return violation(path, &format!("invalid type: {kind}")),
    };
    within_limits(field, &checked, path)?;
    Ok(checked)
}

fn within_limits(field: &Json, value: &Json, path: &str) -> Result<(), SchemaViolation> {
    if let Some(allowed) = field["one_of"].as_array()
        && !allowed.contains(value)
    {
        let text = |v: &Json| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
        let list: Vec<String> = allowed.iter().map(text).collect();
        return violation(path, &format!("expected one of: {}", list.join(", ")));
    }
    let length = match value {
        Json::String(s) => Some(s.len()),
        Json::Array(items) => Some(items.len()),
        Json::Object(map) if field["type"] == "map" => Some(map.len()),
        _ => None,
    };
    if let (Some(length), Some(min)) = (length, field["len_min"].as_u64())
        && (length as u64) < min
    {
        return violation(path, &format!("length must be at least {min}"));
    }
    if let (Some(n), Some([low, high])) = (value.as_f64(), field["between"].as_array().map(Vec::as_slice))
        && !(low.as_f64().is_some_and(|low| low <= n) && high.as_f64().is_some_and(|high| n <= high))
    {
        return violation(path, &format!("value should be between {low} and {high}"));
    }
    if let (Some(n), Some(limit)) = (value.as_f64(), field["gt"].as_f64())
        && n <= limit
    {
        return violation(path, &format!("value must be greater than {limit}"));
    }
    Ok(())
}

fn violation<T>(path: &str, problem: &str) -> Result<T, SchemaViolation> {
    Err(SchemaViolation { path: path.into(), problem: problem.into() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn schema() -> Schema {
        Schema::of_plugin(&json!({"Name": "p", "Schema": {"name": "p", "fields": [{"config": {
            "type": "record", "fields": [
                {"ca_certificates": {"type": "array", "required": true, "len_min": 1, "elements": {"type": "string"}}},
                {"by": {"type": "array", "default": ["username"], "elements": {"type": "string", "one_of": ["username", "custom_id"]}}},
                {"ttl": {"type": "integer", "default": 60, "gt": 0}},
                {"mode": {"type": "string", "default": "A", "one_of": ["A", "B"]}},
                {"group": {"type": "string", "default": "CN"}},
                {"proxy": {"type": "record", "required": true, "fields": [{"port": {"type": "integer", "default": 80}}, {"host": {"type": "string"}}]}},
                {"credentials": {"type": "array", "elements": {"type": "record", "fields": [{"name": {"type": "string", "required": true}}]}}},
                {"labels": {"type": "map", "keys": {"type": "string"}, "values": {"type": "string"}}},
            ]}}]}}))
        .unwrap()
    }

    #[test]
    fn defaults_are_filled_and_nulls_left_out() {
        let filled = schema().fill(&json!({"ca_certificates": ["x"], "group": null})).unwrap();
        let expected = json!({"ca_certificates": ["x"], "by": ["username"], "ttl": 60, "mode": "A", "proxy": {"port": 80}});
        assert_eq!(Json::Object(filled), expected);
    }

    #[test]
    fn what_kong_refuses_names_the_field() {
        for (config, expected) in [
            (json!({}), "schema violation (config.ca_certificates: required field missing)"),
            (
                json!({"ca_certificates": []}),
                "schema violation (config.ca_certificates: length must be at least 1)",
            ),
            (json!({"ca_certificates": "x"}), "schema violation (config.ca_certificates: expected an array)"),
            (
                json!({"ca_certificates": [1]}),
                "schema violation (config.ca_certificates[1]: expected a string)",
            ),
            (json!({"ca_certificates": ["x"], "mod": "A"}), "schema violation (config.mod: unknown field)"),
            (
                json!({"ca_certificates": ["x"], "mode": "C"}),
                "schema violation (config.mode: expected one of: A, B)",
            ),
            (
                json!({"ca_certificates": ["x"], "ttl": 1.5}),
                "schema violation (config.ttl: expected an integer)",
            ),
            (
                json!({"ca_certificates": ["x"], "ttl": 0}),
                "schema violation (config.ttl: value must be greater than 0)",
            ),
            (
                json!({"ca_certificates": ["x"], "credentials": [{}]}),
                "schema violation (config.credentials[1].name: required field missing)",
            ),
            (
                json!({"ca_certificates": ["x"], "proxy": {"x": 1}}),
                "schema violation (config.proxy.x: unknown field)",
            ),
            (
                json!({"ca_certificates": ["x"], "labels": {"a": 1}}),
                "schema violation (config.labels.a: expected a string)",
            ),
        ] {
            assert_eq!(schema().fill(&config).unwrap_err().to_string(), expected, "{config}");
        }
    }
}
