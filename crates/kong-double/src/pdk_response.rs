//! This knows the PDK calls about responses, `kong.response.*` and `kong.service.response.*`, and how Kong
//! words its errors.

use crate::{
    arguments::{first, header_name_arg, header_table, limit, only, text_arg},
    headers::values_of,
    phase::{Exit, Phase, Stop},
    request::Request,
    value::Value,
};

const JSON: &str = "application/json; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";
const PLAIN: &str = "text/plain; charset=utf-8";
const XML: &str = "application/xml; charset=utf-8";

/// Runs one of these methods; `None` if it is none of them.
pub(crate) fn run(
    method: &str,
    args: &[Value],
    phase: Phase,
    request: &mut Request,
) -> Result<Option<Value>, Stop> {
    let arg = |n: usize| args.get(n - 1).unwrap_or(&Value::Nil);
    let before_sent = || only(phase, &[Phase::Access, Phase::Response]);
    let after_upstream = || only(phase, &[Phase::Response, Phase::Log]);
    let answered =
        |request: &Request| request.answered.clone().ok_or_else(|| Stop::from("no response".to_owned()));
    Ok(Some(match method {
        "kong.response.exit" => {
            before_sent()?;
            return Err(Stop::Exit(exit(arg(1), arg(2), arg(3))?));
        }
        "kong.response.error" => {
            before_sent()?;
            let accept = request.headers.to_lua(100).get("accept").clone();
            return Err(Stop::Exit(error(arg(1), arg(2), arg(3), &accept, &request.id)?));
        }
        "kong.response.set_header" | "kong.response.add_header" => {
            before_sent()?;
            let name = response_name(header_name_arg(arg(1))?);
            let values = values_of(&name, arg(2))?;
            if method.ends_with("add_header") {
                request.response_headers.append(&name, values);
            } else {
                set_response_header(request, &name, values);
            }
            Value::Nil
        }
        "kong.response.set_headers" => {
            before_sent()?;
            for (name, values) in header_table(arg(1))? {
                set_response_header(request, &response_name(&name), values);
            }
            Value::Nil
        }
        "kong.response.clear_header" => {
            before_sent()?;
            let name = response_name(text_arg(arg(1), "header name")?);
            set_response_header(request, &name, Vec::new());
            Value::Nil
        }
        "kong.response.get_status" => {
            after_upstream()?;
            Value::number(answered(request)?.status)
        }
        "kong.response.get_headers" => {
            after_upstream()?;
            answered(request)?.headers.to_lua(limit(arg(1), "max_headers")?)
        }
        "kong.response.get_header" => {
            after_upstream()?;
            let name = response_name(text_arg(arg(1), "header name")?).to_ascii_lowercase();
            first(answered(request)?.headers.to_lua(100).get(&String::from_utf8_lossy(&name)))
        }
        "kong.response.get_source" => {
            after_upstream()?;
            Value::str(answered(request)?.source)
        }
        "kong.service.response.get_status" => {
            after_upstream()?;
            answered(request)?.upstream_status.map_or(Value::Nil, Value::number)
        }
        "kong.service.response.get_headers" => {
            after_upstream()?;
            let max = limit(arg(1), "max_headers")?;
            match answered(request)? {
                // Of a buffered response Kong's Lua gives a table that looks things up but lists nothing
                // (recording 05).
                answered if answered.body.is_some() => Value::List(Vec::new()),
                answered => answered.headers.to_lua(max),
            }
        }
        "kong.service.response.get_header" => {
            after_upstream()?;
            let name = response_name(text_arg(arg(1), "name")?).to_ascii_lowercase();
            first(answered(request)?.headers.to_lua(100).get(&String::from_utf8_lossy(&name)))
        }
        "kong.service.response.get_raw_body" => {
            after_upstream()?;
            let unbuffered =
                || Stop::from("service body is only available with buffered proxying".to_owned());
            Value::Str(answered(request)?.body.ok_or_else(unbuffered)?.to_vec())
        }
        _ => return Ok(None),
    }))
}

/// `ngx.header[name]`: on responses an underscore stands for a hyphen.
fn response_name(name: &[u8]) -> Vec<u8> {
    name.iter().map(|b| if *b == b'_' { b'-' } else { *b }).collect()
}

fn set_response_header(request: &mut Request, name: &[u8], values: Vec<Vec<u8>>) {
    if name.eq_ignore_ascii_case(b"transfer-encoding") {
        request.log(crate::Level::Warn, "response.lua:540", b"manually setting Transfer-Encoding. Ignored.");
        return;
    }
    request.response_headers.set(name, values.clone());
    if let Some(answered) = &mut request.answered {
        answered.headers.set(name, values);
    }
}

/// `kong.response.exit(status, body, headers)`.
fn exit(status: &Value, body: &Value, headers: &Value) -> Result<Exit, Stop> {
    let status = status_code(status, 100)?;
    let headers = if *headers == Value::Nil { Vec::new() } else { header_table(headers)? };
    let (body, content_type) = match body {
        Value::Nil => (Vec::new(), None),
        Value::Str(bytes) | Value::Bin(bytes) => (bytes.clone(), None),
        Value::List(_) | Value::Map(_) => (
            body.to_json().map_err(|e| format!("body encoding failed while flushing response: {e}"))?,
            Some(JSON),
        ),
        _ => return Err("body must be a nil, string or table".to_owned().into()),
    };
    Ok(Exit { status, headers, body, content_type })
}

/// `kong.response.error(status, message, headers)`.
fn error(status: &Value, message: &Value, headers: &Value, accept: &Value, id: &str) -> Result<Exit, Stop> {
    let status = status_code(status, 400)?;
    let message = match message {
        Value::Nil => None,
        Value::Str(bytes) | Value::Bin(bytes) => Some(bytes.clone()),
        Value::List(_) | Value::Map(_) => Some(message.to_json()?),
        _ => return Err("message must be a nil, a string or a table".to_owned().into()),
    };
    let mut headers = if *headers == Value::Nil { Vec::new() } else { header_table(headers)? };
    // Lua's table lookup: only this spelling names the content type.
    let given = headers.iter().position(|(name, _)| name == b"Content-Type").map(|at| headers.remove(at));
    let given = given.and_then(|(_, values)| values.into_iter().next());
    let content_type = match &given {
        Some(given) => mime_type(given).ok_or_else(|| "bad argument #1 to 'fmt'".to_owned())?,
        None => negotiated(accept),
    };
    Ok(Exit {
        status,
        headers,
        body: error_body(status, message.as_deref(), content_type, id),
        content_type: Some(content_type),
    })
}

/// An error that Kong itself gives: of the type that the client accepts.
pub(crate) fn own_error(status: u16, message: Option<&str>, request: &Request) -> Exit {
    let content_type = negotiated(request.headers.to_lua(100).get("accept"));
    let body = error_body(status, message.map(str::as_bytes), content_type, &request.id);
    Exit { status, headers: Vec::new(), body, content_type: Some(content_type) }
}

fn status_code(status: &Value, least: u16) -> Result<u16, Stop> {
    match status {
        Value::Number(n) if (f64::from(least)..=599.0).contains(n) => Ok(*n as u16),
        Value::Number(_) => Err(format!("code must be a number between {least} and 599").into()),
        _ => Err("code must be a number".to_owned().into()),
    }
}

/// The body of an error; Kong puts the message in as it is.
fn error_body(status: u16, message: Option<&[u8]>, content_type: &str, id: &str) -> Vec<u8> {
    let default = default_message(status);
    let message = message.unwrap_or(default.as_bytes());
    let id = id.as_bytes();
    match content_type {
        HTML => [
            &b"<!doctype html>\n<html>\n  <head>\n    <meta charset=\"utf-8\">\n    <title>Error</title>\n  </head>\n  <body>\n    <h1>Error</h1>\n    <p>"[..],
            message, b".</p>\n    <p>request_id: ", id, b"</p>\n  </body>\n</html>\n",
        ].concat(),
        PLAIN => [message, b"\nrequest_id: ", id, b"\n"].concat(),
        XML => [
            &b"<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<error>\n  <message>"[..],
            message, b"</message>\n  <requestid>", id, b"</requestid>\n</error>\n",
        ].concat(),
        _ => [&b"{\n  \"message\":\""[..], message, b"\",\n  \"request_id\":\"", id, b"\"\n}"].concat(),
    }
}

/// The error type for an `Accept` header: that of the highest quality, the first of equals.
fn negotiated(accept: &Value) -> &'static str {
    let accept = match accept {
        Value::List(values) => values.iter().flat_map(|v| [&v.to_lua_string()[..], b","].concat()).collect(),
        other => other.as_bytes().unwrap_or_default().to_vec(),
    };
    let accept = String::from_utf8_lossy(&accept).into_owned();
    let mut best = (0.0, JSON);
    for value in accept.split(',') {
        let mut parts = value.split(';').map(str::trim);
        let media_type = parts.next().unwrap_or_default();
        let quality = parts.find_map(|p| p.strip_prefix("q=")?.parse::<f64>().ok()).unwrap_or(1.0);
        if media_type.contains('/') && quality > best.0 {
            best = (quality, mime_type(media_type.as_bytes()).unwrap_or(JSON));
        }
    }
    best.1
}

fn mime_type(media_type: &[u8]) -> Option<&'static str> {
    let bare = media_type.split(|b| *b == b';').next().unwrap_or_default();
    match bare.trim_ascii() {
        b"application/json" | b"application/*" | b"*/*" => Some(JSON),
        b"text/html" => Some(HTML),
        b"text/plain" | b"text/*" => Some(PLAIN),
        b"application/xml" => Some(XML),
        _ => None,
    }
}

fn default_message(status: u16) -> String {
    match status {
        400 => "Bad request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not found",
        405 => "Method not allowed",
        408 => "Request timeout",
        413 => "Payload too large",
        414 => "URI too long",
        421 => "Misdirected request",
        429 => "Too many requests",
        494 => "Request header or cookie too large",
        500 => "An unexpected error occurred",
        502 => "An invalid response was received from the upstream server",
        503 => "The upstream server is currently unavailable",
        504 => "The upstream server is timing out",
        other => return format!("The upstream server responded with {other}"),
    }
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_come_in_the_type_the_client_accepts() {
        for (accept, expected) in [
            ("", JSON),
            ("*/*", JSON),
            ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", HTML),
            ("text/plain", PLAIN),
            ("text/*;q=0.5, application/xml;q=0.6", XML),
            ("application/json;q=0.1, text/html;q=0", JSON),
            ("image/png", JSON),
        ] {
            assert_eq!(negotiated(&Value::str(accept)), expected, "{accept}");
        }
    }
}
