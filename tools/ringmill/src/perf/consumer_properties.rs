//! Consumer settings under Kafka's names: those that are honoured, and a sentence for those that are not.

use super::milliseconds;
use std::time::Duration;

/// Kafka's own defaults where none is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumerProperties {
    pub bootstrap: Option<String>,
    pub client_id: String,
    pub group: Option<String>,
    pub bytes_min: i32,
    pub bytes_max: i32,
    pub partition_bytes_max: i32,
    pub wait_ms: i32,
    pub check_crcs: bool,
    pub from_latest: bool,
    pub request_timeout: Duration,
    pub session_timeout: Duration,
    pub heartbeat: Duration,
}

impl Default for ConsumerProperties {
    fn default() -> ConsumerProperties {
        ConsumerProperties {
            bootstrap: None,
            client_id: "perf-consumer-client".into(),
            group: None,
            bytes_min: 1,
            bytes_max: 50 << 20,
            partition_bytes_max: 1 << 20,
            wait_ms: 500,
            check_crcs: true,
            from_latest: false,
            request_timeout: Duration::from_secs(30),
            session_timeout: Duration::from_secs(45),
            heartbeat: Duration::from_secs(3),
        }
    }
}

impl ConsumerProperties {
    /// Reads `KEY=VALUE` settings; the last of a key counts.
    ///
    /// # Errors
    /// A sentence, for a key that is not honoured or a value that it cannot have.
    pub fn parse(settings: &[String]) -> Result<ConsumerProperties, String> {
        let mut found = ConsumerProperties::default();
        for setting in settings {
            let (key, value) =
                setting.split_once('=').ok_or_else(|| format!("{setting}: a setting is KEY=VALUE"))?;
            let (key, value) = (key.trim(), value.trim());
            let bad = || format!("{key}={value}: not a value that {key} can have");
            let size = |min: i32| value.parse().ok().filter(|bytes| *bytes >= min).ok_or_else(bad);
            let time = || milliseconds(value).ok_or_else(bad);
            match key {
                "bootstrap.servers" => found.bootstrap = value.split(',').next().map(str::to_string),
                "client.id" => found.client_id = value.to_string(),
                "group.id" => found.group = Some(value.to_string()),
                "fetch.min.bytes" => found.bytes_min = size(0)?,
                "fetch.max.bytes" => found.bytes_max = size(0)?,
                "max.partition.fetch.bytes" => found.partition_bytes_max = size(0)?,
                "fetch.max.wait.ms" => {
                    found.wait_ms = i32::try_from(time()?.as_millis()).map_err(|_| bad())?;
                }
                "check.crcs" => found.check_crcs = value.parse().map_err(|_| bad())?,
                "auto.offset.reset" => {
                    found.from_latest = match value {
                        "earliest" => false,
                        "latest" => true,
                        _ => return Err(bad()),
                    };
                }
                "request.timeout.ms" => found.request_timeout = time()?.max(Duration::from_millis(1)),
                "session.timeout.ms" => found.session_timeout = time()?,
                "heartbeat.interval.ms" => found.heartbeat = time()?,
                "isolation.level" if value == "read_uncommitted" => {}
                "group.protocol" if value.eq_ignore_ascii_case("classic") => {}
                "security.protocol" if value.eq_ignore_ascii_case("plaintext") => {}
                // Records are bytes here, and polls have no size of their own.
                "key.deserializer" | "value.deserializer" | "max.poll.records" => {}
                _ => {
                    return Err(format!(
                        "{key}={value}: perf does not honour this, so it does not pretend to"
                    ));
                }
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_have_kafkas_names_and_meaning() {
        let lines = ["fetch.min.bytes=9", "check.crcs=false", "auto.offset.reset=latest", "group.id=g"];
        let found = ConsumerProperties::parse(&lines.map(str::to_string)).expect("all are honoured");
        let expected = ConsumerProperties {
            bytes_min: 9,
            check_crcs: false,
            from_latest: true,
            group: Some("g".into()),
            ..ConsumerProperties::default()
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn what_is_not_honoured_is_refused() {
        for line in ["isolation.level=read_committed", "fetch.min.bytes=-1", "check.crcs=1", "x", "x=y"] {
            assert!(ConsumerProperties::parse(&[line.to_string()]).is_err(), "{line}");
        }
    }
}
