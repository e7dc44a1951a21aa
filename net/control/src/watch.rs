//! What control counts of itself and of the groups it coordinates, for the admin port.
//!
//! Taken in one step of the loop, so it is bounded: of committed offsets only the first [`OFFSETS_MAX`] are shown.

use crate::control::Control;
use ringmill_core::metrics::Histogram;
use ringmill_types::CoreId;
use ringmill_types::limits::MAILBOX_SLOTS;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Committed offsets in one scrape: copying them takes a few milliseconds of the loop.
const OFFSETS_MAX: usize = 20_000;

/// Counted as it happens. Owned by control.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counts {
    /// One message of a core, handled to its end.
    step_us: Histogram,
    /// From an OffsetCommit to its answer.
    commit_us: Histogram,
}

impl Counts {
    pub fn step(&mut self, took: Duration) {
        self.step_us.record(took.as_micros() as u64);
    }

    pub fn commit(&mut self, took: Duration) {
        self.commit_us.record(took.as_micros() as u64);
    }
}

/// Numbers of control at one time.
#[derive(Clone, Debug, Default)]
pub struct ControlMetrics {
    pub step_us: Histogram,
    pub commit_us: Histogram,
    pub rebalances: u64,
    /// Groups by state and protocol, as ListGroups names them. Empty while groups are being read.
    pub groups: BTreeMap<(&'static str, &'static str), u64>,
    pub committed: Vec<Committed>,
    /// Committed offsets that are not among them.
    pub committed_left_out: u64,
    pub mailboxes: Vec<Mailboxes>,
}

/// One committed offset.
#[derive(Clone, Debug)]
pub struct Committed {
    pub group: Arc<str>,
    pub topic: Arc<str>,
    pub partition: i32,
    pub offset: i64,
}

/// Messages between control and one core that nobody took up yet.
#[derive(Clone, Debug)]
pub struct Mailboxes {
    pub core: CoreId,
    pub to_control: u64,
    pub to_core: u64,
}

impl Control {
    pub(crate) fn numbers(&self) -> ControlMetrics {
        let mut out = ControlMetrics {
            step_us: self.counts.step_us.clone(),
            commit_us: self.counts.commit_us.clone(),
            mailboxes: self.mailboxes(),
            ..ControlMetrics::default()
        };
        let Ok(groups) = self.groups.groups() else { return out };
        out.rebalances = groups.rebalances();
        for group in groups.list() {
            *out.groups.entry((group.state, group.protocol.name())).or_default() += 1;
        }
        let every = groups.committed().map(|(group, topic, partition, offset)| Committed {
            group: group.clone(),
            topic: topic.clone(),
            partition,
            offset,
        });
        out.committed = every.take(OFFSETS_MAX).collect();
        if out.committed.len() == OFFSETS_MAX {
            out.committed_left_out = (groups.committed().count() - OFFSETS_MAX) as u64;
        }
        out
    }

    fn mailboxes(&self) -> Vec<Mailboxes> {
        let pairs = self.links.iter().zip(&self.backlog);
        let depths = pairs.map(|(link, backlog)| Mailboxes {
            core: link.core,
            to_control: link.from_core.slots() as u64,
            to_core: (MAILBOX_SLOTS.saturating_sub(link.to_core.slots()) + backlog.len()) as u64,
        });
        depths.collect()
    }
}
