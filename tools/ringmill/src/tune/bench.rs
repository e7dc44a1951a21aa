//! One policy under one load: a broker of its own, a topic of its own, a run that is not disturbed by the one before.

use crate::embedded::{Embedded, Settings};
use crate::exit::{Code, Failed};
use crate::perf::cluster;
use crate::server::Server;
use ringmill_client::admin::NewTopic;
use ringmill_client::client::Absent;
use ringmill_load::{Outcome, Plan, Schedule, Sizes};
use ringmill_reactor::thread::process_cpu_ns;
use ringmill_tune::{Policy, Sample};
use std::fs;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Before a run counts: connections, first batches, the first groups of a core log.
const WARM: Duration = Duration::from_millis(300);
/// Records that a run has at least, for a p99 that is not one of them.
const RECORDS_MIN: f64 = 4000.0;
const SPAN_MAX: Duration = Duration::from_secs(10);
/// A broker that does not keep up is not waited for longer than this many times the span.
const LATE_FACTOR: f64 = 2.5;
/// Less than this part of the load taken is not keeping up.
const KEPT_UP: f64 = 0.97;
/// A first start fills core logs with zeros; it is over when nothing was written for so long.
const QUIET: Duration = Duration::from_millis(400);
const QUIET_WAIT_MAX: Duration = Duration::from_secs(60);
const TIMEOUT: Duration = Duration::from_secs(15);

/// What is sent, whatever the policy.
#[derive(Clone, Debug)]
pub struct Load {
    pub record_bytes: u32,
    pub partitions: i32,
    pub producers: usize,
    pub linger: Duration,
    pub batch_bytes: usize,
    /// Of the latency that is looked at.
    pub quantile: f64,
}

/// What became of a run.
pub enum Ran {
    Sample(Sample),
    /// Not with this policy, and why.
    Failed(String),
    /// Ctrl-C.
    Stopped,
}

pub struct Bench {
    load: Load,
    base: Settings,
    broker: Option<Embedded>,
    /// Topics so far: each run has a new one.
    topics: u64,
    stop: Arc<AtomicBool>,
}

impl Bench {
    /// Starts a broker for the first time and waits until it has filled its core logs.
    pub fn start(load: Load, base: Settings, stop: Arc<AtomicBool>) -> Result<Bench, Failed> {
        let broker = Embedded::start(&settings(&base, None))?;
        let begun = Instant::now();
        let mut last = (written(broker.process_id()), Instant::now());
        while last.1.elapsed() < QUIET && begun.elapsed() < QUIET_WAIT_MAX && !stop.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(50));
            let now = written(broker.process_id());
            if now != last.0 {
                last = (now, Instant::now());
            }
        }
        Ok(Bench { load, base, broker: Some(broker), topics: 0, stop })
    }

    /// How long a run at this load has to be for the quantile to mean something.
    pub fn span(&self, bytes_per_second: f64, wanted: Duration) -> Duration {
        let per_second = (bytes_per_second / f64::from(self.load.record_bytes)).max(1e-3);
        let needed = RECORDS_MIN.max(40.0 / (1.0 - self.load.quantile)) / per_second;
        wanted.max(Duration::from_secs_f64(needed.min(SPAN_MAX.as_secs_f64())))
    }

    /// A fresh run. Without a rate as fast as it goes.
    pub fn run(
        &mut self,
        policy: &Policy,
        bytes_per_second: Option<f64>,
        span: Duration,
    ) -> Result<Ran, Failed> {
        if self.stop.load(Ordering::Relaxed) {
            return Ok(Ran::Stopped);
        }
        let settings = settings(&self.base, Some(policy));
        let broker = match self.broker.take() {
            Some(broker) => broker.again(&settings),
            None => Embedded::start(&settings),
        };
        let broker = match broker {
            Ok(broker) => self.broker.insert(broker),
            Err(_) if self.stop.load(Ordering::Relaxed) => return Ok(Ran::Stopped),
            Err(failure) => return Err(failure),
        };
        let (address, process) = (broker.address.clone(), broker.process_id());
        match self.measure(address, process, bytes_per_second, span) {
            // The broker had the same Ctrl-C.
            _ if self.stop.load(Ordering::Relaxed) => Ok(Ran::Stopped),
            Ok(ran) => Ok(ran),
            Err(failure) if failure.code == Code::Refused => Ok(Ran::Failed(failure.sentence)),
            Err(failure) => Err(failure),
        }
    }

    fn measure(
        &mut self,
        address: String,
        process: u32,
        bytes_per_second: Option<f64>,
        span: Duration,
    ) -> Result<Ran, Failed> {
        let server = Server { bootstrap_server: address, timeout: TIMEOUT };
        self.topics += 1;
        let topic = format!("tune-{}", self.topics);
        let new =
            NewTopic { name: topic.clone(), partitions: Some(self.load.partitions), ..NewTopic::default() };
        server.connect()?.create_topic(&new)?;
        let mut place = cluster::find(&server, &topic, Absent::Create)?;
        let plan = self.plan(&topic, place.targets.clone(), bytes_per_second, span);
        let limit = (WARM + span).mul_f64(LATE_FACTOR) + Duration::from_secs(1);
        let stop = Arc::clone(&self.stop);
        let mut cut = false;
        let before_ns = process_cpu_ns(process);
        let (outcome, result) = ringmill_load::run(&plan, &mut |progress| {
            // Without a rate the time is the end.
            let over = if bytes_per_second.is_some() { limit } else { WARM + span };
            cut = progress.elapsed > over;
            if cut || stop.load(Ordering::Relaxed) {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
        // A broker that ended has failed the run, and then nobody asks.
        let cpu_ns = before_ns.zip(process_cpu_ns(process)).map_or(0, |(from, to)| to.saturating_sub(from));
        // What a topic took on the disk is free before the next run; a broker that is gone has no topics.
        let _ = place.client.delete_topics(&[topic]);
        if let Err(error) = result {
            return Ok(Ran::Failed(error.to_string()));
        }
        if outcome.errors > 0 || outcome.records == 0 {
            return Ok(Ran::Failed(format!("{} records were not taken", outcome.errors)));
        }
        Ok(Ran::Sample(self.sample(&outcome, bytes_per_second, cut, cpu_ns)))
    }

    fn plan(
        &self,
        topic: &str,
        targets: Vec<ringmill_load::Target>,
        bytes_per_second: Option<f64>,
        span: Duration,
    ) -> Plan {
        // As fast as it goes is ended by the clock.
        const UNBOUNDED: u64 = 1 << 40;
        let per_second = bytes_per_second.map(|bytes| bytes / f64::from(self.load.record_bytes));
        let count = |time: Duration| per_second.map_or(0, |rate| (rate * time.as_secs_f64()).max(1.0) as u64);
        let warmup = if per_second.is_some() { count(WARM) } else { 1000 };
        Plan {
            client_id: "ringmill-tune".to_string(),
            schedule: per_second.map_or(Schedule::Unlimited, Schedule::Constant),
            warmup,
            producers: self.load.producers,
            linger: self.load.linger,
            batch_bytes: self.load.batch_bytes,
            timeout: TIMEOUT,
            ..Plan::new(
                topic,
                targets,
                if per_second.is_some() { warmup + count(span).max(1) } else { UNBOUNDED },
                Sizes::Fixed(self.load.record_bytes),
            )
        }
    }

    fn sample(&self, outcome: &Outcome, asked: Option<f64>, cut: bool, cpu_ns: u64) -> Sample {
        let got = outcome.bytes as f64 / outcome.elapsed.as_secs_f64().max(1e-9);
        let bytes = (outcome.bytes + outcome.warmup.bytes).max(1) as f64;
        let kept_up = asked.is_none_or(|asked| !cut && got >= asked * KEPT_UP);
        let tail_ms = outcome.intended.ms(self.load.quantile);
        Sample {
            p50_ms: outcome.intended.ms(0.5),
            // What was not answered at the cut waited at least since the oldest that was.
            tail_ms: if cut && asked.is_some() { tail_ms.max(outcome.intended.max_ms()) } else { tail_ms },
            bytes_per_second: got,
            cpu_seconds_per_gb: cpu_ns as f64 / bytes,
            kept_up,
        }
    }
}

fn settings(base: &Settings, policy: Option<&Policy>) -> Settings {
    let mut settings = base.clone();
    // The broker's own probe and its delayed deletion would fall into somebody's run.
    settings.set.push("log.segment.delete.delay.ms=0".to_string());
    match policy {
        Some(policy) => {
            let keys = policy.settings();
            settings.set.extend(keys.into_iter().map(|(key, value)| format!("{key}={value}")));
        }
        None => settings.set.push("flush.method=fdatasync".to_string()),
    }
    settings
}

/// Bytes that a process has caused to be written.
fn written(process: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{process}/io")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("write_bytes:"));
    line.and_then(|number| number.trim().parse().ok()).unwrap_or(0)
}
