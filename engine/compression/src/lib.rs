//! The five compression codes of record batches, both ways.
//!
//! Framing as Java clients write it: Snappy in xerial's stream, LZ4 in its frame format. What is unpacked is bounded by the
//! caller. Never called on a core: batches pass through those untouched.
//!
//! zstd is unpacked by the reference library, because a frame comes from strangers: one of 40 KB can hold a block of
//! gigabytes, which has to be refused before it is unpacked and not after.

use ringmill_record::Compression;
use std::io::{self, Read, Write};

/// Bytes of input per Snappy block, as snappy-java has it.
const SNAPPY_BLOCK_BYTES: usize = 32 << 10;
/// xerial's stream begins with these eight bytes, a version and the oldest version that can read it.
const XERIAL_MAGIC: [u8; 8] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0];
const XERIAL_HEAD_BYTES: usize = 16;
/// A zstd frame says how much of what it gave must be kept to decode it; 128 MiB is what Kafka's reader goes along with.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;

/// The records of a batch, packed.
///
/// # Errors
/// Only what the codecs report; they do not fail on memory.
pub fn compress(compression: Compression, payload: Vec<u8>) -> io::Result<Vec<u8>> {
    match compression {
        Compression::None => Ok(payload),
        Compression::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            encoder.write_all(&payload)?;
            encoder.finish()
        }
        Compression::Snappy => snappy_stream(&payload),
        Compression::Lz4 => {
            let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
            encoder.write_all(&payload)?;
            encoder.finish().map_err(io::Error::other)
        }
        Compression::Zstd => {
            let level = ruzstd::encoding::CompressionLevel::Fastest;
            Ok(ruzstd::encoding::compress_to_vec(payload.as_slice(), level))
        }
    }
}

/// What a batch held.
#[derive(Debug, PartialEq, Eq)]
pub struct Unpacked {
    pub bytes: Vec<u8>,
    /// A Snappy stream breaks off inside its head or a block's length. Kafka's reader takes that for its end.
    pub cut_off: bool,
}

/// The records of a batch, unpacked. `body` is what follows the batch header.
///
/// # Errors
/// `InvalidData` for bytes that do not decompress, `FileTooLarge` for more than `bytes_max` of them.
pub fn decompress(compression: Compression, body: &[u8], bytes_max: u64) -> io::Result<Unpacked> {
    let bytes = match compression {
        Compression::None => body.to_vec(),
        Compression::Gzip => bounded(flate2::read::MultiGzDecoder::new(body), bytes_max)?,
        Compression::Snappy => return snappy(body, bytes_max),
        Compression::Lz4 => bounded(lz4_flex::frame::FrameDecoder::new(body), bytes_max)?,
        Compression::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(body)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
            bounded(decoder, bytes_max)?
        }
    };
    Ok(Unpacked { bytes, cut_off: false })
}

fn invalid(error: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error.to_string())
}

fn bounded(reader: impl Read, bytes_max: u64) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    reader.take(bytes_max + 1).read_to_end(&mut out).map_err(invalid)?;
    if out.len() as u64 > bytes_max { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(out) }
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

/// xerial's stream, or one raw block as other clients send it.
fn snappy(body: &[u8], bytes_max: u64) -> io::Result<Unpacked> {
    if !body.starts_with(&XERIAL_MAGIC) {
        return Ok(Unpacked { bytes: snappy_block(body, bytes_max)?, cut_off: false });
    }
    let Some(mut rest) = body.get(XERIAL_HEAD_BYTES..) else {
        return Ok(Unpacked { bytes: Vec::new(), cut_off: true });
    };
    let mut out = Vec::new();
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        let (block, next) = after
            .split_at_checked(u32::from_be_bytes(*length) as usize)
            .ok_or_else(|| invalid("a Snappy block that ends early"))?;
        out.extend(snappy_block(block, bytes_max)?);
        if out.len() as u64 > bytes_max {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        rest = next;
    }
    Ok(Unpacked { bytes: out, cut_off: !rest.is_empty() })
}

fn snappy_block(bytes: &[u8], bytes_max: u64) -> io::Result<Vec<u8>> {
    if snap::raw::decompress_len(bytes).map_err(invalid)? as u64 > bytes_max {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    snap::raw::Decoder::new().decompress_vec(bytes).map_err(invalid)
}
