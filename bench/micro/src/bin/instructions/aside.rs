//! The simulated backend with its work set aside: callgrind counts nothing inside the functions named `aside_…`, so what
//! is counted is the broker's own code and not the simulation of a disk and a network.
//!
//! They are plain functions that are never inlined, because callgrind knows them by name.

use ringmill_reactor::sim::SimBackend;
use ringmill_reactor::{
    Backend, Completion, FileHandle, FileId, Fs, MovedSocket, Op, Pool, SocketId, Token, Waker,
};

pub struct Aside(pub SimBackend);

#[inline(never)]
fn aside_now(io: &SimBackend) -> u64 {
    io.now_ns()
}

#[inline(never)]
fn aside_wall(io: &SimBackend) -> i64 {
    io.wall_ms()
}

#[inline(never)]
fn aside_push(io: &mut SimBackend, op: Op, token: Token) {
    io.push(op, token);
}

#[inline(never)]
fn aside_enter(io: &mut SimBackend, until_ns: Option<u64>) {
    io.enter(until_ns);
}

#[inline(never)]
fn aside_pop(io: &mut SimBackend) -> Option<Completion> {
    io.pop()
}

#[inline(never)]
fn aside_in_flight(io: &SimBackend) -> usize {
    io.in_flight()
}

#[inline(never)]
fn aside_attach(io: &mut SimBackend, file: FileHandle) -> FileId {
    io.attach_file(file)
}

#[inline(never)]
fn aside_detach(io: &mut SimBackend, file: FileId) {
    io.detach_file(file);
}

impl Backend for Aside {
    fn now_ns(&self) -> u64 {
        aside_now(&self.0)
    }

    fn wall_ms(&self) -> i64 {
        aside_wall(&self.0)
    }

    fn push(&mut self, op: Op, token: Token) {
        aside_push(&mut self.0, op, token);
    }

    fn enter(&mut self, until_ns: Option<u64>) {
        aside_enter(&mut self.0, until_ns);
    }

    fn pop(&mut self) -> Option<Completion> {
        aside_pop(&mut self.0)
    }

    fn submits(&self) -> bool {
        false
    }

    fn in_flight(&self) -> usize {
        aside_in_flight(&self.0)
    }

    fn pool(&self) -> &Pool {
        self.0.pool()
    }

    fn attach_file(&mut self, file: FileHandle) -> FileId {
        aside_attach(&mut self.0, file)
    }

    fn detach_file(&mut self, file: FileId) {
        aside_detach(&mut self.0, file);
    }

    fn adopt_socket(&mut self, socket: MovedSocket) -> SocketId {
        self.0.adopt_socket(socket)
    }

    fn release_socket(&mut self, socket: SocketId) -> Option<MovedSocket> {
        self.0.release_socket(socket)
    }

    fn waker(&self) -> Waker {
        self.0.waker()
    }

    fn fs(&self) -> &dyn Fs {
        self.0.fs()
    }
}
