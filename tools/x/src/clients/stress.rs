//! Groups under stress: a thousand of them, whose members (franz-go's) join, leave, crash and stall at random, while the
//! broker is killed and started again. bench/peers/stress judges what the broker makes of it; here it is brought up and
//! killed. `STRESS_SECONDS`, `STRESS_GROUPS`, `STRESS_LARGEST` and `STRESS_KILLS` make it smaller; `AT=HOST:PORT` tries
//! another broker, which nobody kills.

use super::Report;
use super::broker::Broker;
use super::tool::{need, talk, timed};
use std::fmt::Display;
use std::process::{Child, Command, Stdio};
use std::str::FromStr;
use std::time::{Duration, Instant};

const SCRIPT: &str = "bench/peers/kgo.sh";
const SETUP_SECONDS: u32 = 600;
/// Groups come up, and to rest at the end, in this time beside the stress itself.
const AROUND: Duration = Duration::from_secs(400);
const LOOK_EVERY: Duration = Duration::from_millis(100);

pub fn run(report: &mut Report) -> Result<(), String> {
    need(&[("go", "golang-go")])?;
    talk(timed(SETUP_SECONDS, SCRIPT).arg("stress-setup"), "")?;
    let seconds: u64 = from_environment("STRESS_SECONDS", 600)?;
    let kills: u32 = from_environment("STRESS_KILLS", 10)?;
    let given = std::env::var("AT").ok();
    let mut broker =
        if given.is_none() { Some(Broker::start(&["group.initial.rebalance.delay.ms=500"])?) } else { None };
    let at = given.or_else(|| broker.as_ref().map(|broker| broker.address.clone())).unwrap_or_default();
    report.check("members-come-and-go", || {
        let members = Command::new(SCRIPT)
            .args(["stress", "-broker", &at, "-time", &format!("{seconds}s")])
            .args(["-groups", &from_environment("STRESS_GROUPS", 1000)?.to_string()])
            .args(["-largest", &from_environment("STRESS_LARGEST", 100)?.to_string()])
            .stdin(Stdio::null())
            .spawn()
            .map_err(|e| e.to_string())?;
        judged(members, broker.as_mut(), Duration::from_secs(seconds), kills)
    });
    if let Some(broker) = &mut broker {
        report.check("clean-stop", || broker.stop());
    }
    Ok(())
}

/// Kills the broker again and again while the members are at it, and waits for what they say.
fn judged(
    mut members: Child,
    mut broker: Option<&mut Broker>,
    during: Duration,
    kills: u32,
) -> Result<(), String> {
    let begun = Instant::now();
    let mut killed = 0;
    while begun.elapsed() < during + AROUND {
        if let Some(status) = members.try_wait().map_err(|e| e.to_string())? {
            println!("     the broker was killed {killed} times");
            return if status.success() { Ok(()) } else { Err(format!("the stress ended with {status}")) };
        }
        if let Some(broker) = broker.as_deref_mut()
            && killed < kills
            && begun.elapsed() > during * (killed + 1) / (kills + 1)
        {
            killed += 1;
            let again = broker.kill().and_then(|()| broker.start_again());
            if let Err(error) = again {
                // The members would try for ever.
                let _ = members.kill();
                let _ = members.wait();
                return Err(error);
            }
        }
        std::thread::sleep(LOOK_EVERY);
    }
    let _ = members.kill();
    let _ = members.wait();
    Err("the stress did not end".into())
}

fn from_environment<N: FromStr + Display>(name: &str, usual: N) -> Result<N, String> {
    match std::env::var(name) {
        Ok(text) => text.parse().map_err(|_| format!("{name} is a number, not {text}")),
        Err(_) => Ok(usual),
    }
}
