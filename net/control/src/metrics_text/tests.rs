#![allow(clippy::unwrap_used)]

use super::*;
use crate::admin::AdminPartition;
use crate::watch::Committed;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// A parsed exposition: family → (type, samples as (name, labels, value)), in order.
type Families = Vec<(String, String, Vec<(String, BTreeMap<String, String>, f64)>)>;

/// Buckets of one histogram as (bound, count at or below it), and its count.
type Series = (Vec<(f64, f64)>, f64);

/// Reads the text as Prometheus would, and panics where it would refuse it.
fn parse(text: &str) -> Families {
    assert!(text.ends_with('\n'));
    let mut families: Families = Vec::new();
    let mut help = None;
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help_text) = rest.split_once(' ').unwrap();
            assert!(!help_text.is_empty() && !help_text.contains('\\'));
            assert!(families.iter().all(|(known, ..)| known != name), "{name} comes twice");
            help = Some(name.to_string());
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert_eq!(help.take().as_deref(), Some(name));
            families.push((name.to_string(), kind.to_string(), Vec::new()));
        } else {
            let (name, labels, value) = parse_sample(line);
            let (family, kind, samples) = families.last_mut().unwrap();
            let suffix = name.strip_prefix(family.as_str()).expect("a sample belongs to the family above it");
            let suffixes: &[&str] = if kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
            assert!(suffixes.contains(&suffix), "{name} in {family}");
            samples.push((name, labels, value));
        }
    }
    families
}

fn parse_sample(line: &str) -> (String, BTreeMap<String, String>, f64) {
    let (head, value) = line.rsplit_once(' ').unwrap();
    let (name, labels) =
        head.split_once('{').map_or((head, ""), |(name, rest)| (name, rest.strip_suffix('}').unwrap()));
    assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'), "{name}");
    let mut found = BTreeMap::new();
    let mut rest = labels;
    while !rest.is_empty() {
        let (key, after) = rest.split_once("=\"").unwrap();
        let mut text = String::new();
        let mut chars = after.char_indices();
        let end = loop {
            match chars.next().unwrap() {
                (_, '\\') => text.push(match chars.next().unwrap().1 {
                    'n' => '\n',
                    escaped @ ('\\' | '"') => escaped,
                    other => panic!("\\{other} is no escape"),
                }),
                (at, '"') => break at + 1,
                (_, plain) => text.push(plain),
            }
        };
        assert!(found.insert(key.to_string(), text).is_none());
        rest = after.get(end..).unwrap();
        rest = rest.strip_prefix(',').unwrap_or(rest);
    }
    (name.to_string(), found, value.parse().unwrap())
}

fn metrics() -> CoreMetrics {
    let mut core = CoreMetrics {
        records_in: 42,
        thread_cpu_ns: 1_500_000_000,
        storage_full: true,
        ..CoreMetrics::default()
    };
    core.produce.requests = 3;
    for us in [0, 15, 16, 900, 20_000_000] {
        core.produce.wait_us.record(us);
    }
    core
}

fn partition(index: i32, log_end: i64) -> AdminPartition {
    AdminPartition {
        index,
        id: 7,
        core: 0,
        log_start: 0,
        high_watermark: log_end,
        durable: log_end - 3,
        log_end,
        size_bytes: 100,
        segments: 2,
        offline: index == 1,
        offline_because: None,
        relaxed: true,
        records_in: 5,
        bytes_in: 50,
        bytes_out: 500,
    }
}

fn topic(name: &str, log_ends: &[i64]) -> AdminTopic {
    let partitions = log_ends.iter().zip(0..).map(|(end, index)| partition(index, *end)).collect();
    AdminTopic { name: name.to_string(), id: String::new(), partitions, config: BTreeMap::new() }
}

fn control() -> ControlMetrics {
    let committed = |topic: &str, partition, offset| Committed {
        group: "readers".into(),
        topic: topic.into(),
        partition,
        offset,
    };
    let mut control = ControlMetrics {
        rebalances: 7,
        groups: [(("Stable", "Classic"), 3), (("Empty", "Consumer"), 1)].into(),
        // Behind, ahead of what is left after a deletion of records, of a silent core, and of a topic that is gone.
        committed: vec![
            committed("events", 0, 4),
            committed("events", 1, 500),
            committed("half", 1, 1),
            committed("gone", 0, 1),
        ],
        committed_left_out: 2,
        mailboxes: vec![
            Mailboxes { core: CoreId(0), to_control: 5, to_core: 1 },
            Mailboxes { core: CoreId(1), to_control: 6, to_core: 4096 },
        ],
        ..ControlMetrics::default()
    };
    control.step_us.record(2_000);
    control.commit_us.record(900);
    control
}

fn scrape() -> Scrape {
    Scrape {
        broker: Broker { ready: true, topics: 2 },
        process: Process { cpu_ns: 2_000_000_000, resident_bytes: Some(4096), ..Process::default() },
        disk: Some(Disk { capacity_bytes: 4 << 30, free_bytes: 1 << 30, removed_bytes: 5 << 20 }),
        scrub: Some(Scrub { last_round_unix_ms: 1_500, segments_damaged: 2, ..Scrub::default() }),
        control: Box::new(control()),
        cores: vec![(CoreId(0), Some(Box::new(metrics()))), (CoreId(1), None)],
        topics: vec![topic("events", &[10, 20]), topic("half", &[10, -1])],
    }
}

#[test]
fn a_scrape_is_well_formed_and_complete() {
    let families = parse(&render(&scrape()));
    assert_eq!(families.len(), METRICS.len());
    for ((family, kind, samples), def) in families.iter().zip(METRICS) {
        assert_eq!((family.as_str(), kind.as_str()), (def.name, def.type_name()));
        assert_eq!(kind == "counter", family.ends_with("_total"), "{family}");
        let labels: BTreeSet<&str> = def.labels().split(", ").filter(|l| !l.is_empty()).collect();
        for (_, found, _) in samples {
            let found: BTreeSet<&str> = found.keys().map(String::as_str).filter(|l| *l != "le").collect();
            assert_eq!(found, labels, "{family}");
        }
    }
    let value = |name: &str, label: &str| -> Vec<f64> {
        let (.., samples) = families.iter().find(|(family, ..)| name == family).unwrap();
        samples
            .iter()
            .filter(|(n, l, _)| n == name && (label.is_empty() || l.values().any(|v| v == label)))
            .map(|s| s.2)
            .collect()
    };
    assert_eq!(value("ringmill_core_answered", ""), [1.0, 0.0]);
    assert_eq!(value("ringmill_records_in_total", ""), [42.0], "only of the core that answered");
    assert_eq!(value("ringmill_core_cpu_seconds_total", "0"), [1.5]);
    assert_eq!(value("ringmill_requests_total", ""), [3.0, 0.0, 0.0]);
    assert_eq!(value("ringmill_requests_total", "Produce"), [3.0]);
    assert_eq!(value("ringmill_storage_full", ""), [1.0]);
    assert_eq!(value("process_cpu_seconds_total", ""), [2.0]);
    assert_eq!(value("ringmill_scrub_segments_damaged_total", ""), [2.0]);
    assert_eq!(value("ringmill_scrub_last_round_timestamp_seconds", ""), [1.5]);
    assert_eq!(value("process_open_fds", ""), [0.0; 0], "unknown is missing, not 0");
    assert_eq!(
        value("ringmill_topic_partitions", ""),
        [2.0],
        "a topic with a silent partition has no samples"
    );
    assert_eq!(value("ringmill_group_lag_records", "readers"), [6.0, 0.0]);
    assert_eq!(value("ringmill_groups", "Stable"), [3.0]);
    assert_eq!(value("ringmill_group_rebalances_total", ""), [7.0]);
    assert_eq!(value("ringmill_control_queue", ""), [11.0]);
    assert_eq!(value("ringmill_mailbox_to_core", "1"), [4096.0]);
    assert_eq!(value("ringmill_control_step_longest_seconds", ""), [0.002]);
    assert_eq!(value("ringmill_topic_size_bytes", "events"), [200.0]);
    assert_eq!(value("ringmill_topic_unflushed_records", "events"), [6.0]);
    assert_eq!(value("ringmill_topic_partitions_offline", "events"), [1.0]);
    assert_eq!(value("ringmill_topic_out_bytes_total", "events"), [1000.0]);
}

#[test]
fn histograms_add_up() {
    for (family, kind, samples) in parse(&render(&scrape())) {
        if kind != "histogram" {
            continue;
        }
        let mut series: HashMap<BTreeMap<String, String>, Series> = HashMap::new();
        for (name, mut labels, value) in samples {
            let le = labels.remove("le");
            let entry = series.entry(labels).or_default();
            match le {
                Some(le) => entry.0.push((le.parse().unwrap(), value)),
                None if name.ends_with("_count") => entry.1 = value,
                None => assert!(name.ends_with("_sum")),
            }
        }
        for (labels, (buckets, count)) in series {
            assert!(buckets.windows(2).all(|w| w[0].0 < w[1].0 && w[0].1 <= w[1].1), "{family} {labels:?}");
            assert_eq!(buckets.last().copied(), Some((f64::INFINITY, count)), "{family} {labels:?}");
            assert!(buckets.len() > 10);
            if labels.get("api").is_some_and(|api| api == "Produce")
                && family == "ringmill_request_wait_seconds"
            {
                assert_eq!(buckets.first().copied(), Some((0.000_015, 2.0)), "0 and 15 µs");
                assert_eq!(buckets.get(1).copied(), Some((0.000_031, 3.0)));
                let below_a_second = buckets.iter().rfind(|b| b.0 < 1.1).unwrap();
                assert_eq!((below_a_second.1, count), (4.0, 5.0));
            }
        }
    }
}

/// A field added to what cores count has to be named here, and shown by the table.
#[test]
fn everything_a_core_counts_is_shown() {
    let mut core = CoreMetrics::default();
    let mut number = 1_000;
    let mut next = || {
        number += 1;
        number
    };
    macro_rules! fill {
        ($($field:ident),*; $($histogram:ident),*; $($api:ident),*; $($quota:ident),*; $flag:ident; $software:ident) => {{
            let CoreMetrics { $($field),*, $($histogram),*, $($api),*, $($quota),*, $flag, $software } = &mut core;
            $(*$field = next() * 1_000_000_000;)*
            $($histogram.record(next());)*
            $(let ApiMetrics { requests, errors, receive_us, wait_us, send_us } = $api;
            (*requests, *errors) = (next(), next());
            for histogram in [receive_us, wait_us, send_us] { histogram.record(next()); })*
            $((*$quota).requests = next(); (*$quota).pauses_ns = next() * 1_000_000_000;)*
            *$flag = true;
            $software.note("librdkafka", "2.12.1");
        }};
    }
    fill!(
        bytes_received, bytes_sent, fetch_bytes_in_place, fetch_bytes_copied, records_in, batches_in, connections, connections_accepted,
        connections_refused, connections_closed_idle, connections_closed_error, flush_groups, core_log_used_bytes, core_log_capacity_bytes, tail_bytes,
        tail_limit_bytes, destage_bytes, destage_writes, destage_lag_bytes, checkpoints, compactions, compacted_records,
        compacted_bytes, compaction_dirty_ppm, cold_reads, cold_read_bytes, cache_hits,
        cache_bytes, produce_waiting, fetch_waiting, muted_connections, throttled_connections, partitions, partitions_offline, relaxed_partitions, turns,
        thread_cpu_ns, pool_mapped_bytes, pool_used_bytes;
        flush_group_bytes, flush_us, turn_us;
        produce, fetch, other;
        throttled_produce, throttled_fetch, throttled_time, throttled_mutations;
        storage_full;
        client_software
    );
    let text = render(&Scrape { cores: vec![(CoreId(0), Some(Box::new(core)))], ..scrape() });
    let mut shown: BTreeMap<String, usize> = BTreeMap::new();
    for (_, _, samples) in parse(&text) {
        for (name, _, value) in samples.into_iter().filter(|(name, ..)| !name.ends_with("_bucket")) {
            let value = if name.ends_with("_sum") && name.contains("seconds") { value * 1e6 } else { value };
            *shown.entry(format!("{}", value.round())).or_default() += 1;
        }
    }
    let unscaled = |n: u64| n.to_string();
    for n in 1_001..=number {
        // Plain fields are scaled so that CPU nanoseconds stay whole seconds.
        // The same in millionths is a thousand times that.
        let found = [unscaled(n), unscaled(n * 1_000_000_000), unscaled(n * 1_000)]
            .iter()
            .any(|text| shown.get(text).is_some_and(|times| *times == 1));
        assert!(found, "number {n} is not shown once");
    }
    assert!(text.contains("ringmill_storage_full{core=\"0\"} 1"));
    let software = "ringmill_client_software_total{core=\"0\",software=\"librdkafka\",version=\"2.12.1\"} 1";
    assert!(text.contains(software));
}

#[test]
fn the_process_is_read_from_proc() {
    let stat = "17 (a) b (c) R 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20 0 6 0 4321 5";
    let system = "cpu  1 2 3\nbtime 1700000000\nprocesses 5\n";
    let status = "Name:\tx\nVmSize:\t    2048 kB\nVmRSS:\t 4 kB\nThreads:\t6\n";
    let limits = "Limit  Soft Limit  Hard Limit  Units\nMax open files            1024                 4096                 files\n";
    let process = Process::parse(stat, system, status, limits, Some(9));
    assert_eq!(
        (process.cpu_ns, process.resident_bytes, process.virtual_bytes),
        (2_000_000_000, Some(4096), Some(2 << 20))
    );
    assert_eq!((process.threads, process.open_fds, process.max_fds), (Some(6), Some(9), Some(1024)));
    let nothing = Process::parse("", "", "", "", None);
    assert_eq!(process.started_ms, Some(1_700_000_043_210));
    assert_eq!((nothing.cpu_ns, nothing.resident_bytes, nothing.max_fds), (0, None, None));
    assert_eq!(nothing.started_ms, None);
    let here = Process::now();
    assert!(
        here.started_ms.is_some()
            && here.resident_bytes.is_some_and(|b| b > 1 << 20)
            && here.threads >= Some(1)
            && here.open_fds >= Some(3)
    );
}

proptest! {
    #[test]
    fn any_label_survives(value in ".{0,20}") {
        let line = format!("x{{{}}} 1", label("topic", &value));
        let (_, labels, _) = parse_sample(&line);
        prop_assert_eq!(labels.get("topic").map(String::as_str), Some(value.as_str()));
    }
}

/// `net/docs/METRICS.md` from the table.
fn document() -> String {
    let mut text = String::from(
        "# Metrics\n\n<!-- Generated from net/control/src/metrics_text/table.rs by `UPDATE=1 cargo test -p ringmill-control`; do not edit. -->\n\n\
         `GET /metrics` on the admin port (`--admin`, 127.0.0.1:9644 by default), in Prometheus text format 0.0.4. Counters begin\n\
         at 0 when the process starts. Buckets of histograms are powers of two less one: 15 µs to 16.8 s, 511 bytes to 64 MiB.\n\n\
         A core that does not answer within a second has `ringmill_core_answered` 0 and no other samples in that scrape; topics\n\
         with a partition on it have none either. So a counter never falls unless the process was started anew.\n\n\
         | metric | type | labels | meaning |\n| --- | --- | --- | --- |\n",
    );
    for def in METRICS {
        text += &format!("| `{}` | {} | {} | {} |\n", def.name, def.type_name(), def.labels(), def.help);
    }
    text
}

#[test]
fn the_document_is_what_the_table_says() {
    crate::generated::check("METRICS.md", &document());
}
