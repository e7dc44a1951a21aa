//! `ringmill perf consume`: how fast records can be read.

use super::clock::{self, Pattern};
use super::cluster::{self, Bootstrap, Place};
use super::consumer_properties::ConsumerProperties;
use super::group::Group;
use super::{MEBIBYTE, failed, file_settings};
use crate::exit::{Code, Failed};
use crate::output::{Out, counted, grouped, remark};
use crate::server::Server;
use clap::Args;
use ringmill_client::admin::{EARLIEST, LATEST};
use ringmill_client::client::Absent;
use ringmill_load::{ConsumePlan, Consumed, LoadError, Source, Terms, consume};
use serde::Serialize;
use std::io::IsTerminal;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const GROUP_MEMBERS_MAX: u32 = 100;

/// Flags as kafka-consumer-perf-test has them, and ours. Plaintext only.
#[derive(Args)]
#[command(after_help = "Times are UTC. Of CPU, --json says what this side took.")]
pub struct Consume {
    #[command(flatten)]
    bootstrap: Bootstrap,
    /// Topic to read
    #[arg(long, value_name = "NAME")]
    topic: String,
    /// Records to read
    #[arg(long, visible_alias = "messages", value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    num_records: u64,
    /// Most bytes of one partition in one answer
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(i32).range(1..))]
    fetch_size: Option<i32>,
    /// Begin with records that come from now on, not with the oldest
    #[arg(long)]
    from_latest: bool,
    /// Consumers, each with connections of its own; the partitions are dealt out among them
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    consumers: u32,
    /// Every consumer reads every partition
    #[arg(long, conflicts_with = "group")]
    fan_out: bool,
    /// Join this group, with as many members as --consumers says; without it partitions are assigned here
    #[arg(long, value_name = "ID")]
    group: Option<String>,
    /// Give up when no record came for so long
    #[arg(long, value_name = "MILLISECONDS", default_value = "10000", value_parser = milliseconds)]
    timeout: Duration,
    /// Bytes the kernel is asked to hold of a connection
    #[arg(long, value_name = "BYTES", default_value_t = 2_097_152, value_parser = clap::value_parser!(u32).range(4096..=1 << 30))]
    socket_buffer_size: u32,
    /// Consumer settings as Kafka names them: fetch.min.bytes, fetch.max.bytes, fetch.max.wait.ms, check.crcs, …
    #[arg(long, value_name = "KEY=VALUE", num_args = 1.., action = clap::ArgAction::Append)]
    command_property: Vec<String>,
    /// The same from a file
    #[arg(long, visible_alias = "consumer.config", value_name = "FILE")]
    command_config: Option<PathBuf>,
    /// Between two lines of --show-detailed-stats
    #[arg(long, value_name = "MILLISECONDS", default_value = "5000", value_parser = milliseconds)]
    reporting_interval: Duration,
    /// A line for every interval
    #[arg(long)]
    show_detailed_stats: bool,
    /// How times are written
    #[arg(long, value_name = "PATTERN", default_value = "yyyy-MM-dd HH:mm:ss:SSS", value_parser = clock::pattern)]
    date_format: Pattern,
    /// No line with the names of the columns
    #[arg(long)]
    hide_header: bool,
    /// Print counters too
    #[arg(long)]
    print_metrics: bool,
    /// One JSON document instead of text
    #[arg(long)]
    json: bool,
    /// Refused: a name, not a pattern
    #[arg(long = "include", value_name = "PATTERN", hide = true, value_parser = no_pattern)]
    _include: Option<String>,
    /// Had no effect in Kafka's tool either
    #[arg(long, value_name = "COUNT", hide = true)]
    threads: Option<u32>,
    #[arg(long, value_name = "COUNT", hide = true)]
    num_fetch_threads: Option<u32>,
}

fn no_pattern(_: &str) -> Result<String, &'static str> {
    Err("perf reads one topic, by its name (--topic); a pattern would hide which one was measured")
}

/// Of a flag in milliseconds.
pub fn milliseconds(text: &str) -> Result<Duration, String> {
    match super::milliseconds(text) {
        Some(time) if !time.is_zero() => Ok(time),
        Some(_) | None => Err(format!("{text} is not a number of milliseconds, 1 to 86400000")),
    }
}

#[derive(Serialize)]
struct Report<'a> {
    topic: &'a str,
    records: u64,
    bytes: u64,
    fetches: u64,
    retries: u64,
    consumers: u32,
    rebalances: u64,
    rebalance_seconds: f64,
    elapsed_seconds: f64,
    records_per_second: f64,
    megabytes_per_second: f64,
    client_cpu_seconds: f64,
    complete: bool,
}

/// What was read, and how long it took to know what to read.
pub struct Reading {
    pub consumed: Consumed,
    pub joining: Duration,
    pub rebalances: u64,
    pub result: Result<(), LoadError>,
}

impl Reading {
    /// Adds what another consumer of the same run, or the same one later, read.
    pub fn add(&mut self, other: Reading) {
        let (own, more) = (&mut self.consumed, other.consumed);
        own.records += more.records;
        own.bytes += more.bytes;
        own.fetches += more.fetches;
        own.retries += more.retries;
        own.cpu += more.cpu;
        own.stamped += more.stamped;
        own.delivery.merge(&more.delivery);
        own.timeline.merge(more.timeline);
        own.positions.extend(more.positions);
        self.joining = self.joining.max(other.joining);
        self.rebalances = self.rebalances.max(other.rebalances);
        if self.result.is_ok() {
            self.result = other.result;
        }
    }
}

impl Consume {
    pub fn run(mut self) -> Result<(), Failed> {
        if self.group.is_some() && self.consumers > GROUP_MEMBERS_MAX {
            let why =
                format!("--consumers: a group has at most {GROUP_MEMBERS_MAX} members here, a thread each");
            return Err(Failed::new(Code::Usage, why));
        }
        if self.group.is_some() && self.show_detailed_stats {
            let why =
                "--show-detailed-stats: members of a group have no common interval; leave one of the two out";
            return Err(Failed::new(Code::Usage, why));
        }
        if self.threads.is_some() || self.num_fetch_threads.is_some() {
            remark("--threads and --num-fetch-threads have no effect, as in Kafka's tool; --consumers has");
        }
        let mut settings = file_settings(self.command_config.as_deref())?;
        settings.extend(self.command_property.iter().cloned());
        let properties = ConsumerProperties::parse(&settings).map_err(|e| Failed::new(Code::Usage, e))?;
        if self.group.is_none() {
            self.group = properties.group.clone();
        }
        let stop = cluster::stop_on_signals()?;
        let server = self.bootstrap.server(properties.bootstrap.as_deref(), properties.request_timeout)?;
        let place = cluster::find(&server, &self.topic, Absent::Leave)?;
        let mut out = Out::new();
        let columns = if self.show_detailed_stats { "time, threadId" } else { "start.time, end.time" };
        if !self.json && !self.hide_header {
            out.line(format!(
                "{columns}, data.consumed.in.MB, MB.sec, data.consumed.in.nMsg, nMsg.sec, rebalance.time.ms, \
                 fetch.time.ms, fetch.MB.sec, fetch.nMsg.sec"
            ))?;
            // An interval's line may be far off; a reader of a pipe waits for the header.
            std::io::Write::flush(&mut out)?;
        }
        let started_ms = clock::now_ms();
        let reading = self.read(place, &server, &properties, &stop, &mut out)?;
        let ended_ms = clock::now_ms();
        self.print(&mut out, &reading, started_ms, ended_ms)?;
        out.finish()?;
        reading.result.map_err(failed)?;
        if stop.load(Ordering::Relaxed) {
            return Err(Failed::said(Code::Interrupted));
        }
        Ok(())
    }

    fn read(
        &self,
        place: Place,
        server: &Server,
        properties: &ConsumerProperties,
        stop: &AtomicBool,
        out: &mut Out,
    ) -> Result<Reading, Failed> {
        if let Some(group) = &self.group {
            return self.read_as_group(group, server, properties, stop);
        }
        let plan = self.plan(place, properties)?;
        let live = !self.json && std::io::stderr().is_terminal();
        let mut intervals = Intervals::new(self);
        let (consumed, result) = consume(&plan, &mut |so_far| {
            if self.show_detailed_stats && !self.json {
                intervals.tell(so_far, out);
            }
            if live {
                super::live::show(so_far.records, self.num_records, so_far.elapsed, None);
            }
            if stop.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        if live {
            super::live::clear();
        }
        Ok(Reading { consumed, joining: Duration::ZERO, rebalances: 0, result })
    }

    fn read_as_group(
        &self,
        id: &str,
        server: &Server,
        properties: &ConsumerProperties,
        stop: &AtomicBool,
    ) -> Result<Reading, Failed> {
        let latest = self.from_latest || properties.from_latest;
        let group = Group {
            id: id.to_string(),
            server: server.clone(),
            topic: self.topic.clone(),
            members: self.consumers as usize,
            session_timeout: properties.session_timeout,
            heartbeat: properties.heartbeat,
            quiet: self.timeout,
            reset: if latest { LATEST } else { EARLIEST },
            stop,
        };
        let plan = ConsumePlan { quiet: None, ..self.plan_of(Vec::new(), properties) };
        let live = !self.json && std::io::stderr().is_terminal();
        let began = Instant::now();
        let reading = super::group::read(&group, &plan, &|total| {
            if live {
                super::live::show(total, self.num_records, began.elapsed(), None);
            }
        });
        if live {
            super::live::clear();
        }
        reading
    }

    /// What is read, partitions dealt out in turn.
    fn plan(&self, mut place: Place, properties: &ConsumerProperties) -> Result<ConsumePlan, Failed> {
        let latest = self.from_latest || properties.from_latest;
        let sources = sources(&mut place, if latest { LATEST } else { EARLIEST })?;
        let count = self.consumers as usize;
        let consumers = if self.fan_out { vec![sources; count] } else { deal(&self.topic, &sources, count)? };
        Ok(self.plan_of(consumers, properties))
    }

    fn plan_of(&self, consumers: Vec<Vec<Source>>, properties: &ConsumerProperties) -> ConsumePlan {
        ConsumePlan {
            terms: Terms {
                topic: self.topic.clone(),
                client_id: properties.client_id.clone(),
                wait_ms: properties.wait_ms,
                bytes_min: properties.bytes_min,
                bytes_max: properties.bytes_max,
                partition_bytes_max: self.fetch_size.unwrap_or(properties.partition_bytes_max),
            },
            consumers,
            records: Some(self.num_records),
            quiet: Some(self.timeout),
            timeout: properties.request_timeout,
            socket_buffer: Some(self.socket_buffer_size),
            check_crcs: properties.check_crcs,
            total: None,
            stamp: None,
            start_ns: 0,
        }
    }

    fn print(&self, out: &mut Out, reading: &Reading, started_ms: i64, ended_ms: i64) -> Result<(), Failed> {
        let consumed = &reading.consumed;
        let seconds = consumed.elapsed.as_secs_f64().max(1e-9);
        let report = Report {
            topic: &self.topic,
            records: consumed.records,
            bytes: consumed.bytes,
            fetches: consumed.fetches,
            retries: consumed.retries,
            consumers: self.consumers,
            rebalances: reading.rebalances,
            rebalance_seconds: reading.joining.as_secs_f64(),
            elapsed_seconds: consumed.elapsed.as_secs_f64(),
            records_per_second: consumed.records as f64 / seconds,
            megabytes_per_second: consumed.bytes as f64 / 1e6 / seconds,
            client_cpu_seconds: consumed.cpu.as_secs_f64(),
            complete: reading.result.is_ok(),
        };
        if self.json {
            return Ok(out.json_pretty(&report)?);
        }
        if !self.show_detailed_stats {
            out.line(self.line(reading, started_ms, ended_ms))?;
        }
        if self.print_metrics {
            super::metrics(out, "consumer-fetch-manager-metrics", &report)?;
        }
        // The line is for scripts, and on a terminal this is for whoever reads it.
        if std::io::stderr().is_terminal() {
            remark(&format!(
                "{} records read at {:.1} MB/s in {} fetches, CPU of this side {:.2} s ({:.2} µs per record)",
                grouped(consumed.records),
                report.megabytes_per_second,
                grouped(consumed.fetches),
                report.client_cpu_seconds,
                report.client_cpu_seconds * 1e6 / consumed.records.max(1) as f64
            ));
        }
        Ok(())
    }

    /// The result line of kafka-consumer-perf-test, whose MB are 2^20 bytes.
    fn line(&self, reading: &Reading, started_ms: i64, ended_ms: i64) -> String {
        let consumed = &reading.consumed;
        let (megabytes, records) = (consumed.bytes as f64 / MEBIBYTE, consumed.records as f64);
        let joining_ms = reading.joining.as_millis() as i64;
        let fetching_ms = (ended_ms - started_ms - joining_ms).max(0);
        let seconds = ((ended_ms - started_ms) as f64 / 1000.0).max(0.001);
        let fetching = (fetching_ms as f64 / 1000.0).max(0.001);
        format!(
            "{}, {}, {megabytes:.4}, {:.4}, {records}, {:.4}, {joining_ms}, {fetching_ms}, {:.4}, {:.4}",
            self.date_format.format(started_ms),
            self.date_format.format(ended_ms),
            megabytes / seconds,
            records / seconds,
            megabytes / fetching,
            records / fetching
        )
    }
}

/// Lines of `--show-detailed-stats`.
struct Intervals<'a> {
    args: &'a Consume,
    last: Instant,
    records: u64,
    bytes: u64,
}

impl<'a> Intervals<'a> {
    fn new(args: &'a Consume) -> Intervals<'a> {
        Intervals { args, last: Instant::now(), records: 0, bytes: 0 }
    }

    fn tell(&mut self, so_far: &Consumed, out: &mut Out) {
        let passed = self.last.elapsed();
        if passed < self.args.reporting_interval {
            return;
        }
        let seconds = passed.as_secs_f64();
        let megabytes = (so_far.bytes - self.bytes) as f64 / MEBIBYTE;
        let records = (so_far.records - self.records) as f64;
        let line = format!(
            "{}, 0, {:.4}, {:.4}, {}, {:.4}, 0, {}, {:.4}, {:.4}",
            self.args.date_format.format(clock::now_ms()),
            so_far.bytes as f64 / MEBIBYTE,
            megabytes / seconds,
            so_far.records,
            records / seconds,
            passed.as_millis(),
            megabytes / seconds,
            records / seconds
        );
        // A reader that went away is found out at the end.
        let _ = out.line(line).and_then(|()| std::io::Write::flush(out));
        (self.last, self.records, self.bytes) = (Instant::now(), so_far.records, so_far.bytes);
    }
}

/// Where reading of each partition begins: [`EARLIEST`] or [`LATEST`].
pub fn sources(place: &mut Place, from: i64) -> Result<Vec<Source>, Failed> {
    let topic = place.topic.clone();
    let offsets = place.client.retry(|client| client.offsets(std::slice::from_ref(&topic), from))?;
    let mut sources = Vec::new();
    for target in &place.targets {
        let offset = match offsets.get(&(topic.name.clone(), target.partition)) {
            Some(Ok(offset)) => *offset,
            Some(Err(code)) => {
                let what =
                    format!("finding offsets of partition {} of {}: {code}", target.partition, topic.name);
                return Err(Failed::new(Code::Refused, what));
            }
            None => 0,
        };
        sources.push(Source { partition: target.partition, leader: target.leader, offset });
    }
    Ok(sources)
}

/// Partitions to consumers, in turn; each gets at least one.
pub fn deal(topic: &str, sources: &[Source], consumers: usize) -> Result<Vec<Vec<Source>>, Failed> {
    if consumers > sources.len() {
        let what = format!(
            "--consumers {consumers}: topic {topic} has {}, each read by one consumer; `ringmill topic alter {topic} \
             --partitions {consumers}` adds some, --fan-out lets all read all",
            counted(sources.len() as u64, "partition")
        );
        return Err(Failed::new(Code::Usage, what));
    }
    let mut dealt = vec![Vec::new(); consumers.max(1)];
    let count = dealt.len();
    for (at, source) in sources.iter().enumerate() {
        if let Some(hand) = dealt.get_mut(at % count) {
            hand.push(source.clone());
        }
    }
    Ok(dealt)
}
