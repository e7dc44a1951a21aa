//! A backend whose disk takes every write at once and keeps nothing, so that a benchmark sees the log's own cost.
//! Files still exist (in memory), because the log opens, sizes and names them.

use ringmill_reactor::sim::{SimBackend, SimOptions, SimWorld};
use ringmill_reactor::{
    Backend, Completion, FileHandle, FileId, Fs, MovedSocket, Op, Payload, Pool, SocketId, Token, Waker,
};
use std::collections::VecDeque;

pub struct NullDisk {
    _world: SimWorld,
    inner: SimBackend,
    done: VecDeque<Completion>,
}

impl NullDisk {
    pub fn new() -> NullDisk {
        let options = SimOptions { disk_bytes: 1 << 40, pool_bytes: 1 << 30, ..SimOptions::default() };
        let world = SimWorld::new(1, options);
        let (_, inner) = world.add_core();
        NullDisk { _world: world, inner, done: VecDeque::new() }
    }

    fn finish(&mut self, token: Token, result: u32, payload: Payload) {
        self.done.push_back(Completion { token, result: Ok(result), payload, more: false });
    }
}

impl Backend for NullDisk {
    fn now_ns(&self) -> u64 {
        self.inner.now_ns()
    }

    fn wall_ms(&self) -> i64 {
        self.inner.wall_ms()
    }

    fn push(&mut self, op: Op, token: Token) {
        match op {
            Op::Write { buf, .. } => self.finish(token, buf.len() as u32, Payload::None),
            Op::Sync { .. } => self.finish(token, 0, Payload::None),
            Op::Run { job } => {
                let output = job(self.inner.fs());
                self.finish(token, 0, Payload::Job(output));
            }
            other => self.inner.push(other, token),
        }
    }

    fn enter(&mut self, _until_ns: Option<u64>) {
        self.inner.enter(Some(0));
    }

    fn pop(&mut self) -> Option<Completion> {
        self.done.pop_front().or_else(|| self.inner.pop())
    }

    fn submits(&self) -> bool {
        self.inner.submits()
    }

    fn in_flight(&self) -> usize {
        self.inner.in_flight() + self.done.len()
    }

    fn pool(&self) -> &Pool {
        self.inner.pool()
    }

    fn attach_file(&mut self, file: FileHandle) -> FileId {
        self.inner.attach_file(file)
    }

    fn detach_file(&mut self, file: FileId) {
        self.inner.detach_file(file);
    }

    fn adopt_socket(&mut self, socket: MovedSocket) -> SocketId {
        self.inner.adopt_socket(socket)
    }

    fn release_socket(&mut self, socket: SocketId) -> Option<MovedSocket> {
        self.inner.release_socket(socket)
    }

    fn waker(&self) -> Waker {
        self.inner.waker()
    }

    fn fs(&self) -> &dyn Fs {
        self.inner.fs()
    }
}
