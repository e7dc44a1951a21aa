//! A consumer group that reads for a measurement; its members are those of [`crate::member`].
//!
//! Each member is a thread with a coordinator connection of its own. While it reads, heartbeats go out between two turns
//! of its ring; a rebalance ends the reading, commits, and joins again.

use super::cluster::{self, Place};
use super::consume::{Reading, sources};
use crate::exit::{Code, Failed};
use crate::member::{About, COMMIT_EVERY, Member, PAUSE};
use crate::server::Server;
use ringmill_client::client::Absent;
use ringmill_load::{ConsumePlan, Consumed, LoadError, Source};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What all members have in common.
pub struct Group<'a> {
    pub id: String,
    pub server: Server,
    pub topic: String,
    pub members: usize,
    pub session_timeout: Duration,
    pub heartbeat: Duration,
    /// No record for any member for this long ends the run.
    pub quiet: Duration,
    /// [`ringmill_client::admin::EARLIEST`] or `LATEST`, where nothing was committed.
    pub reset: i64,
    pub stop: &'a AtomicBool,
}

/// What the members tell each other.
struct Shared {
    /// Records of all.
    total: Arc<AtomicU64>,
    /// One of them failed, or there is nothing more to read.
    end: AtomicBool,
}

/// Reads with all members until `plan.records` were read. The plan's consumers are ignored: the group deals.
pub fn read(group: &Group<'_>, plan: &ConsumePlan, show: &(dyn Fn(u64) + Sync)) -> Result<Reading, Failed> {
    let shared = Shared { total: Arc::new(AtomicU64::new(0)), end: AtomicBool::new(false) };
    let began = Instant::now();
    let results: Vec<Result<Reading, Failed>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..group.members)
            .map(|number| {
                let shared = &shared;
                scope.spawn(move || {
                    let result = member(group, plan, shared, if number == 0 { Some(show) } else { None });
                    if result.as_ref().is_ok_and(|reading| reading.result.is_ok()) {
                        return result;
                    }
                    shared.end.store(true, Ordering::Relaxed);
                    result
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| {
                thread.join().unwrap_or_else(|_| Err(Failed::new(Code::Local, "a member ended by itself")))
            })
            .collect()
    });
    let mut whole =
        Reading { consumed: Consumed::default(), joining: Duration::ZERO, rebalances: 0, result: Ok(()) };
    for result in results {
        whole.add(result?);
    }
    whole.consumed.elapsed = began.elapsed().saturating_sub(whole.joining);
    Ok(whole)
}

fn member(
    group: &Group<'_>,
    plan: &ConsumePlan,
    shared: &Shared,
    show: Option<&(dyn Fn(u64) + Sync)>,
) -> Result<Reading, Failed> {
    let mut place = cluster::find(&group.server, &group.topic, Absent::Leave)?;
    let about = About {
        group: group.id.clone(),
        topic: group.topic.clone(),
        session_timeout: group.session_timeout,
        heartbeat: group.heartbeat,
        timeout: group.server.timeout,
    };
    let mut reader = Reader { group, member: Member::new(about, &mut place.client)? };
    let mut reading =
        Reading { consumed: Consumed::default(), joining: Duration::ZERO, rebalances: 0, result: Ok(()) };
    let mut quiet = Quiet { limit: group.quiet, seen: 0, since: Instant::now() };
    loop {
        let began = Instant::now();
        let partitions = reader.member.join(&mut place.client)?;
        let own = reader.positions(&mut place, &partitions)?;
        reading.joining += began.elapsed();
        reading.rebalances += 1;
        quiet.since = Instant::now();
        let (consumed, result) = reader.consume(&mut place.client, plan, own, shared, &mut quiet, show);
        // What was read is committed even if reading failed: it was counted.
        let _ = reader.member.commit(&mut place.client, &consumed.positions);
        let part = Reading { consumed, joining: Duration::ZERO, rebalances: 0, result };
        reading.add(part);
        if !reader.member.has_to_rejoin() || reading.result.is_err() || reader.is_over(plan, shared) {
            break;
        }
    }
    // The group does without a goodbye, only later.
    let _ = reader.member.leave(&mut place.client);
    if reading.result.is_ok() && quiet.is_over() {
        reading.result = Err(LoadError::NoRecords(group.quiet));
    }
    Ok(reading)
}

/// For how long nobody read anything.
struct Quiet {
    limit: Duration,
    seen: u64,
    since: Instant,
}

impl Quiet {
    fn look(&mut self, total: u64) -> bool {
        if total != self.seen {
            (self.seen, self.since) = (total, Instant::now());
        }
        self.is_over()
    }

    fn is_over(&self) -> bool {
        self.since.elapsed() > self.limit
    }
}

/// A member that reads for a measurement.
struct Reader<'a> {
    group: &'a Group<'a>,
    member: Member,
}

impl Reader<'_> {
    /// Where reading of these begins: what was committed, or where the policy says.
    fn positions(&self, place: &mut Place, partitions: &[i32]) -> Result<Vec<Source>, Failed> {
        if partitions.is_empty() {
            return Ok(Vec::new());
        }
        let committed = self.member.committed(&mut place.client, partitions)?;
        let mut own = sources(place, self.group.reset)?;
        own.retain(|source| partitions.contains(&source.partition));
        for source in &mut own {
            if let Some(offset) = committed.get(&source.partition) {
                source.offset = *offset;
            }
        }
        Ok(own)
    }

    fn is_over(&self, plan: &ConsumePlan, shared: &Shared) -> bool {
        let total = shared.total.load(Ordering::Relaxed);
        plan.records.is_some_and(|wanted| total >= wanted)
            || shared.end.load(Ordering::Relaxed)
            || self.group.stop.load(Ordering::Relaxed)
    }

    /// Reads until the end, or until the group deals again.
    fn consume(
        &mut self,
        client: &mut ringmill_client::Client,
        plan: &ConsumePlan,
        own: Vec<Source>,
        shared: &Shared,
        quiet: &mut Quiet,
        show: Option<&(dyn Fn(u64) + Sync)>,
    ) -> (Consumed, Result<(), LoadError>) {
        let mut last_commit = Instant::now();
        let mut watch = |so_far: Option<&Consumed>| {
            let total = shared.total.load(Ordering::Relaxed);
            if let Some(show) = show {
                show(total);
            }
            if last_commit.elapsed() > COMMIT_EVERY {
                last_commit = Instant::now();
                if let Some(so_far) = so_far {
                    let _ = self.member.commit(client, &so_far.positions);
                }
            }
            if self.is_over(plan, shared) || quiet.look(total) || !self.member.stays(client) {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        };
        if own.is_empty() {
            // More members than partitions: this one waits for its turn.
            while watch(None).is_continue() {
                std::thread::sleep(PAUSE);
            }
            return (Consumed::default(), Ok(()));
        }
        let plan =
            ConsumePlan { consumers: vec![own], total: Some(Arc::clone(&shared.total)), ..plan.clone() };
        ringmill_load::consume(&plan, &mut |so_far| watch(Some(so_far)))
    }
}
