//! This knows the guard's function: what it is, and how it is told from others.

/// The plugin that carries it. Kong runs it after all other plugins; `pre-function` comes before them, when nobody can
/// have authenticated the request yet.
pub(crate) const CARRIER: &str = "post-function";

/// The function, for the access phase. Each way in which [`crate::access`] lets a request pass leaves a consumer or a
/// credential: a mapped one both, a trusted one in skip mode a credential with or without a group, `anonymous` a consumer;
/// and whom it leaves alone an earlier plugin gave a credential.
pub(crate) const GUARD: &str = include_str!("guard.lua");

/// Whether a function is the guard. What else stands there may do the same, but nobody can vouch for it.
pub(crate) fn is_guard(function: &str) -> bool {
    code(function) == code(GUARD)
}

/// A function without what makes no difference to Lua: lines that are comments, and how much space stands between words.
/// What is more than that, such as a comment behind code, stays and is a difference.
fn code(function: &str) -> String {
    let lines = function.split(['\n', '\r']).map(str::trim);
    // A long comment, `--[[`, goes on over the end of its line.
    let words = lines
        .filter(|line| !line.starts_with("--") || line.starts_with("--["))
        .flat_map(str::split_ascii_whitespace);
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guard_is_known_by_its_code_and_nothing_else_is_taken_for_it() {
        let bare = "if not (kong.client.get_credential() or kong.client.get_consumer()) then\n  \
                    return kong.response.error(503, \"Authentication is not available\")\nend\n";
        assert!(GUARD.ends_with(bare) && GUARD.starts_with("-- kong-mtls-auth guard v1"));
        let one_line = bare.replace('\n', " ");
        for same in
            [GUARD, bare, bare.trim(), &one_line, &GUARD.replace('\n', "\r\n"), &bare.replace("  ", "\t")]
        {
            assert!(is_guard(same), "{same}");
        }
        for other in [
            String::new(),
            GUARD.lines().next().unwrap().to_owned(),
            bare.replace("not ", ""),
            bare.replace(" or ", " and "),
            bare.replace("503", "200"),
            bare.replace("get_consumer()", "get_ip()"),
            format!("do return end {bare}"),
            format!("--[[\n{bare}]]"),
            format!("-- a comment ends at\rdo return end\n{bare}"),
            format!("{} -- behind code", bare.trim()),
        ] {
            assert!(!is_guard(&other), "{other}");
        }
    }
}
