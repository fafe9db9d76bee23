//! This knows who is asked for a client certificate: the map from server name to "asked", with which CA names, and why.
//!
//! It is pure. The rules are those of `mtls-auth.md`, "The TLS side". Asking too often costs a client a dialogue;
//! asking too seldom refuses somebody who has a certificate. So whatever cannot be decided is asked.

// With their paths, since a fuzz target takes this file in from elsewhere.
#[path = "sni/expression.rs"]
mod expression;
#[path = "sni/generation.rs"]
mod generation;
#[path = "sni/name.rs"]
mod name;
#[path = "sni/reason.rs"]
mod reason;
#[path = "sni/settling.rs"]
mod settling;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use kong_entities::{Entities, Plugin, Route, Scope};

use crate::ca_names::{Announcement, Announcements, Sent};

use generation::Generation;
pub(crate) use name::{EVERYBODY, ServerName, key, written};
pub(crate) use reason::Reason;
use reason::{Cause, Names};
use settling::Interned;

/// The plugin that wants client certificates.
const PLUGIN: &str = "mtls-auth";

/// The protocols of Kong's stream proxy. A route that has only these never sees an HTTP request.
const STREAM_PROTOCOLS: [&str; 4] = ["tcp", "tls", "tls_passthrough", "udp"];

/// Who is asked. One map is one state of Kong's configuration; it is replaced as a whole.
#[derive(Debug)]
pub(crate) struct SniMap {
    /// By the keys of `name.rs`.
    rows: HashMap<String, Row>,
    plugins: Vec<OurPlugin>,
    /// What the plugins announce, each once.
    announcements: Vec<Announcement>,
    /// All that is sent anywhere, each once.
    sent: Vec<Sent>,
    /// What is sent to a name that matches patterns of both kinds: by what the row of each sends. Where that would be
    /// too many lists, how many those of the two kinds are.
    between: Result<HashMap<(SentIndex, SentIndex), SentIndex>, (usize, usize)>,
    generation: Generation,
}

impl Default for SniMap {
    /// One that asks nobody.
    fn default() -> Self {
        Self {
            rows: HashMap::new(),
            plugins: Vec::new(),
            announcements: Vec::new(),
            sent: Vec::new(),
            between: Ok(HashMap::new()),
            generation: generation::of(&HashMap::new(), &[]),
        }
    }
}

/// A name or pattern that is asked.
#[derive(Debug, Default)]
struct Row {
    reasons: Vec<Reason>,
    /// The plugins that the reasons come from, in the order of Kong's configuration.
    plugins: Vec<usize>,
    sent: SentIndex,
}

/// A plugin that asks.
#[derive(Debug)]
struct OurPlugin {
    label: String,
    /// Its position in [`SniMap::announcements`].
    announcement: usize,
}

/// Stands for one of [`SniMap::sent`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct SentIndex(usize);

/// A row of the map, for people.
pub(crate) struct Shown<'a> {
    /// The name or pattern.
    pub(crate) sni: String,
    /// Why it is asked.
    pub(crate) reasons: &'a [Reason],
    /// What it is sent.
    pub(crate) sent: &'a Sent,
    /// The plugins that meet there and have their CAs not named.
    pub(crate) silent: BTreeSet<&'a str>,
    /// Why CAs of plugins that meet there cannot be named.
    pub(crate) problems: Vec<String>,
}

/// Builds the map from Kong's entities.
pub(crate) fn policy(entities: &Entities) -> SniMap {
    let mut map = SniMap::default();
    let mut announcements = Announcements::of(entities);
    let routes = routes_by_service(entities);
    let (mut different, mut digests) = (Interned::default(), Vec::new());
    for plugin in entities.plugins.iter().filter(|plugin| plugin.name == PLUGIN && plugin.enabled) {
        let announcement = different.position(announcements.read(plugin));
        map.plugins.push(OurPlugin { label: label(entities, plugin.scope), announcement });
        digests.push(generation::of_plugin(entities, plugin));
        map.add_plugin(entities, &routes, plugin);
    }
    map.announcements = different.values;
    map.generation = generation::of(&map.rows, &digests);
    map.settle();
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

fn label(entities: &Entities, scope: Scope) -> String {
    match (scope.route, scope.service) {
        (Some(route), _) => format!("plugin on route {}", entities.routes[route].label),
        (None, Some(service)) => format!("plugin on service {}", entities.services[service].label),
        (None, None) => "global plugin".to_owned(),
    }
}

/// How many `mtls-auth` plugins there are, and how many of them Kong runs.
pub(crate) fn plugin_counts(entities: &Entities) -> (usize, usize) {
    let ours = || entities.plugins.iter().filter(|plugin| plugin.name == PLUGIN);
    (ours().count(), ours().filter(|plugin| plugin.enabled).count())
}

impl SniMap {
    /// Whether a client that names this server is asked, and then what it is sent. Constant time for an exact name, else
    /// two look-ups for each of its labels.
    pub(crate) fn asked(&self, name: &ServerName) -> Option<SentIndex> {
        let everybody = || self.rows.get(EVERYBODY).map(|row| row.sent);
        match name {
            ServerName::None => everybody(),
            ServerName::Name(name) => self.listed(name).or_else(everybody),
            // Nobody knows which plugins such a client meets, so the names of any row could be the wrong ones. Those of
            // everybody are what a name that is not in the map gets.
            ServerName::Undecidable(_) => everybody().or_else(|| (self.len() > 0).then(|| self.nothing())),
        }
    }

    /// Whether a client that names this server is asked.
    pub(crate) fn asks(&self, name: &ServerName) -> bool {
        self.asked(name).is_some()
    }

    /// A digest of all that it says, and of what the plugins that it comes from are told: the same for the same
    /// configuration, wherever and whenever it is read.
    pub(crate) fn generation(&self) -> &Generation {
        &self.generation
    }

    /// All that is sent anywhere, in the order of [`SentIndex::position`].
    pub(crate) fn sent(&self) -> &[Sent] {
        &self.sent
    }

    /// How many names and patterns are listed, without `*`.
    pub(crate) fn len(&self) -> usize {
        self.rows.len() - usize::from(self.rows.contains_key(EVERYBODY))
    }

    /// The rows that ask whoever names a server that matches this row, whether or not it is one of the map, as people
    /// write it: those of the map that match all that it matches.
    pub(crate) fn asking(&self, row: &str) -> Vec<String> {
        let key = name::key(row).unwrap_or_default();
        let keys = [key.as_str()].into_iter().chain(name::suffixes(&key)).chain(name::prefixes(&key));
        let mut rows: Vec<_> =
            keys.chain([EVERYBODY]).filter(|key| self.rows.contains_key(*key)).map(name::written).collect();
        rows.dedup();
        rows
    }

    /// Every row of the map, `*` first, the rest in the order of the alphabet.
    pub(crate) fn rows(&self) -> impl Iterator<Item = Shown<'_>> {
        self.keys(|_| true).into_iter().map(|(sni, key)| self.shown(sni, key))
    }

    /// What keeps CA names from being sent that a plugin wants sent.
    pub(crate) fn problems(&self) -> Vec<String> {
        let mut problems: Vec<String> =
            self.plugins.iter().filter_map(|plugin| self.problem(plugin)).collect();
        for (sni, key) in self.keys(|row| matches!(self.sent[row.sent.0], Sent::TooLong(_))) {
            if let Sent::TooLong(bytes) = self.sent[self.rows[key].sent.0] {
                problems.push(format!("SNI {sni}: {bytes} bytes of CA names are too many"));
            }
        }
        if let Err((suffixes, prefixes)) = self.between {
            problems.push(format!(
                "SNIs that match both a pattern with a leading and one with a trailing *: those send {suffixes} and \
                 {prefixes} different lists of CA names, which are too many to combine"
            ));
        }
        problems
    }

    /// The rows that are wanted, as people write them, and their keys.
    fn keys(&self, wanted: impl Fn(&Row) -> bool) -> Vec<(String, &str)> {
        let rows = self.rows.iter().filter(|(_, row)| wanted(row));
        let mut keys: Vec<_> = rows.map(|(key, _)| (name::written(key), key.as_str())).collect();
        keys.sort_by(|(sni, key), (other, other_key)| {
            (*key != EVERYBODY, sni).cmp(&(*other_key != EVERYBODY, other))
        });
        keys
    }

    fn shown<'a>(&'a self, sni: String, key: &str) -> Shown<'a> {
        let row = &self.rows[key];
        let sent = &self.sent[row.sent.0];
        let (mut silent, mut problems) = (BTreeSet::new(), Vec::new());
        // Elsewhere nobody has to know, and there may be many.
        if matches!(sent, Sent::Names(_) | Sent::Incomplete) {
            let met: BTreeSet<usize> = self.around(key).flat_map(|row| row.plugins.iter().copied()).collect();
            let met = || met.iter().map(|&plugin| &self.plugins[plugin]);
            let is_silent =
                |plugin: &&OurPlugin| self.announcements[plugin.announcement] == Announcement::Silent;
            silent = met().filter(is_silent).map(|plugin| plugin.label.as_str()).collect();
            problems = met().filter_map(|plugin| self.problem(plugin)).collect();
        }
        Shown { sni, reasons: &row.reasons, sent, silent, problems }
    }

    /// What a name is sent that is in the map.
    fn listed(&self, name: &str) -> Option<SentIndex> {
        if let Some(row) = self.rows.get(name) {
            return Some(row.sent);
        }
        // The longest pattern of a kind has all that shorter ones of its kind have.
        let suffix = name::suffixes(name).find_map(|key| self.rows.get(key));
        let prefix = name::prefixes(name).find_map(|key| self.rows.get(key));
        match (suffix, prefix) {
            (Some(suffix), Some(prefix)) => {
                let pair = (suffix.sent, prefix.sent);
                let between = self.between.as_ref().ok().and_then(|between| between.get(&pair));
                Some(between.copied().unwrap_or_else(|| self.nothing()))
            }
            (row, None) | (None, row) => row.map(|row| row.sent),
        }
    }

    /// Stands for no CA names.
    fn nothing(&self) -> SentIndex {
        SentIndex::default()
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
            (None, None) => self.note(EVERYBODY.to_owned(), Reason::Global),
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
        let everybody = EVERYBODY.to_owned();
        if let Some(expression) = &route.expression {
            match expression::allowed(expression) {
                Ok(allowed) => {
                    for allowed in allowed {
                        self.note(allowed.key, because(Names::Expression(allowed.test)));
                    }
                }
                Err(open) => self.note(everybody, because(Names::OpenExpression(open))),
            }
            return;
        }
        if route.snis.is_empty() {
            return self.note(everybody, because(Names::Missing));
        }
        for sni in &route.snis {
            match name::key(sni) {
                Some(key) => self.note(key, because(Names::Listed)),
                None => self.note(EVERYBODY.to_owned(), because(Names::Undecidable(sni.clone()))),
            }
        }
    }

    /// Notes a reason of the plugin that was added last.
    fn note(&mut self, key: String, reason: Reason) {
        let row = self.rows.entry(key).or_default();
        let plugin = self.plugins.len() - 1;
        if row.plugins.last() != Some(&plugin) {
            row.plugins.push(plugin);
        }
        // A route may list a name twice; no other reason comes twice.
        if row.reasons.last() != Some(&reason) {
            row.reasons.push(reason);
        }
    }

    /// The rows whose plugins clients meet whose names match this key. Any of their routes may be the one that a request
    /// on such a connection takes; which one is not known before there is a request.
    fn around(&self, key: &str) -> impl Iterator<Item = &Row> {
        name::around(key).filter_map(|key| self.rows.get(key))
    }

    fn problem(&self, plugin: &OurPlugin) -> Option<String> {
        match &self.announcements[plugin.announcement] {
            Announcement::Broken(problem) => Some(format!("{}: {problem}", plugin.label)),
            Announcement::Silent | Announcement::Names(_) => None,
        }
    }
}

/// The routes whose expressions match only where Kong sees an SNI: over plain HTTP it sees none, and nobody reaches them.
pub(crate) fn out_of_reach_without_sni(entities: &Entities) -> impl Iterator<Item = &str> {
    let demands_sni = |route: &&Route| {
        route.expression.as_ref().is_some_and(|expression| expression::allowed(expression).is_ok())
    };
    entities.routes.iter().filter(demands_sni).map(|route| route.label.as_str())
}

impl SentIndex {
    /// The position in [`SniMap::sent`].
    pub(crate) fn position(self) -> usize {
        self.0
    }
}

#[cfg(test)]
#[path = "sni/any_server_name.rs"]
mod any_server_name;
#[cfg(test)]
#[path = "sni/ca_names_tests.rs"]
mod ca_names_tests;
#[cfg(test)]
#[path = "sni/tests.rs"]
mod tests;
