//! This knows what may be shown of the problem with a JSON text that may hold secrets.

/// What is wrong, with line and column, and without what stands there: the error itself quotes what it stumbled over.
pub(crate) fn json_problem(error: &serde_json::Error) -> String {
    let (line, column) = (error.line(), error.column());
    if !error.is_data() {
        return format!("not JSON, line {line} column {column}");
    }
    let text = error.to_string();
    // These name fields of ours, no values.
    let problem = if text.starts_with("missing field") || text.starts_with("duplicate field") {
        format!(": {text}")
    } else {
        format!(", line {line} column {column}")
    };
    format!("JSON of another form{problem}")
}
