//! All codecs and acks through the librdkafka that Debian ships: what goes in comes out, and lies on disk with the codec
//! that was asked for. librdkafka sends lz4 only to a broker that shows FindCoordinator, and says nothing otherwise.

use super::Report;
use super::broker::Broker;
use super::stored::{self, CODECS};
use super::tool::{need, talk, timed};

const RECORDS: i64 = 2_000;
const SECONDS: u32 = 60;

pub fn run(report: &mut Report) -> Result<(), String> {
    need(&[("kcat", "kcat")])?;
    let mut broker = Broker::start(&[])?;
    let lines: String = (0..RECORDS).map(|n| format!("key{n}:value {n}\n")).collect();
    for codec in CODECS {
        for acks in ["0", "1", "all"] {
            let topic = format!("{codec}-{acks}");
            report.check(&topic, || there_and_back(&broker.address, &topic, codec, acks, &lines));
        }
    }
    report.check("clean-stop", || broker.stop());
    for codec in CODECS {
        report.check(&format!("stored-codec-{codec}"), || {
            ["0", "1", "all"].iter().try_for_each(|acks| {
                stored::check(&broker.topics().join(format!("{codec}-{acks}-0")), RECORDS, codec)
            })
        });
    }
    Ok(())
}

fn there_and_back(at: &str, topic: &str, codec: &str, acks: &str, lines: &str) -> Result<(), String> {
    let common = ["-q", "-b", at, "-t", topic, "-p", "0", "-K:"];
    let mut produce = timed(SECONDS, "kcat");
    produce.arg("-P").args(common).args(["-z", codec, "-X", &format!("acks={acks}")]);
    // Long enough for all lines to share a few batches, which are worth compressing.
    produce.args(["-X", "linger.ms=200"]);
    talk(&mut produce, lines)?;
    let mut consume = timed(SECONDS, "kcat");
    consume.arg("-C").args(common).args(["-o", "beginning", "-c", &RECORDS.to_string()]);
    let back = talk(&mut consume, "")?;
    if back == lines {
        return Ok(());
    }
    Err(format!("{} bytes came back for {}, or other ones", back.len(), lines.len()))
}
