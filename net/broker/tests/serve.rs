//! Whole starts and stops, each in a process of its own: exit codes, what is printed, what is touched, what survives.
//!
//! This binary is both sides: started with `RINGMILL_TEST_ARGS` it is a broker, otherwise it runs the stories below.
#![allow(clippy::unwrap_used)]

mod client;
mod fetching;

use client::Client;
use ringmill_broker::{Reason, ServeArgs};
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, prlimit, setrlimit};
use std::collections::{BTreeSet, HashSet};
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};

/// Each with its name.
macro_rules! stories {
    ($($story:path),* $(,)?) => { [$((stringify!($story), $story as fn())),*] };
}

fn main() -> ExitCode {
    if let Ok(args) = std::env::var("RINGMILL_TEST_ARGS") {
        if let Ok(kib) = std::env::var("RINGMILL_TEST_MEMLOCK_KIB") {
            let bytes = Some(kib.parse::<u64>().unwrap() << 10);
            setrlimit(Resource::Memlock, Rlimit { current: bytes, maximum: bytes }).unwrap();
            let files = getrlimit(Resource::Nofile).maximum.map_or(1024, |most| most.min(1024));
            setrlimit(Resource::Nofile, Rlimit { current: Some(files), maximum: Some(files) }).unwrap();
        }
        if let Ok(files) = std::env::var("RINGMILL_TEST_NOFILE") {
            let files = Some(files.parse().unwrap());
            setrlimit(Resource::Nofile, Rlimit { current: files, maximum: files }).unwrap();
        }
        return ringmill_broker::serve(&parse(&args));
    }
    let stories = stories![
        a_broker_keeps_its_identity_over_orderly_stops,
        two_signals_at_once_are_one_request,
        acknowledged_records_survive_kill_and_changes_of_core_count,
        core_logs_move_to_a_folder_of_their_own,
        a_change_of_core_count_cut_in_the_middle_is_finished,
        a_change_of_core_count_that_could_not_begin_is_changed_back,
        what_was_taken_away_is_not_made_anew,
        a_journal_that_lacks_topics_mixes_no_partitions,
        core_log_files_that_changed_places_are_refused,
        refusals_have_their_codes_and_touch_nothing,
        a_refusal_keeps_its_code_where_nobody_can_be_told,
        broker_configs_act_while_running_and_survive_a_kill,
        deleted_records_stay_deleted_over_a_kill,
        a_failed_core_log_write_ends_the_process,
        an_answer_keeps_to_its_bytes_over_all_cores,
        fetching::what_is_there_is_not_waited_for,
        fetching::records_are_sent_from_where_they_lie,
        fetching::ten_readers_of_old_records_share_the_reads,
        fetching::a_deleted_topic_is_not_waited_for,
        fetching::sizes_below_zero_are_answered_as_kafka_does,
        fetching::fetches_wait_as_in_kafka,
        fetching::what_no_client_sends_is_taken_as_compatibility_says,
        a_reader_that_leaves_is_let_go,
        what_was_taken_is_answered_before_a_connection_ends,
        a_large_frame_whose_rest_comes_late_is_taken,
        a_large_request_to_control_closes_its_connection,
        frames_may_come_in_any_pieces,
        answers_are_those_of_kafka_to_the_byte,
        names_that_are_none_are_answered_as_kafka_does,
        strangers_to_groups_are_answered_as_kafka_does,
        offsets_and_topics_that_cannot_be_are_answered_as_kafka_does,
        records_at_fault_are_named,
        batches_are_stored_as_the_topic_says,
        quotas_hold_over_cores_and_a_restart,
        without_descriptors_those_who_are_in_go_on,
        a_folder_in_use_is_left_alone,
        a_limit_on_open_files_that_serves_nobody_is_refused,
        small_limits_are_gone_along_with,
        more_partitions_than_open_files_are_served_and_stopped,
        json_goes_to_stderr_alone,
    ];
    let wanted: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    for (name, story) in stories {
        if wanted.is_empty() || wanted.iter().any(|part| name.contains(part.as_str())) {
            story();
            println!("story {name} ... ok");
        }
    }
    ExitCode::SUCCESS
}

/// `data|set;set…|cores|listen|json`
fn parse(args: &str) -> ServeArgs {
    let mut parts = args.split('|');
    let mut next = || parts.next().unwrap_or_default().to_string();
    let (data, set, cores, listen, json) = (next(), next(), next(), next(), next());
    let given = |text: String| Some(text).filter(|text| !text.is_empty());
    ServeArgs {
        data: Some(PathBuf::from(data)),
        set: set.split(';').filter(|s| !s.is_empty()).map(Into::into).collect(),
        cores: given(cores),
        listen: given(listen).or(Some("127.0.0.1:0".into())),
        admin: Some("127.0.0.1:0".into()),
        log_json: json == "json",
        ..ServeArgs::default()
    }
}

/// How a broker is to be started.
#[derive(Clone, Default)]
struct Plan {
    data: PathBuf,
    set: String,
    cores: &'static str,
    listen: String,
    json: bool,
    memlock_kib: Option<u64>,
    nofile: Option<u64>,
}

impl Plan {
    /// On so many cores, with its data in a folder that need not be there yet.
    fn within(dir: &tempfile::TempDir, cores: &'static str) -> Plan {
        Plan { data: dir.path().join("data"), cores, ..Plan::default() }
    }

    fn command(&self) -> Command {
        let json = if self.json { "json" } else { "" };
        let args = format!("{}|{}|{}|{}|{json}", self.data.display(), self.set, self.cores, self.listen);
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.env("RINGMILL_TEST_ARGS", args).env_remove("NOTIFY_SOCKET");
        if let Some(kib) = self.memlock_kib {
            command.env("RINGMILL_TEST_MEMLOCK_KIB", kib.to_string());
        }
        if let Some(files) = self.nofile {
            command.env("RINGMILL_TEST_NOFILE", files.to_string());
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Starts it and waits for the banner.
    fn start(&self) -> Broker {
        let mut child = self.command().spawn().unwrap();
        let mut banner = String::new();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        while !banner.contains("\n  ready ") {
            match lines.next() {
                Some(line) => banner = banner + &line.unwrap() + "\n",
                None => {
                    let mut text = String::new();
                    child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
                    panic!("the broker ended while starting: {:?}\n{banner}{text}", child.wait());
                }
            }
        }
        let listens = banner.lines().find_map(|line| line.trim().strip_prefix("listens ")).unwrap();
        let address = listens.trim().split(',').next().unwrap().parse().unwrap();
        Broker { child, banner, address }
    }

    /// Starts it, expecting it to end by itself for that reason, and to say so; all that it said.
    #[track_caller]
    fn refused(&self, reason: Reason, says: &str) -> String {
        let output = self.command().output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(i32::from(reason.code())), "{text}");
        assert!(text.contains(says), "{says} in {text}");
        text
    }
}

struct Broker {
    child: Child,
    banner: String,
    address: SocketAddr,
}

impl Broker {
    /// Signals and waits: exit code (none after a kill) and stderr.
    fn end(mut self, signal: Signal) -> (Option<i32>, String) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
        let mut text = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
        (self.child.wait().unwrap().code(), text)
    }

    fn stop(self) {
        let (code, text) = self.end(Signal::TERM);
        assert_eq!(code, Some(0), "{text}");
        assert!(text.contains("everything is flushed, destaged and checkpointed"), "{text}");
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // After a failed assertion; otherwise it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A folder on the disk the build lives on: the system's temporary folder may be memory.
fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

fn node_toml(data: &Path) -> toml::Table {
    std::fs::read_to_string(data.join("node.toml")).unwrap().parse().unwrap()
}

fn a_broker_keeps_its_identity_over_orderly_stops() {
    let dir = folder();
    let plan = Plan::within(&dir, "2");
    let first = plan.start();
    assert!(first.banner.contains("first start"), "{}", first.banner);
    assert!(first.banner.contains("an ack    means"), "{}", first.banner);
    TcpStream::connect(first.address).unwrap();
    first.stop();
    let before = node_toml(&plan.data);
    let again = plan.start();
    assert!(!again.banner.contains("first start"), "{}", again.banner);
    let cluster = before["cluster_id"].as_str().unwrap();
    assert!(again.banner.contains(&format!("broker 1 of cluster {cluster}")), "{}", again.banner);
    let (code, text) = again.end(Signal::INT);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("SIGINT: stopping"), "{text}");
}

/// As `timeout` does it, which signals its child and then its group.
fn two_signals_at_once_are_one_request() {
    let dir = folder();
    let broker = Plan::within(&dir, "2").start();
    // Another signal: the kernel makes one of two alike that wait.
    kill_process(Pid::from_child(&broker.child), Signal::TERM).unwrap();
    let (code, text) = broker.end(Signal::INT);
    assert_eq!(code, Some(0), "{text}");
    assert_eq!(text.matches(": stopping").count(), 1, "{text}");
    assert!(text.contains("everything is flushed, destaged and checkpointed"), "{text}");
}

fn acknowledged_records_survive_kill_and_changes_of_core_count() {
    let dir = folder();
    let data = dir.path().join("data");
    let mut acked = 0;
    // Each life: so many cores, so many records, an end of one kind or the other.
    let lives = [
        ("2", 50, false),
        ("3", 50, true),
        ("1", 70, true),
        ("1", 0, false),
        ("2", 30, true),
        ("2", 0, false),
    ];
    for (cores, records, kill) in lives {
        let plan = Plan { set: "num.partitions=3".into(), ..Plan::within(&dir, cores) };
        let broker = plan.start();
        let mut client = Client::connect(broker.address);
        if acked == 0 {
            client.create("orders");
        }
        for partition in 0..3 {
            assert_eq!(
                client.end_offset("orders", partition),
                acked,
                "partition {partition} with {cores} cores"
            );
        }
        for n in 0..records {
            for partition in 0..3 {
                assert_eq!(client.produce("orders", partition), acked + n);
            }
        }
        acked += records;
        let count = node_toml(&data)["cores"]["count"].as_integer().unwrap();
        assert_eq!(count.to_string(), cores);
        let signal = if kill { Signal::KILL } else { Signal::TERM };
        let (code, text) = broker.end(signal);
        assert_eq!(code, (!kill).then_some(0), "{text}");
        assert!(
            !text.contains("adopted"),
            "old checkpoints say what is in the segments, nobody reads them: {text}"
        );
    }
    assert_eq!(acked, 200);
}

fn broker_configs_act_while_running_and_survive_a_kill() {
    const TOO_LARGE: i64 = 10;
    let dir = folder();
    let plan = Plan::within(&dir, "2");
    let broker = plan.start();
    let mut client = Client::connect(broker.address);
    client.create("orders");
    assert_eq!(client.produce("orders", 0), 0);
    // For all brokers, then for this one, which goes before.
    assert_eq!(client.set_broker_config("", "message.max.bytes", Some("50")), 0);
    assert_eq!(client.try_produce("orders", 0), Err(TOO_LARGE));
    assert_eq!(client.set_broker_config("1", "message.max.bytes", Some("500")), 0);
    assert_eq!(client.try_produce("orders", 0), Ok(1));
    assert_eq!(client.set_broker_config("1", "message.max.bytes", None), 0);
    assert_eq!(broker.end(Signal::KILL).0, None);

    let broker = plan.start();
    let mut client = Client::connect(broker.address);
    assert_eq!(client.try_produce("orders", 0), Err(TOO_LARGE), "before and after a kill");
    assert_ne!(client.set_broker_config("1", "no.such.key", Some("1")), 0);
    assert_ne!(client.set_broker_config("1", "num.partitions", Some("1")), 0, "read at the start only");
    assert_eq!(client.set_broker_config("", "message.max.bytes", None), 0);
    assert_eq!(client.try_produce("orders", 0), Ok(2));
    broker.stop();
}

fn deleted_records_stay_deleted_over_a_kill() {
    let dir = folder();
    let plan = Plan::within(&dir, "2");
    let mut produced = 0;
    for round in 1..=4 {
        let broker = plan.start();
        let mut client = Client::connect(broker.address);
        if produced == 0 {
            client.create("orders");
        }
        assert_eq!(client.start_offset("orders", 0), produced, "what round {} deleted", round - 1);
        for _ in 0..10 {
            assert_eq!(client.produce("orders", 0), produced);
            produced += 1;
        }
        assert_eq!(client.delete_records("orders", 0, produced - 5), produced - 5);
        assert_eq!(client.delete_records("orders", 0, -1), produced, "-1 is the high watermark");
        assert_eq!(broker.end(Signal::KILL).0, None);
    }
    let broker = plan.start();
    let mut client = Client::connect(broker.address);
    assert_eq!((client.start_offset("orders", 0), client.end_offset("orders", 0)), (produced, produced));
    broker.stop();
}

fn core_logs_move_to_a_folder_of_their_own() {
    let dir = folder();
    let data = dir.path().join("data");
    let plan = Plan::within(&dir, "1");
    let others = dir.path().join("others");
    std::fs::create_dir_all(others.join("core-0")).unwrap();
    let strange = Plan { set: format!("core.log.dir={}", others.display()), ..plan.clone() };
    strange.refused(Reason::DataDamaged, "is there already and does not belong to");
    assert!(!data.exists(), "a first start that may not be leaves nothing");

    let broker = plan.start();
    let mut client = Client::connect(broker.address);
    client.create("orders");
    assert_eq!(client.produce("orders", 0), 0);
    assert_eq!(broker.end(Signal::KILL).0, None);

    let apart = dir.path().join("apart");
    std::fs::create_dir_all(apart.join("core-0")).unwrap();
    let moved = Plan { set: format!("core.log.dir={}", apart.display()), ..plan };
    let text = moved.refused(Reason::DataDamaged, "is there already and does not belong to");
    assert!(!text.contains("moving"), "nothing is begun that cannot be done: {text}");
    assert!(data.join("core-0").exists(), "the old log is untouched");
    std::fs::write(dir.path().join("file"), "").unwrap();
    for path in ["file", "file/below"] {
        let unusable = Plan { set: format!("core.log.dir={}/{path}", dir.path().display()), ..moved.clone() };
        let text = unusable.refused(Reason::DataUnusable, "is a file, and a folder must be there");
        assert!(text.contains("choose another core.log.dir"), "{text}");
        assert!(!text.contains("moving"), "{text}");
    }

    std::fs::remove_dir(apart.join("core-0")).unwrap();
    let broker = moved.start();
    let mut client = Client::connect(broker.address);
    assert_eq!(client.end_offset("orders", 0), 1);
    assert_eq!(client.produce("orders", 0), 1);
    broker.stop();
    assert!(!data.join("core-0").exists());
    assert!(apart.join("core-0/000.log").exists());
    assert_eq!(node_toml(&data)["cores"]["generation"].as_integer(), Some(2));

    let broker = Plan { set: String::new(), ..moved }.start();
    assert_eq!(Client::connect(broker.address).end_offset("orders", 0), 2);
    broker.stop();
    assert!(data.join("core-0/000.log").exists());
    assert!(!apart.exists(), "an empty folder is not left behind");
}

fn a_change_of_core_count_cut_in_the_middle_is_finished() {
    let dir = folder();
    let data = dir.path().join("data");
    let plan = Plan { set: "num.partitions=4".into(), ..Plan::within(&dir, "2") };
    let broker = plan.start();
    let mut client = Client::connect(broker.address);
    client.create("orders");
    for partition in 0..4 {
        assert_eq!(client.produce("orders", partition), 0);
    }
    broker.stop();
    // As a change to three cores leaves it when it is cut between removing the first old folder and the second.
    let text = std::fs::read_to_string(data.join("node.toml")).unwrap();
    assert!(text.contains("count = 2\n"), "{text}");
    std::fs::write(data.join("node.toml"), text.replace("count = 2\n", "count = 2\ndrained = true\n"))
        .unwrap();
    std::fs::remove_dir_all(data.join("core-0")).unwrap();
    // Whatever count the next start wants: here it is the old one again.
    let broker = plan.start();
    let mut client = Client::connect(broker.address);
    for partition in 0..4 {
        assert_eq!(client.end_offset("orders", partition), 1);
        assert_eq!(client.produce("orders", partition), 1);
    }
    broker.stop();
    let cores = &node_toml(&data)["cores"];
    assert_eq!((cores["generation"].as_integer(), cores.get("drained")), (Some(2), None));
}

/// More cores than can be had: the next start wants the old number again, and knows what the old cores said.
fn a_change_of_core_count_that_could_not_begin_is_changed_back() {
    let dir = folder();
    let two = Plan::within(&dir, "2");
    let broker = two.start();
    let mut client = Client::connect(broker.address);
    client.create("orders");
    for offset in 0..10 {
        assert_eq!(client.produce("orders", 0), offset);
    }
    assert_eq!(client.delete_records("orders", 0, -1), 10);
    broker.stop();
    let in_the_way = two.data.join("core-2");
    std::fs::write(&in_the_way, "").unwrap();
    let output = Plan { cores: "3", ..two.clone() }.command().output().unwrap();
    assert!(!output.status.success(), "{output:?}");
    std::fs::remove_file(in_the_way).unwrap();
    let broker = two.start();
    let mut client = Client::connect(broker.address);
    assert_eq!((client.start_offset("orders", 0), client.end_offset("orders", 0)), (10, 10));
    broker.stop();
}

/// The journal or a core's folder gone, or two cores' folders exchanged: refused with what to do, until all is where it was.
fn what_was_taken_away_is_not_made_anew() {
    let dir = folder();
    let data = dir.path().join("data");
    let plan = Plan { set: "num.partitions=2".into(), ..Plan::within(&dir, "2") };
    let broker = plan.start();
    let mut client = Client::connect(broker.address);
    client.create("orders");
    for partition in [0, 1] {
        assert_eq!(client.produce("orders", partition), 0);
    }
    assert_eq!(broker.end(Signal::KILL).0, None);

    let aside = dir.path().join("aside");
    let refused = |plan: &Plan, says: &str| {
        let text = plan.refused(Reason::DataDamaged, says);
        assert!(text.contains("Nothing was changed"), "{text}");
    };
    for (name, says) in [
        ("meta/journal", "meta/journal is missing although core logs are there"),
        ("meta", "meta/journal is missing although core logs are there"),
        ("core-0", "core-0 is missing, and it may hold acknowledged records"),
        ("core-1", "make an empty folder of that name to go on"),
    ] {
        std::fs::rename(data.join(name), &aside).unwrap();
        refused(&plan, says);
        refused(&Plan { cores: "3", ..plan.clone() }, says);
        assert!(!data.join(name).exists(), "{name} is not made anew");
        std::fs::rename(&aside, data.join(name)).unwrap();
    }
    let exchange = || {
        std::fs::rename(data.join("core-0"), &aside).unwrap();
        std::fs::rename(data.join("core-1"), data.join("core-0")).unwrap();
        std::fs::rename(&aside, data.join("core-1")).unwrap();
    };
    exchange();
    refused(&plan, "changed places");
    exchange();
    let broker = plan.start();
    let mut client = Client::connect(broker.address);
    assert_eq!((client.end_offset("orders", 0), client.end_offset("orders", 1)), (1, 1));
    assert_eq!(broker.end(Signal::KILL).0, None);

    // What the refusal names as the way on.
    std::fs::remove_dir_all(data.join("core-1")).unwrap();
    std::fs::create_dir(data.join("core-1")).unwrap();
    let broker = plan.start();
    let mut client = Client::connect(broker.address);
    let ends = [client.end_offset("orders", 0), client.end_offset("orders", 1)];
    assert_eq!(ends.iter().sum::<i64>(), 1, "one core's partition is whole: {ends:?}");
    broker.stop();
}

/// The newest decisions cut from the journal: folders of topics that it does not know get no ids of other partitions, and
/// are not taken for those of deleted topics.
fn a_journal_that_lacks_topics_mixes_no_partitions() {
    use ringmill_metadata::{Record, journal::frames};
    let dir = folder();
    let plan = Plan::within(&dir, "2");
    let broker = plan.start();
    let mut client = Client::connect(broker.address);
    for (topic, records) in [("last", 1), ("first", 3)] {
        client.create(topic);
        for offset in 0..records {
            assert_eq!(client.produce(topic, 0), offset);
        }
    }
    broker.stop();
    let path = plan.data.join("meta/journal");
    let whole = std::fs::read(&path).unwrap();
    let made: Vec<usize> = frames(&whole)
        .filter(|frame| matches!(frame.holds, Ok(Record::TopicCreated { .. })))
        .map(|frame| frame.at)
        .collect();
    std::fs::write(&path, &whole[..made[0]]).unwrap();
    let lacks = |plan: &Plan, says: &str| {
        let text = plan.refused(Reason::DataDamaged, "the metadata journal lacks decisions");
        assert!(text.contains(says), "{text}");
        assert!(text.contains(&format!("`ringmill log repair --data {}", plan.data.display())), "{text}");
        for topic in ["first-0", "last-0"] {
            assert!(plan.data.join("topics").join(topic).join("00000000000000000000.log").exists());
        }
    };
    lacks(&plan, "by id");
    assert_eq!(std::fs::read(&path).unwrap(), &whole[..made[0]], "nothing was changed");
    // Other cores would have drained the old ones' logs first, and taken the topics for deleted ones.
    lacks(&Plan { cores: "3", ..plan.clone() }, "by id");
    // One of them alone would have got its own id again, and without its settings.
    std::fs::write(&path, &whole[..made[1]]).unwrap();
    lacks(&plan, "first-0 by id");
    std::fs::write(&path, &whole).unwrap();
    let broker = plan.start();
    let mut client = Client::connect(broker.address);
    assert_eq!((client.end_offset("last", 0), client.end_offset("first", 0)), (1, 3));
    broker.stop();

    // Killed before a checkpoint knows the topic: its records in the core log say that it was there.
    let plan = Plan { data: dir.path().join("young"), cores: "1", ..Plan::default() };
    let broker = plan.start();
    let path = plan.data.join("meta/journal");
    let before = std::fs::read(&path).unwrap().len();
    let mut client = Client::connect(broker.address);
    for (topic, records) in [("last", 1), ("first", 3)] {
        client.create(topic);
        for offset in 0..records {
            assert_eq!(client.produce(topic, 0), offset);
        }
    }
    assert_eq!(broker.end(Signal::KILL).0, None);
    let whole = std::fs::read(&path).unwrap();
    let without = whole.get(..before).unwrap();
    std::fs::write(&path, without).unwrap();
    plan.refused(Reason::DataDamaged, "lacks decisions");
    assert_eq!(std::fs::read(&path).unwrap(), without, "nothing was changed");
    std::fs::write(&path, &whole).unwrap();
    let broker = plan.start();
    let mut client = Client::connect(broker.address);
    assert_eq!((client.end_offset("last", 0), client.end_offset("first", 0)), (1, 3));
    broker.stop();
}

/// Two files of a core log exchanged, with a group in the first that no checkpoint covers: refused, not passed over.
fn core_log_files_that_changed_places_are_refused() {
    let dir = folder();
    let plan = Plan::within(&dir, "1");
    let broker = plan.start();
    let mut client = Client::connect(broker.address);
    client.create("orders");
    assert_eq!(client.produce("orders", 0), 0);
    broker.stop();
    let broker = plan.start();
    assert_eq!(Client::connect(broker.address).produce("orders", 0), 1);
    assert_eq!(broker.end(Signal::KILL).0, None);

    let exchange = || {
        let path = |name: &str| plan.data.join("core-0").join(name);
        for (from, to) in [("000.log", "aside"), ("001.log", "000.log"), ("aside", "001.log")] {
            std::fs::rename(path(from), path(to)).unwrap();
        }
    };
    exchange();
    plan.refused(Reason::DataDamaged, "core-log files changed places");
    exchange();
    let broker = plan.start();
    assert_eq!(Client::connect(broker.address).end_offset("orders", 0), 2);
    broker.stop();
}

fn refusals_have_their_codes_and_touch_nothing() {
    let dir = folder();
    let plan = Plan { data: dir.path().join("data"), ..Plan::default() };
    let wrong = Plan { set: "num.partition=3;flush.method=fast".into(), ..plan.clone() };
    wrong.refused(Reason::Config, "did you mean num.partitions?");
    wrong.refused(Reason::Config, "`fast` is not one of auto, fdatasync, dsync");
    let held = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = Plan { listen: held.local_addr().unwrap().to_string(), ..plan.clone() };
    taken.refused(Reason::AddressInUse, "another process listens there");
    assert!(!plan.data.exists(), "refused before anything was touched");

    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    Plan { data: file.join("data"), ..plan.clone() }.refused(Reason::DataUnusable, "choose another --data");

    std::fs::create_dir(&plan.data).unwrap();
    std::fs::write(plan.data.join("node.toml"), "format = 2\n").unwrap();
    plan.refused(Reason::NewerFormat, "Run the newer version");
    std::fs::write(plan.data.join("node.toml"), "format = 1\n").unwrap();
    plan.refused(Reason::DataDamaged, "node.toml is damaged");
    let names: Vec<_> =
        std::fs::read_dir(&plan.data).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["node.toml"]);

    std::fs::remove_file(plan.data.join("node.toml")).unwrap();
    plan.start().stop();
    Plan { set: "node.id=2".into(), ..plan }.refused(Reason::IdentityMismatch, "belongs to node.id 1");
}

fn a_refusal_keeps_its_code_where_nobody_can_be_told() {
    let dir = folder();
    let plan = Plan { set: "num.partition=3".into(), ..Plan::within(&dir, "1") };
    let full = || std::fs::File::options().write(true).open("/dev/full").unwrap();
    let status = plan.command().stdout(full()).stderr(full()).status().unwrap();
    assert_eq!(status.code(), Some(i32::from(Reason::Config.code())), "{status}");
}

/// The disk is made to fail by a limit on file sizes: every further core-log write meets an error.
fn a_failed_core_log_write_ends_the_process() {
    let dir = folder();
    let plan = Plan::within(&dir, "1");
    let mut broker = plan.start();
    let mut client = Client::connect(broker.address);
    client.create("t");
    assert_eq!(client.produce("t", 0), 0);
    let page = Some(4096);
    prlimit(Some(Pid::from_child(&broker.child)), Resource::Fsize, Rlimit { current: page, maximum: page })
        .unwrap();
    client.send_produce("t", 0);
    assert!(client.is_cut_off(), "nothing is acknowledged after a failed write");
    let mut text = String::new();
    broker.child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(broker.child.wait().unwrap().code(), Some(i32::from(Reason::FlushFailed.code())), "{text}");
    let log = plan.data.join("core-0");
    for part in [log.to_str().unwrap(), "File too large", "dmesg", "A start recovers"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    drop(broker);
    let again = plan.start();
    assert_eq!(Client::connect(again.address).end_offset("t", 0), 1, "what was acknowledged is there");
    again.stop();
}

/// No descriptor is left: who is connected is served, who knocks waits and is served when there is room, the broker does not
/// spin, and the log does not fill.
fn without_descriptors_those_who_are_in_go_on() {
    let dir = folder();
    // The ring takes the limit that was in force when it was asked to accept: once for ever with multishot.
    let set = "features.off=multishot_accept".to_string();
    let plan = Plan { set, ..Plan::within(&dir, "1") };
    let broker = plan.start();
    let mut client = Client::connect(broker.address);
    client.create("t");
    assert_eq!(client.produce("t", 0), 0);
    let process = Pid::from_child(&broker.child);
    let open = std::fs::read_dir(format!("/proc/{}/fd", broker.child.id())).unwrap();
    let numbers = open.map(|entry| entry.unwrap().file_name().to_str().unwrap().parse::<u64>().unwrap());
    let limit = |soft: u64| {
        let before = prlimit(Some(process), Resource::Nofile, getrlimit(Resource::Nofile)).unwrap();
        prlimit(Some(process), Resource::Nofile, Rlimit { current: Some(soft), ..before }).unwrap();
    };
    let open: BTreeSet<u64> = numbers.collect();
    limit((0..).find(|number| !open.contains(number)).unwrap());
    let mut knocking: Vec<_> = (0..100).map(|_| Client::connect(broker.address)).collect();
    knocking.iter_mut().for_each(|client| client.send_produce("t", 0));
    let spent = cpu_ms(broker.child.id());
    let begun = std::time::Instant::now();
    // The attempt to accept that was under way goes by the old limit, so one gets in; so does one for each file that the
    // broker closes meanwhile.
    let (mut let_in, mut produced) = (0, 1);
    while begun.elapsed() < std::time::Duration::from_secs(2) {
        let_in = client.produce("t", 0) - produced;
        produced += 1;
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    assert!((0..=4).contains(&let_in), "{let_in} of 100 got in");
    let spent = cpu_ms(broker.child.id()) - spent;
    assert!(spent < 1000, "{spent} ms of CPU in two seconds of waiting");
    limit(1024);
    for client in &mut knocking {
        assert_eq!(client.produce_error(), 0, "who waited is served");
    }
    let (code, text) = broker.end(Signal::TERM);
    assert_eq!(code, Some(0), "{text}");
    let lines = text.lines().filter(|line| line.contains("accepting connections fails")).count();
    assert!((1..=2).contains(&lines), "{lines} lines: {text}");
}

fn cpu_ms(process: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let after_name = stat.rsplit_once(") ").unwrap().1;
    let ticks: u64 = after_name.split(' ').skip(11).take(2).map(|n| n.parse::<u64>().unwrap()).sum();
    // The kernel tells user space hundredths of a second, whatever it counts in (USER_HZ).
    ticks * 10
}

fn a_folder_in_use_is_left_alone() {
    let dir = folder();
    let plan = Plan::within(&dir, "1");
    let broker = plan.start();
    plan.refused(Reason::DataInUse, &format!("in use by process {}", broker.child.id()));
    broker.stop();
}

/// The stop writes a segment of each: no partition goes offline for want of a descriptor, and all is there afterwards.
fn more_partitions_than_open_files_are_served_and_stopped() {
    const PARTITIONS: i32 = 400;
    let dir = folder();
    let set = format!("num.partitions={PARTITIONS}");
    let plan = Plan { nofile: Some(256), set, ..Plan::within(&dir, "1") };
    for life in 0..2 {
        let broker = plan.start();
        assert!(broker.banner.contains("nofile is 256, below 1024"), "{}", broker.banner);
        let mut client = Client::connect(broker.address);
        if life == 0 {
            client.create("many");
        }
        for partition in 0..PARTITIONS {
            assert_eq!(client.end_offset("many", partition), life, "partition {partition}");
            assert_eq!(client.produce("many", partition), life);
        }
        let (code, text) = broker.end(Signal::TERM);
        assert_eq!(code, Some(0), "{text}");
        assert!(text.contains("everything is flushed, destaged and checkpointed"), "{text}");
        assert!(!text.contains("offline") && !text.contains("Too many open files"), "{text}");
    }
}

fn a_limit_on_open_files_that_serves_nobody_is_refused() {
    let dir = folder();
    let plan = Plan { nofile: Some(60), ..Plan::within(&dir, "1") };
    plan.refused(Reason::LimitsTooLow, "nofile is 60, and 1 core(s) need 65 open files");
    assert!(!dir.path().join("data").exists(), "nothing was touched");
    let plan = Plan { nofile: Some(65), ..Plan::within(&dir, "1") };
    let broker = plan.start();
    let mut client = Client::connect(broker.address);
    client.create("orders");
    assert_eq!(client.produce("orders", 0), 0);
    broker.stop();
}

fn small_limits_are_gone_along_with() {
    let dir = folder();
    let plan = Plan { memlock_kib: Some(64), ..Plan::within(&dir, "2") };
    let broker = plan.start();
    assert!(broker.banner.contains("memlock is 64KiB, below 8MiB"), "{}", broker.banner);
    let mut client = Client::connect(broker.address);
    client.create("orders");
    assert_eq!(client.produce("orders", 0), 0);
    assert_eq!(client.end_offset("orders", 0), 1);
    broker.stop();
}

fn json_goes_to_stderr_alone() {
    let dir = folder();
    let plan = Plan { json: true, ..Plan::within(&dir, "1") };
    let mut child = plan.command().spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let serving =
        lines.find_map(|line| Some(line.unwrap()).filter(|line| line.contains("\"serving\""))).unwrap();
    assert!(serving.starts_with('{') && serving.ends_with('}'), "{serving}");
    assert!(serving.contains("\"listen\":\"127.0.0.1:"), "{serving}");
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    for line in lines {
        let line = line.unwrap();
        assert!(line.starts_with('{'), "{line}");
    }
    let mut stdout = String::new();
    child.stdout.take().unwrap().read_to_string(&mut stdout).unwrap();
    assert_eq!(stdout, "");
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

/// A frame is known to be large only when those before it are answered; its rest may then come with a receive that was
/// under way, together with the frame behind it.
fn a_large_frame_whose_rest_comes_late_is_taken() {
    let dir = folder();
    let plan = Plan::within(&dir, "1");
    let broker = plan.start();
    let mut client = Client::connect(broker.address);
    client.create("t");
    for (bytes, rest) in [(48_000, 8_000), (48_000, 1), (40_000, 14_000), (60_000, 3_000)] {
        let later = client.begin_produce_behind_metadata("t", bytes, rest);
        client.send_bytes(&later);
        assert_eq!((client.produce_error(), client.produce_error()), (0, 0), "{rest} of {bytes} bytes");
    }
    assert_eq!(client.end_offset("t", 0), 8);
    // More of it than a stranger's beginning came while the request before it was held up.
    let mut client = Client::connect(broker.address);
    for (at, bytes) in [(8, 70_000), (9, 200_000), (10, 90_000), (11, 700_000)] {
        assert_eq!(client.produce_behind_a_waiting_fetch("t", at, 150, bytes), 0, "{bytes} bytes");
    }
    assert_eq!(client.end_offset("t", 0), 12);
    assert_eq!(broker.end(Signal::TERM).0, Some(0));
}

/// Control reads a request as a whole before anybody else has a turn; records do not go there.
fn a_large_request_to_control_closes_its_connection() {
    let dir = folder();
    let plan = Plan::within(&dir, "1");
    let broker = plan.start();
    for (bytes, is_refused) in [(4 << 20, false), ((4 << 20) + 1, true)] {
        let mut client = Client::connect(broker.address);
        // DescribeGroups 0 of no group, with a tail that is left alone.
        let mut frame = vec![0, 15, 0, 0, 0, 0, 0, 7, 255, 255, 0, 0, 0, 0];
        frame.resize(bytes, 0);
        let mut framed = (bytes as u32).to_be_bytes().to_vec();
        framed.append(&mut frame);
        client.send_bytes(&framed);
        assert_eq!(client.is_cut_off(), is_refused, "{bytes} bytes");
    }
    let (code, text) = broker.end(Signal::TERM);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("a request DescribeGroups of 4194305 bytes; this one may have 4194304"), "{text}");
}

/// However the bytes of a pipeline are cut, every request of it is answered, in order.
fn frames_may_come_in_any_pieces() {
    let dir = folder();
    let plan = Plan::within(&dir, "2");
    let broker = plan.start();
    Client::connect(broker.address).create_with("t", 4, "retention.ms", "-1");
    let address = broker.address;
    std::thread::scope(|scope| {
        for partition in 0..4 {
            scope.spawn(move || {
                let stored: usize = (0..12)
                    .map(|round| {
                        Client::connect(address).pipeline("t", partition, round * 4 + partition as u64)
                    })
                    .sum();
                assert_eq!(Client::connect(address).end_offset("t", partition), stored as i64);
            });
        }
    });
    assert_eq!(broker.end(Signal::TERM).0, Some(0));
}

/// A fetch gets one batch more than its limit allows at most, from whatever cores its partitions are; who asks again for
/// what was left out gets all of it.
fn an_answer_keeps_to_its_bytes_over_all_cores() {
    const BATCH: usize = 50_000;
    let dir = folder();
    let broker = Plan::within(&dir, "4").start();
    let mut client = Client::connect(broker.address);
    client.create_with("t", 12, "retention.ms", "-1");
    for partition in 0..12 {
        assert_eq!(client.produce_throttled("t", partition, BATCH), 0);
    }
    for max_bytes in [1, 120_000, 260_000, 10_000_000] {
        let mut left: Vec<(i32, i64)> = (0..12).map(|partition| (partition, 0)).collect();
        while !left.is_empty() {
            let sizes = client.fetch_sizes("t", &left, max_bytes);
            assert_eq!(sizes.len(), left.len(), "every partition is answered");
            let (bytes, got) =
                (sizes.iter().map(|s| s.1).sum::<usize>(), sizes.iter().filter(|s| s.1 > 0).count());
            assert!(got > 0, "an answer without records, of at most {max_bytes} bytes");
            assert!(got == 1 || bytes <= max_bytes as usize, "{bytes} bytes instead of {max_bytes}");
            left.retain(|(partition, _)| sizes.contains(&(*partition, 0)));
        }
    }
    broker.stop();
}

/// A connection that was about to move to the core of its partitions when its client ended is closed like any other.
fn a_reader_that_leaves_is_let_go() {
    let dir = folder();
    let broker = Plan::within(&dir, "2").start();
    let mut client = Client::connect(broker.address);
    client.create_with("t", 2, "retention.ms", "-1");
    for partition in [0, 1] {
        assert_eq!(client.produce_throttled("t", partition, 400_000), 0);
    }
    // Whatever core they are at, one partition is another's.
    for round in 0..8 {
        let mut reader = Client::connect(broker.address);
        assert!(reader.fetch_throttled("t", round % 2, 1 << 20).1 > 400_000);
        reader.shut_down_sending();
        let begun = std::time::Instant::now();
        assert_eq!(reader.count_answers(), 0);
        assert!(begun.elapsed() < std::time::Duration::from_secs(20), "it was let go by its idle timeout");
    }
    broker.stop();
}

/// Requests that were taken are answered before the connection ends, whatever ends it; and nothing else was stored.
fn what_was_taken_is_answered_before_a_connection_ends() {
    let dir = folder();
    let plan = Plan::within(&dir, "2");
    let broker = plan.start();
    let mut client = Client::connect(broker.address);
    client.create("t");

    // Nonsense behind a request that waits for its flush.
    client.send_produce("t", 0);
    client.send_bytes(&[0x7f, 0xff, 0xff, 0xff]);
    assert_eq!(client.count_answers(), 1);
    // The sending half is closed, with one request behind another kind.
    let mut client = Client::connect(broker.address);
    client.send_produce("t", 0);
    client.send_metadata("t");
    client.send_produce("t", 0);
    client.shut_down_sending();
    assert_eq!(client.count_answers(), 3);

    // SIGTERM while eight connections send as fast as they can.
    let begun = std::sync::Barrier::new(9);
    let (begun, address) = (&begun, broker.address);
    let mut broker = Some(broker);
    let answered = std::thread::scope(|scope| {
        let producers: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(move || {
                    let mut client = Client::connect(address);
                    client.send_produce("t", 0);
                    begun.wait();
                    client.flood_with_produce("t", 0)
                })
            })
            .collect();
        begun.wait();
        std::thread::sleep(std::time::Duration::from_millis(100));
        let begun = std::time::Instant::now();
        let (code, text) = broker.take().unwrap().end(Signal::TERM);
        assert_eq!(code, Some(0), "{text}");
        assert!(text.contains("a frame of 2147483647 bytes, above socket.request.max.bytes"), "{text}");
        assert!(begun.elapsed() < std::time::Duration::from_secs(4), "nobody was waited for in vain");
        producers.into_iter().map(|producer| producer.join().unwrap()).sum::<usize>()
    });
    let again = plan.start();
    let stored = Client::connect(again.address).end_offset("t", 0) as usize;
    assert!(answered > 8, "{answered}");
    assert_eq!(stored, answered + 3, "every stored record was acknowledged");
    again.stop();
}

/// A transcript of Apache Kafka 4.3.1: the same requests get the same answers, down to the stored bytes.
fn answers_are_those_of_kafka_to_the_byte() {
    let dir = folder();
    let set = "auto.create.topics.enable=false".to_string();
    let broker = Plan { set, ..Plan::within(&dir, "2") }.start();
    let mut client = Client::connect(broker.address);
    assert!(check_transcript(&mut client, include_str!("golden/kafka-4.3.1.txt")) > 40);
    broker.stop();
}

/// Empty and long names, and those that lead out of a folder, in every API that takes one; clients that write to the
/// broker's own topic.
fn names_that_are_none_are_answered_as_kafka_does() {
    let dir = folder();
    let set = "auto.create.topics.enable=false".to_string();
    let plan = Plan { set, ..Plan::within(&dir, "2") };
    let broker = plan.start();
    let mut client = Client::connect(broker.address);
    client.wait_for_coordinator();
    assert!(check_transcript(&mut client, include_str!("golden/kafka-4.3.1-names.txt")) > 80);
    let topics = std::fs::read_dir(plan.data.join("topics")).unwrap();
    for entry in topics {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(name.starts_with("there-") || name.starts_with("__consumer_offsets-"), "{name}");
    }
    broker.stop();
}

/// Every version of the group APIs, asked by members of groups that are not there, have no name, have offsets but no
/// members, or are of the other protocol; with stale and future epochs.
fn strangers_to_groups_are_answered_as_kafka_does() {
    let dir = folder();
    let set = "auto.create.topics.enable=false".to_string();
    let broker = Plan { set, ..Plan::within(&dir, "2") }.start();
    let mut client = Client::connect(broker.address);
    client.wait_for_coordinator();
    assert!(check_transcript(&mut client, include_str!("golden/kafka-4.3.1-groups.txt")) > 400);
    broker.stop();
}

/// Places in a log by timestamps below 0 and ends of epochs, version by version, on an empty partition and on another; topics
/// that are not made, and endpoints that are not there.
fn offsets_and_topics_that_cannot_be_are_answered_as_kafka_does() {
    let dir = folder();
    let set = "auto.create.topics.enable=false".to_string();
    let broker = Plan { set, ..Plan::within(&dir, "2") }.start();
    let mut client = Client::connect(broker.address);
    assert!(check_transcript(&mut client, include_str!("golden/kafka-4.3.1-offsets.txt")) > 300);
    // A topic that would be made has an id from Kafka, too: another one every time.
    let mut ids = HashSet::new();
    for _ in 0..2 {
        let mut body = vec![2, 2, b'v'];
        body.extend([0, 0, 0, 1, 0, 1, 1, 1, 0, 0, 0, 0x27, 0x10, 1, 0]);
        let request = [&[0, 19, 0, 7, 0, 0, 0, 7, 0, 3][..], b"ask", &[0], &body].concat();
        let answer = client.exchange(&request);
        // Behind the head, the throttle time, the count and the name: id, code.
        assert_eq!(answer[28..30], [0, 0], "{}", hex(&answer));
        assert_ne!(answer[12..28], [0; 16], "{}", hex(&answer));
        assert!(ids.insert(answer[12..28].to_vec()), "{}", hex(&answer));
    }
    broker.stop();
}

/// Asks all that the transcript asks; how much that was.
fn check_transcript(client: &mut Client, transcript: &str) -> usize {
    let mut different = Vec::new();
    let mut count = 0;
    for line in transcript.lines().skip(1) {
        let fields: Vec<&str> = line.split('\t').collect();
        let [label, request, answer] = fields[..] else { panic!("{line}") };
        count += 1;
        let ours = hex(&client.exchange(&unhex(request)));
        if ours != answer {
            different.push(format!("{label}:\n  Kafka {answer}\n  ours  {ours}"));
        }
    }
    assert!(different.is_empty(), "{}", different.join("\n"));
    count
}

/// Records without a key on a compacted topic, packed and plain, to partitions of this core and of others.
fn records_at_fault_are_named() {
    let dir = folder();
    let set = "num.partitions=4".to_string();
    let broker = Plan { set, ..Plan::within(&dir, "4") }.start();
    let mut client = Client::connect(broker.address);
    client.create_with("c", 4, "cleanup.policy", "compact");
    for partition in 0..4 {
        for (name, index) in [("null-key", 0), ("gzip-null-key", 1)] {
            let answer = client.produce_bytes("c", partition, &produced_as(name));
            assert_eq!(answer.error, 87, "{name}");
            let why =
                format!("Compacted topic cannot accept message without key in topic partition c-{partition}");
            assert_eq!(answer.records, [(index, why)], "{name}");
            assert!(answer.message.starts_with("One or more records have been rejected due to 1 "), "{name}");
        }
        for (offset, name) in ["gzip", "good", "gzip-max-timestamp-too-low"].into_iter().enumerate() {
            let answer = client.produce_bytes("c", partition, &produced_as(name));
            assert_eq!((answer.error, answer.offset), (0, 2 * offset as i64), "{name}: {}", answer.message);
        }
        // In order behind each other, without waiting for answers.
        for name in ["gzip", "good", "gzip", "null-key", "good"] {
            client.send_produce_bytes("c", partition, &produced_as(name));
        }
        let answers: Vec<_> = (0..5).map(|_| client.produce_answer().offset).collect();
        assert_eq!(answers, [6, 8, 10, -1, 12]);
    }
    broker.stop();
}

/// A gzipped batch and a plain one to topics of every compression, on partitions of this core and of others; the broker's
/// default counts where a topic says nothing, also when it changes.
fn batches_are_stored_as_the_topic_says() {
    let dir = folder();
    let broker = Plan::within(&dir, "2").start();
    let mut client = Client::connect(broker.address);
    let (gzip, plain) = (produced_as("gzip"), produced_as("good"));
    let types = ["uncompressed", "gzip", "snappy", "lz4", "zstd"];
    for (code, kind) in (0..).zip(types) {
        client.create_with(kind, 2, "compression.type", kind);
        for partition in [0, 1] {
            for (offset, batch) in [&gzip, &plain, &gzip].into_iter().enumerate() {
                let answer = client.produce_bytes(kind, partition, batch);
                assert_eq!(
                    (answer.error, answer.offset),
                    (0, 2 * offset as i64),
                    "{kind}: {}",
                    answer.message
                );
                assert_eq!(client.stored_compression(kind, partition, answer.offset), code, "{kind}");
            }
        }
    }
    client.create_with("default", 1, "retention.ms", "-1");
    for (kind, code) in [("producer", 1), ("lz4", 3), ("uncompressed", 0)] {
        assert_eq!(client.set_broker_config("", "compression.type", Some(kind)), 0);
        let answer = client.produce_bytes("default", 0, &gzip);
        assert_eq!(client.stored_compression("default", 0, answer.offset), code, "{kind}");
    }
    // What does not unpack is refused, where others would not look at it.
    let mut broken = gzip.clone();
    let last = broken.len() - 12;
    broken[61..last].fill(0x55);
    let crc = crc32c::crc32c(&broken[21..]);
    broken[17..21].copy_from_slice(&crc.to_be_bytes());
    assert_eq!(client.produce_bytes("zstd", 0, &broken).error, 2, "CORRUPT_MESSAGE");
    assert_eq!(client.produce_bytes("gzip", 0, &broken).error, 0, "stored as it came");
    broker.stop();
}

/// The bytes of a batch of two records, by its name in the table of verdicts.
fn produced_as(name: &str) -> Vec<u8> {
    let text = include_str!("../../../engine/record/tests/golden/verdicts.txt");
    let wanted = |line: &&str| line.starts_with(&format!("{name} | compacted | "));
    unhex(text.lines().find(wanted).unwrap().split(" | ").nth(3).unwrap())
}

/// One user on four connections, which the kernel spreads over the cores, and partitions of both: together they get what
/// the quota says, and every answer says how long to wait.
fn quotas_hold_over_cores_and_a_restart() {
    const RATE: f64 = 1_000_000.0;
    let dir = folder();
    let plan = Plan::within(&dir, "2");
    let broker = plan.start();
    let mut admin = Client::connect(broker.address);
    admin.create_with("q", 2, "retention.ms", "-1");
    assert_eq!(admin.produce_throttled("q", 0, 1000), 0, "nobody has a quota yet");
    assert_eq!(admin.set_quota("producer_byte_rate", Some(RATE)), 0);
    let send = |client: &mut Client, partition| (client.produce_throttled("q", partition, 40_000), 40_000);
    let per_second = rate_of_four(broker.address, send);
    assert!((0.9 * RATE..1.1 * RATE).contains(&per_second), "produced {per_second} bytes a second");

    assert_eq!(admin.set_quota("consumer_byte_rate", Some(2.0 * RATE)), 0);
    let read = |client: &mut Client, partition| client.fetch_throttled("q", partition, 50_000);
    let per_second = rate_of_four(broker.address, read);
    assert!((1.8 * RATE..2.2 * RATE).contains(&per_second), "fetched {per_second} bytes a second");

    // A tenth of a per cent of a thread, a millisecond in each second: soon used up by anything that control decides.
    assert_eq!(admin.set_quota("request_percentage", Some(0.1)), 0);
    let begun = std::time::Instant::now();
    while admin.metadata_throttled("q") == 0 {
        assert!(begun.elapsed().as_secs() < 60, "no request was throttled");
    }
    assert_eq!(admin.set_quota("request_percentage", None), 0);
    broker.stop();

    let broker = plan.start();
    let mut admin = Client::connect(broker.address);
    let waits: Vec<i64> = (0..60).map(|_| admin.produce_throttled("q", 0, 40_000)).collect();
    assert!(waits.iter().any(|ms| *ms > 0), "the quota is forgotten");
    assert_eq!(admin.set_quota("producer_byte_rate", None), 0);
    let mut other = Client::connect(broker.address);
    assert!((0..100).all(|_| other.produce_throttled("q", 1, 40_000) == 0), "the quota is gone");
    broker.stop();
}

/// Bytes that four connections get through in a second, after the first one; `step` gives its throttle time and bytes.
fn rate_of_four(address: SocketAddr, step: fn(&mut Client, i32) -> (i64, usize)) -> f64 {
    use std::time::{Duration, Instant};
    let from = Instant::now() + Duration::from_millis(1500);
    let until = from + Duration::from_secs(6);
    let threads = (0..4).map(|n| {
        std::thread::spawn(move || {
            let mut client = Client::connect(address);
            let (mut bytes, mut throttled) = (0, false);
            while Instant::now() < until {
                let (throttle_ms, got) = step(&mut client, n % 2);
                throttled |= throttle_ms > 0;
                bytes += if (from..until).contains(&Instant::now()) { got } else { 0 };
            }
            assert!(throttled, "no answer says that it is throttled");
            bytes
        })
    });
    let threads: Vec<_> = threads.collect();
    let bytes: usize = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
    bytes as f64 / (until - from).as_secs_f64()
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len() / 2).map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap()).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
