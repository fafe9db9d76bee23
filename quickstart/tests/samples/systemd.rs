//! Units of systemd, and what belongs to them.

use std::collections::BTreeSet;
use std::process::Command;

use testbed::process::binary;

use crate::kong_conf::fits;
use crate::sample::{KongConf, document, option, sample, start_plugin_server, strings, write};

pub(crate) const FILES: &[&str] = &[
    "systemd/kong.service.d/mtls-auth.conf",
    "systemd/mtls-auth.service",
    "systemd/mtls-auth.sysusers.conf",
    "systemd/mtls-auth.tmpfiles.conf",
    "systemd/tls-shim.logrotate",
    "systemd/tls-shim.service",
    "systemd/tls-shim.socket",
];

/// The directives that a unit may have here, by section: whoever writes another one looks it up in systemd's manual and adds it.
const KNOWN: &[(&str, &str)] = &[
    ("Unit", "After Description Requires StartLimitIntervalSec Wants"),
    ("Install", "WantedBy"),
    ("Socket", "Backlog BindIPv6Only ListenStream"),
    (
        "Service",
        "AmbientCapabilities CapabilityBoundingSet ExecReload ExecStart Group LimitNOFILE LockPersonality LogsDirectory \
         LogsDirectoryMode MemoryDenyWriteExecute NoNewPrivileges PrivateDevices PrivateTmp ProcSubset ProtectClock \
         ProtectControlGroups ProtectHome ProtectHostname ProtectKernelLogs ProtectKernelModules ProtectKernelTunables \
         ProtectProc ProtectSystem ReadWritePaths RemoveIPC Restart RestartSec RestrictAddressFamilies RestrictNamespaces \
         RestrictRealtime RestrictSUIDSGID StateDirectory StateDirectoryMode SupplementaryGroups SystemCallArchitectures \
         SystemCallFilter TimeoutStopSec Type UMask User WatchdogSec",
    ),
];

/// What confines both programs.
const CONFINED: &[(&str, &str)] = &[
    ("LockPersonality", "yes"),
    ("MemoryDenyWriteExecute", "yes"),
    ("NoNewPrivileges", "yes"),
    ("PrivateDevices", "yes"),
    ("PrivateTmp", "yes"),
    ("ProcSubset", "pid"),
    ("ProtectClock", "yes"),
    ("ProtectControlGroups", "yes"),
    ("ProtectHome", "yes"),
    ("ProtectHostname", "yes"),
    ("ProtectKernelLogs", "yes"),
    ("ProtectKernelModules", "yes"),
    ("ProtectKernelTunables", "yes"),
    ("ProtectProc", "invisible"),
    ("ProtectSystem", "strict"),
    ("RestrictAddressFamilies", "AF_UNIX AF_INET AF_INET6"),
    ("RestrictNamespaces", "yes"),
    ("RestrictRealtime", "yes"),
    ("RestrictSUIDSGID", "yes"),
    ("SystemCallArchitectures", "native"),
    ("SystemCallFilter", "@system-service"),
    ("SystemCallFilter", "~@privileged"),
];

/// The lines of a unit: section, directive, value.
fn unit(name: &str) -> Vec<(String, String, String)> {
    let (mut section, mut found) = (String::new(), Vec::new());
    for line in sample(name).lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(name) = line.strip_prefix('[') {
            section = name.strip_suffix(']').unwrap().to_owned();
            continue;
        }
        let (key, value) = line.split_once('=').unwrap_or_else(|| panic!("{name}: {line}"));
        found.push((section.clone(), key.to_owned(), value.to_owned()));
    }
    found
}

fn values(unit: &[(String, String, String)], key: &str) -> Vec<String> {
    unit.iter().filter(|(_, other, _)| other == key).map(|(_, _, value)| value.clone()).collect()
}

fn value(unit: &[(String, String, String)], key: &str) -> String {
    let found = values(unit, key);
    assert_eq!(found.len(), 1, "{key}: {found:?}");
    found.into_iter().next().unwrap()
}

fn units() -> impl Iterator<Item = &'static str> {
    let is_unit =
        |name: &&str| name.ends_with(".service") || name.ends_with(".socket") || name.contains(".service.d/");
    FILES.iter().copied().filter(is_unit)
}

#[test]
fn every_line_of_a_unit_is_a_directive_of_its_section() {
    for name in units() {
        for (section, key, _) in unit(name) {
            let known = KNOWN.iter().find(|(other, _)| *other == section);
            assert!(
                known.is_some_and(|(_, known)| known.split(' ').any(|known| known == key)),
                "{name}: [{section}] {key}"
            );
        }
    }
}

/// What systemd itself says of them, where it is installed. The tests before and after it need none.
#[test]
fn systemd_has_nothing_against_the_units() {
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut verify = Command::new("systemd-analyze");
    verify.args(["verify", "--man=no"]);
    // It looks whether the programs are there.
    let here = |name: &str| binary(name).display().to_string();
    for name in units().filter(|name| !name.contains(".d/")) {
        let text = sample(name)
            .replace("/opt/mtls-auth/bin/mtls-auth", &here("mtls-auth"))
            .replace("/usr/local/bin/tls-shim", &here("tls-shim"));
        let file = write(dir.path(), name.rsplit('/').next().unwrap(), &text);
        verify.arg(file);
    }
    // Kong's own unit is made by its packages; what is added to it counts in whichever.
    let drop_in = dir.path().join("kong.service.d");
    std::fs::create_dir(&drop_in).unwrap();
    write(&drop_in, "mtls-auth.conf", &sample("systemd/kong.service.d/mtls-auth.conf"));
    let kong = format!("[Service]\nExecStart={}\n", here("mtls-auth"));
    verify.arg(write(dir.path(), "kong.service", &kong));
    let output = verify.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    // Of units of the machine's own it may say this and that.
    let of_ours = |line: &&str| ["mtls-auth", "tls-shim", "kong"].iter().any(|name| line.contains(name));
    let ours = said.lines().filter(of_ours);
    assert_eq!(ours.collect::<Vec<_>>(), Vec::<&str>::new(), "{said}");
}

#[test]
fn both_programs_are_confined_and_watched() {
    for name in ["systemd/mtls-auth.service", "systemd/tls-shim.service"] {
        let unit = unit(name);
        for (key, expected) in CONFINED {
            assert!(values(&unit, key).iter().any(|value| value == expected), "{name}: {key}={expected}");
        }
        assert_eq!(value(&unit, "Type"), "notify");
        assert_ne!(value(&unit, "User"), "root");
        // The program's own watchdog ends it after ten seconds.
        assert!(value(&unit, "WatchdogSec").parse::<u32>().unwrap() > 10);
        assert_eq!(value(&unit, "Restart"), "always");
    }
    assert_eq!(value(&unit("systemd/mtls-auth.service"), "CapabilityBoundingSet"), "");
    let shim = unit("systemd/tls-shim.service");
    for key in ["CapabilityBoundingSet", "AmbientCapabilities"] {
        assert_eq!(value(&shim, key), "CAP_NET_BIND_SERVICE");
    }
    // It reads its files again on SIGHUP, drains for 30 seconds, and starts with the sockets of its unit.
    assert_eq!(value(&shim, "ExecReload"), "/bin/kill -s HUP $MAINPID");
    assert!(value(&shim, "TimeoutStopSec").parse::<u32>().unwrap() > 30);
    assert_eq!(value(&shim, "Requires"), "tls-shim.socket");
    // Of mtls-auth, SIGHUP would be the end.
    assert!(values(&unit("systemd/mtls-auth.service"), "ExecReload").is_empty());
}

#[test]
fn the_sockets_are_those_that_the_shim_listens_on() {
    let shim = document(&sample("systemd/shim.yml"));
    let socket = unit("systemd/tls-shim.socket");
    assert_eq!(values(&socket, "ListenStream"), strings(&shim["listen"]));
    // Else the second address would take the first one's place.
    assert_eq!(value(&socket, "BindIPv6Only"), "ipv6-only");
    let command = value(&unit("systemd/tls-shim.service"), "ExecStart");
    assert_eq!(command, "/usr/local/bin/tls-shim --config /etc/kong/shim.yml");
}

#[test]
fn whoever_starts_the_plugin_server_starts_the_same() {
    let service = unit("systemd/mtls-auth.service");
    let command = value(&service, "ExecStart");
    let start: Vec<_> = command.split(' ').collect();
    start_plugin_server(&start, tempfile::tempdir().unwrap().path());
    let fragment = KongConf::read("systemd/kong.conf");
    // Kong would start a binary in /usr/local/bin by itself, beside this one.
    assert!(!start[0].starts_with("/usr/local/bin/"));
    assert!(!fragment.settings.contains_key("pluginserver_mtls_auth_start_cmd"));
    let [(key, by_kong)] = fragment.alternatives.as_slice() else { panic!("{:?}", fragment.alternatives) };
    assert_eq!(key, "pluginserver_mtls_auth_start_cmd");
    assert!(command.starts_with(by_kong.as_str()), "{by_kong}");

    let mut conf = KongConf::read("kong.conf").with(fragment);
    conf.settings.remove("pluginserver_mtls_auth_start_cmd");
    fits(&|key| conf.settings.get(key).cloned(), &start, Some("systemd/shim.yml"), "systemd");
}

#[test]
fn what_the_programs_write_to_is_theirs() {
    let [server, shim] = ["mtls-auth", "tls-shim"].map(|name| unit(&format!("systemd/{name}.service")));
    let command = value(&server, "ExecStart");
    let words: Vec<_> = command.split(' ').collect();
    let (folder, _) = option(&words, "--socket").unwrap().rsplit_once('/').unwrap();
    assert_eq!(value(&server, "ReadWritePaths"), folder);
    let kong = unit("systemd/kong.service.d/mtls-auth.conf");
    assert!(value(&kong, "ReadWritePaths").split(' ').any(|path| path == folder), "where Kong starts it");
    assert_eq!(value(&kong, "NoNewPrivileges"), "yes");

    // The folder is its user's, and its group may connect but not replace the socket.
    let (user, group) = (value(&server, "User"), value(&server, "Group"));
    let tmpfiles = sample("systemd/mtls-auth.tmpfiles.conf");
    assert!(tmpfiles.contains(&format!("\nd {folder} 2750 {user} {group} -\n")), "{tmpfiles}");
    assert_eq!(value(&shim, "SupplementaryGroups"), group);
    let users = sample("systemd/mtls-auth.sysusers.conf");
    let users: BTreeSet<_> = users.lines().map(|line| line.split(" \"").next().unwrap()).collect();
    for line in [format!("u {user} -"), format!("u {} -", value(&shim, "User")), format!("m kong {group}")] {
        assert!(users.contains(line.as_str()), "{line}");
    }

    // The access log and the snapshot.
    let settings = document(&sample("systemd/shim.yml"));
    let log = settings["access_log"].as_str().unwrap();
    assert!(log.starts_with(&format!("/var/log/{}/", value(&shim, "LogsDirectory"))), "{log}");
    let rotated = sample("systemd/tls-shim.logrotate");
    let name = value(&shim, "User");
    for text in [format!("\n{log} {{\n"), format!("    su {name} {name}\n"), "    nocreate\n".to_owned()] {
        assert!(rotated.contains(&text), "{text}: {rotated}");
    }
    assert!(rotated.contains("systemctl reload tls-shim.service\n"));
    let state = format!("/var/lib/{}/", value(&shim, "StateDirectory"));
    assert!(sample("systemd/shim.yml").contains(&format!("snapshot_file: {state}")));
    assert!(
        document(&sample("database/shim.yml"))["kong"]["snapshot_file"].as_str().unwrap().starts_with(&state)
    );
}
