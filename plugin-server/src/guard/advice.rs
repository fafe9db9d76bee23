//! This knows what to write into Kong's configuration so that the guard runs wherever our plugin does: pure.

use std::collections::BTreeMap;

use kong_entities::{Entities, Scope};
use serde_json::{Map, Value as Json, json};

use super::coverage::{Cause, Coverage, access_functions};
use super::function::{CARRIER, GUARD, is_guard};

/// A `post-function` as it should stand in a scope. Kong has at most one in each.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Advice {
    pub(crate) scope: Scope,
    /// The one that stands there already, by its index in [`Entities::plugins`]: this takes its place.
    pub(crate) replaces: Option<usize>,
    /// The functions by phase; where it replaces another, with the phases that it empties.
    pub(crate) config: Map<String, Json>,
    /// What is to be said of functions other than the guard.
    pub(crate) others: Others,
}

/// What becomes of functions that the guard meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Others {
    /// There are none.
    None,
    /// They run after the guard.
    Kept,
    /// Those of a wider scope, by the index of the plugin: this takes its place, so it has them too.
    Copied(usize),
    /// Those of a plugin that Kong does not run today.
    Dropped,
}

/// What is missing, each scope once, in the order of services and routes.
pub(crate) fn advice(entities: &Entities, coverage: &Coverage) -> Vec<Advice> {
    let mut advice = BTreeMap::new();
    for covered in &coverage.plugins {
        let own = entities.plugins[covered.plugin].scope;
        for cause in covered.gaps.keys() {
            let advised = match *cause {
                Cause::Nothing => beside(entities, own, None),
                // Where it runs for others too, the guard would refuse them.
                Cause::Another(carrier) | Cause::Late(carrier)
                    if coverage.also_elsewhere.contains(&carrier) =>
                {
                    beside(entities, own, Some(carrier))
                }
                Cause::Another(carrier) | Cause::Late(carrier) => within(entities, carrier),
            };
            advice.insert((advised.scope.service, advised.scope.route), advised);
        }
    }
    advice.into_values().collect()
}

/// The guard in a scope in which no `post-function` runs, with the functions of a wider one whose place it takes.
fn beside(entities: &Entities, scope: Scope, wider: Option<usize>) -> Advice {
    let is_there = |plugin: &kong_entities::Plugin| plugin.name == CARRIER && plugin.scope == scope;
    let replaces = entities.plugins.iter().position(is_there);
    let mut config = with_guard(entities, wider);
    if let Some(dormant) = replaces.and_then(|index| entities.plugins[index].config.as_object()) {
        for phase in dormant.keys() {
            config.entry(phase).or_insert_with(|| json!([]));
        }
    }
    let others = match (wider, replaces) {
        (Some(wider), _) => Others::Copied(wider),
        (None, Some(_)) => Others::Dropped,
        (None, None) => Others::None,
    };
    Advice { scope, replaces, config, others }
}

/// The guard in a `post-function` that runs.
fn within(entities: &Entities, carrier: usize) -> Advice {
    let scope = entities.plugins[carrier].scope;
    Advice {
        scope,
        replaces: Some(carrier),
        config: with_guard(entities, Some(carrier)),
        others: Others::Kept,
    }
}

/// The functions of a `post-function` with the guard before all others of the access phase.
fn with_guard(entities: &Entities, carrier: Option<usize>) -> Map<String, Json> {
    let mut config = Map::new();
    let mut access = vec![GUARD];
    if let Some(plugin) = carrier.map(|index| &entities.plugins[index]) {
        access.extend(access_functions(plugin).into_iter().filter(|function| !is_guard(function)));
        for (phase, functions) in plugin.config.as_object().into_iter().flatten() {
            if functions.as_array().is_some_and(|functions| !functions.is_empty()) {
                config.insert(phase.clone(), functions.clone());
            }
        }
    }
    config.insert("access".into(), json!(access));
    config
}
