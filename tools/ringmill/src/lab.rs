//! Runs against a broker of our own, with everything counted: what `calibrate` learns from and `plan --verify` checks.
//!
//! A lab owns an embedded broker with as many cores as leave the generator a CPU. Every run has a topic of its own; what the
//! broker did is the difference of two looks at its metrics. A run does not pay for the one before: its topic is deleted,
//! its files are gone with all of their blocks at once, and the file system has committed and discarded them, before the
//! next one begins. Nor does it pay for the broker's first minute, in which core logs are filled with zeros:
//! [`Lab::warm`] waits for the end of that.

use crate::embedded::{Embedded, Settings};
use crate::exit::{Code, Failed};
use crate::neighbours::Stretch;
use crate::perf::{failed, resolve};
use crate::prometheus::Metrics;
use crate::server;
use ringmill_client::admin::NewTopic;
use ringmill_client::client::Absent;
use ringmill_client::{Client, Options};
use ringmill_load::{ConsumePlan, Consumed, Payload, Plan, Schedule, Sizes, Target, Terms};
use ringmill_plan::calibration::Run;
use ringmill_plan::fit::Flushes;
use ringmill_plan::{Load, NAP_US, Quantiles};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const TIMEOUT: Duration = Duration::from_secs(30);
/// The first part of a run: connections, first batches, growing buffers, the first segments of its partitions.
const WARM_PART: f64 = 0.3;
/// A generator that naps for less uses a whole CPU of a machine that it shares with the broker.
const NAP: Duration = Duration::from_micros(NAP_US);
/// Runs until the core log has its full size: so many at most.
const WARM_RUNS_MAX: usize = 10;
const WARM_SECONDS: f64 = 1.5;
/// Blocks of removed files come back at once: step by step, as by default, it would be beside the next runs.
const REMOVE_AT_ONCE: &str = "log.segment.delete.delay.ms=0";
/// For what a run left to be written behind it.
const SETTLE_MAX: Duration = Duration::from_secs(10);
const SETTLE_STEP: Duration = Duration::from_millis(20);

/// A broker to measure.
pub struct Lab {
    broker: Embedded,
    client: Client,
    stop: Arc<AtomicBool>,
    runs: u32,
    /// Folders of partitions before the first run.
    folders: usize,
    since_start: Stretch,
}

/// What a run gave.
pub struct Measured {
    pub run: Run,
    /// Of its flushes, those after the warm-up.
    pub flushes: Option<Flushes>,
    /// Of the broker, at its end.
    pub resident_bytes: f64,
    pub read: Option<Reading>,
}

/// What the readers of a run did.
pub struct Reading {
    pub records: f64,
    pub fetches: f64,
    pub bytes: f64,
    pub cpu_s: f64,
    pub core_cpu_s: f64,
    pub seconds: f64,
}

/// A number of the broker's metrics page, summed over its cores.
fn total(metrics: &Metrics, name: &str) -> f64 {
    metrics.sum(name, &[]).unwrap_or(0.0)
}

/// What happened to the broker between two looks at its metrics page.
struct Between {
    before: Metrics,
    after: Metrics,
}

impl Between {
    fn added(&self, name: &str) -> f64 {
        total(&self.after, name) - total(&self.before, name)
    }

    /// How long the flushes took, µs.
    fn flushes(&self) -> Option<Quantiles> {
        let of = |metrics: &Metrics| metrics.histogram("ringmill_flush_seconds", &[]);
        let added = of(&self.after).since(&of(&self.before));
        let buckets: Vec<(f64, f64)> =
            added.buckets().iter().map(|(bound, count)| (bound * 1e6, *count)).collect();
        Quantiles::of_buckets(&buckets)
    }

    /// All of them, in so many seconds.
    fn all_flushes(&self, seconds: f64) -> Option<Flushes> {
        let count = self.added("ringmill_flush_seconds_count");
        Some(Flushes { times: self.flushes()?, count, seconds })
    }
}

impl Lab {
    /// Starts a broker with `cores` cores and a folder below `parent`.
    ///
    /// # Errors
    /// A sentence, when none comes up.
    pub fn start(parent: Option<PathBuf>, cores: usize, stop: Arc<AtomicBool>) -> Result<Lab, Failed> {
        let set = vec![REMOVE_AT_ONCE.to_string()];
        let settings = Settings { cores: Some(cores.to_string()), parent, set, ..Settings::default() };
        let broker = Embedded::start(&settings)?;
        let options = Options { timeout: TIMEOUT, connect_timeout: TIMEOUT, ..Options::default() };
        let client = Client::connect(&broker.address, options)?;
        let folders = folders_of(&broker);
        let since_start = Stretch::begin(&[broker.process_id()]);
        Ok(Lab { broker, client, stop, runs: 0, folders, since_start })
    }

    /// CPUs that other processes have used since the lab's start.
    pub fn others_cpus(&self) -> f64 {
        self.since_start.others_cpus()
    }

    /// Runs a load until the broker's core log has the size that it keeps: making it is work of the first runs only.
    ///
    /// # Errors
    /// As [`Lab::run`].
    pub fn warm(&mut self, load: &Load) -> Result<(), Failed> {
        let mut before = 0.0;
        for _ in 0..WARM_RUNS_MAX {
            self.run("warm", load, WARM_SECONDS, 0, false)?;
            let now = total(&self.metrics()?, "ringmill_core_log_capacity_bytes");
            if now <= before {
                break;
            }
            before = now;
        }
        Ok(())
    }

    /// Waits until what was deleted is gone, also for the file system: giving space back keeps flushes waiting.
    fn cleared(&self) -> Result<(), Failed> {
        let until = Instant::now() + SETTLE_MAX;
        let left = |lab: &Lab| -> Result<bool, Failed> {
            Ok(folders_of(&lab.broker) > lab.folders
                || total(&lab.metrics()?, "ringmill_data_removed_bytes") > 0.0)
        };
        while left(self)? && Instant::now() < until {
            self.check_stop()?;
            std::thread::sleep(SETTLE_STEP);
        }
        let wrong = |error: std::io::Error| Failed::local(self.broker.folder().display(), &error);
        let folder = std::fs::File::open(self.broker.folder()).map_err(wrong)?;
        // Twice: what the first commit freed is discarded behind it.
        for _ in 0..2 {
            rustix::fs::syncfs(&folder).map_err(|errno| wrong(errno.into()))?;
        }
        Ok(())
    }

    fn metrics(&self) -> Result<Metrics, Failed> {
        metrics_at(&self.broker.admin)
    }

    /// Waits until the broker has written behind what it took, so that a run does not pay for the one before.
    fn settle(&self) -> Result<(), Failed> {
        let until = Instant::now() + SETTLE_MAX;
        while total(&self.metrics()?, "ringmill_destage_lag_bytes") > 0.0 && Instant::now() < until {
            self.check_stop()?;
            std::thread::sleep(SETTLE_STEP);
        }
        Ok(())
    }

    fn check_stop(&self) -> Result<(), Failed> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(Failed::new(Code::Interrupted, "stopped"));
        }
        Ok(())
    }

    /// Runs a load for `seconds`, with `readers` that each read everything as it comes, or afterwards where `reread`.
    ///
    /// # Errors
    /// A sentence, when the broker does not take it.
    pub fn run(
        &mut self,
        name: &str,
        load: &Load,
        seconds: f64,
        readers: usize,
        reread: bool,
    ) -> Result<Measured, Failed> {
        self.check_stop()?;
        self.runs += 1;
        let topic = format!("lab-{}", self.runs);
        let partitions = i32::try_from(load.partitions).unwrap_or(i32::MAX);
        let new = NewTopic { name: topic.clone(), partitions: Some(partitions), ..Default::default() };
        self.client.create_topic(&new)?;
        self.settle()?;
        let measured = self.run_on(&topic, name, load, seconds, readers, reread);
        let deleted = self.client.delete_topics(std::slice::from_ref(&topic));
        let measured = measured?;
        deleted?;
        self.cleared()?;
        Ok(measured)
    }

    fn targets(&mut self, topic: &str) -> Result<Vec<Target>, Failed> {
        let found = self.client.topic(topic, Absent::Leave)?;
        let leader = resolve(&self.broker.address)?;
        Ok(found.partitions.iter().map(|p| Target { partition: p.index, leader }).collect())
    }

    fn run_on(
        &mut self,
        topic: &str,
        name: &str,
        load: &Load,
        seconds: f64,
        readers: usize,
        reread: bool,
    ) -> Result<Measured, Failed> {
        let targets = self.targets(topic)?;
        let plan = produce_plan(topic, targets.clone(), load, seconds);
        let before = self.metrics()?;
        let sleeps = (own_sleeps(), core_sleeps(self.broker.process_id()));
        let began = Instant::now();
        let ended = AtomicBool::new(false);
        let reading = (readers > 0 && !reread).then(|| consume_plan(topic, &targets, readers));
        let (stop, admin) = (&self.stop, self.broker.admin.as_str());
        let warm = Duration::from_secs_f64(seconds * WARM_PART);
        let (outcome, result, live, warmed) = std::thread::scope(|scope| {
            let ended = &ended;
            let warmed = scope.spawn(move || metrics_after(admin, warm));
            let reader = reading.as_ref().map(|reading| {
                scope.spawn(move || ringmill_load::consume(reading, &mut |_| go_on(stop, Some(ended))))
            });
            let (outcome, result) = ringmill_load::run(&plan, &mut |_| go_on(stop, None));
            ended.store(true, Ordering::Relaxed);
            let live = reader.and_then(|reader| reader.join().ok());
            (outcome, result, live, warmed.join().ok().flatten())
        });
        let span = began.elapsed().as_secs_f64();
        let sleeps = (own_sleeps() - sleeps.0, core_sleeps(self.broker.process_id()) - sleeps.1);
        result.map_err(failed)?;
        self.check_stop()?;
        let after = self.metrics()?;
        let warmed = warmed.map(|before| Between { before, after: after.clone() });
        let flushes = warmed.and_then(|between| between.all_flushes(span - warm.as_secs_f64()));
        let between = Between { before, after };
        let (mut read, mut readers_here) = (None, 0);
        if let Some((consumed, result)) = live {
            result.map_err(failed)?;
            read = Some(reading_of(&consumed, 0.0));
            readers_here = readers as u32;
        }
        if reread && readers > 0 {
            read = Some(self.reread(topic, &targets, outcome.records + outcome.warmup.records)?);
        }
        let groups = between.added("ringmill_flush_seconds_count");
        let run = Run {
            name: name.to_string(),
            record_bytes: load.record_bytes,
            partitions: load.partitions,
            producers: load.producers,
            readers: readers_here,
            linger_us: load.linger_us,
            batch_bytes: load.batch_bytes,
            asked: load.rate.unwrap_or(0.0),
            seconds: span,
            records: (outcome.records + outcome.warmup.records) as f64,
            wire_bytes: outcome.wire_bytes as f64,
            requests: outcome.requests as f64,
            batches: outcome.batches as f64,
            groups,
            group_bytes: between.added("ringmill_flush_group_bytes_sum"),
            client_turns: outcome.turns as f64,
            core_turns: between.added("ringmill_core_turns_total"),
            client_sleeps: sleeps.0,
            core_sleeps: sleeps.1,
            client_cpu_s: outcome.cpu.as_secs_f64(),
            core_cpu_s: between.added("ringmill_core_cpu_seconds_total"),
            broker_cpu_s: between.added("process_cpu_seconds_total"),
            flush_mean_us: between.added("ringmill_flush_seconds_sum") * 1e6 / groups.max(1.0),
            rate: rate_of(&outcome, load, seconds),
            p50_ms: outcome.intended.ms(0.5),
            p99_ms: outcome.intended.ms(0.99),
        };
        let resident_bytes = total(&between.after, "process_resident_memory_bytes");
        Ok(Measured { run, flushes, resident_bytes, read })
    }

    /// Reads what was just written once more, by one reader.
    fn reread(&mut self, topic: &str, targets: &[Target], records: u64) -> Result<Reading, Failed> {
        let mut plan = consume_plan(topic, targets, 1);
        plan.records = Some(records);
        let before = self.metrics()?;
        let stop = &self.stop;
        let (consumed, result) = ringmill_load::consume(&plan, &mut |_| go_on(stop, None));
        result.map_err(failed)?;
        let between = Between { before, after: self.metrics()? };
        Ok(reading_of(&consumed, between.added("ringmill_core_cpu_seconds_total")))
    }
}

/// What the broker with this admin port has counted.
fn metrics_at(admin: &str) -> Result<Metrics, Failed> {
    let body = server::get(admin, "/metrics", TIMEOUT);
    let body = body.map_err(|error| Failed::local("the metrics of the embedded broker", &error))?;
    Ok(Metrics::parse(&String::from_utf8_lossy(&body)))
}

/// The same when so much time is over; none where it cannot be had.
fn metrics_after(admin: &str, wait: Duration) -> Option<Metrics> {
    std::thread::sleep(wait);
    metrics_at(admin).ok()
}

/// Records per second once the run was warm.
fn rate_of(outcome: &ringmill_load::Outcome, load: &Load, seconds: f64) -> f64 {
    if load.rate.is_some() {
        return outcome.records as f64 / outcome.elapsed.as_secs_f64().max(1e-9);
    }
    // Without a schedule nothing is warm-up by count: the first stretches are left out, and the last ones, in which the
    // buffer only drains.
    let width = outcome.timeline.stretch().as_secs_f64();
    let stretches = outcome.timeline.stretches();
    let first = (seconds * WARM_PART / width).ceil() as usize;
    let last = ((seconds / width).floor() as usize).min(stretches.len());
    let counted = stretches.get(first..last).unwrap_or_default();
    if counted.is_empty() {
        return outcome.records as f64 / outcome.elapsed.as_secs_f64().max(1e-9);
    }
    counted.iter().map(|s| s.records).sum::<u64>() as f64 / (counted.len() as f64 * width)
}

/// Folders below the broker's topics.
fn folders_of(broker: &Embedded) -> usize {
    std::fs::read_dir(broker.folder().join("topics")).map_or(0, Iterator::count)
}

/// How often a thread waited for something, from the text of its `status` in /proc.
fn sleeps_in(status: &str) -> Option<f64> {
    status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?.trim().parse().ok()
}

/// How often the calling thread waited for something.
fn own_sleeps() -> f64 {
    std::fs::read_to_string("/proc/thread-self/status").ok().and_then(|text| sleeps_in(&text)).unwrap_or(0.0)
}

/// How often the core threads of a broker did.
fn core_sleeps(process: u32) -> f64 {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{process}/task")) else { return 0.0 };
    let texts = threads.flatten().filter_map(|thread| {
        let name = std::fs::read_to_string(thread.path().join("comm")).ok()?;
        name.starts_with("core-").then(|| std::fs::read_to_string(thread.path().join("status")).ok())?
    });
    texts.filter_map(|text| sleeps_in(&text)).sum()
}

fn reading_of(consumed: &Consumed, core_cpu_s: f64) -> Reading {
    Reading {
        records: consumed.records as f64,
        fetches: consumed.fetches as f64,
        bytes: consumed.bytes as f64,
        cpu_s: consumed.cpu.as_secs_f64(),
        core_cpu_s,
        seconds: consumed.elapsed.as_secs_f64(),
    }
}

fn produce_plan(topic: &str, targets: Vec<Target>, load: &Load, seconds: f64) -> Plan {
    let warm = load.rate.map_or(0, |rate| (rate * seconds * WARM_PART) as u64);
    Plan {
        client_id: "ringmill-lab".into(),
        schedule: load.rate.map_or(Schedule::Unlimited, Schedule::Constant),
        span: Some(Duration::from_secs_f64(seconds)),
        warmup: warm,
        payload: Payload::Letters(Sizes::Fixed(load.record_bytes)),
        producers: load.producers as usize,
        linger: Duration::from_nanos((load.linger_us * 1e3) as u64),
        batch_bytes: load.batch_bytes as usize,
        request_bytes: load.request_bytes as usize,
        buffer_bytes: usize::try_from(load.buffer_bytes).unwrap_or(usize::MAX),
        in_flight_max: load.in_flight as usize,
        timeout: TIMEOUT,
        nap_min: NAP,
        ..Plan::new(topic, targets, u64::MAX >> 1, Sizes::Fixed(load.record_bytes))
    }
}

/// `readers` that each read every partition from the beginning.
fn consume_plan(topic: &str, targets: &[Target], readers: usize) -> ConsumePlan {
    let all: Vec<_> = targets
        .iter()
        .map(|t| ringmill_load::Source { partition: t.partition, leader: t.leader, offset: 0 })
        .collect();
    ConsumePlan {
        terms: Terms {
            topic: topic.to_string(),
            client_id: "ringmill-lab".into(),
            wait_ms: 500,
            bytes_min: 1,
            bytes_max: 50 << 20,
            partition_bytes_max: 1 << 20,
        },
        consumers: vec![all; readers],
        records: None,
        total: None,
        quiet: None,
        timeout: TIMEOUT,
        socket_buffer: None,
        check_crcs: true,
        stamp: None,
        start_ns: 0,
    }
}

fn go_on(stop: &AtomicBool, ended: Option<&AtomicBool>) -> ControlFlow<()> {
    if stop.load(Ordering::Relaxed) || ended.is_some_and(|ended| ended.load(Ordering::Relaxed)) {
        ControlFlow::Break(())
    } else {
        ControlFlow::Continue(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_of_a_thread_are_those_that_the_kernel_counts() {
        assert_eq!(
            sleeps_in("Name:\tx\nvoluntary_ctxt_switches:\t17\nnonvoluntary_ctxt_switches:\t3\n"),
            Some(17.0)
        );
        assert_eq!(sleeps_in("Name:\tx\n"), None);
        let before = own_sleeps();
        (0..5).for_each(|_| std::thread::sleep(Duration::from_millis(1)));
        assert!(own_sleeps() >= before + 5.0);
    }

    #[test]
    fn metrics_are_summed_over_cores_and_parted_by_api() {
        let text = "# HELP x\nringmill_core_turns_total{core=\"0\"} 5\nringmill_core_turns_total{core=\"1\"} 7\n\
                    ringmill_requests_total{core=\"0\",api=\"Produce\"} 3\nprocess_cpu_seconds_total 1.5\n\
                    ringmill_flush_seconds_bucket{core=\"0\",le=\"0.000127\"} 1\n\
                    ringmill_flush_seconds_bucket{core=\"0\",le=\"0.000255\"} 5\n\
                    ringmill_flush_seconds_bucket{core=\"0\",le=\"+Inf\"} 5\nnonsense\n";
        let between = Between { before: Metrics::parse(""), after: Metrics::parse(text) };
        assert_eq!(between.added("ringmill_core_turns_total"), 12.0);
        assert_eq!(between.after.sum("ringmill_requests_total", &[("api", "Produce")]), Some(3.0));
        let flushes = between.flushes().expect("five flushes");
        assert!((flushes.at(1.0) - 255.0).abs() < 1e-6 && (flushes.at(0.2) - 127.0).abs() < 1e-6);
        let again = Between { before: Metrics::parse(text), after: Metrics::parse(text) };
        assert!(again.flushes().is_none() && again.added("ringmill_core_turns_total") == 0.0);
    }
}
