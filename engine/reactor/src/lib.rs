//! The reactor: everything between a core's synchronous code and the kernel.
//!
//! One narrow interface, [`Backend`]: push operations, enter the kernel, take completions, read the clock. Two
//! implementations: the io_uring ring ([`ring`]) and a deterministic one with a virtual clock, in-memory sockets and
//! disks that can fail ([`sim`]). Blocking file work (create, allocate, sync, rename, list) goes through [`Fs`], on a
//! file thread that answers by completion, or directly at start-up.
//!
//! The only crate with `unsafe`. What it guarantees to the others: a buffer handed to an operation is kept alive and
//! unchanged until its completion was reaped; a [`Buf`] is immutable; memory comes from a bounded [`Pool`].

pub mod buffer;
mod features;
pub mod fs;
mod listen;
pub mod mailbox;
pub mod op;
mod past_cache;
mod provided;
pub mod reclaim;
pub mod ring;
pub mod sim;
pub mod stdfs;
pub mod thread;
pub mod unfit;

pub use buffer::{AppendBuf, Buf, BufMut, Pool, PoolStats};
pub use fs::{DirEntry, FileHandle, Fs, OpenMode};
pub use mailbox::Doorbell;
pub use op::{
    Backend, Completion, Errno, FileId, Flush, Job, JobOutput, MovedSocket, Op, Payload, SocketId, Token,
    Waker, Work, is_full,
};
pub use unfit::Unfit;
