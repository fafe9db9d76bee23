//! This knows what Kong is told about the plugin: its info for `-dump`, and the schema of its configuration
//! (`kong-plugin-protocol.md`, "How Kong finds and runs the server"; `mtls-auth.md`, "Configuration").

use client_cert::field::{CLIENT_CERT_CHAIN, CLIENT_CERT_PROOF, HANDOFF, IDENTITY};
use serde_json::{Map, Value, json};

use crate::wire::protocol::Protocol;

/// The name under which Kong's configuration refers to the plugin.
pub(crate) const PLUGIN_NAME: &str = "mtls-auth";

/// The plugin's version.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Where the plugin runs among Kong's others: Kong's own place for it, before its other authentication plugins.
pub(crate) const PRIORITY: i32 = 1600;

/// A phase of Kong's that the plugin takes part in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// A TLS handshake of Kong's own listener; Kong runs it for plugins that apply to everything.
    Certificate,
    /// A request, which is let through or not.
    Access,
}

impl Phase {
    /// The phases in a protocol. For what the plugin does in a handshake, only MsgPack:1 has calls.
    pub(crate) fn all(protocol: Protocol) -> &'static [Self] {
        match protocol {
            Protocol::MsgPack => &[Self::Certificate, Self::Access],
            Protocol::ProtoBuf => &[Self::Access],
        }
    }

    /// Kong's name of it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Certificate => "certificate",
            Self::Access => "access",
        }
    }

    /// The phase of this name, if the plugin has it in this protocol.
    pub(crate) fn find(name: &[u8], protocol: Protocol) -> Option<Self> {
        Self::all(protocol).iter().copied().find(|phase| phase.name().as_bytes() == name)
    }

    /// The names, for Kong.
    pub(crate) fn names(protocol: Protocol) -> Vec<String> {
        Self::all(protocol).iter().map(|phase| phase.name().to_owned()).collect()
    }
}

/// The most seconds of `cache_ttl` and `cert_cache_ttl`: a year.
pub(crate) const MAX_CACHE_TTL: u32 = 31_536_000;

/// The most milliseconds of `http_timeout`: an hour.
pub(crate) const MAX_HTTP_TIMEOUT: u32 = 3_600_000;

/// A token of RFC 9110, section 5.6.2, as a pattern of Lua's.
const TOKEN: &str = "^[%w!#%$%%&'%*%+%-%.%^_`|~]+$";

/// The protocols of routes that it applies to.
const PROTOCOLS: [&str; 4] = ["grpc", "grpcs", "http", "https"];

/// What `-dump` prints: Kong reads it as JSON whenever it needs the schema, also where no server runs.
/// From it Kong also learns which protocol to speak.
pub(crate) fn plugin_info(protocol: Protocol) -> Value {
    json!({
        "Protocol": protocol.name(),
        "Plugins": [{
            "Name": PLUGIN_NAME,
            "Priority": PRIORITY,
            "Version": VERSION,
            "Phases": Phase::names(protocol),
            "Schema": schema(),
        }],
    })
}

/// The schema in the form of Kong's own plugins: whatever it can refuse is refused when the configuration is written.
/// [`crate::config::Config`] reads what passes it, and refuses the rest; a test holds the two together.
pub(crate) fn schema() -> Value {
    json!({
        "name": PLUGIN_NAME,
        "fields": [
            // Who the consumer is comes out of this plugin; it cannot apply to one.
            {"consumer": {"type": "foreign", "reference": "consumers", "eq": null}},
            {"protocols": {
                "type": "set",
                "required": true,
                "default": PROTOCOLS,
                "elements": {"type": "string", "one_of": PROTOCOLS},
            }},
            {"config": {"type": "record", "required": true, "fields": config_fields()}},
        ],
        "entity_checks": [
            of_source(&["header"], "config.certificate_header_name", json!({"required": true})),
            of_source(&["header"], "config.certificate_header_format", json!({"required": true})),
            of_source(&["shim", "tls"], "config.certificate_header_name", json!({"eq": null})),
            of_source(&["shim", "tls"], "config.certificate_header_format", json!({"eq": null})),
            of_source(&["header", "tls"], "config.send_ca_dn", json!({"eq": false})),
            {"mutually_required": ["config.http_proxy_host", "config.http_proxy_port"]},
            {"mutually_required": ["config.https_proxy_host", "config.https_proxy_port"]},
            {"distinct": [
                "config.client_cert_header_name",
                "config.client_serial_header_name",
                "config.client_cert_issuer_dn_header_name",
                "config.client_cert_subject_dn_header_name",
                "config.client_cert_fingerprint_header_name",
            ]},
        ],
    })
}

/// A configuration with the default of each field that is left out, as Kong fills it in. What is null stays so.
pub(crate) fn with_defaults(mut config: Map<String, Value>) -> Map<String, Value> {
    let fields = config_fields();
    for (name, field) in fields.as_array().into_iter().flatten().filter_map(Value::as_object).flatten() {
        if let Some(default) = field.get("default") {
            config.entry(name).or_insert_with(|| default.clone());
        }
    }
    config
}

/// What a field must be with one of these sources.
fn of_source(sources: &[&str], field: &str, must: Value) -> Value {
    json!({"conditional": {
        "if_field": "config.certificate_source", "if_match": {"one_of": sources},
        "then_field": field, "then_match": must,
    }})
}

/// A field for the name of a header by which the plugin says nothing else: one that may carry a certificate where
/// `besides` are taken.
fn header_name(besides: &[&str]) -> Value {
    let taken = IDENTITY.iter().chain(besides).map(|name| {
        json!({"pattern": in_any_spelling(name), "err": "it is a header of the plugin's own with another meaning"})
    });
    json!({
        "type": "string",
        "len_min": 1,
        "match": TOKEN,
        "match_none": taken.collect::<Vec<_>>(),
    })
}

/// A field for the name of a header of details, which has the form of one of nginx's variables.
fn detail_header(default: &str, detail: &str, variable: &str) -> Value {
    let description = format!(
        "With `inject_client_cert_details`: the header with {detail}, in the form of nginx's `$ssl_client_{variable}`; null \
         leaves it out."
    );
    let mut field = described(header_name(&HANDOFF), &description);
    field["default"] = json!(default);
    field
}

/// A pattern of Lua's for all that [`client_cert::field::spells`] a name.
fn in_any_spelling(name: &str) -> String {
    let letter = |char: char| match char {
        '-' => "[-_]".to_owned(),
        _ => format!("[{}{char}]", char.to_ascii_uppercase()),
    };
    format!("^{}$", name.chars().map(letter).collect::<String>())
}

/// A field for a CA: the id of an entity, or PEM.
fn ca_certificate() -> Value {
    let digits = |count| "%x".repeat(count);
    let id = [8, 4, 4, 4, 12].map(digits).join("%-");
    json!({
        "type": "string",
        "match_any": {
            "patterns": [format!("^{id}$"), "%-%-%-%-%-BEGIN "],
            "err": "expected the id of a CA certificate, or PEM",
        },
    })
}

/// The fields of `config`. Kong shows their descriptions (`GET /schemas/plugins/mtls-auth`), and so does
/// `docs/configuration.md`; Kong takes 10 to 500 bytes.
fn config_fields() -> Value {
    json!([
        {"certificate_source": {
            "type": "string", "required": true, "default": "shim", "one_of": ["shim", "header", "tls"],
            "description": "Where the client certificate comes from: the headers of tls-shim with its proof (`shim`), a \
                            header of another TLS front (`header`), or Kong's own TLS listener (`tls`).",
        }},
        {"certificate_header_name": described(
            // Our shim's own header may carry it, as RFC 9440 has it.
            header_name(&[CLIENT_CERT_CHAIN, CLIENT_CERT_PROOF]),
            "With `certificate_source: header`: the header that the front sets.",
        )},
        {"certificate_header_format": {
            "type": "string", "one_of": ["base64_encoded", "url_encoded"],
            "description": "With `certificate_source: header`: how the certificate stands in that header, as DER in base64 \
                            or as PEM with percent-encoding.",
        }},
        {"secure_source": {
            "type": "boolean", "required": true, "default": true,
            "description": "With `certificate_source: header`: the header counts only on connections from Kong's \
                            `trusted_ips`.",
        }},
        {"ca_certificates": {
            "type": "array", "required": true, "len_min": 1,
            "elements": ca_certificate(),
            "description": "The CAs to verify client certificates against: ids of `ca_certificates` entities, or PEM text.",
        }},
        {"consumer_by": {
            "type": "set", "default": ["username", "custom_id"],
            "elements": {"type": "string", "one_of": ["username", "custom_id"]},
            "description": "Which fields of a consumer a name in the certificate may match. The names are its SANs (DNS, \
                            email, URI, IP, directoryName) in order, or its CN where it has no SAN extension. Each name is \
                            tried as a username first. With an empty list only manual mappings count.",
        }},
        {"credentials": {
            "type": "array", "default": [],
            "elements": {"type": "record", "fields": [
                {"id": {
                    "type": "string",
                    "description": "What `X-Credential-Identifier` says; the subject name where it is not set.",
                }},
                {"subject_name": {
                    "type": "string", "required": true, "len_min": 1,
                    "description": "A name in the certificate, as a whole.",
                }},
                {"consumer": {
                    "type": "string", "required": true, "len_min": 1,
                    "description": "Id or username of the consumer that it stands for.",
                }},
                {"ca_certificate": described(
                    ca_certificate(),
                    "One of `ca_certificates`, as it is written there: the mapping counts only for certificates that were \
                     issued under that CA.",
                )},
            ]},
            "description": "Manual mappings of names to consumers. They come before `consumer_by`, those with a CA first.",
        }},
        {"san_dirname_matcher": {
            "type": "array", "default": [],
            "elements": {"type": "string", "len_min": 1},
            "description": "Which attributes (OID, long or short name) of a directoryName among the SANs count as names; \
                            all where it is empty.",
        }},
        {"anonymous": {
            "type": "string",
            "description": "Id or username of the consumer for everybody who could not be authenticated. Whom an earlier \
                            plugin has authenticated is left alone.",
        }},
        {"default_consumer": {
            "type": "string",
            "description": "Id or username of the consumer for a trusted certificate that matches none.",
        }},
        {"skip_consumer_lookup": {
            "type": "boolean", "required": true, "default": false,
            "description": "A trusted certificate is enough: there is no consumer, but a group for Kong's acl plugin.",
        }},
        {"authenticated_group_by": {
            "type": "string", "default": "CN", "one_of": ["CN", "DN"],
            "description": "With `skip_consumer_lookup`: the part of the subject that is the group; null for no group.",
        }},
        {"allow_partial_chain": {
            "type": "boolean", "required": true, "default": false,
            "description": "An intermediate among `ca_certificates` is enough of an anchor.",
        }},
        {"allow_server_auth_usage": {
            "type": "boolean", "required": true, "default": false,
            "description": "A certificate whose extended key usage has serverAuth but not clientAuth passes, too: public \
                            CAs issue no others from 2026 on. Set it only where `ca_certificates` has such a CA, and map \
                            names exactly: it issues certificates to anybody.",
        }},
        {"cache_ttl": {
            "type": "number", "required": true, "default": 60, "between": [0, MAX_CACHE_TTL],
            "description": "For how many seconds a CA or a consumer counts as it was found, or as not there; 0 remembers \
                            nothing. A declarative file counts as it is.",
        }},
        {"revocation_check_mode": {
            "type": "string", "required": true, "default": "IGNORE_CA_ERROR",
            "one_of": ["SKIP", "IGNORE_CA_ERROR", "STRICT"],
            "description": "Whether it is asked, by OCSP and CRLs, if a certificate has been revoked: `SKIP` does not ask; \
                            with `IGNORE_CA_ERROR` only who is said to be revoked is refused; with `STRICT` only who is \
                            said not to be revoked passes.",
        }},
        {"http_timeout": {
            "type": "number", "required": true, "default": 30_000, "between": [1, MAX_HTTP_TIMEOUT],
            "description": "For how many milliseconds an OCSP responder or a server of CRLs may take for its answer.",
        }},
        {"cert_cache_ttl": {
            "type": "number", "required": true, "default": 60_000, "between": [0, MAX_CACHE_TTL],
            "description": "For how many seconds at most it counts that a certificate has not been revoked; 0 asks each \
                            time.",
        }},
        {"http_proxy_host": proxy_host("http")},
        {"http_proxy_port": proxy_port("http")},
        {"https_proxy_host": proxy_host("https")},
        {"https_proxy_port": proxy_port("https")},
        {"ssl_verify": {
            "type": "boolean", "required": true, "default": true,
            "description": "Whether the certificate of an https server that is asked about revocation must be valid.",
        }},
        {"send_ca_dn": {
            "type": "boolean", "required": true, "default": false,
            "description": "With `certificate_source: shim`: tls-shim puts the names of `ca_certificates` into its \
                            CertificateRequest, so that browsers and Java clients offer a fitting certificate. Names of \
                            all plugins that meet on a server name are merged, so set it on all of them or on none: \
                            clients hold back what no listed CA has issued.",
        }},
        {"inject_client_cert_details": {
            "type": "boolean", "required": true, "default": false,
            "description": "Tells the upstream about a verified certificate, in the five headers named here.",
        }},
        {"client_cert_header_name": detail_header("X-Client-Cert", "the certificate", "escaped_cert")},
        {"client_serial_header_name": detail_header("X-Client-Cert-Serial", "its serial number", "serial")},
        {"client_cert_issuer_dn_header_name": detail_header("X-Client-Cert-Issuer-DN", "its issuer", "i_dn")},
        {"client_cert_subject_dn_header_name": detail_header("X-Client-Cert-Subject-DN", "its subject", "s_dn")},
        {"client_cert_fingerprint_header_name":
            detail_header("X-Client-Cert-Fingerprint", "its SHA-1 fingerprint", "fingerprint")},
    ])
}

fn proxy_host(scheme: &str) -> Value {
    let description =
        format!("The proxy through which servers with {scheme} URLs are asked about revocation.");
    json!({"type": "string", "len_min": 1, "description": description})
}

fn proxy_port(scheme: &str) -> Value {
    json!({"type": "integer", "between": [0, u16::MAX], "description": format!("The port of `{scheme}_proxy_host`.")})
}

fn described(mut field: Value, description: &str) -> Value {
    field["description"] = json!(description);
    field
}

#[cfg(test)]
mod reference;
