//! This knows the calls of Kong's plugin development kit that the plugin makes, whatever carries them.

use kong_entities::Consumer;

/// Kong answered a call with something that it never gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PdkFault;

/// The headers of a request: lower-case names as they were spelled, and the values of each.
pub(crate) type Headers = Vec<(Vec<u8>, Vec<Vec<u8>>)>;

/// What stands for the certificate in `kong.client.authenticate`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Credential {
    /// Goes into `X-Credential-Identifier`.
    pub(crate) id: String,
}

/// How loud a line in Kong's error log is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogLevel {
    Notice,
    Warn,
    Err,
}

/// Kong, as the access phase sees it. Each call is a round trip that costs Kong some 33 µs
/// (`kong-plugin-protocol.md`, "What a request costs Kong").
pub(crate) trait Pdk {
    /// `kong.request.get_headers`, at most [`MAX_HEADERS`] values.
    async fn request_headers(&mut self) -> Result<Headers, PdkFault>;

    /// `kong.client.get_credential`: whether an earlier plugin authenticated the request.
    async fn is_authenticated(&mut self) -> bool;

    /// `kong.client.get_ip`: the address that connected to Kong. None where Kong has none.
    async fn client_ip(&mut self) -> Option<String>;

    /// `kong.ip.is_trusted`: whether an address is one of Kong's `trusted_ips`.
    async fn is_trusted_ip(&mut self, address: &str) -> bool;

    /// `kong.client.tls.get_full_client_certificate_chain`, in PEM: what a client presented to Kong's own listener. None
    /// where it presented nothing, was not asked, or speaks no TLS. ProtoBuf:1 has the leaf alone.
    async fn client_certificate_chain(&mut self) -> Option<Vec<u8>>;

    /// `kong.client.load_consumer` by id or else by username. None where there is no such consumer, and also where Kong
    /// cannot reach its database: only the first of its two results comes over the wire.
    async fn load_consumer(&mut self, id_or_username: &str) -> Result<Option<Consumer>, PdkFault>;

    /// `kong.client.authenticate`. At least one must be given.
    async fn authenticate(&mut self, consumer: Option<&Consumer>, credential: Option<&Credential>);

    /// `kong.ctx.shared.authenticated_groups`, which Kong's acl plugin reads.
    async fn set_authenticated_group(&mut self, group: &str);

    /// `kong.service.request.set_headers`: sets those with a value, removes those without, in one call.
    async fn set_request_headers(&mut self, headers: Vec<(String, Option<String>)>);

    /// `kong.log.*`.
    async fn log(&mut self, level: LogLevel, text: String);
}

/// The most header values that Kong hands out.
pub(crate) const MAX_HEADERS: usize = 1000;
