use std::path::Path;
use std::sync::LazyLock;

use atc_router::ast::{Expression, Type, Value};
use atc_router::context::{Context, Match};
use atc_router::interpreter::Execute;
use atc_router::parser::parse;
use atc_router::schema::Schema;
use atc_router::semantics::Validate;
use proptest::prelude::*;
use proptest::sample::select;

use super::super::ServerName;
use super::*;
use crate::sni::tests::replay;

const CORPUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/corpus/sni_expression");

/// The keys, or `any`.
fn keys(expression: &str) -> String {
    match allowed(expression) {
        Ok(allowed) => allowed.iter().map(|allowed| allowed.key.as_str()).collect::<Vec<_>>().join(" "),
        Err(_) => "any".to_owned(),
    }
}

fn assert_keys(table: &[(&str, &str)]) {
    for (expression, expected) in table {
        assert_eq!(keys(expression), *expected, "{expression}");
        // Kong takes it, so the table is about something.
        atc(expression).unwrap();
    }
}

#[test]
fn a_test_of_the_sni_allows_one_name_or_pattern() {
    assert_keys(&[
        (r#"tls.sni == "a.example""#, "a.example"),
        (r#"tls.sni == "A.Example.""#, "a.example"),
        (r##"tls.sni==r#"a.example"#"##, "a.example"),
        (r#"lower(tls.sni) == "a.example""#, "a.example"),
        (r#"any( lower (tls.sni ) ) == "a.example""#, "a.example"),
        ("\r\n\ttls.sni\n==\n\"a.example\" \n", "a.example"),
        (r#"tls.sni =^ ".example""#, ".example"),
        (r#"tls.sni =^ "b.Example""#, ".example"),
        (r#"tls.sni =^ "-b.c.example""#, ".c.example"),
        (r#"tls.sni ^= "api.""#, "api."),
        (r#"tls.sni ^= "Api.v1""#, "api."),
        (r#"tls.sni ^= "a.b.c""#, "a.b."),
    ]);
}

#[test]
fn a_test_of_the_sni_that_no_list_stands_for_allows_any() {
    assert_keys(&[
        (r#"tls.sni != "a.example""#, "any"),
        (r#"tls.sni contains "a.example""#, "any"),
        (r#"tls.sni == """#, "any"),
        (r#"tls.sni == "*.example""#, "any"),
        (r#"tls.sni == "a.*""#, "any"),
        (r#"tls.sni == ".example""#, "any"),
        (r#"tls.sni == "a b""#, "any"),
        (r#"tls.sni == "10.0.0.1""#, "any"),
        (r#"tls.sni == "münchen.example""#, "any"),
        (r#"tls.sni == "a\n.example""#, "any"),
        (r#"tls.sni == "a.example..""#, "any"),
        (r#"tls.sni =^ """#, "any"),
        (r#"tls.sni =^ ".""#, "any"),
        (r#"tls.sni =^ "example""#, "any"),
        (r#"tls.sni =^ "..example""#, "any"),
        (r#"tls.sni ^= """#, "any"),
        (r#"tls.sni ^= "api""#, "any"),
        (r#"tls.sni ^= ".a""#, "any"),
        (r#"tls.sni ^= "*.a""#, "any"),
    ]);
}

#[test]
fn a_regular_expression_allows_a_list_where_it_is_but_a_text() {
    assert_keys(&[
        (r##"tls.sni ~ r#"^a\.example$"#"##, "a.example"),
        (r#"tls.sni ~ "^a\\.example$""#, "a.example"),
        (r#"tls.sni ~ "^a-b_c$""#, "a-b_c"),
        (r#"tls.sni ~ "\\.example$""#, ".example"),
        (r#"tls.sni ~ ".*\\.example$""#, ".example"),
        (r#"tls.sni ~ "^.*\\.example$""#, ".example"),
        (r#"tls.sni ~ "^api\\.""#, "api."),
        (r#"tls.sni ~ "^a.example$""#, "any"),
        (r#"tls.sni ~ "a\\.example""#, "any"),
        (r#"tls.sni ~ "^.*a\\.example""#, "any"),
        (r#"tls.sni ~ "^a\\.example|b$""#, "any"),
        (r#"tls.sni ~ "(?i)^a\\.example$""#, "any"),
        (r#"tls.sni ~ "(?m)^a\\.example$""#, "any"),
        (r#"tls.sni ~ "^[ab]\\.example$""#, "any"),
        (r#"tls.sni ~ "^a*\\.example$""#, "any"),
        (r#"tls.sni ~ "^a\\.example?$""#, "any"),
        (r#"tls.sni ~ "^a{2}\\.example$""#, "any"),
        (r#"tls.sni ~ "^\\w\\.example$""#, "any"),
        (r#"tls.sni ~ "^a\\.example\\$""#, "any"),
        (r#"tls.sni ~ "^a\\.example$$""#, "any"),
        (r#"tls.sni ~ "^$""#, "any"),
        (r#"tls.sni ~ """#, "any"),
    ]);
}

#[test]
fn of_and_either_side_counts_and_of_or_both() {
    let (a, b, other) = (r#"tls.sni == "a""#, r#"tls.sni == "b""#, r#"http.path ^= "/""#);
    let suffix = r#"tls.sni =^ ".x""#;
    for (expression, expected) in [
        (format!("{a} && {other}"), "a"),
        (format!("{other} && {a} && {other}"), "a"),
        (format!("{a} || {b}"), "a b"),
        (format!("{a} || {b} || {other}"), "any"),
        (format!("{other} || {a}"), "any"),
        (format!("({a} || {b}) && ({other} || {a})"), "a b"),
        (format!("({a} || {b}) && {b}"), "b"),
        (format!("{suffix} && ({a} || {b})"), "a b"),
        (format!("({a} || {b}) && {suffix}"), "a b"),
        (format!("{a} || {b} && {suffix}"), "a b"),
        // Whichever of the two binds tighter.
        (format!("{other} && {other} || {a}"), "any"),
        (format!("{a} && {other} || {b} && {other}"), "a b"),
        (format!("{a} && {other} || {other}"), "any"),
        (format!("{other} || {other} && {a}"), "any"),
        (format!("{a} && ({other} || {other})"), "a"),
        (format!("!({a})"), "any"),
        (format!("!({other})"), "any"),
        (format!("!(!({a}))"), "any"),
        (format!("!({other}) && {a}"), "a"),
        (format!("!({a} || {other}) && {b}"), "b"),
        (format!("(({a}))"), "a"),
    ] {
        assert_keys(&[(&expression, expected)]);
    }
}

#[test]
fn tests_of_other_fields_allow_any() {
    for other in [
        r#"http.host == "a.example""#,
        r#"http.headers.tls_sni == "a.example""#,
        r#"http.queries.sni == "a" || http.path.segments.0_1 == "b""#,
        r#"lower(http.path) ~ "tls.sni == \"a\"""#,
        r##"http.path == r#"\" && tls.sni == "a""#"##,
        r#"net.protocol != "https" || tls.sni == "a.example""#,
        "net.dst.port == 8443 && net.dst.port >= 0x1F && net.dst.port < -017",
        "net.src.ip in 10.0.0.0/8 || net.src.ip not in fd00::/8 || net.src.ip == ::1",
        "http.path.segments.len == 3",
    ] {
        assert_keys(&[(other, "any")]);
        assert_keys(&[(&format!("({other}) && tls.sni == \"a\""), "a")]);
    }
}

#[test]
fn what_is_not_the_language_allows_any() {
    for wrong in [
        "",
        " ",
        "tls.sni",
        "tls.sni ==",
        "tls.sni == name",
        r#"tls.sni = "a""#,
        r#"tls.sni === "a""#,
        r#"tls.sni == "a"#,
        r#"tls.sni == "a\"#,
        r#"tls.sni == "\x61""#,
        r##"tls.sni == r#"a""##,
        r###"tls.sni == r##"a"##"###,
        r#"tls.sni == 'a'"#,
        r#"tls.sni == "a" && "#,
        r#"tls.sni == "a" & tls.sni == "a""#,
        r#"tls.sni == "a" and tls.sni == "a""#,
        r#"tls.sni == "a" tls.sni == "a""#,
        r#"tls.sni == "a" \0"#,
        "tls.sni == \"a\"\0",
        r#"(tls.sni == "a""#,
        r#"tls.sni == "a")"#,
        r#"! tls.sni == "a""#,
        r#"!!(tls.sni == "a")"#,
        r#"upper(tls.sni) == "a""#,
        r#"lower(tls.sni == "a""#,
        r#"lower() == "a""#,
        r#"1tls.sni == "a""#,
    ] {
        assert!(matches!(allowed(wrong), Err(Open::Unreadable(_))), "{wrong:?}");
        assert!(parse(wrong).is_err(), "{wrong:?}");
    }
    let nested = |depth: usize| format!("{}tls.sni == \"a\"{}", "(".repeat(depth), ")".repeat(depth));
    assert_eq!(keys(&nested(MAX_DEPTH)), "a");
    assert_eq!(keys(&nested(MAX_DEPTH + 1)), "any");
    assert_eq!(keys(&nested(1_000_000)), "any");
    let functions = format!("{}tls.sni{} == \"a\"", "any(".repeat(1000), ")".repeat(1000));
    assert_eq!(keys(&functions), "a");
}

#[test]
fn the_test_is_shown_on_one_line() {
    let test = |expression: &str| allowed(expression).map(|allowed| allowed[0].test.to_string());
    assert_eq!(
        test("lower(any (tls.sni))\n=^\tr#\"x.Example\"#").unwrap(),
        "lower(any(tls.sni)) =^ \"x.Example\""
    );
    assert_eq!(
        test("tls.sni == \"a\x1b[1m\nb\""),
        Err(Open::Undecidable(r#"tls.sni == "a\u{1b}[1m\nb""#.to_owned()))
    );
    assert_eq!(test("tls.sni in 10.0.0.0/8"), Err(Open::Undecidable("tls.sni in 10.0.0.0/8".to_owned())));
}

#[test]
fn what_must_hold_of_any_text_does_for_the_seeds_and_their_mutations() {
    replay::replay(Path::new(CORPUS), 4000, any_text::sni_expression);
    replay::replay(Path::new(CORPUS), 4000, readable_where_kong_can_read);
}

/// What Kong can read, so can we: not a word of its language is missing.
fn readable_where_kong_can_read(text: &[u8]) {
    let Ok(text) = str::from_utf8(text) else { return };
    if let Ok(expression) = atc(text) {
        let allowed = allowed(text);
        assert!(!matches!(allowed, Err(Open::Unreadable(_))), "{allowed:?}");
        for name in NAMES {
            assert_asked_where_it_matches(&expression, allowed.as_deref(), name, "a");
        }
    }
}

/// The fields of Kong's HTTP routes.
static SCHEMA: LazyLock<Schema> = LazyLock::new(|| {
    let mut schema = Schema::default();
    for field in ["net.protocol", "tls.sni", "http.method", "http.host", "http.path"] {
        schema.add_field(field, Type::String);
    }
    for field in ["http.path.segments.*", "http.headers.*", "http.queries.*"] {
        schema.add_field(field, Type::String);
    }
    for field in ["net.src.port", "net.dst.port", "http.path.segments.len"] {
        schema.add_field(field, Type::Int);
    }
    for field in ["net.src.ip", "net.dst.ip"] {
        schema.add_field(field, Type::IpAddr);
    }
    schema
});

/// An expression as Kong reads it, if it takes it.
fn atc(expression: &str) -> Result<Expression, String> {
    let read = parse(expression).map_err(|error| error.to_string())?;
    read.validate(&SCHEMA)?;
    Ok(read)
}

/// Whether Kong takes the route for a request to this host, over TLS with the server name that the shim hands on.
fn matches(expression: &Expression, name: &ServerName, host: &str) -> bool {
    let mut context = Context::new(&SCHEMA);
    if let ServerName::Name(name) = name {
        context.add_value("tls.sni", Value::String(name.clone()));
    }
    context.add_value("http.host", Value::String(host.to_owned()));
    context.add_value("net.protocol", Value::String("https".to_owned()));
    context.add_value("net.dst.port", Value::Int(443));
    expression.execute(&mut context, &mut Match::new())
}

fn assert_asked_where_it_matches(
    expression: &Expression,
    allowed: Result<&[Allowed], &Open>,
    name: &str,
    host: &str,
) {
    let named = ServerName::from_wire(Some(name).filter(|name| !name.is_empty()).map(str::as_bytes));
    if !matches(expression, &named, host) {
        return;
    }
    let Ok(allowed) = allowed else { return };
    let ServerName::Name(named) = named else { panic!("{name:?} is not in {allowed:?}") };
    let stands = |key: &str| {
        name::suffixes(&named)
            .chain(name::prefixes(&named))
            .chain([named.as_str()])
            .any(|of_name| of_name == key)
    };
    assert!(allowed.iter().any(|allowed| stands(&allowed.key)), "{named:?} is not in {allowed:?}");
}

/// Server names of clients; the first is none.
const NAMES: [&str; 12] = [
    "",
    "a",
    "b",
    "A.Example.",
    "a.example",
    "b.a.example",
    "a.b",
    "b.a",
    "a.a.a",
    "axexample",
    "10.0.0.1",
    "a b",
];

fn random_test() -> impl Strategy<Value = String> {
    let field = select(vec!["tls.sni", "tls.sni", "tls.sni", "lower(tls.sni)", "any(tls.sni)", "http.host"]);
    let operator = select(vec!["==", "==", "!=", "^=", "=^", "~", "contains"]);
    let text = prop_oneof![
        select(NAMES.to_vec()).prop_map(str::to_owned),
        "[ab.]{0,4}",
        r"\^?(\.\*)?[ab.]{0,3}(\\\.)?[ab]{0,2}[*+?]?\$?",
        r"[ab]\|[ab]\$",
    ];
    let of_text = (field, operator, text).prop_map(|(field, operator, text)| {
        let text = if text.contains('\\') { format!("r#\"{text}\"#") } else { format!("{text:?}") };
        format!("{field} {operator} {text}")
    });
    let other = select(vec!["net.dst.port == 443", "net.dst.port > 443", r#"net.protocol == "https""#]);
    prop_oneof![6 => of_text, 1 => other.prop_map(str::to_owned)]
}

fn random_expression() -> impl Strategy<Value = String> {
    random_test().prop_recursive(5, 24, 3, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(one, other)| format!("{one} && {other}")),
            (inner.clone(), inner.clone()).prop_map(|(one, other)| format!("{one}||{other}")),
            inner.clone().prop_map(|inner| format!("({inner})")),
            inner.prop_map(|inner| format!("!( {inner})")),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(3000) })]

    /// Every connection that matches by Kong's own reading has an SNI of the list.
    #[test]
    fn no_expression_is_read_too_narrow(text in random_expression()) {
        let Ok(expression) = atc(&text) else { return Ok(()) };
        let allowed = allowed(&text);
        prop_assert!(!matches!(allowed, Err(Open::Unreadable(_))), "{:?}", allowed);
        for name in NAMES {
            for host in ["a", "b"] {
                assert_asked_where_it_matches(&expression, allowed.as_deref(), name, host);
            }
        }
    }
}
