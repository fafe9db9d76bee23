//! The scripts of calls of the Admin API, run against a stand-in that keeps what it is given.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

use serde_json::{Value as Json, json};
use testbed::pki::Ca;

use crate::entities::{TOPOLOGIES, flat};
use crate::kong_yml::check_guard;
use crate::sample::{document, folder, sample, with_ca, write};

pub(crate) const SCRIPTS: &[&str] = &["admin-api.sh", "header/admin-api.sh", "kong-tls/admin-api.sh"];

/// An Admin API with a database: PUT and GET of single entities, by their whole path.
#[derive(Clone, Default)]
struct AdminApi(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    entities: BTreeMap<String, Json>,
    /// Each PUT, in order.
    put: Vec<(String, Json)>,
}

impl AdminApi {
    /// Serves, and returns its URL. It ends with the process.
    fn serve(&self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let api = self.clone();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                let mut lines = Vec::new();
                loop {
                    let mut line = String::new();
                    reader.read_line(&mut line).unwrap();
                    if line.trim().is_empty() {
                        break;
                    }
                    lines.push(line.to_lowercase());
                }
                let length = lines.iter().find_map(|line| line.strip_prefix("content-length: "));
                let mut body = vec![0; length.map_or(0, |length| length.trim().parse().unwrap())];
                reader.read_exact(&mut body).unwrap();
                let mut words = lines[0].split(' ');
                let (method, path) = (words.next().unwrap(), words.next().unwrap().trim_start_matches('/'));
                let (status, answer) = api.answer(method, path, &body);
                let length = answer.len();
                let head = format!(
                    "HTTP/1.1 {status} Status\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"
                );
                stream.write_all(&[head.as_bytes(), answer.as_bytes()].concat()).unwrap();
            }
        });
        url
    }

    fn answer(&self, method: &str, path: &str, body: &[u8]) -> (u16, String) {
        let mut state = self.0.lock().unwrap();
        match (method, serde_json::from_slice::<Json>(body)) {
            ("put", Ok(entity)) => {
                state.put.push((path.to_owned(), entity.clone()));
                state.entities.insert(path.to_owned(), entity.clone());
                (200, entity.to_string())
            }
            ("get", _) => match state.entities.get(path) {
                Some(entity) => (200, entity.to_string()),
                None => (404, json!({"message": "Not found"}).to_string()),
            },
            (method, body) => (400, format!("{method} {path} {body:?}")),
        }
    }

    /// What is there, as a declarative file.
    fn file(&self) -> Json {
        let mut file = json!({"_format_version": "3.0"});
        for (path, entity) in &self.0.lock().unwrap().entities {
            let mut entity = entity.clone();
            let words: Vec<_> = path.split('/').collect();
            let (collection, key) = match words[..] {
                ["services", service, "routes", route] => {
                    entity["service"] = json!({"name": service});
                    ("routes", route)
                }
                ["routes", route, "plugins", id] => {
                    entity["route"] = json!({"name": route});
                    ("plugins", id)
                }
                [collection, key] => (collection, key),
                _ => panic!("{path}"),
            };
            match collection {
                // By an id, as they have no name.
                "ca_certificates" => entity["id"] = key.into(),
                "plugins" => assert!(uuid(key), "{path}"),
                "consumers" => assert_eq!(entity["username"], key),
                _ => assert_eq!(entity["name"], key),
            }
            let lists = file.as_object_mut().unwrap();
            let list = lists.entry(collection).or_insert_with(|| json!([]));
            list.as_array_mut().unwrap().push(entity);
        }
        file
    }

    fn take_put(&self) -> Vec<(String, Json)> {
        std::mem::take(&mut self.0.lock().unwrap().put)
    }
}

fn uuid(text: &str) -> bool {
    text.len() == 36 && text.chars().all(|char| char.is_ascii_hexdigit() || char == '-')
}

fn run(script: &str, url: &str, ca: &Ca) -> Output {
    let dir = tempfile::tempdir().unwrap();
    let pem = write(dir.path(), "ca.pem", &ca.pem());
    let mut command = Command::new("bash");
    command.arg(folder().join(script)).arg(pem).env("ADMIN_URL", url).env("SETTLE", "0");
    command.output().unwrap()
}

#[test]
fn the_admin_api_is_told_the_same() {
    for folder in TOPOLOGIES {
        let ca = Ca::root("your CA");
        let api = AdminApi::default();
        let (script, url) = (format!("{folder}admin-api.sh"), api.serve());
        let first = run(&script, &url, &ca);
        assert!(first.status.success() && first.stderr.is_empty(), "{first:?}");
        let file = api.file();
        let expected = flat(&document(&with_ca(&sample(&format!("{folder}kong.yml")), &ca)));
        assert_eq!(flat(&file), expected, "{folder}");
        assert!(check_guard(&file.to_string()).0);

        // Nobody can come by a route whose plugins are not there yet: its service is disabled until the end.
        let put = api.take_put();
        let position = |path: &str| put.iter().position(|(other, _)| other.starts_with(path)).unwrap();
        let services: Vec<_> = put.iter().filter(|(path, _)| path == "services/payments").collect();
        assert_eq!(
            services.iter().map(|(_, service)| &service["enabled"]).collect::<Vec<_>>(),
            [false, true]
        );
        assert!(position("services/payments") < position("services/payments/routes"), "{put:?}");
        assert_eq!(put.last().unwrap().0, "services/payments");

        // It may be run again, and then disables nothing.
        let second = run(&script, &url, &ca);
        assert!(second.status.success(), "{second:?}");
        assert_eq!(api.file(), file, "{folder}");
        assert!(api.take_put().iter().all(|(_, entity)| entity["enabled"] != false));
    }
}

#[test]
fn a_route_is_not_added_to_a_service_that_is_in_use() {
    for script in SCRIPTS {
        let api = AdminApi::default();
        let service = json!({"name": "payments", "url": "http://127.0.0.1:1", "enabled": true});
        api.0.lock().unwrap().entities.insert("services/payments".to_owned(), service);
        let output = run(script, &api.serve(), &Ca::root("your CA"));
        assert!(!output.status.success(), "{script}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("disable it"), "{output:?}");
        assert!(api.take_put().is_empty(), "{script}");
    }
}

/// An interruption leaves nothing open, and the next run ends what the first began.
#[test]
fn a_script_that_was_broken_off_can_be_run_again() {
    for script in SCRIPTS {
        let ca = Ca::root("your CA");
        let api = AdminApi::default();
        let url = api.serve();
        assert!(run(script, &url, &ca).status.success());
        let whole = api.file();
        let all = api.take_put();
        for done in 0..all.len() {
            let mut state = api.0.lock().unwrap();
            state.entities = all[..done].iter().cloned().collect();
            let open =
                state.entities.get("services/payments").is_some_and(|service| service["enabled"] == true);
            assert!(!open, "{script}: after {done} calls");
            drop(state);
            let again = run(script, &url, &ca);
            assert!(again.status.success(), "{script}: after {done} calls: {again:?}");
            assert_eq!(api.file(), whole, "{script}: after {done} calls");
        }
    }
}

#[test]
fn a_call_that_fails_ends_the_script() {
    let ca = Ca::root("your CA");
    let output = run("admin-api.sh", "http://127.0.0.1:1", &ca);
    assert!(!output.status.success() && !output.stderr.is_empty(), "{output:?}");
    // Without a CA it does not begin.
    let output = Command::new("bash").arg(folder().join("admin-api.sh")).output().unwrap();
    assert!(!output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("usage: admin-api.sh CA.pem"), "{output:?}");
}
