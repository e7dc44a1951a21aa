//! Producers with a connection each, driven by one ring.
//!
//! A turn: take what completed, make the records that are due, send what may be sent, sleep until something happens or
//! the next record is due. When a record can not be held (a broker that does not answer), it is made later but keeps
//! its intended time: its wait counts.

use crate::batch::{Batch, Values};
use crate::error::LoadError;
use crate::latency::Latency;
use crate::schedule::{Schedule, Times};
use crate::wire;
use ringmill_reactor::ring::{RingBackend, RingFeatures, RingOptions};
use ringmill_reactor::{Backend, Buf, Completion, Op, Payload, SocketId, Token};
use std::collections::VecDeque;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

const POOL_BYTES: u64 = 256 << 20;
/// Largest answer that is believed.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// A turn makes no more records than this before it looks at completions again.
const RECORDS_PER_TURN: u64 = 10_000;
const PROGRESS_NS: u64 = 200_000_000;
const CONNECT: Duration = Duration::from_secs(5);
const RECEIVE: u64 = 0;
const SEND: u64 = 1;

/// A partition and who leads it.
#[derive(Clone, Debug)]
pub struct Target {
    pub partition: i32,
    pub leader: SocketAddr,
}

/// What to send.
#[derive(Clone, Debug)]
pub struct Plan {
    pub topic: String,
    /// Batches go to these in turn.
    pub targets: Vec<Target>,
    pub schedule: Schedule,
    pub records: u64,
    /// Of these, the first that do not count.
    pub warmup: u64,
    pub record_bytes: usize,
    /// Producers, each with a connection to every leader; records go to them in turn.
    pub producers: usize,
    /// 0, 1 or -1.
    pub acks: i16,
    pub linger: Duration,
    /// A batch of this size leaves at once.
    pub batch_bytes: usize,
    /// Requests of one connection without an answer.
    pub in_flight_max: usize,
    /// No answer for this long ends the run.
    pub timeout: Duration,
    pub seed: u64,
}

/// What came of a run. Counts and times leave the warm-up out, but for `errors`.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Acked, or with acks 0 handed to the kernel.
    pub records: u64,
    pub bytes: u64,
    pub errors: u64,
    /// The code of the first one.
    pub first_error: Option<i16>,
    pub requests: u64,
    /// From the first intended time that counts to the last answer.
    pub elapsed: Duration,
    /// From when a record was meant to be sent.
    pub intended: Latency,
    /// From when its request was handed to the kernel.
    pub actual: Latency,
    /// CPU of this thread, warm-up included.
    pub cpu: Duration,
}

/// The state of a run, some times a second.
#[derive(Clone, Copy, Debug)]
pub struct Progress<'a> {
    pub done: u64,
    pub records: u64,
    pub outcome: &'a Outcome,
}

/// A request on its way.
struct InFlight {
    correlation: i32,
    sent_ns: u64,
    intended_ns: Vec<u64>,
    /// Number of its first record among all.
    first: u64,
}

struct Connection {
    socket: SocketId,
    partitions: Vec<i32>,
    /// Which of `partitions` the next batch goes to.
    turn: usize,
    open: Batch,
    /// Number of the first record of `open` among all, and when it came in.
    open_first: u64,
    open_since_ns: u64,
    in_flight: VecDeque<InFlight>,
    /// Sends that the kernel has not taken yet.
    sending: usize,
    received: Vec<u8>,
    next_correlation: i32,
}

struct Run<'p> {
    plan: &'p Plan,
    io: RingBackend,
    connections: Vec<Connection>,
    times: Times,
    next_due_ns: Option<u64>,
    values: Values,
    start_ns: u64,
    made: u64,
    done: u64,
    last_answer_ns: u64,
    first_counted_ns: Option<u64>,
    outcome: Outcome,
}

/// Runs a plan to its end, or to the first failure; what was measured comes back either way.
pub fn run(plan: &Plan, watch: &mut dyn FnMut(Progress<'_>)) -> (Outcome, Result<(), LoadError>) {
    let cpu = ringmill_reactor::thread::thread_cpu_ns();
    let mut run = match Run::open(plan) {
        Ok(run) => run,
        Err(error) => return (Outcome::default(), Err(error)),
    };
    let result = run.drive(watch);
    let first = run.first_counted_ns.unwrap_or(run.last_answer_ns);
    run.outcome.elapsed = Duration::from_nanos(run.last_answer_ns.saturating_sub(first));
    run.outcome.cpu = Duration::from_nanos(ringmill_reactor::thread::thread_cpu_ns() - cpu);
    (run.outcome, result)
}

fn check(plan: &Plan) -> Result<(), LoadError> {
    let problem = if plan.targets.is_empty() {
        "there is no partition to send to"
    } else if plan.records == 0 || plan.warmup >= plan.records {
        "the number of records must be above that of the warm-up"
    } else if plan.producers == 0 || plan.in_flight_max == 0 {
        "producers and requests in flight are at least 1"
    } else if !(-1..=1).contains(&plan.acks) {
        "acks are 0, 1 or -1"
    } else if plan.record_bytes > 16 << 20 || plan.batch_bytes > 64 << 20 {
        "records are at most 16 MiB, batches 64 MiB"
    } else {
        return Ok(());
    };
    Err(LoadError::Plan(problem.into()))
}

impl<'p> Run<'p> {
    fn open(plan: &'p Plan) -> Result<Run<'p>, LoadError> {
        check(plan)?;
        let options = RingOptions { pool_limit_bytes: POOL_BYTES, features: RingFeatures::ALL };
        let mut io = RingBackend::new(options).map_err(LoadError::Ring)?;
        let mut leaders: Vec<SocketAddr> = plan.targets.iter().map(|t| t.leader).collect();
        leaders.sort_unstable();
        leaders.dedup();
        let mut connections = Vec::new();
        for _ in 0..plan.producers {
            for leader in &leaders {
                let lost = |error| LoadError::Connect(*leader, error);
                let stream = TcpStream::connect_timeout(leader, CONNECT).map_err(lost)?;
                stream.set_nodelay(true).map_err(lost)?;
                let socket = io.add_connection(stream);
                io.push(Op::Recv { socket }, token(RECEIVE, connections.len()));
                let own = plan.targets.iter().filter(|t| t.leader == *leader).map(|t| t.partition);
                connections.push(Connection {
                    socket,
                    partitions: own.collect(),
                    turn: connections.len(),
                    open: Batch::default(),
                    open_first: 0,
                    open_since_ns: 0,
                    in_flight: VecDeque::new(),
                    sending: 0,
                    received: Vec::new(),
                    next_correlation: 0,
                });
            }
        }
        let mut times = plan.schedule.times(plan.seed);
        let start_ns = io.now_ns();
        Ok(Run {
            plan,
            io,
            connections,
            next_due_ns: times.next().map(|t| start_ns + t),
            times,
            values: Values::new(plan.record_bytes, plan.seed),
            start_ns,
            made: 0,
            done: 0,
            last_answer_ns: start_ns,
            first_counted_ns: None,
            outcome: Outcome::default(),
        })
    }

    fn drive(&mut self, watch: &mut dyn FnMut(Progress<'_>)) -> Result<(), LoadError> {
        let mut next_watch_ns = self.start_ns + PROGRESS_NS;
        while self.done < self.plan.records {
            let now_ns = self.io.now_ns();
            let full = self.make(now_ns);
            self.send(now_ns);
            if now_ns >= next_watch_ns {
                next_watch_ns = now_ns + PROGRESS_NS;
                watch(Progress { done: self.done, records: self.plan.records, outcome: &self.outcome });
            }
            let waiting = self.connections.iter().any(|c| !c.in_flight.is_empty() || c.sending > 0);
            let timeout_ns = self.plan.timeout.as_nanos() as u64;
            if waiting && now_ns.saturating_sub(self.oldest_wait_ns()) > timeout_ns {
                return Err(LoadError::Silent(self.plan.timeout));
            }
            let until = if full { Some(next_watch_ns) } else { self.wake_ns(next_watch_ns) };
            self.io.enter(until);
            while let Some(completion) = self.io.pop() {
                self.take(completion)?;
            }
        }
        watch(Progress { done: self.done, records: self.plan.records, outcome: &self.outcome });
        Ok(())
    }

    /// Since when a request has waited, or the last answer came, whichever is later.
    fn oldest_wait_ns(&self) -> u64 {
        let sent = self.connections.iter().filter_map(|c| c.in_flight.front()).map(|r| r.sent_ns).min();
        sent.unwrap_or(self.last_answer_ns).max(self.last_answer_ns)
    }

    /// Makes what is due. True when nothing can be taken before an answer came.
    fn make(&mut self, now_ns: u64) -> bool {
        let wall_ms = self.io.wall_ms();
        for _ in 0..RECORDS_PER_TURN {
            if self.made == self.plan.records {
                return true;
            }
            let due_ns = self.next_due_ns.unwrap_or(now_ns);
            if due_ns > now_ns {
                return false;
            }
            let Some(at) = self.place() else { return true };
            let Some(connection) = self.connections.get_mut(at) else { return true };
            if connection.open.is_empty() {
                connection.open_first = self.made;
                connection.open_since_ns = now_ns;
            }
            connection.open.push(self.values.next_value(), due_ns, wall_ms);
            self.made += 1;
            self.next_due_ns = self.times.next().map(|t| self.start_ns + t);
            if connection.open.bytes() >= self.plan.batch_bytes {
                self.flush(at, now_ns);
            }
        }
        false
    }

    /// The connection that takes the next record: its turn, or without a schedule the first that has room.
    fn place(&self) -> Option<usize> {
        let count = self.connections.len();
        let first = (self.made % count as u64) as usize;
        (0..count).map(|step| (first + step) % count).find(|at| {
            self.connections.get(*at).is_some_and(|c| {
                c.open.bytes() < self.plan.batch_bytes || c.in_flight.len() < self.plan.in_flight_max
            })
        })
    }

    /// Sends open batches whose linger is over, where a connection may send.
    fn send(&mut self, now_ns: u64) {
        let linger_ns = self.plan.linger.as_nanos() as u64;
        for at in 0..self.connections.len() {
            let ready = self.connections.get(at).is_some_and(|c| {
                let last = self.made == self.plan.records;
                let over = last || now_ns >= c.open_since_ns + linger_ns;
                !c.open.is_empty() && (over || c.open.bytes() >= self.plan.batch_bytes)
            });
            if ready {
                self.flush(at, now_ns);
            }
        }
    }

    fn flush(&mut self, at: usize, now_ns: u64) {
        let plan = self.plan;
        let Some(connection) = self.connections.get_mut(at) else { return };
        let outstanding = if plan.acks == 0 { connection.sending } else { connection.in_flight.len() };
        if outstanding >= plan.in_flight_max {
            return;
        }
        let (bytes, intended_ns) = std::mem::take(&mut connection.open).finish();
        let index = connection.turn % connection.partitions.len().max(1);
        let partition = connection.partitions.get(index).copied().unwrap_or(0);
        connection.turn = connection.turn.wrapping_add(1);
        let correlation = connection.next_correlation;
        connection.next_correlation = correlation.wrapping_add(1);
        let head = wire::request_head(correlation, &plan.topic, partition, plan.acks, bytes.len());
        let parts = vec![Buf::from_vec(head), Buf::from_vec(bytes), Buf::from_vec(wire::TAIL.to_vec())];
        let first = connection.open_first;
        let request = InFlight { correlation, sent_ns: now_ns, intended_ns, first };
        connection.in_flight.push_back(request);
        connection.sending += 1;
        self.outcome.requests += 1;
        self.io.push(Op::Send { socket: connection.socket, parts, zero_copy: false }, token(SEND, at));
    }

    /// Until when there is nothing to do but wait.
    fn wake_ns(&self, next_watch_ns: u64) -> Option<u64> {
        let linger_ns = self.plan.linger.as_nanos() as u64;
        let may_send = |c: &&Connection| !c.open.is_empty() && c.in_flight.len() < self.plan.in_flight_max;
        let linger = self.connections.iter().filter(may_send).map(|c| c.open_since_ns + linger_ns).min();
        // Without a schedule the next record is due now.
        let due = if self.next_due_ns.is_none() { Some(0) } else { self.next_due_ns };
        [linger, due, Some(next_watch_ns)].into_iter().flatten().min()
    }

    fn take(&mut self, completion: Completion) -> Result<(), LoadError> {
        let (kind, at) = (completion.token.0 >> 32, (completion.token.0 & 0xffff_ffff) as usize);
        let count = completion.result.map_err(|errno| LoadError::Lost(Some(errno.to_string())))?;
        if kind == SEND {
            let Some(connection) = self.connections.get_mut(at) else { return Ok(()) };
            connection.sending -= 1;
            if self.plan.acks == 0
                && let Some(request) = connection.in_flight.pop_front()
            {
                self.count(request, 0);
            }
            return Ok(());
        }
        if count == 0 {
            return Err(LoadError::Lost(None));
        }
        let Some(connection) = self.connections.get_mut(at) else { return Ok(()) };
        if let Payload::Received(bytes) = &completion.payload {
            connection.received.extend_from_slice(bytes);
        }
        let socket = connection.socket;
        self.io.push(Op::Recv { socket }, token(RECEIVE, at));
        self.read_answers(at)
    }

    fn read_answers(&mut self, at: usize) -> Result<(), LoadError> {
        let mut used = 0;
        loop {
            let Some(connection) = self.connections.get_mut(at) else { return Ok(()) };
            let rest = connection.received.get(used..).unwrap_or_default();
            let Some((prefix, rest)) = rest.split_first_chunk::<4>() else { break };
            let length = u32::from_be_bytes(*prefix) as usize;
            if length > ANSWER_BYTES_MAX {
                return Err(LoadError::Garbled(format!("a length of {length} bytes")));
            }
            let Some(frame) = rest.get(..length) else { break };
            let (correlation, error) =
                wire::answer(frame).map_err(|error| LoadError::Garbled(error.to_string()))?;
            used += 4 + length;
            match connection.in_flight.pop_front() {
                Some(request) if request.correlation == correlation => self.count(request, error),
                _ => return Err(LoadError::Garbled(format!("nobody asked for answer {correlation}"))),
            }
        }
        if let Some(connection) = self.connections.get_mut(at) {
            connection.received.drain(..used);
        }
        Ok(())
    }

    /// Takes a request's records into the account.
    fn count(&mut self, request: InFlight, error: i16) {
        let now_ns = self.io.now_ns();
        self.last_answer_ns = now_ns;
        let records = request.intended_ns.len() as u64;
        self.done += records;
        if error != 0 {
            self.outcome.errors += records;
            self.outcome.first_error = self.outcome.first_error.or(Some(error));
            return;
        }
        // Records of one connection are not next to each other among all; which of a batch are warm-up is told by
        // its first, so the border may be off by one batch.
        if request.first < self.plan.warmup {
            return;
        }
        let first = request.intended_ns.first().copied().unwrap_or(now_ns);
        self.first_counted_ns = Some(self.first_counted_ns.map_or(first, |f| f.min(first)));
        self.outcome.records += records;
        self.outcome.bytes += records * self.plan.record_bytes as u64;
        for intended_ns in request.intended_ns {
            self.outcome.intended.record(now_ns.saturating_sub(intended_ns));
            self.outcome.actual.record(now_ns.saturating_sub(request.sent_ns));
        }
    }
}

fn token(kind: u64, connection: usize) -> Token {
    Token(kind << 32 | connection as u64)
}
