//! `ringmill perf suite`: the usual questions to a broker, one after the other, and a report.
//!
//! Each workload is a line of flags of `perf produce`, or reads back what another one wrote; the report shows them, so
//! that each can be repeated alone. Topics are made for the run and deleted after it.

use super::clock;
use super::cluster::{self, Own, Place};
use super::consume::{deal, sources};
use super::consumer_properties::ConsumerProperties;
use super::cpu::BrokerCpu;
use super::produce::kafka_lines;
use super::sending::Sending;
use super::{failed, quantiles};
use crate::exit::{Code, Failed};
use crate::output::{Align, Out, Paint, Table, grouped};
use crate::server::Server;
use clap::{Args, Parser};
use ringmill_client::admin::EARLIEST;
use ringmill_client::client::Absent;
use ringmill_load::{ConsumePlan, Consumed, LoadError, Outcome, Terms};
use serde::Serialize;
use std::io::{IsTerminal, Write};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};

/// A workload: its name, the question, and the flags that ask it.
struct Workload {
    name: &'static str,
    asks: &'static str,
    how: How,
}

enum How {
    /// Flags of `perf produce` but for the topic.
    Produce(&'static str),
    /// Reads what this one wrote.
    Read(&'static str),
}

const WORKLOADS: [Workload; 12] = [
    Workload {
        name: "seed",
        asks: "500,000 records of 1,000 B, acks=1",
        how: How::Produce("--partitions 1 --num-records 500000 --record-size 1000 --command-property acks=1"),
    },
    Workload { name: "seed-read", asks: "reading them back", how: How::Read("seed") },
    Workload {
        name: "lat1",
        asks: "2,000 rec/s, acks=all, 1 partition",
        how: How::Produce(
            "--partitions 1 --num-records 22000 --warmup-records 2000 --record-size 1000 --throughput 2000 \
             --command-property acks=all linger.ms=0",
        ),
    },
    Workload {
        name: "lat1000",
        asks: "the same over 1,000 partitions",
        how: How::Produce(
            "--partitions 1000 --num-records 22000 --warmup-records 2000 --record-size 1000 --throughput 2000 \
             --command-property acks=all linger.ms=0 \
             partitioner.class=org.apache.kafka.clients.producer.RoundRobinPartitioner",
        ),
    },
    Workload {
        name: "big",
        asks: "one producer, one partition, 1,000 B",
        how: How::Produce(
            "--partitions 1 --num-records 1000000 --record-size 1000 --command-property acks=all \
             batch.size=1000000 max.request.size=2000000",
        ),
    },
    Workload { name: "c1k", asks: "reading them", how: How::Read("big") },
    Workload {
        name: "four",
        asks: "four producers, four partitions",
        how: How::Produce(
            "--partitions 4 --producers 4 --num-records 1000000 --record-size 1000 --command-property acks=all \
             batch.size=1000000 max.request.size=2000000",
        ),
    },
    Workload {
        name: "small",
        asks: "records of 100 B",
        how: How::Produce(
            "--partitions 1 --num-records 3000000 --record-size 100 --command-property acks=all \
             batch.size=1000000 max.request.size=2000000",
        ),
    },
    Workload { name: "c100", asks: "reading them", how: How::Read("small") },
    Workload {
        name: "many",
        asks: "1,000 partitions, as fast as it goes",
        how: How::Produce(
            "--partitions 1000 --num-records 500000 --record-size 1000 --command-property acks=all \
             batch.size=100000",
        ),
    },
    Workload {
        name: "closed1",
        asks: "one request outstanding, 1 record",
        how: How::Produce(
            "--partitions 1 --num-records 30000 --record-size 1000 --command-property acks=all linger.ms=0 \
             batch.size=1 buffer.memory=2000 max.in.flight.requests.per.connection=1",
        ),
    },
    Workload {
        name: "closed100",
        asks: "one request outstanding, 100 records",
        how: How::Produce(
            "--partitions 1 --num-records 500000 --record-size 1000 --command-property acks=all linger.ms=5 \
             batch.size=101000 buffer.memory=202000 max.in.flight.requests.per.connection=1",
        ),
    },
];

/// A report over the usual workloads: the seed's, latency, throughput, many partitions, small records, reading.
#[derive(Args)]
#[command(
    after_help = "Takes about a minute. Every workload is a line of `ringmill perf produce` flags, which --list shows."
)]
pub struct Suite {
    #[command(flatten)]
    server: Server,
    #[command(flatten)]
    own: Own,
    /// Only these workloads; what one of them reads is written first
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    only: Vec<String>,
    /// Say what the workloads are, and run none
    #[arg(long)]
    list: bool,
    /// Records of each workload, as a part of the full number
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0, value_parser = factor)]
    scale: f64,
    /// One JSON document instead of text
    #[arg(long)]
    json: bool,
}

fn factor(text: &str) -> Result<f64, String> {
    let found = text.parse().ok().filter(|f| (0.001..=100.0).contains(f));
    found.ok_or_else(|| format!("{text} is not a factor between 0.001 and 100"))
}

/// One row of the report.
#[derive(Serialize)]
struct Row {
    workload: &'static str,
    asks: &'static str,
    flags: String,
    records: u64,
    records_per_second: f64,
    megabytes_per_second: f64,
    intended_ms: Option<serde_json::Value>,
    client_cpu_us_per_record: f64,
    broker_cpu_seconds_per_gb: Option<f64>,
    complete: bool,
}

/// Flags of a workload.
#[derive(Parser)]
#[command(no_binary_name = true)]
struct Line {
    #[command(flatten)]
    sending: Sending,
}

struct Runner {
    server: Server,
    scale: f64,
    /// Behind every topic's name.
    mark: i64,
    topics: Vec<String>,
}

impl Suite {
    pub fn run(mut self) -> Result<(), Failed> {
        let mut out = Out::new();
        if self.list {
            for workload in &WORKLOADS {
                let how = match workload.how {
                    How::Produce(flags) => format!("perf produce {flags}"),
                    How::Read(of) => format!("perf consume, what {of} wrote"),
                };
                out.line(format!("{:<10} {}\n           {how}", workload.name, workload.asks))?;
            }
            return Ok(out.finish()?);
        }
        if let Some(unknown) = self.only.iter().find(|name| WORKLOADS.iter().all(|w| w.name != *name)) {
            return Err(Failed::new(Code::Usage, format!("--only {unknown}: --list says what there is")));
        }
        let stop = cluster::stop_on_signals()?;
        let _own = self.own.instead_of(&mut self.server)?;
        let mark = clock::now_ms();
        let mut runner = Runner { server: self.server.clone(), scale: self.scale, mark, topics: Vec::new() };
        let result = self.all(&mut runner, &stop, &mut out);
        // The topics are ours; a broker that is gone keeps them.
        let deleted = runner.server.connect().map(|mut client| client.delete_topics(&runner.topics));
        result?;
        out.finish()?;
        if let Err(failure) = deleted {
            return Err(Failed::new(
                failure.code,
                format!("the suite's topics are left: {}", failure.sentence),
            ));
        }
        if stop.load(Ordering::Relaxed) { Err(Failed::said(Code::Interrupted)) } else { Ok(()) }
    }

    fn wants(&self, name: &str) -> bool {
        let reads = |reader: &Workload| match reader.how {
            How::Read(of) => of == name && self.only.iter().any(|only| only == reader.name),
            How::Produce(_) => false,
        };
        self.only.is_empty() || self.only.iter().any(|only| only == name) || WORKLOADS.iter().any(reads)
    }

    fn all(&self, runner: &mut Runner, stop: &AtomicBool, out: &mut Out) -> Result<(), Failed> {
        let mut rows = Vec::new();
        let mut lines = Vec::new();
        let mut failure = None;
        for workload in WORKLOADS.iter().filter(|w| self.wants(w.name)) {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            if !self.json && std::io::stderr().is_terminal() {
                let _ = write!(std::io::stderr(), "\r\x1b[K{}: {}", workload.name, workload.asks);
            }
            let run = match workload.how {
                How::Produce(flags) => runner.produce(workload, flags, stop, &mut lines),
                How::Read(of) => runner.read(workload, of, stop),
            };
            match run {
                Ok((row, result)) => {
                    rows.push(row);
                    failure = result.err().map(|error| named(workload, &failed(error)));
                }
                Err(error) => failure = Some(named(workload, &error)),
            }
            if failure.is_some() {
                break;
            }
        }
        if std::io::stderr().is_terminal() {
            super::live::clear();
        }
        if self.json {
            out.json_pretty(&rows)?;
        } else {
            tell(out, &rows, &lines)?;
        }
        std::io::Write::flush(out)?;
        failure.map_or(Ok(()), Err)
    }
}

fn named(workload: &Workload, failure: &Failed) -> Failed {
    Failed::new(failure.code, format!("{}: {}", workload.name, failure.sentence))
}

fn tell(out: &mut Out, rows: &[Row], lines: &[String]) -> Result<(), Failed> {
    for line in lines {
        out.line(line)?;
    }
    out.line("")?;
    let right = |name| (name, Align::Right);
    let mut table = Table::new(&[
        ("WORKLOAD", Align::Left),
        right("REC/S"),
        right("MB/S"),
        right("P50 MS"),
        right("P99 MS"),
        right("P99.9 MS"),
        right("CLIENT µS/REC"),
        right("BROKER CPU S/GB"),
        ("", Align::Left),
    ]);
    for row in rows {
        let ms = |name: &str| {
            let value = row.intended_ms.as_ref().and_then(|ms| ms.get(name)?.as_f64());
            value.map_or(String::new(), |ms| format!("{ms:.3}"))
        };
        table.row(vec![
            row.workload.to_string(),
            grouped(row.records_per_second as u64),
            format!("{:.1}", row.megabytes_per_second),
            ms("p50"),
            ms("p99"),
            ms("p99.9"),
            format!("{:.2}", row.client_cpu_us_per_record),
            row.broker_cpu_seconds_per_gb.map_or("not visible".into(), |s| format!("{s:.2}")),
            if row.complete { row.asks.to_string() } else { format!("{}; not complete", row.asks) },
        ]);
    }
    out.table(&table)?;
    out.line("")?;
    let note = "Latency from the intended time; without a rate asked, what waits in the producer's buffer counts. \
                MB are 10^6 bytes.";
    out.line(out.paint(Paint::Dim, note))?;
    Ok(())
}

impl Runner {
    fn topic(&self, workload: &str) -> String {
        format!("perf-suite-{workload}-{}", self.mark)
    }

    fn produce(
        &mut self,
        workload: &Workload,
        flags: &str,
        stop: &AtomicBool,
        lines: &mut Vec<String>,
    ) -> Result<(Row, Result<(), LoadError>), Failed> {
        let topic = self.topic(workload.name);
        let mut words = vec!["--topic", &topic];
        words.extend(flags.split_whitespace());
        let line =
            Line::try_parse_from(words).map_err(|error| Failed::new(Code::Usage, error.to_string()))?;
        let mut sending = line.sending;
        let scaled = |records: u64| ((records as f64 * self.scale) as u64).max(1);
        sending.warmup_records = if sending.warmup_records == 0 { 0 } else { scaled(sending.warmup_records) };
        sending.num_records = scaled(sending.num_records).max(sending.warmup_records + 1);
        let properties = sending.properties()?;
        self.topics.push(topic.clone());
        let mut place = sending.place(&self.server)?;
        let plan = sending.plan(&mut place, &properties, self.server.timeout)?;
        let cpu = BrokerCpu::of(&place.targets);
        let (outcome, result) = ringmill_load::run(&plan, &mut |_| go_on(stop));
        let broker = cpu.and_then(|cpu| cpu.seconds());
        if workload.name == "seed" {
            lines.extend(kafka_lines(&outcome));
        }
        let complete = result.is_ok() && outcome.errors == 0;
        let row = row_of_producers(workload, flags, &outcome, broker, complete);
        Ok((row, result))
    }

    fn read(
        &mut self,
        workload: &Workload,
        of: &str,
        stop: &AtomicBool,
    ) -> Result<(Row, Result<(), LoadError>), Failed> {
        let topic = self.topic(of);
        let mut place: Place = cluster::find(&self.server, &topic, Absent::Leave)?;
        let properties = ConsumerProperties::default();
        let own = sources(&mut place, EARLIEST)?;
        let ends = sources(&mut place, ringmill_client::admin::LATEST)?;
        let records: i64 =
            ends.iter().map(|s| s.offset).sum::<i64>() - own.iter().map(|s| s.offset).sum::<i64>();
        let consumers = deal(&topic, &own, 1)?;
        let plan = ConsumePlan {
            terms: Terms {
                topic,
                client_id: properties.client_id,
                wait_ms: properties.wait_ms,
                bytes_min: properties.bytes_min,
                bytes_max: properties.bytes_max,
                partition_bytes_max: 8 << 20,
            },
            consumers,
            records: Some(records.max(0) as u64),
            total: None,
            quiet: Some(self.server.timeout),
            timeout: self.server.timeout,
            socket_buffer: Some(2 << 20),
            check_crcs: true,
            stamp: None,
            start_ns: 0,
        };
        let cpu = BrokerCpu::of(&place.targets);
        let (consumed, result) = ringmill_load::consume(&plan, &mut |_| go_on(stop));
        let row = row_of_consumer(workload, of, &consumed, cpu.and_then(|cpu| cpu.seconds()), result.is_ok());
        Ok((row, result))
    }
}

fn go_on(stop: &AtomicBool) -> ControlFlow<()> {
    if stop.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
}

fn row_of_producers(
    workload: &Workload,
    flags: &str,
    outcome: &Outcome,
    broker: Option<f64>,
    complete: bool,
) -> Row {
    let seconds = outcome.elapsed.as_secs_f64().max(1e-9);
    let all = (outcome.records + outcome.warmup.records).max(1) as f64;
    let bytes = (outcome.bytes + outcome.warmup.bytes).max(1) as f64;
    Row {
        workload: workload.name,
        asks: workload.asks,
        flags: flags.to_string(),
        records: outcome.records,
        records_per_second: outcome.records as f64 / seconds,
        megabytes_per_second: outcome.bytes as f64 / 1e6 / seconds,
        intended_ms: Some(quantiles(&outcome.intended)),
        client_cpu_us_per_record: outcome.cpu.as_secs_f64() * 1e6 / all,
        broker_cpu_seconds_per_gb: broker.map(|s| s * 1e9 / bytes),
        complete,
    }
}

fn row_of_consumer(
    workload: &Workload,
    of: &str,
    consumed: &Consumed,
    broker: Option<f64>,
    complete: bool,
) -> Row {
    let seconds = consumed.elapsed.as_secs_f64().max(1e-9);
    Row {
        workload: workload.name,
        asks: workload.asks,
        flags: format!("perf consume, what {of} wrote"),
        records: consumed.records,
        records_per_second: consumed.records as f64 / seconds,
        megabytes_per_second: consumed.bytes as f64 / 1e6 / seconds,
        intended_ms: None,
        client_cpu_us_per_record: consumed.cpu.as_secs_f64() * 1e6 / consumed.records.max(1) as f64,
        broker_cpu_seconds_per_gb: broker.map(|s| s * 1e9 / consumed.bytes.max(1) as f64),
        complete,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_workload_is_a_line_that_can_be_run() {
        for workload in &WORKLOADS {
            match workload.how {
                How::Produce(flags) => {
                    let words = ["--topic", "t"].into_iter().chain(flags.split_whitespace());
                    let line =
                        Line::try_parse_from(words).unwrap_or_else(|e| panic!("{}: {e}", workload.name));
                    assert!(line.sending.properties().is_ok(), "{}", workload.name);
                }
                How::Read(of) => {
                    let written = WORKLOADS.iter().take_while(|w| w.name != workload.name);
                    assert!(written.into_iter().any(|w| w.name == of), "{of} comes before {}", workload.name);
                }
            }
        }
    }
}
