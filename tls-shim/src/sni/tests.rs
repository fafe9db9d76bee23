use std::path::Path;

use super::*;

#[path = "../../../fuzz/replay.rs"]
pub(super) mod replay;

fn map(yaml: &str) -> SniMap {
    let text = format!("_format_version: '3.0'\n{yaml}");
    policy(&kong_entities::parse_yaml(&text).unwrap())
}

fn on_route(snis: &str) -> SniMap {
    map(&format!("routes: [{{name: r, snis: {snis}, plugins: [{{name: mtls-auth}}]}}]"))
}

fn asks(map: &SniMap, sni: &str) -> bool {
    map.asks(&ServerName::from_wire(Some(sni.as_bytes())))
}

fn rows(map: &SniMap) -> Vec<(String, Vec<String>)> {
    let text = |why: &[Reason]| why.iter().map(Reason::to_string).collect();
    map.rows().map(|row| (row.sni, text(row.reasons))).collect()
}

#[test]
fn a_global_plugin_asks_everybody() {
    let map = map("plugins: [{name: mtls-auth}]");
    assert!(map.asks(&ServerName::None) && asks(&map, "any.example"));
    assert_eq!(rows(&map), [("*".into(), vec!["global plugin".into()])]);
}

#[test]
fn a_plugin_on_a_route_asks_for_its_names_only() {
    let map = on_route("[a.example, B.Example.]");
    for name in ["a.example", "A.EXAMPLE", "a.example.", "b.example", "B.example."] {
        assert!(asks(&map, name), "{name}");
    }
    for name in ["C.Example.", "c.example", "a.example.org", "x.a.example", "a.exampl", "xa.example", "a"] {
        assert!(!asks(&map, name), "{name}");
    }
    assert!(!map.asks(&ServerName::None));
}

#[test]
fn a_plugin_on_a_route_without_names_asks_everybody() {
    let map = map("routes: [{name: r, plugins: [{name: mtls-auth}]}]");
    assert!(map.asks(&ServerName::None) && asks(&map, "any.example"));
    assert_eq!(rows(&map), [("*".into(), vec!["plugin on route r, which names no SNI".into()])]);
}

#[test]
fn a_plugin_on_a_service_asks_for_the_names_of_all_its_routes() {
    let service = |second: &str| {
        map(&format!(
            "services: [{{name: s, plugins: [{{name: mtls-auth}}],
               routes: [{{name: one, snis: [one.example]}}, {{name: two, {second}}}]}}]
             \nroutes: [{{name: other, snis: [other.example]}}, {{name: mine, snis: [mine.example], service: s}}]"
        ))
    };
    let listed = service("snis: [two.example]");
    for name in ["one.example", "two.example", "mine.example"] {
        assert!(asks(&listed, name), "{name}");
    }
    assert!(!asks(&listed, "other.example") && !listed.asks(&ServerName::None));
    assert!(service("paths: [/]").asks(&ServerName::None), "one of its routes has no SNI");
}

#[test]
fn the_route_counts_where_service_and_route_are_set() {
    let map = map("services: [{name: s, routes: [{name: a, snis: [a.example]}, {name: b}]}]
         \nplugins: [{name: mtls-auth, service: s, route: a}]");
    assert!(asks(&map, "a.example") && !map.asks(&ServerName::None));
}

#[test]
fn a_consumer_in_the_scope_changes_nothing() {
    let map = map("consumers: [{username: c, plugins: [{name: mtls-auth}]}]");
    assert!(map.asks(&ServerName::None));
}

#[test]
fn disabled_and_other_plugins_do_not_count() {
    let map = map("plugins: [{name: mtls-auth, enabled: false}, {name: key-auth}, {name: mtls-authz}]");
    assert!(rows(&map).is_empty() && !map.asks(&ServerName::None));
    assert!(!asks(&map, "not a name"), "nobody is asked, so neither is this one");
}

#[test]
fn routes_of_the_stream_proxy_do_not_count() {
    let of = |protocols: &str| {
        let route = format!("{{name: r, protocols: {protocols}, plugins: [{{name: mtls-auth}}]}}");
        !rows(&map(&format!("routes: [{route}]"))).is_empty()
    };
    assert!(!of("[tls]") && !of("[tcp, udp, tls_passthrough]"));
    assert!(of("[tls, https]") && of("[http]") && of("[grpcs]") && of("[wss]"));
}

#[test]
fn an_expression_asks_for_the_names_that_it_allows_or_everybody() {
    let of = |expression: &str| {
        let expression = serde_json::to_string(expression).unwrap();
        map(&format!("routes: [{{name: r, expression: {expression}, plugins: [{{name: mtls-auth}}]}}]"))
    };
    let listed = of(r#"(tls.sni == "A.Example" || tls.sni =^ ".b.example") && http.path ^= "/""#);
    for (name, expected) in [("a.example", true), ("x.b.example", true), ("b.example", false), ("c", false)] {
        assert_eq!(asks(&listed, name), expected, "{name}");
    }
    assert!(!listed.asks(&ServerName::None));
    let why = |sni: &str, test: &str| {
        (sni.to_owned(), vec![format!("plugin on route r, whose expression has {test}")])
    };
    assert_eq!(
        rows(&listed),
        [why("*.b.example", r#"tls.sni =^ ".b.example""#), why("a.example", r#"tls.sni == "A.Example""#)]
    );

    for (expression, expected) in [
        (r#"http.host == "a""#, "can match without a test of tls.sni"),
        (
            r#"tls.sni == "a" || tls.sni != "b""#,
            r#"can match by tls.sni != "b", for which no list of names stands"#,
        ),
        (r#"!(tls.sni == "a")"#, "can match by what it negates"),
        (r#"tls.sni == "a" or tls.sni == "b""#, "cannot be read from byte 15 on"),
    ] {
        let map = of(expression);
        assert!(map.asks(&ServerName::None) && asks(&map, "any.example"), "{expression}");
        assert_eq!(rows(&map)[0].1, [format!("plugin on route r, whose expression {expected}")]);
    }
}

#[test]
fn a_wildcard_stands_for_any_number_of_labels() {
    let map = on_route("['*.example.com', 'api.*']");
    for name in ["x.example.com", "X.y.EXAMPLE.com.", "api.org", "api.a.b.c"] {
        assert!(asks(&map, name), "{name}");
    }
    for name in ["example.com", "xexample.com", "x.example.com.org", "api", "x.api.org", "apix.org"] {
        assert!(!asks(&map, name), "{name}");
    }
}

#[test]
fn what_a_route_says_and_we_cannot_decide_asks_everybody() {
    for sni in
        ["*", "*example.com", "example*", "a.*.b", "münchen.example", "a b", "a.example:443", "10.0.0.1"]
    {
        let map = on_route(&format!("[b.example, '{sni}']"));
        assert!(map.asks(&ServerName::None), "{sni}");
        assert!(rows(&map)[0].1[0].contains("cannot be decided"), "{sni}");
    }
}

#[test]
fn a_name_that_cannot_be_decided_gets_the_strictest_there_is() {
    let map = on_route("[a.example]");
    let long = "a.".repeat(127) + "example";
    let names: [&[u8]; 10] = [
        b"",
        b".",
        b"a.example..",
        b"a..example",
        b" a.example",
        b"127.0.0.1",
        b"::1",
        b"a.ex\xffample",
        "ä.example".as_bytes(),
        long.as_bytes(),
    ];
    for name in names {
        let name = ServerName::from_wire(Some(name));
        assert!(matches!(name, ServerName::Undecidable(_)), "{name:?}");
        assert!(map.asks(&name), "{name:?}");
    }
}

#[test]
fn several_plugins_on_one_name_are_all_told() {
    let map = map("services: [{name: s, plugins: [{name: mtls-auth}], routes: [
             {name: r, snis: [a.example], plugins: [{name: mtls-auth}]},
             {name: t, snis: ['*.b.example', a.example]}]}]");
    assert_eq!(
        rows(&map),
        [
            ("*.b.example".to_owned(), vec!["plugin on service s, route t".to_owned()]),
            (
                "a.example".to_owned(),
                vec![
                    "plugin on service s, route r".to_owned(),
                    "plugin on service s, route t".to_owned(),
                    "plugin on route r".to_owned(),
                ]
            ),
        ]
    );
}

#[test]
fn what_must_hold_does_for_routes_and_server_names_and_their_mutations() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/server_name");
    replay::replay(&folder, 4000, any_server_name::server_name);
}
