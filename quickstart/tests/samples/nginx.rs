//! nginx as another front. Its file is read as nginx reads it: directives, and blocks of them.

use crate::sample::{KongConf, document, sample};

/// A directive, with what its block has.
#[derive(Debug)]
struct Directive {
    words: Vec<String>,
    block: Vec<Directive>,
}

fn parse(words: &mut impl Iterator<Item = String>, is_inner: bool) -> Vec<Directive> {
    let (mut found, mut current) = (Vec::new(), Vec::new());
    while let Some(word) = words.next() {
        match word.as_str() {
            ";" => found.push(Directive { words: std::mem::take(&mut current), block: Vec::new() }),
            "{" => {
                let words_before = std::mem::take(&mut current);
                found.push(Directive { words: words_before, block: parse(words, true) });
            }
            "}" => {
                assert!(is_inner && current.is_empty(), "{current:?}");
                return found;
            }
            _ => current.push(word),
        }
    }
    assert!(!is_inner && current.is_empty(), "it ends in the middle: {current:?}");
    found
}

fn read(name: &str) -> Vec<Directive> {
    let mut words = Vec::new();
    for line in sample(name).lines() {
        let code = line.split('#').next().unwrap();
        let apart = code.replace(';', " ; ").replace('{', " { ").replace('}', " } ");
        words.extend(apart.split_whitespace().map(str::to_owned));
    }
    parse(&mut words.into_iter(), false)
}

impl Directive {
    fn is(&self, text: &str) -> bool {
        self.words.join(" ") == text
    }

    fn has(&self, text: &str) -> bool {
        self.block.iter().any(|directive| directive.is(text))
    }
}

#[test]
fn nginx_sets_the_header_that_the_plugin_reads_on_each_request() {
    let file = read("header/nginx.conf");
    let [upstream, server] = file.as_slice() else { panic!("{file:?}") };
    let kong = KongConf::read("header/kong.conf");
    // The only way to Kong, from an address that Kong trusts and nobody else has.
    let listen = kong.get("proxy_listen");
    assert!(upstream.is("upstream kong") && upstream.has(&format!("server {listen}")), "{upstream:?}");
    assert!(listen.starts_with("127.0.0.1:"));
    assert_eq!(kong.get("trusted_ips"), "127.0.0.1/32,::1/128");

    // All clients are asked, as Kong's routes decide.
    assert!(server.is("server") && server.has("ssl_verify_client optional_no_ca"), "{server:?}");
    // No other spelling passes beside it.
    assert!(
        server.has("underscores_in_headers off") && server.has("ignore_invalid_headers on"),
        "{server:?}"
    );
    let file = document(&sample("header/kong.yml"));
    let config = &file["services"][0]["routes"][0]["plugins"][0]["config"];
    assert_eq!((&config["certificate_source"], &config["secure_source"]), (&"header".into(), &true.into()));
    assert_eq!(config["certificate_header_format"], "url_encoded");
    let header = config["certificate_header_name"].as_str().unwrap();
    let expected = format!("proxy_set_header {header} $ssl_client_escaped_cert");
    let locations: Vec<_> =
        server.block.iter().filter(|directive| directive.words[0] == "location").collect();
    assert_eq!(locations.len(), 1, "each would need it");
    assert!(locations[0].has(&expected) && locations[0].has("proxy_pass http://kong"), "{locations:?}");
    // nginx inherits none of them where a location has its own.
    assert!(server.block.iter().all(|directive| directive.words[0] != "proxy_set_header"));
}
