//! This knows the sample files, and how to fill in what they leave to their reader.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value as Json;
use testbed::pki::Ca;
use testbed::process::{Process, binary};

pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../kong-conf")
}

pub(crate) fn sample(name: &str) -> String {
    let path = folder().join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

pub(crate) fn write(dir: &Path, name: &str, content: &str) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, content).unwrap();
    path
}

/// The text with a CA wherever it says that yours goes.
pub(crate) fn with_ca(text: &str, ca: &Ca) -> String {
    let pem = ca.pem();
    let base64: Vec<_> = pem.lines().filter(|line| !line.starts_with("-----")).collect();
    let mut filled = String::new();
    for line in text.lines() {
        match line.strip_suffix("(your CA)") {
            Some(indent) => base64.iter().for_each(|line| filled += &format!("{indent}{line}\n")),
            None => filled += &format!("{line}\n"),
        }
    }
    filled
}

/// The documents of a YAML file, with numbers as Kubernetes reads them: a leading 0 is octal.
pub(crate) fn documents(text: &str) -> Vec<Json> {
    let options = serde_saphyr::options! { legacy_octal_numbers: true };
    serde_saphyr::from_multiple_with_options(text, options).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

pub(crate) fn document(text: &str) -> Json {
    let mut all = documents(text);
    assert_eq!(all.len(), 1, "{text}");
    all.remove(0)
}

pub(crate) fn strings(list: &Json) -> Vec<&str> {
    let list = list.as_array().unwrap_or_else(|| panic!("no list: {list}"));
    list.iter().map(|item| item.as_str().unwrap_or_else(|| panic!("no text: {item}"))).collect()
}

/// The settings of a `kong.conf`. Commands in comments count as lines of their own, `alternatives`.
pub(crate) struct KongConf {
    pub(crate) settings: BTreeMap<String, String>,
    pub(crate) alternatives: Vec<(String, String)>,
}

impl KongConf {
    pub(crate) fn read(name: &str) -> Self {
        let (mut settings, mut alternatives) = (BTreeMap::new(), Vec::new());
        for line in sample(name).lines().map(str::trim).filter(|line| !line.is_empty()) {
            let setting = line.split_once(" = ").map(|(key, value)| (key.to_owned(), value.to_owned()));
            match (line.strip_prefix("# "), setting) {
                (Some(comment), _) if comment.starts_with("pluginserver_") => {
                    let (key, value) = comment.split_once(" = ").unwrap();
                    alternatives.push((key.to_owned(), value.to_owned()));
                }
                (None, Some((key, value))) => {
                    assert!(settings.insert(key, value).is_none(), "{name}: {line}: twice");
                }
                (None, None) => assert!(line.starts_with('#'), "{name}: no setting: {line}"),
                (Some(_), _) => {}
            }
        }
        Self { settings, alternatives }
    }

    /// This, and what another fragment says instead.
    pub(crate) fn with(mut self, other: Self) -> Self {
        self.settings.extend(other.settings);
        self
    }

    pub(crate) fn get(&self, key: &str) -> &str {
        self.settings.get(key).unwrap_or_else(|| panic!("{key} is not set"))
    }
}

/// Starts the plugin server by a command of a sample, with everything that it names in `dir` instead: the declarative file is
/// `kong.yml` there, made where it is absent. Returns once it serves.
pub(crate) fn start_plugin_server(words: &[&str], dir: &Path) -> Process {
    let program = words[0].rsplit('/').next().unwrap();
    assert_eq!(program, "mtls-auth", "{words:?}");
    assert!(words[0].starts_with('/'), "Kong starts it without a PATH: {words:?}");
    let mut command = Command::new(binary("mtls-auth"));
    // `--option value` and `--option=value`.
    let mut words = words[1..].iter().flat_map(|word| match word.split_once('=') {
        Some((option, value)) if word.starts_with("--") => vec![option, value],
        _ => vec![*word],
    });
    let here = |name: &str| dir.join(name).display().to_string();
    while let Some(option) = words.next() {
        let value = words.next().unwrap_or_else(|| panic!("{option} without a value"));
        let value = match option {
            "--socket" => here("mtls-auth.socket"),
            "--proof-key-file" => here("mtls-auth.key"),
            "--declarative-config" => here("kong.yml"),
            // Where nobody else is.
            "--status-listen" => {
                assert!(value.parse::<std::net::SocketAddr>().is_ok(), "{value}");
                "127.0.0.1:0".to_owned()
            }
            "--admin-url" => value.to_owned(),
            _ => panic!("no sample has had {option} so far"),
        };
        command.args([option, &value]);
    }
    if !dir.join("kong.yml").exists() {
        write(dir, "kong.yml", &with_ca(&sample("kong.yml"), &Ca::root("your CA")));
    }
    let process = Process::start(command.arg("--kong-prefix").arg(dir));
    process.wait_for("\"serving\"");
    process
}

/// The value of an option in a command.
pub(crate) fn option<'a>(words: &[&'a str], name: &str) -> Option<&'a str> {
    words.iter().enumerate().find_map(|(position, word)| match word.strip_prefix(name) {
        Some("") => Some(words[position + 1]),
        Some(value) => value.strip_prefix('='),
        None => None,
    })
}
