//! This knows which Kong the double plays, and what the versions do differently about a plugin server. Everything else
//! is as Kong 3.9 does it.

/// A version of Kong: the oldest that is supported, and the newest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KongVersion {
    /// Kong 3.4.
    V3_4,
    /// Kong 3.9.
    #[default]
    V3_9,
}

impl KongVersion {
    /// Every version that the double can play.
    pub const ALL: [Self; 2] = [Self::V3_4, Self::V3_9];

    /// Whether no event goes out before a worker has reached the socket once; until then requests pass.
    pub(crate) fn checks_connection_first(self) -> bool {
        self == Self::V3_4
    }

    /// Whether an instance that somebody failed to start stays claimed after others have waited for it in vain.
    pub(crate) fn keeps_stale_claims(self) -> bool {
        self == Self::V3_4
    }

    /// Whether `no plugin instance` resets all of the plugin's instances in all workers, not just that one.
    pub(crate) fn resets_whole_plugin(self) -> bool {
        self == Self::V3_9
    }

    /// Whether a ProtoBuf:1 event that failed ends with a 500 (since 3.8) instead of passing the request.
    pub(crate) fn fails_closed_in_protobuf(self) -> bool {
        self == Self::V3_9
    }
}
