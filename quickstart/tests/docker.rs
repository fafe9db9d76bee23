//! The images and their composition, as far as they can be tried without Docker: what the files name is there, what they share
//! they share, and all that runs in the containers runs, driven by the curl lines of the documents.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use kong_double::{Double, DoubleConfig, PluginConfig, Route};
use serde_json::Value as Json;
use testbed::process::{Process, binary};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn file(name: &str) -> String {
    std::fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn yaml(name: &str) -> Json {
    serde_saphyr::from_str(&file(name)).unwrap()
}

fn words(list: &Json) -> Vec<&str> {
    list.as_array().into_iter().flatten().map(|word| word.as_str().unwrap()).collect()
}

/// The instructions of a Dockerfile, each on one line, without comments.
fn instructions(dockerfile: &str) -> Vec<String> {
    let lines: Vec<_> = dockerfile.lines().filter(|line| !line.starts_with('#')).collect();
    let joined = lines.join("\n").replace("\\\n", " ");
    joined.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

/// How Kong's container starts the plugin server.
fn start_command(compose: &Json) -> Vec<&str> {
    let command = &compose["services"]["kong"]["environment"]["KONG_PLUGINSERVER_MTLS_AUTH_START_CMD"];
    command.as_str().unwrap().split_whitespace().collect()
}

fn option<'a>(command: &[&'a str], name: &str) -> &'a str {
    command[command.iter().position(|word| *word == name).unwrap_or_else(|| panic!("{name}")) + 1]
}

#[test]
fn the_dockerfile_builds_what_is_there() {
    let instructions = instructions(&file("Dockerfile"));
    let mut stages = Vec::new();
    for line in &instructions {
        let parts: Vec<_> = line.split_whitespace().collect();
        match parts[0] {
            "FROM" => {
                assert!(parts[1].contains(':') && parts[2] == "AS", "{line}");
                stages.push(parts[3]);
            }
            "COPY" => {
                if let Some(stage) = parts[1].strip_prefix("--from=") {
                    assert!(stages.contains(&stage), "{line}");
                    let program = parts[2].strip_prefix("/out/").unwrap();
                    assert!(
                        instructions.iter().any(|line| line.contains(&format!("target/release/{program}")))
                    );
                    assert_eq!(parts[3], format!("/usr/local/bin/{program}"));
                }
            }
            _ => {}
        }
    }
    assert_eq!(stages, ["build", "kong", "shim"]);
    // As kong-conf/kong.conf has it, on the Kong that there is.
    let kong = instructions.iter().find(|line| line.starts_with("ENV KONG_PLUGINS=")).unwrap();
    for setting in [
        "KONG_PLUGINS=bundled,mtls-auth",
        "KONG_PLUGINSERVER_NAMES=mtls-auth",
        "KONG_PLUGINSERVER_MTLS_AUTH_QUERY_CMD=\"/usr/local/bin/mtls-auth -dump --protocol protobuf\"",
        "KONG_NGINX_PROXY_LARGE_CLIENT_HEADER_BUFFERS=\"8 64k\"",
    ] {
        assert!(kong.contains(setting), "{setting}");
    }

    // cargo wants the manifest of each package, and nothing else belongs into the context.
    let ignored = file(".dockerignore");
    let mut lines = ignored.lines().filter(|line| !line.starts_with('#'));
    assert_eq!(lines.next(), Some("*"));
    let kept: BTreeSet<_> = lines.filter_map(|line| line.strip_prefix('!')).collect();
    for name in &kept {
        assert!(root().join(name).exists(), "{name}");
    }
    let manifest = file("Cargo.toml");
    let members = manifest.split_once("members = [").unwrap().1.split(']').next().unwrap();
    let members: BTreeSet<_> = members.split('"').skip(1).step_by(2).collect();
    let folders = members.iter().map(|member| member.trim_end_matches("/*"));
    assert_eq!(kept, folders.chain(["Cargo.toml", "Cargo.lock"]).collect());
}

#[test]
fn the_composition_names_what_is_there() {
    let compose = yaml("compose.yaml");
    let services = compose["services"].as_object().unwrap();
    let volumes = compose["volumes"].as_object().unwrap();
    let dockerfile = file("Dockerfile");
    for (name, service) in services {
        if let Some(target) = service["build"]["target"].as_str() {
            assert!(dockerfile.contains(&format!(" AS {target}\n")), "{name}: {target}");
        }
        for other in service["depends_on"].as_object().into_iter().flat_map(|others| others.keys()) {
            assert!(services.contains_key(other), "{name}: {other}");
        }
        for volume in words(&service["volumes"]) {
            let source = volume.split(':').next().unwrap();
            let is_there = if source.starts_with('.') {
                root().join(source).exists()
            } else {
                volumes.contains_key(source)
            };
            assert!(is_there, "{name}: {volume}");
        }
        for word in words(&service["command"]).iter().filter_map(|word| word.strip_prefix("/docker/")) {
            assert!(root().join("docker").join(word).exists(), "{name}: {word}");
        }
        // Nobody has more rights than need be, and Kong alone writes outside of its volumes.
        assert_eq!(words(&service["cap_drop"]), ["ALL"], "{name}");
        assert_eq!(words(&service["security_opt"]), ["no-new-privileges:true"], "{name}");
        assert_eq!(service["read_only"] == true, name != "kong", "{name}");
    }
}

#[test]
fn only_the_shim_reaches_kongs_plain_port_in_the_composition() {
    let compose = yaml("compose.yaml");
    let services = &compose["services"];
    let environment = &services["kong"]["environment"];
    assert_eq!(environment["KONG_PROXY_LISTEN"], "127.0.0.1:8000");
    assert_eq!(environment["KONG_ADMIN_LISTEN"], "off");
    assert_eq!(environment["KONG_TRUSTED_IPS"], "127.0.0.1/32");
    // Who shares Kong's network shares its loopback.
    for (name, service) in services.as_object().unwrap() {
        let shares = service["network_mode"] == "service:kong";
        assert_eq!(shares, name == "shim", "{name}");
        assert!(service["ports"].is_null() || name == "kong", "{name}");
    }
    let shim = yaml("docker/shim.yml");
    let ports = words(&services["kong"]["ports"]);
    assert_eq!((ports, words(&shim["listen"])), (vec!["127.0.0.1:8443:8443"], vec!["0.0.0.0:8443"]));
    assert_eq!(shim["upstream"], "http://127.0.0.1:8000");

    // What the shim and the plugin server share, under one name in both containers.
    let command = start_command(&compose);
    assert_eq!(option(&command, "--socket"), shim["plugin_server"]);
    assert_eq!(option(&command, "--socket"), environment["KONG_PLUGINSERVER_MTLS_AUTH_SOCKET"]);
    assert_eq!(option(&command, "--proof-key-file"), shim["proof_key_file"]);
    for declarative in
        [option(&command, "--declarative-config"), shim["kong"]["declarative_config"].as_str().unwrap()]
    {
        assert_eq!(declarative, environment["KONG_DECLARATIVE_CONFIG"]);
    }
    for (service, needs) in [
        ("kong", ["kong:/etc/kong:ro", "handoff:/run/mtls-auth"]),
        ("shim", ["kong:/etc/kong:ro", "handoff:/run/mtls-auth:ro"]),
    ] {
        for volume in needs {
            assert!(words(&services[service]["volumes"]).contains(&volume), "{service}: {volume}");
        }
    }
    let script = file("docker/certificates.sh");
    let group = words(&services["kong"]["group_add"])[0];
    assert!(script.contains(&format!("\nshim={group}\n")), "{group}");
}

#[test]
fn the_route_with_the_plugin_is_guarded_in_the_composition() {
    let mut command = Command::new(binary("mtls-auth"));
    let kong_yml = root().join("docker/kong.yml");
    let output = command.args(["guard", "--check", "--declarative-config"]).arg(kong_yml).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && said.contains("mtls-auth on route payments: guarded"), "{said}");
}

/// The curl lines of the documents, each with what its answer has in it.
fn curl_lines() -> Vec<(String, String)> {
    let documents = [file("docker/README.md"), file("README.md")];
    let lines = documents.iter().flat_map(|document| document.lines());
    let lines = lines.filter(|line| line.starts_with("curl ") && line.contains("docker/certificates/"));
    let split = lines.map(|line| line.split_once("   # ").unwrap_or_else(|| panic!("what comes of {line}")));
    split.map(|(line, answer)| (line.to_owned(), answer.to_owned())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_runs_in_the_composition_runs_and_the_curl_lines_work_as_printed() {
    let compose = yaml("compose.yaml");
    let dir = tempfile::tempdir().unwrap();
    let at = |path: &str| dir.path().join(path.trim_start_matches('/'));
    let make = || {
        let mut script = Command::new("sh");
        let output = script.arg(root().join("docker/certificates.sh")).arg(dir.path()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    make();
    let made = std::fs::read(at("/etc/kong/kong.yml")).unwrap();
    let proof_key = std::fs::read(at("/run/mtls-auth/proof.key")).unwrap();
    // A second `docker compose up` leaves all as it is, unless what clients need is gone; the proof key is never another one.
    make();
    assert!(made == std::fs::read(at("/etc/kong/kong.yml")).unwrap());
    std::fs::remove_file(at("/clients/alice.key")).unwrap();
    make();
    assert!(made != std::fs::read(at("/etc/kong/kong.yml")).unwrap());
    assert!(proof_key == std::fs::read(at("/run/mtls-auth/proof.key")).unwrap());
    std::fs::create_dir(at("docker")).unwrap();
    std::os::unix::fs::symlink("../clients", at("docker/certificates")).unwrap();

    let echo = Process::start(Command::new("python3").arg(root().join("docker/echo.py")).arg("0"));
    let port = echo.wait_for("listening on port ").rsplit(' ').next().unwrap().parse().unwrap();
    let upstream = SocketAddr::from(([127, 0, 0, 1], port));

    let mtls_auth = binary("mtls-auth");
    let command = start_command(&compose);
    let arguments = command[1..].iter().map(|word| match word.starts_with('/') {
        true => at(word).into_os_string(),
        false => word.into(),
    });
    let server = Process::start(Command::new(&mtls_auth).args(arguments));
    server.wait_for("\"serving\"");
    let info = Command::new(&mtls_auth).args(["-dump", "--protocol", "protobuf"]).output().unwrap().stdout;
    let socket = at(option(&command, "--socket"));
    let mut config = DoubleConfig::new(socket, serde_json::from_slice(&info).unwrap());
    config.trusted_ips = vec!["127.0.0.1".into()];
    let entities = kong_entities::load(&at("/etc/kong/kong.yml")).unwrap();
    for (index, route) in entities.routes.iter().enumerate() {
        let ours = entities
            .plugins
            .iter()
            .find(|plugin| plugin.name == "mtls-auth" && plugin.scope.route == Some(index));
        let name = route.name.clone().unwrap();
        // The double knows no SNI; here they are the hosts.
        let double = Route::new(name, upstream).hosts(route.snis.clone());
        config.routes.push(match ours {
            Some(plugin) => double.plugin(PluginConfig::new("mtls-auth", plugin.config.clone())),
            None => double,
        });
    }
    assert_eq!(config.routes.len(), 2);
    let kong = Double::start(config).await.unwrap();

    let shim_yml = file("docker/shim.yml")
        .replace(" /", &format!(" {}/", dir.path().display()))
        .replace("http://127.0.0.1:8000", &format!("http://{}", kong.addr()))
        .replace("0.0.0.0:8443", "127.0.0.1:0")
        .replace("status_listen: 127.0.0.1:8444\n", "");
    std::fs::write(at("shim.yml"), shim_yml).unwrap();
    let shim = Process::start(Command::new(binary("tls-shim")).arg("--config").arg(at("shim.yml")));
    let line = shim.wait_for("\"listening\"");
    let port: String =
        line.split_once("127.0.0.1:").unwrap().1.chars().take_while(char::is_ascii_digit).collect();

    let lines = curl_lines();
    assert!(lines.len() >= 4);
    for (line, expected) in lines {
        let here = line.replace(
            "--connect-to ::127.0.0.1: ",
            &format!("--connect-to ::127.0.0.1:{port} --max-time 30 "),
        );
        assert_ne!(here, line);
        let output = Command::new("sh").args(["-c", &here]).current_dir(dir.path()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).to_lowercase();
        let why = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains(&expected.to_lowercase()), "{line}: {said} {why} {:?}", kong.error_log());
        assert_eq!(said.contains("x-consumer-"), expected.contains("alice"), "{line}: {said}");
        assert!(!said.contains("client-cert"), "{line}: {said}");
    }
}
