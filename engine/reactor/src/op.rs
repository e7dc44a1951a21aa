//! Operations, completions, and the trait that both backends implement.

use crate::buffer::{Buf, BufMut, Pool};
use crate::fs::{FileHandle, Fs};
use std::any::Any;
use std::net::SocketAddr;
use std::sync::Arc;

/// Chosen by the caller, given back with the completion. The core packs (kind, slot) into it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Token(pub u64);

/// A socket of this backend. Never reused while an operation on it is outstanding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SocketId(pub u32);

/// A file attached to this backend with [`Backend::attach_file`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileId(pub u32);

/// A positive `errno`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Errno(pub i32);

impl Errno {
    pub const CANCELED: Errno = Errno(125);
    pub const IO: Errno = Errno(5);
    pub const NO_SPACE: Errno = Errno(28);
    /// EMFILE: the process has as many descriptors as it may.
    pub const PROCESS_FILES: Errno = Errno(24);
    /// ENFILE: the system has.
    pub const SYSTEM_FILES: Errno = Errno(23);
    pub const CONNECTION_RESET: Errno = Errno(104);
    /// EDQUOT: whose files they are may have no more.
    pub const QUOTA: Errno = Errno(122);

    /// There is no room, for anybody or for this user: what waits for room may go on when there is some.
    pub fn is_full(self) -> bool {
        self == Errno::NO_SPACE || self == Errno::QUOTA
    }
}

/// As [`Errno::is_full`].
pub fn is_full(error: &std::io::Error) -> bool {
    use std::io::ErrorKind;
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}

impl std::fmt::Display for Errno {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(&std::io::Error::from_raw_os_error(self.0), f)
    }
}

/// How a core-log write becomes durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flush {
    /// Not by itself: a later flush covers it.
    None,
    /// A linked `IORING_OP_FSYNC` with `DATASYNC`. One completion answers for both; it is an error when either fails.
    Linked,
    /// `RWF_DSYNC` on the write.
    Dsync,
}

/// Blocking file work, run on the backend's file thread (in the simulator: at a later virtual time).
pub type Job = Box<dyn FnOnce(&dyn Fs) -> JobOutput + Send>;
/// What a [`Job`] returns; the owner of the token knows the type.
pub type JobOutput = Box<dyn Any + Send>;
/// A computation too long for a core, which touches no file.
pub type Work = Box<dyn FnOnce() -> JobOutput + Send>;

/// One operation. Owned buffers move in and come back in [`Completion::payload`].
pub enum Op {
    /// Accepts until cancelled or failed: one completion a connection, with [`Payload::Accepted`] and `more` set.
    Accept { listener: SocketId },
    /// Receives whatever is there into a buffer that the backend provides only once data has arrived, so an idle
    /// connection holds no memory. One completion with [`Payload::Received`]; result 0 is end of stream.
    Recv { socket: SocketId },
    /// Receives into the spare room of `buf` until `fill_to` bytes of it are filled, never more, or end of stream.
    /// Comes back as [`Payload::BufMut`], its length grown; the result counts the new bytes.
    RecvInto { socket: SocketId, buf: BufMut, fill_to: usize },
    /// Sends all of `parts` in order. The result counts bytes; fewer than asked means the peer is gone.
    Send { socket: SocketId, parts: Vec<Buf>, zero_copy: bool },
    /// Shuts the socket down and closes it; outstanding operations on it complete first, with an error.
    Close { socket: SocketId },
    /// Writes `buf` at `offset` (both page-aligned), then makes it durable as `flush` says. Short writes are errors.
    Write { file: FileId, buf: Buf, offset: u64, flush: Flush },
    /// `fdatasync` of the file. Covers the writes whose completions were reaped before this was pushed.
    Sync { file: FileId },
    /// Reads up to `len` bytes at `offset` (page-aligned) into `buf` from its start. Comes back as
    /// [`Payload::BufMut`] with its length set to what was read, which is less than `len` only at the end of the file.
    Read { file: FileId, buf: BufMut, offset: u64, len: usize },
    /// Blocking work for the file thread. Comes back as [`Payload::Job`].
    Run { job: Job },
    /// A computation for a thread beside that, which works in order too. Comes back as [`Payload::Job`].
    Work { work: Work },
}

/// What an operation gives back.
pub enum Payload {
    None,
    Accepted {
        socket: SocketId,
        peer: SocketAddr,
    },
    /// Bytes in a provided buffer, returned to the ring when dropped. Drop it before the next [`Backend::enter`].
    Received(Received),
    BufMut(BufMut),
    Job(JobOutput),
}

/// A provided buffer with received bytes. `Deref`s to them.
pub struct Received(pub(crate) ReceivedInner);

pub(crate) enum ReceivedInner {
    Owned(Box<[u8]>),
    Ring(crate::ring::ProvidedBuffer),
}

impl std::ops::Deref for Received {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            ReceivedInner::Owned(bytes) => bytes,
            ReceivedInner::Ring(buffer) => buffer.bytes(),
        }
    }
}

/// The end of one operation, or one of several results of an `Accept`.
pub struct Completion {
    pub token: Token,
    pub result: Result<u32, Errno>,
    pub payload: Payload,
    /// Further completions with this token follow.
    pub more: bool,
}

/// Wakes a backend out of [`Backend::enter`] from another thread. Cheap when it is awake: one atomic read.
#[derive(Clone)]
pub struct Waker(pub(crate) Arc<dyn Wake>);

pub(crate) trait Wake: Send + Sync {
    fn wake(&self);
}

impl Waker {
    /// Makes the backend's current or next `enter` return. What was written before this call is seen after it.
    pub fn wake(&self) {
        self.0.wake();
    }
}

/// One core's way to the outside. Used from one thread only.
pub trait Backend {
    /// Monotonic nanoseconds since an arbitrary start. Read once a turn; cheap.
    fn now_ns(&self) -> u64;
    /// Wall clock, milliseconds since 1970, for record timestamps only.
    fn wall_ms(&self) -> i64;
    /// Queues an operation; it starts at the next [`Backend::enter`] at the latest.
    fn push(&mut self, op: Op, token: Token);
    /// Submits what is queued, then waits until something completed, a waker fired, or the monotonic clock reached
    /// `until_ns` (`Some(0)`: do not wait; `None`: no deadline).
    fn enter(&mut self, until_ns: Option<u64>);
    /// The next [`Backend::enter`] has operations to hand to the kernel. That may take the kernel long: a file system does a write
    /// at once and blocks in it, where it cannot do it otherwise.
    fn submits(&self) -> bool;
    /// The next completion; `None` when all were taken.
    fn pop(&mut self) -> Option<Completion>;
    /// Operations pushed and not completed.
    fn in_flight(&self) -> usize;
    /// Buffers of this core.
    fn pool(&self) -> &Pool;
    /// Makes an open file usable in operations (registers it where the kernel can).
    fn attach_file(&mut self, file: FileHandle) -> FileId;
    /// Ends that; outstanding operations on it keep the file open until they are done.
    fn detach_file(&mut self, file: FileId);
    /// Takes over a connected socket from another core of the same process.
    fn adopt_socket(&mut self, socket: MovedSocket) -> SocketId;
    /// Gives up a socket without closing it. Only with no operation outstanding on it.
    fn release_socket(&mut self, socket: SocketId) -> Option<MovedSocket>;
    /// Wakes this backend from other threads.
    fn waker(&self) -> Waker;
    /// Blocking file work done here and now: start-up and recovery only.
    fn fs(&self) -> &dyn Fs;
}

/// A connected socket on its way to another core.
pub struct MovedSocket(pub(crate) MovedInner);

pub(crate) enum MovedInner {
    Os(std::os::fd::OwnedFd),
    /// An end of a simulated connection.
    Sim(u64),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_is_a_full_disk_and_a_broken_one_is_not() {
        for (errno, full) in [(Errno::NO_SPACE, true), (Errno::QUOTA, true), (Errno::IO, false)] {
            assert_eq!(errno.is_full(), full);
            assert_eq!(is_full(&std::io::Error::from_raw_os_error(errno.0)), full);
        }
    }
}
