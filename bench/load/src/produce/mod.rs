//! Producers: what they are to send, and what came of it.

mod engine;
mod queue;

use crate::batch::Identity;
use crate::compress::Compress;
use crate::error::LoadError;
use crate::latency::Latency;
use crate::records::{Keys, Payload, Sizes};
use crate::schedule::Schedule;
use crate::stamp::{STAMP_BYTES, Stamp};
use crate::timeline::Timeline;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::time::Duration;

/// Producers times partitions: each pair has a queue.
const QUEUES_MAX: usize = 20_000_000;

/// A partition and who leads it.
#[derive(Clone, Debug)]
pub struct Target {
    pub partition: i32,
    pub leader: SocketAddr,
}

/// Where records without a key go, and all of them where keys are ignored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Partitioner {
    /// A batch for one partition, then for the next, as Kafka's default does.
    #[default]
    Sticky,
    /// Each record to the next partition.
    RoundRobin,
}

/// What to send. [`Plan::new`] has Kafka's defaults.
#[derive(Clone, Debug)]
pub struct Plan {
    pub topic: String,
    pub client_id: String,
    pub targets: Vec<Target>,
    pub schedule: Schedule,
    /// All of them, the warm-up included.
    pub records: u64,
    /// No record is made after this time; what was made is still sent and answered.
    pub span: Option<Duration>,
    /// The first that do not count.
    pub warmup: u64,
    pub keys: Keys,
    pub payload: Payload,
    pub partitioner: Partitioner,
    /// Keyed records are placed like the others.
    pub ignore_keys: bool,
    /// Producers, each with a connection to every leader; records go to them in turn.
    pub producers: usize,
    /// 0, 1 or -1.
    pub acks: i16,
    pub linger: Duration,
    /// A batch of this size leaves at once.
    pub batch_bytes: usize,
    /// Batches for one leader go together up to this size.
    pub request_bytes: usize,
    /// What one producer holds until it is answered; then its records wait, with their time running.
    pub buffer_bytes: usize,
    /// Requests of one connection without an answer.
    pub in_flight_max: usize,
    pub compress: Compress,
    /// One per producer, or none: then nobody is idempotent.
    pub identities: Vec<Identity>,
    pub retries: u32,
    pub retry_backoff: Duration,
    /// A batch that is older is not tried again.
    pub delivery: Duration,
    /// No answer for this long ends the run.
    pub timeout: Duration,
    pub socket_buffer: Option<u32>,
    /// Between two looks at the schedule there is at least this, unless an answer comes: a thread that sleeps for each of
    /// many records uses a whole CPU, which a broker beside it may need. A record that is due meanwhile is made later,
    /// its wait counted.
    pub nap_min: Duration,
    /// Written into each value, for a reader to tell how long it took.
    pub stamp: Option<Stamp>,
    pub seed: u64,
}

impl Plan {
    pub fn new(topic: &str, targets: Vec<Target>, records: u64, sizes: Sizes) -> Plan {
        Plan {
            topic: topic.to_string(),
            client_id: "perf-producer-client".to_string(),
            targets,
            schedule: Schedule::Unlimited,
            records,
            span: None,
            warmup: 0,
            keys: Keys::None,
            payload: Payload::Letters(sizes),
            partitioner: Partitioner::Sticky,
            ignore_keys: false,
            producers: 1,
            acks: -1,
            linger: Duration::from_millis(5),
            batch_bytes: 16 << 10,
            request_bytes: 1 << 20,
            buffer_bytes: 32 << 20,
            in_flight_max: 5,
            compress: Compress::default(),
            identities: Vec::new(),
            retries: u32::MAX,
            retry_backoff: Duration::from_millis(100),
            delivery: Duration::from_secs(120),
            timeout: Duration::from_secs(30),
            socket_buffer: None,
            nap_min: Duration::ZERO,
            stamp: None,
            seed: 1,
        }
    }

    fn check(&self) -> Result<(), LoadError> {
        let sizes_min = match &self.payload {
            Payload::Letters(sizes) => sizes.min() as usize,
            Payload::Lines(_) | Payload::Counting => 0,
        };
        let problem = if self.targets.is_empty() {
            "there is no partition to send to"
        } else if self.records == 0 || self.warmup >= self.records {
            "the number of records must be above that of the warm-up"
        } else if self.producers == 0 || self.in_flight_max == 0 {
            "producers and requests in flight are at least 1"
        } else if self.producers.saturating_mul(self.targets.len()) > QUEUES_MAX {
            "producers times partitions is above 20,000,000: fewer of one of them"
        } else if !(-1..=1).contains(&self.acks) {
            "acks are 0, 1 or -1"
        } else if self.batch_bytes > 64 << 20 || self.request_bytes > 512 << 20 {
            "batches are at most 64 MiB, requests 512 MiB"
        } else if !self.identities.is_empty() && self.identities.len() != self.producers {
            "every producer needs an id of its own, or none has one"
        } else if !self.identities.is_empty() && (self.acks != -1 || self.in_flight_max > 5) {
            "idempotent producers have acks=all and at most 5 requests in flight"
        } else if self.stamp.is_some() && sizes_min < STAMP_BYTES {
            "records that carry their send time are at least 24 bytes"
        } else {
            return Ok(());
        };
        Err(LoadError::Plan(problem.into()))
    }
}

/// What came of a run. Counts and times leave the warm-up out, but for `errors`, `retries` and `requests`.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Acked, or with acks 0 handed to the kernel.
    pub records: u64,
    /// Of their values.
    pub bytes: u64,
    /// Records that were not taken.
    pub errors: u64,
    /// The code of the first one.
    pub first_error: Option<i16>,
    /// Batches sent again.
    pub retries: u64,
    pub requests: u64,
    /// Rounds of the generator's loop: what it costs when there is little to do is theirs.
    pub turns: u64,
    /// Batches sent, those sent again included.
    pub batches: u64,
    /// Bytes of batches on the wire, compressed where that was asked for.
    pub wire_bytes: u64,
    /// From the first intended time that counts to the last answer.
    pub elapsed: Duration,
    /// From when a record was meant to be sent.
    pub intended: Latency,
    /// From when its request was handed to the kernel.
    pub actual: Latency,
    pub warmup: Warmup,
    pub timeline: Timeline,
    /// CPU of this thread, warm-up included.
    pub cpu: Duration,
    /// Of the monotonic clock.
    pub start_ns: u64,
}

/// What is left out of the rest.
#[derive(Clone, Debug, Default)]
pub struct Warmup {
    pub records: u64,
    pub bytes: u64,
    /// From the start to the first intended time that counts.
    pub elapsed: Duration,
    pub intended: Latency,
}

/// The state of a run, some times a second.
#[derive(Clone, Copy, Debug)]
pub struct Progress<'a> {
    /// Answered, whatever the answer, the warm-up included.
    pub done: u64,
    pub records: u64,
    pub elapsed: Duration,
    pub outcome: &'a Outcome,
}

/// Runs a plan to its end, until `watch` breaks, or to the first failure; what was measured comes back either way.
pub fn run(
    plan: &Plan,
    watch: &mut dyn FnMut(Progress<'_>) -> ControlFlow<()>,
) -> (Outcome, Result<(), LoadError>) {
    match plan.check() {
        Ok(()) => engine::run(plan, watch),
        Err(error) => (Outcome::default(), Err(error)),
    }
}
