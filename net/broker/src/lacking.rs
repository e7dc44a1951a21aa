//! Decisions that the metadata journal lacks although cores know of them: cut off by hand, or given up by a repair.
//!
//! The ids of such partitions would be given out anew, and records of one partition taken for those of another; and what a
//! checkpoint names and the journal does not would be removed like what a deleted topic left. So a start is refused, and a
//! repair decides again what the cores still know.

use crate::exit::{Failure, Reason};
use crate::identity::Generation;
use crate::missing;
use ringmill_control::groups::{GroupSettings, OFFSETS_TOPIC, offsets_configs};
use ringmill_log::adopt::{self, FoundTopic};
use ringmill_log::format::checkpoint;
use ringmill_log::inspect::{InspectError, Unaccounted, unaccounted};
use ringmill_metadata::records::Configs;
use ringmill_metadata::{Image, PartitionRecord, Record};
use ringmill_reactor::Fs;
use ringmill_types::limits::PARTITIONS_MAX;
use ringmill_types::{CoreId, LeaderEpoch, PartitionId, TopicId};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What the cores know and a journal up to `next_partition` does not account for. While a change of cores is under way the
/// old cores' logs are not needed any more, and may be half gone.
///
/// # Errors
/// [`InspectError::Io`].
pub fn look(
    fs: &dyn Fs,
    data: &Path,
    generation: &Generation,
    next_partition: u64,
) -> Result<Vec<Unaccounted>, InspectError> {
    let mut all = Vec::new();
    for core in (0..generation.cores).filter(|_| !generation.drained) {
        all.extend(unaccounted(fs, &generation.core_dir(data, core), next_partition)?);
    }
    Ok(all)
}

/// Refuses a journal that lacks decisions.
///
/// # Errors
/// [`Reason::DataDamaged`]; [`Reason::DataUnusable`] when a core log cannot be read.
pub fn check(fs: &dyn Fs, data: &Path, generation: &Generation, image: &Image) -> Result<(), Failure> {
    let known = look(fs, data, generation, image.next_partition())
        .map_err(|error| Failure::new(Reason::DataUnusable, format!("{error}.")))?;
    known.first().map_or(Ok(()), |known| Err(refusal(data, known)))
}

/// What a start would be refused for, if it is. A damaged journal is told as that, and what it accounted for is not known.
pub fn told(fs: &dyn Fs, data: &Path, generation: &Generation) -> Option<Failure> {
    let (before, whole) = missing::readable(fs, data);
    let known = look(fs, data, generation, before.next_partition()).ok().filter(|_| whole)?;
    // A broker that runs goes on deciding while it is looked at, and the journal has it before a core does.
    let now = if known.is_empty() { before } else { missing::readable(fs, data).0 };
    known.iter().find(|known| known.id >= now.next_partition()).map(|known| refusal(data, known))
}

fn refusal(data: &Path, known: &Unaccounted) -> Failure {
    Failure::new(Reason::DataDamaged, format!("{}.", known.sentence(data)))
}

/// Decides again what the cores know: topics and partitions get the ids, and the cores, that they had. Gives what is lost
/// for all that, in words.
///
/// # Errors
/// Partition folders that cannot be read, or contradict each other.
pub fn recall(
    fs: &dyn Fs,
    data: &Path,
    known: &[Unaccounted],
    cores: u16,
    image: &mut Image,
) -> Result<Vec<String>, adopt::AdoptError> {
    // No id that a core knows is ever given to another partition.
    let next = known.iter().map(|known| known.id.saturating_add(1)).max().unwrap_or(0);
    image.apply(&Record::PartitionIds { next });
    let dir = data.join("topics");
    let folders = if fs.exists(&dir) { adopt::find_folders(fs, &dir)? } else { Vec::new() };
    let folders = adopt::group_topics(&folders)?;
    let mut losses = Vec::new();
    let mut topics: BTreeMap<TopicId, Vec<&Unaccounted>> = BTreeMap::new();
    for known in known {
        match &known.state {
            Some(state) => topics.entry(TopicId(state.topic_id)).or_default().push(known),
            None => losses.push(format!(
                "what {} has of the partition of id {}: no checkpoint says which one that is",
                known.core_dir.display(),
                known.id
            )),
        }
    }
    for (id, known) in topics {
        losses.extend(recall_topic(id, &known, &folders, cores, image));
    }
    Ok(losses)
}

/// How many ids of producers a repaired journal skips: more than it can lack.
const PRODUCER_IDS_SKIPPED: i64 = 1 << 32;

/// From here on ids were made up by clients, who may send any: no broker gets that far.
const PRODUCER_IDS_END: i64 = i64::MAX / 2;

/// Where a journal may lack which ids of producers were given out, new ones begin far above those that it or a checkpoint
/// in `core_dirs` knows. With an id of before, a producer's first records could be taken for some that are stored, and
/// acknowledged without being stored. Gives the first new id.
pub fn skip_producer_ids(fs: &dyn Fs, core_dirs: &[PathBuf], image: &mut Image) -> i64 {
    // A checkpoint that cannot be read is told elsewhere.
    let checkpoints = core_dirs.iter().filter_map(|dir| checkpoint::read_newest(fs, dir).ok()?);
    let partitions = checkpoints.flat_map(|checkpoint| checkpoint.partitions);
    let ids = partitions.flat_map(|state| state.producers).map(|producer| producer.id);
    let newest = ids.filter(|id| *id < PRODUCER_IDS_END).max().unwrap_or(0);
    let next = image.next_producer().max(newest).saturating_add(PRODUCER_IDS_SKIPPED);
    image.apply(&Record::ProducerIds { next });
    next
}

/// One topic, or those of its partitions that the journal lacks.
fn recall_topic(
    id: TopicId,
    known: &[&Unaccounted],
    folders: &[FoundTopic],
    cores: u16,
    image: &mut Image,
) -> Option<String> {
    let mut by_index = BTreeMap::new();
    for known in known {
        let state = known.state.as_ref()?;
        let index = usize::try_from(state.index).ok().filter(|index| *index < PARTITIONS_MAX)?;
        let epoch = LeaderEpoch(state.epochs.last().map_or(0, |(epoch, _)| *epoch));
        by_index
            .insert(index, PartitionRecord { id: PartitionId(known.id), core: CoreId(known.core), epoch });
    }
    // Known to be deleted: only its ids were to be accounted for.
    if image.is_deleted(id) {
        return None;
    }
    let name = known.first()?.state.as_ref()?.topic.clone();
    let has = image.with_id(id).map(|topic| topic.partitions.len());
    let found = folders.iter().find(|topic| topic.name == name && topic.id == Some(id));
    let of_folders = found.and_then(|topic| usize::try_from(topic.partitions).ok());
    let end = by_index.last_key_value().map_or(0, |(index, _)| index + 1).max(of_folders.unwrap_or(0));
    let wanted = has.unwrap_or(0)..end;
    // A core that has no checkpoint with them yet has no records of theirs either, or they were told apart above.
    let fresh = wanted.clone().filter(|index| !by_index.contains_key(index)).count();
    let mut fresh = image.place(fresh, cores).into_iter().zip(image.next_partition()..);
    let partitions = wanted.filter_map(|index| {
        by_index.get(&index).copied().or_else(|| {
            fresh.next().map(|(core, id)| PartitionRecord {
                id: PartitionId(id),
                core,
                epoch: LeaderEpoch(0),
            })
        })
    });
    let partitions = partitions.collect();
    if has.is_some() {
        image.apply(&Record::PartitionsAdded { id, partitions });
        return None;
    }
    // Two of a name are never there at once: the one that the journal knows was deleted in between.
    if let Some(before) = image.named(&name).map(|before| before.id) {
        image.apply(&Record::TopicDeleted { id: before });
    }
    let (configs, are) = recalled_configs(&name);
    let lost = format!("the settings of topic {name}, whose partitions and records stay: they are {are}");
    image.apply(&Record::TopicCreated { name, id, created_ms: 0, configs, partitions });
    Some(lost)
}

/// Settings of a topic whose own are lost, and what they are. A topic that was compacted, or kept for ever, must not lose
/// its old records to the defaults before somebody can say again what it is.
fn recalled_configs(name: &str) -> (Configs, &'static str) {
    if name == OFFSETS_TOPIC {
        return (offsets_configs(GroupSettings::default().segment_bytes), "as when it is made");
    }
    let forever = ["retention.ms", "retention.bytes"].map(|key| (key.to_string(), "-1".to_string()));
    (
        Configs::from(forever),
        "the defaults again, but retention.ms and retention.bytes are -1: nothing is deleted until you set them",
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use ringmill_log::format::checkpoint::PartitionState;
    use ringmill_reactor::stdfs::StdFs;

    fn state(topic: &str, topic_id: u8, index: i32) -> PartitionState {
        PartitionState { topic: topic.into(), topic_id: [topic_id; 16], index, ..PartitionState::default() }
    }

    fn known(id: u64, core: u16, state: Option<PartitionState>) -> Unaccounted {
        let state = state.map(|state| PartitionState { id, ..state });
        Unaccounted { id, core, core_dir: format!("core-{core}").into(), state }
    }

    fn created(name: &str, topic_id: u8, ids: &[u64]) -> Record {
        let placed =
            |id: &u64| PartitionRecord { id: PartitionId(*id), core: CoreId(0), epoch: LeaderEpoch(0) };
        Record::TopicCreated {
            name: name.into(),
            id: TopicId([topic_id; 16]),
            created_ms: 0,
            configs: Configs::new(),
            partitions: ids.iter().map(placed).collect(),
        }
    }

    fn placed(image: &Image, name: &str) -> Vec<(u64, u16)> {
        image.named(name).unwrap().partitions.iter().map(|p| (p.id.0, p.core.0)).collect()
    }

    #[test]
    fn what_cores_know_is_decided_again_with_the_ids_it_had() {
        let data = tempfile::tempdir().unwrap();
        for folder in ["zeta-0", "zeta-1", "zeta-2"] {
            let dir = data.path().join("topics").join(folder);
            std::fs::create_dir_all(&dir).unwrap();
            let id = adopt::partition_metadata_text(TopicId([2; 16]));
            std::fs::write(dir.join(adopt::METADATA_NAME), id).unwrap();
        }
        let mut image = Image::new();
        image.apply(&created("old", 1, &[1, 2]));
        image.apply(&created("alpha", 9, &[3]));
        let known = [
            // Of zeta's three partitions one core had no checkpoint yet.
            known(6, 1, Some(state("zeta", 2, 0))),
            known(8, 0, Some(state("zeta", 2, 2))),
            // Made in place of a topic whose deletion is gone, too.
            known(5, 0, Some(state("alpha", 3, 0))),
            // A partition that was added.
            known(4, 1, Some(state("old", 1, 2))),
            known(11, 1, None),
        ];
        let losses = recall(&StdFs, data.path(), &known, 2, &mut image).unwrap();
        assert_eq!(placed(&image, "old"), [(1, 0), (2, 0), (4, 1)]);
        assert_eq!(placed(&image, "alpha"), [(5, 0)]);
        assert!(image.named("alpha").unwrap().id == TopicId([3; 16]) && image.is_deleted(TopicId([9; 16])));
        let zeta = placed(&image, "zeta");
        assert_eq!((zeta[0], zeta[2]), ((6, 1), (8, 0)));
        assert!(zeta[1].0 > 11, "an id that no core knows: {zeta:?}");
        assert_eq!(losses.len(), 3, "{losses:?}");
        assert!(
            losses[0].contains("id 11") && losses.iter().any(|lost| lost.contains("settings of topic zeta"))
        );
        assert!(image.next_partition() > zeta[1].0);
    }

    /// A start would remove old segments before anybody could say again that they are to stay.
    #[test]
    fn nothing_of_a_recalled_topic_goes_before_its_settings_are_back() {
        let data = tempfile::tempdir().unwrap();
        let mut image = Image::new();
        let known =
            [known(1, 0, Some(state("keyed", 1, 0))), known(2, 0, Some(state("__consumer_offsets", 2, 0)))];
        let losses = recall(&StdFs, data.path(), &known, 1, &mut image).unwrap();
        let setting = |topic: &str, name: &str| image.named(topic).unwrap().configs.get(name).cloned();
        assert_eq!(setting("keyed", "retention.ms").as_deref(), Some("-1"));
        assert_eq!(setting("keyed", "retention.bytes").as_deref(), Some("-1"));
        assert_eq!(setting("__consumer_offsets", "cleanup.policy").as_deref(), Some("compact"));
        assert!(losses[0].contains("retention.ms") && losses[1].contains("as when it is made"), "{losses:?}");
    }
}
