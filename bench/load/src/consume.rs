//! Consumers with a connection each, driven by one ring.
//!
//! A consumer has one fetch under way at every leader. When an answer is there, the next fetch leaves before the
//! records of this one are looked at, so that a broker and its readers work at the same time.

use crate::connect::connect;
use crate::error::LoadError;
use crate::fetch::{self, Part, Session, Terms};
use crate::latency::Latency;
use crate::stamp::Stamp;
use crate::timeline::Timeline;
use ringmill_client::ServerCode;
use ringmill_client::compression::decompress;
use ringmill_reactor::ring::{RingBackend, RingFeatures, RingOptions};
use ringmill_reactor::{Backend, Buf, BufMut, Completion, Op, Payload, SocketId, Token};
use ringmill_record::{BatchHeader, Batches, Compression, HEADER_BYTES, Records};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const POOL_BYTES: u64 = 1 << 30;
/// Largest answer that is believed.
const ANSWER_BYTES_MAX: usize = 256 << 20;
const PROGRESS_NS: u64 = 100_000_000;
/// Before a fetch that was refused for the moment is tried again.
const RETRY_NS: u64 = 100_000_000;
/// An answer of up to this many bytes is put together from what arrives; a larger one gets a buffer of its own.
const SMALL_BYTES: usize = 32 << 10;
const LENGTH_BYTES: usize = 4;

/// A partition, who leads it, and where reading begins.
#[derive(Clone, Debug)]
pub struct Source {
    pub partition: i32,
    pub leader: SocketAddr,
    pub offset: i64,
}

/// What to read.
#[derive(Clone, Debug)]
pub struct ConsumePlan {
    pub terms: Terms,
    /// Per consumer: what it reads. Each has a connection to every leader of these.
    pub consumers: Vec<Vec<Source>>,
    /// Ends after so many; `None` when the caller ends it.
    pub records: Option<u64>,
    /// Counts the records of several runs, whose end is then that of them together.
    pub total: Option<Arc<AtomicU64>>,
    /// No record for this long ends the run; `None` waits for ever.
    pub quiet: Option<Duration>,
    /// No answer for this long, beyond the wait that was asked for, ends it too.
    pub timeout: Duration,
    pub socket_buffer: Option<u32>,
    /// Whether batches are checked against their CRC, as Kafka's consumer does by default.
    pub check_crcs: bool,
    /// Latencies of records that carry this run's stamp.
    pub stamp: Option<Stamp>,
    /// Start of the timeline, monotonic; 0: when the run begins.
    pub start_ns: u64,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Consumed {
    pub records: u64,
    /// Of keys and values.
    pub bytes: u64,
    pub fetches: u64,
    /// Answers that said "not now".
    pub retries: u64,
    /// From the first fetch to the last record.
    pub elapsed: Duration,
    /// From the intended send time to here; of stamped records that count.
    pub delivery: Latency,
    /// Stamped records, those of the warm-up included.
    pub stamped: u64,
    pub timeline: Timeline,
    /// CPU of this thread.
    pub cpu: Duration,
    /// Next offset of each partition.
    pub positions: Vec<(i32, i64)>,
}

struct Position {
    partition: i32,
    offset: i64,
    /// The broker does not know this offset yet, or was never told of the partition.
    changed: bool,
}

struct Connection {
    socket: SocketId,
    /// Sorted by partition.
    positions: Vec<Position>,
    session: Session,
    correlation: i32,
    asked_ns: u64,
    waiting: bool,
    /// What has arrived of the next answer, while it is small or its length is unknown.
    head: Vec<u8>,
}

impl Connection {
    /// Moves the positions behind what came. True when a partition was refused for the moment.
    fn advance<'a>(
        &mut self,
        parts: &[Part<'a>],
        read: &mut Vec<(&'a [u8], i64)>,
    ) -> Result<bool, LoadError> {
        let mut again = false;
        for part in parts {
            let Ok(index) = self.positions.binary_search_by_key(&part.partition, |p| p.partition) else {
                return Err(LoadError::Garbled(format!("nobody asked for partition {}", part.partition)));
            };
            let Some(position) = self.positions.get_mut(index) else { continue };
            if part.error != 0 {
                if !ServerCode(part.error).is_retriable() {
                    return Err(LoadError::Refused { partition: part.partition, code: part.error });
                }
                position.changed = true;
                again = true;
                continue;
            }
            let from = position.offset;
            // Only what a batch says of its end: the records are looked at after the next fetch has left.
            if let Some((last, _)) = Batches::new(part.records).last() {
                position.offset = last.next_offset().0.max(from);
                position.changed = true;
            }
            read.push((part.records, from));
        }
        Ok(again)
    }
}

/// A whole answer.
enum Frame {
    Small(Vec<u8>),
    Large(BufMut),
}

impl Frame {
    fn bytes(&self) -> &[u8] {
        let all: &[u8] = match self {
            Frame::Small(bytes) => bytes,
            Frame::Large(buffer) => buffer,
        };
        all.get(LENGTH_BYTES..).unwrap_or_default()
    }
}

struct Run<'p> {
    plan: &'p ConsumePlan,
    io: RingBackend,
    connections: Vec<Connection>,
    /// Connections whose next fetch is put off, and until when; in that order.
    paused: VecDeque<(u64, usize)>,
    /// Connections with a large answer on its way and no memory for it.
    starved: VecDeque<(usize, usize)>,
    start_ns: u64,
    last_record_ns: u64,
    out: Consumed,
}

/// Runs a plan until it has its records, `watch` breaks, or something fails; what was read comes back either way.
/// `watch` is called some times a second.
pub fn consume(
    plan: &ConsumePlan,
    watch: &mut dyn FnMut(&Consumed) -> ControlFlow<()>,
) -> (Consumed, Result<(), LoadError>) {
    let cpu = ringmill_reactor::thread::thread_cpu_ns();
    let mut run = match Run::open(plan) {
        Ok(run) => run,
        Err(error) => return (Consumed::default(), Err(error)),
    };
    let result = run.drive(watch);
    run.out.elapsed = Duration::from_nanos(run.last_record_ns.saturating_sub(run.start_ns));
    run.out.cpu = Duration::from_nanos(ringmill_reactor::thread::thread_cpu_ns() - cpu);
    run.out.positions = run.positions();
    (run.out, result)
}

impl<'p> Run<'p> {
    fn open(plan: &'p ConsumePlan) -> Result<Run<'p>, LoadError> {
        if plan.consumers.iter().all(Vec::is_empty) {
            return Err(LoadError::Plan("there is no partition to read".into()));
        }
        let options = RingOptions { pool_limit_bytes: POOL_BYTES, features: RingFeatures::ALL };
        let mut io = RingBackend::new(options).map_err(LoadError::Ring)?;
        let mut connections = Vec::new();
        for sources in &plan.consumers {
            let mut leaders: Vec<SocketAddr> = sources.iter().map(|s| s.leader).collect();
            leaders.sort_unstable();
            leaders.dedup();
            for leader in leaders {
                let stream = connect(leader, plan.socket_buffer)?;
                let socket = io.add_connection(stream);
                let own = sources.iter().filter(|s| s.leader == leader);
                let mut positions: Vec<Position> = own
                    .map(|s| Position { partition: s.partition, offset: s.offset, changed: true })
                    .collect();
                positions.sort_by_key(|p| p.partition);
                connections.push(Connection {
                    socket,
                    positions,
                    session: Session::NEW,
                    correlation: 0,
                    asked_ns: 0,
                    waiting: false,
                    head: Vec::new(),
                });
            }
        }
        let start_ns = io.now_ns();
        let timeline_ns = if plan.start_ns == 0 { start_ns } else { plan.start_ns };
        Ok(Run {
            plan,
            io,
            connections,
            paused: VecDeque::new(),
            starved: VecDeque::new(),
            start_ns: timeline_ns,
            last_record_ns: start_ns,
            out: Consumed::default(),
        })
    }

    fn drive(&mut self, watch: &mut dyn FnMut(&Consumed) -> ControlFlow<()>) -> Result<(), LoadError> {
        let mut next_watch_ns = self.io.now_ns() + PROGRESS_NS;
        for at in 0..self.connections.len() {
            self.ask(at);
        }
        while !self.has_enough() {
            let now_ns = self.io.now_ns();
            while let Some((_, at)) = self.paused.front().copied().filter(|(until_ns, _)| *until_ns <= now_ns)
            {
                self.paused.pop_front();
                self.ask(at);
            }
            if now_ns >= next_watch_ns {
                next_watch_ns = now_ns + PROGRESS_NS;
                self.check_silence(now_ns)?;
                self.out.elapsed = Duration::from_nanos(now_ns.saturating_sub(self.start_ns));
                self.out.positions = self.positions();
                if watch(&self.out).is_break() {
                    break;
                }
            }
            let paused_ns = self.paused.front().map_or(u64::MAX, |(until_ns, _)| *until_ns);
            self.io.enter(Some(next_watch_ns.min(paused_ns)));
            while let Some(completion) = self.io.pop() {
                self.take(completion)?;
                if self.has_enough() {
                    break;
                }
            }
        }
        Ok(())
    }

    fn positions(&self) -> Vec<(i32, i64)> {
        self.connections.iter().flat_map(|c| c.positions.iter().map(|p| (p.partition, p.offset))).collect()
    }

    fn has_enough(&self) -> bool {
        let read = self.plan.total.as_ref().map_or(self.out.records, |total| total.load(Ordering::Relaxed));
        self.plan.records.is_some_and(|wanted| read >= wanted)
    }

    fn check_silence(&self, now_ns: u64) -> Result<(), LoadError> {
        let quiet = |limit: Duration| now_ns.saturating_sub(self.last_record_ns) > limit.as_nanos() as u64;
        let allowed_ns =
            self.plan.timeout.as_nanos() as u64 + self.plan.terms.wait_ms.max(0) as u64 * 1_000_000;
        let oldest_ns = self.connections.iter().filter(|c| c.waiting).map(|c| c.asked_ns).min();
        if oldest_ns.is_some_and(|asked_ns| now_ns.saturating_sub(asked_ns) > allowed_ns) {
            return Err(LoadError::Silent(Duration::from_nanos(allowed_ns)));
        }
        match self.plan.quiet {
            Some(limit) if quiet(limit) => Err(LoadError::NoRecords(limit)),
            Some(_) | None => Ok(()),
        }
    }

    /// Sends the next fetch of a connection.
    fn ask(&mut self, at: usize) {
        let now_ns = self.io.now_ns();
        let Some(connection) = self.connections.get_mut(at) else { return };
        let all = connection.session.epoch == 0;
        let named: Vec<(i32, i64)> = connection
            .positions
            .iter_mut()
            .filter(|p| all || p.changed)
            .map(|p| {
                p.changed = false;
                (p.partition, p.offset)
            })
            .collect();
        connection.correlation = connection.correlation.wrapping_add(1);
        let frame =
            fetch::request(connection.correlation, &self.plan.terms, connection.session, named.into_iter());
        connection.asked_ns = now_ns;
        connection.waiting = true;
        let socket = connection.socket;
        self.out.fetches += 1;
        let parts = vec![Buf::from_vec(frame)];
        self.io.push(Op::Send { socket, parts, zero_copy: false }, token(Kind::Send, at));
        self.io.push(Op::Recv { socket }, token(Kind::Receive, at));
    }

    fn take(&mut self, completion: Completion) -> Result<(), LoadError> {
        let (kind, at) = untoken(completion.token);
        let count = completion.result.map_err(|errno| LoadError::Lost(Some(errno.to_string())))?;
        if kind == Kind::Send {
            return Ok(());
        }
        if count == 0 {
            return Err(LoadError::Lost(None));
        }
        match completion.payload {
            Payload::Received(bytes) => {
                let Some(connection) = self.connections.get_mut(at) else { return Ok(()) };
                connection.head.extend_from_slice(&bytes);
                drop(bytes);
                self.go_on(at)
            }
            Payload::BufMut(buffer) => {
                let length = length_of(&buffer)?;
                if buffer.len() < length + LENGTH_BYTES {
                    return Err(LoadError::Lost(None));
                }
                self.answered(at, Frame::Large(buffer))?;
                while let Some((at, length)) = self.starved.pop_front() {
                    if !self.receive_rest(at, length) {
                        self.starved.push_front((at, length));
                        break;
                    }
                }
                Ok(())
            }
            Payload::None | Payload::Accepted { .. } | Payload::Job(_) => Ok(()),
        }
    }

    /// Looks at what has arrived of a connection's answer.
    fn go_on(&mut self, at: usize) -> Result<(), LoadError> {
        let Some(connection) = self.connections.get_mut(at) else { return Ok(()) };
        let socket = connection.socket;
        if connection.head.len() < LENGTH_BYTES {
            self.io.push(Op::Recv { socket }, token(Kind::Receive, at));
            return Ok(());
        }
        let whole = length_of(&connection.head)? + LENGTH_BYTES;
        if connection.head.len() > whole {
            return Err(LoadError::Garbled("more bytes than the answer has".into()));
        }
        if connection.head.len() == whole {
            let frame = std::mem::take(&mut connection.head);
            return self.answered(at, Frame::Small(frame));
        }
        if whole <= SMALL_BYTES {
            self.io.push(Op::Recv { socket }, token(Kind::Receive, at));
        } else if !self.receive_rest(at, whole) {
            self.starved.push_back((at, whole));
        }
        Ok(())
    }

    /// Receives the rest of a large answer straight into a buffer of its size. False without memory.
    fn receive_rest(&mut self, at: usize, whole: usize) -> bool {
        let Some(mut buffer) = self.io.pool().take(whole) else { return false };
        let Some(connection) = self.connections.get_mut(at) else { return true };
        buffer.extend(&connection.head);
        connection.head.clear();
        let op = Op::RecvInto { socket: connection.socket, buf: buffer, fill_to: whole };
        self.io.push(op, token(Kind::Receive, at));
        true
    }

    fn answered(&mut self, at: usize, frame: Frame) -> Result<(), LoadError> {
        let now_ns = self.io.now_ns();
        let mut parts: Vec<Part<'_>> = Vec::new();
        let head = fetch::answer(frame.bytes(), &mut |part| {
            if part.error != 0 || !part.records.is_empty() {
                parts.push(part);
            }
        })
        .map_err(|error| LoadError::Garbled(error.to_string()))?;
        let enough = self.has_enough();
        let Some(connection) = self.connections.get_mut(at) else { return Ok(()) };
        if !connection.waiting || head.correlation != connection.correlation {
            return Err(LoadError::Garbled(format!("nobody asked for answer {}", head.correlation)));
        }
        connection.waiting = false;
        if head.error != 0 {
            if !is_session(head.error) && !ServerCode(head.error).is_retriable() {
                return Err(LoadError::Refused { partition: -1, code: head.error });
            }
            connection.session = Session::NEW;
            self.out.retries += 1;
            self.paused.push_back((now_ns + RETRY_NS, at));
            return Ok(());
        }
        connection.session = connection.session.next(head.session_id);
        // What is looked at below, each with the offset that was asked for.
        let mut read = Vec::with_capacity(parts.len());
        let again = connection.advance(&parts, &mut read)?;
        if again {
            self.out.retries += 1;
            self.paused.push_back((now_ns + RETRY_NS, at));
        } else if !enough {
            self.ask(at);
            // Hands it to the kernel now; what completes meanwhile waits its turn.
            self.io.enter(Some(0));
        }
        let before = (self.out.records, self.out.bytes);
        for (records, from) in read {
            self.read(records, from, now_ns)?;
        }
        let (records, bytes) = (self.out.records - before.0, self.out.bytes - before.1);
        if records > 0 {
            self.last_record_ns = now_ns;
            if let Some(total) = &self.plan.total {
                total.fetch_add(records, Ordering::Relaxed);
            }
            self.out.timeline.count(now_ns.saturating_sub(self.start_ns), records, bytes);
        }
        Ok(())
    }

    fn read(&mut self, records: &[u8], from: i64, now_ns: u64) -> Result<(), LoadError> {
        for (header, batch) in Batches::new(records) {
            if self.plan.check_crcs {
                ringmill_client::batch::check_stored(&header, batch).map_err(|why| damaged(&header, why))?;
            }
            if header.is_control() {
                continue;
            }
            let body = batch.get(HEADER_BYTES..).unwrap_or_default();
            let compression =
                header.compression().ok_or_else(|| damaged(&header, "an unknown compression"))?;
            if compression == Compression::None {
                self.records(&header, body, from, now_ns)?;
            } else {
                let payload =
                    decompress(compression, body).map_err(|error| damaged(&header, &error.to_string()))?;
                self.records(&header, &payload, from, now_ns)?;
            }
        }
        Ok(())
    }

    fn records(
        &mut self,
        header: &BatchHeader,
        payload: &[u8],
        from: i64,
        now_ns: u64,
    ) -> Result<(), LoadError> {
        // What several share may be overshot by an answer each, as Kafka's tool does.
        let wanted = self.plan.records.filter(|_| self.plan.total.is_none()).unwrap_or(u64::MAX);
        let stamp = self.plan.stamp;
        for record in Records::of_payload(payload, header.record_count) {
            let record = record.map_err(|_| damaged(header, "its records contradict it"))?;
            if header.base_offset.0.saturating_add(i64::from(record.offset_delta)) < from {
                continue;
            }
            if self.out.records == wanted {
                return Ok(());
            }
            let value = record.value.unwrap_or_default();
            self.out.records += 1;
            self.out.bytes += (record.key.map_or(0, <[u8]>::len) + value.len()) as u64;
            let Some(read) = stamp.and_then(|stamp| stamp.read(value)) else { continue };
            self.out.stamped += 1;
            if read.counts {
                let late_ns = now_ns.saturating_sub(read.intended_ns);
                self.out.delivery.record(late_ns);
                let meant_ns = read.intended_ns.saturating_sub(self.start_ns);
                self.out.timeline.latency(meant_ns, late_ns, 1);
            }
        }
        Ok(())
    }
}

fn damaged(header: &BatchHeader, why: &str) -> LoadError {
    LoadError::Garbled(format!("the batch at offset {}: {why}", header.base_offset))
}

/// Codes after which a new session is begun.
fn is_session(code: i16) -> bool {
    const FETCH_SESSION_ID_NOT_FOUND: i16 = 70;
    const INVALID_FETCH_SESSION_EPOCH: i16 = 71;
    [FETCH_SESSION_ID_NOT_FOUND, INVALID_FETCH_SESSION_EPOCH].contains(&code)
}

/// The length prefix of an answer.
fn length_of(bytes: &[u8]) -> Result<usize, LoadError> {
    let prefix = bytes.first_chunk::<LENGTH_BYTES>().copied().unwrap_or_default();
    let length = u32::from_be_bytes(prefix) as usize;
    if length > ANSWER_BYTES_MAX {
        return Err(LoadError::Garbled(format!("a length of {length} bytes")));
    }
    Ok(length)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Receive,
    Send,
}

fn token(kind: Kind, connection: usize) -> Token {
    Token(u64::from(kind == Kind::Send) << 32 | connection as u64)
}

fn untoken(token: Token) -> (Kind, usize) {
    let kind = if token.0 >> 32 == 1 { Kind::Send } else { Kind::Receive };
    (kind, (token.0 & 0xffff_ffff) as usize)
}
