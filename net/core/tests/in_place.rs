//! Records leave a core from the memory in which its log has them: what a send is given lies in a group as it was written, or in
//! a block as it was read. Over a real ring whose operations are looked at on their way, with `SENDMSG_ZC` and without it.
#![allow(clippy::unwrap_used)]

use ringmill_core::heartbeat::{Heartbeat, Phase, SUBMIT_WAIT_NS_MAX};
use ringmill_core::metrics::CoreMetrics;
use ringmill_core::{ControlMessage, Core, CoreEnds, CoreMessage, CoreQuery, CoreReply, CoreSettings};
use ringmill_log::{Log, LogOptions};
use ringmill_reactor::ring::{RingBackend, RingFeatures, RingOptions};
use ringmill_reactor::{
    Backend, Completion, Doorbell, FileHandle, FileId, Fs, MovedSocket, Op, Payload, Pool, SocketId, Token,
    Waker,
};
use ringmill_record::HEADER_BYTES;
use ringmill_record::write::{Sealing, no_headers, put_record, seal};
use ringmill_types::limits::MAILBOX_SLOTS;
use ringmill_types::{CoreId, LeaderEpoch, PartitionId, PartitionSpec, TopicConfig, TopicId, TopicSpec};
use std::cell::RefCell;
use std::collections::HashSet;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::ops::Range;
use std::path::Path;
use std::rc::Rc;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

const BATCHES: usize = 8;
const VALUE_BYTES: usize = 200_000;
/// Of an answer to Fetch 4 for one partition of topic `t`, with its length prefix.
const ANSWER_HEAD_BYTES: usize = 53;
const PATIENCE: Duration = Duration::from_secs(60);

/// Where bytes lay, as addresses.
#[derive(Default)]
struct Seen {
    written: Vec<Range<usize>>,
    read: Vec<Range<usize>>,
    /// The parts of each send, and whether it may go as `SENDMSG_ZC`.
    sent: Vec<(Vec<Range<usize>>, bool)>,
    reading: HashSet<Token>,
    entered: Vec<Entered>,
    /// The next submission blocks for so long.
    block: Duration,
}

/// A call of the kernel.
#[derive(Clone, Copy, Debug)]
struct Entered {
    submits: bool,
    phase: Phase,
    wait: Duration,
}

fn place(bytes: &[u8]) -> Range<usize> {
    let range = bytes.as_ptr_range();
    range.start as usize..range.end as usize
}

impl Seen {
    /// Of the sends so far: bytes that lie where the log read or wrote, bytes that do not, and each send's length and mark.
    fn take_sent(&mut self, is_cold: bool) -> (usize, usize, Vec<(usize, bool)>) {
        let places = if is_cold { &self.read } else { &self.written };
        let sent = std::mem::take(&mut self.sent);
        let lies = |part: &Range<usize>| places.iter().any(|at| at.start <= part.start && part.end <= at.end);
        let (mut within, mut elsewhere) = (0, 0);
        for part in sent.iter().flat_map(|(parts, _)| parts) {
            *(if lies(part) { &mut within } else { &mut elsewhere }) += part.len();
        }
        let bytes = |parts: Vec<Range<usize>>| parts.iter().map(|part| part.len()).sum();
        (within, elsewhere, sent.into_iter().map(|(parts, marked)| (bytes(parts), marked)).collect())
    }
}

/// A ring whose operations are noted.
struct Watched {
    io: RingBackend,
    seen: Rc<RefCell<Seen>>,
    heartbeat: Arc<Heartbeat>,
}

impl Backend for Watched {
    fn now_ns(&self) -> u64 {
        self.io.now_ns()
    }

    fn wall_ms(&self) -> i64 {
        self.io.wall_ms()
    }

    fn push(&mut self, op: Op, token: Token) {
        let mut seen = self.seen.borrow_mut();
        match &op {
            Op::Write { buf, .. } => seen.written.push(place(buf)),
            Op::Read { .. } => {
                seen.reading.insert(token);
            }
            Op::Send { parts, zero_copy, .. } => {
                seen.sent.push((parts.iter().map(|part| place(part)).collect(), *zero_copy));
            }
            Op::Accept { .. }
            | Op::Recv { .. }
            | Op::RecvInto { .. }
            | Op::Close { .. }
            | Op::Sync { .. }
            | Op::Run { .. }
            | Op::Work { .. } => {}
        }
        self.io.push(op, token);
    }

    fn enter(&mut self, until_ns: Option<u64>) {
        let submits = self.io.submits();
        let wait = until_ns.expect("a core has a deadline").saturating_sub(self.io.now_ns());
        let (phase, wait) = (self.heartbeat.look().phase, Duration::from_nanos(wait));
        let mut seen = self.seen.borrow_mut();
        seen.entered.push(Entered { submits, phase, wait });
        if submits {
            std::thread::sleep(std::mem::take(&mut seen.block));
        }
        drop(seen);
        self.io.enter(until_ns);
    }

    fn pop(&mut self) -> Option<Completion> {
        let completion = self.io.pop()?;
        let mut seen = self.seen.borrow_mut();
        if let Payload::BufMut(buf) = &completion.payload
            && seen.reading.remove(&completion.token)
        {
            seen.read.push(place(buf));
        }
        Some(completion)
    }

    fn submits(&self) -> bool {
        self.io.submits()
    }

    fn in_flight(&self) -> usize {
        self.io.in_flight()
    }

    fn pool(&self) -> &Pool {
        self.io.pool()
    }

    fn attach_file(&mut self, file: FileHandle) -> FileId {
        self.io.attach_file(file)
    }

    fn detach_file(&mut self, file: FileId) {
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

/// Wakes the core when it goes, be it in a panic.
struct Wakes(Waker);

impl Drop for Wakes {
    fn drop(&mut self) {
        self.0.wake();
    }
}

/// One core on a folder, turned by hand.
struct Rig {
    core: Core<Watched>,
    seen: Rc<RefCell<Seen>>,
    address: SocketAddr,
    waker: Waker,
    to_core: rtrb::Producer<CoreMessage>,
    from_core: rtrb::Consumer<ControlMessage>,
}

impl Rig {
    fn open(data: &Path, zero_copy_from_bytes: usize, features: RingFeatures, life: u128) -> Rig {
        let ring = RingBackend::new(RingOptions { pool_limit_bytes: 256 << 20, features }).unwrap();
        let seen = Rc::new(RefCell::new(Seen::default()));
        let heartbeat = Arc::<Heartbeat>::default();
        let mut io = Watched { io: ring, seen: seen.clone(), heartbeat: heartbeat.clone() };
        let partition =
            PartitionSpec { index: 0, id: PartitionId(1), owner: CoreId(0), leader_epoch: LeaderEpoch(0) };
        let topic = TopicSpec {
            name: "t".into(),
            id: TopicId([7; 16]),
            config: Arc::new(TopicConfig::default()),
            partitions: vec![partition],
        };
        let options = LogOptions::new(CoreId(0), data.to_path_buf());
        let (log, _) = Log::open(&mut io, options, std::slice::from_ref(&topic), 2, life).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let socket = io.io.add_listener(listener);
        let waker = io.waker();
        let (to_core, from_control) = rtrb::RingBuffer::new(MAILBOX_SLOTS);
        let (to_control, from_core) = rtrb::RingBuffer::new(MAILBOX_SLOTS);
        let ends = CoreEnds { to_control, from_control, control_bell: Doorbell::new().unwrap() };
        let settings = CoreSettings { zero_copy_from_bytes, ..CoreSettings::new(CoreId(0), 1) };
        let mut core = Core::new(io, log, settings, ends, heartbeat, Some(socket));
        core.know(&[topic]);
        Rig { core, seen, address, waker, to_core, from_core }
    }

    /// Turns while a client does this.
    fn serve<T: Send + 'static>(&mut self, client: impl FnOnce(&mut TcpStream) -> T + Send + 'static) -> T {
        let (address, waker) = (self.address, self.waker.clone());
        let (done, is_done) = mpsc::channel();
        let client = std::thread::spawn(move || {
            // Said before the core is woken, or it would look too early and sleep on: it does for a minute, if it is alone.
            let _wakes = Wakes(waker);
            let done = done;
            let mut stream = TcpStream::connect(address).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            done.send(client(&mut stream)).unwrap();
        });
        loop {
            match is_done.try_recv() {
                Ok(value) => return value,
                Err(mpsc::TryRecvError::Empty) => self.core.turn(),
                Err(mpsc::TryRecvError::Disconnected) => {
                    client.join().unwrap();
                    unreachable!("a client that ends without a word has panicked");
                }
            }
        }
    }

    fn tell(&mut self, message: CoreMessage) {
        assert!(self.to_core.push(message).is_ok());
        self.waker.wake();
    }

    fn metrics(&mut self) -> CoreMetrics {
        self.tell(CoreMessage::Query { id: 1, query: CoreQuery::Metrics });
        loop {
            self.core.turn();
            while let Ok(message) = self.from_core.pop() {
                if let ControlMessage::Reply { reply: CoreReply::Metrics(metrics), .. } = message {
                    return *metrics;
                }
            }
        }
    }

    /// Once this many bytes were sent: the kernel may say so after the client has them.
    fn metrics_when_sent(&mut self, bytes: u64) -> CoreMetrics {
        let begun = Instant::now();
        loop {
            let metrics = self.metrics();
            if metrics.bytes_sent >= bytes {
                return metrics;
            }
            assert!(begun.elapsed() < PATIENCE, "{} of {bytes} bytes sent", metrics.bytes_sent);
        }
    }

    fn stop(mut self) {
        self.tell(CoreMessage::Stop);
        while !self.core.is_stopped() {
            self.core.turn();
            while let Ok(message) = self.from_core.pop() {
                if let ControlMessage::Drained { .. } = message {
                    self.seen.borrow_mut().entered.clear();
                    self.tell(CoreMessage::Finish);
                }
            }
        }
    }
}

/// Sends a request with a version 1 header; its answer with the correlation id.
fn ask(stream: &mut TcpStream, api: i16, version: i16, body: &[u8]) -> Vec<u8> {
    let mut request = [api.to_be_bytes(), version.to_be_bytes()].concat();
    request.extend([0, 0, 0, 7, 0, 1, b'c']);
    request.extend_from_slice(body);
    stream.write_all(&(request.len() as u32).to_be_bytes()).unwrap();
    stream.write_all(&request).unwrap();
    let mut length = [0; 4];
    stream.read_exact(&mut length).unwrap();
    let mut answer = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut answer).unwrap();
    answer
}

fn number(body: &mut Vec<u8>, number: i32) {
    body.extend(number.to_be_bytes());
}

/// One topic `t` with one partition, its number 0.
fn topic_and_partition(body: &mut Vec<u8>) {
    number(body, 1);
    body.extend([0, 1, b't']);
    number(body, 1);
    number(body, 0);
}

/// Produce 3, acks=all.
fn produce(stream: &mut TcpStream, batch: &[u8]) {
    let mut body = vec![0xff, 0xff, 0xff, 0xff];
    number(&mut body, 30_000);
    topic_and_partition(&mut body);
    number(&mut body, batch.len() as i32);
    body.extend_from_slice(batch);
    let answer = ask(stream, 0, 3, &body);
    assert_eq!(answer[19..21], [0, 0], "refused");
}

/// Fetch 4 from this offset on, for so many bytes, or a batch that has more; the records.
fn fetch(stream: &mut TcpStream, offset: i64, bytes: usize) -> Vec<u8> {
    let mut body = Vec::new();
    for field in [-1, 50_000, bytes as i32, bytes as i32] {
        number(&mut body, field);
    }
    body.push(0);
    topic_and_partition(&mut body);
    body.extend(offset.to_be_bytes());
    number(&mut body, bytes as i32);
    let mut answer = ask(stream, 1, 4, &body);
    assert_eq!(answer[23..25], [0, 0], "refused");
    answer.split_off(ANSWER_HEAD_BYTES - 4)
}

/// One record; each batch has another byte in its value.
fn batch(at: usize, value_bytes: usize) -> Vec<u8> {
    let mut out = vec![0; HEADER_BYTES];
    put_record(&mut out, 0, 0, None, Some(&vec![at as u8; value_bytes]), no_headers());
    let now_ms =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as i64;
    seal(&mut out, &Sealing::plain(now_ms, now_ms, 1));
    out
}

/// Behind what the broker writes into a batch: its base offset and leader epoch, which no CRC of it covers.
fn unchanging(batches: &[u8], bytes_each: usize) -> Vec<&[u8]> {
    batches.chunks(bytes_each).map(|batch| &batch[17..]).collect()
}

/// What was asked for is in the answer, and it left from `places` but for the head.
fn check(rig: &mut Rig, whole: &[u8], is_cold: bool, zero_copy_from_bytes: usize) {
    let before = rig.metrics();
    rig.seen.borrow_mut().sent.clear();
    let bytes = whole.len();
    let records = rig.serve(move |stream| fetch(stream, 0, bytes));
    let each = bytes / BATCHES;
    assert!(unchanging(&records, each) == unchanging(whole, each), "the records as they were produced");

    let after = rig.metrics_when_sent(before.bytes_sent + (ANSWER_HEAD_BYTES + bytes) as u64);
    assert_eq!(after.bytes_sent - before.bytes_sent, (ANSWER_HEAD_BYTES + bytes) as u64);
    assert_eq!(after.fetch_bytes_in_place - before.fetch_bytes_in_place, bytes as u64);
    assert_eq!(after.fetch_bytes_copied, 0);
    assert_eq!(after.cold_read_bytes >= bytes as u64, is_cold, "{} bytes read", after.cold_read_bytes);
    let (in_place, elsewhere, sends) = rig.seen.borrow_mut().take_sent(is_cold);
    assert_eq!((in_place, elsewhere), (bytes, ANSWER_HEAD_BYTES));
    // A large answer leaves in several.
    for (bytes, zero_copy) in sends {
        assert_eq!(zero_copy, bytes >= zero_copy_from_bytes, "{bytes} bytes");
    }

    // A small one is copied behind its head, and never goes as SENDMSG_ZC.
    let small = rig.serve(|stream| fetch(stream, BATCHES as i64, 1));
    let small_after = rig.metrics();
    assert_eq!(small_after.fetch_bytes_copied, small.len() as u64);
    assert_eq!(small_after.fetch_bytes_in_place, after.fetch_bytes_in_place);
    let (in_place, elsewhere, sends) = rig.seen.borrow_mut().take_sent(is_cold);
    assert_eq!((in_place, elsewhere), (0, ANSWER_HEAD_BYTES + small.len()));
    assert_eq!(sends, [(elsewhere, false)]);
}

#[test]
fn records_leave_from_where_the_log_has_them() {
    let without = RingFeatures { zero_copy: false, ..RingFeatures::ALL };
    for (zero_copy_from_bytes, features) in
        [(usize::MAX, RingFeatures::ALL), (64 << 10, RingFeatures::ALL), (64 << 10, without)]
    {
        // Where the build is: the system's temporary folder may be memory.
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let batches: Vec<Vec<u8>> = (0..BATCHES).map(|at| batch(at, VALUE_BYTES)).collect();
        let whole = batches.concat();
        let mut rig = Rig::open(dir.path(), zero_copy_from_bytes, features, 1);
        rig.serve(move |stream| {
            batches.iter().for_each(|batch| produce(stream, batch));
            produce(stream, &batch(BATCHES, 100));
        });
        check(&mut rig, &whole, false, zero_copy_from_bytes);
        rig.stop();
        let mut rig = Rig::open(dir.path(), zero_copy_from_bytes, features, 2);
        check(&mut rig, &whole, true, zero_copy_from_bytes);
        rig.stop();
    }
}

#[test]
fn a_core_that_blocks_where_it_submits_is_seen_and_counted_and_one_without_work_rests() {
    const BLOCKED: Duration = Duration::from_millis(300);
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mut rig = Rig::open(dir.path(), usize::MAX, RingFeatures::ALL, 1);
    rig.serve(|stream| {
        produce(stream, &batch(0, 100));
        std::thread::sleep(Duration::from_millis(50));
    });
    let entered = std::mem::take(&mut rig.seen.borrow_mut().entered);
    for call in &entered {
        let phase = if call.submits { Phase::Submitting } else { Phase::Waiting };
        assert_eq!(call.phase, phase, "{call:?}");
        assert!(!call.submits || call.wait <= Duration::from_nanos(SUBMIT_WAIT_NS_MAX), "{call:?}");
    }
    let longest = entered.iter().map(|call| call.wait).max().unwrap();
    assert!(longest > Duration::from_millis(100), "it rests when there is nothing to do: {longest:?}");

    let blocked_us = BLOCKED.as_micros() as u64;
    rig.seen.borrow_mut().block = BLOCKED;
    rig.serve(|stream| produce(stream, &batch(1, 100)));
    let longest_us = rig.metrics().turn_us.max();
    // It may have waited for 10 ms in that call, so the first of them are not told from a wait.
    assert!(longest_us >= blocked_us - SUBMIT_WAIT_NS_MAX / 1000, "{longest_us} us");
    rig.stop();
}

#[test]
fn a_log_that_may_finish_begins_at_once() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let rig = Rig::open(dir.path(), usize::MAX, RingFeatures::ALL, 1);
    let seen = rig.seen.clone();
    rig.stop();
    let entered = std::mem::take(&mut seen.borrow_mut().entered);
    // Of the turn that heard that the log may finish: there is nothing to wait for before the next one, which begins with that.
    assert!(entered[0].wait.is_zero(), "{:?}", entered[0]);
}
