//! Manifests for Kubernetes, and values for Kong's Helm chart: what refers to something finds it, and nobody can come past the shim.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use serde_json::{Value as Json, json};
use testbed::pki::Ca;
use testbed::process::binary;

use crate::kong_conf::fits;
use crate::kong_yml::{check_guard, is_taken};
use crate::sample::{document, documents, folder, sample, start_plugin_server, strings, with_ca, write};

pub(crate) const FILES: &[&str] = &[
    "kubernetes/deployment.yaml",
    "kubernetes/ingress-controller/ca-certificate.yaml",
    "kubernetes/ingress-controller/cluster-plugins.yaml",
    "kubernetes/ingress-controller/kustomization.yaml",
    "kubernetes/ingress-controller/network-policy.yaml",
    "kubernetes/ingress-controller/payments.yaml",
    "kubernetes/ingress-controller/reports.yaml",
    "kubernetes/ingress-controller/values.yaml",
    "kubernetes/kustomization.yaml",
    "kubernetes/namespace.yaml",
    "kubernetes/network-policy.yaml",
    "kubernetes/service.yaml",
];

const CONTROLLER: &str = "kubernetes/ingress-controller/";

fn list(value: &Json) -> &[Json] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Json) -> &str {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}"))
}

/// All manifests that a kustomization has.
fn manifests(folder: &str) -> Vec<Json> {
    let kustomization = document(&sample(&format!("{folder}kustomization.yaml")));
    let files = strings(&kustomization["resources"]);
    files.iter().flat_map(|file| documents(&sample(&format!("{folder}{file}")))).collect()
}

fn of_kind<'a>(manifests: &'a [Json], kind: &str) -> Vec<&'a Json> {
    manifests.iter().filter(|manifest| manifest["kind"] == kind).collect()
}

/// A pod with Kong in it, in either of the two ways that it comes about.
struct Pod {
    name: &'static str,
    labels: Json,
    security: Json,
    volumes: Vec<Json>,
    init_containers: Vec<Json>,
    containers: Vec<Json>,
    grace: u64,
    /// Ports that have a name, beside those of `containers`, by what the chart calls them.
    chart_ports: &'static [&'static str],
    shim_yml: &'static str,
    /// Kong's settings.
    kong: BTreeMap<String, String>,
    kong_mounts: Vec<Json>,
}

impl Pod {
    fn of_the_deployment() -> Self {
        let manifests = manifests("kubernetes/");
        let deployment = of_kind(&manifests, "Deployment")[0];
        let template = &deployment["spec"]["template"];
        assert_eq!(deployment["spec"]["selector"]["matchLabels"], template["metadata"]["labels"]);
        let spec = &template["spec"];
        let containers = list(&spec["containers"]).to_vec();
        let kong = containers.iter().find(|container| container["name"] == "kong").unwrap();
        let settings = list(&kong["env"]).iter().map(|variable| {
            let name = text(&variable["name"]).strip_prefix("KONG_").unwrap().to_lowercase();
            (name, text(&variable["value"]).to_owned())
        });
        Self {
            name: "kubernetes",
            labels: template["metadata"]["labels"].clone(),
            security: spec["securityContext"].clone(),
            volumes: list(&spec["volumes"]).to_vec(),
            init_containers: list(&spec["initContainers"]).to_vec(),
            grace: spec["terminationGracePeriodSeconds"].as_u64().unwrap(),
            chart_ports: &[],
            shim_yml: "kubernetes/shim.yml",
            kong: settings.collect(),
            kong_mounts: list(&kong["volumeMounts"]).to_vec(),
            containers,
        }
    }

    fn of_the_chart() -> Self {
        let values = document(&sample(&format!("{CONTROLLER}values.yaml")));
        let deployment = &values["deployment"];
        let settings = values["env"].as_object().unwrap().iter();
        let mut kong: BTreeMap<_, _> =
            settings.map(|(key, value)| (key.clone(), text(value).to_owned())).collect();
        // The chart's own.
        kong.insert("database".into(), "off".into());
        Self {
            name: "the chart",
            // Of those that the chart gives to the pod.
            labels: json!({"app.kubernetes.io/name": "kong", "app.kubernetes.io/component": "app"}),
            security: values["securityContext"].clone(),
            volumes: list(&deployment["userDefinedVolumes"]).to_vec(),
            init_containers: list(&deployment["initContainers"]).to_vec(),
            containers: list(&deployment["sidecarContainers"]).to_vec(),
            grace: values["terminationGracePeriodSeconds"].as_u64().unwrap(),
            chart_ports: &["webhook", "cmetrics", "status"],
            shim_yml: "kubernetes/ingress-controller/shim.yml",
            kong,
            kong_mounts: list(&deployment["userDefinedVolumeMounts"]).to_vec(),
        }
    }

    fn both() -> [Self; 2] {
        [Self::of_the_deployment(), Self::of_the_chart()]
    }

    fn container(&self, name: &str) -> &Json {
        let found = self.containers.iter().find(|container| container["name"] == name);
        found.unwrap_or_else(|| panic!("{}: no container {name}", self.name))
    }

    /// By name.
    fn port(&self, name: &str) -> Option<u64> {
        let ports = self.containers.iter().flat_map(|container| list(&container["ports"]));
        let mut found = ports.filter(|port| port["name"] == name);
        let port = found.next().map(|port| port["containerPort"].as_u64().unwrap());
        assert!(found.next().is_none(), "{}: two ports {name}", self.name);
        port
    }

    /// What starts the plugin server: Kong, or the container.
    fn start(&self) -> Vec<&str> {
        match self.kong.get("pluginserver_mtls_auth_start_cmd") {
            Some(command) => command.split(' ').collect(),
            None => strings(&self.container("mtls-auth")["command"]),
        }
    }

    /// A volume by name.
    fn volume(&self, name: &str) -> &Json {
        self.volumes.iter().find(|volume| volume["name"] == name).unwrap_or_else(|| panic!("{name}"))
    }
}

#[test]
fn every_manifest_stands_in_its_kustomization() {
    for name in ["kubernetes/", CONTROLLER] {
        let kustomization = document(&sample(&format!("{name}kustomization.yaml")));
        assert_eq!(kustomization["kind"], "Kustomization");
        let mut resources = strings(&kustomization["resources"]);
        resources.sort_unstable();
        let of_folder = FILES.iter().filter_map(|file| file.strip_prefix(name));
        let mut files: Vec<_> = of_folder
            .filter(|file| !file.contains('/') && !["kustomization.yaml", "values.yaml"].contains(file))
            .collect();
        files.sort_unstable();
        assert_eq!(resources, files);
        for generator in list(&kustomization["configMapGenerator"]) {
            for file in strings(&generator["files"]) {
                assert!(folder().join(name).join(file).exists(), "{name}{file}");
            }
        }
        for manifest in manifests(name) {
            for key in ["apiVersion", "kind"] {
                assert!(manifest[key].is_string(), "{manifest}");
            }
            assert!(manifest["metadata"]["name"].is_string(), "{manifest}");
        }
    }
}

#[test]
fn every_mount_has_its_volume_and_every_path_its_mount() {
    for pod in Pod::both() {
        let volumes: BTreeSet<_> = pod.volumes.iter().map(|volume| text(&volume["name"])).collect();
        let all = pod.init_containers.iter().chain(&pod.containers);
        let mut mounts: Vec<_> = all.flat_map(|container| list(&container["volumeMounts"])).collect();
        mounts.extend(&pod.kong_mounts);
        let mounted: BTreeSet<_> = mounts.iter().map(|mount| text(&mount["name"])).collect();
        assert_eq!(volumes, mounted, "{}", pod.name);

        // Each file that a program is told of is somewhere in its container.
        let paths = |text: &str| -> Vec<String> {
            let apart = text.split([' ', '=', '"', ',', ':', '{', '}']);
            let is_path = |word: &&str| word.starts_with('/') && !word.starts_with("//");
            let elsewhere =
                |word: &&str| !["/usr/local/bin/", "/dev/"].iter().any(|prefix| word.starts_with(prefix));
            apart.filter(is_path).filter(elsewhere).map(str::to_owned).collect()
        };
        let covered = |path: &str, mounts: &[Json]| {
            mounts.iter().any(|mount| path.starts_with(text(&mount["mountPath"])))
        };
        let settings = document(&sample(pod.shim_yml)).to_string();
        let shim = pod.container("tls-shim");
        let command = strings(&shim["command"]).join(" ");
        for path in paths(&format!("{settings} {command}")) {
            assert!(covered(&path, list(&shim["volumeMounts"])), "{}: {path}", pod.name);
        }
        let of_kong: Vec<_> = pod.kong.iter().filter(|(key, _)| key.starts_with("pluginserver")).collect();
        for path in of_kong.iter().flat_map(|(_, value)| paths(value)) {
            assert!(covered(&path, &pod.kong_mounts), "{}: {path}", pod.name);
        }
        if !pod.kong.contains_key("pluginserver_mtls_auth_start_cmd") {
            let server = pod.container("mtls-auth");
            for path in paths(&pod.start().join(" ")) {
                assert!(covered(&path, list(&server["volumeMounts"])), "{path}");
            }
            // Kong would start a binary in /usr/local/bin by itself.
            assert!(!pod.kong["pluginserver_mtls_auth_query_cmd"].starts_with("/usr/local/bin/"));
        }
    }
}

#[test]
fn kong_the_plugin_server_and_the_shim_are_told_the_same() {
    for pod in Pod::both() {
        fits(&|key| pod.kong.get(key).cloned(), &pod.start(), Some(pod.shim_yml), pod.name);
        let shim = document(&sample(pod.shim_yml));
        for (key, port) in [("listen", "https"), ("status_listen", "shim-status")] {
            let address = if key == "listen" { &shim[key][0] } else { &shim[key] };
            assert!(text(address).ends_with(&format!(":{}", pod.port(port).unwrap())), "{}: {key}", pod.name);
        }
        assert!(pod.start().join(" ").contains(&format!("0.0.0.0:{}", pod.port("mtls-status").unwrap())));
        assert!(pod.kong["pluginserver_mtls_auth_query_cmd"].ends_with("--protocol protobuf"));
        // The Admin API is for the pod alone.
        for listener in pod.kong["admin_listen"].split(", ") {
            assert!(listener == "off" || listener.starts_with("127.0.0.1:"), "{}: {listener}", pod.name);
        }
    }
    let chart = Pod::of_the_chart();
    let start = chart.start().join(" ");
    let admin_url = text(&document(&sample(chart.shim_yml))["kong"]["admin_url"]).to_owned();
    assert!(start.contains(&format!("--admin-url={admin_url}")), "{start}");
    assert!(chart.kong["admin_listen"].contains(admin_url.strip_prefix("http://").unwrap()));
}

/// The programs refuse a key that others may read; here its mode is that of the Secret, and who reads it is in the pod's group.
#[test]
fn the_proof_key_is_taken_with_the_mode_that_it_has() {
    for pod in Pod::both() {
        let secret = &pod.volume("mtls-auth-key")["secret"];
        let mode = u32::try_from(secret["defaultMode"].as_u64().unwrap()).unwrap();
        assert_eq!(mode, 0o440, "{}", pod.name);
        assert!(pod.security["fsGroup"].is_u64(), "{}", pod.name);
        let dir = tempfile::tempdir().unwrap();
        let key = dir.path().join("mtls-auth.key");
        std::fs::write(&key, "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=\n").unwrap();
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(mode)).unwrap();
        start_plugin_server(&pod.start(), dir.path());
        // With one more bit it is not.
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(mode | 0o004)).unwrap();
        let mut serve = Command::new(binary("mtls-auth"));
        let output = serve.arg("--kong-prefix").arg(dir.path()).output().unwrap();
        assert!(String::from_utf8_lossy(&output.stderr).contains("other users may read"), "{output:?}");
    }
}

#[test]
fn every_container_is_confined() {
    for pod in Pod::both() {
        for container in pod.init_containers.iter().chain(&pod.containers) {
            let security = &container["securityContext"];
            let name = &container["name"];
            assert_eq!(security["allowPrivilegeEscalation"], false, "{name}");
            assert_eq!(security["readOnlyRootFilesystem"], true, "{name}");
            assert_eq!(security["capabilities"]["drop"], json!(["ALL"]), "{name}");
            assert!(security["runAsUser"].as_u64().unwrap() > 0, "{name}");
            assert!(security["runAsNonRoot"] == true || pod.security["runAsNonRoot"] == true, "{name}");
        }
    }
}

/// Requests that run are answered: Kong and the plugin server outlive the shim, which drains for 30 seconds.
#[test]
fn the_shim_drains_before_kong_ends() {
    for pod in Pod::both() {
        let pause =
            |name: &str| pod.container(name)["lifecycle"]["preStop"]["sleep"]["seconds"].as_u64().unwrap();
        let drained = pause("tls-shim") + 30;
        for container in pod.containers.iter().filter(|container| container["name"] != "tls-shim") {
            assert!(pause(text(&container["name"])) > drained);
        }
        assert!(pod.grace > drained + 10, "{}", pod.name);
    }
    let values = document(&sample(&format!("{CONTROLLER}values.yaml")));
    let command = strings(&values["lifecycle"]["preStop"]["exec"]["command"]);
    assert_eq!(command[2], "sleep 40 && kong quit --wait=1 --timeout=10");
}

#[test]
fn from_outside_the_pod_only_the_shim_can_be_reached() {
    for (pod, folder) in Pod::both().into_iter().zip(["kubernetes/", CONTROLLER]) {
        let manifests = manifests(folder);
        let policies = of_kind(&manifests, "NetworkPolicy");
        let [policy] = policies.as_slice() else { panic!("{policies:?}") };
        let spec = &policy["spec"];
        let selected = spec["podSelector"]["matchLabels"].as_object().unwrap();
        assert!(!selected.is_empty());
        assert!(selected.iter().all(|(key, value)| pod.labels[key] == *value), "{}: {selected:?}", pod.name);
        assert_eq!(spec["policyTypes"], json!(["Ingress"]));
        let mut to_everybody = Vec::new();
        for rule in list(&spec["ingress"]) {
            let ports = list(&rule["ports"]);
            assert!(!ports.is_empty(), "that would be all of them");
            for port in ports {
                let name = text(&port["port"]);
                assert!(pod.port(name).is_some() || pod.chart_ports.contains(&name), "{}: {name}", pod.name);
                if rule["from"].is_null() {
                    to_everybody.push(name);
                }
            }
        }
        // The webhook is the ingress controller's.
        let expected = if pod.chart_ports.is_empty() { &["https"][..] } else { &["https", "webhook"] };
        assert_eq!(to_everybody, expected, "{}", pod.name);
        // Kong's own port is the pod's alone, and no container shows it.
        let plain: u64 = pod.kong["proxy_listen"].strip_prefix("127.0.0.1:").unwrap().parse().unwrap();
        let shown = pod.containers.iter().flat_map(|container| list(&container["ports"]));
        assert!(shown.clone().count() > 2 && shown.clone().all(|port| port["containerPort"] != plain));
    }

    // What clients connect to is the shim.
    let pod = Pod::of_the_deployment();
    let manifests = manifests("kubernetes/");
    let service = &of_kind(&manifests, "Service")[0]["spec"];
    let selector = service["selector"].as_object().unwrap();
    assert!(selector.iter().all(|(key, value)| pod.labels[key] == *value));
    let ports: Vec<_> = list(&service["ports"]).iter().map(|port| text(&port["targetPort"])).collect();
    assert_eq!(ports, ["https"]);
    let values = document(&sample(&format!("{CONTROLLER}values.yaml")));
    assert_eq!(
        values["proxy"]["tls"]["overrideServiceTargetPort"],
        Pod::of_the_chart().port("https").unwrap()
    );
    assert_eq!(values["proxy"]["http"]["enabled"], false);
}

/// The plugins of an Ingress are those of its routes. So they are made into a declarative file, which the guard's own check reads.
#[tokio::test(flavor = "multi_thread")]
async fn every_ingress_is_guarded_and_every_plugin_is_taken() {
    let manifests = manifests(CONTROLLER);
    let plugin = |name: &str, namespace: &Json| {
        let is_it = |plugin: &&&Json| {
            plugin["metadata"]["name"] == name
                && (plugin["kind"] == "KongClusterPlugin" || plugin["metadata"]["namespace"] == *namespace)
        };
        let all: Vec<_> =
            [of_kind(&manifests, "KongPlugin"), of_kind(&manifests, "KongClusterPlugin")].concat();
        let found = all.iter().find(is_it).unwrap_or_else(|| panic!("no plugin {name}"));
        json!({"name": found["plugin"], "config": found["config"]})
    };
    let mut routes = Vec::new();
    for ingress in of_kind(&manifests, "Ingress") {
        let (name, annotations) = (&ingress["metadata"]["name"], &ingress["metadata"]["annotations"]);
        let names = text(&annotations["konghq.com/plugins"]).split(", ");
        let plugins: Vec<_> = names.map(|name| plugin(name, &ingress["metadata"]["namespace"])).collect();
        assert!(plugins.iter().any(|plugin| plugin["name"] == "mtls-auth"), "{name}");
        // The shim asks for the names that the Ingress has, and Kong matches by path (docs/kong-versions.md).
        let rule = &ingress["spec"]["rules"][0];
        assert_eq!(annotations["konghq.com/snis"], rule["host"]);
        assert_eq!(ingress["spec"]["tls"][0]["hosts"], json!([rule["host"]]));
        assert_eq!(rule["http"]["paths"][0]["path"], "/");
        routes.push(json!({"name": name, "paths": ["/"], "plugins": plugins}));
    }
    assert_eq!(routes.len(), 2);
    let file = json!({"_format_version": "3.0", "routes": routes}).to_string();
    let expected = ["mtls-auth on route payments: guarded", "mtls-auth on route reports: guarded"];
    assert_eq!(check_guard(&file), (true, expected.map(str::to_owned).to_vec()));
    assert!(!check_guard(&file.replace("503", "200")).0);

    // What the controller makes of a secret with this label is a CA of Kong's.
    let secret = of_kind(&manifests, "Secret")[0];
    assert_eq!(secret["metadata"]["labels"]["konghq.com/ca-cert"], "true");
    let (id, cert) = (&secret["stringData"]["id"], text(&secret["stringData"]["cert"]));
    let cert = with_ca(cert, &Ca::root("your CA"));
    let dir = tempfile::tempdir().unwrap();
    let consumer = &of_kind(&manifests, "KongConsumer")[0]["username"];
    let file = json!({
        "_format_version": "3.0",
        "ca_certificates": [{"id": id, "cert": cert}],
        "consumers": [{"username": consumer}],
    });
    let file = write(dir.path(), "kong.json", &file.to_string());
    let of_plugin =
        |kind: &str| of_kind(&manifests, kind).into_iter().filter(|plugin| plugin["plugin"] == "mtls-auth");
    let configs =
        of_plugin("KongPlugin").chain(of_plugin("KongClusterPlugin")).map(|plugin| plugin["config"].clone());
    let configs: Vec<_> = configs.collect();
    assert_eq!(configs.len(), 2);
    assert!(configs.iter().all(|config| config["ca_certificates"] == json!([id])));
    is_taken(Command::new(binary("mtls-auth")).arg("--declarative-config").arg(file), configs).await;

    // Each is the controller's only with its class; this one applies to everything.
    for kind in ["KongClusterPlugin", "KongConsumer", "Secret"] {
        for manifest in of_kind(&manifests, kind) {
            assert_eq!(
                manifest["metadata"]["annotations"]["kubernetes.io/ingress.class"], "kong",
                "{manifest}"
            );
        }
    }
    let cluster = of_kind(&manifests, "KongClusterPlugin");
    let global: Vec<_> =
        cluster.iter().filter(|plugin| plugin["metadata"]["labels"]["global"] == "true").collect();
    let [global] = global.as_slice() else { panic!("{global:?}") };
    assert_eq!(global["plugin"], "request-transformer");
    let removed: Vec<_> =
        strings(&global["config"]["remove"]["headers"]).iter().map(|name| name.to_lowercase()).collect();
    assert_eq!(removed, client_cert::field::HANDOFF);
}
