//! `ringmill consume --group`: one member's share of the topic, and its offsets.
//!
//! What is committed was written to stdout before: a reader that is killed sees the last seconds again, and misses nothing.

use super::Reading;
use crate::exit::Failed;
use crate::member::{About, COMMIT_EVERY, Member, PAUSE};
use crate::output::remark;
use ringmill_client::client::Absent;
use ringmill_client::{Client, Consumer};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// As Java clients have them.
const SESSION_TIMEOUT: Duration = Duration::from_secs(45);
const HEARTBEAT: Duration = Duration::from_secs(3);

impl Reading<'_> {
    /// Reads as a member until it is enough. Goes to the coordinator on a connection of its own, so that a long fetch does
    /// not stand in a heartbeat's way.
    pub(super) fn in_group(&mut self, group: &str, client: &mut Client) -> Result<(), Failed> {
        let args = self.args;
        let mut coordinator = args.server.connect()?;
        // Where the brokers are, for whoever the coordinator is; and that there is such a topic.
        coordinator.topic(&args.topic, Absent::Leave)?;
        let about = About {
            group: group.to_string(),
            topic: args.topic.clone(),
            session_timeout: SESSION_TIMEOUT,
            heartbeat: HEARTBEAT,
            timeout: args.server.timeout,
        };
        let mut member = Member::new(about, &mut coordinator)?;
        let result = self.turns(&mut member, &mut coordinator, client);
        // The group does without a goodbye, only later.
        let _ = member.leave(&mut coordinator);
        result
    }

    fn turns(
        &mut self,
        member: &mut Member,
        coordinator: &mut Client,
        client: &mut Client,
    ) -> Result<(), Failed> {
        loop {
            let own = member.join(coordinator)?;
            if own.is_empty() {
                self.wait_for_partitions(member, coordinator);
            } else {
                self.turn(&own, member, coordinator, client)?;
            }
            if !member.has_to_rejoin() {
                return Ok(());
            }
        }
    }

    /// More members than partitions: this one waits for its turn.
    fn wait_for_partitions(&self, member: &mut Member, coordinator: &mut Client) {
        if !self.args.quiet {
            remark("the group has more members than partitions: this one waits until another leaves");
        }
        while !self.stop.load(Ordering::Relaxed) && member.stays(coordinator) {
            std::thread::sleep(PAUSE);
        }
    }

    /// Reads these partitions until the group deals again, or to the end.
    fn turn(
        &mut self,
        own: &[i32],
        member: &mut Member,
        coordinator: &mut Client,
        client: &mut Client,
    ) -> Result<(), Failed> {
        let args = self.args;
        let committed = member.committed(coordinator, own)?;
        let mut consumer = Consumer::new(client, &args.topic, Some(own), args.from)?;
        for (partition, offset) in committed {
            consumer.seek(partition, offset);
        }
        if args.exit_at_end {
            consumer.stop_at_end();
        }
        let mut last_commit = Instant::now();
        let read = loop {
            if self.is_over(&consumer) || !member.stays(coordinator) {
                break Ok(());
            }
            match self.step(&mut consumer) {
                Ok(flow) if flow.is_break() => break Ok(()),
                Ok(_) => {}
                Err(error) => break Err(error),
            }
            if last_commit.elapsed() > COMMIT_EVERY {
                last_commit = Instant::now();
                commit(member, coordinator, &consumer);
            }
        };
        // Not where reading failed: what came last may not have been written.
        if read.is_ok() {
            commit(member, coordinator, &consumer);
        }
        read
    }
}

/// The next commit says the same and more; where the group has dealt again meanwhile, others read it once more.
fn commit(member: &Member, coordinator: &mut Client, consumer: &Consumer<'_>) {
    let positions: Vec<(i32, i64)> = consumer.positions().collect();
    if let Err(error) = member.commit(coordinator, &positions) {
        remark(&format!("offsets were not committed: {error}"));
    }
}
