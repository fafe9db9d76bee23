//! This knows how the schema reads in `docs/configuration.md`, and holds that page to it.

use std::path::Path;

use serde_json::Value;

use super::{TOKEN, schema};

const BEGIN: &str = "<!-- The fields: written by the test of the schema. -->\n";
const END: &str = "<!-- The end of the fields. -->\n";

/// Set to anything, it has the test write the page anew.
const REWRITE: &str = "REWRITE_DOCS";

#[test]
fn the_page_of_the_configuration_says_what_the_schema_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once(BEGIN).expect("a line where the fields begin");
    let (written, after) = rest.split_once(END).expect("a line where the fields end");
    let expected = fields(&schema());
    if std::env::var_os(REWRITE).is_some() {
        std::fs::write(&path, format!("{before}{BEGIN}{expected}{END}{after}")).unwrap();
    } else if written != expected {
        let differences = differences(written, &expected);
        panic!(
            "docs/configuration.md is not what the schema says; {REWRITE}=1 writes it anew:\n{differences}"
        );
    }
}

#[test]
fn kong_takes_each_description() {
    let mut described = 0;
    for (path, field) in flat(&config_of(&schema())["fields"], "") {
        let description =
            field["description"].as_str().unwrap_or_else(|| panic!("{path} has no description"));
        // Kong's metaschema, since 3.4. It counts bytes.
        assert!((10..=500).contains(&description.len()), "{path}: {} bytes", description.len());
        assert!(description.is_ascii() && description.ends_with('.') && !description.contains('|'), "{path}");
        described += 1;
    }
    assert!(described > 20);
}

/// Lines that only one of the texts has, as `diff` marks them.
fn differences(written: &str, expected: &str) -> String {
    let only = |sign: char, text: &str, other: &str| -> String {
        let lines = text.lines().filter(|line| !other.lines().any(|same| same == *line));
        lines.map(|line| format!("{sign} {line}\n")).collect()
    };
    let found = only('-', written, expected) + &only('+', expected, written);
    if found.is_empty() { "the same lines, in another order".into() } else { found }
}

/// The table of all fields of `config`, and what must hold of several together.
fn fields(schema: &Value) -> String {
    let mut text = String::from("| field | type | default | allowed | meaning |\n|---|---|---|---|---|\n");
    for (path, field) in flat(&config_of(schema)["fields"], "") {
        let meaning = field["description"].as_str().unwrap_or_default();
        text += &format!(
            "| `{path}` | {} | {} | {} | {meaning} |\n",
            kind(field),
            default(field),
            allowed(field)
        );
    }
    text += "\nBesides:\n\n";
    for check in schema["entity_checks"].as_array().unwrap() {
        text += &format!("- {}\n", rule(check));
    }
    text
}

fn config_of(schema: &Value) -> &Value {
    schema["fields"].as_array().unwrap().iter().find_map(|field| field.get("config")).unwrap()
}

/// Each field with its path, and after it those of the records in it.
fn flat<'a>(fields: &'a Value, prefix: &str) -> Vec<(String, &'a Value)> {
    let mut found = Vec::new();
    for (name, field) in fields.as_array().unwrap().iter().flat_map(|field| field.as_object().unwrap()) {
        let path = format!("{prefix}{name}");
        found.push((path.clone(), field));
        if field["elements"]["type"] == "record" {
            found.extend(flat(&field["elements"]["fields"], &format!("{path}[].")));
        }
    }
    found
}

fn kind(field: &Value) -> String {
    let kind = field["type"].as_str().unwrap();
    match field["elements"]["type"].as_str() {
        Some(of) => format!("{kind} of {of}s"),
        None => kind.to_owned(),
    }
}

fn default(field: &Value) -> String {
    match &field["default"] {
        Value::Null if field["required"] == true => "required".into(),
        Value::Null => "none".into(),
        value => code(value),
    }
}

/// What Kong lets through, beyond the type.
fn allowed(field: &Value) -> String {
    if !field["elements"].is_null() {
        let each = allowed(&field["elements"]);
        return match field["len_min"].as_u64() {
            None => each,
            Some(1) => format!("one at least, each {each}"),
            Some(other) => panic!("no words for at least {other}"),
        };
    }
    if let Some(values) = field["one_of"].as_array() {
        return values.iter().map(code).collect::<Vec<_>>().join(", ");
    }
    if let Some(range) = field["between"].as_array() {
        return format!("{} to {}", range[0], range[1]);
    }
    if let Some(problem) = field["match_any"]["err"].as_str() {
        return problem.strip_prefix("expected ").expect("what is expected").to_owned();
    }
    match (field["type"].as_str().unwrap(), field["match"].as_str()) {
        ("string", Some(TOKEN)) => "a header name that is none of the plugin's own".into(),
        ("string", None) => "not empty".into(),
        ("boolean", None) => "`true`, `false`".into(),
        ("record", None) => "the fields below".into(),
        (kind, pattern) => panic!("no words for {kind} with {pattern:?}"),
    }
}

/// What must hold of several fields.
fn rule(check: &Value) -> String {
    let names = |fields: &Value| -> Vec<String> {
        let name = |field: &Value| field_name(field.as_str().unwrap());
        fields.as_array().unwrap().iter().map(name).collect()
    };
    if let Some(together) = check.get("mutually_required") {
        return format!("{} go together.", names(together).join(" and "));
    }
    if let Some(distinct) = check.get("distinct") {
        return format!("No two are alike of {}.", names(distinct).join(", "));
    }
    let conditional = check.get("conditional").unwrap_or_else(|| panic!("no words for {check}"));
    let field = |key: &str| field_name(conditional[key].as_str().unwrap());
    let values = conditional["if_match"]["one_of"].as_array().unwrap();
    let values = values.iter().map(code).collect::<Vec<_>>().join(" or ");
    let must = match &conditional["then_match"] {
        must if must["required"] == true => "is required".into(),
        must if must.get("eq") == Some(&Value::Null) => "cannot be set".into(),
        must if must["eq"].is_boolean() => format!("is {}", code(&must["eq"])),
        must => panic!("no words for {must}"),
    };
    format!("With {} {values}, {} {must}.", field("if_field"), field("then_field"))
}

fn field_name(path: &str) -> String {
    format!("`{}`", path.strip_prefix("config.").unwrap())
}

/// A value as it stands in YAML.
fn code(value: &Value) -> String {
    match value {
        Value::String(text) => format!("`{text}`"),
        Value::Array(items) => {
            let items: Vec<_> = items.iter().map(|item| item.as_str().unwrap()).collect();
            format!("`[{}]`", items.join(", "))
        }
        other => format!("`{other}`"),
    }
}
