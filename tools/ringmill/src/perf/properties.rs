//! Producer settings under Kafka's names: those that are honoured, and a sentence for those that are not.

use super::milliseconds;
use std::time::Duration;

/// Kafka's own defaults where none is given; linger as of Kafka 4.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Properties {
    pub bootstrap: Option<String>,
    pub acks: i16,
    pub linger: Duration,
    pub batch_bytes: usize,
    pub in_flight_max: usize,
    pub timeout: Option<Duration>,
}

impl Default for Properties {
    fn default() -> Properties {
        Properties {
            bootstrap: None,
            acks: -1,
            linger: Duration::from_millis(5),
            batch_bytes: 16_384,
            in_flight_max: 5,
            timeout: None,
        }
    }
}

impl Properties {
    /// Reads `KEY=VALUE` settings.
    ///
    /// # Errors
    /// A sentence, for a key that is not honoured or a value that it cannot have.
    pub fn parse(settings: &[String]) -> Result<Properties, String> {
        let mut found = Properties::default();
        for setting in settings {
            let (key, value) =
                setting.split_once('=').ok_or_else(|| format!("{setting}: a setting is KEY=VALUE"))?;
            let (key, value) = (key.trim(), value.trim());
            let bad = || format!("{key}={value}: not a value that {key} can have");
            match key {
                "bootstrap.servers" => {
                    found.bootstrap = value.split(',').next().map(str::to_string);
                }
                "acks" => {
                    found.acks = match value {
                        "all" | "-1" => -1,
                        "0" => 0,
                        "1" => 1,
                        _ => return Err(bad()),
                    };
                }
                "linger.ms" => found.linger = milliseconds(value).ok_or_else(bad)?,
                "batch.size" => {
                    found.batch_bytes = value.parse().ok().filter(|b| *b <= 64 << 20).ok_or_else(bad)?;
                }
                "max.in.flight.requests.per.connection" => {
                    found.in_flight_max =
                        value.parse().ok().filter(|n| (1..=1000).contains(n)).ok_or_else(bad)?;
                }
                "request.timeout.ms" => found.timeout = Some(milliseconds(value).ok_or_else(bad)?),
                "compression.type" if value == "none" => {}
                "enable.idempotence" if value == "false" => {}
                "security.protocol" if value.eq_ignore_ascii_case("plaintext") => {}
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

    fn parse(line: &str) -> Result<Properties, String> {
        Properties::parse(&line.split(' ').map(str::to_string).collect::<Vec<_>>())
    }

    #[test]
    fn settings_have_kafkas_names_and_meaning() {
        let found =
            parse("acks=1 linger.ms=0 batch.size=1000 bootstrap.servers=a:1,b:2 request.timeout.ms=250")
                .expect("all are honoured");
        let expected = Properties {
            bootstrap: Some("a:1".into()),
            acks: 1,
            linger: Duration::ZERO,
            batch_bytes: 1000,
            timeout: Some(Duration::from_millis(250)),
            ..Properties::default()
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn what_is_not_honoured_is_refused() {
        for line in ["acks=2", "acks", "compression.type=zstd", "enable.idempotence=true", "linger.ms=-1"] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
