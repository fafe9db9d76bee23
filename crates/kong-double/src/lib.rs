//! Kong's double: a stand-in for Kong Gateway 3.9, or 3.4, in tests, the demonstration and measurements. **Not a
//! gateway**: nothing here is meant to stand in front of anything that matters.
//!
//! It plays Kong's side of the plugin protocols MsgPack:1 and ProtoBuf:1 towards a plugin server on a unix socket,
//! whichever of them the plugin's `-dump` asks for, and just enough of Kong's HTTP proxy to carry a request from a
//! client (or a TLS shim) to an upstream with the plugin in between: routes by host and path, the PDK calls in use,
//! consumers, an error log. What it does on the socket follows recordings of a real Kong, which its tests replay (see
//! [`recording`]). The recordings are of 3.9.1; what [`KongVersion::V3_4`] does otherwise is read from its source.
//!
//! ```no_run
//! # async fn example(plugin_info: serde_json::Value, upstream: std::net::SocketAddr) -> Result<(), kong_double::Error> {
//! use kong_double::{Double, DoubleConfig, PluginConfig, Route};
//! use serde_json::json;
//!
//! let mut config = DoubleConfig::new("/tmp/kong/mtls-auth.socket", plugin_info);
//! config.workers = 2;
//! config.routes.push(
//!     Route::new("billing", upstream)
//!         .paths(["/billing"])
//!         .plugin(PluginConfig::new("mtls-auth", json!({"ca_certificates": ["…"]}))),
//! );
//! let kong = Double::start(config).await?;
//! println!("http://{}/billing", kong.addr());
//! kong.wait_for_log(|line| line.contains("[mtls-auth]")).await;
//! assert_eq!(kong.rpc_calls().requests[0].event_calls(), 4);
//! # Ok(())
//! # }
//! ```
//!
//! # What differs from Kong, knowingly
//! - Absent: TLS, HTTP/2, WebSocket upgrades, gRPC, regular expressions in paths, load balancing, health
//!   checks, the phase `rewrite`, handshakes, the plugin server's start and its `-dump`
//!   (give it as [`DoubleConfig::plugin_info`]), most PDK methods that no recording and no plugin of ours
//!   uses: those are to it what unknown methods are to Kong.
//! - It calls itself `kong-double/3.9.1` in `Server` and `Via`, and the places in its log are those of 3.9.1,
//!   whichever version it plays. Of a version it plays what concerns plugin servers, and nothing else.
//! - In 3.4, a plugin server that listens when the double starts is ready from the first request on; in Kong the first
//!   requests may be faster.
//! - Requests stream to the upstream; Kong reads them whole first and turns chunks into a length.
//! - hyper reads the HTTP: it refuses control characters in header values, lower-cases header names and
//!   groups repeated ones.
//! - Requests that wait for an instance are told when it runs; Kong asks every 100 ms.
//! - A worker is not a thread: all share the caller's tokio runtime.

#![forbid(unsafe_code)]

mod arguments;
mod config;
mod double;
mod entities;
mod error;
mod error_log;
mod forward;
mod headers;
mod instances;
mod ip;
mod mp_rpc;
pub mod pack;
mod pb;
mod pb_rpc;
mod pdk;
mod pdk_response;
mod phase;
mod plugin_socket;
mod pool;
mod protocol;
mod proxy;
mod readiness;
pub mod recording;
mod request;
mod router;
mod schema;
mod shared;
mod uri;
mod value;
mod version;
pub mod wire;
mod worker;

pub use config::{Consumer, DoubleConfig, EarlierAuth, PluginConfig, Route};
pub use double::Double;
pub use error::Error;
pub use error_log::Level;
pub use protocol::Protocol;
pub use schema::SchemaViolation;
pub use shared::{RequestCalls, RpcCalls};
pub use value::Value;
pub use version::KongVersion;
