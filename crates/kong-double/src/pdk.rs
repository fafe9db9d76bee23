//! This knows the PDK calls: which method may run in which phase, what it takes, does and gives back.

use std::{net::IpAddr, sync::atomic::Ordering, time::UNIX_EPOCH};

use crate::{
    Level,
    arguments::{first, header_name_arg, header_table, limit, only, text_arg},
    entities,
    headers::values_of,
    pdk_response,
    phase::{Phase, Stop},
    protocol::Protocol,
    request::Request,
    uri::{encoded_args, normal_path, query_args},
    value::Value,
};

/// Runs one PDK call; `None` where there is no such method.
pub(crate) async fn run(
    method: &str,
    args: &[Value],
    phase: Phase,
    request: &mut Request,
) -> Result<Option<Value>, Stop> {
    if method == "kong.request.get_raw_body" {
        only(phase, &[Phase::Access, Phase::Response])?;
        let body = request.read_body().await.map_err(|e| e.to_string())?;
        // Kong's default client_body_buffer_size: beyond it the body is on disk and the PDK gives nil (recording 17).
        return Ok(Some(if body.len() > 8192 { Value::Nil } else { Value::Str(body.to_vec()) }));
    }
    let result = run_at_once(method, args, phase, request)?;
    if result.is_some() { Ok(result) } else { pdk_response::run(method, args, phase, request) }
}

/// All but those about responses and bodies.
fn run_at_once(
    method: &str,
    args: &[Value],
    phase: Phase,
    request: &mut Request,
) -> Result<Option<Value>, Stop> {
    let arg = |n: usize| args.get(n - 1).unwrap_or(&Value::Nil);
    if let Some(level) = method.strip_prefix("kong.log.").and_then(Level::of_pdk) {
        return log(level, args, request).map(Some);
    }
    let result = match method {
        "kong.log" => log(Level::Notice, args, request),
        "kong.log.serialize" => {
            only(phase, &[Phase::Log])?;
            Ok(Value::str(entities::log_entry(request)))
        }

        "kong.client.get_ip" => Ok(Value::str(request.client.ip().to_string())),
        "kong.client.get_forwarded_ip" => Ok(Value::str(request.remote_addr.to_string())),
        "kong.client.get_port" => Ok(Value::number(request.client.port())),
        "kong.client.get_credential" => Ok(request.credential.clone()),
        "kong.client.get_consumer" => Ok(request.consumer.clone()),
        "kong.client.authenticate" => authenticate(arg(1), arg(2), phase, request),
        "kong.client.load_consumer" => load_consumer(arg(1), arg(2), phase, request),
        // The double has plain HTTP only, on which Kong finds no certificate either.
        "kong.client.tls.get_full_client_certificate_chain" => Ok(Value::Nil),
        "kong.ip.is_trusted" => {
            let ip = text_arg(arg(1), "ip")?;
            let ip: Option<IpAddr> = std::str::from_utf8(ip).ok().and_then(|ip| ip.parse().ok());
            Ok(Value::Bool(ip.is_some_and(|ip| request.config.is_trusted(ip))))
        }

        "kong.request.get_scheme" => Ok(Value::str("http")),
        "kong.request.get_host" => Ok(Value::str(request.host())),
        "kong.request.get_port" => Ok(Value::number(request.server.port())),
        "kong.request.get_forwarded_scheme" => Ok(Value::Str(
            request.forwarded("x-forwarded-proto").unwrap_or("http".into()).to_ascii_lowercase(),
        )),
        "kong.request.get_http_version" => Ok(Value::number(request.http_version())),
        "kong.request.get_method" => Ok(Value::str(request.method.as_str())),
        "kong.request.get_path" => Ok(Value::str(normal_path(request.raw_path()))),
        "kong.request.get_raw_path" => Ok(Value::str(request.raw_path())),
        "kong.request.get_path_with_query" => Ok(Value::str(request.request_uri())),
        "kong.request.get_raw_query" => Ok(Value::str(request.raw_query().unwrap_or_default())),
        "kong.request.get_query" => {
            let max = limit(arg(1), "max_args")?;
            Ok(query_args(request.raw_query().unwrap_or_default(), max))
        }
        "kong.request.get_query_arg" => {
            let name = text_arg(arg(1), "query argument name")?;
            let args = query_args(request.raw_query().unwrap_or_default(), 100);
            Ok(first(args.get(&String::from_utf8_lossy(name))))
        }
        "kong.request.get_headers" => Ok(request.headers.to_lua(limit(arg(1), "max_headers")?)),
        "kong.request.get_header" => {
            let name = text_arg(arg(1), "header name")?;
            Ok(request.headers.as_kong_reads(name).map_or(Value::Nil, Value::Str))
        }

        "kong.service.request.set_header" | "kong.service.request.add_header" => {
            only(phase, &[Phase::Access])?;
            let values = values_of(header_name_arg(arg(1))?, arg(2))?;
            upstream_header(request, header_name_arg(arg(1))?, values, method.ends_with("add_header"));
            Ok(Value::Nil)
        }
        "kong.service.request.set_headers" => {
            only(phase, &[Phase::Access])?;
            for (name, values) in header_table(arg(1))? {
                upstream_header(request, &name, values, false);
            }
            Ok(Value::Nil)
        }
        "kong.service.request.clear_header" => {
            only(phase, &[Phase::Access])?;
            let name = text_arg(arg(1), "header")?;
            request.headers.set(name, Vec::new());
            Ok(Value::Nil)
        }
        "kong.service.request.set_query" => {
            only(phase, &[Phase::Access])?;
            if arg(1).type_name() != "table" {
                return Err("args must be a table".to_owned().into());
            }
            request.query = Some(encoded_args(arg(1))?);
            Ok(Value::Nil)
        }
        "kong.service.set_target" => set_target(arg(1), arg(2), phase, request),
        "kong.service.set_upstream" => {
            only(phase, &[Phase::Access])?;
            // The double has no Upstream entities: `nil, "could not find an Upstream named …"`, and Kong
            // drops the second value on its way to the plugin server.
            text_arg(arg(1), "host")?;
            Ok(Value::Nil)
        }

        "kong.router.get_route" => Ok(entities::route(request)),
        "kong.router.get_service" => Ok(entities::service(request)),
        "kong.node.get_id" => Ok(Value::str(entities::node_id())),
        "kong.node.get_memory_stats" => Ok(entities::memory_stats()),
        "kong.nginx.get_subsystem" => Ok(Value::str("http")),
        "kong.nginx.get_var" => Ok(entities::nginx_var(request, text_arg(arg(1), "variable name")?)),
        "kong.nginx.req_start_time" => {
            let since = request.received_at.duration_since(UNIX_EPOCH).unwrap_or_default();
            Ok(Value::number(since.as_millis() as f64 / 1000.0))
        }
        // Where Kong keeps what `authenticate` was given.
        "kong.nginx.set_ctx" if *arg(1) == Value::str("authenticated_credential") => {
            request.credential = arg(2).clone();
            Ok(Value::Nil)
        }
        "kong.nginx.set_ctx" => set_key(&mut request.ngx_ctx, arg(1), arg(2)),
        "kong.nginx.get_ctx" => Ok(get_key(&request.ngx_ctx, arg(1))),
        "kong.ctx.shared.set" => set_key(&mut request.ctx_shared, arg(1), arg(2)),
        "kong.ctx.shared.get" => Ok(get_key(&request.ctx_shared, arg(1))),

        // A namespace is a table, which has no call.
        "kong"
        | "kong.client"
        | "kong.configuration"
        | "kong.ctx"
        | "kong.ctx.shared"
        | "kong.ip"
        | "kong.nginx"
        | "kong.node"
        | "kong.request"
        | "kong.response"
        | "kong.router"
        | "kong.service"
        | "kong.service.request"
        | "kong.service.response" => Err("attempt to call local 'method' (a table value)".to_owned().into()),
        _ => return Ok(None),
    };
    result.map(Some)
}

fn log(level: Level, args: &[Value], request: &Request) -> Result<Value, Stop> {
    let text: Vec<u8> = args.iter().flat_map(Value::to_lua_string).collect();
    match request.protocol {
        Protocol::MsgPack => request.log(level, "mp_rpc.lua:129", &text),
        // Kong looks these methods up when it starts, where its log has no plugin's name yet.
        Protocol::ProtoBuf => request.log_as_core(level, "pb_rpc.lua:233", &text),
    }
    Ok(Value::Nil)
}

fn authenticate(
    consumer: &Value,
    credential: &Value,
    phase: Phase,
    request: &mut Request,
) -> Result<Value, Stop> {
    only(phase, &[Phase::Access])?;
    for (value, what) in [(consumer, "consumer"), (credential, "credential")] {
        if !matches!(value.type_name(), "table" | "nil") {
            return Err(format!("{what} must be a table or nil").into());
        }
    }
    if *consumer == Value::Nil && *credential == Value::Nil {
        return Err("either credential or consumer must be provided".to_owned().into());
    }
    request.consumer = consumer.clone();
    request.credential = credential.clone();
    Ok(Value::Nil)
}

fn load_consumer(id: &Value, by_username: &Value, phase: Phase, request: &Request) -> Result<Value, Stop> {
    only(phase, &[Phase::Access, Phase::Response, Phase::Log])?;
    let id = String::from_utf8_lossy(text_arg(id, "consumer_id")?);
    let is_uuid = id.len() == 36 && uuid::Uuid::try_parse(&id).is_ok();
    if !is_uuid && !by_username.truthy() {
        return Err("cannot load a consumer with an id that is not a uuid".to_owned().into());
    }
    if !request.consumer_store.load(Ordering::Relaxed) {
        // `nil, err`, of which neither protocol carries the second.
        return Ok(Value::Nil);
    }
    let consumers = &request.config.settings.consumers;
    let by_id = || consumers.iter().find(|c| is_uuid && c.id.eq_ignore_ascii_case(&id));
    let by_name = || consumers.iter().find(|c| by_username.truthy() && c.username.as_deref() == Some(&*id));
    Ok(by_id().or_else(by_name).map_or(Value::Nil, |c| c.to_lua()))
}

fn upstream_header(request: &mut Request, name: &[u8], values: Vec<Vec<u8>>, add: bool) {
    if name.eq_ignore_ascii_case(b"host") {
        request.upstream_host = values.first().and_then(|v| http::HeaderValue::from_bytes(v).ok());
    }
    if add { request.headers.append(name, values) } else { request.headers.set(name, values) }
}

fn set_target(host: &Value, port: &Value, phase: Phase, request: &mut Request) -> Result<Value, Stop> {
    only(phase, &[Phase::Access])?;
    let host = String::from_utf8_lossy(text_arg(host, "host")?).into_owned();
    let port = match port {
        Value::Number(port) if port.fract() == 0.0 => *port,
        _ => return Err("port must be an integer".to_owned().into()),
    };
    if !(0.0..=65535.0).contains(&port) {
        return Err(format!("port must be an integer between 0 and 65535: given {port}").into());
    }
    let ip: IpAddr = host.parse().map_err(|_| format!("the double resolves no names: {host}"))?;
    request.target = Some((ip, port as u16).into());
    request.upstream_host = http::HeaderValue::from_str(&host).ok();
    Ok(Value::Nil)
}

fn set_key(table: &mut Vec<(Value, Value)>, key: &Value, value: &Value) -> Result<Value, Stop> {
    if *key == Value::Nil {
        return Err(Stop::throw("plugin.lua:72", "index is nil"));
    }
    table.retain(|(k, _)| k != key);
    table.push((key.clone(), value.clone()));
    Ok(Value::Nil)
}

fn get_key(table: &[(Value, Value)], key: &Value) -> Value {
    table.iter().find(|(k, _)| k == key).map_or(Value::Nil, |(_, v)| v.clone())
}
