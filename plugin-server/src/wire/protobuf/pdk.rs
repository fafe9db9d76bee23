//! This knows how the PDK calls of [`crate::pdk`] look in ProtoBuf:1.

use bytes::Bytes;
use kong_entities::Consumer;
use prost::Message;
use serde_json::json;

use super::fields::{self, NotHeaders};
use super::messages::{
    self, AuthenticateArgs, AuthenticatedCredential, Bool, ConsumerSpec, ExitArgs, Int, KeyValue, Struct,
    Text, Value,
};
use crate::event::Exchange;
use crate::pdk::{Credential, Headers, LogLevel, MAX_HEADERS, Pdk, PdkFault};
use crate::schema::PLUGIN_NAME;

/// A call that an event wants Kong to run: two frames.
#[derive(Debug, PartialEq)]
pub(crate) struct Call {
    pub(crate) method: String,
    /// The message that the method takes.
    pub(crate) argument: Vec<u8>,
}

impl Call {
    fn new(method: &str, argument: &impl Message) -> Self {
        Self { method: method.to_owned(), argument: argument.encode_to_vec() }
    }

    /// Has Kong answer the request. `kong.response.error` is not in this protocol; the body is what it would give a
    /// client that wants JSON, but for the request's id, which only Kong knows.
    pub(crate) fn exit(status: u16, message: &str) -> Self {
        let headers = [("Content-Type".to_owned(), Value::from("application/json; charset=utf-8"))];
        let argument = ExitArgs {
            status: status.into(),
            body: json!({"message": message}).to_string().into(),
            headers: Some(Struct::new(headers)),
        };
        Self::new("kong.response.exit", &argument)
    }

    /// Has Kong start the instance and begin the event anew. Kong does so upon an error of its own with these words in
    /// it; one that it makes for a method that it does not know has the method's name in it. The protocol has no
    /// other error but a closed connection.
    pub(crate) fn no_instance(id: i32) -> Self {
        Self { method: format!("no plugin instance #{id}"), argument: Vec::new() }
    }
}

/// What Kong answers to a call: a message, or None where it was longer than any can be. Nothing and an empty message
/// are the same to Kong.
pub(crate) type Answer = Option<Bytes>;

/// Kong at the other end of an event.
pub(crate) struct ProtoBufPdk(pub(crate) Exchange<Call, Answer>);

impl ProtoBufPdk {
    async fn call(&mut self, method: &str, argument: &impl Message) -> Answer {
        self.0.call(Call::new(method, argument)).await
    }

    /// A call that gives a text; none where it is empty, which is how nil arrives.
    async fn text(&mut self, method: &str, argument: &impl Message) -> Option<Vec<u8>> {
        let answer = self.call(method, argument).await?;
        let text = Text::decode(answer).ok()?.v;
        (!text.is_empty()).then_some(text)
    }
}

impl Pdk for ProtoBufPdk {
    async fn request_headers(&mut self) -> Result<Headers, PdkFault> {
        const MAX: i32 = MAX_HEADERS as i32;
        let answer = self.call("kong.request.get_headers", &Int { v: MAX }).await;
        fields::headers(&answer.ok_or(PdkFault)?).map_err(|NotHeaders| PdkFault)
    }

    async fn is_authenticated(&mut self) -> bool {
        // A credential has an id, so its message is never empty.
        let answer = self.call("kong.client.get_credential", &messages::Empty {}).await;
        answer.is_some_and(|message| !message.is_empty())
    }

    async fn client_ip(&mut self) -> Option<String> {
        let text = self.text("kong.client.get_ip", &messages::Empty {}).await?;
        String::from_utf8(text).ok()
    }

    async fn is_trusted_ip(&mut self, address: &str) -> bool {
        let answer = self.call("kong.ip.is_trusted", &Text { v: address.into() }).await;
        // Whatever cannot be read is no trust.
        answer.is_some_and(|message| Bool::decode(message).is_ok_and(|answer| answer.v))
    }

    async fn client_certificate_chain(&mut self) -> Option<Vec<u8>> {
        // The chain is not to be had in this protocol. Of the leaf nginx knows the PEM.
        self.text("kong.nginx.get_var", &Text { v: b"ssl_client_raw_cert".to_vec() }).await
    }

    async fn load_consumer(&mut self, id_or_username: &str) -> Result<Option<Consumer>, PdkFault> {
        let argument = ConsumerSpec { id: id_or_username.to_owned(), by_username: true };
        let answer = self.call("kong.client.load_consumer", &argument).await.ok_or(PdkFault)?;
        if answer.is_empty() {
            return Ok(None);
        }
        let messages::Consumer { id, username, custom_id } =
            messages::Consumer::decode(answer).map_err(|_| PdkFault)?;
        let set = |text: String| (!text.is_empty()).then_some(text);
        Ok(Some(Consumer {
            id: set(id).ok_or(PdkFault)?,
            username: set(username),
            custom_id: set(custom_id),
        }))
    }

    async fn authenticate(&mut self, consumer: Option<&Consumer>, credential: Option<&Credential>) {
        let argument = AuthenticateArgs {
            consumer: consumer.map(|consumer| messages::Consumer {
                id: consumer.id.clone(),
                username: consumer.username.clone().unwrap_or_default(),
                custom_id: consumer.custom_id.clone().unwrap_or_default(),
            }),
            credential: credential.map(|credential| AuthenticatedCredential {
                id: credential.id.clone(),
                consumer_id: consumer.map(|consumer| consumer.id.clone()).unwrap_or_default(),
            }),
        };
        self.call("kong.client.authenticate", &argument).await;
        if let (None, Some(credential)) = (consumer, credential) {
            // Kong reads a consumer_id that is left out as the empty one, of a consumer whom its acl plugin then looks for
            // in vain. This is where Kong keeps the credential.
            let table = Struct::new([("id".to_owned(), Value::from(credential.id.as_str()))]);
            let argument = KeyValue { k: "authenticated_credential".into(), v: Some(Value::table(table)) };
            self.call("kong.nginx.set_ctx", &argument).await;
        }
    }

    async fn set_authenticated_group(&mut self, group: &str) {
        let argument = KeyValue { k: "authenticated_groups".into(), v: Some(Value::list([group])) };
        self.call("kong.ctx.shared.set", &argument).await;
    }

    async fn set_request_headers(&mut self, headers: Vec<(String, Option<String>)>) {
        // An empty list removes the header, as in MsgPack:1.
        let value = |value: Option<String>| value.map_or_else(|| Value::list([]), Value::from);
        let argument = Struct::new(headers.into_iter().map(|(name, text)| (name, value(text))));
        self.call("kong.service.request.set_headers", &argument).await;
    }

    async fn log(&mut self, level: LogLevel, text: String) {
        let method = match level {
            LogLevel::Notice => "kong.log.notice",
            LogLevel::Warn => "kong.log.warn",
            LogLevel::Err => "kong.log.err",
        };
        // In this protocol Kong calls its log without the plugin's name, which operators look for.
        let line = format!("[{PLUGIN_NAME}] {text}");
        let argument = messages::ListValue { values: vec![Value::from(line)] };
        self.call(method, &argument).await;
    }
}
