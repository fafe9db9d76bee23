//! The documents name what there is.

use std::collections::{BTreeSet, HashSet};
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
fn every_test_that_the_tables_name_is_there() {
    let mut known = HashSet::new();
    tests(&root(), &mut known);
    for name in ["docs/behaviour.md", "docs/security-tests.md"] {
        let document = document(name);
        let is_head = |line: &str| line.ends_with("| test |") || line.ends_with("| tests |");
        let rows: Vec<_> = document
            .lines()
            .filter(|line| line.starts_with('|') && !line.starts_with("|---") && !is_head(line))
            .collect();
        assert!(rows.len() > 40, "{name}");
        for row in rows {
            let cell = row.trim_end_matches('|').rsplit(" | ").next().unwrap();
            assert!(quoted(cell).count() > 0, "no test: {row}");
            for test in quoted(cell) {
                assert!(known.contains(test), "{name}: there is no test {test}");
            }
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
    // docs/configuration.md is written from the schema: see plugin-server/src/schema/reference.rs.
    let document = document("docs/behaviour.md");
    let documented: HashSet<_> = quoted(&document).collect();
    for name in &names {
        let is_there = documented.iter().any(|text| text.split([':', ' ']).next() == Some(name.as_str()));
        assert!(is_there, "docs/behaviour.md says nothing about {name}");
    }
}

/// The rows of the tables in the section with this heading, each as its cells.
fn rows<'a>(document: &'a str, heading: &str) -> Vec<Vec<&'a str>> {
    let lines = document.lines().skip_while(|line| *line != heading).skip(1);
    let section = lines.take_while(|line| !line.starts_with("## "));
    let rows: Vec<Vec<_>> = section
        .filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"))
        .map(|row| row.split(" | ").collect())
        .skip(1)
        .collect();
    assert!(!rows.is_empty(), "no table under {heading}");
    rows
}

#[test]
fn every_option_of_the_server_is_documented_with_its_default_and_no_other() {
    let output = Command::new(binary("mtls-auth")).args(["serve", "--help"]).output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    // Lines such as `      --socket <PATH>    The socket to serve on [default: …]`.
    let options: BTreeSet<_> = help
        .lines()
        .filter_map(|line| line.strip_prefix("      --")?.split_once("  "))
        .map(|(usage, meaning)| {
            let default = meaning.split_once("[default: ").map(|(_, rest)| rest.split_once(']').unwrap().0);
            let usage = usage.replace(['<', '>'], "");
            (format!("--{usage}"), default.unwrap_or_default().to_owned())
        })
        .collect();
    assert!(options.len() > 10, "{help}");
    let document = document("docs/configuration.md");
    let documented: BTreeSet<_> = rows(&document, "## Options of the server")
        .into_iter()
        .map(|cells| (cells[0].replace('`', ""), cells[1].replace('`', "")))
        // What is so where nothing is set, and is no value.
        .map(|(option, default)| {
            (option, if ["none", "off"].contains(&&*default) { String::new() } else { default })
        })
        .collect();
    assert_eq!(options, documented);
}

#[test]
fn every_key_of_the_shims_settings_is_documented_and_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("shim.yml");
    // The keys that may stand in a place are told to whoever writes another one there.
    let keys = |text: &str| -> Vec<String> {
        std::fs::write(&file, text).unwrap();
        let check = Command::new(binary("tls-shim")).args(["check", "--config"]).arg(&file).output().unwrap();
        let said = String::from_utf8(check.stderr).unwrap();
        // One that has no keys says something else.
        let Some((_, known)) = said.split_once("unknown field `nonsense`, expected ") else {
            return Vec::new();
        };
        let known = known.split_once(" at line ").unwrap().0.trim_start_matches("one of ");
        known.split(", ").map(str::to_owned).collect()
    };
    let mut known = BTreeSet::new();
    for key in keys("nonsense: 1") {
        let below = keys(&format!("{key}: {{nonsense: 1}}"));
        known.extend(below.into_iter().map(|name| format!("{key}.{name}")));
        known.insert(key);
    }
    assert!(known.len() > 40, "{known:?}");
    let document = document("docs/shim.md");
    let rows = rows(&document, "## All keys of shim.yml");
    let documented: BTreeSet<_> =
        rows.iter().map(|cells| quoted(cells[0]).next().unwrap().to_owned()).collect();
    assert_eq!(known, documented);
}

/// The documents that people read, by their paths from the root.
fn documents() -> Vec<String> {
    let mut found: Vec<String> =
        ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "spec/README.md"]
            .map(str::to_owned)
            .into();
    for entry in std::fs::read_dir(root().join("docs")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name.ends_with(".md") {
            found.push(format!("docs/{name}"));
        }
    }
    found
}

/// The text without code, in which brackets are no links and `#` begins no heading.
fn prose(document: &str) -> String {
    let mut is_code = false;
    let mut text = String::new();
    for line in document.lines() {
        if line.trim_start().starts_with("```") {
            is_code = !is_code;
        } else if !is_code {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

/// Where the links of a text lead.
fn links(text: &str) -> Vec<&str> {
    text.split("](").skip(1).map(|rest| rest.split_once(')').expect("a link ends").0).collect()
}

/// The anchors of a document's headings, as GitHub makes them.
fn anchors(text: &str) -> HashSet<String> {
    let mut found = HashSet::new();
    for heading in text.lines().filter(|line| line.starts_with('#')) {
        let words = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = words.chars().filter(|char| char.is_alphanumeric() || [' ', '-', '_'].contains(char));
        let anchor = kept.collect::<String>().replace(' ', "-");
        // The second of two that are alike has a number.
        let numbered = (1..).map(|number| format!("{anchor}-{number}"));
        let free = std::iter::once(anchor.clone()).chain(numbered).find(|anchor| !found.contains(anchor));
        found.extend(free);
    }
    found
}

#[test]
fn every_link_leads_somewhere() {
    let mut count = 0;
    for name in documents() {
        let text = prose(&document(&name));
        for link in links(&text).into_iter().filter(|link| !link.contains("://")) {
            let (path, anchor) =
                link.split_once('#').map_or((link, None), |(path, anchor)| (path, Some(anchor)));
            let here = root().join(&name);
            let target = if path.is_empty() { here } else { here.parent().unwrap().join(path) };
            assert!(target.exists(), "{name}: there is no {link}");
            if let Some(anchor) = anchor {
                let there = prose(&std::fs::read_to_string(&target).unwrap());
                assert!(anchors(&there).contains(anchor), "{name}: there is no {link}");
            }
            count += 1;
        }
    }
    assert!(count > 100, "{count} links");
}
