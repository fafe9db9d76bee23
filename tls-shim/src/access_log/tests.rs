use std::time::UNIX_EPOCH;

use http::StatusCode;
use serde_json::Value;

use super::*;
use crate::limits;
use crate::record::Connected;

fn connected() -> Connected {
    Connected {
        client: "[::ffff:192.0.2.7]:50123".parse().unwrap(),
        server: "203.0.113.1:8443".parse().unwrap(),
        tls: "TLSv1.3",
        cipher: "TLS_AES_256_GCM_SHA384",
        sni: Some("secured.example".into()),
        asked: true,
        fingerprint: Some("ab".repeat(32)),
        resumed: false,
        handshake: Duration::from_micros(4_321),
    }
}

fn finished<'a>(connection: &'a Connected, host: &'a str, path: &'a str) -> Finished<'a> {
    Finished {
        connection,
        method: "GET",
        host: Some(host),
        path,
        version: Version::HTTP_2,
        answer: Some((StatusCode::OK, By::Kong)),
        up: 0,
        down: 1234,
        answered_after: Some(Duration::from_micros(12_500)),
        took: Duration::from_millis(13),
        broken_off: None,
    }
}

fn text(request: &Finished<'_>) -> String {
    String::from_utf8(line(request, UNIX_EPOCH + Duration::from_millis(1))).unwrap()
}

#[test]
fn a_line_has_all_keys_in_their_order() {
    let connection = connected();
    let expected = concat!(
        r#"{"time":"1970-01-01T00:00:00.001Z","client":"192.0.2.7","client_port":50123,"#,
        r#""server":"203.0.113.1","server_port":8443,"tls":"TLSv1.3","cipher":"TLS_AES_256_GCM_SHA384","#,
        r#""sni":"secured.example","asked":true,"presented":true,"resumed":false,"#,
        r#""certificate_sha256":"abababababababababababababababababababababababababababababababab","#,
        r#""protocol":"HTTP/2","method":"GET","host":"a","path":"/x","status":200,"answered_by":"kong","#,
        r#""reason":null,"bytes_up":0,"bytes_down":1234,"handshake_ms":4.321,"answer_ms":12.5,"#,
        r#""total_ms":13.0,"broken_off_by":null}"#,
        "\n"
    );
    assert_eq!(text(&finished(&connection, "a", "/x")), expected);

    let bare = Connected { sni: None, asked: false, fingerprint: None, resumed: true, ..connection };
    let mut request = finished(&bare, "a", "/");
    (request.version, request.host, request.answered_after) = (Version::HTTP_11, None, None);
    request.answer = Some((StatusCode::MISDIRECTED_REQUEST, By::Shim("misdirected")));
    for (side, name) in [(Side::Client, "client"), (Side::Upstream, "upstream"), (Side::Shim, "shim")] {
        request.broken_off = Some(side);
        let line: Value = serde_json::from_str(&text(&request)).unwrap();
        for (key, expected) in [
            ("sni", Value::Null),
            ("host", Value::Null),
            ("certificate_sha256", Value::Null),
            ("answer_ms", Value::Null),
            ("presented", false.into()),
            ("protocol", "HTTP/1.1".into()),
            ("status", 421.into()),
            ("answered_by", "shim".into()),
            ("reason", "misdirected".into()),
            ("broken_off_by", name.into()),
        ] {
            assert_eq!(line[key], expected, "{key}");
        }
    }
    request.answer = None;
    let line: Value = serde_json::from_str(&text(&request)).unwrap();
    assert!(line["status"].is_null() && line["answered_by"].is_null() && line["reason"].is_null());
}

#[test]
fn nobody_writes_a_line_but_the_shim() {
    let connection = connected();
    let hostile = "\"},\n{\"status\":200}\r\n\u{0}\u{1b}[2J\u{7f}\u{85}\u{9b}2J\u{2028}\u{202e}é\u{1f600}\\";
    let line = text(&finished(&connection, hostile, hostile));
    assert!(line.ends_with("}\n"));
    let inside = line.trim_end_matches('\n');
    assert!(inside.bytes().all(|byte| matches!(byte, b' '..=b'~')), "{inside}");
    let read: Value = serde_json::from_str(inside).unwrap();
    assert_eq!((&read["host"], &read["path"]), (&hostile.into(), &hostile.into()));
    assert_eq!(read.as_object().unwrap().len(), 25);
}

#[test]
fn the_longest_line_has_an_end() {
    let [name, path] = [limits::LOGGED_NAME, limits::LOGGED_PATH].map(|bytes| "\u{1}".repeat(bytes) + "…");
    let connection = Connected { sni: Some(name.clone()), ..connected() };
    let line = text(&finished(&connection, &name, &path));
    assert!(line.len() < 10 * 1024, "{}", line.len());
}

#[test]
fn what_is_missing_is_told() {
    assert_eq!(dropped_line(7, UNIX_EPOCH), b"{\"time\":\"1970-01-01T00:00:00.000Z\",\"dropped\":7}\n");
}
