//! `ringmill perf e2e` and `ringmill perf mixed`: producers and consumers at once, in two threads with a ring each.
//!
//! A record carries the time at which it was meant to be sent; both threads read the same clock.

use super::cluster::{self, Against};
use super::consume::{deal, sources};
use super::consumer_properties::ConsumerProperties;
use super::cpu::BrokerCpu;
use super::produce::{facts, report, say, table};
use super::report::{Files, Series};
use super::sending::Sending;
use super::{failed, quantiles};
use crate::exit::{Code, Failed};
use crate::output::{Out, grouped};
use clap::Args;
use ringmill_client::admin::{EARLIEST, LATEST};
use ringmill_load::{ConsumePlan, Consumed, LoadError, Outcome, Plan, Stamp, Terms};
use std::io::{self, IsTerminal};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Producers have ended.
const UNKNOWN: u64 = u64::MAX;

/// End to end, or both sides at once.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Ends when everything was delivered.
    EndToEnd,
    /// Ends with the producers.
    Mixed,
}

/// Flags of both sides. Plaintext only.
#[derive(Args)]
pub struct EndToEnd {
    #[command(flatten)]
    against: Against,
    #[command(flatten)]
    sending: Sending,
    /// Consumers, each with connections of its own; the partitions are dealt out among them
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    consumers: u32,
    /// Every consumer reads every partition
    #[arg(long)]
    fan_out: bool,
    /// Consumers begin with the oldest records, not with those of this run
    #[arg(long)]
    from_beginning: bool,
    /// Consumer settings as Kafka names them: fetch.min.bytes, fetch.max.wait.ms, …
    #[arg(long, value_name = "KEY=VALUE", num_args = 1.., action = clap::ArgAction::Append)]
    consumer_property: Vec<String>,
    #[command(flatten)]
    files: Files,
}

impl EndToEnd {
    pub fn run(self, kind: Kind) -> Result<(), Failed> {
        let properties = self.sending.properties()?;
        let reading = ConsumerProperties::parse(&self.consumer_property);
        let reading = reading.map_err(|e| Failed::new(Code::Usage, e))?;
        self.files.check()?;
        let stop = cluster::stop_on_signals()?;
        let (server, _own) = self.against.broker(properties.bootstrap.as_deref())?;
        let mut place = self.sending.place(&server)?;
        let mut plan = self.sending.plan(&mut place, &properties, self.against.timeout)?;
        let stamp = Stamp { run: ringmill_reactor::thread::monotonic_ns() };
        plan.stamp = Some(stamp);
        let from = if self.from_beginning { EARLIEST } else { LATEST };
        let sources = sources(&mut place, from)?;
        let count = self.consumers as usize;
        let consumers =
            if self.fan_out { vec![sources; count] } else { deal(&self.sending.topic, &sources, count)? };
        let consume = ConsumePlan {
            terms: Terms {
                topic: self.sending.topic.clone(),
                client_id: reading.client_id.clone(),
                wait_ms: reading.wait_ms,
                bytes_min: reading.bytes_min,
                bytes_max: reading.bytes_max,
                partition_bytes_max: reading.partition_bytes_max,
            },
            consumers,
            records: None,
            total: None,
            quiet: None,
            timeout: reading.request_timeout,
            socket_buffer: None,
            check_crcs: reading.check_crcs,
            stamp: Some(stamp),
            start_ns: 0,
        };
        let copies = if self.fan_out { count as u64 } else { 1 };
        let broker_cpu = BrokerCpu::of(&place.targets);
        let both = Both { kind, copies, stop: &stop, live: !self.files.json && io::stderr().is_terminal() };
        let (sent, read) = both.run(&plan, &consume);
        let broker_seconds = broker_cpu.and_then(|cpu| cpu.seconds());
        self.tell(kind, sent, read, copies, broker_seconds, stop.load(Ordering::Relaxed))
    }

    fn consumed_json(&self, consumed: &Consumed) -> serde_json::Value {
        let seconds = consumed.elapsed.as_secs_f64().max(1e-9);
        serde_json::json!({
            "records": consumed.records,
            "bytes": consumed.bytes,
            "fetches": consumed.fetches,
            "retries": consumed.retries,
            "consumers": self.consumers,
            "elapsed_seconds": consumed.elapsed.as_secs_f64(),
            "records_per_second": consumed.records as f64 / seconds,
            "megabytes_per_second": consumed.bytes as f64 / 1e6 / seconds,
            "client_cpu_seconds": consumed.cpu.as_secs_f64(),
        })
    }

    fn tell(
        &self,
        kind: Kind,
        (outcome, sent): (Outcome, Result<(), LoadError>),
        (consumed, read): (Consumed, Result<(), LoadError>),
        copies: u64,
        broker_seconds: Option<f64>,
        stopped: bool,
    ) -> Result<(), Failed> {
        if sent.is_err() && outcome.requests == 0 {
            // There are no results so far.
            return self.sending.verdict(&outcome, sent);
        }
        let expected = (outcome.records + outcome.warmup.records) * copies;
        let missing = expected.saturating_sub(consumed.stamped);
        let whole = kind == Kind::Mixed || missing == 0;
        let complete = sent.is_ok() && read.is_ok() && whole && !stopped;
        let report = report(&self.sending, &outcome, complete, broker_seconds);
        let mut out = Out::new();
        if self.files.json {
            out.json_pretty(&serde_json::json!({
                "produce": report,
                "consume": self.consumed_json(&consumed),
                "delivered": consumed.delivery.count(),
                "not_delivered": missing,
                "delivery_ms": quantiles(&consumed.delivery),
                "complete": complete,
            }))?;
        } else {
            let columns = [
                ("delivered", &consumed.delivery),
                ("acked, intended", &outcome.intended),
                ("acked, actual", &outcome.actual),
            ];
            table(&mut out, &columns)?;
            out.line("")?;
            say(&mut out, &report, &outcome)?;
            out.line(consumed_line(&consumed))?;
        }
        let series = [
            Series::new("from intended time to delivery", "delivery", &consumed.delivery)
                .over(&consumed.timeline),
            Series::new("to ack, from intended time", "intended", &outcome.intended).over(&outcome.timeline),
            Series::new("to ack, from actual send", "actual", &outcome.actual),
        ];
        let name = if kind == Kind::EndToEnd { "perf e2e" } else { "perf mixed" };
        self.files.write(name, &series, &facts(&report), outcome.start_ns)?;
        out.finish()?;
        self.sending.verdict(&outcome, sent)?;
        read.map_err(failed)?;
        if stopped {
            return Err(Failed::said(Code::Interrupted));
        }
        if !whole {
            let why =
                format!("{} of {} records were not delivered in time", grouped(missing), grouped(expected));
            return Err(Failed::new(Code::Refused, why));
        }
        Ok(())
    }
}

fn consumed_line(consumed: &Consumed) -> String {
    let seconds = consumed.elapsed.as_secs_f64().max(1e-9);
    format!(
        "read {} records, {:.1}/s, {:.1} MB/s in {} fetches, CPU {:.2} s",
        grouped(consumed.records),
        consumed.records as f64 / seconds,
        consumed.bytes as f64 / 1e6 / seconds,
        grouped(consumed.fetches),
        consumed.cpu.as_secs_f64()
    )
}

/// Both sides of a run.
struct Both<'a> {
    kind: Kind,
    /// How often each record is read.
    copies: u64,
    stop: &'a AtomicBool,
    live: bool,
}

type Sent = (Outcome, Result<(), LoadError>);
type Read = (Consumed, Result<(), LoadError>);

impl Both<'_> {
    fn run(&self, produce: &Plan, consume: &ConsumePlan) -> (Sent, Read) {
        // How many stamped records the consumers are to see, once that is known.
        let expected = AtomicU64::new(UNKNOWN);
        let failed = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let mut waits = Waits::new(consume.timeout);
                let read = ringmill_load::consume(consume, &mut |so_far| {
                    let target = expected.load(Ordering::Relaxed);
                    let enough = match self.kind {
                        Kind::EndToEnd => so_far.stamped >= target || waits.gave_up(target, so_far.stamped),
                        Kind::Mixed => target != UNKNOWN,
                    };
                    if enough || self.stop.load(Ordering::Relaxed) {
                        ControlFlow::Break(())
                    } else {
                        ControlFlow::Continue(())
                    }
                });
                failed.store(read.1.is_err(), Ordering::Relaxed);
                read
            });
            let sent = ringmill_load::run(produce, &mut |progress| {
                if self.live {
                    let latency = &progress.outcome.intended;
                    let running = [latency.ms(0.5), latency.ms(0.99), latency.ms(0.999)];
                    super::live::show(progress.done, progress.records, progress.elapsed, Some(running));
                }
                if self.stop.load(Ordering::Relaxed) || failed.load(Ordering::Relaxed) {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                }
            });
            if self.live {
                super::live::clear();
            }
            expected.store((sent.0.records + sent.0.warmup.records) * self.copies, Ordering::Relaxed);
            let read = reader.join().unwrap_or_else(|_| {
                (Consumed::default(), Err(LoadError::Plan("the reading thread ended by itself".into())))
            });
            (sent, read)
        })
    }
}

/// Whether records that were acked are still worth waiting for.
struct Waits {
    limit: Duration,
    seen: u64,
    since: std::time::Instant,
}

impl Waits {
    fn new(limit: Duration) -> Waits {
        Waits { limit, seen: 0, since: std::time::Instant::now() }
    }

    fn gave_up(&mut self, target: u64, seen: u64) -> bool {
        if target == UNKNOWN || seen != self.seen {
            (self.seen, self.since) = (seen, std::time::Instant::now());
        }
        self.since.elapsed() > self.limit
    }
}
