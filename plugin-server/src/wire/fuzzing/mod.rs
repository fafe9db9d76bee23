//! This knows what must hold of any bytes that come over the socket. The fuzz targets, the runs of their seeds and the
//! property tests all call the same two functions, which panic where it does not.
//!
//! Decoders of others judge ours: that of Kong's double for MsgPack:1; for ProtoBuf:1 what `prost` derives, and the one
//! that the tests of the built program have.

mod answers;
mod msgpack;
#[cfg(test)]
mod properties;
mod protobuf;
#[cfg(test)]
mod said;
#[cfg(test)]
pub(crate) mod seeds;

pub use msgpack::msgpack_frames;
pub use protobuf::protobuf_frames;

/// How many messages of a stream are looked into. Those behind them are only read: a fuzzer would lose its time there.
const LOOKED_INTO: usize = 8;

/// Ways in which a stream may come in pieces: in small ones of one size, and in two. Where those two meet depends on the
/// content, so that one more try of a fuzzer is one more place.
fn cuts(stream: &[u8]) -> Vec<Vec<&[u8]>> {
    let in_pieces = [1, 7, 64].map(|size| stream.chunks(size).collect());
    // FNV-1a.
    let digest = stream.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    });
    let in_two = [0, 16, 32, 48].map(|shift| {
        let (one, other) = stream.split_at((digest >> shift) as usize % (stream.len() + 1));
        vec![one, other]
    });
    in_pieces.into_iter().chain(in_two).collect()
}
