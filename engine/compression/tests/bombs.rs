//! Small bodies that claim, or unpack to, very much: each is refused, and costs a bounded part of that.

#![allow(clippy::unwrap_used)]

use ringmill_compression::decompress;
use ringmill_record::Compression;
use std::io::{ErrorKind, Write};

const BYTES_MAX: u64 = 16 << 20;
/// What a process that refuses all of these may have needed at most: a zstd window of 128 MiB that is never filled, and
/// what was unpacked before it was too much.
const PEAK_KIB_MAX: u64 = 256 << 10;

fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[track_caller]
fn refused(compression: Compression, body: &[u8], how: ErrorKind) {
    let error = decompress(compression, body, BYTES_MAX).expect_err("too much, or nonsense");
    assert_eq!(error.kind(), how, "{compression:?}, {} bytes: {error}", body.len());
    assert!(peak_kib() < PEAK_KIB_MAX, "{compression:?}, {} bytes: {} KiB", body.len(), peak_kib());
}

const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// A frame of unknown content size that asks for a window of `1 << window_log` bytes.
fn zstd_frame(window_log: u8, blocks: &[u8]) -> Vec<u8> {
    [&ZSTD_MAGIC[..], &[0, (window_log - 10) << 3], blocks].concat()
}

fn zstd_block(kind: u32, size: u32, is_last: bool) -> [u8; 3] {
    let [a, b, c, _] = (size << 3 | kind << 1 | u32::from(is_last)).to_le_bytes();
    [a, b, c]
}

/// Blocks that are one byte, 128 Ki times: four bytes each.
fn zstd_runs(count: usize) -> Vec<u8> {
    let run = [&zstd_block(1, 128 << 10, false)[..], &[0]].concat();
    run.repeat(count)
}

/// One block whose sequences all copy 65,539 bytes: 1.3 GB, where the format allows 128 KiB.
fn zstd_giant_block() -> Vec<u8> {
    const SEQUENCES: usize = 20_000;
    // One literal; then the count of sequences, a single code each for literals, offset and match length.
    let mut body = vec![1 << 3 | 1, 0, 128 + (SEQUENCES >> 8) as u8, SEQUENCES as u8, 0b0101_0100, 0, 0, 52];
    // The sixteen further bits of each length, and the bit that ends them.
    body.extend(vec![0; 2 * SEQUENCES]);
    body.push(1);
    [&zstd_runs(1)[..], &zstd_block(2, body.len() as u32, true), &body].concat()
}

/// One test: the peak is the process's.
#[test]
fn what_unpacks_to_too_much_costs_little() {
    use Compression::{Gzip, Lz4, Snappy, Zstd};
    use ErrorKind::{FileTooLarge, InvalidData};

    // 1 GiB in 32 KiB. A reader that keeps to its window has nothing to give before that is full.
    let runs = [zstd_runs(8191), zstd_block(0, 0, true).to_vec()].concat();
    for window_log in [17, 23, 27] {
        refused(Zstd, &zstd_frame(window_log, &runs), FileTooLarge);
    }
    // Kafka's reader has no such windows either.
    for window_log in [28, 31, 41] {
        refused(Zstd, &zstd_frame(window_log, &runs), InvalidData);
    }
    let one_piece = [&ZSTD_MAGIC[..], &[0b1110_0000], &(1u64 << 40).to_le_bytes(), &runs].concat();
    refused(Zstd, &one_piece, InvalidData);
    refused(Zstd, &zstd_frame(27, &zstd_giant_block()), InvalidData);

    let zeros = vec![0; 1 << 20];
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let mut framer = lz4_flex::frame::FrameEncoder::new(Vec::new());
    for _ in 0..256 {
        packer.write_all(&zeros).unwrap();
        framer.write_all(&zeros).unwrap();
    }
    refused(Gzip, &packer.finish().unwrap(), FileTooLarge);
    refused(Lz4, &framer.finish().unwrap(), FileTooLarge);

    // A block that says 4 GiB; many that are a mebibyte each.
    refused(Snappy, &[0xff, 0xff, 0xff, 0xff, 0x0f, 0], FileTooLarge);
    let block = snap::raw::Encoder::new().compress_vec(&zeros).unwrap();
    let block = [&(block.len() as u32).to_be_bytes()[..], &block].concat();
    let stream = [&[0x82][..], b"SNAPPY\0", &[0, 0, 0, 1, 0, 0, 0, 1], &block.repeat(256)].concat();
    refused(Snappy, &stream, FileTooLarge);
}

/// What a client of today sends is unpacked as before, whatever level it was packed with.
#[test]
fn what_fits_is_unpacked() {
    let text: Vec<u8> = (0..300_000u32).flat_map(|n| (n / 7).to_le_bytes()).collect();
    for level in [1, 3, 19] {
        let packed = zstd::bulk::compress(&text, level).unwrap();
        let unpacked = decompress(Compression::Zstd, &packed, BYTES_MAX).unwrap();
        assert_eq!(unpacked.bytes, text, "level {level}");
        for cut in [0, 3, 9, packed.len() / 2, packed.len() - 1] {
            let cut = packed.get(..cut).unwrap();
            let error = decompress(Compression::Zstd, cut, BYTES_MAX).expect_err("a frame that breaks off");
            assert_eq!(error.kind(), ErrorKind::InvalidData, "level {level}, {} bytes", cut.len());
        }
    }
}
