//! Small and huge pages: the first touch, and direct writes from them.

use crate::Scene;
use crate::tools::{Memory, alternate, heading, repeat, ring, succeed, zeroed};
use io_uring::{opcode, types};
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
