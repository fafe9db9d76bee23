//! What must hold of any text in place of an expression. The fuzz target and the run of its seeds call the same.

use super::{Open, allowed, name};

/// Reads a text: what it allows are names and patterns that a map can have, parentheses change nothing, another
/// condition beside it takes nothing away, and an alternative to it opens it.
///
/// # Panics
/// Where what must hold does not.
pub(crate) fn sni_expression(text: &[u8]) {
    let Ok(text) = str::from_utf8(text) else { return };
    let read = allowed(text);
    let again =
        |text: String| allowed(&text).map(|allowed| allowed.into_iter().map(|allowed| allowed.key).collect());
    match &read {
        Ok(allowed) => {
            assert!(!allowed.is_empty(), "a list of nothing asks nobody");
            let keys: Vec<_> = allowed.iter().map(|allowed| allowed.key.clone()).collect();
            for key in &keys {
                assert_eq!(name::key(&name::written(key)).as_ref(), Some(key));
            }
            if !text.contains("((") {
                assert_eq!(again(format!("({text})")), Ok(keys.clone()));
                assert_eq!(again(format!("http.path == \"/\" && ({text})")), Ok(keys));
            }
            assert_eq!(again(format!("{text} || http.path == \"/\"")), Err(Open::Untested));
            assert!(again(format!("!({text})")).is_err());
        }
        Err(Open::Unreadable(byte)) => assert!(*byte <= text.len() && text.is_char_boundary(*byte)),
        Err(_) => {}
    }
}
