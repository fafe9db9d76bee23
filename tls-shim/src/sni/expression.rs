//! This knows what a route in Kong's expressions language certainly says about the SNI.
//!
//! The result may be too wide, never too narrow: a client that is not asked is refused on a route that wants its
//! certificate. So it goes by what holds of all that the expression could match:
//!
//! - A test of another field, and one of `tls.sni` that no list of names can stand for, says nothing.
//! - Of two that both hold (`&&`), either will do: the narrower is taken. Of two of which one holds (`||`), both count,
//!   and where one says nothing, neither do both. What is negated says nothing: `!(tls.sni == "a")` lets pass all others,
//!   and where there is no SNI.
//! - Kong up to 3.3 reads `a && b || c` from left to right, Kong from 3.4 on as `a && (b || c)`, most people as
//!   `(a && b) || c`. The last one is what is read here: it matches whenever one of the others does.
//!
//! What Kong sees is what the shim names when it talks TLS to Kong: the client's SNI in lower case, without a trailing
//! dot. Kong itself compares byte by byte. Over plain HTTP Kong sees no SNI, and no test of it holds then, `!=` no more
//! than `==`: such a route is not reached, or for another reason in the same expression, which says nothing here. So one
//! map is right for both.
//!
//! A parser of our own, since that of Kong's `atc-router` crate comes with a parser generator and compiles every regular
//! expression that it meets. It reads all that the crate does (tests hold it to that), some that it refuses, and what
//! neither knows asks everybody.

use std::fmt;
use std::sync::Arc;

use super::name;

/// How deep parentheses may be nested. Each level is a call.
const MAX_DEPTH: usize = 64;

/// The field with the server name.
const FIELD: &str = "tls.sni";

/// One name or pattern that an expression allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Allowed {
    /// As in `name.rs`.
    pub(super) key: String,
    /// The test that says so.
    pub(super) test: Arc<str>,
}

/// Why an expression allows any server name, or none at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Open {
    /// It is not written in the language, or nested too deep, from this byte on.
    Unreadable(usize),
    /// It can match without any test of the SNI.
    Untested,
    /// It can match by this test alone, for which no list of names stands.
    Undecidable(String),
    /// It can match because something does not.
    Negated,
}

/// The names and patterns of which one is the SNI of every connection that this expression can match over TLS.
///
/// # Errors
/// There is no such list, for this reason.
pub(super) fn allowed(expression: &str) -> Result<Vec<Allowed>, Open> {
    let mut reader = Reader { text: expression, at: 0, depth: 0 };
    let limit = reader.whole().map_err(|Unreadable| Open::Unreadable(reader.at))?;
    limit.map(|list| list.allowed)
}

/// What a part of an expression says.
type Limit = Result<List, Open>;

#[derive(Debug)]
struct List {
    allowed: Vec<Allowed>,
    /// How many of them are patterns.
    patterns: usize,
}

fn both(one: Limit, other: Limit) -> Limit {
    match (one, other) {
        (Ok(one), Ok(other)) => {
            let size = |list: &List| (list.patterns, list.allowed.len());
            Ok(if size(&other) < size(&one) { other } else { one })
        }
        (Ok(list), Err(_)) | (Err(_), Ok(list)) => Ok(list),
        // What says most about the SNI is what people want to know of.
        (Err(Open::Untested), Err(open)) | (Err(open), Err(_)) => Err(open),
    }
}

fn either(one: Limit, other: Limit) -> Limit {
    let (mut one, other) = (one?, other?);
    one.allowed.extend(other.allowed);
    one.patterns += other.patterns;
    Ok(one)
}

/// What comes next is none of the language.
#[derive(Debug)]
struct Unreadable;

/// Reads from left to right, each byte once.
struct Reader<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
}

impl<'a> Reader<'a> {
    fn whole(&mut self) -> Result<Limit, Unreadable> {
        let limit = self.alternatives()?;
        self.space();
        if self.rest().is_empty() { Ok(limit) } else { Err(Unreadable) }
    }

    fn alternatives(&mut self) -> Result<Limit, Unreadable> {
        let mut limit = self.conditions()?;
        while self.takes("||") {
            limit = either(limit, self.conditions()?);
        }
        Ok(limit)
    }

    fn conditions(&mut self) -> Result<Limit, Unreadable> {
        let mut limit = self.term()?;
        while self.takes("&&") {
            limit = both(limit, self.term()?);
        }
        Ok(limit)
    }

    fn term(&mut self) -> Result<Limit, Unreadable> {
        let negated = self.takes("!");
        if !self.takes("(") {
            // `!` stands before parentheses only.
            return if negated { Err(Unreadable) } else { self.test() };
        }
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(Unreadable);
        }
        let limit = self.alternatives()?;
        self.depth -= 1;
        if !self.takes(")") {
            return Err(Unreadable);
        }
        Ok(if negated { Err(Open::Negated) } else { limit })
    }

    /// Such as `lower(tls.sni) == "a.example"`.
    fn test(&mut self) -> Result<Limit, Unreadable> {
        let (field, functions) = self.left_side()?;
        let operator = self.operator()?;
        let value = self.value()?;
        if field != FIELD {
            return Ok(Err(Open::Untested));
        }
        // As it was meant, not as it was written: on one line, and without anything that a terminal could obey.
        let before: String = functions.iter().rev().map(|function| format!("{function}(")).collect();
        let after = ")".repeat(functions.len());
        let test = format!("{before}{field}{after} {operator} {value}");
        let key = match &value {
            // Both functions leave a name as the shim writes it as it is.
            Value::Text(text) => key(operator, text),
            Value::Other(_) => None,
        };
        Ok(match key {
            Some(key) => {
                let patterns = usize::from(name::is_pattern(&key));
                Ok(List { allowed: vec![Allowed { key, test: test.into() }], patterns })
            }
            None => Err(Open::Undecidable(test)),
        })
    }

    /// The field, and the functions around it, the innermost first.
    fn left_side(&mut self) -> Result<(&'a str, Vec<&'a str>), Unreadable> {
        let mut functions = Vec::new();
        let mut word = self.word()?;
        while self.takes("(") {
            if !matches!(word, "lower" | "any") {
                return Err(Unreadable);
            }
            functions.push(word);
            word = self.word()?;
        }
        for _ in &functions {
            if !self.takes(")") {
                return Err(Unreadable);
            }
        }
        functions.reverse();
        Ok((word, functions))
    }

    fn word(&mut self) -> Result<&'a str, Unreadable> {
        self.space();
        let rest = self.rest();
        if !rest.starts_with(|first: char| first.is_ascii_alphabetic()) {
            return Err(Unreadable);
        }
        Ok(self.while_in(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.')))
    }

    fn operator(&mut self) -> Result<&'static str, Unreadable> {
        const OPERATORS: [&str; 11] = ["==", "!=", "~", "^=", "=^", ">=", ">", "<=", "<", "in", "contains"];
        if let Some(operator) = OPERATORS.into_iter().find(|operator| self.takes(operator)) {
            return Ok(operator);
        }
        if self.takes("not") && self.takes("in") { Ok("not in") } else { Err(Unreadable) }
    }

    fn value(&mut self) -> Result<Value<'a>, Unreadable> {
        if self.takes("r#\"") {
            let length = self.rest().find("\"#").ok_or(Unreadable)?;
            let text = &self.rest()[..length];
            self.at += length + 2;
            return Ok(Value::Text(text.to_owned()));
        }
        if self.takes("\"") {
            return self.quoted();
        }
        // Numbers, addresses and networks. After one of them there is nothing that could belong to it.
        let other = self
            .while_in(|byte| byte.is_ascii_hexdigit() || matches!(byte, b'x' | b'-' | b':' | b'.' | b'/'));
        if other.is_empty() { Err(Unreadable) } else { Ok(Value::Other(other)) }
    }

    /// What follows the first quotation mark.
    fn quoted(&mut self) -> Result<Value<'a>, Unreadable> {
        let mut text = String::new();
        let mut chars = self.rest().char_indices();
        while let Some((at, char)) = chars.next() {
            text.push(match char {
                '"' => {
                    self.at += at + 1;
                    return Ok(Value::Text(text));
                }
                '\\' => match chars.next().ok_or(Unreadable)?.1 {
                    escaped @ ('"' | '\\') => escaped,
                    'n' => '\n',
                    'r' => '\r',
                    't' => '\t',
                    _ => return Err(Unreadable),
                },
                char => char,
            });
        }
        Err(Unreadable)
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn space(&mut self) {
        self.while_in(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n'));
    }

    /// Whether this comes next, after any space. It is passed then.
    fn takes(&mut self, token: &str) -> bool {
        self.space();
        let taken = self.rest().starts_with(token);
        if taken {
            self.at += token.len();
        }
        taken
    }

    fn while_in(&mut self, class: impl Fn(u8) -> bool) -> &'a str {
        let rest = self.rest();
        let length = rest.bytes().position(|byte| !class(byte)).unwrap_or(rest.len());
        self.at += length;
        &rest[..length]
    }
}

/// The right side of a test.
enum Value<'a> {
    Text(String),
    /// As it was written.
    Other(&'a str),
}

impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => write!(f, "{text:?}"),
            Self::Other(text) => write!(f, "{text}"),
        }
    }
}

/// The key of all names for which a test of the SNI can hold.
fn key(operator: &str, text: &str) -> Option<String> {
    match operator {
        "==" => name::exact(text),
        "^=" => name::beginning(text),
        "=^" => name::ending(text),
        "~" => {
            let (operator, text) = literal(text)?;
            key(operator, &text)
        }
        _ => None,
    }
}

/// What a regular expression says that is but a text with an anchor, as operator and text: `^a\.example$`, `\.example$`,
/// `^.*\.example$`, `^api\.`. Kong's regular expressions match anywhere, and have no other meaning for these signs.
fn literal(regex: &str) -> Option<(&'static str, String)> {
    let (regex, begins) = match regex.strip_prefix('^') {
        Some(rest) => (rest, !rest.starts_with(".*")),
        None => (regex, false),
    };
    let regex = regex.strip_prefix(".*").unwrap_or(regex);
    let (regex, ends) = match regex.strip_suffix('$') {
        Some(rest) => (rest, true),
        None => (regex, false),
    };
    let mut text = String::new();
    let mut chars = regex.chars();
    while let Some(char) = chars.next() {
        text.push(match char {
            '\\' => chars.next().filter(|char| matches!(char, '.' | '-'))?,
            char => Some(char).filter(|char| char.is_ascii_alphanumeric() || matches!(char, '-' | '_'))?,
        });
    }
    match (begins, ends) {
        (true, true) => Some(("==", text)),
        (true, false) => Some(("^=", text)),
        (false, true) => Some(("=^", text)),
        (false, false) => None,
    }
}

// With their paths, since the fuzz target takes this file in from elsewhere.
#[cfg(test)]
#[path = "expression/any_text.rs"]
mod any_text;
#[cfg(test)]
#[path = "expression/tests.rs"]
mod tests;
