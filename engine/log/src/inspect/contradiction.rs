//! What a core knows of partitions and the metadata journal contradicts. A decision is in the journal before a core hears of
//! it, so somebody took decisions from it, or put an older journal back.
//!
//! Says what cores know. Whether it can be decided again is the matter of whoever reads the journal.

use super::chain::{ChainGroup, walk_chain};
use super::{InspectError, at, repair};
use crate::format::checkpoint::{self, CheckpointError, PartitionState};
use ringmill_reactor::Fs;
use ringmill_types::{CoreId, PartitionId};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

/// What a journal has decided of ids: below `next_partition_id` those of no partition belonged to deleted topics.
#[derive(Clone, Debug, Default)]
pub struct Decisions {
    next_partition_id: u64,
    owners: HashMap<u64, CoreId>,
}

/// How a journal contradicts what a core knows of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Against {
    /// It never gave out the id.
    NeverGiven,
    /// It has the partition, and that core deleted it.
    NotDeleted,
    /// It places the partition on this core, and the checkpoint of that one names it.
    Elsewhere(CoreId),
}

/// How far [`CoreKnows::look`] reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// The newest checkpoint. Quick.
    Checkpoint,
    /// The core log behind it, too.
    Log,
}

/// What a core's newest checkpoint says, and the groups behind it.
#[derive(Clone, Debug)]
pub struct CoreKnows {
    /// Whose checkpoint it is.
    pub core: u16,
    pub dir: PathBuf,
    pub states: Vec<PartitionState>,
    /// Partitions of entries in the core log.
    in_log: BTreeSet<u64>,
    /// Those that it deleted.
    deleted: BTreeSet<u64>,
    /// Where the batches of partitions in the core log end.
    ends: BTreeMap<u64, i64>,
}

/// What somebody knows of a partition.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    pub id: u64,
    /// What says it: the folder of a core, or a file.
    pub place: &'a Path,
    /// What the checkpoint says of it; without, nothing but entries in the core log are known.
    pub state: Option<&'a PartitionState>,
    /// The core log says that it was deleted.
    pub is_deleted: bool,
}

/// The same, where the journal contradicts it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contradiction {
    pub id: u64,
    /// Whose checkpoint it is.
    pub core: u16,
    pub place: PathBuf,
    pub state: Option<PartitionState>,
    pub is_deleted: bool,
    pub against: Against,
}

impl Decisions {
    pub fn new(next_partition_id: u64, placed: impl IntoIterator<Item = (PartitionId, CoreId)>) -> Decisions {
        let owners = placed.into_iter().map(|(id, core)| (id.0, core)).collect();
        Decisions { next_partition_id, owners }
    }

    /// Where the partition is, if it is one.
    pub fn owner(&self, id: u64) -> Option<CoreId> {
        self.owners.get(&id).copied()
    }

    /// What is decided against what `core` knows of a partition.
    pub fn contradict(&self, core: u16, known: Known<'_>) -> Option<Contradiction> {
        let Known { id, place, state, is_deleted } = known;
        let against = self.against(core, id, state.is_some(), is_deleted)?;
        Some(Contradiction {
            id,
            core,
            place: place.to_path_buf(),
            state: state.cloned(),
            is_deleted,
            against,
        })
    }

    /// An entry in a core log alone is no claim to a partition: when cores change, the first checkpoint of each names all
    /// that it got.
    fn against(&self, core: u16, id: u64, is_named: bool, is_deleted: bool) -> Option<Against> {
        if id >= self.next_partition_id {
            return Some(Against::NeverGiven);
        }
        let owner = self.owner(id)?;
        if is_deleted {
            return Some(Against::NotDeleted);
        }
        (is_named && owner.0 != core).then_some(Against::Elsewhere(owner))
    }
}

impl CoreKnows {
    /// Reads what a core left in its folder; `None` where it never was, or where no checkpoint can be read, which is told
    /// elsewhere.
    ///
    /// # Errors
    /// [`InspectError::Io`].
    pub fn look(fs: &dyn Fs, dir: &Path, depth: Depth) -> Result<Option<CoreKnows>, InspectError> {
        if !fs.exists(dir) {
            return Ok(None);
        }
        let newest = match checkpoint::read_newest(fs, dir) {
            Ok(Some(newest)) => newest,
            Err(CheckpointError::Io(error)) => return Err(at(dir)(error)),
            Ok(None) | Err(_) => return Ok(None),
        };
        let groups = match depth {
            Depth::Checkpoint => Vec::new(),
            Depth::Log => walk_chain(fs, dir, &newest).map_err(at(dir))?.groups,
        };
        let ids = |of: fn(&ChainGroup) -> &BTreeSet<PartitionId>| {
            groups.iter().flat_map(of).map(|id| id.0).collect()
        };
        let mut ends = BTreeMap::new();
        for (id, _, last) in groups.iter().flat_map(|group| &group.batches) {
            let end = ends.entry(id.0).or_insert(0);
            *end = last.saturating_add(1).max(*end);
        }
        Ok(Some(CoreKnows {
            core: newest.core,
            dir: dir.to_path_buf(),
            in_log: ids(|group| &group.named),
            deleted: ids(|group| &group.deleted),
            ends,
            states: newest.partitions,
        }))
    }

    pub fn names(&self, id: u64) -> bool {
        self.states.iter().any(|state| state.id == id)
    }

    /// How far a partition goes by what is known here; `None` where the checkpoint does not name it.
    pub fn end_of(&self, id: u64) -> Option<i64> {
        let state = self.states.iter().find(|state| state.id == id)?;
        Some(self.ends.get(&id).copied().unwrap_or(0).max(state.next_offset))
    }

    /// What the decisions contradict, those first that the checkpoint names.
    pub fn contradictions(&self, decisions: &Decisions) -> Vec<Contradiction> {
        let named: BTreeSet<u64> = self.states.iter().map(|state| state.id).collect();
        let states = self.states.iter().map(|state| (state.id, Some(state)));
        let others = self.in_log.difference(&named).map(|id| (*id, None));
        let found = states.chain(others).filter_map(|(id, state)| {
            let is_deleted = self.deleted.contains(&id);
            decisions.contradict(self.core, Known { id, place: &self.dir, state, is_deleted })
        });
        found.collect()
    }
}

impl Contradiction {
    /// Whether these decisions contradict it, too.
    pub fn holds(&self, decisions: &Decisions) -> bool {
        decisions.against(self.core, self.id, self.state.is_some(), self.is_deleted).is_some()
    }

    /// The sentence for it: the same from a start, from verify and from a core.
    pub fn sentence(&self, data_dir: &Path) -> String {
        let Contradiction { id, against, state, .. } = self;
        let place = self.place.display();
        let named = state.as_ref().map_or("a partition".to_string(), |s| format!("{}-{}", s.topic, s.index));
        let journal = data_dir.join("meta/journal");
        let journal = journal.display();
        let (what, way_on) = match against {
            Against::NeverGiven => (
                format!("lacks decisions: {place} knows {named} by id {id}, which {journal} never gave out"),
                "takes from the cores what they know of such topics",
            ),
            Against::NotDeleted => (
                format!(
                    "lacks decisions: by {place}, {named} of id {id} was deleted, and {journal} still has it"
                ),
                "deletes such topics again",
            ),
            Against::Elsewhere(owner) => (
                format!(
                    "places partitions where they are not: {place} knows {named} by id {id}, which {journal} places on core {owner}"
                ),
                "places such partitions where the cores know them",
            ),
        };
        refusal(data_dir, &what, way_on)
    }
}

/// The sentence for a journal of which `what` is wrong; a repair `does` something about it.
pub fn refusal(data_dir: &Path, what: &str, does: &str) -> String {
    format!(
        "the metadata journal {what}. Nothing was changed. Put the journal back from a copy made since the last change of \
         --cores, or run `{}`, which {does}",
        repair::command(data_dir, repair::Scope::CoreLogs)
    )
}
