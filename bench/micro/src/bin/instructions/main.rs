//! Fixed requests to one core over the simulated backend, for callgrind to count: `cargo x instructions` runs it.
//!
//! `instructions list` names the cases with the counts of requests to run each with; `instructions CASE COUNT` runs one.
//! Nothing here depends on time or chance, so two runs of one build count the same but for the seeds of hash maps.

#![allow(clippy::unwrap_used)]

mod aside;

use aside::Aside;
use ringmill_bench_micro::frames::{Asked, fetch_frame, produce_frame};
use ringmill_bench_micro::{LogRig, batch, topic};
use ringmill_core::heartbeat::Heartbeat;
use ringmill_core::{ControlMessage, Core, CoreEnds, CoreMessage, CoreSettings};
use ringmill_log::LogOptions;
use ringmill_reactor::Doorbell;
use ringmill_reactor::sim::{ListenerId, SimConn, SimOptions, SimWorld};
use ringmill_types::CoreId;
use ringmill_types::limits::MAILBOX_SLOTS;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

/// As in the binary that is shipped.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Every request of a produce case is the same; so is every one of a fetch case but for its epoch.
#[derive(Clone, Copy)]
enum Case {
    Produce { clients: usize, partitions: usize, records: i32 },
    Fetch { partitions: usize, records: i32, bytes_max: i32 },
}

/// Values of all records.
const VALUE_BYTES: usize = 1000;
/// Batches that lie in each partition before a fetch case begins.
const FETCHED_BATCHES: usize = 16;
const PARTITIONS: i32 = 100;
const TIMESTAMP_MS: i64 = 1_700_000_000_000;
/// No answer takes longer, in the world's time.
const ANSWER_NS_MAX: u64 = 10_000_000_000;

/// Name, case, and how many requests the shorter and the longer run make.
const CASES: [(&str, Case, usize, usize); 7] = [
    ("produce-1-record", Case::Produce { clients: 1, partitions: 1, records: 1 }, 500, 1500),
    ("produce-100-records", Case::Produce { clients: 1, partitions: 1, records: 100 }, 50, 150),
    ("produce-8-clients", Case::Produce { clients: 8, partitions: 1, records: 1 }, 400, 1200),
    ("produce-100-partitions", Case::Produce { clients: 1, partitions: 100, records: 1 }, 20, 60),
    ("fetch-1-record", Case::Fetch { partitions: 1, records: 1, bytes_max: 1 }, 500, 1500),
    ("fetch-1-mebibyte", Case::Fetch { partitions: 1, records: 100, bytes_max: 1 << 20 }, 50, 150),
    ("fetch-100-partitions", Case::Fetch { partitions: 100, records: 1, bytes_max: 2000 }, 20, 60),
];

/// What callgrind counts, by its name, but for what it calls of [`aside`].
#[inline(never)]
fn counted_turn(core: &mut Core<Aside>) {
    core.turn();
}

struct Rig {
    world: SimWorld,
    core: Core<Aside>,
    index: usize,
    listener: ListenerId,
    /// The other ends of the core's queues.
    _to_core: rtrb::Producer<CoreMessage>,
    _from_core: rtrb::Consumer<ControlMessage>,
}

impl Rig {
    fn new() -> Rig {
        let options = SimOptions {
            disk_us: (20, 20),
            net_us: (10, 10),
            stall_ppm: 0,
            stall_us: 0,
            // As loopback hands large pieces over.
            segment_bytes_max: 64 << 10,
            window_bytes: 4 << 20,
            disk_bytes: 4 << 30,
            pool_bytes: 256 << 20,
            release_early: false,
        };
        let world = SimWorld::new(1, options);
        let (index, mut sim) = world.add_core();
        let (socket, listener) = sim.listen();
        let options = LogOptions::new(CoreId(0), PathBuf::from("/data"));
        let LogRig { io, log } = LogRig::open(Aside(sim), options, PARTITIONS);
        let (to_core, from_control) = rtrb::RingBuffer::new(MAILBOX_SLOTS);
        let (to_control, from_core) = rtrb::RingBuffer::new(MAILBOX_SLOTS);
        let ends = CoreEnds { to_control, from_control, control_bell: Doorbell::new().unwrap() };
        let settings = CoreSettings::new(CoreId(0), 1);
        let mut core = Core::new(io, log, settings, ends, Arc::new(Heartbeat::default()), Some(socket));
        core.know(&[topic(PARTITIONS)]);
        Rig { world, core, index, listener, _to_core: to_core, _from_core: from_core }
    }

    fn connect(&self) -> Client {
        Client { conn: self.world.connect(self.listener), received: Vec::new() }
    }

    /// Lets the world go on until every one of them has its answer.
    fn answers(&mut self, clients: &mut [Client]) -> Vec<Vec<u8>> {
        let deadline_ns = self.world.now_ns() + ANSWER_NS_MAX;
        loop {
            for client in clients.iter_mut() {
                client.received.extend(client.conn.recv());
            }
            if clients.iter().all(|client| client.whole().is_some()) {
                return clients.iter_mut().map(|client| client.take()).collect();
            }
            assert!(self.world.now_ns() < deadline_ns, "a core that does not answer");
            if self.world.is_runnable(self.index) {
                counted_turn(&mut self.core);
            } else {
                self.world.advance(deadline_ns);
            }
        }
    }

    fn produce(&mut self, clients: &mut [Client], frame: &[u8]) {
        for client in clients.iter() {
            client.send(frame);
        }
        // Correlation id, no tags, one topic by name, its partitions, the index of the first, its error.
        const ERROR_AT: usize = 4 + 1 + 1 + 6 + 1 + 4;
        for answer in self.answers(clients) {
            assert_eq!(answer.get(ERROR_AT..ERROR_AT + 2), Some(&[0, 0][..]), "a batch was refused");
        }
    }

    fn run(&mut self, case: Case, count: usize) {
        match case {
            Case::Produce { clients, partitions, records } => {
                let frame = produce_frame(partitions, &batch(records, VALUE_BYTES, TIMESTAMP_MS));
                let mut clients: Vec<Client> = (0..clients).map(|_| self.connect()).collect();
                for _ in 0..count / clients.len() {
                    self.produce(&mut clients, &frame);
                }
            }
            Case::Fetch { partitions, records, bytes_max } => {
                let mut clients = [self.connect()];
                let records = batch(records, VALUE_BYTES, TIMESTAMP_MS);
                let frame = produce_frame(partitions, &records);
                for _ in 0..FETCHED_BATCHES {
                    self.produce(&mut clients, &frame);
                }
                let asked = vec![Asked { offset: 0, bytes_max }; partitions];
                let batches = (bytes_max as usize / records.len()).clamp(1, FETCHED_BATCHES);
                let mut session = (0, 0);
                for _ in 0..count {
                    for client in &clients {
                        client.send(&fetch_frame(session, &asked));
                    }
                    for answer in self.answers(&mut clients) {
                        assert!(
                            answer.len() >= partitions * batches * records.len(),
                            "{} bytes",
                            answer.len()
                        );
                        // After the correlation id, no tags, the throttle time and the error.
                        let id = answer.get(11..15).unwrap().try_into().unwrap();
                        session = (i32::from_be_bytes(id), session.1 + 1);
                    }
                }
                assert!(session.0 != 0, "a session was opened");
            }
        }
    }
}

struct Client {
    conn: SimConn,
    received: Vec<u8>,
}

impl Client {
    fn send(&self, frame: &[u8]) {
        let mut bytes = (frame.len() as u32).to_be_bytes().to_vec();
        bytes.extend_from_slice(frame);
        self.conn.send(&bytes);
    }

    /// Where the first answer ends, once all of it is here.
    fn whole(&self) -> Option<usize> {
        let prefix: [u8; 4] = self.received.get(..4)?.try_into().ok()?;
        let end = 4 + u32::from_be_bytes(prefix) as usize;
        (self.received.len() >= end).then_some(end)
    }

    /// The answer without its prefix.
    fn take(&mut self) -> Vec<u8> {
        let end = self.whole().unwrap_or(0);
        let answer: Vec<u8> = self.received.drain(..end).collect();
        answer.get(4..).unwrap_or_default().to_vec()
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["list"] => {
            for (name, _, few, many) in CASES {
                println!("{name} {few} {many}");
            }
        }
        [name, count] => {
            let case = CASES.iter().find(|(known, ..)| known == name);
            let (Some((_, case, ..)), Ok(count)) = (case, count.parse()) else {
                eprintln!("no case {name} {count}: `instructions list` names them");
                return ExitCode::FAILURE;
            };
            Rig::new().run(*case, count);
        }
        _ => {
            eprintln!("usage: instructions list | CASE COUNT");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
