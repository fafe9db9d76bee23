//! This knows where our plugin runs without the guard: pure, from Kong's entities.
//!
//! Of each plugin Kong runs one configuration for a request, the most specific that applies (`kong-plugin-protocol.md`): a
//! `post-function` of a route's own takes the place of a guard in a wider scope. So what counts is not where guards stand,
//! but which `post-function` Kong picks in each place where it picks our plugin.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use kong_entities::{Entities, Plugin, Scope};

use super::function::{CARRIER, is_guard};
use crate::schema::PLUGIN_NAME;

/// The protocols of Kong's HTTP side. Kong runs a plugin there for every request once one of its protocols is of these.
const HTTP_PROTOCOLS: [&str; 4] = ["grpc", "grpcs", "http", "https"];

/// Requests that Kong picks the same plugins for. Without a route: those of routes that may be added, with no plugins of
/// their own, to a service or without one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    /// Index in [`Entities::routes`].
    pub(crate) route: Option<usize>,
    /// Index in [`Entities::services`].
    pub(crate) service: Option<usize>,
}

/// Why no guard runs in a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Cause {
    /// No `post-function` applies.
    Nothing,
    /// This one runs there, by its index in [`Entities::plugins`], and has no guard.
    Another(usize),
    /// The same; it has the guard, but functions before it, which could end the phase.
    Late(usize),
}

/// One of our plugin's configurations that Kong runs somewhere.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Covered {
    /// Index in [`Entities::plugins`].
    pub(crate) plugin: usize,
    /// The places that it runs in and no guard does.
    pub(crate) gaps: BTreeMap<Cause, Vec<Place>>,
}

/// What is guarded and what is not.
#[derive(Debug)]
pub(crate) struct Coverage {
    /// In the order of Kong's configuration.
    pub(crate) plugins: Vec<Covered>,
    /// The `post-function`s that run where our plugin does not, too: a guard there would refuse everybody.
    pub(crate) also_elsewhere: BTreeSet<usize>,
}

impl Coverage {
    pub(crate) fn of(entities: &Entities) -> Self {
        let ours = Configurations::of(entities, PLUGIN_NAME);
        let carriers = Configurations::of(entities, CARRIER);
        let running = |(index, plugin)| is_run(plugin).then(|| (index, BTreeMap::<Cause, Vec<Place>>::new()));
        let named = entities.plugins.iter().enumerate().filter(|(_, plugin)| plugin.name == PLUGIN_NAME);
        let mut gaps: BTreeMap<usize, _> = named.filter_map(running).collect();
        let mut also_elsewhere = BTreeSet::new();
        for place in places(entities) {
            let carrier = carriers.picked(place);
            match (ours.picked(place), carrier) {
                (Some(plugin), carrier) => {
                    let cause = carrier.map_or(Some(Cause::Nothing), |carrier| fault(entities, carrier));
                    if let (Some(cause), Some(gaps)) = (cause, gaps.get_mut(&plugin)) {
                        gaps.entry(cause).or_default().push(place);
                    }
                }
                (None, Some(carrier)) => {
                    also_elsewhere.insert(carrier);
                }
                (None, None) => {}
            }
        }
        let plugins = gaps.into_iter().map(|(plugin, gaps)| Covered { plugin, gaps }).collect();
        Self { plugins, also_elsewhere }
    }

    /// Whether a guard runs wherever our plugin does.
    pub(crate) fn is_whole(&self) -> bool {
        self.plugins.iter().all(|plugin| plugin.gaps.is_empty())
    }
}

/// The functions of a `post-function` in its access phase.
pub(super) fn access_functions(carrier: &Plugin) -> Vec<&str> {
    let functions = carrier.config["access"].as_array().map_or(&[][..], Vec::as_slice);
    functions.iter().filter_map(serde_json::Value::as_str).collect()
}

/// Why a `post-function` is none that guards.
fn fault(entities: &Entities, carrier: usize) -> Option<Cause> {
    match access_functions(&entities.plugins[carrier]).iter().position(|function| is_guard(function)) {
        Some(0) => None,
        Some(_) => Some(Cause::Late(carrier)),
        None => Some(Cause::Another(carrier)),
    }
}

/// Whether Kong runs a plugin for HTTP requests. None of a consumer or group counts: Kong takes neither ours nor a
/// `post-function` for one, and while nobody is authenticated, which is what the guard is about, it would pick none.
fn is_run(plugin: &Plugin) -> bool {
    let of_http = |protocol: &String| HTTP_PROTOCOLS.contains(&protocol.as_str());
    plugin.enabled
        && !plugin.scope.consumer
        && plugin.protocols.as_ref().is_none_or(|list| list.iter().any(of_http))
}

/// Every place that there is.
fn places(entities: &Entities) -> impl Iterator<Item = Place> {
    let routes = entities.routes.iter().enumerate();
    let routes = routes
        .filter(|(_, route)| {
            route.protocols.iter().any(|protocol| HTTP_PROTOCOLS.contains(&protocol.as_str()))
        })
        .map(|(index, route)| Place { route: Some(index), service: route.service });
    let services = (0..entities.services.len()).map(|index| Place { route: None, service: Some(index) });
    routes.chain(services).chain([Place { route: None, service: None }])
}

/// The configurations of one plugin that Kong runs, by what they apply to.
struct Configurations(HashMap<(Option<usize>, Option<usize>), usize>);

impl Configurations {
    fn of(entities: &Entities, name: &str) -> Self {
        let plugins = entities.plugins.iter().enumerate();
        let running = plugins.filter(|(_, plugin)| plugin.name == name && is_run(plugin));
        Self(
            running
                .map(|(index, Plugin { scope: Scope { route, service, .. }, .. })| {
                    ((*route, *service), index)
                })
                .collect(),
        )
    }

    /// The one that Kong picks: Kong's order.
    fn picked(&self, Place { route, service }: Place) -> Option<usize> {
        [(route, service), (route, None), (None, service), (None, None)]
            .iter()
            .find_map(|scope| self.0.get(scope).copied())
    }
}
