//! Looking inside compressed batches: for lookups by time, for what is produced to a compacted topic, and for compaction,
//! which packs what it keeps again. On the file thread and upkeep's only, never on a core: batches otherwise pass through
//! untouched.

use ringmill_record::{BatchHeader, Compression, HEADER_BYTES};
use std::io::{self, Read, Write};

/// Decompressed bytes of one batch for a lookup; a batch that holds more is not looked into.
pub(crate) const PAYLOAD_BYTES_MAX: u64 = 256 << 20;

/// The records of a batch, uncompressed.
///
/// # Errors
/// `InvalidData` for bytes that do not decompress, `FileTooLarge` for more than `bytes_max` of them.
pub(crate) fn payload(header: &BatchHeader, batch: &[u8], bytes_max: u64) -> io::Result<Vec<u8>> {
    let body = batch.get(HEADER_BYTES..).unwrap_or_default();
    match header.compression() {
        Some(Compression::None) => Ok(body.to_vec()),
        Some(Compression::Gzip) => bounded(flate2::read::MultiGzDecoder::new(body), bytes_max),
        Some(Compression::Snappy) => snappy(body, bytes_max),
        Some(Compression::Lz4) => bounded(lz4_flex::frame::FrameDecoder::new(body), bytes_max),
        Some(Compression::Zstd) => bounded(
            ruzstd::decoding::StreamingDecoder::new(body)
                .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e.to_string()))?,
            bytes_max,
        ),
        None => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// Records packed again, as Java clients frame them.
///
/// # Errors
/// Only what the codecs report; they do not fail on memory.
pub(crate) fn pack(compression: Compression, payload: Vec<u8>) -> io::Result<Vec<u8>> {
    match compression {
        Compression::None => Ok(payload),
        Compression::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            encoder.write_all(&payload)?;
            encoder.finish()
        }
        Compression::Snappy => {
            let mut out = XERIAL.to_vec();
            out.extend([0, 0, 0, 1, 0, 0, 0, 1]);
            let mut encoder = snap::raw::Encoder::new();
            for block in payload.chunks(SNAPPY_BLOCK_BYTES) {
                let packed = encoder.compress_vec(block).map_err(io::Error::other)?;
                out.extend((packed.len() as u32).to_be_bytes());
                out.extend(packed);
            }
            Ok(out)
        }
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

fn bounded(reader: impl Read, bytes_max: u64) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    reader.take(bytes_max + 1).read_to_end(&mut out)?;
    if out.len() as u64 > bytes_max { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(out) }
}

const XERIAL: [u8; 8] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0];
/// Bytes of input per Snappy block, as snappy-java has it.
const SNAPPY_BLOCK_BYTES: usize = 32 << 10;

/// Java clients frame Snappy as xerial's stream does (a 16-byte head, then length-prefixed blocks), others send one raw block.
fn snappy(body: &[u8], bytes_max: u64) -> io::Result<Vec<u8>> {
    let invalid = |e: snap::Error| io::Error::new(io::ErrorKind::InvalidData, e.to_string());
    let block = |bytes: &[u8]| -> io::Result<Vec<u8>> {
        if snap::raw::decompress_len(bytes).map_err(invalid)? as u64 > bytes_max {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        snap::raw::Decoder::new().decompress_vec(bytes).map_err(invalid)
    };
    if !body.starts_with(&XERIAL) {
        return block(body);
    }
    let mut rest = body.get(16..).unwrap_or_default();
    let mut out = Vec::new();
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        let (bytes, next) =
            after.split_at_checked(u32::from_be_bytes(*length) as usize).ok_or(io::ErrorKind::InvalidData)?;
        out.extend(block(bytes)?);
        if out.len() as u64 > bytes_max {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        rest = next;
    }
    Ok(out)
}
