//! `ringmill perf produce`.

use super::cluster::{self, Against};
use super::cpu::BrokerCpu;
use super::report::{Files, Series};
use super::sending::Sending;
use super::{MEBIBYTE, QUANTILES, metrics, name, quantiles};
use crate::exit::{Code, Failed};
use crate::output::{Out, grouped};
use clap::Args;
use ringmill_load::{Latency, Outcome};
use serde::Serialize;
use std::io::{self, IsTerminal, Write};
use std::ops::ControlFlow;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Flags as kafka-producer-perf-test has them, and ours. Plaintext only.
#[derive(Args)]
pub struct Produce {
    #[command(flatten)]
    against: Against,
    #[command(flatten)]
    pub sending: Sending,
    /// Between two lines that say how it goes
    #[arg(long, value_name = "MILLISECONDS", default_value = "5000", value_parser = super::consume::milliseconds)]
    reporting_interval: Duration,
    /// Print counters too
    #[arg(long)]
    print_metrics: bool,
    #[command(flatten)]
    files: Files,
}

/// What `--json` prints. Latencies in milliseconds.
#[derive(Serialize)]
pub struct Report {
    pub topic: String,
    pub records: u64,
    pub bytes: u64,
    pub wire_bytes: u64,
    pub errors: u64,
    pub first_error: Option<String>,
    pub retries: u64,
    pub requests: u64,
    pub warmup_records: u64,
    pub producers: u32,
    pub elapsed_seconds: f64,
    pub asked_records_per_second: Option<f64>,
    pub records_per_second: f64,
    pub megabytes_per_second: f64,
    pub client_cpu_seconds: f64,
    pub broker_cpu_seconds: Option<f64>,
    pub complete: bool,
    pub intended_ms: serde_json::Value,
    pub actual_ms: serde_json::Value,
}

impl Produce {
    pub fn run(self) -> Result<(), Failed> {
        let properties = self.sending.properties()?;
        self.files.check()?;
        let stop = cluster::stop_on_signals()?;
        let (server, _own) = self.against.broker(properties.bootstrap.as_deref())?;
        let mut place = self.sending.place(&server)?;
        let plan = self.sending.plan(&mut place, &properties, self.against.timeout)?;
        let broker_cpu = BrokerCpu::of(&place.targets);
        let live = !self.files.json && io::stderr().is_terminal();
        let mut out = Out::new();
        let mut intervals = Intervals::new(self.reporting_interval);
        let (outcome, result) = ringmill_load::run(&plan, &mut |progress| {
            if !self.files.json {
                intervals.tell(progress.outcome, &mut out);
            }
            if live {
                let latency = &progress.outcome.intended;
                let running = [latency.ms(0.5), latency.ms(0.99), latency.ms(0.999)];
                super::live::show(progress.done, progress.records, progress.elapsed, Some(running));
            }
            if stop.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        if live {
            super::live::clear();
        }
        if result.is_err() && outcome.requests == 0 {
            // There are no results so far.
            return self.sending.verdict(&outcome, result);
        }
        let complete = result.is_ok() && !stop.load(Ordering::Relaxed);
        let broker_seconds = broker_cpu.and_then(|cpu| cpu.seconds());
        let report = report(&self.sending, &outcome, complete, broker_seconds);
        self.print(&mut out, &outcome, &report)?;
        let series = [
            Series::new("from intended time", "intended", &outcome.intended).over(&outcome.timeline),
            Series::new("from actual send", "actual", &outcome.actual),
        ];
        self.files.write("perf produce", &series, &facts(&report), outcome.start_ns)?;
        out.finish()?;
        self.sending.verdict(&outcome, result)?;
        if stop.load(Ordering::Relaxed) {
            return Err(Failed::said(Code::Interrupted));
        }
        Ok(())
    }

    fn print(&self, out: &mut Out, outcome: &Outcome, report: &Report) -> Result<(), Failed> {
        if self.files.json {
            return Ok(out.json_pretty(report)?);
        }
        for line in kafka_lines(outcome) {
            out.line(line)?;
        }
        out.line("")?;
        if outcome.records > 0 {
            table(out, &[("from intended time", &outcome.intended), ("from actual send", &outcome.actual)])?;
            out.line("")?;
        }
        say(out, report, outcome)?;
        if self.print_metrics {
            metrics(out, "producer-metrics", report)?;
        }
        Ok(())
    }
}

/// Everything but the latencies, in lines.
pub fn say(out: &mut Out, report: &Report, outcome: &Outcome) -> Result<(), Failed> {
    let asked = report.asked_records_per_second.map_or("no limit".into(), |r| format!("{r:.1}/s"));
    out.line(format!(
        "rate asked {asked}, got {:.1}/s, {:.1} MB/s",
        report.records_per_second, report.megabytes_per_second
    ))?;
    out.line(format!(
        "{} records, {} bytes ({} in batches), {} requests, {} errors, {} retries",
        grouped(report.records),
        grouped(report.bytes),
        grouped(report.wire_bytes),
        grouped(report.requests),
        grouped(report.errors),
        grouped(report.retries)
    ))?;
    if report.warmup_records > 0 {
        out.line(format!(
            "warm-up not counted: {} records in {:.2} s, p50 {:.3} ms, p99 {:.3} ms",
            grouped(outcome.warmup.records),
            outcome.warmup.elapsed.as_secs_f64(),
            outcome.warmup.intended.ms(0.5),
            outcome.warmup.intended.ms(0.99)
        ))?;
    }
    let cpu = |seconds: f64| match outcome.records + outcome.warmup.records {
        0 => format!("{seconds:.2} s"),
        all => format!("{seconds:.2} s, {:.2} µs per record", seconds * 1e6 / all as f64),
    };
    let broker = report
        .broker_cpu_seconds
        .map_or("of the broker not visible".into(), |s| format!("of the broker {}", cpu(s)));
    Ok(out.line(format!("CPU of this side {}; {broker}", cpu(report.client_cpu_seconds)))?)
}

/// Percentiles of several distributions side by side.
pub fn table(out: &mut Out, columns: &[(&str, &Latency)]) -> Result<(), Failed> {
    let heads: String = columns.iter().map(|(head, _)| format!("   {head:>18}")).collect();
    out.line(out.paint(crate::output::Paint::Dim, &format!("latency, ms {heads}")))?;
    for (label, quantile) in QUANTILES {
        let cells: String = columns.iter().map(|(_, of)| format!("   {:>18.3}", of.ms(quantile))).collect();
        out.line(format!("{label:<12}{cells}"))?;
    }
    Ok(())
}

/// What a run of producers came to.
pub fn report(sending: &Sending, outcome: &Outcome, complete: bool, broker: Option<f64>) -> Report {
    let seconds = outcome.elapsed.as_secs_f64().max(1e-9);
    Report {
        topic: sending.topic.clone(),
        records: outcome.records,
        bytes: outcome.bytes,
        wire_bytes: outcome.wire_bytes,
        errors: outcome.errors,
        first_error: outcome.first_error.map(name),
        retries: outcome.retries,
        requests: outcome.requests,
        warmup_records: outcome.warmup.records,
        producers: sending.producers,
        elapsed_seconds: outcome.elapsed.as_secs_f64(),
        asked_records_per_second: sending.throughput.rate(seconds),
        records_per_second: outcome.records as f64 / seconds,
        megabytes_per_second: outcome.bytes as f64 / 1e6 / seconds,
        client_cpu_seconds: outcome.cpu.as_secs_f64(),
        broker_cpu_seconds: broker,
        complete,
        intended_ms: quantiles(&outcome.intended),
        actual_ms: quantiles(&outcome.actual),
    }
}

/// The same for a page.
pub fn facts(report: &Report) -> Vec<(String, String)> {
    let asked = report.asked_records_per_second.map_or("no limit".into(), |r| format!("{r:.0}/s"));
    let broker = report.broker_cpu_seconds.map_or("not visible".into(), |s| format!("{s:.2} s"));
    [
        ("topic", report.topic.clone()),
        ("records", grouped(report.records)),
        ("rate asked", asked),
        ("rate got", format!("{:.0}/s, {:.1} MB/s", report.records_per_second, report.megabytes_per_second)),
        ("errors, retries", format!("{}, {}", grouped(report.errors), grouped(report.retries))),
        ("warm-up not counted", grouped(report.warmup_records)),
        ("CPU of this side", format!("{:.2} s", report.client_cpu_seconds)),
        ("CPU of the broker", broker),
    ]
    .map(|(name, value)| (name.to_string(), value))
    .to_vec()
}

/// The result lines of kafka-producer-perf-test, whose MB are 2^20 bytes: all records, then those behind the warm-up.
/// Percentiles from the intended time.
pub fn kafka_lines(outcome: &Outcome) -> Vec<String> {
    let line = |records: u64, kind: &str, bytes: u64, elapsed: Duration, latency: &Latency| {
        let seconds = elapsed.as_secs_f64().max(1e-9);
        format!(
            "{records}{kind} records sent, {:.6} records/sec ({:.2} MB/sec), {:.2} ms avg latency, {:.2} ms max \
             latency, {:.0} ms 50th, {:.0} ms 95th, {:.0} ms 99th, {:.0} ms 99.9th.",
            records as f64 / seconds,
            bytes as f64 / MEBIBYTE / seconds,
            latency.mean_ms(),
            latency.max_ms(),
            latency.ms(0.5),
            latency.ms(0.95),
            latency.ms(0.99),
            latency.ms(0.999)
        )
    };
    let warmup = &outcome.warmup;
    if warmup.records == 0 {
        return vec![line(outcome.records, "", outcome.bytes, outcome.elapsed, &outcome.intended)];
    }
    let mut all = outcome.intended.clone();
    all.merge(&warmup.intended);
    let (records, bytes) = (outcome.records + warmup.records, outcome.bytes + warmup.bytes);
    vec![
        line(records, "", bytes, outcome.elapsed + warmup.elapsed, &all),
        line(outcome.records, " steady state", outcome.bytes, outcome.elapsed, &outcome.intended),
    ]
}

/// Lines of `--reporting-interval`.
struct Intervals {
    every: Duration,
    last: Instant,
    bytes: u64,
    seen: Latency,
}

impl Intervals {
    fn new(every: Duration) -> Intervals {
        Intervals { every, last: Instant::now(), bytes: 0, seen: Latency::default() }
    }

    fn tell(&mut self, outcome: &Outcome, out: &mut Out) {
        let passed = self.last.elapsed();
        if passed < self.every {
            return;
        }
        let recent = outcome.intended.since(&self.seen);
        let seconds = passed.as_secs_f64();
        let line = format!(
            "{} records sent, {:.1} records/sec ({:.2} MB/sec), {:.1} ms avg latency, {:.1} ms max latency.",
            recent.count(),
            recent.count() as f64 / seconds,
            (outcome.bytes - self.bytes) as f64 / MEBIBYTE / seconds,
            recent.mean_ms(),
            recent.max_ms()
        );
        if io::stderr().is_terminal() {
            super::live::clear();
        }
        // A reader that went away is found out at the end.
        let _ = out.line(line).and_then(|()| out.flush());
        (self.last, self.bytes, self.seen) = (Instant::now(), outcome.bytes, outcome.intended.clone());
    }
}
