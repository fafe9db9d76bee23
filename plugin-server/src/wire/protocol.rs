//! This knows the two wire protocols by name, and tells them apart by the first bytes of a connection.

use super::protobuf::frame::{self, MAX_CALL};

/// A protocol that Kong speaks to plugin servers. The server says in its info which one Kong is to speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Protocol {
    /// MessagePack-RPC: every Kong since 2.8; lets requests pass where the plugin server does not answer
    #[value(name = "msgpack")]
    MsgPack,
    /// Protocol Buffers: for Kong 3.8 and newer, which then answers 500 where the plugin server does not
    #[value(name = "protobuf")]
    ProtoBuf,
}

impl Protocol {
    /// The name in the plugin info.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::MsgPack => "MsgPack:1",
            Self::ProtoBuf => "ProtoBuf:1",
        }
    }

    /// Which protocol a connection speaks whose first bytes these are: ProtoBuf:1 if they are the length of a frame
    /// that may come first, which is a call, of at most [`MAX_CALL`] bytes (8 MiB).
    ///
    /// No request of MsgPack:1 can look like that. It begins with `94` (an array of four) and `00` (type 0), then
    /// comes the message id, then the method, a string. Read as a little-endian length, the third and fourth byte
    /// must then be below `80` and exactly `00`. A third byte below `80` is a whole message id, so the fourth is the
    /// first byte of a string: `a0` to `bf`, or `d9` to `db`, and never `00`. What is neither is left to MsgPack:1,
    /// which says what is wrong with it.
    pub(crate) fn of(first: [u8; frame::LENGTH]) -> Self {
        if frame::length(first) <= MAX_CALL { Self::ProtoBuf } else { Self::MsgPack }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(message_id: u64, method: &str) -> Vec<u8> {
        rmp_serde::to_vec(&(0, message_id, method, [0_u8; 0])).unwrap()
    }

    fn of(bytes: &[u8]) -> Protocol {
        Protocol::of(bytes[..frame::LENGTH].try_into().unwrap())
    }

    #[test]
    fn no_request_of_msgpack_is_taken_for_a_frame() {
        // Every width of a message id and both edges of each, and ids with zeros where a length would have them.
        let edges = (0..64).flat_map(|bit| [(1_u64 << bit) - 1, 1 << bit, (1 << bit) + 1]);
        for message_id in edges.chain(0..70_000) {
            // Every width of a string.
            for method in ["", "plugin.Step", "plugin.HandleEvent", &"m".repeat(40), &"m".repeat(70_000)] {
                if method.len() > 100 && message_id > 300 {
                    continue;
                }
                assert_eq!(of(&request(message_id, method)), Protocol::MsgPack, "{message_id} {method}");
            }
        }
    }

    #[test]
    fn every_frame_that_may_come_first_is_one() {
        // Lengths whose bytes begin as a request of MsgPack:1 does, too.
        let alike = (0..0x80).map(|third| 0x94 | third << 16);
        for length in alike.chain(0..70_000).chain([MAX_CALL - 1, MAX_CALL]) {
            assert_eq!(of(&u32::try_from(length).unwrap().to_le_bytes()), Protocol::ProtoBuf, "{length}");
        }
        assert_eq!(of(&u32::try_from(MAX_CALL + 1).unwrap().to_le_bytes()), Protocol::MsgPack);
        assert_eq!(of(b"GET /"), Protocol::MsgPack);
    }
}
