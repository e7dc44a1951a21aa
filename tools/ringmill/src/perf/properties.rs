//! Producer settings under Kafka's names: those that are honoured, and a sentence for those that are not.

use super::milliseconds;
use ringmill_client::Codec;
use ringmill_load::{Compress, Partitioner};
use std::time::Duration;

/// Kafka's own defaults where none is given; linger as of Kafka 4.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Properties {
    pub bootstrap: Option<String>,
    pub client_id: String,
    pub acks: i16,
    pub linger: Duration,
    pub batch_bytes: usize,
    pub request_bytes: usize,
    pub buffer_bytes: usize,
    pub in_flight_max: usize,
    pub compress: Compress,
    pub partitioner: Partitioner,
    pub ignore_keys: bool,
    /// `None`: where acks and requests in flight allow it, as Kafka does.
    pub idempotence: Option<bool>,
    pub retries: u32,
    pub retry_backoff: Duration,
    pub delivery: Duration,
    pub socket_buffer: Option<u32>,
    pub timeout: Option<Duration>,
}

impl Default for Properties {
    fn default() -> Properties {
        Properties {
            bootstrap: None,
            client_id: "perf-producer-client".into(),
            acks: -1,
            linger: Duration::from_millis(5),
            batch_bytes: 16_384,
            request_bytes: 1 << 20,
            buffer_bytes: 32 << 20,
            in_flight_max: 5,
            compress: Compress::default(),
            partitioner: Partitioner::Sticky,
            ignore_keys: false,
            idempotence: None,
            retries: i32::MAX as u32,
            retry_backoff: Duration::from_millis(100),
            delivery: Duration::from_secs(120),
            socket_buffer: None,
            timeout: None,
        }
    }
}

/// Level of a codec, which counts only if that codec is chosen.
type Levels = Vec<(Codec, i32)>;

impl Properties {
    /// Reads `KEY=VALUE` settings; the last of a key counts.
    ///
    /// # Errors
    /// A sentence, for a key that is not honoured or a value that it cannot have.
    pub fn parse(settings: &[String]) -> Result<Properties, String> {
        let mut found = Properties::default();
        let mut levels = Levels::new();
        for setting in settings {
            let (key, value) =
                setting.split_once('=').ok_or_else(|| format!("{setting}: a setting is KEY=VALUE"))?;
            let (key, value) = (key.trim(), value.trim());
            if !found.batching(key, value)? && !found.compression(key, value, &mut levels)? {
                found.sending(key, value)?;
            }
        }
        let chosen = levels.iter().rev().find(|(codec, _)| *codec == found.compress.codec);
        found.compress.level = chosen.map(|(_, level)| *level);
        let possible = found.acks == -1 && found.in_flight_max <= 5 && found.retries > 0;
        if found.idempotence == Some(true) && !possible {
            return Err("enable.idempotence=true needs acks=all, retries above 0 and at most 5 requests in \
                        flight per connection"
                .into());
        }
        Ok(found)
    }

    /// Whether producers are to have ids.
    pub fn is_idempotent(&self) -> bool {
        let possible = self.acks == -1 && self.in_flight_max <= 5 && self.retries > 0;
        self.idempotence.unwrap_or(possible)
    }

    fn batching(&mut self, key: &str, value: &str) -> Result<bool, String> {
        let bad = || format!("{key}={value}: not a value that {key} can have");
        let size = |max: usize| value.parse().ok().filter(|b| *b <= max).ok_or_else(bad);
        match key {
            "linger.ms" => self.linger = milliseconds(value).ok_or_else(bad)?,
            "batch.size" => self.batch_bytes = size(64 << 20)?,
            "max.request.size" => self.request_bytes = size(512 << 20)?,
            "buffer.memory" => self.buffer_bytes = size(1 << 30)?,
            "max.in.flight.requests.per.connection" => {
                self.in_flight_max = value.parse().ok().filter(|n| (1..=1000).contains(n)).ok_or_else(bad)?;
            }
            "partitioner.ignore.keys" => self.ignore_keys = value.parse().map_err(|_| bad())?,
            "partitioner.class" => {
                self.partitioner = match value.rsplit('.').next() {
                    Some("RoundRobinPartitioner") => Partitioner::RoundRobin,
                    Some("" | "null") => Partitioner::Sticky,
                    Some(_) | None => return Err(bad()),
                };
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn compression(&mut self, key: &str, value: &str, levels: &mut Levels) -> Result<bool, String> {
        let bad = || format!("{key}={value}: not a value that {key} can have");
        let level = |min: i32, max: i32| {
            value.parse().ok().filter(|level| (min..=max).contains(level)).ok_or_else(bad)
        };
        match key {
            "compression.type" => {
                let known = Codec::ALL.into_iter().find(|codec| codec.name() == value);
                self.compress.codec = known.ok_or_else(bad)?;
            }
            // -1 is Kafka's word for the codec's default.
            "compression.gzip.level" if value == "-1" => {}
            "compression.gzip.level" => levels.push((Codec::Gzip, level(1, 9)?)),
            "compression.zstd.level" => levels.push((Codec::Zstd, level(-131_072, 22)?)),
            "compression.lz4.level" => {
                return Err(format!(
                    "{key}={value}: LZ4 has one level here, Kafka's default, so this is not pretended to be another"
                ));
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn sending(&mut self, key: &str, value: &str) -> Result<(), String> {
        let bad = || format!("{key}={value}: not a value that {key} can have");
        let time = || milliseconds(value).ok_or_else(bad);
        match key {
            "bootstrap.servers" => self.bootstrap = value.split(',').next().map(str::to_string),
            "client.id" => self.client_id = value.to_string(),
            "acks" => {
                self.acks = match value {
                    "all" | "-1" => -1,
                    "0" => 0,
                    "1" => 1,
                    _ => return Err(bad()),
                };
            }
            "enable.idempotence" => self.idempotence = Some(value.parse().map_err(|_| bad())?),
            "retries" => {
                self.retries = value.parse().ok().filter(|n| *n <= i32::MAX as u32).ok_or_else(bad)?
            }
            "retry.backoff.ms" => self.retry_backoff = time()?,
            "delivery.timeout.ms" => self.delivery = time()?,
            "request.timeout.ms" => self.timeout = Some(time()?),
            "send.buffer.bytes" | "receive.buffer.bytes" if value == "-1" => {}
            "send.buffer.bytes" | "receive.buffer.bytes" => {
                let bytes = value.parse().ok().filter(|b| (4096..=1 << 30).contains(b));
                self.socket_buffer = Some(bytes.ok_or_else(bad)?);
            }
            "security.protocol" if value.eq_ignore_ascii_case("plaintext") => {}
            // Records are bytes here.
            "key.serializer" | "value.serializer" => {}
            _ if key.starts_with("transaction") => {
                return Err(format!("{key}={value}: perf has no transactions yet"));
            }
            _ => return Err(format!("{key}={value}: perf does not honour this, so it does not pretend to")),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Properties, String> {
        Properties::parse(&line.split(' ').map(str::to_string).collect::<Vec<_>>())
    }

    #[test]
    fn settings_have_kafkas_names_and_meaning() {
        let line = "acks=1 linger.ms=0 batch.size=1000 bootstrap.servers=a:1,b:2 request.timeout.ms=250 \
                    compression.type=zstd compression.zstd.level=9 compression.gzip.level=1 retries=3 \
                    partitioner.class=org.apache.kafka.clients.producer.RoundRobinPartitioner";
        let found = parse(line).expect("all are honoured");
        let expected = Properties {
            bootstrap: Some("a:1".into()),
            acks: 1,
            linger: Duration::ZERO,
            batch_bytes: 1000,
            timeout: Some(Duration::from_millis(250)),
            compress: Compress { codec: Codec::Zstd, level: Some(9) },
            retries: 3,
            partitioner: Partitioner::RoundRobin,
            ..Properties::default()
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn idempotence_is_on_where_kafka_has_it_on() {
        let idempotent = |line: &str| parse(line).map(|found| found.is_idempotent());
        assert_eq!(idempotent("acks=all"), Ok(true));
        assert_eq!(idempotent("acks=1"), Ok(false));
        assert_eq!(idempotent("enable.idempotence=false"), Ok(false));
        assert_eq!(idempotent("max.in.flight.requests.per.connection=6"), Ok(false));
        assert!(idempotent("acks=1 enable.idempotence=true").is_err());
    }

    #[test]
    fn what_is_not_honoured_is_refused() {
        for line in
            ["acks=2", "acks", "compression.type=brotli", "linger.ms=-1", "compression.lz4.level=9", "a=b"]
        {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
