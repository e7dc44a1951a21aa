//! `ringmill perf`: load with percentiles that can be trusted, against any broker that speaks the protocol.
//!
//! Takes the flags of Kafka's own perf tools and prints their result line, so that scripts that read those keep working;
//! then a table of its own, with the latency from the intended time and from the actual one side by side.

mod clock;
mod cluster;
mod consume;
mod consumer_properties;
mod live;
mod properties;

use crate::exit::{Code, Failed};
use crate::output::{Out, grouped};
use crate::server::Server;
use clap::{Args, Subcommand};
use properties::Properties;
use ringmill_client::client::Absent;
use ringmill_load::{LoadError, Outcome, Plan, Progress, Schedule, Target};
use serde::Serialize;
use std::io::{self, IsTerminal, Write};
use std::net::ToSocketAddrs;
use std::path::Path;
use std::time::Duration;

const MEBIBYTE: f64 = 1_048_576.0;
const QUANTILES: [(&str, f64); 7] = [
    ("p50", 0.5),
    ("p90", 0.9),
    ("p95", 0.95),
    ("p99", 0.99),
    ("p99.9", 0.999),
    ("p99.99", 0.9999),
    ("max", 1.0),
];

/// Measure a broker: open-loop load, latency from the intended time
#[derive(Subcommand)]
pub enum Perf {
    /// Send records at a schedule, or as fast as it goes
    Produce(Produce),
    /// Read records as fast as they come
    Consume(consume::Consume),
}

impl Perf {
    pub fn run(self) -> Result<(), Failed> {
        match self {
            Perf::Produce(produce) => produce.run(),
            Perf::Consume(consume) => consume.run(),
        }
    }
}

/// Flags as kafka-producer-perf-test has them, and ours. Plaintext only.
#[derive(Args)]
pub struct Produce {
    #[command(flatten)]
    server: Server,
    /// Topic to send to; created by the broker where it allows that
    #[arg(long, value_name = "NAME")]
    topic: String,
    /// Records to send, the warm-up included
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    num_records: u64,
    /// Bytes of each value
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(1..=16_777_216))]
    record_size: u32,
    /// Schedule: RATE (records per second), -1 (no limit), poisson:RATE, burst:RATE:COUNT, step:FROM:TO:SECONDS,
    /// replay:RATE,RATE,… (one for each second)
    #[arg(long, value_name = "SCHEDULE", default_value = "-1", allow_hyphen_values = true)]
    throughput: Schedule,
    /// First records that do not count
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    warmup_records: u64,
    /// Producers, each with connections of its own
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    producers: u32,
    /// Producer settings as Kafka names them: acks, linger.ms, batch.size, max.in.flight.requests.per.connection,
    /// request.timeout.ms, bootstrap.servers
    #[arg(long, visible_aliases = ["producer-props"], value_name = "KEY=VALUE", num_args = 1.., action = clap::ArgAction::Append)]
    command_property: Vec<String>,
    /// Refused: transactions are not offered yet
    #[arg(long, value_name = "ID", hide = true)]
    transactional_id: Option<String>,
    /// One JSON document instead of text
    #[arg(long)]
    json: bool,
}

/// What `--json` prints. Latencies in milliseconds.
#[derive(Serialize)]
struct Report {
    topic: String,
    records: u64,
    bytes: u64,
    errors: u64,
    first_error: Option<String>,
    requests: u64,
    warmup_records: u64,
    producers: u32,
    elapsed_seconds: f64,
    asked_records_per_second: Option<f64>,
    records_per_second: f64,
    megabytes_per_second: f64,
    client_cpu_seconds: f64,
    complete: bool,
    intended_ms: serde_json::Value,
    actual_ms: serde_json::Value,
}

impl Produce {
    fn run(mut self) -> Result<(), Failed> {
        if self.transactional_id.is_some() {
            return Err(Failed::new(Code::Usage, "--transactional-id: perf has no transactions yet"));
        }
        let properties =
            Properties::parse(&self.command_property).map_err(|e| Failed::new(Code::Usage, e))?;
        if let Some(server) = &properties.bootstrap {
            self.server.bootstrap_server = server.clone();
        }
        if self.warmup_records >= self.num_records {
            return Err(Failed::new(Code::Usage, "--warmup-records must be less than --num-records"));
        }
        let plan = Plan {
            targets: self.targets()?,
            topic: self.topic.clone(),
            schedule: self.throughput.clone(),
            records: self.num_records,
            warmup: self.warmup_records,
            record_bytes: self.record_size as usize,
            producers: self.producers as usize,
            acks: properties.acks,
            linger: properties.linger,
            batch_bytes: properties.batch_bytes,
            in_flight_max: properties.in_flight_max,
            timeout: properties.timeout.unwrap_or(self.server.timeout),
            seed: 1,
        };
        let live = !self.json && io::stderr().is_terminal();
        let (outcome, result) = ringmill_load::run(&plan, &mut |progress| {
            if live {
                show(&progress);
            }
        });
        if live {
            eprint!("\r\x1b[K");
        }
        let mut out = Out::new();
        self.print(&mut out, &outcome, result.is_ok()).map_err(|error| Failed::local("stdout", &error))?;
        out.finish().map_err(|error| Failed::local("stdout", &error))?;
        result.map_err(failed)?;
        if outcome.errors > 0 {
            let count = grouped(outcome.errors);
            let code = outcome.first_error.map(name).unwrap_or_default();
            return Err(Failed::new(Code::Refused, format!("{count} records were not taken: {code}")));
        }
        Ok(())
    }

    /// Where each partition is led.
    fn targets(&self) -> Result<Vec<Target>, Failed> {
        let mut client = self.server.connect()?;
        let topic = client.topic(&self.topic, Absent::Create)?;
        let cluster = client.metadata(Some(std::slice::from_ref(&self.topic)), Absent::Leave)?;
        let mut targets = Vec::new();
        for partition in &topic.partitions {
            let Some(address) = cluster.brokers.get(&partition.leader) else {
                let what = format!("partition {} of {} has no leader", partition.index, self.topic);
                return Err(Failed::new(Code::Refused, what));
            };
            let mut found = address.to_socket_addrs().map_err(|error| Failed::local(address, &error))?;
            let leader = found
                .next()
                .ok_or_else(|| Failed::new(Code::Unreachable, format!("{address} has no address")))?;
            targets.push(Target { partition: partition.index, leader });
        }
        Ok(targets)
    }

    fn report(&self, outcome: &Outcome, complete: bool) -> Report {
        let seconds = outcome.elapsed.as_secs_f64().max(1e-9);
        let quantiles = |of: &ringmill_load::Latency| {
            let mean = ("mean".to_string(), of.mean_ms().into());
            let rest = QUANTILES.iter().map(|(name, q)| ((*name).to_string(), of.ms(*q).into()));
            serde_json::Value::Object(std::iter::once(mean).chain(rest).collect())
        };
        Report {
            topic: self.topic.clone(),
            records: outcome.records,
            bytes: outcome.bytes,
            errors: outcome.errors,
            first_error: outcome.first_error.map(name),
            requests: outcome.requests,
            warmup_records: self.warmup_records,
            producers: self.producers,
            elapsed_seconds: outcome.elapsed.as_secs_f64(),
            asked_records_per_second: self.throughput.rate(seconds),
            records_per_second: outcome.records as f64 / seconds,
            megabytes_per_second: outcome.bytes as f64 / 1e6 / seconds,
            client_cpu_seconds: outcome.cpu.as_secs_f64(),
            complete,
            intended_ms: quantiles(&outcome.intended),
            actual_ms: quantiles(&outcome.actual),
        }
    }

    fn print(&self, out: &mut Out, outcome: &Outcome, complete: bool) -> io::Result<()> {
        let report = self.report(outcome, complete);
        if self.json {
            return out.json_pretty(&report);
        }
        out.line(kafka_line(outcome))?;
        out.line("")?;
        out.line("latency, ms   from intended time   from actual send")?;
        for (label, quantile) in QUANTILES {
            let (intended, actual) = (outcome.intended.ms(quantile), outcome.actual.ms(quantile));
            out.line(format!("{label:<12}  {intended:>18.3}   {actual:>16.3}"))?;
        }
        out.line("")?;
        let asked = report.asked_records_per_second.map_or("no limit".into(), |r| format!("{r:.1}/s"));
        out.line(format!("rate asked {asked}, got {:.1}/s", report.records_per_second))?;
        out.line(format!(
            "{} records, {} bytes, {} requests, {} errors, warm-up of {} records not counted",
            grouped(outcome.records),
            grouped(outcome.bytes),
            grouped(outcome.requests),
            grouped(outcome.errors),
            grouped(self.warmup_records)
        ))?;
        let each = outcome.cpu.as_secs_f64() * 1e6 / self.num_records as f64;
        out.line(format!("CPU of this side {:.2} s, {each:.2} µs per record", report.client_cpu_seconds))
    }
}

/// The result line of kafka-producer-perf-test, whose MB are 2^20 bytes. Percentiles from the intended time.
fn kafka_line(outcome: &Outcome) -> String {
    let seconds = outcome.elapsed.as_secs_f64().max(1e-9);
    let latency = &outcome.intended;
    format!(
        "{} records sent, {:.1} records/sec ({:.2} MB/sec), {:.2} ms avg latency, {:.2} ms max latency, {:.0} ms 50th, \
         {:.0} ms 95th, {:.0} ms 99th, {:.0} ms 99.9th.",
        outcome.records,
        outcome.records as f64 / seconds,
        outcome.bytes as f64 / MEBIBYTE / seconds,
        latency.mean_ms(),
        latency.max_ms(),
        latency.ms(0.5),
        latency.ms(0.95),
        latency.ms(0.99),
        latency.ms(0.999)
    )
}

fn show(progress: &Progress<'_>) {
    const WIDTH: u64 = 24;
    let full = (progress.done * WIDTH / progress.records.max(1)) as usize;
    let latency = &progress.outcome.intended;
    // A terminal that went away is no reason to end.
    let _ = write!(
        io::stderr(),
        "\r\x1b[K[{:<24}] {}/{}  p50 {:.2} ms  p99 {:.2} ms",
        "#".repeat(full.min(WIDTH as usize)),
        grouped(progress.done),
        grouped(progress.records),
        latency.ms(0.5),
        latency.ms(0.99)
    );
}

fn name(code: i16) -> String {
    ringmill_client::ServerCode(code).name()
}

fn failed(error: LoadError) -> Failed {
    let code = match &error {
        LoadError::Plan(_) => Code::Usage,
        LoadError::Connect(..) | LoadError::Lost(_) | LoadError::Silent(_) => Code::Unreachable,
        LoadError::Ring(_) => Code::Local,
        LoadError::Garbled(_) => Code::Garbled,
        LoadError::Refused { .. } | LoadError::NoRecords(_) => Code::Refused,
    };
    Failed::new(code, error.to_string())
}

/// Default of a request's timeout when neither flag nor property gives one.
pub(crate) fn milliseconds(text: &str) -> Option<Duration> {
    text.parse().ok().filter(|ms| *ms <= 86_400_000).map(Duration::from_millis)
}

/// Settings of a properties file, `KEY=VALUE` each.
pub(crate) fn file_settings(path: Option<&Path>) -> Result<Vec<String>, Failed> {
    let Some(path) = path else { return Ok(Vec::new()) };
    let text = std::fs::read_to_string(path).map_err(|error| Failed::local(path.display(), &error))?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    Ok(lines.filter(|line| !line.starts_with(['#', '!'])).map(str::to_string).collect())
}

/// Counters under Kafka's heading, for `--print-metrics`.
pub(crate) fn metrics<T: Serialize>(out: &mut Out, group: &str, report: &T) -> Result<(), Failed> {
    let fields = serde_json::to_value(report).unwrap_or_default();
    out.line("")?;
    out.line(format!("{:<60} Value", "Metric Name"))?;
    for (name, value) in fields.as_object().into_iter().flatten() {
        if value.is_number() {
            out.line(format!("{:<60}: {value}", format!("{group}:{}", name.replace('_', "-"))))?;
        }
    }
    Ok(())
}
