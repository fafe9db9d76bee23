//! This knows what is to be seen of Kong itself: whether its configuration can be read, which version it is, how its
//! listeners are set up, what its clock shows.

use std::path::Path;

use checkup::{Finding, Findings};
use kong_entities::{AdminClient, AdminSettings, Directory, NodeSettings, PluginServer};

use crate::cli::EntitySettings;

/// Kong, as far as it can be seen.
pub(super) struct Kong {
    /// Where its entities can be looked up.
    pub(super) directory: Option<Directory>,
    /// Such as `3.9.1`.
    pub(super) version: Option<String>,
    /// How the node is set up, as it says itself or as its `kong.conf` says.
    pub(super) settings: Option<NodeSettings>,
    /// Whether a source of entities was named at all.
    pub(super) is_named: bool,
}

const KONG: &str = "kong";
const VERSION: &str = "Kong's version";
const PROTOCOL: &str = "protocol";
const KONG_CONF: &str = "kong.conf";
const CLOCK: &str = "clock";
const NAME_IT: &str = "name the Admin API by --admin-url";

impl Kong {
    /// Looks at what can be reached.
    pub(super) async fn look(
        entities: EntitySettings,
        kong_conf: Option<&Path>,
        kong_env: &Path,
        findings: &mut Findings,
    ) -> Self {
        let mut kong = match entities {
            EntitySettings::Admin(settings) => Self::of_admin(settings, findings).await,
            EntitySettings::Declarative(path) => {
                let followed = kong_entities::follow_file(&path, kong_entities::POLL_INTERVAL);
                let directory = match followed {
                    Ok(followed) => {
                        findings.push(Finding::ok(KONG, format!("{} can be read", path.display())));
                        Some(Directory::declarative(followed))
                    }
                    Err(error) => {
                        let remedy =
                            "the server does not start with it: mend it (`kong config parse` says more)";
                        findings.push(Finding::fail(KONG, error.to_string(), remedy));
                        None
                    }
                };
                for what in [VERSION, CLOCK] {
                    findings.push(Finding::unseen(what, "a declarative file does not tell", NAME_IT));
                }
                Self { directory, version: None, settings: None, is_named: true }
            }
            EntitySettings::Kong => {
                let remedy = "name it by --admin-url or --declarative-config";
                findings.push(Finding::unseen(
                    KONG,
                    "nobody said where its configuration can be read",
                    remedy,
                ));
                for what in [VERSION, CLOCK] {
                    findings.push(Finding::unseen(what, "there is no Admin API to ask", NAME_IT));
                }
                Self { directory: None, version: None, settings: None, is_named: false }
            }
        };
        // A file that is named counts, else what Kong itself says, else what it has written down.
        let file = kong_conf.or(kong.settings.is_none().then_some(kong_env));
        match file.map(|path| (path, NodeSettings::read_conf(path))) {
            Some((path, Ok(settings))) => {
                findings.push(Finding::ok(KONG_CONF, format!("{} can be read", path.display())));
                kong.settings = Some(settings);
            }
            Some((path, Err(error))) => {
                let finding = format!("{}: {error}", path.display());
                findings.push(match kong_conf {
                    Some(_) => Finding::fail(KONG_CONF, finding, "name Kong's own file by --kong-conf"),
                    None => Finding::unseen(
                        KONG_CONF,
                        format!("{finding}, so that nobody tells of protocol, header buffers, trusted_ips and proxy_listen"),
                        "name Kong's prefix by --kong-prefix, or its file by --kong-conf",
                    ),
                });
                return kong;
            }
            None => findings.push(Finding::ok(KONG_CONF, "the Admin API tells what Kong runs with")),
        }
        kong.set_up(findings);
        kong
    }

    async fn of_admin(settings: AdminSettings, findings: &mut Findings) -> Self {
        let mut kong = Self { directory: None, version: None, settings: None, is_named: true };
        let reachable = match AdminClient::new(settings) {
            Ok(client) => client.check().await.map_err(|error| error.to_string()).map(|()| client),
            Err(error) => Err(error.to_string()),
        };
        let client = match reachable {
            Ok(client) => client,
            Err(error) => {
                let remedy =
                    "see that admin_listen has this address, and that a token, if one is asked for, is right";
                findings.push(Finding::fail(KONG, error, remedy));
                for what in [VERSION, CLOCK] {
                    findings.push(super::unread(what));
                }
                return kong;
            }
        };
        findings.push(Finding::ok(KONG, format!("{} is an Admin API and can be read", client.url())));
        match client.node().await {
            Ok(node) => {
                findings.push(checkup::version(&node.version));
                findings.push(match node.date {
                    Some(date) => checkup::clock(date, node.asked.0, node.asked.1),
                    None => Finding::unseen(
                        CLOCK,
                        "the Admin API's answer has no Date",
                        "ask Kong without a front",
                    ),
                });
                (kong.version, kong.settings) = (Some(node.version), node.settings);
            }
            Err(error) => {
                for what in [VERSION, CLOCK] {
                    let remedy = "let the front before the Admin API pass GET /";
                    findings.push(Finding::unseen(what, &error, remedy));
                }
            }
        }
        kong.directory = Some(Directory::admin(client));
        kong
    }

    /// What is to be said of the node's settings.
    fn set_up(&self, findings: &mut Findings) {
        let Some(settings) = &self.settings else { return };
        findings.push(match self.plugin_server() {
            None => Finding::fail(
                PROTOCOL,
                "Kong knows of no plugin server mtls-auth",
                "set pluginserver_names = mtls-auth, and its start_cmd and query_cmd, in kong.conf",
            ),
            Some(PluginServer { protocol: None, .. }) => Finding::unseen(
                PROTOCOL,
                "the query command of the plugin server is not `mtls-auth -dump`",
                "run it, and see what it says of Protocol",
            ),
            Some(PluginServer { protocol: Some(protocol), .. }) => {
                let finding = format!("Kong is told to speak {protocol}");
                match self.should_speak_protobuf() {
                    true => Finding::warn(
                        PROTOCOL,
                        format!("{finding}, in which it lets requests pass while the server does not answer"),
                        "add `--protocol protobuf` to pluginserver_mtls_auth_query_cmd, and restart Kong",
                    ),
                    false => Finding::ok(PROTOCOL, finding),
                }
            }
        });
        findings.push(checkup::header_buffers(settings.header_buffers.as_deref()));
        findings.push(checkup::trusted_ips(&settings.trusted_ips));
        findings.push(checkup::proxy_listen(&settings.proxy_listen));
    }

    /// What Kong knows of the plugin server.
    pub(super) fn plugin_server(&self) -> Option<&PluginServer> {
        self.settings.as_ref()?.plugin_server.as_ref()
    }

    fn speaks_protobuf(&self) -> bool {
        self.plugin_server().is_some_and(|server| server.protocol == Some("ProtoBuf:1"))
    }

    /// Whether Kong is known to answer 500 by itself while the plugin server is dead.
    pub(super) fn fails_closed(&self) -> bool {
        self.speaks_protobuf() && self.version.as_deref().is_some_and(checkup::fails_closed)
    }

    /// Whether Kong could, and does not.
    fn should_speak_protobuf(&self) -> bool {
        !self.speaks_protobuf() && self.version.as_deref().is_some_and(checkup::fails_closed)
    }
}
