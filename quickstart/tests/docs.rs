//! The documents name what there is.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value as Json;
use testbed::process::binary;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn document(name: &str) -> String {
    std::fs::read_to_string(root().join(name)).unwrap()
}

/// The names of all tests in the Rust files below a folder.
fn tests(folder: &Path, names: &mut HashSet<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let (path, name) = (entry.path(), entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            if name != "target" && name != "fuzz" && !name.to_string_lossy().starts_with('.') {
                tests(&path, names);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            names.extend(tests_in(&std::fs::read_to_string(&path).unwrap()));
        }
    }
}

fn tests_in(source: &str) -> Vec<String> {
    let mut is_test = false;
    let mut found = Vec::new();
    for line in source.lines().map(str::trim) {
        if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
            is_test = true;
        } else if let Some((_, rest)) = line.split_once("fn ").filter(|_| is_test) {
            found.push(rest.split('(').next().unwrap().to_owned());
            is_test = false;
        }
    }
    found
}

/// What stands between backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

#[test]
fn every_test_that_the_table_of_behaviour_names_is_there() {
    let mut known = HashSet::new();
    tests(&root(), &mut known);
    let document = document("docs/behaviour.md");
    let rows: Vec<_> = document
        .lines()
        .filter(|line| line.starts_with('|') && !line.starts_with("|---") && !line.ends_with("| test |"))
        .collect();
    assert!(rows.len() > 50);
    for row in rows {
        let cell = row.trim_end_matches('|').rsplit(" | ").next().unwrap();
        assert!(quoted(cell).count() > 0, "no test: {row}");
        for name in quoted(cell) {
            assert!(known.contains(name), "there is no test {name}");
        }
    }
}

#[test]
fn every_field_of_the_plugin_is_documented() {
    let output = Command::new(binary("mtls-auth")).arg("-dump").output().unwrap();
    let info: Json = serde_json::from_slice(&output.stdout).unwrap();
    let fields = info["Plugins"][0]["Schema"]["fields"].as_array().unwrap();
    let config = fields.iter().find_map(|field| field.get("config")).unwrap()["fields"].as_array().unwrap();
    let names: Vec<_> = config.iter().flat_map(|field| field.as_object().unwrap().keys()).collect();
    assert!(names.len() > 15);
    for file in ["README.md", "docs/behaviour.md"] {
        let document = document(file);
        let documented: HashSet<_> = quoted(&document).collect();
        for name in &names {
            let is_there = documented.iter().any(|text| text.split([':', ' ']).next() == Some(name.as_str()));
            assert!(is_there, "{file} says nothing about {name}");
        }
    }
}
