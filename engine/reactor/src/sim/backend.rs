//! One simulated core's [`Backend`].

use super::fs::{SimFs, node_of};
use super::net::{Listener, ListenerId};
use super::world::{CoreSide, OpState, PendingOp, SimWorld, Transfer, World};
use crate::buffer::Pool;
use crate::fs::{FileHandle, Fs};
use crate::op::{
    Backend, Completion, Errno, FileId, MovedInner, MovedSocket, Op, Payload, SocketId, Token, Waker,
};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::atomic::Ordering;

/// 2023-11-14: where the wall clock of every world begins, milliseconds.
const WALL_START_MS: i64 = 1_700_000_000_000;

/// A core's way to the simulated world. [`Backend::enter`] never waits: it starts what was pushed and notes the
/// deadline; whoever drives the world turns the core again when there is a reason.
pub struct SimBackend {
    world: Rc<RefCell<World>>,
    core: usize,
    pool: Pool,
    fs: SimFs,
    files: Vec<Option<FileHandle>>,
    pushed: Vec<(Op, Token)>,
}

impl SimWorld {
    /// A core of the present life; its number is for [`SimWorld::is_runnable`].
    pub fn add_core(&self) -> (usize, SimBackend) {
        let mut world = self.world.borrow_mut();
        let core = world.cores.len();
        let deadline_ns = world.now_ns;
        world.cores.push(CoreSide {
            ready: VecDeque::new(),
            woken: Default::default(),
            deadline_ns,
            in_flight: 0,
            jobs_until_ns: 0,
            restless: 0,
        });
        let pool = Pool::new(world.options.pool_bytes);
        let fs = world.fs.clone();
        let world = self.world.clone();
        (core, SimBackend { world, core, pool, fs, files: Vec::new(), pushed: Vec::new() })
    }
}

impl SimBackend {
    /// A listener of this core, for it to accept on and for clients to connect to.
    pub fn listen(&mut self) -> (SocketId, ListenerId) {
        let mut world = self.world.borrow_mut();
        let id = world.id();
        world.listeners.insert(id, Listener { accept: None, waiting: VecDeque::new() });
        (SocketId(id as u32), ListenerId(id))
    }

    fn node(&self, file: FileId) -> Option<u64> {
        let handle = self.files.get(file.0 as usize)?.as_ref()?;
        let (node, life) = node_of(handle);
        (life == self.fs.lock().life).then_some(node)
    }

    fn start(&mut self, op: Op, token: Token) {
        let core = self.core;
        let node = match &op {
            Op::Write { file, .. } | Op::Sync { file } | Op::Read { file, .. } => self.node(*file),
            _ => None,
        };
        let mut world = self.world.borrow_mut();
        let world = &mut *world;
        let id = world.id();
        let insert = |world: &mut World, state| {
            world.ops.insert(id, PendingOp { core, token, state });
        };
        if let Some(side) = world.cores.get_mut(core) {
            side.in_flight += 1;
        }
        match (op, node) {
            (Op::Write { buf, offset, flush, .. }, Some(file)) => {
                let covered = world.disk().coverable(file);
                let write = world.disk().begin_write(file, buf.to_vec().into(), offset);
                let buf = Transfer::new(buf, world.options.release_early);
                insert(world, OpState::Write { file, buf, write, flush, covered });
                world.after_disk(id);
            }
            (Op::Sync { .. }, Some(file)) => {
                let covered = world.disk().coverable(file);
                insert(world, OpState::Flush { file, covered, bytes: 0 });
                world.after_disk(id);
            }
            (Op::Read { buf, offset, len, .. }, Some(file)) => {
                insert(world, OpState::Read { file, buf, offset, len });
                world.after_disk(id);
            }
            (Op::Write { .. } | Op::Sync { .. }, None) => {
                insert(world, OpState::Done { result: 0 });
                world.finish(id, Err(Errno(libc::EBADF)), Payload::None);
            }
            (Op::Read { buf, .. }, None) => {
                insert(world, OpState::Done { result: 0 });
                world.finish(id, Err(Errno(libc::EBADF)), Payload::BufMut(buf));
            }
            (Op::Run { job }, _) => {
                insert(world, OpState::Run { job });
                world.after_jobs(core, id);
            }
            // In the same line as files, so that work ends in its order.
            (Op::Work { work }, _) => {
                insert(world, OpState::Run { job: Box::new(move |_| work()) });
                world.after_jobs(core, id);
            }
            (op, _) => start_socket(world, id, core, op, token),
        }
    }
}

fn start_socket(world: &mut World, id: u64, core: usize, op: Op, token: Token) {
    let release_early = world.options.release_early;
    let mut insert = |state| {
        world.ops.insert(id, PendingOp { core, token, state });
    };
    match op {
        Op::Accept { listener } => {
            insert(OpState::Accept);
            let listener = u64::from(listener.0);
            match world.listeners.get_mut(&listener) {
                Some(place) => {
                    place.accept = Some(id);
                    world.try_accept(listener);
                }
                None => world.finish(id, Err(Errno(libc::EBADF)), Payload::None),
            }
        }
        Op::Recv { socket } => {
            insert(OpState::Recv);
            receive(world, id, socket);
        }
        Op::RecvInto { socket, buf, fill_to } => {
            insert(OpState::RecvInto { buf, fill_to, got: 0 });
            receive(world, id, socket);
        }
        Op::Send { socket, parts, .. } => {
            let bytes: Vec<u8> = parts.iter().flat_map(|p| p.iter().copied()).collect();
            let parts = parts.into_iter().map(|p| Transfer::new(p, release_early)).collect();
            insert(OpState::Send { parts });
            let socket = u64::from(socket.0);
            match world.sockets.get_mut(&socket) {
                Some(this) if !this.reset => {
                    assert!(this.send.is_none(), "one send at a time on a socket");
                    this.send = Some(id);
                    world.send(socket, &bytes);
                }
                Some(_) | None => world.finish(id, Err(Errno::CONNECTION_RESET), Payload::None),
            }
        }
        Op::Close { socket } => {
            insert(OpState::Done { result: 0 });
            let socket = u64::from(socket.0);
            match world.listeners.remove(&socket) {
                Some(listener) => {
                    if let Some(accept) = listener.accept {
                        world.finish(accept, Err(Errno::CANCELED), Payload::None);
                    }
                }
                None => world.close_end(socket),
            }
            world.finish(id, Ok(0), Payload::None);
        }
        Op::Write { .. } | Op::Sync { .. } | Op::Read { .. } | Op::Run { .. } | Op::Work { .. } => {
            unreachable!("disk operations were started by the caller")
        }
    }
}

fn receive(world: &mut World, id: u64, socket: SocketId) {
    let socket = u64::from(socket.0);
    match world.sockets.get_mut(&socket) {
        Some(this) => {
            assert!(this.recv.is_none(), "one receive at a time on a socket");
            this.recv = Some(id);
            world.try_receive(socket);
        }
        None => world.finish(id, Err(Errno(libc::EBADF)), Payload::None),
    }
}

impl Backend for SimBackend {
    fn now_ns(&self) -> u64 {
        self.world.borrow().now_ns
    }

    fn wall_ms(&self) -> i64 {
        let world = self.world.borrow();
        WALL_START_MS + (world.now_ns / 1_000_000) as i64 + world.wall_skew_ms
    }

    fn push(&mut self, op: Op, token: Token) {
        self.pushed.push((op, token));
    }

    fn enter(&mut self, until_ns: Option<u64>) {
        for (op, token) in std::mem::take(&mut self.pushed) {
            self.start(op, token);
        }
        let mut world = self.world.borrow_mut();
        let now_ns = world.now_ns;
        if let Some(side) = world.cores.get_mut(self.core) {
            side.deadline_ns = until_ns.unwrap_or(u64::MAX);
            side.restless = if side.deadline_ns <= now_ns { side.restless + 1 } else { 0 };
            side.woken.0.store(false, Ordering::SeqCst);
        }
    }

    /// Nothing blocks here.
    fn submits(&self) -> bool {
        false
    }

    fn pop(&mut self) -> Option<Completion> {
        self.world.borrow_mut().cores.get_mut(self.core)?.ready.pop_front()
    }

    fn in_flight(&self) -> usize {
        self.pushed.len() + self.world.borrow().cores.get(self.core).map_or(0, |side| side.in_flight)
    }

    fn pool(&self) -> &Pool {
        &self.pool
    }

    fn attach_file(&mut self, file: FileHandle) -> FileId {
        self.files.push(Some(file));
        FileId(self.files.len() as u32 - 1)
    }

    fn detach_file(&mut self, file: FileId) {
        // What was pushed before still names the file by its number.
        for (op, token) in std::mem::take(&mut self.pushed) {
            self.start(op, token);
        }
        if let Some(place) = self.files.get_mut(file.0 as usize) {
            *place = None;
        }
    }

    fn adopt_socket(&mut self, socket: MovedSocket) -> SocketId {
        match socket.0 {
            MovedInner::Sim(id) => SocketId(id as u32),
            MovedInner::Os(_) => panic!("a real socket in a simulation"),
        }
    }

    fn release_socket(&mut self, socket: SocketId) -> Option<MovedSocket> {
        let id = u64::from(socket.0);
        let world = self.world.borrow();
        let this = world.sockets.get(&id)?;
        (this.recv.is_none() && this.send.is_none()).then_some(MovedSocket(MovedInner::Sim(id)))
    }

    fn waker(&self) -> Waker {
        let world = self.world.borrow();
        Waker(world.cores.get(self.core).expect("added by add_core").woken.clone())
    }

    fn fs(&self) -> &dyn Fs {
        &self.fs
    }
}
