//! This knows the double's entities and variables as the PDK shows them: route, service, node, nginx
//! variables, the log entry.

use std::{sync::OnceLock, time::UNIX_EPOCH};

use http::Version;
use serde_json::json;

use crate::{
    config::{CREATED_AT, Route, uuid_of, workspace_id},
    request::Request,
    uri::{normal_path, query_args, upstream_uri},
    value::Value,
};

/// `kong.router.get_route()`.
pub(crate) fn route(request: &Request) -> Value {
    request.matched_route().map_or(Value::Nil, |route| (&route_json(route)).into())
}

/// `kong.router.get_service()`.
pub(crate) fn service(request: &Request) -> Value {
    request.matched_route().map_or(Value::Nil, |route| (&service_json(route)).into())
}

fn route_json(route: &Route) -> serde_json::Value {
    let list = |items: &[String]| if items.is_empty() { json!(null) } else { json!(items) };
    json!({
        "id": uuid_of(&["route", &route.name]),
        "name": route.name,
        "hosts": list(&route.hosts),
        "paths": list(&route.paths),
        "protocols": ["http", "https"],
        "strip_path": route.strip_path,
        "preserve_host": route.preserve_host,
        "path_handling": "v0",
        "regex_priority": 0,
        "https_redirect_status_code": 426,
        "request_buffering": true,
        "response_buffering": true,
        "service": {"id": service_id(route)},
        "created_at": CREATED_AT,
        "updated_at": CREATED_AT,
        "ws_id": workspace_id(),
    })
}

fn service_id(route: &Route) -> String {
    uuid_of(&["service", &route.upstream.to_string()])
}

fn service_json(route: &Route) -> serde_json::Value {
    json!({
        "id": service_id(route),
        "name": "up",
        "protocol": "http",
        "host": route.upstream.ip().to_string(),
        "port": route.upstream.port(),
        "enabled": true,
        "retries": 5,
        "connect_timeout": 60_000,
        "read_timeout": 60_000,
        "write_timeout": 60_000,
        "created_at": CREATED_AT,
        "updated_at": CREATED_AT,
        "ws_id": workspace_id(),
    })
}

/// `kong.node.get_id()`.
pub(crate) fn node_id() -> &'static str {
    static ID: OnceLock<String> = OnceLock::new();
    ID.get_or_init(|| uuid_of(&["node"]))
}

/// `kong.node.get_memory_stats()`: Kong's shape; the numbers are its sizes at rest.
pub(crate) fn memory_stats() -> Value {
    let dict = |capacity: u32, slabs: u32| {
        Value::record([("capacity", Value::number(capacity)), ("allocated_slabs", Value::number(slabs))])
    };
    let (small, large) = (dict(5_242_880, 40_960), dict(134_217_728, 794_624));
    let medium = dict(12_582_912, 86_016);
    Value::record([
        (
            "lua_shared_dicts",
            Value::record([
                ("kong", small.clone()),
                ("kong_locks", dict(8_388_608, 61_440)),
                ("kong_healthchecks", small.clone()),
                ("kong_cluster_events", small.clone()),
                ("kong_rate_limiting_counters", medium.clone()),
                ("kong_core_db_cache", large.clone()),
                ("kong_core_db_cache_miss", medium.clone()),
                ("kong_db_cache", large),
                ("kong_db_cache_miss", medium),
                ("kong_secrets", small),
            ]),
        ),
        (
            "workers_lua_vms",
            Value::List(vec![Value::record([
                ("pid", Value::number(std::process::id())),
                ("http_allocated_gc", Value::number(57_684_055)),
            ])]),
        ),
    ])
}

/// `kong.nginx.get_var(name)`; nil for what the double does not have, such as `ssl_*` on plain HTTP.
pub(crate) fn nginx_var(request: &Request, name: &[u8]) -> Value {
    let name = String::from_utf8_lossy(name).to_ascii_lowercase();
    if let Some(header) = name.strip_prefix("http_") {
        return request.headers.as_kong_reads(header.as_bytes()).map_or(Value::Nil, Value::Str);
    }
    match name.as_str() {
        "args" | "query_string" => request.raw_query().map_or(Value::Nil, Value::str),
        "host" => Value::str(request.host()),
        "kong_request_id" => Value::str(&request.id),
        "realip_remote_addr" => Value::str(request.client.ip().to_string()),
        "remote_addr" => Value::str(request.remote_addr.to_string()),
        "remote_port" => Value::str(request.client.port().to_string()),
        "request_method" => Value::str(request.method.as_str()),
        "request_uri" => Value::str(request.request_uri()),
        "scheme" => Value::str("http"),
        "server_port" => Value::str(request.server.port().to_string()),
        "server_protocol" => {
            Value::str(if request.version == Version::HTTP_10 { "HTTP/1.0" } else { "HTTP/1.1" })
        }
        "uri" => Value::str(normal_path(request.raw_path())),
        _ => Value::Nil,
    }
}

/// `kong.log.serialize()`: the entry that Kong's logging plugins write.
pub(crate) fn log_entry(request: &Request) -> String {
    let flat = |headers: &crate::headers::Headers| {
        let map = headers.to_lua(100).to_json().unwrap_or_default();
        serde_json::from_str::<serde_json::Value>(&String::from_utf8_lossy(&map)).unwrap_or_default()
    };
    let query = query_args(request.raw_query().unwrap_or_default(), 100).to_json().unwrap_or_default();
    let query: serde_json::Value = serde_json::from_slice(&query).unwrap_or_default();
    let since = request.received_at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let started = since.as_millis() as u64;
    let url = format!("http://{}:{}{}", request.host(), request.server.port(), request.request_uri());
    let answered = request.answered.as_ref();
    let mut entry = json!({
        "client_ip": request.remote_addr.to_string(),
        "started_at": started,
        "workspace": workspace_id(),
        "workspace_name": "default",
        "source": if answered.is_some_and(|a| a.source == "service") { "upstream" } else { "kong" },
        "latencies": {"kong": 0, "proxy": 0, "receive": 0, "request": request.received.elapsed().as_millis() as u64},
        "request": {
            "id": request.id, "method": request.method.as_str(), "uri": request.request_uri(), "url": url,
            "querystring": query, "headers": flat(&request.headers), "size": 0,
        },
        "tries": [],
    });
    if let Some(answered) = answered {
        entry["response"] = json!({"status": answered.status, "headers": flat(&answered.headers), "size": 0});
        if let Some(status) = answered.upstream_status {
            entry["upstream_status"] = status.into();
        }
    }
    if let Some(route) = request.matched_route() {
        entry["route"] = route_json(route);
        entry["route"].as_object_mut().into_iter().for_each(|map| map.retain(|_, v| !v.is_null()));
        entry["service"] = service_json(route);
        let upstream_ip = route.upstream.ip().to_string();
        entry["upstream_uri"] = upstream_uri(request).into();
        if answered.is_some_and(|a| a.upstream_status.is_some()) {
            entry["tries"] = json!([{
                "ip": upstream_ip, "port": route.upstream.port(), "balancer_start": started,
                "balancer_start_ns": since.as_nanos() as f64, "balancer_latency": 0, "balancer_latency_ns": 0,
            }]);
        }
    }
    entry.to_string().replace('/', "\\/")
}
