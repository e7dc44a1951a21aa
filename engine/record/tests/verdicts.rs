//! What Kafka 4.3.1 said about each batch of `golden/verdicts.txt` (written by `golden/verdicts.py` against a real
//! broker), and what is said here.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use ringmill_record::{BatchHeader, Produced, Records, batch, validate_produced};
use ringmill_types::{LeaderEpoch, Offset};

struct Verdict<'a> {
    name: &'a str,
    topic: &'a str,
    version: i16,
    records: Option<Vec<u8>>,
    /// `None`: the broker never answered.
    code: Option<i16>,
    stored: Vec<u8>,
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len() / 2).map(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap()).collect()
}

fn verdicts() -> Vec<Verdict<'static>> {
    let parse = |line: &'static str| {
        let fields: Vec<_> = line.split(" | ").collect();
        let [name, topic, version, sent, code, _message, stored] = fields[..] else { panic!("{line}") };
        Verdict {
            name,
            topic,
            version: version.parse().unwrap(),
            records: (sent != "-").then(|| unhex(sent)),
            code: code.parse().ok(),
            stored: unhex(stored),
        }
    };
    include_str!("golden/verdicts.txt").lines().map(parse).collect()
}

/// Where the answer here is another one than Kafka's, and why.
fn on_purpose(name: &str) -> Option<i16> {
    Some(match name {
        // Kafka never answers: its handler fails on the null. A client deserves to hear.
        "null-records" => 87,
        // Magic 0 and 1 are whole message formats that were dropped; the code says that better than INVALID_RECORD.
        "magic-0" | "magic-1" | "magic-1-real-message" => 43,
        // UNKNOWN_SERVER_ERROR would blame the broker for what the client sent.
        "length-huge" | "compression-5" | "compression-6" | "compression-7" => 87,
        // Kafka drops a partial batch behind the first, and trips over zeros there. Nobody sends either on purpose.
        "byte-after" | "bytes-after" | "length-49" => 87,
        // An epoch of -1 beside a producer id fences nothing.
        "producer-epoch-negative" => 87,
        _ => return None,
    })
}

/// Decided elsewhere: topic rules and sequences by the log (whose own test looks at these batches), transactions by the
/// core, and the inside of compressed batches where their topic is compacted.
fn is_elsewhere(verdict: &Verdict<'_>) -> bool {
    verdict.name.starts_with("gzip-")
        || matches!(
            (verdict.name, verdict.topic),
            ("gzip", "small")
                | ("two-hours-ahead" | "two-hours-ahead-in-records-only", _)
                | ("log-append-time-bit", "append-time")
                | ("null-key", "compacted")
                | ("transactional" | "transactional-with-producer", _)
                | ("null-keys-four-of-five", "compacted")
                | ("null-key-and-two-hours-ahead", _)
                | ("zstd-garbage-version-7", _)
        )
}

#[test]
fn our_codes_are_kafkas() {
    let verdicts = verdicts();
    assert!(verdicts.len() >= 99);
    for verdict in &verdicts {
        let ours = validate_produced(verdict.records.as_deref(), verdict.version);
        let code = ours.map_or_else(|refusal| refusal.code().code(), |_| 0);
        let expected = match on_purpose(verdict.name) {
            Some(other) => {
                assert_ne!(Some(other), verdict.code, "{}: not a difference any more", verdict.name);
                other
            }
            None if is_elsewhere(verdict) => 0,
            None => verdict.code.unwrap(),
        };
        assert_eq!(
            code, expected,
            "{} on {}: {ours:?}, Kafka {:?}",
            verdict.name, verdict.topic, verdict.code
        );
    }
}

/// What Kafka stored differs from what was sent in the fields outside the CRC, and on LogAppendTime topics in those
/// that `patch_log_append_time` writes; what a producer claims wrongly is put right: our patches give its bytes.
#[test]
fn our_patches_give_kafkas_bytes() {
    let (mut compared, mut put_right) = (0, 0);
    for verdict in verdicts().iter().filter(|v| !v.stored.is_empty()) {
        let stored = BatchHeader::parse(&verdict.stored).unwrap();
        let mut ours = verdict.records.clone().unwrap();
        ours.truncate(stored.size_bytes);
        if verdict.name == "gzip-max-timestamp-too-low" {
            // Known only to who unpacks it, which is done for compacted topics.
            continue;
        }
        let produced = validate_produced(Some(&ours), verdict.version);
        batch::patch_placement(&mut ours, stored.base_offset, LeaderEpoch(0));
        if verdict.topic == "append-time" {
            batch::patch_log_append_time(&mut ours, stored.max_timestamp_ms);
        } else if let Some(produced) = produced.ok().filter(Produced::is_to_be_put_right) {
            batch::patch_create_time(&mut ours, produced.max_timestamp_ms);
            put_right += 1;
        }
        assert_eq!(ours, verdict.stored, "{} on {}", verdict.name, verdict.topic);
        compared += 1;
    }
    assert!(compared > 30 && put_right >= 4, "{compared}, {put_right}");
}

#[test]
fn records_of_a_good_batch_are_read() {
    let verdicts = verdicts();
    let good = verdicts.iter().find(|v| v.name == "good").unwrap();
    let header = validate_produced(good.records.as_deref(), 8).unwrap().header;
    assert_eq!((header.record_count, header.last_offset()), (2, Offset(1)));
    let records: Vec<_> =
        Records::new(&header, good.records.as_deref().unwrap()).unwrap().map(Result::unwrap).collect();
    assert_eq!(records.iter().map(|r| r.offset_delta).collect::<Vec<_>>(), [0, 1]);
    assert!(
        records
            .iter()
            .all(|r| r.key == Some(b"key") && r.value == Some(b"value") && r.timestamp_delta_ms == 0)
    );
    let nulls = verdicts.iter().find(|v| v.name == "null-value").unwrap();
    let header = validate_produced(nulls.records.as_deref(), 8).unwrap().header;
    let record = Records::new(&header, nulls.records.as_deref().unwrap()).unwrap().next().unwrap().unwrap();
    assert_eq!((record.key, record.value), (Some(&b"key"[..]), None));
}
