//! Which CA names are sent to whom.

use testbed::pki::Ca;

use super::*;

const ID: &str = "aaaaaaaa-0000-4000-8000-00000000000a";

/// CAs, the first two of which are entities.
struct Cas(Vec<Ca>);

impl Cas {
    fn new() -> Self {
        Self(["a", "b", "c", "d"].map(Ca::root).into())
    }

    fn pem(&self, position: usize) -> String {
        self.0[position].pem()
    }

    /// The map for routes, services and plugins in YAML. In it, `A` is a configuration with `send_ca_dn` and CA a, and
    /// so on; `quiet` is one without.
    fn map(&self, yaml: &str) -> SniMap {
        let mut text = yaml.replace("quiet", &self.config(0).replace("true", "false"));
        for (position, letter) in ["A", "B", "C", "D"].iter().enumerate() {
            text = text.replace(&format!("config: {letter}"), &format!("config: {}", self.config(position)));
        }
        self.map_as_is(&text)
    }

    fn map_as_is(&self, yaml: &str) -> SniMap {
        let cert = serde_json::to_string(&self.pem(0)).unwrap();
        let text = format!("_format_version: '3.0'\nca_certificates: [{{id: {ID}, cert: {cert}}}]\n{yaml}");
        policy(&kong_entities::parse_yaml(&text).unwrap())
    }

    fn config(&self, position: usize) -> String {
        let pem = serde_json::to_string(&self.pem(position)).unwrap();
        format!("{{send_ca_dn: true, ca_certificates: [{pem}]}}")
    }

    /// What is sent where one plugin on one route has this configuration.
    fn of(&self, config: &str) -> String {
        let route =
            format!("{{name: r, snis: [a.example], plugins: [{{name: mtls-auth, config: {config}}}]}}");
        sent(&self.map_as_is(&format!("routes: [{route}]")), Some("a.example"))
    }
}

/// What a client is sent; `not asked` where it is not.
fn sent(map: &SniMap, sni: Option<&str>) -> String {
    let name = ServerName::from_wire(sni.map(str::as_bytes));
    match map.asked(&name).map(|index| &map.sent()[index.position()]) {
        None => "not asked".into(),
        Some(Sent::Names(names)) => {
            names.iter().map(|name| name.to_string().replace("CN=", "")).collect::<Vec<_>>().join(" ")
        }
        Some(Sent::TooLong(_)) => "too long".into(),
        Some(other) => format!("{other:?}").to_lowercase(),
    }
}

#[test]
fn a_plugin_says_which_names() {
    let cas = Cas::new();
    let (a, b) = (cas.pem(0), cas.pem(1));
    let list = |entries: &[&str]| {
        format!("{{send_ca_dn: true, ca_certificates: {}}}", serde_json::to_string(entries).unwrap())
    };
    assert_eq!(cas.of(&list(&[ID])), "a");
    assert_eq!(cas.of(&list(&[&ID.to_uppercase()])), "a");
    assert_eq!(cas.of(&list(&[&b, ID])), "b a");
    assert_eq!(cas.of(&list(&[&format!("A comment\n{b}{a}\n"), ID, &b])), "b a");

    assert_eq!(cas.of(&list(&[ID]).replace("true", "false")), "nothing");
    assert_eq!(cas.of(&list(&[ID]).replace("send_ca_dn", "other")), "nothing");
    assert_eq!(cas.of("~"), "nothing");
    for (source, expected) in [("shim", "a"), ("~", "a"), ("header", "nothing"), ("tls", "nothing")] {
        let config = list(&[ID]).replace("{send", &format!("{{certificate_source: {source}, send"));
        assert_eq!(cas.of(&config), expected, "{source}");
    }
}

#[test]
fn no_name_is_sent_where_one_is_missing() {
    let cas = Cas::new();
    let pem = cas.pem(1);
    let cut = &pem[..pem.len() / 2];
    let not_der = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let json = |text: &str| serde_json::to_string(text).unwrap();
    for wrong in [
        json("aaaaaaaa-0000-4000-8000-00000000000b"),
        json(""),
        json(cut),
        json(&format!("{pem}{cut}")),
        json(not_der),
        json(&format!("{pem}{not_der}")),
        json("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"),
        "1".into(),
        "~".into(),
    ] {
        for list in [wrong.clone(), format!("{ID}, {wrong}"), format!("{wrong}, {ID}")] {
            assert_eq!(
                cas.of(&format!("{{send_ca_dn: true, ca_certificates: [{list}]}}")),
                "incomplete",
                "{list}"
            );
        }
    }
    for config in ["{send_ca_dn: true}", "{send_ca_dn: true, ca_certificates: []}"] {
        assert_eq!(cas.of(config), "incomplete");
    }
}

#[test]
fn names_of_all_plugins_that_meet_are_sent_in_the_order_of_the_plugins() {
    let cas = Cas::new();
    let map = cas.map(
        "routes:
- {name: suffix, snis: ['*.b.example'], plugins: [{name: mtls-auth, config: B}]}
- {name: longer, snis: ['*.a.b.example'], plugins: [{name: mtls-auth, config: A}]}
- {name: exact, snis: [x.a.b.example, b.example], plugins: [{name: mtls-auth, config: C}]}
- {name: again, snis: [b.example], plugins: [{name: mtls-auth, config: C}]}
- {name: silent one, snis: [q.example, b.example], plugins: [{name: mtls-auth, config: quiet}]}",
    );
    for (sni, expected) in [
        (Some("x.b.example"), "b"),
        (Some("y.a.b.example"), "b a"),
        (Some("x.a.b.example"), "b a c"),
        (Some("X.a.B.example."), "b a c"),
        (Some("b.example"), "c"),
        (Some("q.example"), "nothing"),
        (Some("other.example"), "not asked"),
        (None, "not asked"),
        (Some("127.0.0.1"), "nothing"),
    ] {
        assert_eq!(sent(&map, sni), expected, "{sni:?}");
    }
    let shown = map.rows().find(|row| row.sni == "b.example").unwrap();
    assert_eq!(shown.silent, ["plugin on route silent one"].into());
    assert!(map.problems().is_empty());
    // Nothing, and one list each for: b, b a, b a c, c.
    assert_eq!(map.sent().len(), 5);
}

#[test]
fn names_for_everybody_are_sent_to_everybody() {
    let cas = Cas::new();
    let map = cas.map(
        "routes: [{name: r, snis: [a.example, 'p.*'], plugins: [{name: mtls-auth, config: A}]}]
plugins: [{name: mtls-auth, config: B}]",
    );
    for (sni, expected) in [
        (None, "b"),
        (Some("other.example"), "b"),
        (Some("127.0.0.1"), "b"),
        (Some("a.example"), "a b"),
        (Some("p.example"), "a b"),
    ] {
        assert_eq!(sent(&map, sni), expected, "{sni:?}");
    }
    let quiet = cas.map(
        "routes: [{name: r, snis: [a.example], plugins: [{name: mtls-auth, config: A}]}]
plugins: [{name: mtls-auth, config: quiet}]",
    );
    for (sni, expected) in [(None, "nothing"), (Some("127.0.0.1"), "nothing"), (Some("a.example"), "a")] {
        assert_eq!(sent(&quiet, sni), expected, "{sni:?}");
    }
}

#[test]
fn a_name_between_two_kinds_of_patterns_is_sent_the_names_of_both() {
    let cas = Cas::new();
    let map = cas.map(
        "routes:
- {name: s, snis: ['*.example'], plugins: [{name: mtls-auth, config: A}]}
- {name: p, snis: ['x.*'], plugins: [{name: mtls-auth, config: B}]}
- {name: pp, snis: ['x.y.*'], plugins: [{name: mtls-auth, config: C}]}
- {name: n, snis: ['n.*'], plugins: [{name: mtls-auth, config: quiet}]}
- {name: broken, snis: ['o.*'], plugins: [{name: mtls-auth, config: {send_ca_dn: true}}]}",
    );
    for (sni, expected) in [
        ("y.example", "a"),
        ("x.org", "b"),
        ("x.y.org", "b c"),
        ("x.example", "a b"),
        ("x.y.example", "a b c"),
        ("n.example", "a"),
        ("n.org", "nothing"),
        ("o.example", "incomplete"),
    ] {
        assert_eq!(sent(&map, Some(sni)), expected, "{sni}");
    }
}

#[test]
fn a_broken_plugin_silences_only_where_it_applies() {
    let cas = Cas::new();
    let broken = "{name: mtls-auth, config: {send_ca_dn: true, ca_certificates: [nowhere]}}";
    let map = cas.map(&format!(
        "routes:
- {{name: r, snis: [a.example, '*.b.example'], plugins: [{broken}]}}
- {{name: good, snis: [a.example, x.b.example, c.example], plugins: [{{name: mtls-auth, config: A}}]}}"
    ));
    for (sni, expected) in [
        ("a.example", "incomplete"),
        ("x.b.example", "incomplete"),
        ("y.b.example", "incomplete"),
        ("c.example", "a"),
    ] {
        assert_eq!(sent(&map, Some(sni)), expected, "{sni}");
    }
    let problem = "plugin on route r: ca_certificates[0]: there is no CA certificate with the id \"nowhere\"";
    assert_eq!(map.problems(), [problem]);
    let shown = map.rows().find(|row| row.sni == "x.b.example").unwrap();
    assert_eq!(shown.problems, [problem]);
}

#[test]
fn a_plugin_on_a_service_or_everything_is_named_in_its_problem() {
    let cas = Cas::new();
    let map = cas.map(
        "services: [{name: s, plugins: [{name: mtls-auth, config: {send_ca_dn: true}}],
           routes: [{name: r, snis: [a.example]}]}]
plugins: [{name: mtls-auth, config: {send_ca_dn: true}}, {name: mtls-auth, enabled: false, config: {send_ca_dn: true}}]",
    );
    let problem = "ca_certificates: it names no CA";
    assert_eq!(
        map.problems(),
        [format!("plugin on service s: {problem}"), format!("global plugin: {problem}")]
    );
}

#[test]
fn names_that_do_not_fit_are_not_sent() {
    let long = |letter: &str| Ca::root(&letter.repeat(40_000)).pem();
    let cas = Cas(Vec::from(["a", "b"].map(Ca::root)));
    let config = |letter: &str| {
        format!("{{send_ca_dn: true, ca_certificates: [{}]}}", serde_json::to_string(&long(letter)).unwrap())
    };
    let map = cas.map_as_is(&format!(
        "routes:
- {{name: r, snis: [a.example, 'x.*'], plugins: [{{name: mtls-auth, config: {}}}]}}
- {{name: s, snis: [a.example, '*.b.example'], plugins: [{{name: mtls-auth, config: {}}}]}}",
        config("a"),
        config("b")
    ));
    for (sni, expected) in [("a.example", "too long"), ("x.b.example", "too long")] {
        assert_eq!(sent(&map, Some(sni)), expected, "{sni}");
    }
    assert_eq!(sent(&map, Some("y.b.example")).len(), 40_000);
    assert_eq!(map.problems(), ["SNI a.example: 80046 bytes of CA names are too many"]);
}

#[test]
fn lists_for_names_between_patterns_have_a_limit_and_over_it_none_is_sent() {
    let cas = Cas::new();
    let pems: Vec<_> = (0..4).map(|position| cas.pem(position)).collect();
    // Every list in which each of the CAs comes at most once.
    let mut lists: Vec<Vec<usize>> = vec![vec![]];
    for length in 0..4 {
        let shorter: Vec<_> = lists.iter().filter(|list| list.len() == length).cloned().collect();
        for list in shorter {
            lists.extend((0..4).filter(|ca| !list.contains(ca)).map(|ca| [&list[..], &[ca]].concat()));
        }
    }
    lists.remove(0);
    assert_eq!(lists.len(), 64);
    let route = |number: usize, sni: &str, list: &[usize]| {
        let pems: Vec<_> = list.iter().map(|&ca| &pems[ca]).collect();
        let config = serde_json::json!({"send_ca_dn": !list.is_empty(), "ca_certificates": pems});
        let sni = sni.replace('#', &number.to_string());
        format!("\n- {{name: {sni:?}, snis: [{sni:?}], plugins: [{{name: mtls-auth, config: {config}}}]}}")
    };
    let mut routes = String::from("routes:");
    for (number, list) in lists.iter().enumerate() {
        routes += &route(number, "*.s#.example", list);
        routes += &route(number, "p#.*", list);
    }
    let within = cas.map_as_is(&routes);
    assert!(within.problems().is_empty());
    assert_eq!(sent(&within, Some("p1.s2.example")), "c b");
    assert_eq!(sent(&within, Some("p63.s63.example")).len(), 7);

    let over = cas.map_as_is(&(routes + &route(64, "p#.*", &[])));
    assert_eq!(sent(&over, Some("p1.s2.example")), "nothing");
    assert_eq!(
        (sent(&over, Some("p1.example")), sent(&over, Some("x.s2.example"))),
        ("b".into(), "c".into())
    );
    let problems = over.problems();
    assert!(problems.len() == 1 && problems[0].contains("64 and 65 different lists"), "{problems:?}");
}
