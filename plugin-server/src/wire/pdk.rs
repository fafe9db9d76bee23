//! This knows how the PDK calls of [`crate::pdk`] look in MsgPack:1.

use kong_entities::Consumer;
use serde_json::{Map, Value as Json, json};

use crate::event::{Exchange, PdkCall};
use crate::pdk::{Credential, Headers, LogLevel, MAX_HEADERS, Pdk, PdkFault};

use super::value::Value;

/// Kong at the other end of an event.
pub(crate) struct MsgPackPdk(pub(crate) Exchange);

impl MsgPackPdk {
    /// `kong.client.tls.request_client_certificate`, in the certificate phase. It cannot be told any names of CAs: those
    /// are an opaque pointer of Lua's.
    pub(crate) async fn request_client_certificate(&mut self) {
        self.call("kong.client.tls.request_client_certificate", vec![]).await;
    }

    /// `kong.client.tls.disable_session_reuse`, in the certificate phase.
    pub(crate) async fn disable_session_reuse(&mut self) {
        self.call("kong.client.tls.disable_session_reuse", vec![]).await;
    }

    async fn call(&mut self, method: &'static str, args: Vec<Json>) -> Value {
        self.0.call(PdkCall { method, args }).await
    }
}

impl Pdk for MsgPackPdk {
    async fn request_headers(&mut self) -> Result<Headers, PdkFault> {
        let answer = self.call("kong.request.get_headers", vec![json!(MAX_HEADERS)]).await;
        headers(answer).ok_or(PdkFault)
    }

    async fn is_authenticated(&mut self) -> bool {
        self.call("kong.client.get_credential", vec![]).await != Value::Nil
    }

    async fn client_ip(&mut self) -> Option<String> {
        self.call("kong.client.get_ip", vec![]).await.as_text().map(str::to_owned)
    }

    async fn is_trusted_ip(&mut self, address: &str) -> bool {
        self.call("kong.ip.is_trusted", vec![json!(address)]).await == Value::Bool(true)
    }

    async fn client_certificate_chain(&mut self) -> Option<Vec<u8>> {
        match self.call("kong.client.tls.get_full_client_certificate_chain", vec![]).await {
            Value::Bytes(pem) => Some(pem),
            _ => None,
        }
    }

    async fn load_consumer(&mut self, id_or_username: &str) -> Result<Option<Consumer>, PdkFault> {
        // Without the second argument Kong throws at what is no id.
        let args = vec![json!(id_or_username), json!(true)];
        match self.call("kong.client.load_consumer", args).await {
            Value::Nil => Ok(None),
            table => consumer(&table).map(Some).ok_or(PdkFault),
        }
    }

    async fn authenticate(&mut self, consumer: Option<&Consumer>, credential: Option<&Credential>) {
        let consumer_json = consumer.map_or(Json::Null, consumer_table);
        let mut args = vec![consumer_json];
        args.extend(credential.map(|credential| match consumer {
            Some(consumer) => json!({"id": credential.id, "consumer": {"id": consumer.id}}),
            None => json!({"id": credential.id}),
        }));
        self.call("kong.client.authenticate", args).await;
    }

    async fn set_authenticated_group(&mut self, group: &str) {
        self.call("kong.ctx.shared.set", vec![json!("authenticated_groups"), json!([group])]).await;
    }

    async fn set_request_headers(&mut self, headers: Vec<(String, Option<String>)>) {
        // An empty list removes the header: an empty Lua table has no values to set.
        let table = headers
            .into_iter()
            .map(|(name, value)| (name, value.map_or_else(|| json!([]), Json::String)))
            .collect::<Map<_, _>>();
        self.call("kong.service.request.set_headers", vec![Json::Object(table)]).await;
    }

    async fn log(&mut self, level: LogLevel, text: String) {
        let method = match level {
            LogLevel::Notice => "kong.log.notice",
            LogLevel::Warn => "kong.log.warn",
            LogLevel::Err => "kong.log.err",
        };
        self.call(method, vec![Json::String(text)]).await;
    }
}

/// The consumer as Kong's own plugins would set it.
fn consumer_table(consumer: &Consumer) -> Json {
    let mut table = Map::new();
    table.insert("id".into(), json!(consumer.id));
    table.extend(consumer.username.as_ref().map(|username| ("username".into(), json!(username))));
    table.extend(consumer.custom_id.as_ref().map(|custom_id| ("custom_id".into(), json!(custom_id))));
    Json::Object(table)
}

/// A consumer as Kong gives it, with what is not set left out.
fn consumer(table: &Value) -> Option<Consumer> {
    let text = |field| match table.get(field) {
        None | Some(Value::Nil) => Some(None),
        Some(value) => value.as_text().map(|text| Some(text.to_owned())),
    };
    Some(Consumer { id: text("id")??, username: text("username")?, custom_id: text("custom_id")? })
}

/// A map of names to lists of values. An empty one may come as an empty list, for Lua has one kind of table; a header
/// without a value is an empty list.
fn headers(answer: Value) -> Option<Headers> {
    match answer {
        Value::Map(entries) => entries
            .into_iter()
            .map(|(name, values)| {
                let Value::Bytes(name) = name else { return None };
                let values = match values {
                    Value::Array(values) => values
                        .into_iter()
                        .map(|value| match value {
                            Value::Bytes(value) => Some(value),
                            _ => None,
                        })
                        .collect::<Option<_>>()?,
                    Value::Bytes(value) => vec![value],
                    _ => return None,
                };
                Some((name, values))
            })
            .collect(),
        Value::Array(entries) if entries.is_empty() => Some(Vec::new()),
        _ => None,
    }
}
