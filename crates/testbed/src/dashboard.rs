//! This knows which metrics the dashboard that ships asks for.

use std::path::Path;

use serde_json::Value as Json;

/// The names of metrics in the dashboard's queries, and in those of its variables, that begin with `prefix`: one for each
/// time that it stands there.
pub fn asked_for(prefix: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../kong-conf/grafana-dashboard.json");
    let text = std::fs::read_to_string(path).expect("the dashboard");
    let dashboard: Json = serde_json::from_str(&text).expect("the dashboard is JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let targets = panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    let variables = dashboard["templating"]["list"].as_array().expect("variables");
    let queries = targets
        .map(|target| target["expr"].as_str().expect("a query"))
        .chain(variables.iter().filter_map(|variable| variable["query"]["query"].as_str()));
    let is_part_of_a_name = |character: char| character.is_ascii_alphanumeric() || character == '_';
    queries
        .flat_map(|query| query.split(|character| !is_part_of_a_name(character)))
        .filter(|word| word.starts_with(prefix))
        .map(str::to_owned)
        .collect()
}
