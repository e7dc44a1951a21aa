//! `ringmill produce`: lines from stdin become records.
//!
//! A thread reads stdin in blocks; this one cuts lines, batches what has come so far and sends it. So a slow typist's line
//! leaves at once, and a large file leaves in full batches.

use crate::exit::{Code, Failed};
use crate::output::{Out, bytes, remark, throughput};
use crate::server::Server;
use crate::topic::assignment;
use clap::{Args, ValueEnum};
use ringmill_client::{Acks, BatchBuilder, Client, Codec, Header, Producer, Record};
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::{IsTerminal, Read, Write as _};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const BLOCK_BYTES: usize = 256 << 10;
/// Blocks read ahead of the network.
const BLOCKS_AHEAD: usize = 4;
const PROGRESS_EVERY: Duration = Duration::from_secs(1);
/// Open batches together, over all partitions, before compression.
const OPEN_BYTES_MAX: usize = 16 << 20;

#[derive(Args)]
#[command(
    after_help = "Each line is a record's value. Keyed records go where a Java client would put them; others fill a \
    batch for one partition, then for the next. Batches are retried for --timeout and, with --acks all, never stored twice."
)]
pub struct Produce {
    topic: String,
    /// Splits a line into key and value; a line without it has no key. \t stands for a tab
    #[arg(long, short = 'K', value_name = "TEXT", value_parser = separator)]
    key_separator: Option<Separator>,
    /// Send to this partition only
    #[arg(long, short = 'p', value_name = "N", value_parser = clap::value_parser!(i32).range(0..))]
    partition: Option<i32>,
    /// Whose ack to wait for
    #[arg(long, short = 'a', value_enum, default_value_t = AcksArg::All)]
    acks: AcksArg,
    /// Compress batches
    #[arg(long, short = 'z', value_enum, default_value_t = CodecArg::None)]
    compression: CodecArg,
    /// A header for every record; may be repeated
    #[arg(long, short = 'H', value_name = "KEY=VALUE", value_parser = assignment)]
    header: Vec<(String, String)>,
    /// An empty value is sent as null, which deletes a key in a compacted topic
    #[arg(long)]
    empty_is_null: bool,
    /// A batch is sent when it holds this much, before compression
    #[arg(long, value_name = "BYTES", default_value_t = 900_000, value_parser = clap::value_parser!(u32).range(1..=100_000_000))]
    batch_bytes: u32,
    /// No progress and no summary on stderr
    #[arg(long, short = 'q')]
    quiet: bool,
    #[command(flatten)]
    server: Server,
    /// What was sent as JSON on stdout, instead of the summary; also where sending failed
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct SentRow<'a> {
    topic: &'a str,
    /// Lines that were read.
    lines: u64,
    /// Records that were acknowledged; with --acks 0, those that were sent.
    records: u64,
    /// Of their keys and values.
    bytes: u64,
    acks: &'static str,
    seconds: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum AcksArg {
    /// None: faster, and a lost record goes unnoticed
    #[value(name = "0")]
    None,
    /// The leader's
    #[value(name = "1")]
    Leader,
    /// That of all in-sync replicas
    #[value(name = "all", alias = "-1")]
    All,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum CodecArg {
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

impl From<CodecArg> for Codec {
    fn from(codec: CodecArg) -> Codec {
        match codec {
            CodecArg::None => Codec::None,
            CodecArg::Gzip => Codec::Gzip,
            CodecArg::Snappy => Codec::Snappy,
            CodecArg::Lz4 => Codec::Lz4,
            CodecArg::Zstd => Codec::Zstd,
        }
    }
}

/// Bytes that part a key from its value.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Separator(Vec<u8>);

fn separator(text: &str) -> Result<Separator, String> {
    let text = text.replace("\\t", "\t");
    if text.is_empty() || text.contains('\n') {
        return Err("it takes one or more characters, none of them a line end".to_string());
    }
    Ok(Separator(text.into_bytes()))
}

impl Produce {
    pub fn run(self) -> Result<(), Failed> {
        let mut client = self.server.connect()?;
        let acks = match self.acks {
            AcksArg::None => Acks::None,
            AcksArg::Leader => Acks::Leader,
            AcksArg::All => Acks::All,
        };
        if std::io::stdin().is_terminal() && !self.quiet {
            remark("each line is a record; Ctrl-D ends");
        }
        let mut sending = Sending::new(&mut client, &self, acks)?;
        let (sender, blocks) = sync_channel(BLOCKS_AHEAD);
        std::thread::spawn(move || read_stdin(&sender));
        let sent = sending.all(&blocks);
        if self.json {
            sending.wipe();
            let mut out = Out::new();
            out.json(&sending.row())?;
            out.finish()?;
        } else if sent.is_ok() {
            sending.summary();
        }
        sent
    }
}

/// Sends blocks until stdin ends. It is not joined: a read of a terminal cannot be interrupted.
fn read_stdin(sender: &SyncSender<std::io::Result<Vec<u8>>>) {
    let mut stdin = std::io::stdin().lock();
    loop {
        let mut block = vec![0; BLOCK_BYTES];
        let read = match stdin.read(&mut block) {
            Ok(0) => return,
            Ok(got) => {
                block.truncate(got);
                Ok(block)
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => Err(error),
        };
        let failed = read.is_err();
        if sender.send(read).is_err() || failed {
            return;
        }
    }
}

/// A batch that is being filled, and the line its first record came from.
struct Open {
    batch: BatchBuilder,
    first_line: u64,
    last_line: u64,
    payload_bytes: u64,
}

struct Sending<'a> {
    args: &'a Produce,
    producer: Producer<'a>,
    partitions: u32,
    codec: Codec,
    headers: Vec<Header>,
    open: BTreeMap<i32, Open>,
    /// Where records without a key go for now.
    current: i32,
    lines: u64,
    acked: u64,
    acked_bytes: u64,
    started: Instant,
    shown: Option<Instant>,
}

impl<'a> Sending<'a> {
    fn new(client: &'a mut Client, args: &'a Produce, acks: Acks) -> Result<Sending<'a>, Failed> {
        let producer = Producer::new(client, &args.topic, acks)?;
        let partitions = u32::try_from(producer.partitions()).unwrap_or(u32::MAX);
        if let Some(partition) = args.partition.filter(|p| *p as u32 >= partitions) {
            let text =
                format!("topic {} has no partition {partition}; its last is {}", args.topic, partitions - 1);
            return Err(Failed::new(Code::Refused, text));
        }
        let header = |(key, value): &(String, String)| Header {
            key: key.clone(),
            value: Some(value.clone().into_bytes()),
        };
        // Many short runs shall not all begin with partition 0.
        let current = (now_ms().unsigned_abs() % u64::from(partitions)) as i32;
        Ok(Sending {
            args,
            producer,
            partitions,
            codec: args.compression.into(),
            headers: args.header.iter().map(header).collect(),
            open: BTreeMap::new(),
            current,
            lines: 0,
            acked: 0,
            acked_bytes: 0,
            started: Instant::now(),
            shown: None,
        })
    }

    fn all(&mut self, blocks: &Receiver<std::io::Result<Vec<u8>>>) -> Result<(), Failed> {
        let mut rest: Vec<u8> = Vec::new();
        loop {
            let block = match blocks.try_recv() {
                Ok(block) => block,
                // Nothing more for now: what is there must not wait for more to come.
                Err(TryRecvError::Empty) => {
                    self.flush()?;
                    match blocks.recv() {
                        Ok(block) => block,
                        Err(_) => break,
                    }
                }
                Err(TryRecvError::Disconnected) => break,
            };
            let block = block.map_err(|error| Failed::local("stdin cannot be read", &error))?;
            self.block(&block, &mut rest)?;
        }
        if !rest.is_empty() {
            self.line(&rest)?;
        }
        self.flush()
    }

    /// Cuts a block into lines; `rest` is the line that goes on in the next block.
    fn block(&mut self, block: &[u8], rest: &mut Vec<u8>) -> Result<(), Failed> {
        for piece in block.split_inclusive(|byte| *byte == b'\n') {
            match piece.split_last() {
                Some((b'\n', line)) if rest.is_empty() => self.line(line)?,
                Some((b'\n', line)) => {
                    rest.extend_from_slice(line);
                    let whole = std::mem::take(rest);
                    self.line(&whole)?;
                }
                Some(_) | None => rest.extend_from_slice(piece),
            }
        }
        Ok(())
    }

    fn line(&mut self, line: &[u8]) -> Result<(), Failed> {
        self.lines += 1;
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let (key, value) = match &self.args.key_separator {
            Some(separator) => split_key(line, &separator.0),
            None => (None, line),
        };
        let value = Some(value).filter(|value| !(value.is_empty() && self.args.empty_is_null));
        let partition = match (self.args.partition, key) {
            (Some(partition), _) => partition,
            (None, Some(key)) => ringmill_client::murmur::partition(key, self.partitions),
            (None, None) => self.current,
        };
        let record = Record {
            key: key.map(<[u8]>::to_vec),
            value: value.map(<[u8]>::to_vec),
            headers: self.headers.clone(),
            timestamp_ms: now_ms(),
        };
        let limit = self.args.batch_bytes as usize;
        if self.open.get(&partition).is_some_and(|open| open.batch.bytes() + record.bytes_max() > limit) {
            self.send(partition)?;
        }
        let (codec, number) = (self.codec, self.lines);
        let open = self.open.entry(partition).or_insert_with(|| Open {
            batch: BatchBuilder::new(codec),
            first_line: number,
            last_line: number,
            payload_bytes: 0,
        });
        open.batch.push(&record);
        open.last_line = number;
        open.payload_bytes += (key.map_or(0, <[u8]>::len) + value.map_or(0, <[u8]>::len)) as u64;
        if open.batch.bytes() >= limit {
            self.send(partition)?;
        } else if self.open.len() > 1
            && self.open.values().map(|o| o.batch.bytes()).sum::<usize>() > OPEN_BYTES_MAX
        {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Failed> {
        while let Some(partition) = self.open.keys().next().copied() {
            self.send(partition)?;
        }
        Ok(())
    }

    fn send(&mut self, partition: i32) -> Result<(), Failed> {
        let Some(open) = self.open.remove(&partition) else { return Ok(()) };
        let count = open.batch.count();
        self.producer.send(partition, open.batch).map_err(|error| {
            let lines = if open.first_line == open.last_line {
                format!("line {} was", open.first_line)
            } else {
                format!("lines {} to {} were", open.first_line, open.last_line)
            };
            let failed = Failed::from(error);
            Failed::new(failed.code, format!("{}; {lines} not acknowledged", failed.sentence))
        })?;
        if partition == self.current {
            self.current = ((self.current as u32 + 1) % self.partitions) as i32;
        }
        self.acked += count as u64;
        self.acked_bytes += open.payload_bytes;
        self.progress();
        Ok(())
    }

    fn row(&self) -> SentRow<'_> {
        SentRow {
            topic: &self.args.topic,
            lines: self.lines,
            records: self.acked,
            bytes: self.acked_bytes,
            acks: match self.args.acks {
                AcksArg::None => "0",
                AcksArg::Leader => "1",
                AcksArg::All => "all",
            },
            seconds: self.started.elapsed().as_secs_f64(),
        }
    }

    fn summary(&self) {
        if self.args.quiet {
            return;
        }
        self.wipe();
        let word = match self.args.acks {
            AcksArg::None => "sent, without acks",
            AcksArg::Leader | AcksArg::All => "acknowledged",
        };
        remark(&format!("{} {word}", throughput(self.acked, self.acked_bytes, self.started.elapsed())));
    }

    /// On a terminal, once a second, over itself.
    fn progress(&mut self) {
        let now = Instant::now();
        let since = self.shown.unwrap_or(self.started);
        if self.args.quiet || now - since < PROGRESS_EVERY || !std::io::stderr().is_terminal() {
            return;
        }
        self.shown = Some(now);
        let (records, size) = (crate::output::grouped(self.acked), bytes(self.acked_bytes));
        let _ = write!(std::io::stderr(), "\r{records} records, {size}    ");
    }

    fn wipe(&self) {
        if self.shown.is_some() {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

fn split_key<'a>(line: &'a [u8], separator: &[u8]) -> (Option<&'a [u8]>, &'a [u8]) {
    let found = line.windows(separator.len()).position(|window| window == separator);
    match found.and_then(|at| line.split_at_checked(at)) {
        Some((key, rest)) => (Some(key), rest.get(separator.len()..).unwrap_or_default()),
        None => (None, line),
    }
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_ends_at_the_first_separator() {
        assert_eq!(split_key(b"k:v:w", b":"), (Some(&b"k"[..]), &b"v:w"[..]));
        assert_eq!(split_key(b"a=>b", b"=>"), (Some(&b"a"[..]), &b"b"[..]));
        assert_eq!(split_key(b":v", b":"), (Some(&b""[..]), &b"v"[..]));
        assert_eq!(split_key(b"plain", b":"), (None, &b"plain"[..]));
        assert_eq!(split_key(b"", b"::"), (None, &b""[..]));
    }

    #[test]
    fn separators_may_be_tabs() {
        assert_eq!(separator("\\t"), Ok(Separator(vec![b'\t'])));
        assert!(separator("").is_err());
    }
}
