//! `net/docs/COMPATIBILITY.md`: what the table of served APIs says, beside what Apache Kafka 4.3.1 serves, and every
//! difference that is kept on purpose. Written with `UPDATE=1 cargo test -p ringmill-wire`.
#![allow(clippy::unwrap_used)]

use ringmill_wire::ApiKey;
use ringmill_wire::supported::{SUPPORTED, find};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// (key, lowest, highest) as a running Apache Kafka 4.3.1 answers ApiVersions.
#[rustfmt::skip]
const KAFKA: &[(i16, i16, i16)] = &[
    (0, 0, 13), (1, 4, 18), (2, 1, 11), (3, 0, 13), (8, 2, 10), (9, 1, 10), (10, 0, 6), (11, 0, 9), (12, 0, 4),
    (13, 0, 5), (14, 0, 5), (15, 0, 6), (16, 0, 5), (17, 0, 1), (18, 0, 4), (19, 2, 7), (20, 1, 6), (21, 0, 2),
    (22, 0, 5), (23, 2, 4), (24, 0, 5), (25, 0, 4), (26, 0, 5), (27, 1, 2), (28, 0, 5), (29, 1, 3), (30, 1, 3),
    (31, 1, 3), (32, 1, 4), (33, 0, 2), (34, 1, 2), (35, 1, 5), (36, 0, 2), (37, 0, 3), (38, 1, 3), (39, 1, 2),
    (40, 1, 2), (41, 1, 3), (42, 0, 2), (43, 0, 2), (44, 0, 1), (45, 0, 1), (46, 0, 0), (47, 0, 0), (48, 0, 1),
    (49, 0, 1), (50, 0, 0), (51, 0, 0), (55, 0, 2), (57, 0, 2), (60, 0, 2), (61, 0, 0), (64, 0, 0), (65, 0, 0),
    (66, 0, 2), (68, 0, 1), (69, 0, 1), (74, 0, 1), (75, 0, 0), (76, 1, 1), (77, 1, 1), (78, 1, 2), (79, 1, 2),
    (80, 0, 1), (81, 0, 0), (83, 0, 0), (84, 0, 0), (85, 0, 1), (86, 0, 0), (87, 0, 1), (88, 0, 0), (89, 0, 0),
    (90, 0, 1), (91, 0, 0), (92, 0, 0),
];

/// Differences kept on purpose, with the reason. An API without an entry answers as Kafka does on one node.
#[rustfmt::skip]
const DIFFERENCES: &[(ApiKey, &[&str])] = &[
    (ApiKey::PRODUCE, &[
        "Shown from version 0 and served from 3, as Kafka does: older librdkafka stops compressing without a word otherwise (KAFKA-18659).",
        "An answer to acks=1 or all leaves after the flush that covers the records, unless the topic is relaxed.",
        "A batch of a transaction is refused: without a transactional id with TRANSACTIONAL_ID_AUTHORIZATION_FAILED (as Kafka), with one with INVALID_PRODUCER_ID_MAPPING, Kafka's answer for an id it does not know, because there are no transactions yet. Before its coordinator has run for the first time, Kafka answers NOT_ENOUGH_REPLICAS instead, which clients try again. Kafka stores one without a producer id; here it is refused too. A request with a transactional id and a plain batch is taken, as by Kafka.",
        "Compressed batches are stored as they came and, unless their topic is compacted, not unpacked: their record count, timestamps and offsets are those the header claims, and a bad timestamp names no record. Kafka unpacks every batch to check, which takes milliseconds for a mebibyte; a core that did it would hold up everybody else for as long. What a lying header can do is bounded to readers of its own topic: a gap in the offsets, or a lookup by time that is off. On compacted topics a wrong count or a missing key would last for ever, so there compressed batches are unpacked and checked as by Kafka, by a thread beside the core, before they are appended; what unpacks to more than 64 MiB is refused with MESSAGE_TOO_LARGE, what does not unpack with CORRUPT_MESSAGE (Kafka: UNKNOWN_SERVER_ERROR), offsets with holes with INVALID_RECORD (Kafka: UNKNOWN_SERVER_ERROR).",
        "Where compression.type is not producer, a batch that comes in another compression is unpacked, checked as for compacted topics, and packed anew beside the core. Kafka unpacks and checks batches that need no packing too, gives records whose offsets have holes new ones, and makes the first record's time the batch's base.",
        "Records that break their topic's rules (`record_errors`) are named in Kafka's words, the first 1,000 of a batch; Kafka names them all. Other refusals carry a sentence where Kafka's is null, and the log start is -1 in all of them, where Kafka gives it in some.",
        "Null records are answered with INVALID_RECORD (Kafka never answers); batches of magic 0 and 1 with UNSUPPORTED_FOR_MESSAGE_FORMAT (Kafka: INVALID_RECORD); unknown compression codes and impossible lengths with INVALID_RECORD (Kafka: UNKNOWN_SERVER_ERROR); bytes behind the batch with INVALID_RECORD (Kafka drops them); a negative epoch beside a producer id with INVALID_RECORD (Kafka takes it).",
        "A partition that a request has twice gets both batches, in order, and the answer has both offsets; Kafka keeps the last and drops the other without a word. No client sends it.",
    ]),
    (ApiKey::FETCH, &[
        "On compacted topics, batches of transactions and control batches that a Kafka wrote stay as they are; records without a key that are older than the topic's compaction go, as in Kafka; a batch all of whose records went is gone too, where Kafka keeps an empty one for the producer's sequence, which is kept elsewhere here.",
        "read_committed sees what read_uncommitted does: there are no transactions, so the last stable offset is the high watermark.",
        "An answer of older records may be shorter than asked for; the next fetch gets the rest.",
        "An answer has whole batches, at most 16 MiB of them or one larger; Kafka's has up to 55 MiB (fetch.max.bytes), the last batch cut. A client that waits for more is answered with what fits, as by Kafka.",
        "An isolation level that does not exist closes the connection, like everything else that cannot be read, with the reason in the log; Kafka answers UNKNOWN_SERVER_ERROR for every partition. No client sends it.",
    ]),
    (ApiKey::LIST_OFFSETS, &[
        "Timestamps -5 (from version 9) and -6 (from 11), of tiered storage, answer unknown, as Kafka does without tiering.",
        "A lookup by time does not look into a batch that unpacks to more than 32 MiB, or not at all, and gives its first offset.",
    ]),
    (ApiKey::CREATE_TOPICS, &[
        "One replica per partition; a larger replication factor is refused as by a Kafka of one broker.",
        "More partitions than the node takes are refused with POLICY_VIOLATION.",
    ]),
    (ApiKey::DESCRIBE_GROUPS, &[
        "A group that is named several times is described once.",
        "An answer that has 4 MiB of groups describes no more of them: the others have COORDINATOR_LOAD_IN_PROGRESS, with which clients ask for them again.",
    ]),
    (ApiKey::OFFSET_FETCH, &[
        "A group that is named several times is answered once.",
        "An answer that has 20,000 offsets has no more groups: the others have COORDINATOR_LOAD_IN_PROGRESS, with which clients ask for them again.",
    ]),
    (ApiKey::DELETE_RECORDS, &["The answer leaves when the new log start is durable; Kafka writes it to a file later."]),
    (ApiKey::API_VERSIONS, &["Features shown are metadata.version and group.version, as Kafka 4.3 has them; kraft, transaction, share, streams and eligible.leader.replicas versions are not."]),
    (ApiKey::CONSUMER_GROUP_HEARTBEAT, &[
        "Where a group goes over to the consumer protocol with members, a partition that a member said it has is its own until it says otherwise, although its leader took it away in the newest generation; Kafka counts what the leader gave, and two members can have the partition for a while.",
        "A group goes over while it waits for its first generation, too (group.initial.rebalance.delay.ms); Kafka answers UNKNOWN_SERVER_ERROR then. One whose members were given the same partition does not go over.",
        "A group whose members say more than one batch of __consumer_offsets holds does not go over: GROUP_ID_NOT_FOUND with the reason. Kafka, whose write is one batch as well, answers UNKNOWN_SERVER_ERROR.",
        "What is wrong with a pattern is said in other words than Java's. A target is made at once, not once per group.consumer.assignment.interval.ms.",
        "A large pattern, or one over many topics, is matched beside the coordinator, as Kafka matches all of them: its member has the topics with a later heartbeat.",
        "A group that went back to the classic protocol makes its rebalance after a restart as well: its record names no leader until it has.",
    ]),
    (ApiKey::JOIN_GROUP, &["A group whose first member was refused (no protocols, say) does not exist; Kafka keeps it, empty, and shows it."]),
    (ApiKey::CONSUMER_GROUP_DESCRIBE, &["As DescribeGroups."]),
    (ApiKey::DESCRIBE_CLIENT_QUOTAS, &[
        "Entities and their quotas come in order of their names; Kafka's come in the order of its hash tables.",
        "Everybody is the user ANONYMOUS: there is no authentication yet.",
    ]),
    (ApiKey::ALTER_CLIENT_QUOTAS, &[
        "producer_byte_rate, consumer_byte_rate and request_percentage are kept to over all cores together, in Kafka's order of precedence. A client may use the quota of one second at once (quota.window.size.seconds), not that of quota.window.num seconds as in Kafka, so the rate holds over shorter times too.",
        "A fetch over the quota is answered with its records, and its connection pauses afterwards; Kafka reads them, throws them away, answers empty and lets the client ask again after the pause.",
        "request_percentage counts the time that a core or control works on a request when it comes; time of other cores and of the disk is not counted. A pause for bytes is an hour at most.",
        "controller_mutation_rate is kept to as by Kafka; a topic that is made because somebody asked for it (auto.create.topics.enable) is charged too, and not made while the account is overdrawn.",
        "connection_creation_rate: an address that was silent may open ten seconds' worth at once and then one by one (Kafka looks at windows of as much). What connects while a core asks for the rate is let in and counted afterwards. A refused connection is closed a second later at most, as in Kafka; beyond 1,024 of a core at once.",
        "Addresses are taken, names of hosts are not (Kafka looks them up). What is not a number is refused (Kafka takes it).",
    ]),
    (ApiKey::ALTER_REPLICA_LOG_DIRS, &["There is one folder: it is accepted, every other is unknown."]),
    (ApiKey::DESCRIBE_USER_SCRAM_CREDENTIALS, &["There are no users yet: none has a credential."]),
    (ApiKey::UPDATE_FEATURES, &["Features that are not shown are unknown; metadata.version stays where it is."]),
    (ApiKey::DESCRIBE_PRODUCERS, &["The last timestamp is when the broker took the batch, also where its records carry the producer's."]),
    (ApiKey::LIST_CONFIG_RESOURCES, &["Names come in order; Kafka's come in the order of its hash tables."]),
    (ApiKey::INIT_PRODUCER_ID, &["A transactional.id is refused with TRANSACTIONAL_ID_AUTHORIZATION_FAILED, which clients report at once; Kafka gives it a producer id."]),
    (ApiKey::DESCRIBE_CONFIGS, &[
        "Broker configs are this broker's keys (CONFIG.md), those behind topic configs and the dynamic ones (BROKER-CONFIG.md).",
        "Where log.retention.ms and log.roll.ms are not set, the default among their synonyms is given in milliseconds; Kafka's is the key in hours.",
        "Loggers are this broker's parts. Configs come in order of their names; Kafka's come in the order of its hash tables.",
        "A resource type that does not exist is named in the sentence.",
    ]),
    (ApiKey::ALTER_CONFIGS, &["As IncrementalAlterConfigs."]),
    (ApiKey::INCREMENTAL_ALTER_CONFIGS, &[
        "Unknown broker configs are refused with INVALID_CONFIG; Kafka keeps them and shows them as sensitive.",
        "listeners is read at the start only; Kafka changes it for one broker.",
        "The regular expressions in a client-metrics subscription's match are kept as they are: nothing is matched with them.",
        "An operation that does not exist is INVALID_REQUEST (Kafka: UNKNOWN_SERVER_ERROR).",
    ]),
    (ApiKey::LIST_PARTITION_REASSIGNMENTS, &["Always none: there is one node."]),
];

/// Outside suites, in the order of the table: name in bench/suites, what it is.
const SUITES: &[(&str, &str)] = &[
    ("rskafka", "rskafka 0.6.0 (Rust)"),
    ("kgo", "franz-go 1.21.5 (Go)"),
    ("rdkafka-rs", "rust-rdkafka 0.39.0"),
    ("librdkafka", "librdkafka 2.12.1 (C)"),
    ("librdkafka-noautocreate", "librdkafka 2.12.1 without auto creation"),
    ("tools", "Kafka 4.3.1's own command-line tools, by command"),
];

fn suites_folder() -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../bench/suites")
}

/// PASS, FAIL or SKIP by test, as `cargo x conformance` kept it; `None` where the suite was not run.
fn kept(broker: &str, suite: &str) -> Option<BTreeMap<String, String>> {
    let text = std::fs::read_to_string(suites_folder().join(broker).join(format!("{suite}.txt"))).ok()?;
    let lines = text.lines().filter_map(|line| {
        let (state, rest) = line.split_once(' ')?;
        // Seconds follow the name, but for commands, whose names have spaces.
        let test = if suite == "tools" { rest.trim_end() } else { rest.split(' ').next()? };
        matches!(state, "PASS" | "FAIL" | "SKIP").then(|| (test.to_string(), state.to_string()))
    });
    Some(lines.collect())
}

fn conformance() -> String {
    let mut out = String::from(
        "\n## Conformance\n\nTest suites that nobody here wrote, run the same way against both by `cargo x conformance` \
         (bench/suites): pass / fail / skip.\n\n| suite | here | Kafka 4.3.1 |\n| --- | --- | --- |\n",
    );
    let counts = |broker: &str, suite: &str| {
        kept(broker, suite).map_or("not recorded".to_string(), |tests| {
            let count = |wanted: &str| tests.values().filter(|state| *state == wanted).count();
            format!("{} / {} / {}", count("PASS"), count("FAIL"), count("SKIP"))
        })
    };
    for (suite, what) in SUITES {
        let kafka = if *suite == "tools" { "the measure".to_string() } else { counts("kafka-4.3.1", suite) };
        let _ = writeln!(out, "| {what} | {} | {kafka} |", counts("ringmill", suite));
    }
    out.push_str("\nWhat passes on Kafka and not here:\n\n| suite | test | reason |\n| --- | --- | --- |\n");
    let text = std::fs::read_to_string(suites_folder().join("differences.txt")).unwrap();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let [suite, test, reason] = line.splitn(3, '\t').collect::<Vec<_>>()[..] else { panic!("{line}") };
        assert!(SUITES.iter().any(|(name, _)| *name == suite) && reason.ends_with('.'), "{line}");
        let _ = writeln!(out, "| {suite} | `{}` | {reason} |", test.replace('|', "\\|"));
    }
    out
}

fn document() -> String {
    let mut out = String::from(
        "# Compatibility\n\n\
         <!-- Generated from net/wire/src/supported.rs and net/wire/tests/compatibility.rs by `UPDATE=1 cargo test -p ringmill-wire`; do not edit. -->\n\n\
         What this broker serves of the Kafka protocol, beside Apache Kafka 4.3.1 as it answers ApiVersions. Topic configs:\n\
         [TOPIC-CONFIG.md](TOPIC-CONFIG.md); error codes: [ERRORS.md](ERRORS.md).\n\n\
         A request of another API or version closes the connection, with the reason in the log; ApiVersions itself is answered in\n\
         version 0 with UNSUPPORTED_VERSION. A request other than Produce and Fetch closes it, too, when it has more than 4 MiB, or a\n\
         list of more than 20,000 items, so that it keeps nobody else waiting for long. Partitions within topics count together, but\n\
         not those of ListOffsets, CreateTopics and CreatePartitions. Kafka takes 100 MiB of every request\n\
         (socket.request.max.bytes), which holds here for records.\n\n\
         `cargo x clients` runs unmodified clients against a broker; answers to the byte are compared with a transcript of a real\n\
         Kafka in net/broker/tests/golden and engine/record/tests/golden.\n\n\
         | key | API | here | Kafka 4.3.1 |\n| --- | --- | --- | --- |\n",
    );
    for (key, min, max) in KAFKA {
        let api = ApiKey(*key);
        let here = match find(api) {
            Some(row) if row.served_min > row.min => {
                format!("{} (shown from {})", range(row.served_min, row.max), row.min)
            }
            Some(row) => range(row.min, row.max),
            None => "–".to_string(),
        };
        let _ = writeln!(out, "| {key} | {api} | {here} | {} |", range(*min, *max));
    }
    out.push_str("\n## Differences kept on purpose\n");
    for (api, notes) in DIFFERENCES {
        let _ = writeln!(out, "\n**{api}**\n");
        for note in *notes {
            let _ = writeln!(out, "- {note}");
        }
    }
    out + &conformance()
}

fn range(min: i16, max: i16) -> String {
    if min == max { min.to_string() } else { format!("{min}–{max}") }
}

#[test]
fn the_document_is_what_the_table_says() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/COMPATIBILITY.md");
    let text = document();
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(found == text, "net/docs/COMPATIBILITY.md is stale: run `UPDATE=1 cargo test -p ringmill-wire`");
}

#[test]
fn nothing_is_served_that_kafka_does_not_serve() {
    for row in SUPPORTED {
        let kafka = KAFKA.iter().find(|(key, ..)| *key == row.key.0);
        let (_, min, max) = kafka.unwrap_or_else(|| panic!("Kafka 4.3.1 has no {}", row.key));
        assert!(*min <= row.min && row.max <= *max, "{}", row.key);
    }
    for (api, notes) in DIFFERENCES {
        assert!(find(*api).is_some(), "{api} has notes and is not served");
        assert!(!notes.is_empty() && notes.iter().all(|note| note.ends_with('.')), "{api}");
    }
}
