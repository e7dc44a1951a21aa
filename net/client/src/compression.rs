//! The five compression codes, both ways.
//!
//! Framing as Java clients write it: Snappy in xerial's stream, LZ4 in its frame format. Decompression is bounded.

use ringmill_record::Compression;
use std::io::{self, Read, Write};

/// Decompressed bytes of one batch; a batch that claims more is refused.
pub const PAYLOAD_BYTES_MAX: u64 = 256 << 20;

/// Bytes of input per Snappy block, as snappy-java has it.
const SNAPPY_BLOCK_BYTES: usize = 32 << 10;
/// xerial's stream begins with these eight bytes, a version and the oldest version that can read it.
const XERIAL_MAGIC: [u8; 8] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0];
const XERIAL_HEAD_BYTES: usize = 16;

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
        match self {
            Codec::None => Ok(payload),
            Codec::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
                encoder.write_all(&payload)?;
                encoder.finish()
            }
            Codec::Snappy => snappy_stream(&payload),
            Codec::Lz4 => {
                let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
                encoder.write_all(&payload)?;
                encoder.finish().map_err(io::Error::other)
            }
            Codec::Zstd => {
                let level = ruzstd::encoding::CompressionLevel::Fastest;
                Ok(ruzstd::encoding::compress_to_vec(payload.as_slice(), level))
            }
        }
    }
}

fn snappy_stream(payload: &[u8]) -> io::Result<Vec<u8>> {
    let mut out = XERIAL_MAGIC.to_vec();
    out.extend(1u32.to_be_bytes());
    out.extend(1u32.to_be_bytes());
    let mut encoder = snap::raw::Encoder::new();
    for block in payload.chunks(SNAPPY_BLOCK_BYTES) {
        let packed = encoder.compress_vec(block).map_err(io::Error::other)?;
        out.extend((packed.len() as u32).to_be_bytes());
        out.extend(packed);
    }
    Ok(out)
}

/// The records of a batch, uncompressed. `body` is what follows the batch header.
///
/// # Errors
/// `InvalidData` for bytes that do not decompress, or to more than [`PAYLOAD_BYTES_MAX`].
pub fn decompress(compression: Compression, body: &[u8]) -> io::Result<Vec<u8>> {
    match compression {
        Compression::None => Ok(body.to_vec()),
        Compression::Gzip => bounded(flate2::read::MultiGzDecoder::new(body)),
        Compression::Snappy => snappy(body),
        Compression::Lz4 => bounded(lz4_flex::frame::FrameDecoder::new(body)),
        Compression::Zstd => {
            bounded(ruzstd::decoding::StreamingDecoder::new(body).map_err(|e| invalid(e.to_string()))?)
        }
    }
}

fn invalid(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}

fn too_large() -> io::Error {
    invalid("the batch decompresses to more than 256 MiB")
}

fn bounded(reader: impl Read) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    reader.take(PAYLOAD_BYTES_MAX + 1).read_to_end(&mut out)?;
    if out.len() as u64 > PAYLOAD_BYTES_MAX { Err(too_large()) } else { Ok(out) }
}

/// xerial's stream, or one raw block as other clients send it.
fn snappy(body: &[u8]) -> io::Result<Vec<u8>> {
    if !body.starts_with(&XERIAL_MAGIC) {
        return snappy_block(body);
    }
    let mut rest =
        body.get(XERIAL_HEAD_BYTES..).ok_or_else(|| invalid("a Snappy stream without its head"))?;
    let mut out = Vec::new();
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        let length = u32::from_be_bytes(*length) as usize;
        let (block, next) =
            after.split_at_checked(length).ok_or_else(|| invalid("a Snappy block that ends early"))?;
        out.extend(snappy_block(block)?);
        if out.len() as u64 > PAYLOAD_BYTES_MAX {
            return Err(too_large());
        }
        rest = next;
    }
    if rest.is_empty() { Ok(out) } else { Err(invalid("a Snappy stream that ends early")) }
}

fn snappy_block(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let length = snap::raw::decompress_len(bytes).map_err(|e| invalid(e.to_string()))?;
    if length as u64 > PAYLOAD_BYTES_MAX {
        return Err(too_large());
    }
    snap::raw::Decoder::new().decompress_vec(bytes).map_err(|e| invalid(e.to_string()))
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
            let mut stream = snappy_stream(&[]).expect("a head");
            stream.extend(&noise);
            let _ = decompress(Compression::Snappy, &stream);
        }
    }
}
