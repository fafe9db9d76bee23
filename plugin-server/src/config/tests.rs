use serde_json::json;

use super::*;
use crate::schema;

const PEM_OR_ID: &str = "6ae7a1a4-0cf0-4b6a-9d3f-3f7c5a0b1c2d";

fn read(config: Value) -> Result<Config, String> {
    Config::from_json(&config.to_string())
}

fn minimal() -> Value {
    json!({"certificate_source": "shim", "ca_certificates": [PEM_OR_ID]})
}

fn with(field: &str, value: Value) -> Value {
    let mut config = minimal();
    config[field] = value;
    config
}

#[test]
fn what_kong_adds_is_passed_over() {
    let mut config = minimal();
    for (field, value) in [
        ("__key__", json!("plugins:mtls-auth:…")),
        ("__seq__", json!(7)),
        ("__plugin_id", json!(PEM_OR_ID)),
        ("__ws_id", json!(PEM_OR_ID)),
        ("route_id", json!(PEM_OR_ID)),
        ("service_id", json!(PEM_OR_ID)),
        ("anonymous", json!(null)),
    ] {
        config[field] = value;
    }
    assert_eq!(read(config).unwrap(), read(minimal()).unwrap());
}

#[test]
fn missing_means_null_which_means_nothing_is_allowed() {
    let config = read(minimal()).unwrap();
    assert!(config.consumer_by.is_empty() && config.anonymous.is_none() && config.default_consumer.is_none());
    assert!(
        !config.skip_consumer_lookup
            && !config.allow_partial_chain
            && !config.allow_server_auth_usage
            && config.authenticated_group_by.is_none()
    );
}

#[test]
fn a_wrong_field_is_named() {
    for (config, says) in [
        (with("nonsense", json!(1)), "unknown field `nonsense`"),
        (
            with("revocation_check_mode", json!("NONE")),
            "config.revocation_check_mode: unknown variant `NONE`",
        ),
        (with("http_timeout", json!(0)), "config.http_timeout: it is not between"),
        (with("http_timeout", json!(3_600_001)), "config.http_timeout: it is not between"),
        (with("cert_cache_ttl", json!(-1)), "config.cert_cache_ttl: it is not between"),
        (with("ssl_verify", json!("no")), "config.ssl_verify: invalid type: string"),
        (with("http_proxy_host", json!("proxy")), "config.http_proxy_port: required with http_proxy_host"),
        (with("https_proxy_port", json!(3128)), "config.https_proxy_host: required with https_proxy_port"),
        (with("https_proxy_port", json!(65_536)), "config.https_proxy_port: invalid value"),
        (with("consumer_id", json!(PEM_OR_ID)), "consumer: the plugin cannot apply to one consumer"),
        (json!({"certificate_source": "shim"}), "missing field `ca_certificates`"),
        (json!({"ca_certificates": [PEM_OR_ID]}), "missing field `certificate_source`"),
        (with("ca_certificates", json!([])), "config.ca_certificates: at least one"),
        (with("ca_certificates", json!({})), "config.ca_certificates: at least one"),
        (with("ca_certificates", json!("x")), "config.ca_certificates: invalid type: string"),
        (with("ca_certificates", json!(["x", 7])), "config.ca_certificates[1]: invalid type: integer"),
        (with("ca_certificates", json!({"a": 1})), "config.ca_certificates"),
        (with("certificate_source", json!("env")), "config.certificate_source: unknown variant `env`"),
        (with("certificate_source", json!("header")), "config.certificate_header_name: required with"),
        (with("certificate_header_name", json!("X-A")), "config.certificate_header_name: only with"),
        (
            with("certificate_header_format", json!("url_encoded")),
            "config.certificate_header_format: only with",
        ),
        (with("secure_source", json!("no")), "config.secure_source: invalid type: string"),
        (with("consumer_by", json!(["id"])), "config.consumer_by[0]: unknown variant `id`"),
        (with("authenticated_group_by", json!("O")), "config.authenticated_group_by: unknown variant `O`"),
        (with("skip_consumer_lookup", json!("yes")), "config.skip_consumer_lookup: invalid type: string"),
        (with("allow_partial_chain", json!(1)), "config.allow_partial_chain: invalid type: integer"),
        (
            with("allow_server_auth_usage", json!("yes")),
            "config.allow_server_auth_usage: invalid type: string",
        ),
        (with("cache_ttl", json!(-1)), "config.cache_ttl: it is not between"),
        (with("cache_ttl", json!(31_536_001)), "config.cache_ttl: it is not between"),
        (with("cache_ttl", json!("60")), "config.cache_ttl: invalid type: string"),
        (with("send_ca_dn", json!("yes")), "config.send_ca_dn: invalid type: string"),
        (
            json!({"certificate_source": "tls", "ca_certificates": [PEM_OR_ID], "send_ca_dn": true}),
            "config.send_ca_dn: only with certificate_source: shim",
        ),
        (with("anonymous", json!("")), "config.anonymous: it is empty"),
        (with("default_consumer", json!("")), "config.default_consumer: it is empty"),
        (with("anonymous", json!(true)), "config.anonymous: invalid type: boolean"),
        (
            with("san_dirname_matcher", json!(["CN", "no such"])),
            "config.san_dirname_matcher[1]: \"no such\" is no",
        ),
        (with("san_dirname_matcher", json!(["CN\0"])), "config.san_dirname_matcher[0]: "),
        (with("credentials", json!("x")), "config.credentials: invalid type: string"),
        (
            with("credentials", json!([{"subject_name": "a"}])),
            "config.credentials[0]: missing field `consumer`",
        ),
        (with("credentials", json!([{"subject_name": "a", "consumer": "b", "x": 1}])), "unknown field `x`"),
        (
            with("credentials", json!([{"subject_name": "", "consumer": "b"}])),
            "config.credentials[0].subject_name: it is empty",
        ),
        (
            with("credentials", json!([{"subject_name": "a", "consumer": ""}])),
            "config.credentials[0].consumer: it is empty",
        ),
        (
            with("credentials", json!([{"subject_name": "a", "consumer": "b", "ca_certificate": "other"}])),
            "config.credentials[0].ca_certificate: it is not among",
        ),
        (
            with("client_cert_header_name", json!("no name")),
            "config.client_cert_header_name: \"no name\" is no header name",
        ),
        (
            with("client_serial_header_name", json!("")),
            "config.client_serial_header_name: \"\" is no header name",
        ),
        (with("client_cert_header_name", json!("X_Consumer_ID")), "is a header of the plugin's own"),
        (with("client_cert_header_name", json!("Client-Cert")), "is a header of the plugin's own"),
        (json!([1]), "config: not a JSON object"),
    ] {
        let problem = read(config.clone()).unwrap_err();
        assert!(problem.contains(says), "{config}: {problem}");
    }
    assert!(Config::from_json("{").unwrap_err().contains("config: "));
}

#[test]
fn a_header_source_needs_a_name_and_a_format() {
    let header = |fields: Value| {
        let mut config = with("certificate_source", json!("header"));
        config.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        read(config).and_then(|config| config.source())
    };
    for (fields, says) in [
        (json!({"certificate_header_name": "X-A"}), "config.certificate_header_format: required"),
        (
            json!({"certificate_header_name": "X A", "certificate_header_format": "url_encoded"}),
            "is no header name",
        ),
        (
            json!({"certificate_header_name": "x_consumer_id", "certificate_header_format": "url_encoded"}),
            "is a header of the plugin's own",
        ),
        (
            json!({"certificate_header_name": "X-A", "certificate_header_format": "pem"}),
            "unknown variant `pem`",
        ),
    ] {
        let problem = header(fields.clone()).unwrap_err();
        assert!(problem.contains(says), "{fields}: {problem}");
    }
    // Missing means null, and null is no leave to believe anybody.
    let fields =
        json!({"certificate_header_name": "Client-Cert", "certificate_header_format": "base64_encoded"});
    assert!(matches!(header(fields).unwrap(), Source::Header { secure: true, .. }));
}

#[test]
fn revocation_has_the_defaults_of_the_schema_and_nobody_is_believed_for_a_null() {
    let filled = schema::with_defaults(minimal().as_object().unwrap().clone());
    let config = read(Value::Object(filled)).unwrap();
    let missing = read(minimal()).unwrap();
    for config in [config, missing] {
        assert_eq!(config.revocation_check_mode, RevocationMode::IgnoreCaError);
        assert_eq!(config.cert_cache_ttl, Duration::from_secs(60_000));
        let settings = config.fetch_settings().unwrap();
        assert_eq!(settings.timeout, Duration::from_secs(30));
        assert_eq!((settings.http_proxy, settings.https_proxy, settings.ssl_verify), (None, None, true));
    }
    let mut config = with("http_proxy_host", json!("one"));
    config["http_proxy_port"] = json!(3128);
    config["https_proxy_host"] = json!("other");
    config["https_proxy_port"] = json!(3129);
    config["http_timeout"] = json!(1500);
    let settings = read(config).unwrap().fetch_settings().unwrap();
    assert_eq!(settings.timeout, Duration::from_millis(1500));
    assert_eq!(settings.http_proxy, Some(("one".into(), 3128)));
    assert_eq!(settings.https_proxy, Some(("other".into(), 3129)));
}

#[test]
fn two_details_do_not_share_a_header() {
    let mut config = with("client_cert_header_name", json!("X-Same"));
    config["client_cert_fingerprint_header_name"] = json!("x_same");
    let problem = read(config).unwrap_err();
    assert!(problem.starts_with("config.client_cert_fingerprint_header_name: "), "{problem}");
}

#[test]
fn an_attribute_has_an_oid_a_long_and_a_short_name() {
    let matcher = read(with("san_dirname_matcher", json!(["CN", "commonName", "2.5.4.3"])))
        .unwrap()
        .san_dirname_matcher;
    assert!(matcher.windows(2).all(|pair| pair[0] == pair[1]), "{matcher:?}");
}

#[test]
fn an_empty_list_comes_from_kong_as_a_map() {
    assert!(read(with("consumer_by", json!({}))).unwrap().consumer_by.is_empty());
    let both = read(with("consumer_by", json!(["custom_id", "username"]))).unwrap();
    assert_eq!(both.consumer_by, [ConsumerField::CustomId, ConsumerField::Username]);
}

/// The fields of the schema by name.
fn schema_fields() -> Vec<(String, Value)> {
    let info = schema::plugin_info(crate::wire::protocol::Protocol::MsgPack);
    let fields = info["Plugins"][0]["Schema"]["fields"].as_array().unwrap();
    let config = fields.iter().find_map(|field| field.get("config")).unwrap();
    let fields = config["fields"].as_array().unwrap();
    fields.iter().flat_map(|field| field.as_object().unwrap().clone()).collect()
}

#[test]
fn schema_and_configuration_know_the_same_fields_and_values() {
    let mut config = Map::new();
    for (name, field) in schema_fields() {
        let example = match field["type"].as_str().unwrap() {
            // The source with which all the others mean something.
            _ if name == "certificate_source" => json!("header"),
            _ if !field["default"].is_null() => field["default"].clone(),
            "string" if !field["one_of"].is_null() => field["one_of"][0].clone(),
            "string" => json!("some"),
            "array" => json!([PEM_OR_ID]),
            "integer" => field["between"][1].clone(),
            other => panic!("{name}: no example for {other}"),
        };
        config.insert(name, example);
    }
    // With every field, as Kong would send it: none is unknown.
    read(Value::Object(config.clone())).unwrap();

    // None is known that the schema has not: serde lists them.
    let unknown = read(with("nonsense", json!(1))).unwrap_err();
    let known = unknown.matches('`').count() / 2 - 1;
    assert_eq!(known, config.len(), "{unknown}");

    // The same for the records within.
    let credential = |extra: &str| {
        let mut record = json!({"subject_name": "a", "consumer": "b"});
        record[extra] = json!("c");
        read(with("credentials", json!([record])))
    };
    let fields =
        &schema_fields().into_iter().find(|(name, _)| name == "credentials").unwrap().1["elements"]["fields"];
    let names = fields.as_array().unwrap().iter().flat_map(|field| field.as_object().unwrap().keys());
    let unknown = credential("nonsense").unwrap_err();
    assert_eq!(unknown.matches('`').count() / 2 - 1, names.clone().count(), "{unknown}");
    for name in names.filter(|name| *name != "ca_certificate") {
        credential(name).unwrap();
    }

    // Each value that Kong lets through is one that we know.
    let taken = |name: &str, value: Value| {
        let mut config = config.clone();
        config.insert(name.to_owned(), value);
        if config["certificate_source"] != "header" {
            config.retain(|name, _| !name.starts_with("certificate_header_"));
        }
        read(Value::Object(config)).unwrap();
    };
    for (name, field) in schema_fields() {
        for value in field["one_of"].as_array().into_iter().flatten() {
            taken(&name, value.clone());
        }
        for value in field["elements"]["one_of"].as_array().into_iter().flatten() {
            taken(&name, json!([value]));
        }
    }
}
