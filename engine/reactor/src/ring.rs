//! [`Backend`] over io_uring.
//!
//! One ring per core, entered by its thread only (`SINGLE_ISSUER`), completions run when it enters (`DEFER_TASKRUN`).
//! Every operation has a slot that owns its buffers until the last completion of it was reaped, so the kernel never
//! holds memory that Rust has freed or changed. Slots carry a generation: a completion of a slot's earlier life is
//! impossible, and asserted to be.

use crate::buffer::{Buf, BufMut, Pool};
use crate::features::setup;
pub use crate::features::{HostFeature, RingError, RingFeatures, RingOptions};
use crate::fs::{FileHandle, Fs};
pub use crate::listen::listen;
use crate::mailbox::Doorbell;
use crate::op::{
    Backend, Completion, Errno, FileId, Flush, Job, JobOutput, MovedInner, MovedSocket, Op, Payload,
    SocketId, Token, Waker, Work,
};
pub use crate::provided::ProvidedBuffer;
use crate::provided::ProvidedRing;
use crate::stdfs::StdFs;
use crate::thread::{self, monotonic_ns};
use io_uring::{IoUring, Probe, opcode, squeue, types};
use std::collections::VecDeque;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc;

mod aside;
mod finish;

use aside::Aside;

/// Workers of io-wq that one ring may start.
const WORKERS_MAX: u32 = 8;
/// Parts of one `sendmsg` (`IOV_MAX`); the rest follows in the next.
const VECTORS_MAX: usize = 1024;
/// How often, and how long, a ring that is dropped waits for the kernel to let go of its memory.
const END_TRIES_MAX: u32 = 100;
const END_WAIT_NS: u64 = 10_000_000;
/// The file thread has put pages behind memory of the pool; no caller's token, as it is none of their operations.
const POPULATED: Token = Token(u64::MAX);
const RECV_BYTES: usize = crate::provided::BUFFER_BYTES;

/// An operation in the kernel's hands, with everything it may touch.
enum Pending {
    Accept {
        listener: SocketId,
    },
    Recv {
        socket: SocketId,
    },
    RecvPoll {
        socket: SocketId,
    },
    RecvInto {
        socket: SocketId,
        buf: BufMut,
        fill_to: usize,
        got: u32,
    },
    Send(Box<Sending>),
    Write {
        _buf: Buf,
        /// The kernel looks a linked request's descriptor up only when it starts it, which is when the write is done:
        /// the file must be open until then, or the flush would hit whatever has that number by then.
        _file: FileHandle,
        len: usize,
    },
    Sync {
        _file: FileHandle,
    },
    Read {
        buf: BufMut,
        file: FileHandle,
        offset: u64,
        want: usize,
        got: usize,
    },
    Close {
        socket: SocketId,
    },
    Wake,
    /// A result nobody waits for.
    Ignored,
}

/// A send and the headers the kernel reads while it runs.
struct Sending {
    socket: SocketId,
    parts: Vec<Buf>,
    vectors: Vec<libc::iovec>,
    header: libc::msghdr,
    zero_copy: bool,
    sent: u32,
    total: u32,
    /// Zero copy: notices that the memory is free, still to come.
    notices: u32,
    /// The completion was delivered.
    told: bool,
}

struct Slot {
    generation: u32,
    token: Token,
    pending: Option<Pending>,
}

struct Socket {
    fd: OwnedFd,
    outstanding: u32,
    /// Being closed, and whom to tell when nothing is outstanding any more.
    closing: Option<Token>,
}

/// The ring of one core.
pub struct RingBackend {
    ring: IoUring,
    features: RingFeatures,
    slots: Vec<Slot>,
    free: Vec<u32>,
    in_flight: usize,
    sockets: Vec<Option<Socket>>,
    free_sockets: Vec<u32>,
    files: Vec<Option<FileHandle>>,
    free_files: Vec<u32>,
    /// Entries for the kernel; true: linked to the next.
    backlog: VecDeque<(squeue::Entry, bool)>,
    done: VecDeque<Completion>,
    /// Slots of receives that found no provided buffer; asked again at the next enter.
    starved: Vec<u32>,
    /// Closes that are done; told after the last operation of their socket.
    closed: Vec<Token>,
    provided: Option<Rc<ProvidedRing>>,
    pool: Pool,
    bell: Doorbell,
    bell_buffer: Box<[u8; 8]>,
    /// The kernel may write to `bell_buffer`.
    bell_watched: bool,
    /// Being dropped: nothing is asked again.
    ending: bool,
    file_thread: Option<Aside>,
    /// Made when the first computation is asked for.
    work_thread: Option<Aside>,
    results: mpsc::Sender<(Token, JobOutput)>,
    job_results: mpsc::Receiver<(Token, JobOutput)>,
    jobs_out: usize,
    /// Of `jobs_out`, those that nobody asked for.
    populating: usize,
}

impl RingBackend {
    /// Sets a ring up, with as many of the wanted features as this kernel and these limits give.
    ///
    /// # Errors
    /// [`RingError`] when there can be no ring at all.
    pub fn new(options: RingOptions) -> Result<RingBackend, RingError> {
        let mut features = options.features;
        let ring = setup(&mut features)?;
        let mut probe = Probe::new();
        ring.submitter().register_probe(&mut probe)?;
        features.zero_copy &= probe.is_supported(opcode::SendMsgZc::CODE);
        let workers = ring.submitter().register_iowq_max_workers(&mut [WORKERS_MAX, WORKERS_MAX]);
        if let Err(error) = workers {
            tracing::debug!(%error, "the number of io-wq workers stays as the kernel has it");
        }
        let provided =
            if features.provided_buffers { ProvidedRing::new(&ring).ok().map(Rc::new) } else { None };
        features.provided_buffers = provided.is_some();
        let bell = Doorbell::new()?;
        let (results, job_results) = mpsc::channel();
        let file_thread = Aside::start("files", results.clone(), bell.clone(), || {})?;
        let mut backend = RingBackend {
            ring,
            features,
            slots: Vec::new(),
            free: Vec::new(),
            in_flight: 0,
            sockets: Vec::new(),
            free_sockets: Vec::new(),
            files: Vec::new(),
            free_files: Vec::new(),
            backlog: VecDeque::new(),
            done: VecDeque::new(),
            starved: Vec::new(),
            closed: Vec::new(),
            provided,
            pool: Pool::new(options.pool_limit_bytes),
            bell,
            bell_buffer: Box::new([0; 8]),
            bell_watched: false,
            ending: false,
            file_thread: Some(file_thread),
            work_thread: None,
            results,
            job_results,
            jobs_out: 0,
            populating: 0,
        };
        backend.watch_bell();
        Ok(backend)
    }

    /// What is used and what is done without.
    pub fn features(&self) -> RingFeatures {
        self.features
    }

    /// Work that the threads beside have not finished, the ring's own included.
    pub fn jobs_out(&self) -> usize {
        self.jobs_out
    }

    /// Takes over a listening socket (made with `SO_REUSEPORT` where several cores share an address).
    pub fn add_listener(&mut self, listener: TcpListener) -> SocketId {
        self.add_socket(OwnedFd::from(listener))
    }

    /// Takes over a connected socket, for the side that connects.
    pub fn add_connection(&mut self, stream: TcpStream) -> SocketId {
        self.add_socket(OwnedFd::from(stream))
    }

    fn add_socket(&mut self, fd: OwnedFd) -> SocketId {
        let socket = Some(Socket { fd, outstanding: 0, closing: None });
        let at = self.free_sockets.pop().unwrap_or_else(|| {
            self.sockets.push(None);
            self.sockets.len() as u32 - 1
        });
        if let Some(place) = self.sockets.get_mut(at as usize) {
            *place = socket;
        }
        SocketId(at)
    }

    fn socket_fd(&self, socket: SocketId) -> Option<RawFd> {
        self.sockets
            .get(socket.0 as usize)?
            .as_ref()
            .filter(|s| s.closing.is_none())
            .map(|s| s.fd.as_raw_fd())
    }

    fn file(&self, file: FileId) -> Option<FileHandle> {
        self.files.get(file.0 as usize)?.clone()
    }

    fn insert(&mut self, token: Token, pending: Pending) -> u32 {
        if let Some(socket) = socket_of(&pending)
            && let Some(Some(socket)) = self.sockets.get_mut(socket.0 as usize)
        {
            socket.outstanding += 1;
        }
        self.in_flight += 1;
        let at = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { generation: 0, token, pending: None });
            self.slots.len() as u32 - 1
        });
        if let Some(slot) = self.slots.get_mut(at as usize) {
            slot.generation = (slot.generation + 1) & 0x3fff_ffff;
            slot.token = token;
            slot.pending = Some(pending);
        }
        at
    }

    /// 30 bits of generation, 32 of slot, 2 of which part of the operation.
    fn user_data(&self, at: u32, part: u64) -> u64 {
        let generation = self.slots.get(at as usize).map_or(0, |s| s.generation);
        u64::from(generation) << 34 | u64::from(at) << 2 | part
    }

    fn remove(&mut self, at: u32) -> Option<(Token, Pending)> {
        let slot = self.slots.get_mut(at as usize)?;
        let pending = slot.pending.take()?;
        let token = slot.token;
        self.free.push(at);
        self.in_flight -= 1;
        if let Some(id) = socket_of(&pending)
            && let Some(Some(socket)) = self.sockets.get_mut(id.0 as usize)
        {
            socket.outstanding -= 1;
            if socket.outstanding == 0
                && let Some(token) = socket.closing
            {
                self.closed.push(token);
                self.drop_socket(id);
            }
        }
        Some((token, pending))
    }

    fn drop_socket(&mut self, id: SocketId) {
        if let Some(place) = self.sockets.get_mut(id.0 as usize)
            && place.take().is_some()
        {
            self.free_sockets.push(id.0);
        }
    }

    fn queue(&mut self, entry: squeue::Entry) {
        self.backlog.push_back((entry, false));
    }

    fn fail(&mut self, token: Token, errno: Errno, payload: Payload) {
        self.done.push_back(Completion { token, result: Err(errno), payload, more: false });
    }

    fn watch_bell(&mut self) {
        if self.ending {
            return;
        }
        self.bell_watched = true;
        let at = self.insert(Token(0), Pending::Wake);
        let data = self.user_data(at, 0);
        let entry =
            opcode::Read::new(types::Fd(self.bell.as_raw_fd()), self.bell_buffer.as_mut_ptr(), 8).build();
        self.in_flight -= 1;
        self.queue(entry.user_data(data));
    }

    fn start_accept(&mut self, listener: SocketId, token: Token) {
        let Some(fd) = self.socket_fd(listener) else {
            return self.fail(token, Errno::CANCELED, Payload::None);
        };
        let at = self.insert(token, Pending::Accept { listener });
        let data = self.user_data(at, 0);
        let entry = if self.features.multishot_accept {
            opcode::AcceptMulti::new(types::Fd(fd)).flags(libc::SOCK_CLOEXEC).build()
        } else {
            opcode::Accept::new(types::Fd(fd), std::ptr::null_mut(), std::ptr::null_mut())
                .flags(libc::SOCK_CLOEXEC)
                .build()
        };
        self.queue(entry.user_data(data));
    }

    fn start_recv(&mut self, socket: SocketId, token: Token) {
        let Some(fd) = self.socket_fd(socket) else {
            return self.fail(token, Errno::CANCELED, Payload::None);
        };
        if self.provided.is_some() {
            let at = self.insert(token, Pending::Recv { socket });
            self.push_recv(at, fd);
        } else {
            let at = self.insert(token, Pending::RecvPoll { socket });
            let data = self.user_data(at, 0);
            self.queue(opcode::PollAdd::new(types::Fd(fd), libc::POLLIN as u32).build().user_data(data));
        }
    }

    fn push_recv(&mut self, at: u32, fd: RawFd) {
        let data = self.user_data(at, 0);
        let entry = opcode::Recv::new(types::Fd(fd), std::ptr::null_mut(), RECV_BYTES as u32)
            .buf_group(crate::provided::GROUP)
            .build()
            .flags(squeue::Flags::BUFFER_SELECT);
        self.queue(entry.user_data(data));
    }

    /// Asks again for the receives that found no buffer, and ends those whose socket is being closed.
    fn feed_starved(&mut self) {
        for at in std::mem::take(&mut self.starved) {
            let socket = match self.slots.get(at as usize).and_then(|s| s.pending.as_ref()) {
                Some(Pending::Recv { socket }) => *socket,
                _ => continue,
            };
            match self.socket_fd(socket) {
                Some(fd) if !self.ending => self.push_recv(at, fd),
                Some(_) | None => {
                    if let Some((token, _)) = self.remove(at) {
                        self.fail(token, Errno::CANCELED, Payload::None);
                    }
                }
            }
        }
        self.tell_closed();
    }

    fn tell_closed(&mut self) {
        for token in self.closed.drain(..) {
            self.done.push_back(Completion { token, result: Ok(0), payload: Payload::None, more: false });
        }
    }

    fn start_recv_into(&mut self, socket: SocketId, token: Token, buf: BufMut, fill_to: usize) {
        if self.socket_fd(socket).is_none() {
            return self.fail(token, Errno::CANCELED, Payload::BufMut(buf));
        }
        let at = self.insert(token, Pending::RecvInto { socket, buf, fill_to, got: 0 });
        self.push_recv_into(at);
    }

    fn push_recv_into(&mut self, at: u32) {
        let data = self.user_data(at, 0);
        let fd = match self.slots.get(at as usize).and_then(|s| s.pending.as_ref()) {
            Some(Pending::RecvInto { socket, .. }) => {
                self.sockets.get(socket.0 as usize).and_then(|s| s.as_ref()).map(|s| s.fd.as_raw_fd())
            }
            _ => None,
        };
        let Some(Slot { pending: Some(Pending::RecvInto { buf, fill_to, .. }), .. }) =
            self.slots.get_mut(at as usize)
        else {
            return;
        };
        let (from, room) = (buf.len(), fill_to.saturating_sub(buf.len()));
        let Some(spare) = buf.as_mut_full().get_mut(from..from + room) else { return };
        let entry = opcode::Recv::new(types::Fd(fd.unwrap_or(-1)), spare.as_mut_ptr(), spare.len() as u32)
            .flags(libc::MSG_WAITALL)
            .build();
        self.queue(entry.user_data(data));
    }

    fn start_send(&mut self, socket: SocketId, token: Token, parts: Vec<Buf>, zero_copy: bool) {
        if self.socket_fd(socket).is_none() {
            return self.fail(token, Errno::CANCELED, Payload::None);
        }
        let total = parts.iter().map(|p| p.len() as u32).sum();
        // SAFETY: msghdr is plain data for which all zeros means "nothing"; the vectors are set before each submission.
        let header = unsafe { std::mem::zeroed() };
        let zero_copy = zero_copy && self.features.zero_copy;
        let sending = Sending {
            socket,
            parts,
            vectors: Vec::new(),
            header,
            zero_copy,
            sent: 0,
            total,
            notices: 0,
            told: false,
        };
        let at = self.insert(token, Pending::Send(Box::new(sending)));
        self.push_send(at);
    }

    /// (Re)submits what of a send is left.
    fn push_send(&mut self, at: u32) {
        let data = self.user_data(at, 0);
        let fd = match self.slots.get(at as usize).and_then(|s| s.pending.as_ref()) {
            Some(Pending::Send(sending)) => self
                .sockets
                .get(sending.socket.0 as usize)
                .and_then(|s| s.as_ref())
                .map_or(-1, |s| s.fd.as_raw_fd()),
            _ => return,
        };
        let Some(Slot { pending: Some(Pending::Send(sending)), .. }) = self.slots.get_mut(at as usize) else {
            return;
        };
        let flags = libc::MSG_NOSIGNAL | libc::MSG_WAITALL;
        if let [only] = sending.parts.as_slice()
            && !sending.zero_copy
        {
            let rest = only.get(sending.sent as usize..).unwrap_or_default();
            let entry =
                opcode::Send::new(types::Fd(fd), rest.as_ptr(), rest.len() as u32).flags(flags).build();
            return self.queue(entry.user_data(data));
        }
        sending.vectors.clear();
        let mut skip = sending.sent as usize;
        for part in &sending.parts {
            let rest = part.get(skip.min(part.len())..).unwrap_or_default();
            skip = skip.saturating_sub(part.len());
            if sending.vectors.len() == VECTORS_MAX {
                break;
            }
            if !rest.is_empty() {
                sending
                    .vectors
                    .push(libc::iovec { iov_base: rest.as_ptr().cast_mut().cast(), iov_len: rest.len() });
            }
        }
        sending.header.msg_iov = sending.vectors.as_mut_ptr();
        sending.header.msg_iovlen = sending.vectors.len();
        let header = &raw const sending.header;
        let entry = if sending.zero_copy {
            opcode::SendMsgZc::new(types::Fd(fd), header).flags(flags as u32).build()
        } else {
            opcode::SendMsg::new(types::Fd(fd), header).flags(flags as u32).build()
        };
        self.queue(entry.user_data(data));
    }

    fn start_write(&mut self, file: FileId, token: Token, buf: Buf, offset: u64, flush: Flush) {
        let Some(file) = self.file(file) else { return self.fail(token, Errno::IO, Payload::None) };
        let (fd, start, len) = (file.raw_fd(), buf.as_ptr(), buf.len());
        let linked = flush == Flush::Linked;
        let at = self.insert(token, Pending::Write { _buf: buf, _file: file, len });
        let mut write = opcode::Write::new(types::Fd(fd), start, len as u32).offset(offset);
        if flush == Flush::Dsync {
            write = write.rw_flags(libc::RWF_DSYNC);
        }
        let write = write.build().user_data(self.user_data(at, 0));
        if linked {
            // The pair completes once: a write that is done leaves that to its flush, and one that fails takes the flush's
            // completion along. The owner of the ring sleeps on in between, and the flush's worker need not wait for it.
            let flags = squeue::Flags::IO_LINK | squeue::Flags::SKIP_SUCCESS;
            self.backlog.push_back((write.flags(flags), true));
            let sync = opcode::Fsync::new(types::Fd(fd)).flags(types::FsyncFlags::DATASYNC).build();
            let data = self.user_data(at, 1);
            self.queue(sync.user_data(data));
        } else {
            self.queue(write);
        }
    }

    fn start_sync(&mut self, file: FileId, token: Token) {
        let Some(file) = self.file(file) else { return self.fail(token, Errno::IO, Payload::None) };
        let fd = file.raw_fd();
        let at = self.insert(token, Pending::Sync { _file: file });
        let sync = opcode::Fsync::new(types::Fd(fd)).flags(types::FsyncFlags::DATASYNC).build();
        let data = self.user_data(at, 0);
        self.queue(sync.user_data(data));
    }

    fn start_read(&mut self, file: FileId, token: Token, buf: BufMut, offset: u64, want: usize) {
        let Some(file) = self.file(file) else { return self.fail(token, Errno::IO, Payload::BufMut(buf)) };
        let want = want.min(buf.capacity());
        let at = self.insert(token, Pending::Read { buf, file, offset, want, got: 0 });
        self.push_read(at);
    }

    fn push_read(&mut self, at: u32) {
        let data = self.user_data(at, 0);
        let Some(Slot { pending: Some(Pending::Read { buf, file, offset, want, got }), .. }) =
            self.slots.get_mut(at as usize)
        else {
            return;
        };
        let (fd, offset, from) = (file.raw_fd(), *offset + *got as u64, *got);
        let Some(spare) = buf.as_mut_full().get_mut(from..*want) else { return };
        let entry =
            opcode::Read::new(types::Fd(fd), spare.as_mut_ptr(), spare.len() as u32).offset(offset).build();
        self.queue(entry.user_data(data));
    }

    fn start_close(&mut self, socket: SocketId, token: Token) {
        let Some(fd) = self.socket_fd(socket) else {
            return self.fail(token, Errno::CANCELED, Payload::None);
        };
        if let Some(Some(socket)) = self.sockets.get_mut(socket.0 as usize) {
            socket.closing = Some(token);
        }
        // Receives end by the shutdown; an accept only by being cancelled.
        // SAFETY: a system call on a descriptor that the table keeps open; a refusal (a listener) does not matter.
        unsafe { libc::shutdown(fd, libc::SHUT_RDWR) };
        let at = self.insert(token, Pending::Close { socket });
        let data = self.user_data(at, 0);
        let cancel = opcode::AsyncCancel2::new(types::CancelBuilder::fd(types::Fd(fd)).all()).build();
        self.queue(cancel.user_data(data));
    }

    /// Moves queued entries into the ring, linked ones together.
    fn fill(&mut self) {
        loop {
            let Some((_, linked)) = self.backlog.front() else { return };
            let need = if *linked { 2 } else { 1 };
            let mut queue = self.ring.submission();
            if queue.capacity() - queue.len() < need {
                drop(queue);
                // Full: hand over what is there. Both halves of a link go in the same submission.
                if self.ring.submit().is_err() {
                    return;
                }
                continue;
            }
            for _ in 0..need {
                if let Some((entry, _)) = self.backlog.pop_front() {
                    // SAFETY: every pointer in the entry is into memory that its slot owns until the completion is
                    // reaped: pooled regions, boxed headers, and vectors that are not touched meanwhile.
                    unsafe { queue.push(&entry) }.expect("room was checked");
                }
            }
        }
    }

    fn run_job(&mut self, token: Token, job: Job) {
        self.jobs_out += 1;
        self.file_thread.as_ref().expect("it ends with the backend").order(token, job);
    }

    fn run_work(&mut self, token: Token, work: Work) {
        let job: Job = Box::new(move |_| work());
        if self.work_thread.is_none() {
            let started = Aside::start("work", self.results.clone(), self.bell.clone(), leave_the_cores_cpu);
            match started {
                Ok(thread) => self.work_thread = Some(thread),
                // Late files are better than no answer.
                Err(error) => tracing::warn!(%error, "no thread for computations; the file thread does them"),
            }
        }
        match &self.work_thread {
            Some(thread) => {
                self.jobs_out += 1;
                thread.order(token, job);
            }
            None => self.run_job(token, job),
        }
    }

    /// Memory that will be wanted soon gets its pages while nobody waits for them.
    fn populate_ahead(&mut self) {
        if let Some(fresh) = self.pool.take_order() {
            let job = move |_: &dyn Fs| -> JobOutput {
                fresh.populate();
                Box::new(fresh)
            };
            self.populating += 1;
            self.run_job(POPULATED, Box::new(job));
        }
    }

    /// Submits, and waits for one completion or the deadline.
    fn enter_kernel(&mut self, wait: Option<u64>) {
        let result = match wait {
            Some(nanos) => {
                let span =
                    types::Timespec::new().sec(nanos / 1_000_000_000).nsec((nanos % 1_000_000_000) as u32);
                let arguments = types::SubmitArgs::new().timespec(&span);
                self.ring.submitter().submit_with_args(1, &arguments)
            }
            None => self.ring.submit_and_wait(1),
        };
        if let Err(error) = result {
            match error.raw_os_error() {
                // Time is up, a signal came, or completions must be taken first.
                Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN) => {}
                _ => panic!("io_uring_enter failed: {error}"),
            }
        }
    }

    /// Submits, and runs what has completed already, without waiting.
    fn poll_kernel(&mut self) {
        let queue = self.ring.submission();
        let queued = queue.len() as u32;
        if queued == 0 && !queue.taskrun() && !queue.cq_overflow() {
            // Whatever completed is in the completion queue already.
            return;
        }
        drop(queue);
        const GETEVENTS: u32 = 1;
        // SAFETY: no signal mask is passed; the queued entries are sound as in `fill`.
        let result = unsafe { self.ring.submitter().enter::<libc::sigset_t>(queued, 0, GETEVENTS, None) };
        if let Err(error) = result {
            match error.raw_os_error() {
                Some(libc::EINTR | libc::EBUSY | libc::EAGAIN) => {}
                _ => panic!("io_uring_enter failed: {error}"),
            }
        }
    }
}

fn socket_of(pending: &Pending) -> Option<SocketId> {
    match pending {
        Pending::Accept { listener } => Some(*listener),
        Pending::Recv { socket }
        | Pending::RecvPoll { socket }
        | Pending::RecvInto { socket, .. }
        | Pending::Close { socket } => Some(*socket),
        Pending::Send(sending) => Some(sending.socket),
        Pending::Write { .. }
        | Pending::Sync { .. }
        | Pending::Read { .. }
        | Pending::Wake
        | Pending::Ignored => None,
    }
}

impl Backend for RingBackend {
    fn now_ns(&self) -> u64 {
        monotonic_ns()
    }

    fn wall_ms(&self) -> i64 {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        now.map_or(0, |d| d.as_millis() as i64)
    }

    fn push(&mut self, op: Op, token: Token) {
        match op {
            Op::Accept { listener } => self.start_accept(listener, token),
            Op::Recv { socket } => self.start_recv(socket, token),
            Op::RecvInto { socket, buf, fill_to } => self.start_recv_into(socket, token, buf, fill_to),
            Op::Send { socket, parts, zero_copy } => self.start_send(socket, token, parts, zero_copy),
            Op::Close { socket } => self.start_close(socket, token),
            Op::Write { file, buf, offset, flush } => self.start_write(file, token, buf, offset, flush),
            Op::Sync { file } => self.start_sync(file, token),
            Op::Read { file, buf, offset, len } => self.start_read(file, token, buf, offset, len),
            Op::Run { job } => self.run_job(token, job),
            Op::Work { work } => self.run_work(token, work),
        }
    }

    fn enter(&mut self, until_ns: Option<u64>) {
        self.feed_starved();
        self.populate_ahead();
        self.fill();
        self.take_job_results();
        let now = if until_ns.is_some() { monotonic_ns() } else { 0 };
        let wait = until_ns.map(|until| until.saturating_sub(now));
        let idle = self.done.is_empty() && self.ring.completion().is_empty() && wait != Some(0);
        if idle && self.bell.arm() {
            self.enter_kernel(wait);
            self.bell.disarm();
        } else {
            self.poll_kernel();
        }
        self.reap();
        self.take_job_results();
    }

    fn submits(&self) -> bool {
        !self.backlog.is_empty()
    }

    fn pop(&mut self) -> Option<Completion> {
        self.done.pop_front()
    }

    fn in_flight(&self) -> usize {
        self.in_flight + self.jobs_out - self.populating
    }

    fn pool(&self) -> &Pool {
        &self.pool
    }

    fn attach_file(&mut self, file: FileHandle) -> FileId {
        let at = self.free_files.pop().unwrap_or_else(|| {
            self.files.push(None);
            self.files.len() as u32 - 1
        });
        if let Some(place) = self.files.get_mut(at as usize) {
            *place = Some(file);
        }
        FileId(at)
    }

    fn detach_file(&mut self, file: FileId) {
        // Operations on it hold the file themselves.
        if let Some(place) = self.files.get_mut(file.0 as usize)
            && place.take().is_some()
        {
            self.free_files.push(file.0);
        }
    }

    fn adopt_socket(&mut self, socket: MovedSocket) -> SocketId {
        match socket.0 {
            MovedInner::Os(fd) => self.add_socket(fd),
            MovedInner::Sim(_) => panic!("a simulated socket on a real ring"),
        }
    }

    fn release_socket(&mut self, socket: SocketId) -> Option<MovedSocket> {
        let place = self.sockets.get_mut(socket.0 as usize)?;
        if place.as_ref().is_none_or(|s| s.outstanding > 0 || s.closing.is_some()) {
            return None;
        }
        let socket_fd = place.take()?.fd;
        self.free_sockets.push(socket.0);
        Some(MovedSocket(MovedInner::Os(socket_fd)))
    }

    fn waker(&self) -> Waker {
        Waker(Arc::new(self.bell.clone()))
    }

    fn fs(&self) -> &dyn Fs {
        &StdFs
    }
}

impl Drop for RingBackend {
    /// Buffers must outlive the kernel's use of them: cancel everything, then wait for the completions.
    fn drop(&mut self) {
        self.ending = true;
        self.feed_starved();
        for thread in [self.file_thread.take(), self.work_thread.take()].into_iter().flatten() {
            thread.end();
        }
        let cancel = opcode::AsyncCancel2::new(types::CancelBuilder::any()).build();
        let at = self.insert(Token(0), Pending::Ignored);
        let data = self.user_data(at, 0);
        self.queue(cancel.user_data(data));
        self.fill();
        let mut tries = 0;
        while (self.in_flight > 0 || self.bell_watched) && tries < END_TRIES_MAX {
            tries += 1;
            self.fill();
            self.enter_kernel(Some(END_WAIT_NS));
            self.reap();
            self.feed_starved();
            self.done.clear();
        }
        if self.bell_watched {
            std::mem::forget(std::mem::replace(&mut self.bell_buffer, Box::new([0; 8])));
        }
        if self.in_flight > 0
            && let Some(provided) = &self.provided
        {
            std::mem::forget(provided.clone());
        }
        if self.in_flight > 0 {
            // Better to lose the memory than to let the kernel write into what is reused.
            for slot in &mut self.slots {
                std::mem::forget(slot.pending.take());
            }
        }
    }
}

/// A thread inherits the CPU its maker is pinned to, and would compute exactly where the core wants to run.
fn leave_the_cores_cpu() {
    if let Err(error) = thread::pin(&thread::process_cpus()) {
        tracing::debug!(%error, "computations stay on the core's CPU");
    }
}
