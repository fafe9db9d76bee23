//! `mtls-auth guard`, and what the server says of the guard by itself.

mod common;

use std::process::{Command, Output};

use common::{BINARY, Connection, Prefix};
use serde_json::{Value as Json, json};
use testbed::fake_admin::{FakeAdmin, kong_of};
use testbed::pki::Ca;

fn guard(args: &[&str]) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = Command::new(BINARY).arg("guard").args(args).output().unwrap();
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

const UNGUARDED: &str = "\
_format_version: '3.0'
services:
- name: pay
  url: http://127.0.0.1:9000
  routes:
  - name: pay
    plugins: [{name: mtls-auth}]
";

fn id(number: usize) -> String {
    format!("aaaaaaaa-0000-4000-8000-{number:012}")
}

/// Lists of the Admin API: a route with our plugin, and a function of somebody's.
fn lists() -> Json {
    let plugin = |number, name, config: Json| {
        json!({
            "id": id(number), "name": name, "enabled": true, "config": config, "consumer": null, "service": null,
            "route": {"id": id(1)}, "protocols": ["grpc", "grpcs", "http", "https"],
        })
    };
    json!({
        "services": [],
        "routes": [{"id": id(1), "name": "pay", "snis": null, "protocols": ["http", "https"], "service": null}],
        "plugins": [
            plugin(2, "mtls-auth", json!({})),
            plugin(3, "post-function", json!({"access": ["kong.log('it''s')"], "log": []})),
        ],
    })
}

#[test]
fn what_is_unguarded_is_found_and_what_is_printed_mends_it() {
    let prefix = Prefix::new();
    let file = prefix.write("kong.yml", UNGUARDED);
    let file = ["--declarative-config", file.to_str().unwrap()];
    let (code, said, _) = guard(&[&file[..], &["--check"]].concat());
    assert_eq!(code, Some(1), "{said}");
    assert_eq!(said, "mtls-auth on route pay: UNGUARDED\n  route pay: no post-function applies\n");

    let (code, printed, _) = guard(&file);
    assert_eq!(code, Some(0));
    let mended = prefix.write("mended.yml", &format!("{UNGUARDED}{printed}"));
    let mended = ["--declarative-config", mended.to_str().unwrap()];
    let (code, said, _) = guard(&[&mended[..], &["--check"]].concat());
    assert_eq!((code, &*said), (Some(0), "mtls-auth on route pay: guarded\n"), "{printed}");
    assert_eq!(guard(&mended).1, "# mtls-auth on route pay: guarded\n");
}

/// What is printed for a shell is read by one.
#[tokio::test(flavor = "multi_thread")]
async fn commands_for_the_admin_api_say_what_they_should_to_a_shell() {
    let prefix = Prefix::new();
    let token = prefix.write("it's a token", "secret\n");
    std::fs::set_permissions(&token, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let admin = FakeAdmin::start(|seen| kong_of(&lists(), None, seen)).await;
    let args = ["--admin-url", &admin.url, "--admin-token-file", token.to_str().unwrap()];
    assert_eq!(guard(&[&args[..], &["--check"]].concat()).0, Some(1));
    let (code, printed, error) = guard(&args);
    assert_eq!(code, Some(0), "{error}");
    assert!(!printed.contains("secret"));
    let arguments = |printed: &str| {
        let script = format!("curl() {{ printf '%s\\0' \"$@\"; }}\n{printed}");
        let output = Command::new("sh").args(["-c", &script]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        text.trim_end_matches('\0').split('\0').map(str::to_owned).collect::<Vec<_>>()
    };
    let said = arguments(&printed);
    assert_eq!(said[..3], ["-fsS", "-X", "PATCH"]);
    assert_eq!(said[3], format!("{}/plugins/{}", admin.url, id(3)));
    assert!(said.contains(&"Kong-Admin-Token: secret".to_owned()), "{said:?}");
    let body: Json = serde_json::from_str(said.last().unwrap()).unwrap();
    let access = body["config"]["access"].as_array().unwrap();
    assert!(access[0].as_str().unwrap().contains("guard v1") && access[1] == "kong.log('it''s')", "{body}");

    // Without the other plugin, a new one.
    let mut fewer = lists();
    fewer["plugins"].as_array_mut().unwrap().pop();
    let without_it = fewer.clone();
    admin.becomes(move |seen| kong_of(&without_it, None, seen));
    let said = arguments(&guard(&args).1);
    assert_eq!(said[2..4], ["POST".to_owned(), format!("{}/plugins", admin.url)]);
    let body: Json = serde_json::from_str(said.last().unwrap()).unwrap();
    assert_eq!((&body["name"], &body["route"]), (&json!("post-function"), &json!({"id": id(1)})));

    // A Kong without a database takes a declarative file only.
    admin.becomes(move |seen| kong_of(&fewer, Some("12a0ff31c85ee32cbb28ae721edc5b8a"), seen));
    assert!(guard(&args).1.contains("plugins:\n"));
    assert!(guard(&[&args[..], &["--format", "admin"]].concat()).1.contains("curl "));
}

#[tokio::test(flavor = "multi_thread")]
async fn how_it_ends_says_what_is_wrong() {
    let prefix = Prefix::new();
    let file = prefix.write("kong.yml", UNGUARDED);
    let (file, absent) = (file.to_str().unwrap(), prefix.path("absent"));
    let admin = FakeAdmin::start(|_| testbed::fake_admin::not_found()).await;
    for (args, code, says) in [
        (&["--declarative-config", absent.to_str().unwrap()][..], 1, "No such file"),
        (&["--admin-url", &admin.url], 1, "404"),
        (&["--check"], 2, "--admin-url"),
        (&["--declarative-config", file, "--admin-url", &admin.url], 2, "cannot be used with"),
        (&["--declarative-config", file, "--admin-ca-file", file], 2, "--admin-url"),
        (&["--declarative-config", file, "--check", "--format", "admin"], 2, "cannot be used with"),
        (&["--declarative-config", file, "--format", "admin"], 2, "only with --admin-url"),
    ] {
        let (status, printed, error) = guard(args);
        assert!(
            status == Some(code) && error.contains(says) && printed.is_empty(),
            "{args:?}: {status:?} {error}"
        );
    }
}

/// Plays Kong for a request that shows no certificate, and gives the calls that it is asked for.
fn calls(kong: &mut Connection, instance: &Json) -> Vec<(String, Json)> {
    let mut calls = Vec::new();
    let mut step = kong.ok("plugin.HandleEvent", json!({"InstanceId": instance, "EventName": "access"}));
    loop {
        let method = step["Data"]["Method"].as_str().unwrap().to_owned();
        calls.push((method.clone(), step["Data"]["Args"][0].clone()));
        let mut arg = json!({"EventId": step["EventId"]});
        match &*method {
            "kong.response.error" => return calls,
            "kong.request.get_headers" => arg["Data"] = json!({"host": ["x"]}),
            _ => {}
        }
        step = kong.ok("plugin.StepMultiMap", arg);
    }
}

fn start_instance(kong: &mut Connection) -> Json {
    let config = json!({"certificate_source": "shim", "ca_certificates": [Ca::root("root").pem()], "skip_consumer_lookup": true});
    kong.ok("plugin.StartInstance", json!({"Name": "mtls-auth", "Config": config.to_string()}))["Id"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn kongs_log_says_once_what_is_unguarded() {
    const PLAIN: [&str; 3] = ["kong.request.get_headers", "kong.log.notice", "kong.response.error"];
    let prefix = Prefix::new();
    let file = prefix.write("kong.yml", UNGUARDED);
    let admin = FakeAdmin::start(|seen| kong_of(&lists(), None, seen)).await;
    for (source, says) in [
        (["--declarative-config", file.to_str().unwrap()], "route pay: no post-function applies"),
        (["--admin-url", &admin.url], "none that can be vouched for"),
    ] {
        let server = prefix.serve(&source);
        let mut kong = prefix.connect();
        let instance = start_instance(&mut kong);
        // It is logged as soon as it is found, which is a moment before an event can tell it.
        server.wait_for("without the guard");
        let seen = (0..10_000).map(|_| calls(&mut kong, &instance)).find(|calls| calls.len() > PLAIN.len());
        let (method, line) = seen.unwrap().into_iter().next().unwrap();
        assert_eq!(method, "kong.log.warn");
        let line = line.as_str().unwrap();
        assert!(line.contains("mtls-auth on route pay") && line.contains(says), "{line}");
        start_instance(&mut kong);
        for _ in 0..3 {
            let methods: Vec<_> = calls(&mut kong, &instance).into_iter().map(|(method, _)| method).collect();
            assert_eq!(methods, PLAIN);
        }
        drop(server);
    }
}
