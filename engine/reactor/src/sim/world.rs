//! The clock, the queue of events, and what happens when one is due.

use super::disk::{Disk, DiskFaults};
use super::fs::SimFs;
use super::net::{Listener, Socket};
use super::rng::SimRng;
use crate::buffer::{Buf, BufMut, Stale};
use crate::op::{Completion, Errno, Flush, Job, Payload, Token, Wake};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How a simulated world behaves. Times in microseconds, chances in a million.
#[derive(Clone, Copy, Debug)]
pub struct SimOptions {
    pub disk_us: (u64, u64),
    pub net_us: (u64, u64),
    /// Chance that a disk operation takes [`SimOptions::stall_us`] instead.
    pub stall_ppm: u32,
    pub stall_us: u64,
    pub segment_bytes_max: u64,
    /// Bytes a sender may have on their way or unread at the other end.
    pub window_bytes: usize,
    pub disk_bytes: u64,
    pub pool_bytes: u64,
    /// Planted fault: buffers are let go when an operation starts, not when it ends.
    pub release_early: bool,
}

/// A buffer that an operation transfers, and what it held when the operation began.
pub(crate) struct Transfer {
    memory: Memory,
    checksum: u64,
}

enum Memory {
    Held(Buf),
    LetGo(Stale),
}

impl Transfer {
    pub fn new(buf: Buf, release_early: bool) -> Transfer {
        let checksum = checksum(&buf);
        let memory = match Stale::of(&buf).filter(|_| release_early) {
            Some(stale) => Memory::LetGo(stale),
            None => Memory::Held(buf),
        };
        Transfer { memory, checksum }
    }

    pub fn len(&self) -> usize {
        match &self.memory {
            Memory::Held(buf) => buf.len(),
            Memory::LetGo(stale) => stale.len(),
        }
    }

    /// Nobody wrote to it since the operation began.
    pub fn is_untouched(&self) -> bool {
        self.checksum
            == match &self.memory {
                Memory::Held(buf) => checksum(buf),
                Memory::LetGo(stale) => checksum(&stale.bytes()),
            }
    }
}

/// An operation after one step, and its result when that was the last.
type Stepped = (OpState, Option<(Result<u32, Errno>, Payload)>);

impl Default for SimOptions {
    fn default() -> SimOptions {
        SimOptions {
            disk_us: (20, 900),
            net_us: (10, 200),
            stall_ppm: 2_000,
            stall_us: 60_000,
            segment_bytes_max: 16 << 10,
            window_bytes: 64 << 10,
            disk_bytes: 1 << 30,
            pool_bytes: 256 << 20,
            release_early: false,
        }
    }
}

/// How a life of the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// kill -9: what the kernel and the device were given stays.
    Process,
    /// The machine goes dark: only what was flushed is sure.
    Power,
}

pub(crate) enum OpState {
    Write {
        file: u64,
        buf: Transfer,
        write: u64,
        flush: Flush,
        covered: BTreeSet<u64>,
    },
    /// The flush behind a linked write, or one of its own.
    Flush {
        file: u64,
        covered: BTreeSet<u64>,
        bytes: u32,
    },
    Read {
        file: u64,
        buf: BufMut,
        offset: u64,
        len: usize,
    },
    Run {
        job: Job,
    },
    Accept,
    Recv,
    RecvInto {
        buf: BufMut,
        fill_to: usize,
        got: u32,
    },
    Send {
        parts: Vec<Transfer>,
    },
    Done {
        result: u32,
    },
}

impl OpState {
    fn name(&self) -> &'static str {
        match self {
            OpState::Write { .. } => "write",
            OpState::Flush { .. } => "flush",
            OpState::Read { .. } => "read",
            OpState::Run { .. } => "job",
            OpState::Accept => "accept",
            OpState::Recv => "receive",
            OpState::RecvInto { .. } => "receive into",
            OpState::Send { .. } => "send",
            OpState::Done { .. } => "done",
        }
    }
}

pub(crate) struct PendingOp {
    pub core: usize,
    pub token: Token,
    pub state: OpState,
}

pub(crate) enum Event {
    Op(u64),
    Deliver { to: u64, bytes: Vec<u8> },
    End { to: u64 },
    Connect { listener: u64, socket: u64 },
}

pub(crate) struct CoreSide {
    pub ready: VecDeque<Completion>,
    pub woken: Arc<WakeFlag>,
    pub deadline_ns: u64,
    pub in_flight: usize,
    /// The file thread is busy until then.
    pub jobs_until_ns: u64,
    /// Turns in a row that ended with a deadline in the past.
    pub restless: u64,
}

#[derive(Default)]
pub(crate) struct WakeFlag(pub AtomicBool);

impl Wake for WakeFlag {
    fn wake(&self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

pub(crate) struct World {
    pub seed: u64,
    pub now_ns: u64,
    pub wall_skew_ms: i64,
    pub rng: SimRng,
    pub options: SimOptions,
    pub disk: Arc<Mutex<Disk>>,
    pub fs: SimFs,
    pub cores: Vec<CoreSide>,
    pub ops: BTreeMap<u64, PendingOp>,
    pub sockets: BTreeMap<u64, Socket>,
    pub listeners: BTreeMap<u64, Listener>,
    queue: BTreeMap<(u64, u64, u64), Event>,
    next_id: u64,
    life: u64,
    trace: u64,
}

fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

pub(crate) fn errno(error: &std::io::Error) -> Errno {
    Errno(error.raw_os_error().unwrap_or(libc::EIO))
}

impl World {
    pub fn id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    pub fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn note(&mut self, what: u64) {
        self.trace = (self.trace ^ what).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23);
    }

    /// At that time; events of one instant come in random order.
    pub fn schedule(&mut self, at_ns: u64, event: Event) {
        let (tie, id) = (self.rng.next_u64(), self.id());
        self.queue.insert((at_ns.max(self.now_ns), tie, id), event);
    }

    fn disk_ns(&mut self) -> u64 {
        let (low, high) = self.options.disk_us;
        let stall = self.rng.chance_ppm(self.options.stall_ppm);
        1000 * if stall { self.options.stall_us } else { self.rng.between(low, high) }
    }

    pub fn net_ns(&mut self) -> u64 {
        let (low, high) = self.options.net_us;
        1000 * self.rng.between(low, high)
    }

    pub fn after_disk(&mut self, op: u64) {
        let at = self.now_ns + self.disk_ns();
        self.schedule(at, Event::Op(op));
    }

    pub fn after_jobs(&mut self, core: usize, op: u64) {
        let took = self.disk_ns();
        let Some(side) = self.cores.get_mut(core) else { return };
        let at = side.jobs_until_ns.max(self.now_ns) + took;
        side.jobs_until_ns = at;
        self.schedule(at, Event::Op(op));
    }

    /// Ends an operation.
    pub fn finish(&mut self, op: u64, result: Result<u32, Errno>, payload: Payload) {
        let Some(pending) = self.ops.remove(&op) else { return };
        self.note(self.now_ns ^ pending.token.0 ^ u64::from(result.unwrap_or(u32::MAX)));
        if let Some(core) = self.cores.get_mut(pending.core) {
            core.in_flight -= 1;
            core.ready.push_back(Completion { token: pending.token, result, payload, more: false });
        }
    }

    fn run(&mut self, event: Event) {
        match event {
            Event::Op(op) => self.op_due(op),
            Event::Deliver { to, bytes } => self.delivered(to, bytes),
            Event::End { to } => self.ended(to),
            Event::Connect { listener, socket } => self.connected(listener, socket),
        }
    }

    fn op_due(&mut self, op: u64) {
        let Some(PendingOp { core, token, state }) = self.ops.remove(&op) else { return };
        let (next, outcome) = self.step_op(state);
        self.ops.insert(op, PendingOp { core, token, state: next });
        if let Some((result, payload)) = outcome {
            self.finish(op, result, payload);
        } else {
            self.after_disk(op);
        }
    }

    /// One stage of a disk operation: what stands now, and how it ended if it did.
    fn step_op(&mut self, state: OpState) -> Stepped {
        let over = OpState::Done { result: 0 };
        let ended = |result: Result<u32, Errno>| Some((result, Payload::None));
        match state {
            OpState::Write { file, buf, write, flush, mut covered } => {
                assert!(
                    buf.is_untouched(),
                    "seed {}: a buffer changed while its write was in flight",
                    self.seed
                );
                let bytes = buf.len() as u32;
                let landed = self.disk().land(write);
                match (landed, flush) {
                    (Err(error), _) => (over, ended(Err(errno(&error)))),
                    (Ok(_), Flush::None) => (over, ended(Ok(bytes))),
                    (Ok(change), Flush::Dsync) => {
                        let made = self.disk().make_durable(file, &BTreeSet::from([change]));
                        (over, ended(made.map(|()| bytes).map_err(|e| errno(&e))))
                    }
                    (Ok(change), Flush::Linked) => {
                        covered.insert(change);
                        (OpState::Flush { file, covered, bytes }, None)
                    }
                }
            }
            OpState::Flush { file, covered, bytes } => {
                let flushed = self.disk().flush(file, &covered);
                (over, ended(flushed.map(|()| bytes).map_err(|e| errno(&e))))
            }
            OpState::Read { file, mut buf, offset, len } => {
                let target = buf.as_mut_full().get_mut(..len).unwrap_or_default();
                let read = self.disk().read(file, target, offset);
                buf.set_len(read.as_ref().copied().unwrap_or(0));
                let result = read.map(|got| got as u32).map_err(|e| errno(&e));
                (over, Some((result, Payload::BufMut(buf))))
            }
            OpState::Run { job } => {
                let output = job(&self.fs);
                (over, Some((Ok(0), Payload::Job(output))))
            }
            OpState::Done { result } => (over, ended(Ok(result))),
            OpState::Accept | OpState::Recv | OpState::RecvInto { .. } | OpState::Send { .. } => {
                unreachable!("socket operations end with what arrives, not by time")
            }
        }
    }
}

/// A simulated world; clones are the same world.
#[derive(Clone)]
pub struct SimWorld {
    pub(crate) world: Rc<RefCell<World>>,
}

impl SimWorld {
    pub fn new(seed: u64, options: SimOptions) -> SimWorld {
        let mut rng = SimRng::new(seed);
        let disk = Arc::new(Mutex::new(Disk::new(rng.fork(), options.disk_bytes)));
        let world = World {
            seed,
            now_ns: 1_000_000_000,
            wall_skew_ms: 0,
            rng,
            options,
            fs: SimFs::new(disk.clone()),
            disk,
            cores: Vec::new(),
            ops: BTreeMap::new(),
            sockets: BTreeMap::new(),
            listeners: BTreeMap::new(),
            queue: BTreeMap::new(),
            next_id: 0,
            life: 0,
            trace: 0,
        };
        SimWorld { world: Rc::new(RefCell::new(world)) }
    }

    pub fn now_ns(&self) -> u64 {
        self.world.borrow().now_ns
    }

    /// Moves the wall clock, and it alone.
    pub fn jump_wall(&self, by_ms: i64) {
        self.world.borrow_mut().wall_skew_ms += by_ms;
    }

    /// Time that passes while a core works.
    pub fn spend(&self, ns: u64) {
        self.world.borrow_mut().now_ns += ns;
        self.run_due();
    }

    /// The file system as the present life sees it.
    pub fn fs(&self) -> SimFs {
        self.world.borrow().fs.clone()
    }

    pub fn set_disk_faults(&self, faults: DiskFaults) {
        self.world.borrow().disk().faults = faults;
    }

    pub fn set_disk_bytes(&self, capacity_bytes: u64) {
        self.world.borrow().disk().capacity_bytes = capacity_bytes;
    }

    /// EIO given so far.
    pub fn disk_errors(&self) -> u64 {
        self.world.borrow_mut().disk().errors
    }

    pub fn disk_used_bytes(&self) -> u64 {
        self.world.borrow().disk().used_bytes()
    }

    /// Files open now, and the most there ever were.
    pub fn open_files(&self) -> (usize, usize) {
        let world = self.world.borrow();
        let disk = world.disk();
        (disk.descriptors(), disk.descriptors_peak)
    }

    /// The limit on open files, of the whole machine.
    pub fn set_open_files_max(&self, most: usize) {
        self.world.borrow().disk().descriptors_max = most;
    }

    /// Cuts the power after this many file-system calls, in the middle of whatever makes them.
    pub fn set_fuse(&self, calls: Option<u64>) {
        self.world.borrow().disk().fuse = calls;
    }

    /// The fuse blew: nothing may be turned any more until [`SimWorld::end_life`].
    pub fn power_is_gone(&self) -> bool {
        let world = self.world.borrow();
        let life = world.disk().life;
        life != world.life
    }

    /// Something waits for this core: a completion, a wake-up, or its deadline.
    pub fn is_runnable(&self, core: usize) -> bool {
        let world = self.world.borrow();
        world.cores.get(core).is_some_and(|side| {
            !side.ready.is_empty() || side.woken.0.load(Ordering::SeqCst) || side.deadline_ns <= world.now_ns
        })
    }

    /// So many turns in a row did not want to sleep: a few are to go on with much work, many are a wait that burns a CPU.
    pub fn restless_turns(&self, core: usize) -> u64 {
        self.world.borrow().cores.get(core).map_or(0, |side| side.restless)
    }

    /// This core's thread has ended: nothing wakes it any more.
    pub fn retire_core(&self, core: usize) {
        if let Some(side) = self.world.borrow_mut().cores.get_mut(core) {
            side.ready.clear();
            side.deadline_ns = u64::MAX;
        }
    }

    fn run_due(&self) {
        let mut world = self.world.borrow_mut();
        let world = &mut *world;
        while let Some(entry) = world.queue.first_entry() {
            if entry.key().0 > world.now_ns {
                return;
            }
            let event = entry.remove();
            world.run(event);
        }
    }

    /// Moves the clock to the next event or deadline, at most to `until_ns`, and lets happen what is due.
    /// False when there was nothing before `until_ns`.
    pub fn advance(&self, until_ns: u64) -> bool {
        let next = {
            let world = self.world.borrow();
            let event = world.queue.keys().next().map(|key| key.0);
            event.into_iter().chain(world.cores.iter().map(|c| c.deadline_ns)).min().unwrap_or(u64::MAX)
        };
        {
            let mut world = self.world.borrow_mut();
            world.now_ns = world.now_ns.max(next.min(until_ns));
        }
        self.run_due();
        next <= until_ns
    }

    /// Ends the life of all cores. Their backends must be dropped; clients see a reset.
    pub fn end_life(&self, cut: Cut) {
        let mut world = self.world.borrow_mut();
        if world.disk().life == world.life {
            match cut {
                Cut::Process => world.disk().kill(),
                Cut::Power => world.disk().cut(),
            }
        }
        let life = world.disk().life;
        world.life = life;
        world.fs = SimFs::new(world.disk.clone());
        world.queue.clear();
        world.ops.clear();
        world.listeners.clear();
        for core in &mut world.cores {
            core.ready.clear();
            core.deadline_ns = u64::MAX;
            core.woken.0.store(false, Ordering::SeqCst);
        }
        world.lose_connections();
        world.note(0x00c0_ffee);
    }

    /// A hash of everything that happened so far, in order.
    pub fn trace_hash(&self) -> u64 {
        self.world.borrow().trace
    }

    /// What is under way, for the report of a run that does not end.
    pub fn describe(&self) -> String {
        let world = self.world.borrow();
        let ready: usize = world.cores.iter().map(|c| c.ready.len()).sum();
        let kinds: Vec<&str> = world.ops.values().map(|op| op.state.name()).collect();
        let next = world.queue.keys().next().map(|key| key.0);
        format!(
            "now {} ns, next event {next:?}, {ready} completions not taken, under way: {kinds:?}",
            world.now_ns
        )
    }

    /// Randomness for whoever drives the world.
    pub fn fork_rng(&self) -> SimRng {
        self.world.borrow_mut().rng.fork()
    }
}
