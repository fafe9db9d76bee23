//! How long it takes to build the map of 100,000 routes, and to look a name up in it. It judges nothing:
//! `cargo test --release -p tls-shim --bin tls-shim measure -- --ignored --nocapture`.
#![allow(clippy::print_stdout, reason = "its result is what it prints")]

use std::fmt::Write as _;
use std::hint::black_box;
use std::time::Instant;

use testbed::pki::Ca;

use super::*;

const ROUTES: usize = 100_000;
const LOOK_UPS: u32 = 1_000_000;

#[test]
#[ignore = "it takes its time and proves nothing"]
fn measure_100_000_routes() {
    let cas: Vec<String> = (0..64).map(|number| Ca::root(&format!("ca {number}")).pem()).collect();
    let config = |numbers: &[usize]| {
        let pems: Vec<_> = numbers.iter().map(|&number| cas[number % cas.len()].as_str()).collect();
        serde_json::json!({"send_ca_dn": true, "ca_certificates": pems}).to_string()
    };
    let silent = || "{}".to_owned();
    let exact = |n: usize| format!(r#""snis": ["n{n}.example"]"#);
    let expression = |n: usize| {
        let says =
            format!(r#"(tls.sni == "n{n}.example" || tls.sni =^ ".s{n}.example") && http.path ^= "/a""#);
        format!(r#""expression": {}"#, serde_json::json!(says))
    };
    let mixed = |n: usize| match n % 5 {
        0 => exact(n),
        1 => format!(r#""snis": ["*.s{n}.example", "n{n}.example"]"#),
        2 => format!(r#""snis": ["p{n}.*"]"#),
        3 => expression(n),
        _ => r#""expression": "http.host == \"a\"""#.to_owned(),
    };
    let patterns = |n: usize| match n % 2 {
        0 => format!(r#""snis": ["*.s{n}.example"]"#),
        _ => format!(r#""snis": ["p{n}.*"]"#),
    };
    println!("{ROUTES} routes with a plugin each:");
    measure("exact names", exact, |_| silent());
    measure("expressions", expression, |_| silent());
    measure("all kinds", mixed, |_| silent());
    measure("all kinds, one list of CA names", mixed, |_| config(&[0, 1, 2]));
    measure("all kinds, 64 lists of one CA", mixed, |n| config(&[n]));
    measure("exact names, 4096 lists of two CAs", exact, |n| config(&[n, n / 64]));
    measure("patterns, 4096 lists of two CAs", patterns, |n| config(&[n, n / 64]));
}

fn measure(what: &str, route: impl Fn(usize) -> String, config: impl Fn(usize) -> String) {
    let mut text = String::from(r#"{"_format_version": "3.0", "routes": ["#);
    for n in 0..ROUTES {
        let comma = if n == 0 { "" } else { "," };
        let plugin = format!(r#"{{"name": "mtls-auth", "config": {}}}"#, config(n));
        let _ = write!(text, r#"{comma}{{"name": "r{n}", {}, "plugins": [{plugin}]}}"#, route(n));
    }
    text.push_str("]}");
    let entities = kong_entities::parse_json(&text).expect("a configuration");
    let start = Instant::now();
    let map = policy(&entities);
    let built = start.elapsed();
    println!("{what}: built in {built:.0?}, {} names, {} lists sent", map.len(), map.sent().len());
    for name in ["n50000.example", "a.b.c.s50001.example", "p50002.s50001.example", "other.example"] {
        let name = ServerName::from_wire(Some(name.as_bytes()));
        let start = Instant::now();
        for _ in 0..LOOK_UPS {
            black_box(map.asked(black_box(&name)));
        }
        println!("    {}: {:.0?}", name.as_str(), start.elapsed() / LOOK_UPS);
    }
}
