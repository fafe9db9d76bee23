//! Every sample configuration that ships is one that the programs take, and says what it should.

mod admin_api;
mod entities;
mod kong_conf;
mod kong_yml;
mod kubernetes;
mod nginx;
mod sample;
mod shim_yml;
mod systemd;

use std::path::Path;

use sample::{folder, sample};

/// Every file, by the module that has its tests.
const SAMPLES: &[(&str, &[&str])] = &[
    ("kong_yml", kong_yml::FILES),
    ("kong_yml, entities", entities::STATE_FILES),
    ("admin_api", admin_api::SCRIPTS),
    ("kong_conf", kong_conf::FILES),
    ("shim_yml", shim_yml::FILES),
    ("nginx", &["header/nginx.conf"]),
    ("systemd", systemd::FILES),
    ("kubernetes", kubernetes::FILES),
    // Below.
    ("main", &["README.md"]),
    // What the programs export is told from ones that run: see their own tests.
    ("metrics", &["grafana-dashboard.json"]),
];

fn files(folder: &Path, prefix: &str, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let name = format!("{prefix}{}", entry.file_name().into_string().unwrap());
        if entry.file_type().unwrap().is_dir() {
            files(&entry.path(), &format!("{name}/"), found);
        } else {
            found.push(name);
        }
    }
}

#[test]
fn no_sample_is_left_out() {
    let mut found = Vec::new();
    files(&folder(), "", &mut found);
    found.sort();
    let mut tested: Vec<_> = SAMPLES.iter().flat_map(|(_, files)| files.iter().copied()).collect();
    tested.sort_unstable();
    assert_eq!(found, tested, "each has its test here");
}

#[test]
fn the_index_names_every_sample_and_nothing_else() {
    let index = sample("README.md");
    // What is linked to: files, and folders with all that is in them.
    let mut linked: Vec<_> = index.split("](").skip(1).map(|rest| rest.split(')').next().unwrap()).collect();
    linked.retain(|link| !link.starts_with("../") && !link.starts_with('#'));
    for link in &linked {
        assert!(folder().join(link).exists(), "{link}");
    }
    for file in SAMPLES.iter().flat_map(|(_, files)| files.iter()).filter(|file| **file != "README.md") {
        let is_named = linked.iter().any(|link| file == link);
        assert!(is_named, "README.md says nothing of {file}");
    }
}
