//! What every command that produces has in common: its flags, and the plan that comes of them.

use super::cluster::Place;
use super::properties::Properties;
use super::{failed, file_settings};
use crate::exit::{Code, Failed};
use crate::output::remark;
use clap::Args;
use kafka_wire::InitProducerIdRequest;
use ringmill_client::client::Absent;
use ringmill_client::{Client, ClientError, ServerCode};
use ringmill_load::{Keys, LoadError, Outcome, Payload, Plan, Schedule, Sizes};
use std::path::PathBuf;
use std::time::Duration;

/// Flags as kafka-producer-perf-test has them, and ours.
#[derive(Args, Clone, Debug)]
pub struct Sending {
    /// Topic to send to; created by the broker where it allows that
    #[arg(long, value_name = "NAME")]
    pub topic: String,
    /// Create the topic with so many partitions if it is not there
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(i32).range(1..))]
    pub partitions: Option<i32>,
    /// Records to send, the warm-up included
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    pub num_records: u64,
    /// Bytes of a value: BYTES, MIN:MAX, lognormal:MEDIAN:SIGMA, or file:PATH with a list of sizes
    #[arg(long, value_name = "SIZE", required_unless_present_any = ["payload_file", "payload_monotonic"])]
    record_size: Option<Sizes>,
    /// Values are pieces of this file, by chance
    #[arg(long, value_name = "FILE", conflicts_with_all = ["record_size", "payload_monotonic"])]
    payload_file: Option<PathBuf>,
    /// What parts the values of --payload-file; without that it means nothing, as in Kafka's tool
    #[arg(long, value_name = "TEXT", default_value = "\\n")]
    payload_delimiter: String,
    /// Values are 0, 1, 2 and so on
    #[arg(long, conflicts_with = "record_size")]
    payload_monotonic: bool,
    /// Keys: none, uniform:COUNT, zipf:COUNT or zipf:COUNT:EXPONENT
    #[arg(long, value_name = "KEYS", default_value = "none")]
    keys: Keys,
    /// Schedule: RATE (records per second), -1 (no limit), poisson:RATE, burst:RATE:COUNT, step:FROM:TO:SECONDS,
    /// replay:RATE,RATE,… or replay:FILE (a rate for each second)
    #[arg(long, value_name = "SCHEDULE", default_value = "-1", allow_hyphen_values = true, value_parser = schedule)]
    pub throughput: Schedule,
    /// First records that do not count
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    pub warmup_records: u64,
    /// Producers, each with connections of its own
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub producers: u32,
    /// Producer settings as Kafka names them: acks, linger.ms, batch.size, compression.type, enable.idempotence, …
    #[arg(long, visible_aliases = ["producer-props"], value_name = "KEY=VALUE", num_args = 1.., action = clap::ArgAction::Append)]
    pub command_property: Vec<String>,
    /// The same from a file
    #[arg(long, visible_alias = "producer.config", value_name = "FILE")]
    command_config: Option<PathBuf>,
    /// Refused: perf has no transactions
    #[arg(long, value_name = "ID", hide = true)]
    transactional_id: Option<String>,
    #[arg(long, value_name = "MS", hide = true)]
    transaction_duration_ms: Option<String>,
}

/// A schedule; the rates of a replay may be in a file.
fn schedule(text: &str) -> Result<Schedule, String> {
    let path = text.strip_prefix("replay:").filter(|rest| !rest.starts_with(|c: char| c.is_ascii_digit()));
    let Some(path) = path else { return text.parse().map_err(|e| format!("{e}")) };
    let rates = std::fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?;
    let rates: Vec<&str> = rates.split([',', '\n', ' ']).filter(|rate| !rate.trim().is_empty()).collect();
    let text = format!("replay:{}", rates.join(","));
    text.parse().map_err(|_| format!("{path}: not a list of rates above 0"))
}

impl Sending {
    /// Settings, after what cannot be honoured was refused.
    pub fn properties(&self) -> Result<Properties, Failed> {
        if self.transactional_id.is_some() || self.transaction_duration_ms.is_some() {
            let why = "--transactional-id and --transaction-duration-ms: perf has no transactions yet";
            return Err(Failed::new(Code::Usage, why));
        }
        if self.warmup_records >= self.num_records {
            return Err(Failed::new(Code::Usage, "--warmup-records must be less than --num-records"));
        }
        let mut settings = file_settings(self.command_config.as_deref())?;
        settings.extend(self.command_property.iter().cloned());
        Properties::parse(&settings).map_err(|e| Failed::new(Code::Usage, e))
    }

    /// Finds the topic, after it was created where that was asked for.
    pub fn place(&self, server: &crate::server::Server) -> Result<Place, Failed> {
        if let Some(partitions) = self.partitions {
            create(&mut server.connect()?, &self.topic, partitions)?;
        }
        super::cluster::find(server, &self.topic, Absent::Create)
    }

    pub fn plan(&self, place: &mut Place, with: &Properties, timeout: Duration) -> Result<Plan, Failed> {
        let identities = self.identities(&mut place.client, with)?;
        Ok(Plan {
            client_id: with.client_id.clone(),
            schedule: self.throughput.clone(),
            warmup: self.warmup_records,
            keys: self.keys.clone(),
            payload: self.payload()?,
            partitioner: with.partitioner,
            ignore_keys: with.ignore_keys,
            producers: self.producers as usize,
            acks: with.acks,
            linger: with.linger,
            batch_bytes: with.batch_bytes,
            request_bytes: with.request_bytes,
            buffer_bytes: with.buffer_bytes,
            in_flight_max: with.in_flight_max,
            compress: with.compress,
            identities,
            retries: with.retries,
            retry_backoff: with.retry_backoff,
            delivery: with.delivery,
            timeout: with.timeout.unwrap_or(timeout),
            socket_buffer: with.socket_buffer,
            ..Plan::new(&self.topic, place.targets.clone(), self.num_records, Sizes::Fixed(1))
        })
    }

    fn payload(&self) -> Result<Payload, Failed> {
        if self.payload_monotonic {
            return Ok(Payload::Counting);
        }
        let Some(path) = &self.payload_file else {
            return Ok(Payload::Letters(self.record_size.clone().unwrap_or(Sizes::Fixed(1))));
        };
        let text = std::fs::read(path).map_err(|error| Failed::local(path.display(), &error))?;
        let text = String::from_utf8(text)
            .map_err(|_| Failed::new(Code::Usage, format!("{}: not UTF-8", path.display())))?;
        let delimiter = self.payload_delimiter.replace("\\n", "\n").replace("\\t", "\t");
        if delimiter.is_empty() {
            return Err(Failed::new(Code::Usage, "--payload-delimiter must not be empty"));
        }
        let lines: Vec<Vec<u8>> =
            text.split(&delimiter).filter(|l| !l.is_empty()).map(|l| l.as_bytes().to_vec()).collect();
        if lines.is_empty() {
            return Err(Failed::new(Code::Usage, format!("{}: there is no value in it", path.display())));
        }
        Ok(Payload::Lines(lines.into()))
    }

    /// An id for each producer, where they are to be idempotent and the broker gives ids.
    fn identities(&self, client: &mut Client, with: &Properties) -> Result<Vec<(i64, i16)>, Failed> {
        if !with.is_idempotent() {
            return Ok(Vec::new());
        }
        let mut request = InitProducerIdRequest::default();
        request.transactional_id = None;
        request.producer_id = -1;
        request.producer_epoch = -1;
        request.transaction_timeout_ms = i32::MAX;
        let mut identities = Vec::new();
        for _ in 0..self.producers {
            let asked = client.retry(|client| {
                let answer = client.ask(&request, i16::MAX)?;
                ClientError::check(answer.error_code, || "asking for a producer id".to_string(), None)?;
                Ok(answer)
            });
            match asked {
                Ok(answer) => identities.push((answer.producer_id, answer.producer_epoch)),
                Err(ClientError::Unsupported { .. }) if with.idempotence.is_none() => {
                    remark("the broker gives no producer ids: producers are not idempotent");
                    return Ok(Vec::new());
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(identities)
    }

    /// How a run of this ended.
    pub fn verdict(&self, outcome: &Outcome, result: Result<(), LoadError>) -> Result<(), Failed> {
        result.map_err(failed)?;
        if outcome.errors > 0 {
            let count = crate::output::grouped(outcome.errors);
            let why = outcome.first_error.map_or(String::new(), |code| format!(": {}", ServerCode(code)));
            return Err(Failed::new(Code::Refused, format!("{count} records were not taken{why}")));
        }
        Ok(())
    }
}

/// Creates a topic unless there is one of that name.
fn create(client: &mut Client, name: &str, partitions: i32) -> Result<(), Failed> {
    const TOPIC_ALREADY_EXISTS: i16 = 36;
    let new = ringmill_client::admin::NewTopic {
        name: name.to_string(),
        partitions: Some(partitions),
        ..Default::default()
    };
    match client.create_topic(&new) {
        Ok(_) => Ok(()),
        Err(ClientError::Refused { code, .. }) if code.0 == TOPIC_ALREADY_EXISTS => Ok(()),
        Err(error) => Err(error.into()),
    }
}
