//! This knows what PDK functions check before they do anything: the phase and the types of their arguments.

use crate::{
    headers::{Given, values_of},
    phase::{Phase, Stop},
    value::Value,
};

/// Throws unless the call is allowed in this phase.
pub(crate) fn only(phase: Phase, allowed: &[Phase]) -> Result<(), Stop> {
    if allowed.contains(&phase) {
        return Ok(());
    }
    let names: Vec<_> = allowed.iter().map(|phase| phase.name()).collect();
    Err(format!("function cannot be called in {} phase (only in: {})", phase.name(), names.join(", ")).into())
}

/// A string argument, or Kong's complaint.
pub(crate) fn text_arg<'a>(value: &'a Value, what: &str) -> Result<&'a [u8], Stop> {
    value.as_bytes().ok_or_else(|| format!("{what} must be a string").into())
}

pub(crate) fn header_name_arg(value: &Value) -> Result<&[u8], Stop> {
    let wrong = || {
        let name = String::from_utf8_lossy(&value.to_lua_string()).into_owned();
        format!("invalid header name {name:?}: got {}, expected string", value.type_name()).into()
    };
    value.as_bytes().ok_or_else(wrong)
}

/// A table of headers after `validate_headers`.
pub(crate) fn header_table(table: &Value) -> Result<Given, Stop> {
    let entries = match table {
        Value::Map(entries) => entries.as_slice(),
        Value::List(items) if items.is_empty() => &[],
        Value::List(_) => return Err("invalid header name 1: got number, expected string".to_owned().into()),
        _ => return Err("headers must be a table".to_owned().into()),
    };
    let header = |(name, value): &(Value, Value)| {
        let name = header_name_arg(name)?;
        Ok((name.to_vec(), values_of(name, value)?))
    };
    entries.iter().map(header).collect()
}

/// `max_headers` or `max_args`: 100 where not given, 1 to 1000.
pub(crate) fn limit(max: &Value, what: &str) -> Result<usize, Stop> {
    match max {
        Value::Nil => Ok(100),
        Value::Number(n) if *n < 1.0 => Err(format!("{what} must be >= 1").into()),
        Value::Number(n) if *n > 1000.0 => Err(format!("{what} must be <= 1000").into()),
        Value::Number(n) => Ok(*n as usize),
        _ => Err(format!("{what} must be a number").into()),
    }
}

/// The first of a list, or the value itself.
pub(crate) fn first(value: &Value) -> Value {
    if let Value::List(items) = value { items.first().cloned().unwrap_or(Value::Nil) } else { value.clone() }
}
