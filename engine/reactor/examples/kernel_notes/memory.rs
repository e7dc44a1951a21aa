//! Small and huge pages: the first touch, and direct writes from them. Copies into memory that is in no cache.

use crate::Scene;
use crate::tools::{Memory, alternate, heading, repeat, ring, succeed, zeroed};
use io_uring::{opcode, types};
use ringmill_reactor::{AppendBuf, Pool};
use std::collections::VecDeque;
use std::os::fd::AsRawFd;

const REGION_BYTES: usize = 64 << 20;

fn ways() -> Vec<(String, bool)> {
    vec![("4 KiB pages".to_owned(), false), ("2 MiB pages".to_owned(), true)]
}

/// The first write to each page of 64 MiB, which is then given back.
pub fn first_touch(scene: &Scene) {
    println!("one operation is 64 MiB touched for the first time");
    heading();
    alternate(ways(), |huge| {
        repeat(scene.span, || {
            let mut memory = Memory::untouched(REGION_BYTES, *huge);
            for page in memory.bytes().chunks_mut(4096) {
                page[0] = std::hint::black_box(1);
            }
            memory.unmap();
        })
    });
}

/// Direct writes of 1 MiB without a flush, from memory touched before.
pub fn direct_writes(scene: &Scene) {
    const LEN: usize = 1 << 20;
    let fd = zeroed(&scene.folder, 32 << 20);
    let mut ring = ring();
    heading();
    let ways = ways()
        .into_iter()
        .map(|(name, huge)| {
            let mut memory = Memory::untouched(4 << 20, huge);
            memory.bytes().fill(0x5a);
            (format!("1 MiB direct write, {name}"), memory)
        })
        .collect();
    let mut at = 0;
    alternate(ways, |memory| {
        repeat(scene.span, || {
            let write = opcode::Write::new(types::Fd(fd.as_raw_fd()), memory.ptr(), LEN as u32).offset(at);
            succeed(&mut ring, &[write.build()]);
            at = (at + LEN as u64) % (32 << 20);
        })
    });
}

/// Copies of 1 MiB that is in cache, to memory that is used in turns: as batches go to the tail ring. The CPU looked at what
/// it copies just before, as a broker checks its CRC.
pub fn copies(scene: &Scene) {
    const LEN: usize = 1 << 20;
    const CHUNK_BYTES: usize = 4 << 20;
    const CHUNKS: usize = 64;
    let pool = Pool::new(((CHUNKS + 2) * CHUNK_BYTES) as u64);
    let mut chunks: VecDeque<AppendBuf> = (0..CHUNKS).filter_map(|_| pool.append_buf(CHUNK_BYTES)).collect();
    chunks.iter_mut().for_each(|chunk| chunk.append_zeros(CHUNK_BYTES));
    let source = vec![0x5a; LEN];
    println!("one operation is a copy of 1 MiB");
    heading();
    let ways = vec![("through the caches".to_owned(), false), ("past the caches".to_owned(), true)];
    alternate(ways, |past| {
        repeat(scene.span, || {
            std::hint::black_box(source.iter().step_by(64).map(|byte| u64::from(*byte)).sum::<u64>());
            if chunks.back().is_none_or(|chunk| chunk.room() < LEN) {
                // What was written longest ago goes back to the pool, which hands it out again.
                chunks.pop_front();
                chunks.push_back(pool.append_buf(CHUNK_BYTES).unwrap());
            }
            let chunk = chunks.back_mut().unwrap();
            if *past {
                chunk.append_past_cache(&source)
            } else {
                chunk.append(&source)
            };
        })
    });
}
