//! What Kafka 4.3.1 said about each batch of `engine/record/tests/golden/verdicts.txt` where the rules of a topic or the
//! inside of a compressed batch decide, and what is said here: codes, sentences and the records they name.
#![allow(clippy::unwrap_used)]

mod common;

use common::Core;
use ringmill_log::AppendError;
use ringmill_log::examine::{Judgement, needs_unpacking, unpack_and_judge};
use ringmill_record::write::{Sealing, seal};
use ringmill_record::{BadRecords, Compression, HEADER_BYTES, validate_produced};
use ringmill_types::{
    CoreId, LeaderEpoch, PartitionId, PartitionSpec, TimestampType, TopicConfig, TopicId, TopicSpec,
};
use std::sync::Arc;

struct Verdict {
    name: &'static str,
    kind: &'static str,
    version: i16,
    records: Vec<u8>,
    code: i16,
    message: &'static str,
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len() / 2).map(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap()).collect()
}

fn verdicts() -> Vec<Verdict> {
    let parse = |line: &'static str| {
        let fields: Vec<_> = line.split(" | ").collect();
        let [name, kind, version, sent, code, message, _stored] = fields[..] else { panic!("{line}") };
        let code = code.parse().ok()?;
        Some(Verdict { name, kind, version: version.parse().unwrap(), records: unhex(sent), code, message })
    };
    include_str!("../../record/tests/golden/verdicts.txt").lines().filter_map(parse).collect()
}

fn config(kind: &str) -> TopicConfig {
    let config = TopicConfig::default();
    match kind {
        "plain" => config,
        "compacted" => TopicConfig { compacted: true, delete: false, ..config },
        "append-time" => TopicConfig { timestamp_type: TimestampType::LogAppendTime, ..config },
        "small" => TopicConfig { max_message_bytes: 100, ..config },
        other => panic!("{other}"),
    }
}

/// The broker's clock at the verdict, from its message: an hour before the latest time it takes.
fn wall_ms(message: &str) -> i64 {
    let latest = message.split_once("within [").and_then(|(_, range)| range.split_once(", "));
    let latest = latest.map(|(_, rest)| rest.split(']').next().unwrap().parse::<i64>().unwrap());
    latest.map_or(1_790_000_000_000, |latest| latest - 3_600_000)
}

struct Said {
    code: i16,
    message: String,
}

fn bad(bad: &BadRecords) -> Said {
    let named = bad.records.iter().map(|(index, why)| format!("; {index}: {why}"));
    Said { code: bad.code.code(), message: bad.message.clone() + &named.collect::<String>() }
}

/// A partition of its own for each, so that no verdict depends on the one before.
fn ask(core: &mut Core, id: u64, verdict: &Verdict) -> Said {
    let code = |code: i16| Said { code, message: String::new() };
    let spec =
        PartitionSpec { index: 0, id: PartitionId(id), owner: CoreId(0), leader_epoch: LeaderEpoch(0) };
    let topic = TopicSpec {
        name: format!("verdict-{}", verdict.kind).into(),
        id: TopicId([id as u8; 16]),
        config: Arc::new(config(verdict.kind)),
        partitions: vec![spec.clone()],
    };
    let wall_ms = wall_ms(verdict.message);
    let produced = if needs_unpacking(&topic.config, &verdict.records) {
        let at = (&*topic.name, 0);
        match unpack_and_judge(&verdict.records, verdict.version, &topic.config, at, wall_ms) {
            Ok(judged) => judged.produced,
            Err(Judgement::TooLarge) => return code(10),
            Err(Judgement::Refused(refusal)) => return code(refusal.code().code()),
            Err(Judgement::BadRecords(found)) => return bad(&found),
        }
    } else {
        match validate_produced(Some(&verdict.records), verdict.version) {
            Ok(produced) => produced,
            Err(refusal) => return code(refusal.code().code()),
        }
    };
    let slot = core.log.upsert(&topic, &spec);
    loop {
        match core.log.append_produced(&mut core.io, slot, &produced, &verdict.records, wall_ms) {
            Ok(_) => return code(0),
            Err(AppendError::Busy) => core.turn(),
            Err(AppendError::Refused(error, _)) => return code(error.code()),
            Err(AppendError::BadRecords(found)) => return bad(&found),
        }
    }
}

/// Where compressed batches are believed, because their topic is not compacted.
fn is_believed(verdict: &Verdict) -> bool {
    verdict.kind != "compacted"
        && matches!(
            verdict.name,
            "gzip-offset-wrong"
                | "gzip-offset-wrong-and-null-key"
                | "gzip-count-above-records"
                | "gzip-count-below-records"
                | "gzip-two-hours-ahead-in-records-only"
                | "gzip-garbage"
                | "zstd-garbage-version-7"
        )
}

#[test]
fn records_that_break_the_rules_of_their_topic_are_named_as_kafka_names_them() {
    let home = tempfile::tempdir().unwrap();
    let (mut core, _) = Core::open(home.path(), 1);
    let verdicts = verdicts();
    let (mut named, mut unpacked) = (0, 0);
    for (id, verdict) in (100..).zip(&verdicts) {
        let about = format!("{} on {}", verdict.name, verdict.kind);
        let has_records = verdict.message.starts_with("One or more records");
        if !has_records && !verdict.name.starts_with("gzip") {
            continue;
        }
        let said = ask(&mut core, id, verdict);
        if is_believed(verdict) {
            assert_eq!(said.code, 0, "{about}: not believed any more");
            assert_ne!(verdict.code, 0, "{about}");
            continue;
        }
        // UNKNOWN_SERVER_ERROR would blame the broker for what the client sent.
        let blamed = match verdict.name {
            "gzip-garbage" => 2,
            "gzip-offset-wrong" => 87,
            _ => -1,
        };
        assert_eq!(said.code, if verdict.code == -1 { blamed } else { verdict.code }, "{about}");
        if has_records {
            assert_eq!(said.message, verdict.message, "{about}");
            named += 1;
        }
        unpacked += usize::from(verdict.kind == "compacted" && verdict.name.starts_with("gzip"));
    }
    assert!(named >= 12, "{named}");
    assert!(unpacked >= 8, "{unpacked}");
}

/// Every compression is looked into, and a small batch that unpacks to very much costs a bounded part of that.
#[test]
fn a_batch_that_unpacks_to_too_much_is_refused() {
    use ringmill_log::examine::UNPACKED_BYTES_MAX;
    use std::io::Write as _;
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let zeros = vec![0; 1 << 20];
    for _ in 0..=UNPACKED_BYTES_MAX >> 20 {
        packer.write_all(&zeros).unwrap();
    }
    let packed = packer.finish().unwrap();
    let mut batch = vec![0; HEADER_BYTES];
    batch.extend(&packed);
    let gzip = Compression::Gzip.code().into();
    seal(&mut batch, &Sealing { attributes: gzip, ..Sealing::plain(1000, 1000, 1) });
    let judged = unpack_and_judge(&batch, 9, &config("compacted"), ("t", 0), 1000);
    let Err(Judgement::Refused(refusal)) = judged else { panic!("{judged:?}") };
    assert_eq!(refusal.code().name(), "MESSAGE_TOO_LARGE");
}
