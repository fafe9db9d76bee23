//! Which configurations are unguarded, and that what is advised guards them.

use kong_entities::parse_yaml;
use serde_json::json;

use super::advice::{Others, advice};
use super::function::GUARD;
use super::*;

/// Services `a` with routes `a1` and `a2`, `b` with `b1`, and the routes `lone` and `stream` without one.
const ROUTES: &str = "\
_format_version: '3.0'
services:
- {name: a, url: 'http://h', routes: [{name: a1}, {name: a2}]}
- {name: b, url: 'http://h', routes: [{name: b1}]}
routes:
- {name: lone}
- {name: stream, protocols: [tls, tcp]}
";

/// A plugin as one of the words: where it stands, with `=` and what it is: our plugin, the guard, another function, both in
/// one order or the other; `-` before it is disabled.
fn plugin(word: &str) -> String {
    let (scope, what) = word.split_once('=').unwrap();
    let (enabled, what) = what.strip_prefix('-').map_or((true, what), |what| (false, what));
    let own = "kong.log.info('own')";
    let functions = match what {
        "guard" => vec![GUARD],
        "own" => vec![own],
        "first" => vec![GUARD, own],
        "late" => vec![own, GUARD],
        "stream" | "https" | "mtls" | "consumer" | "header" => vec![own],
        other => panic!("{other}"),
    };
    let mut plugin = json!({"name": "post-function", "enabled": enabled, "config": {"access": functions}});
    match what {
        "mtls" => plugin = json!({"name": "mtls-auth", "enabled": enabled}),
        "stream" => plugin["protocols"] = json!(["tcp"]),
        "https" => plugin["protocols"] = json!(["https"]),
        "consumer" => plugin["consumer"] = json!("alice"),
        "header" => plugin["config"] = json!({"access": [], "header_filter": [GUARD]}),
        _ => {}
    }
    for part in scope.split('+').filter(|part| *part != "all") {
        plugin[if part.len() == 1 { "service" } else { "route" }] = json!(part);
    }
    format!("- {plugin}\n")
}

fn entities(words: &str) -> Entities {
    let plugins: String = words.split(' ').map(plugin).collect();
    parse_yaml(&format!("{ROUTES}plugins:\n{plugins}")).unwrap()
}

/// What is unguarded, in a word for each cause: first what applies, then each place, with `*` for routes to come.
fn unguarded(entities: &Entities) -> String {
    let coverage = Coverage::of(entities);
    let mut words = Vec::new();
    for covered in &coverage.plugins {
        for (cause, places) in &covered.gaps {
            let kind = match cause {
                coverage::Cause::Nothing => "nothing",
                coverage::Cause::Another(_) => "another",
                coverage::Cause::Late(_) => "late",
            };
            let places = places.iter().map(|place| match (place.route, place.service) {
                (Some(route), _) => entities.routes[route].label.clone(),
                (None, Some(service)) => format!("{}*", entities.services[service].label),
                (None, None) => "*".to_owned(),
            });
            words.push(format!("{kind}:{}", places.collect::<Vec<_>>().join(",")));
        }
    }
    words.join(" ")
}

/// The configuration with what is advised, as its operator would write it.
fn mended(words: &str) -> (Entities, String) {
    let entities = entities(words);
    let advice = advice(&entities, &Coverage::of(&entities));
    let replaced: Vec<_> = advice.iter().filter_map(|advised| advised.replaces).collect();
    let kept = words.split(' ').enumerate().filter(|(index, _)| !replaced.contains(index));
    let kept: String = kept.map(|(_, word)| plugin(word)).collect();
    let printed = form::declarative(&entities, &advice);
    let added = printed.strip_prefix("plugins:\n").unwrap();
    let text = format!("{ROUTES}plugins:\n{kept}{added}");
    (parse_yaml(&text).unwrap_or_else(|error| panic!("{error}\n{text}")), printed)
}

#[test]
fn what_kong_picks_where_it_picks_our_plugin_is_the_guard_or_not() {
    for (words, expected) in [
        ("a1=mtls a1=guard", ""),
        ("a1=mtls", "nothing:a1"),
        ("a=mtls a=guard", ""),
        ("all=mtls all=guard", ""),
        ("all=mtls", "nothing:a1,a2,b1,lone,a*,b*,*"),
        // A wider guard is enough, a narrower one is not.
        ("a1=mtls a=guard", ""),
        ("a1=mtls all=guard", ""),
        ("a=mtls a1=guard a2=guard", "nothing:a*"),
        ("all=mtls a=guard b=guard lone=guard", "nothing:*"),
        // One of another's takes its place.
        ("a1=mtls a1=own all=guard", "another:a1"),
        ("a=mtls a=guard a1=own", "another:a1"),
        ("all=mtls all=guard b=own", "another:b1,b*"),
        ("all=mtls all=guard b=own b1=guard", "another:b*"),
        ("a1=mtls a1=guard a1+a=own", "another:a1"),
        ("a1+a=mtls a1=guard a=own all=own", ""),
        // Beside others in one plugin: first.
        ("a1=mtls a1=first", ""),
        ("a1=mtls a1=late", "late:a1"),
        ("a1=mtls a1=header all=guard", "another:a1"),
        // What Kong does not run for a request counts for nothing.
        ("a1=-mtls", ""),
        ("a1=mtls a1=-guard", "nothing:a1"),
        ("a1=mtls a1=-own all=guard", ""),
        ("a1=mtls a1=stream all=guard", ""),
        ("a1=mtls a1=https all=guard", "another:a1"),
        ("stream=mtls", ""),
        // Several of ours: each for its own places.
        ("all=mtls a=mtls a1=mtls all=guard a1=own", "another:a1"),
        ("all=mtls a=mtls all=guard a=own", "another:a1,a2,a*"),
        ("all=-mtls a=mtls a=guard", ""),
    ] {
        assert_eq!(unguarded(&entities(words)), expected, "{words}");
    }
    let of_consumer = format!("{ROUTES}consumers: [{{username: alice}}]\nplugins:\n{}", plugin("a1=mtls"));
    for (also, expected) in [("a1=consumer", "nothing:a1"), ("a1=guard", "")] {
        assert_eq!(unguarded(&parse_yaml(&format!("{of_consumer}{}", plugin(also))).unwrap()), expected);
    }
}

#[test]
fn what_is_advised_guards_everything_and_keeps_what_was_there() {
    // What is advised: for each scope, whether it is new (+) or in place of another (=), and the number of functions.
    let cases: [(&str, &[&str]); 17] = [
        ("a1=mtls a1=guard", &[]),
        ("a1=mtls", &["+on route a1:1"]),
        ("a=mtls b1=mtls", &["+on route b1:1", "+on service a:1"]),
        ("all=mtls", &["+on everything:1"]),
        ("all=mtls a=mtls", &["+on everything:1", "+on service a:1"]),
        ("all=mtls a=mtls a=own", &["+on everything:1", "=on service a:2"]),
        ("a1=mtls a1=own all=guard", &["=on route a1:2"]),
        ("a1=mtls a1=late", &["=on route a1:2"]),
        ("a=mtls a=guard a1=own a2=own", &["=on route a1:2", "=on route a2:2"]),
        // In the wider one it would refuse everybody elsewhere.
        ("a1=mtls all=own", &["+on route a1:2"]),
        ("a1=mtls b=mtls a=own b=own", &["+on route a1:2", "=on service b:2"]),
        ("all=mtls all=own", &["=on everything:2"]),
        ("a1+a=mtls a1=own", &["=on route a1:2"]),
        ("a1+a=mtls", &["+on route a1 of service a:1"]),
        // Kong takes one in each scope, also where it does not run.
        ("a1=mtls a1=-own", &["=on route a1:1"]),
        ("a1=mtls a1=-guard", &["=on route a1:1"]),
        ("a1=mtls a1=-own all=own", &["=on route a1:2"]),
    ];
    for (words, expected) in cases {
        let before = entities(words);
        let advised = advice(&before, &Coverage::of(&before)).into_iter().map(|advised| {
            let sign = if advised.replaces.is_some() { '=' } else { '+' };
            let functions = advised.config["access"].as_array().unwrap();
            assert_eq!(functions[0], GUARD);
            format!("{sign}{}:{}", words::scope(&before, advised.scope), functions.len())
        });
        let mut advised: Vec<_> = advised.collect();
        advised.sort();
        assert_eq!(advised, expected, "{words}");
        let (after, printed) = mended(words);
        let coverage = Coverage::of(&after);
        assert!(coverage.is_whole(), "{words}: {}\n{printed}", unguarded(&after));
        // Nobody is refused whom our plugin does not look at.
        let guards = |index: &usize| coverage::access_functions(&after.plugins[*index]).contains(&GUARD);
        assert!(
            words.contains("all=guard") || !coverage.also_elsewhere.iter().any(guards),
            "{words}\n{printed}"
        );
    }
}

#[test]
fn functions_of_others_come_back_from_what_is_printed_as_they_were() {
    let functions = [
        "return 1",
        "a()\nb()",
        "a()\n\n  b()\n",
        "  a()\nb()",
        "\na()\n",
        "a()\n\n",
        "a('\\t\u{1}\r')\nb()",
        "-- ü: 'x' \"y\" # {{ & *\n--- \n... ",
    ];
    let config = json!({"access": functions, "log": functions, "rewrite": [], "certificate": null});
    let plugins = json!([
        {"name": "mtls-auth", "route": "a1"},
        {"name": "post-function", "route": "a1", "config": config},
    ]);
    let before = parse_yaml(&format!("{ROUTES}plugins: {plugins}")).unwrap();
    let advised = advice(&before, &Coverage::of(&before));
    assert_eq!(advised[0].others, Others::Kept);
    let after = parse_yaml(&format!("{ROUTES}{}", form::declarative(&before, &advised))).unwrap();
    let mut access = vec![GUARD];
    access.extend(functions);
    assert_eq!(after.plugins[0].config, json!({"access": access, "log": functions}));
}

#[test]
fn what_cannot_be_referred_to_is_not_applied_to_everything() {
    let text = "_format_version: '3.0'\nroutes: [{plugins: [{name: mtls-auth}]}]\n";
    let entities = parse_yaml(text).unwrap();
    let advised = advice(&entities, &Coverage::of(&entities));
    let printed = form::declarative(&entities, &advised);
    assert!(printed.contains("# Nest it under route 1"), "{printed}");
    assert!(printed.lines().skip(1).all(|line| line.starts_with('#')), "{printed}");
}
