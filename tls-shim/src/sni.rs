//! This knows who is asked for a client certificate: the map from server name to "asked", and why.
//!
//! It is pure. The rules are those of `mtls-auth.md`, "The TLS side". Asking too often costs a client a dialogue;
//! asking too seldom refuses somebody who has a certificate. So whatever cannot be decided is asked.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

use kong_entities::{Entities, Plugin, Route};

/// The plugin that wants client certificates.
const PLUGIN: &str = "mtls-auth";

/// The protocols of Kong's stream proxy. A route that has only these never sees an HTTP request.
const STREAM_PROTOCOLS: [&str; 4] = ["tcp", "tls", "tls_passthrough", "udp"];

/// The longest name that the DNS can carry as text (RFC 1035, section 2.3.4).
const MAX_NAME: usize = 253;

/// The server name of a ClientHello (RFC 6066, section 3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ServerName {
    /// The client named none.
    None,
    /// A DNS name: lower case, without trailing dot.
    Name(String),
    /// Anything else, such as an address or a name that is not ASCII: which routes it means cannot be decided.
    Undecidable(String),
}

impl ServerName {
    /// Reads the bytes of the extension.
    pub(crate) fn from_wire(bytes: Option<&[u8]>) -> Self {
        let Some(bytes) = bytes else { return Self::None };
        let text = String::from_utf8_lossy(bytes).to_ascii_lowercase();
        match normalised(&text) {
            Some(name) => Self::Name(name.to_owned()),
            None => Self::Undecidable(text),
        }
    }

    /// The name as it goes into the proof; empty where there is none.
    pub(crate) fn as_str(&self) -> &str {
        match self {
            Self::None => "",
            Self::Name(text) | Self::Undecidable(text) => text,
        }
    }
}

/// Who is asked. One map is one state of Kong's configuration; it is replaced as a whole.
#[derive(Debug, Default)]
pub(crate) struct SniMap {
    /// Why everybody is asked, whatever the name; nobody is for this reason where it is empty.
    everybody: Vec<Reason>,
    exact: HashMap<String, Vec<Reason>>,
    /// `*.example.com` under `.example.com`.
    suffixes: HashMap<String, Vec<Reason>>,
    /// `example.*` under `example.`.
    prefixes: HashMap<String, Vec<Reason>>,
}

/// Why a name is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// A plugin that applies to everything.
    Global,
    /// A plugin that applies to this route.
    Route(Cause),
    /// A plugin that applies to this service, which has the route.
    Service(Arc<str>, Cause),
}

/// What a route says about server names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cause {
    route: Arc<str>,
    names: Names,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Names {
    Listed,
    Missing,
    Expression,
    Undecidable(String),
}

/// Builds the map from Kong's entities.
pub(crate) fn policy(entities: &Entities) -> SniMap {
    let mut map = SniMap::default();
    let routes = routes_by_service(entities);
    for plugin in entities.plugins.iter().filter(|plugin| plugin.name == PLUGIN && plugin.enabled) {
        map.add_plugin(entities, &routes, plugin);
    }
    map
}

fn routes_by_service(entities: &Entities) -> Vec<Vec<&Route>> {
    let mut routes = vec![Vec::new(); entities.services.len()];
    for route in &entities.routes {
        if let Some(service) = route.service {
            routes[service].push(route);
        }
    }
    routes
}

/// How many `mtls-auth` plugins there are, and how many of them Kong runs.
pub(crate) fn plugin_counts(entities: &Entities) -> (usize, usize) {
    let ours = || entities.plugins.iter().filter(|plugin| plugin.name == PLUGIN);
    (ours().count(), ours().filter(|plugin| plugin.enabled).count())
}

impl SniMap {
    /// Whether a client that names this server is asked. Constant time for an exact name, else one look-up for each of
    /// its labels.
    pub(crate) fn asks(&self, name: &ServerName) -> bool {
        if !self.everybody.is_empty() {
            return true;
        }
        match name {
            ServerName::None => false,
            ServerName::Undecidable(_) => self.asks_anybody(),
            ServerName::Name(name) => {
                self.exact.contains_key(name)
                    || dots(name).any(|dot| {
                        self.suffixes.contains_key(&name[dot..]) || self.prefixes.contains_key(&name[..=dot])
                    })
            }
        }
    }

    /// Whether there is any name that is asked.
    pub(crate) fn asks_anybody(&self) -> bool {
        !self.everybody.is_empty() || self.len() > 0
    }

    /// How many names and patterns are listed, without `*`.
    pub(crate) fn len(&self) -> usize {
        self.exact.len() + self.suffixes.len() + self.prefixes.len()
    }

    /// Every row of the map as people write it, `*` first, the rest in the order of the alphabet, with the reasons.
    pub(crate) fn rows(&self) -> Vec<(String, &[Reason])> {
        let mut rows = BTreeMap::new();
        rows.extend(self.exact.iter().map(|(name, why)| (name.clone(), why.as_slice())));
        rows.extend(self.suffixes.iter().map(|(suffix, why)| (format!("*{suffix}"), why.as_slice())));
        rows.extend(self.prefixes.iter().map(|(prefix, why)| (format!("{prefix}*"), why.as_slice())));
        let everybody = (!self.everybody.is_empty()).then(|| ("*".to_owned(), self.everybody.as_slice()));
        everybody.into_iter().chain(rows).collect()
    }

    /// The consumer of a scope is left out of account: who that is turns out only after the certificate is there.
    fn add_plugin(&mut self, entities: &Entities, routes: &[Vec<&Route>], plugin: &Plugin) {
        match (plugin.scope.route, plugin.scope.service) {
            (Some(route), _) => self.add_route(&entities.routes[route], Reason::Route),
            (None, Some(service)) => {
                let label: Arc<str> = entities.services[service].label.as_str().into();
                for route in &routes[service] {
                    self.add_route(route, |cause| Reason::Service(Arc::clone(&label), cause));
                }
            }
            (None, None) => note(&mut self.everybody, Reason::Global),
        }
    }

    fn add_route(&mut self, route: &Route, reason: impl Fn(Cause) -> Reason) {
        if !route.protocols.is_empty()
            && route.protocols.iter().all(|protocol| STREAM_PROTOCOLS.contains(&protocol.as_str()))
        {
            return;
        }
        let label: Arc<str> = route.label.as_str().into();
        let because = |names| reason(Cause { route: Arc::clone(&label), names });
        if route.expression.is_some() {
            return note(&mut self.everybody, because(Names::Expression));
        }
        if route.snis.is_empty() {
            return note(&mut self.everybody, because(Names::Missing));
        }
        for sni in &route.snis {
            let (rows, key) = match Pattern::parse(sni) {
                Some(Pattern::Exact(name)) => (&mut self.exact, name),
                Some(Pattern::Suffix(suffix)) => (&mut self.suffixes, suffix),
                Some(Pattern::Prefix(prefix)) => (&mut self.prefixes, prefix),
                None => {
                    note(&mut self.everybody, because(Names::Undecidable(sni.clone())));
                    continue;
                }
            };
            note(rows.entry(key).or_default(), because(Names::Listed));
        }
    }
}

/// A route may list a name twice; no other reason comes twice.
fn note(reasons: &mut Vec<Reason>, reason: Reason) {
    if reasons.last() != Some(&reason) {
        reasons.push(reason);
    }
}

/// One entry of a route's `snis`, as Kong's router reads it: a leading `*` matches by suffix, a trailing one by prefix,
/// and a trailing dot does not count. Kong matches any number of labels in place of the `*`.
enum Pattern {
    Exact(String),
    Suffix(String),
    Prefix(String),
}

impl Pattern {
    /// None for what Kong would match in a way that is not by whole labels (`*example.com`), and for what no client
    /// could name.
    fn parse(sni: &str) -> Option<Self> {
        let sni = sni.to_ascii_lowercase();
        if let Some(rest) = sni.strip_prefix("*.") {
            return normalised(rest).map(|rest| Self::Suffix(format!(".{rest}")));
        }
        if let Some(rest) = sni.strip_suffix(".*") {
            // No dot to remove here: `example..*` is no name.
            return well_formed(rest).then(|| Self::Prefix(format!("{rest}.")));
        }
        normalised(&sni).map(|name| Self::Exact(name.to_owned()))
    }
}

/// A lower-case DNS name without its trailing dot, if it is one and not an address.
fn normalised(text: &str) -> Option<&str> {
    let name = text.strip_suffix('.').unwrap_or(text);
    (well_formed(name) && name.parse::<std::net::IpAddr>().is_err()).then_some(name)
}

/// Whether these are labels of letters, digits, hyphens and underscores, of legal length.
fn well_formed(name: &str) -> bool {
    name.len() <= MAX_NAME
        && name.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_'))
        })
}

fn dots(name: &str) -> impl Iterator<Item = usize> {
    name.match_indices('.').map(|(position, _)| position)
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Global => write!(f, "global plugin"),
            Self::Route(cause) => write!(f, "plugin on route {cause}"),
            Self::Service(service, cause) => write!(f, "plugin on service {service}, route {cause}"),
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { route, names } = self;
        match names {
            Names::Listed => write!(f, "{route}"),
            Names::Missing => write!(f, "{route}, which names no SNI"),
            Names::Expression => write!(f, "{route}, which is written as an expression"),
            Names::Undecidable(sni) => write!(f, "{route}, whose SNI {sni:?} cannot be decided"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        map.rows().into_iter().map(|(name, why)| (name, text(why))).collect()
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
        for name in ["C.Example.", "c.example", "a.example.org", "x.a.example", "a.exampl", "xa.example", "a"]
        {
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
        assert!(!map.asks_anybody());
        assert!(!asks(&map, "not a name"), "nobody is asked, so neither is this one");
    }

    #[test]
    fn routes_of_the_stream_proxy_do_not_count() {
        let of = |protocols: &str| {
            map(&format!("routes: [{{name: r, protocols: {protocols}, plugins: [{{name: mtls-auth}}]}}]"))
                .asks_anybody()
        };
        assert!(!of("[tls]") && !of("[tcp, udp, tls_passthrough]"));
        assert!(of("[tls, https]") && of("[http]") && of("[grpcs]") && of("[wss]"));
    }

    #[test]
    fn an_expression_is_always_asked() {
        let map =
            map("routes: [{name: r, expression: 'tls.sni == \"a.example\"', plugins: [{name: mtls-auth}]}]");
        assert!(map.asks(&ServerName::None));
        assert_eq!(rows(&map)[0].1, ["plugin on route r, which is written as an expression"]);
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
}
