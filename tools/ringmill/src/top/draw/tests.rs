//! Frames against the pictures in `frames/`; `UPDATE=1 cargo test -p ringmill top` draws those anew, to be looked at.

#![allow(clippy::unwrap_used)]

use super::*;
use crate::top::reading::{Connection, Connections, Reading};
use crate::top::state::Wish;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use std::fmt::Write as _;
use std::path::Path;

const UTF8: Theme = Theme { colour: true, attributes: true, ascii: false };
const BARE: Theme = Theme { colour: false, attributes: false, ascii: true };

/// The broker of the pictures after `n` seconds: two cores under load, some topics, some clients.
struct Broker {
    topics: usize,
    silent_core: bool,
    full: bool,
    groups: bool,
}

const WELL: Broker = Broker { topics: 6, silent_core: false, full: false, groups: false };

impl Broker {
    fn core_lines(&self, core: u64, n: u64, text: &mut String) {
        let mut say = |line: String| writeln!(text, "{line}").unwrap();
        let silent = self.silent_core && core == 1;
        say(format!("ringmill_core_answered{{core=\"{core}\"}} {}", u64::from(!silent)));
        if silent {
            return;
        }
        let of = |name: &str, value: f64| format!("ringmill_{name}{{core=\"{core}\"}} {value}");
        let load = (core + 1) as f64 * n as f64;
        say(of("core_cpu_seconds_total", load * 0.2));
        say(of("connections", 7.0));
        say(of("partitions", 520.0));
        say(of("records_in_total", load * 27_000.0));
        say(of("received_bytes_total", load * 27_100_000.0));
        say(of("sent_bytes_total", load * 4_000_000.0));
        say(of("flush_groups_total", load * 1500.0));
        say(of("flush_group_bytes_sum", load * 27_100_000.0));
        say(of("flush_group_bytes_count", load * 1500.0));
        say(of("core_log_used_bytes", 300.0 + core as f64));
        say(of("core_log_capacity_bytes", 1000.0));
        say(of("tail_bytes", 10.0));
        say(of("tail_limit_bytes", 160.0));
        say(of("destage_bytes_total", load * 26_000_000.0));
        say(of("destage_lag_bytes", 5_000_000.0));
        say(of("produce_waiting", 3.0));
        say(of("storage_full", f64::from(self.full)));
        say(of("partitions_offline", f64::from(self.full) * 2.0));
        for api in ["Produce", "Fetch", "Other"] {
            say(format!("ringmill_requests_total{{core=\"{core}\",api=\"{api}\"}} {}", load * 400.0));
        }
        // Slower every third second, so that the curves have a shape.
        let slow = n / 3 * 40 + n;
        for (name, labels) in [("request_wait", ",api=\"Produce\""), ("flush", ""), ("core_turn", "")] {
            for (le, count) in [("0.000063", n * 500), ("0.000255", n * 1200), ("0.004095", n * 1200 + slow)]
            {
                say(format!("ringmill_{name}_seconds_bucket{{core=\"{core}\"{labels},le=\"{le}\"}} {count}"));
            }
            let all = n * 1200 + slow;
            say(format!("ringmill_{name}_seconds_bucket{{core=\"{core}\"{labels},le=\"+Inf\"}} {all}"));
        }
    }

    fn reading(&self, n: u64) -> Reading {
        let mut text = format!(
            "ringmill_build_info{{version=\"0.1.0\"}} 1\nringmill_ready 1\nprocess_cpu_seconds_total {}\n\
             process_resident_memory_bytes 190840832\nringmill_data_capacity_bytes 64000000000\n\
             ringmill_data_free_bytes 12000000000\nringmill_scrub_in_round {}\nringmill_scrub_read_bytes_total {}\n",
            n as f64 * 0.75,
            u64::from(self.topics > 10),
            n * 20_000_000,
        );
        for core in 0..2 {
            self.core_lines(core, n, &mut text);
        }
        let mut say = |line: String| writeln!(text, "{line}").unwrap();
        for topic in 0..self.topics as u64 {
            let name = if topic == 4 {
                "a-topic-with-a-name-longer-than-its-column".into()
            } else {
                format!("topic-{topic}")
            };
            let of = |what: &str, value: u64| format!("ringmill_topic_{what}{{topic=\"{name}\"}} {value}");
            let load = n * 1000 * (20 - topic.min(19));
            say(of("partitions", 100 + topic));
            say(of("partitions_offline", u64::from(self.full && topic == 3) * 2));
            say(of("relaxed", u64::from(topic == 2)));
            say(of("size_bytes", 1_000_000_000 * (topic + 1)));
            say(of("unflushed_records", topic));
            say(of("records_in_total", load));
            say(of("in_bytes_total", load * 1000));
            say(of("out_bytes_total", n * topic * 777_000));
        }
        for group in 0..if self.groups { 2 } else { 0u64 } {
            for partition in 0..3 {
                let labels = format!("group=\"readers-{group}\",topic=\"topic-0\",partition=\"{partition}\"");
                say(format!("ringmill_group_lag_records{{{labels}}} {}", (group + 1) * 1000 + n * 10));
            }
        }
        Reading::of(n as f64, &text, Some(clients(n))).unwrap()
    }
}

fn clients(n: u64) -> Connections {
    let connection = |port: u64, id: &str, software: &str, share: u64| Connection {
        peer: format!("10.1.2.{}:{port}", port % 3),
        client_id: id.to_string(),
        software: software.to_string(),
        software_version: "2.12.1".to_string(),
        age_ms: (n + 100) * 1000,
        idle_ms: port % 7 * 1000,
        requests: n * 10 * share,
        received_bytes: n * 1_000_000 * share,
        sent_bytes: n * 1_000 * port,
        waiting: share,
        muted: false,
    };
    let shown = vec![
        connection(4001, "loader", "librdkafka", 30),
        connection(4004, "loader", "librdkafka", 31),
        connection(4002, "reader\u{1b}[31m", "apache-kafka-java", 0),
        Connection { software_version: String::new(), ..connection(4003, "", "", 2) },
    ];
    Connections { connections: 14, shown }
}

/// A screen that has watched a broker for 40 seconds.
fn watched(broker: &Broker) -> State {
    let mut state = State::new("127.0.0.1:9644", 1.0);
    for n in 0..=40 {
        state.heard(Ok(broker.reading(n)), n as f64);
    }
    state
}

fn frame(state: &State, columns: u16, rows: u16, theme: Theme) -> String {
    let mut terminal = Terminal::new(TestBackend::new(columns, rows)).unwrap();
    terminal.draw(|frame| draw(frame.area(), frame.buffer_mut(), state, theme, 53.0)).unwrap();
    text(terminal.backend().buffer())
}

#[track_caller]
fn matches_picture(name: &str, drawn: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/top/draw/frames").join(name);
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, drawn).unwrap();
    }
    let wanted = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(wanted == drawn, "{name} differs; drawn was\n{drawn}");
}

#[test]
fn a_broker_under_load() {
    let state = watched(&WELL);
    matches_picture("load-80x24.txt", &frame(&state, 80, 24, UTF8));
    matches_picture("load-120x40.txt", &frame(&state, 120, 40, UTF8));
    matches_picture("load-80x24-ascii.txt", &frame(&state, 80, 24, BARE));
}

#[test]
fn trouble_is_said_in_words() {
    let state = watched(&Broker { topics: 23, silent_core: true, full: true, groups: true });
    let small = frame(&state, 80, 24, UTF8);
    matches_picture("trouble-80x24.txt", &small);
    matches_picture("trouble-120x40.txt", &frame(&state, 120, 40, UTF8));
    for said in ["core 1 does not answer", "the disk is full", "2 partitions offline, of topic-3"] {
        assert!(small.contains(said), "{said}");
    }
}

#[test]
fn a_broker_that_goes_away_and_comes_back() {
    let mut state = watched(&WELL);
    state.heard(Err("the admin port at 127.0.0.1:9644: Connection refused".to_string()), 41.0);
    let why = "the admin port at 127.0.0.1:9644: No route to host";
    state.heard(Err(why.to_string()), 42.0);
    matches_picture("lost-80x24.txt", &frame(&state, 80, 24, UTF8));
    let mut anew = WELL.reading(1);
    anew.at_seconds = 50.0;
    state.heard(Ok(anew), 50.0);
    let back = frame(&state, 80, 24, UTF8);
    assert!(back.contains("the broker was started anew and answers again, after 10 s"), "{back}");
    let mut next = WELL.reading(2);
    next.at_seconds = 51.0;
    state.heard(Ok(next), 51.0);
    let rate = state.snapshot.as_ref().map(|snapshot| snapshot.totals.records_in_per_second);
    assert_eq!(rate, Some(81_000.0), "rates begin anew with the broker");
    assert_eq!(
        state.history.iter().filter(|point| point.in_bytes.is_none()).count(),
        1,
        "the curve has a gap"
    );
}

#[test]
fn keys_change_what_is_seen() {
    let mut state = watched(&WELL);
    assert!(state.wish(Wish::Sort, 5));
    let by_out = frame(&state, 80, 24, UTF8);
    assert!(by_out.contains("OUT/S▾") && by_out.contains("\ntopic-5 "), "{by_out}");
    assert!(state.wish(Wish::Reverse, 5));
    assert!(frame(&state, 80, 24, UTF8).contains("OUT/S▴"));
    state.wish(Wish::Down, 5);
    assert!(frame(&state, 80, 24, UTF8).contains("TOPIC 2-6 of 6"));
    state.wish(Wish::Help, 5);
    matches_picture("help-80x24.txt", &frame(&state, 80, 24, UTF8));
    assert!(state.wish(Wish::Down, 5) && !state.help);
    state.wish(Wish::Pause, 5);
    state.heard(Ok(WELL.reading(99)), 99.0);
    let rate = state.snapshot.as_ref().map(|snapshot| snapshot.interval_seconds);
    assert_eq!(rate, Some(1.0), "a paused screen keeps what it shows");
    assert!(frame(&state, 80, 24, UTF8).lines().next().is_some_and(|line| line.ends_with("PAUSED")));
    state.wish(Wish::Show(Panel::Groups), 5);
    assert!(frame(&state, 80, 24, UTF8).contains("this broker does not tell of groups"));
    state.wish(Wish::Faster, 5);
    assert_eq!(state.interval_seconds, 0.5);
    for _ in 0..9 {
        state.wish(Wish::Slower, 5);
    }
    assert_eq!(state.interval_seconds, 10.0);
    assert!(!state.wish(Wish::Quit, 5));
}

#[test]
fn what_cannot_be_shown_changes_nothing_of_the_rest() {
    let mut state = watched(&WELL);
    for (columns, rows) in [(1, 1), (39, 40), (40, 12), (80, 12), (200, 60), (80, 13)] {
        let drawn = frame(&state, columns, rows, UTF8);
        assert!(drawn.lines().count() <= rows.into(), "{columns}x{rows}");
    }
    let narrow = frame(&state, 60, 24, UTF8);
    assert!(
        narrow.lines().any(|line| line.starts_with("CORE ")),
        "which core it is, is not left out: {narrow}"
    );
    state.wish(Wish::Show(Panel::Clients), 5);
    let drawn = frame(&state, 80, 24, UTF8);
    assert!(
        !drawn.contains('\u{1b}') && drawn.contains("reader[31m"),
        "no client paints our screen: {drawn}"
    );
    state.snapshot = None;
    assert!(frame(&state, 80, 24, UTF8).contains("measuring"));
}

#[test]
fn without_colour_there_is_none_and_without_attributes_nothing_at_all() {
    let state = watched(&Broker { full: true, ..WELL });
    let styles = |theme: Theme| {
        let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
        terminal.draw(|frame| draw(frame.area(), frame.buffer_mut(), &state, theme, 41.0)).unwrap();
        let cells = terminal.backend().buffer().content.clone();
        let coloured = cells.iter().filter(|cell| cell.fg != Color::Reset || cell.bg != Color::Reset).count();
        (coloured, cells.iter().filter(|cell| !cell.modifier.is_empty()).count())
    };
    let (coloured, emphasised) = styles(UTF8);
    assert!(coloured > 0 && emphasised > 0);
    let (coloured, emphasised) = styles(Theme { colour: false, ..UTF8 });
    assert!(coloured == 0 && emphasised > 0);
    assert_eq!(styles(BARE), (0, 0));
}
