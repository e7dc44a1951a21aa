//! Codecs as a client chooses them. Decompression is bounded, and refuses what is cut off.

use ringmill_record::Compression;
use std::io;

/// Decompressed bytes of one batch; a batch that claims more is refused.
pub const PAYLOAD_BYTES_MAX: u64 = 256 << 20;

/// How a batch's records are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Codec {
    #[default]
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

impl Codec {
    pub const ALL: [Codec; 5] = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];

    /// The bits in a batch's attributes.
    pub fn bits(self) -> i16 {
        match self {
            Codec::None => 0,
            Codec::Gzip => 1,
            Codec::Snappy => 2,
            Codec::Lz4 => 3,
            Codec::Zstd => 4,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Codec::None => "none",
            Codec::Gzip => "gzip",
            Codec::Snappy => "snappy",
            Codec::Lz4 => "lz4",
            Codec::Zstd => "zstd",
        }
    }

    /// # Errors
    /// Only what the codecs report; they do not fail on memory.
    pub fn compress(self, payload: Vec<u8>) -> io::Result<Vec<u8>> {
        ringmill_compression::compress(self.compression(), payload)
    }

    fn compression(self) -> Compression {
        match self {
            Codec::None => Compression::None,
            Codec::Gzip => Compression::Gzip,
            Codec::Snappy => Compression::Snappy,
            Codec::Lz4 => Compression::Lz4,
            Codec::Zstd => Compression::Zstd,
        }
    }
}

/// The records of a batch, uncompressed. `body` is what follows the batch header.
///
/// # Errors
/// `InvalidData` for bytes that do not decompress, or to more than [`PAYLOAD_BYTES_MAX`].
pub fn decompress(compression: Compression, body: &[u8]) -> io::Result<Vec<u8>> {
    let unpacked = ringmill_compression::decompress(compression, body, PAYLOAD_BYTES_MAX).map_err(
        |error| match error.kind() {
            io::ErrorKind::FileTooLarge => invalid("the batch decompresses to more than 256 MiB"),
            _ => error,
        },
    )?;
    if unpacked.cut_off { Err(invalid("a Snappy stream that ends early")) } else { Ok(unpacked.bytes) }
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const COMPRESSIONS: [Compression; 5] =
        [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn what_is_compressed_comes_back(
            piece in proptest::collection::vec(any::<u8>(), 0..400),
            times in 1usize..500,
        ) {
            let payload = piece.repeat(times);
            for (codec, compression) in Codec::ALL.into_iter().zip(COMPRESSIONS) {
                let packed = codec.compress(payload.clone()).expect("compresses");
                let back = decompress(compression, &packed).expect("decompresses");
                prop_assert_eq!(&back, &payload, "{}", codec.name());
            }
        }

        #[test]
        fn noise_is_refused_or_read_never_fatal(noise in proptest::collection::vec(any::<u8>(), 0..300)) {
            for compression in COMPRESSIONS {
                let _ = decompress(compression, &noise);
            }
            let mut stream = Codec::Snappy.compress(Vec::new()).expect("a head");
            stream.extend(&noise);
            let _ = decompress(Compression::Snappy, &stream);
        }
    }
}
