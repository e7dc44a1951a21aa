//! The five compression codes of record batches, both ways.
//!
//! Framing as Java clients write it: Snappy in xerial's stream, LZ4 in its frame format. What is unpacked is bounded by the
//! caller. Never called on a core: batches pass through those untouched.
//!
//! zstd is the reference library both ways: nothing else has its levels, and a frame comes from strangers. One of 40 KB can
//! hold a block of gigabytes, which has to be refused before it is unpacked and not after.

use ringmill_record::{BatchHeader, Compression, HEADER_BYTES};
use ringmill_types::Packing;
use std::borrow::Cow;
use std::io::{self, Read, Write};

/// Bytes of input per Snappy block, as snappy-java has it.
const SNAPPY_BLOCK_BYTES: usize = 32 << 10;
/// xerial's stream begins with these eight bytes, a version and the oldest version that can read it.
const XERIAL_MAGIC: [u8; 8] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0];
const XERIAL_HEAD_BYTES: usize = 16;
/// A zstd frame says how much of what it gave must be kept to decode it; 128 MiB is what Kafka's reader goes along with.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;

/// Kafka's default, and zstd's own.
const ZSTD_LEVEL: i32 = 3;

/// The records of a batch, packed as hard as their compression does where nobody says more.
///
/// # Errors
/// As [`compress_as`].
pub fn compress(compression: Compression, payload: Vec<u8>) -> io::Result<Vec<u8>> {
    compress_as(Packing { compression, level: None }, payload)
}

/// The records of a batch, packed. LZ4 has one level here, the fast one that Kafka's default stands for.
///
/// # Errors
/// Only what the codecs report, zstd for a working memory that it does not get.
pub fn compress_as(packing: Packing, payload: Vec<u8>) -> io::Result<Vec<u8>> {
    match packing.compression {
        Compression::None => Ok(payload),
        Compression::Gzip => {
            let level = packing.level.and_then(|level| u32::try_from(level).ok());
            let level = level.map_or(flate2::Compression::default(), |l| flate2::Compression::new(l.min(9)));
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
            encoder.write_all(&payload)?;
            encoder.finish()
        }
        Compression::Snappy => snappy_stream(&payload),
        Compression::Lz4 => {
            let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
            encoder.write_all(&payload)?;
            encoder.finish().map_err(io::Error::other)
        }
        Compression::Zstd => zstd::bulk::compress(&payload, packing.level.unwrap_or(ZSTD_LEVEL)),
    }
}

/// What a batch held.
#[derive(Debug, PartialEq, Eq)]
pub struct Unpacked {
    pub bytes: Vec<u8>,
    /// A Snappy stream breaks off inside its head or a block's length. Kafka's reader takes that for its end.
    pub cut_off: bool,
}

/// The records of a whole batch, unpacked where they are packed. Cut off or not: what Kafka's reader would find.
///
/// # Errors
/// As [`decompress`], and `InvalidData` for a compression that is none.
pub fn payload<'a>(header: &BatchHeader, batch: &'a [u8], bytes_max: u64) -> io::Result<Cow<'a, [u8]>> {
    let body = batch.get(HEADER_BYTES..).unwrap_or_default();
    match header.compression().ok_or(io::ErrorKind::InvalidData)? {
        Compression::None => Ok(Cow::Borrowed(body)),
        packed => Ok(Cow::Owned(decompress(packed, body, bytes_max)?.bytes)),
    }
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
