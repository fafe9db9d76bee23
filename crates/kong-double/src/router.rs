//! This knows which route a request takes.

use crate::config::Route;

/// The most specific route that matches host and path, with the path prefix that matched: exact hosts
/// before wildcards before none, then the longest prefix, then the first.
pub(crate) fn find(routes: &[Route], host: &str, path: &str) -> Option<(usize, String)> {
    let mut best: Option<((u8, usize), usize, String)> = None;
    for (index, route) in routes.iter().enumerate() {
        let host_rank = if route.hosts.is_empty() {
            Some(0)
        } else {
            route.hosts.iter().filter_map(|pattern| host_rank(pattern, host)).max()
        };
        let prefix = if route.paths.is_empty() {
            Some("")
        } else {
            let matching = route.paths.iter().filter(|prefix| path.starts_with(prefix.as_str()));
            matching.max_by_key(|prefix| prefix.len()).map(String::as_str)
        };
        let (Some(host_rank), Some(prefix)) = (host_rank, prefix) else { continue };
        let rank = (host_rank, prefix.len());
        if best.as_ref().is_none_or(|(known, ..)| rank > *known) {
            best = Some((rank, index, prefix.into()));
        }
    }
    best.map(|(_, index, prefix)| (index, prefix))
}

fn host_rank(pattern: &str, host: &str) -> Option<u8> {
    let pattern = pattern.to_ascii_lowercase();
    // A wildcard stands for at least one character.
    if let Some(suffix) = pattern.strip_prefix('*') {
        return (host.len() > suffix.len() && host.ends_with(suffix)).then_some(1);
    }
    if let Some(prefix) = pattern.strip_suffix('*') {
        return (host.len() > prefix.len() && host.starts_with(prefix)).then_some(1);
    }
    (pattern == host).then_some(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_specific_route_is_taken() {
        let upstream = "127.0.0.1:1".parse().unwrap();
        let none: [&str; 0] = [];
        let route = |name: &str, hosts: &[&str], paths: &[&str]| {
            Route::new(name, upstream).hosts(hosts.iter().copied()).paths(paths.iter().copied())
        };
        let routes = [
            route("any", &none, &["/"]),
            route("path", &none, &["/api", "/api/v2"]),
            route("wildcard", &["*.example.com"], &none),
            route("host", &["A.example.com"], &none),
            route("both", &["a.example.com"], &["/api"]),
        ];
        for (host, path, expected) in [
            ("x.test", "/", Some(("any", "/"))),
            ("x.test", "/api/v2/users", Some(("path", "/api/v2"))),
            ("x.test", "/apis", Some(("path", "/api"))),
            ("b.example.com", "/api", Some(("wildcard", ""))),
            ("a.example.com", "/", Some(("host", ""))),
            ("a.example.com", "/api/x", Some(("both", "/api"))),
            ("example.com", "/", Some(("any", "/"))),
        ] {
            let found = find(&routes, host, path);
            let found = found.as_ref().map(|(i, prefix)| (routes[*i].name.as_str(), prefix.as_str()));
            assert_eq!(found, expected, "{host}{path}");
        }
        assert_eq!(find(&routes[1..], "x.test", "/other"), None);
    }
}
