//! A backend whose disk operations are done where they are pushed: destaging during recovery, before any core turns.
//!
//! Wraps the core's own backend, so that files attached here stay attached. Knows the operations of destaging only.

use ringmill_reactor::{
    Backend, Completion, Errno, FileHandle, FileId, Fs, MovedSocket, Op, Payload, Pool, SocketId, Token,
    Waker,
};
use std::collections::{HashMap, VecDeque};
use std::io;

pub(crate) struct Inline<'a, B: Backend> {
    io: &'a mut B,
    files: HashMap<FileId, FileHandle>,
    ready: VecDeque<Completion>,
}

impl<'a, B: Backend> Inline<'a, B> {
    /// `files`: those attached by an earlier one that may be written again.
    pub fn new(io: &'a mut B, files: HashMap<FileId, FileHandle>) -> Inline<'a, B> {
        Inline { io, files, ready: VecDeque::new() }
    }

    pub fn into_files(self) -> HashMap<FileId, FileHandle> {
        self.files
    }

    fn write(&self, file: FileId, bytes: &[u8], offset: u64) -> Result<u32, Errno> {
        let handle = self.files.get(&file).ok_or(Errno::IO)?;
        self.io.fs().write_at(handle, bytes, offset).map_err(errno)?;
        Ok(bytes.len() as u32)
    }
}

fn errno(error: io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::IO, Errno)
}

impl<B: Backend> Backend for Inline<'_, B> {
    fn now_ns(&self) -> u64 {
        self.io.now_ns()
    }

    fn wall_ms(&self) -> i64 {
        self.io.wall_ms()
    }

    fn push(&mut self, op: Op, token: Token) {
        let (result, payload) = match op {
            Op::Write { file, buf, offset, .. } => (self.write(file, &buf, offset), Payload::None),
            Op::Run { job } => (Ok(0), Payload::Job(job(self.io.fs()))),
            Op::Accept { .. }
            | Op::Recv { .. }
            | Op::RecvInto { .. }
            | Op::Send { .. }
            | Op::Close { .. }
            | Op::Sync { .. }
            | Op::Read { .. }
            | Op::Work { .. } => unreachable!("recovery destages, and destaging writes and runs jobs"),
        };
        self.ready.push_back(Completion { token, result, payload, more: false });
    }

    fn enter(&mut self, _until_ns: Option<u64>) {}

    fn pop(&mut self) -> Option<Completion> {
        self.ready.pop_front()
    }

    fn submits(&self) -> bool {
        false
    }

    fn in_flight(&self) -> usize {
        self.ready.len()
    }

    fn pool(&self) -> &Pool {
        self.io.pool()
    }

    fn attach_file(&mut self, file: FileHandle) -> FileId {
        let id = self.io.attach_file(file.clone());
        self.files.insert(id, file);
        id
    }

    fn detach_file(&mut self, file: FileId) {
        self.files.remove(&file);
        self.io.detach_file(file);
    }

    fn adopt_socket(&mut self, socket: MovedSocket) -> SocketId {
        self.io.adopt_socket(socket)
    }

    fn release_socket(&mut self, socket: SocketId) -> Option<MovedSocket> {
        self.io.release_socket(socket)
    }

    fn waker(&self) -> Waker {
        self.io.waker()
    }

    fn fs(&self) -> &dyn Fs {
        self.io.fs()
    }
}
