//! The wire protocols that Kong speaks to its plugin servers.

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
pub(crate) mod msgpack;
pub(crate) mod pdk;
pub(crate) mod protobuf;
pub(crate) mod protocol;
pub(crate) mod value;
