//! librdkafka 2.12 through its own `rdkafka_performance`: every codec with every kind of ack, idempotent too. Counted
//! three times: as delivered by the producer, as read by the consumer, and in the segments after a clean stop.

use super::Report;
use super::broker::Broker;
use super::stored::{self, CODECS};
use super::tool::{both, need, tail, talk, timed};

const RECORDS: i64 = 20_000;
const RECORD_BYTES: &str = "200";
const SECONDS: u32 = 90;
pub const SCRIPT: &str = "bench/peers/librdkafka.sh";

/// acks and whether the producer is idempotent, which librdkafka allows with acks=all only.
const ACKS: [(&str, &str); 4] = [("0", "false"), ("1", "false"), ("-1", "false"), ("-1", "true")];

pub fn run(report: &mut Report) -> Result<(), String> {
    need(&[("cc", "gcc"), ("c++", "g++"), ("make", "make")])?;
    need(&[("zstd.h", "libzstd-dev"), ("zlib.h", "zlib1g-dev"), ("openssl/ssl.h", "libssl-dev")])?;
    talk(timed(1800, SCRIPT).arg("setup"), "")?;
    let mut broker = Broker::start(&[])?;
    let mut topics = Vec::new();
    for codec in CODECS {
        for (acks, idempotent) in ACKS {
            let kind = if idempotent == "true" { "idempotent" } else { "plain" };
            let topic = format!("{codec}-acks{acks}-{kind}");
            report.check(&topic, || there_and_back(&broker.address, &topic, codec, acks, idempotent));
            topics.push((topic, codec));
        }
    }
    report.check("clean-stop", || broker.stop());
    for (topic, codec) in topics {
        let partition = broker.topics().join(format!("{topic}-0"));
        report.check(&format!("stored-{topic}"), || stored::check(&partition, RECORDS, codec));
    }
    Ok(())
}

fn there_and_back(at: &str, topic: &str, codec: &str, acks: &str, idempotent: &str) -> Result<(), String> {
    let count = RECORDS.to_string();
    let common = ["-b", at, "-t", topic, "-p", "0", "-c", &count];
    let mut produce = timed(SECONDS, SCRIPT);
    produce.args(["perf", "-P"]).args(common).args(["-s", RECORD_BYTES, "-a", acks, "-z", codec]);
    produce.args(["-X", &format!("enable.idempotence={idempotent}")]);
    let (out, err) = both(&mut produce, "")?;
    counted(&out, &err, "messages produced")?;
    let mut consume = timed(SECONDS, SCRIPT);
    consume.args(["perf", "-C"]).args(common).args(["-o", "beginning"]);
    let (out, err) = both(&mut consume, "")?;
    counted(&out, &err, "messages")
}

/// The folder with its shared library, for programs that load it.
pub fn library() -> Result<String, String> {
    Ok(talk(timed(SECONDS, SCRIPT).arg("where"), "")?.trim().to_string() + "/src")
}

/// That the tool's last summary counts every record, and none as failed.
fn counted(out: &str, err: &str, what: &str) -> Result<(), String> {
    let whole = format!("% {RECORDS} {what} (");
    let summary = out.lines().rfind(|line| line.starts_with(&whole));
    let Some(summary) = summary else {
        return Err(format!("no \"{whole}\" in\n{}{}", tail(out), tail(err)));
    };
    let delivered = format!("), {RECORDS} delivered (");
    if what == "messages" || (summary.contains(&delivered) && summary.contains(", 0 failed)")) {
        return Ok(());
    }
    Err(format!("not all were delivered: {summary}"))
}
