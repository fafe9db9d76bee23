//! This knows how coverage is told to people.

use kong_entities::{Entities, Scope};

use super::coverage::{Cause, Coverage, Covered, Place};

/// How many places of a kind are named.
const NAMED: usize = 5;

/// What a plugin applies to: `on route payments`, or `on everything`.
pub(crate) fn scope(entities: &Entities, scope: Scope) -> String {
    let route = scope.route.map(|route| format!("route {}", entities.routes[route].label));
    let service = scope.service.map(|service| format!("service {}", entities.services[service].label));
    match (route, service) {
        (Some(route), Some(service)) => format!("on {route} of {service}"),
        (Some(one), None) | (None, Some(one)) => format!("on {one}"),
        (None, None) => "on everything".to_owned(),
    }
}

/// Every configuration of our plugin, whether it is guarded, and where and why it is not.
pub(crate) fn report(entities: &Entities, coverage: &Coverage) -> String {
    let all = coverage.plugins.len();
    if all == 0 {
        return "There is no mtls-auth that Kong runs.\n".to_owned();
    }
    let mut report = String::new();
    for covered in &coverage.plugins {
        let verdict = if covered.gaps.is_empty() { "guarded" } else { "UNGUARDED" };
        report.push_str(&format!("mtls-auth {}: {verdict}\n", of(entities, covered)));
        for gap in gaps(entities, covered) {
            report.push_str(&format!("  {gap}\n"));
        }
    }
    report
}

/// The same in one line for a log, of what is not guarded alone. None: everything is.
pub(crate) fn warning(entities: &Entities, coverage: &Coverage) -> Option<String> {
    unguarded(entities, coverage).map(|unguarded| {
        format!(
            "without the guard, so that Kong lets requests pass while this server does not answer: {unguarded}. \
             `mtls-auth guard` prints what is missing"
        )
    })
}

/// What is not guarded, and where and why. None: everything is.
pub(crate) fn unguarded(entities: &Entities, coverage: &Coverage) -> Option<String> {
    let unguarded: Vec<_> = coverage.plugins.iter().filter(|covered| !covered.gaps.is_empty()).collect();
    let named: Vec<_> = unguarded
        .iter()
        .take(NAMED)
        .map(|covered| {
            let gaps: Vec<_> = gaps(entities, covered).collect();
            format!("mtls-auth {} ({})", of(entities, covered), gaps.join("; "))
        })
        .collect();
    let more = more(unguarded.len());
    (!unguarded.is_empty()).then(|| format!("{}{more}", named.join(", ")))
}

fn of(entities: &Entities, covered: &Covered) -> String {
    scope(entities, entities.plugins[covered.plugin].scope)
}

fn gaps<'a>(entities: &'a Entities, covered: &'a Covered) -> impl Iterator<Item = String> + 'a {
    covered.gaps.iter().map(|(cause, places)| {
        let named: Vec<_> = places.iter().take(NAMED).map(|place| of_place(entities, *place)).collect();
        let why = match *cause {
            Cause::Nothing => "no post-function applies".to_owned(),
            Cause::Another(carrier) => format!(
                "the post-function {} runs there, which is none that can be vouched for",
                scope(entities, entities.plugins[carrier].scope)
            ),
            Cause::Late(carrier) => format!(
                "in the post-function {}, the guard is not the first function",
                scope(entities, entities.plugins[carrier].scope)
            ),
        };
        format!("{}{}: {why}", named.join(", "), more(places.len()))
    })
}

fn of_place(entities: &Entities, place: Place) -> String {
    match (place.route, place.service) {
        (Some(route), _) => format!("route {}", entities.routes[route].label),
        (None, Some(service)) => format!("any new route of service {}", entities.services[service].label),
        (None, None) => "any new route".to_owned(),
    }
}

fn more(count: usize) -> String {
    if count > NAMED { format!(" and {} more", count - NAMED) } else { String::new() }
}
