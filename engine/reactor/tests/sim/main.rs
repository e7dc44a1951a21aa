//! The simulated disk and network held to what they promise: faults that a broker must survive are only worth something
//! if they are the faults that a machine has. What must hold, holds for every seed; what may happen, happens for some.
#![allow(clippy::unwrap_used)]

mod disk;
mod net;

use ringmill_reactor::sim::{Cut, SimBackend, SimOptions, SimWorld};
use ringmill_reactor::{Backend, Buf, Completion, FileHandle, FileId, Fs, Op, OpenMode, Token};
use std::path::Path;

const PAGE: usize = 4096;

/// One core in a world of its own.
struct Rig {
    world: SimWorld,
    io: SimBackend,
}

impl Rig {
    fn new(seed: u64, options: SimOptions) -> Rig {
        let world = SimWorld::new(seed, options);
        let (_, io) = world.add_core();
        Rig { world, io }
    }

    /// The next life, after this cut.
    fn cut(self, cut: Cut) -> Rig {
        let Rig { world, io } = self;
        drop(io);
        world.end_life(cut);
        let (_, io) = world.add_core();
        Rig { world, io }
    }

    fn push(&mut self, token: u64, op: Op) {
        self.io.push(op, Token(token));
    }

    /// The next completion; `None` when nothing would ever happen again.
    fn next(&mut self) -> Option<Completion> {
        self.io.enter(None);
        loop {
            if let Some(completion) = self.io.pop() {
                return Some(completion);
            }
            let until = self.world.now_ns() + 10_000_000_000;
            if !self.world.advance(until) {
                return None;
            }
        }
    }

    /// Completions up to and with the one of this token.
    fn until(&mut self, token: u64) -> Vec<Completion> {
        let mut out = Vec::new();
        while out.last().is_none_or(|c: &Completion| c.token != Token(token)) {
            out.push(self.next().expect("the operation ends"));
        }
        out
    }

    fn buf(&self, bytes: &[u8]) -> Buf {
        let mut buf = self.io.pool().take(bytes.len()).unwrap();
        buf.extend(bytes);
        buf.freeze()
    }

    /// A file of so many pages of zeros that any cut leaves.
    fn file(&mut self, path: &str, pages: usize) -> (FileHandle, FileId) {
        let fs = self.world.fs();
        let handle = fs.open(Path::new(path), OpenMode::CreateDirect).unwrap();
        fs.write_at(&handle, &vec![0; pages * PAGE], 0).unwrap();
        fs.sync_data(&handle).unwrap();
        fs.sync_dir(Path::new("/")).unwrap();
        let file = self.io.attach_file(handle.clone());
        (handle, file)
    }

    fn page(&self, path: &str, page: usize) -> Vec<u8> {
        self.world.fs().read_all(Path::new(path)).unwrap()[page * PAGE..(page + 1) * PAGE].to_vec()
    }
}
