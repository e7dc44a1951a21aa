//! Decisions that the metadata journal lacks although cores know of them: cut off by hand, given up by a repair, or not in
//! the older journal that was put back.
//!
//! The ids of partitions that it lacks would be given out anew, and records of one partition taken for those of another.
//! Partitions that it places where they were before a change of cores would begin there with what their segments say, while
//! the cores that have them hold acknowledged records of theirs. So a start is refused before any core runs, and a repair
//! decides again what the cores still know.

use crate::exit::{Failure, Reason};
use crate::generation;
use crate::identity::Generation;
use crate::missing;
use ringmill_control::groups::{GroupSettings, OFFSETS_TOPIC, offsets_configs};
use ringmill_log::adopt::{self, FoundTopic};
use ringmill_log::format::checkpoint::{self, HANDED_ON_NAME, PartitionState};
use ringmill_log::inspect::{
    Against, Contradiction, CoreKnows, Decisions, Depth, InspectError, Known, refusal,
};
use ringmill_metadata::records::Configs;
use ringmill_metadata::{Image, PartitionRecord, Record};
use ringmill_reactor::Fs;
use ringmill_types::limits::PARTITIONS_MAX;
use ringmill_types::{CoreId, LeaderEpoch, PartitionId, TopicId};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::{Path, PathBuf};

/// What contradicts a journal.
#[derive(Debug, Default)]
pub struct Found {
    /// What cores know, or hand on.
    pub known: Vec<Contradiction>,
    /// Partitions that no core has where the journal places them.
    pub astray: Vec<Astray>,
}

/// A partition that the journal places where it cannot be: on a core that is not there, or that has its first checkpoint
/// after a change of cores and does not have what the cores before handed on.
#[derive(Debug)]
pub struct Astray {
    pub id: u64,
    pub name: String,
    pub core: CoreId,
}

impl Found {
    pub fn is_empty(&self) -> bool {
        self.known.is_empty() && self.astray.is_empty()
    }

    /// What a start says of the first of it that `decisions` contradict.
    fn refusal(&self, data: &Path, decisions: &Decisions) -> Option<Failure> {
        let known = self.known.iter().find(|known| known.holds(decisions)).map(|known| known.sentence(data));
        let astray = || self.astray.iter().find(|astray| decisions.owner(astray.id) == Some(astray.core));
        let sentence = known.or_else(|| astray().map(|astray| astray.sentence(data)))?;
        Some(Failure::new(Reason::DataDamaged, format!("{sentence}.")))
    }
}

impl Astray {
    fn sentence(&self, data: &Path) -> String {
        let Astray { name, core, .. } = self;
        let what = format!("places partitions where they are not: {name} on core {core}, which never had it");
        refusal(data, &what, "places such partitions anew")
    }
}

fn decisions(image: &Image) -> Decisions {
    Decisions::new(
        image.next_partition(),
        placed(image).map(|(_, _, partition)| (partition.id, partition.core)),
    )
}

/// All partitions: topic, index, and what is decided of them.
fn placed(image: &Image) -> impl Iterator<Item = (&str, usize, &PartitionRecord)> {
    image.topics().flat_map(|topic| {
        topic.partitions.iter().enumerate().map(|(index, partition)| (topic.name.as_ref(), index, partition))
    })
}

/// What the cores know and the journal contradicts. While a change of cores is under way, and the old cores' logs are not
/// needed any more and may be half gone, what they handed on is looked at.
///
/// # Errors
/// [`InspectError::Io`].
pub fn look(
    fs: &dyn Fs,
    data: &Path,
    generation: &Generation,
    image: &Image,
    depth: Depth,
) -> Result<Found, InspectError> {
    let decisions = decisions(image);
    let mut found = Found::default();
    let handed_on = generation::under_way(generation, data, fs);
    // Cores that have a checkpoint, and what the checkpoints name.
    let (mut begun, mut named) = (BTreeSet::new(), HashSet::new());
    for core in (0..generation.cores).filter(|_| !generation.drained) {
        let Some(knows) = CoreKnows::look(fs, &generation.core_dir(data, core), depth)? else { continue };
        begun.insert(core);
        named.extend(knows.states.iter().map(|state| state.id).filter(|_| handed_on.is_some()));
        found.known.extend(knows.contradictions(&decisions));
    }
    // Its first checkpoint will have what is handed on to it.
    let heir = spare_core(generation, &begun).unwrap_or(CoreId(0));
    let place = data.join(HANDED_ON_NAME);
    let mut lost = HashSet::new();
    for state in handed_on.iter().flatten().filter(|state| !named.contains(&state.id)) {
        let known = Known { id: state.id, place: &place, state: Some(state), is_deleted: false };
        let contradiction = decisions.contradict(heir.0, known);
        found.known.extend(contradiction.filter(|known| known.against == Against::NeverGiven));
        lost.insert(state.id);
    }
    let is_astray = |partition: &PartitionRecord| {
        let core = partition.core.0;
        !generation.drained
            && (core >= generation.cores || begun.contains(&core) && lost.contains(&partition.id.0))
    };
    // Where a core knows it, that is told.
    let told: HashSet<u64> = found.known.iter().map(|known| known.id).collect();
    let astray =
        placed(image).filter(|(_, _, partition)| is_astray(partition) && !told.contains(&partition.id.0));
    let astray = astray.map(|(topic, index, partition)| Astray {
        id: partition.id.0,
        name: format!("{topic}-{index}"),
        core: partition.core,
    });
    found.astray.extend(astray);
    Ok(found)
}

/// A core that has no checkpoint yet, to which what is handed on can go.
fn spare_core(generation: &Generation, begun: &BTreeSet<u16>) -> Option<CoreId> {
    (0..generation.cores).find(|core| !begun.contains(core)).map(CoreId)
}

/// Refuses a journal that lacks decisions.
///
/// # Errors
/// [`Reason::DataDamaged`]; [`Reason::DataUnusable`] when a core log cannot be read.
pub fn check(
    fs: &dyn Fs,
    data: &Path,
    generation: &Generation,
    image: &Image,
    depth: Depth,
) -> Result<(), Failure> {
    let found = look(fs, data, generation, image, depth)
        .map_err(|error| Failure::new(Reason::DataUnusable, format!("{error}.")))?;
    if found.is_empty() {
        return Ok(());
    }
    found.refusal(data, &decisions(image)).map_or(Ok(()), Err)
}

/// What a start would be refused for, if it is. A damaged journal is told as that, and what it accounted for is not known.
pub fn told(fs: &dyn Fs, data: &Path, generation: &Generation) -> Option<Failure> {
    let (before, whole) = missing::readable(fs, data);
    let found = look(fs, data, generation, &before, Depth::Log).ok().filter(|_| whole)?;
    // A broker that runs goes on deciding while it is looked at, and the journal has it before a core does.
    let now = if found.is_empty() { before } else { missing::readable(fs, data).0 };
    found.refusal(data, &decisions(&now))
}

/// What the journal decided; `None` where not all of it can be read.
pub fn decided(fs: &dyn Fs, data: &Path) -> Option<Decisions> {
    let (image, whole) = missing::readable(fs, data);
    whole.then(|| decisions(&image))
}

/// What a repair decided again, beside what is in the image.
#[derive(Debug, Default)]
pub struct Recalled {
    /// What is lost for all that, in words.
    pub losses: Vec<String>,
    /// Checkpoints that name a partition of which another core has more.
    pub forget: Vec<(PathBuf, PartitionId)>,
}

/// Decides again what the cores know: topics and partitions get the ids, and the cores, that they had.
///
/// # Errors
/// Partition folders or core logs that cannot be read, or folders that contradict each other, in words.
pub fn recall(
    fs: &dyn Fs,
    data: &Path,
    mut found: Found,
    generation: &Generation,
    image: &mut Image,
) -> Result<Recalled, String> {
    let mut recalled = Recalled::default();
    name_by_neighbours(&mut found.known, image);
    // No id that a core knows is ever given to another partition.
    let next = found.known.iter().map(|known| known.id.saturating_add(1)).max().unwrap_or(0);
    image.apply(&Record::PartitionIds { next });
    delete_again(&found.known, image);
    let dir = data.join("topics");
    let folders = if fs.exists(&dir) { adopt::find_folders(fs, &dir).map_err(words)? } else { Vec::new() };
    let folders = adopt::group_topics(&folders).map_err(words)?;
    let mut topics: BTreeMap<TopicId, Vec<&Contradiction>> = BTreeMap::new();
    let never_given =
        found.known.iter().filter(|known| known.against == Against::NeverGiven && !known.is_deleted);
    for known in never_given {
        match &known.state {
            Some(state) => topics.entry(TopicId(state.topic_id)).or_default().push(known),
            None => recalled.losses.push(format!(
                "what {} has of the partition of id {}: neither a checkpoint nor its neighbours say which one that is",
                known.place.display(),
                known.id
            )),
        }
    }
    for (id, known) in topics {
        recalled.losses.extend(recall_topic(id, &known, &folders, generation.cores, image));
    }
    place_again(fs, data, &found, generation, image, &mut recalled).map_err(words)?;
    Ok(recalled)
}

fn words(error: impl std::error::Error) -> String {
    error.to_string()
}

/// Says which partition it is that only a core log knows, where that is sure. Ids grow with the numbers of a topic's
/// partitions: where there are as many ids as numbers between two of a topic, all those ids are of its partitions.
fn name_by_neighbours(known: &mut [Contradiction], image: &Image) {
    let of_image = image.topics().flat_map(|topic| {
        topic.partitions.iter().zip(0..).map(|(partition, index)| {
            let epochs = vec![(partition.epoch.0, 0)];
            let (topic, topic_id) = (topic.name.to_string(), topic.id.0);
            let id = partition.id.0;
            PartitionState { id, topic, topic_id, index, epochs, ..PartitionState::default() }
        })
    });
    let of_cores = known.iter().filter_map(|known| known.state.as_ref()).map(|state| PartitionState {
        producers: Vec::new(),
        segments: Vec::new(),
        ..state.clone()
    });
    let named: BTreeMap<u64, PartitionState> =
        of_image.chain(of_cores).map(|state| (state.id, state)).collect();
    let taken: HashSet<([u8; 16], i32)> = named.values().map(|state| (state.topic_id, state.index)).collect();
    for known in known.iter_mut().filter(|known| known.state.is_none()) {
        let (below, above) = (named.range(..known.id).next_back(), named.range(known.id..).next());
        let (Some((first, below)), Some((last, above))) = (below, above) else { continue };
        let numbers = u64::try_from(i64::from(above.index) - i64::from(below.index));
        if below.topic_id == above.topic_id && numbers == Ok(last - first) {
            // No more than the numbers between the two.
            let index = below.index + (known.id - first) as i32;
            if !taken.contains(&(below.topic_id, index)) {
                known.state = Some(PartitionState { id: known.id, index, ..below.clone() });
            }
        }
    }
}

/// Topics of which a core deleted a partition are deleted, all of them.
fn delete_again(known: &[Contradiction], image: &mut Image) {
    for known in known.iter().filter(|known| known.is_deleted) {
        let of_image = || image.topics().find(|topic| topic.partitions.iter().any(|p| p.id.0 == known.id));
        let of_state = known.state.as_ref().map(|state| TopicId(state.topic_id));
        if let Some(id) = of_state.or_else(|| of_image().map(|topic| topic.id)) {
            image.apply(&Record::TopicDeleted { id });
        }
    }
}

/// Partitions that the image has on other cores than those that know them.
fn place_again(
    fs: &dyn Fs,
    data: &Path,
    found: &Found,
    generation: &Generation,
    image: &mut Image,
    recalled: &mut Recalled,
) -> Result<(), InspectError> {
    let elsewhere: BTreeSet<u64> = (found.known.iter())
        .filter(|known| matches!(known.against, Against::Elsewhere(_)))
        .map(|known| known.id)
        .collect();
    let mut cores = Vec::new();
    for core in (0..generation.cores).filter(|_| !elsewhere.is_empty() || !found.astray.is_empty()) {
        cores.extend(CoreKnows::look(fs, &generation.core_dir(data, core), Depth::Log)?);
    }
    let decided = decisions(image);
    let mut moves = Vec::new();
    for id in elsewhere {
        let Some(owner) = decided.owner(id) else { continue };
        // More than one names it where an old core log came back beside a newer one: whoever has most had it last.
        let rivals = cores.iter().filter_map(|core| Some((core.end_of(id)?, core.core == owner.0, core)));
        let mut rivals: Vec<_> = rivals.collect();
        rivals.sort_by_key(|(end, is_owner, _)| (*end, *is_owner));
        let Some((end, _, newest)) = rivals.pop() else { continue };
        moves.push((PartitionId(id), CoreId(newest.core)));
        for (older_end, _, older) in rivals {
            recalled.losses.push(format!(
                "what {} has of the partition of id {id}, up to offset {older_end}: {} has it up to {end}",
                older.dir.display(),
                newest.dir.display()
            ));
            recalled.forget.push((older.dir.clone(), PartitionId(id)));
        }
    }
    let begun = cores.iter().map(|core| core.core).collect();
    let spare = spare_core(generation, &begun);
    let anew = image.place(found.astray.len(), generation.cores);
    let astray = found.astray.iter().zip(anew);
    moves.extend(astray.map(|(astray, anew)| (PartitionId(astray.id), spare.unwrap_or(anew))));
    image.apply(&Record::Placed { moves });
    Ok(())
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
    known: &[&Contradiction],
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
    use ringmill_log::format::checkpoint::Checkpoint;
    use ringmill_reactor::stdfs::StdFs;

    fn state(topic: &str, topic_id: u8, index: i32) -> PartitionState {
        PartitionState { topic: topic.into(), topic_id: [topic_id; 16], index, ..PartitionState::default() }
    }

    fn known(id: u64, core: u16, state: Option<PartitionState>) -> Contradiction {
        let state = state.map(|state| PartitionState { id, ..state });
        let place = format!("core-{core}").into();
        Contradiction { id, core, place, state, is_deleted: false, against: Against::NeverGiven }
    }

    fn generation(cores: u16) -> Generation {
        Generation { number: 2, cores, log_dir: None, drained: false }
    }

    fn recalled(data: &Path, known: Vec<Contradiction>, image: &mut Image) -> Recalled {
        let found = Found { known, astray: Vec::new() };
        recall(&StdFs, data, found, &generation(2), image).unwrap()
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

    fn placed_in(image: &Image, name: &str) -> Vec<(u64, u16)> {
        image.named(name).unwrap().partitions.iter().map(|p| (p.id.0, p.core.0)).collect()
    }

    /// The checkpoint of a core that has these partitions of topic `t`, each up to an offset.
    fn checkpoint_of(data: &Path, core: u16, partitions: &[(u64, i64)]) -> PathBuf {
        let dir = data.join(format!("core-{core}"));
        std::fs::create_dir_all(&dir).unwrap();
        let sequence = checkpoint::read_newest(&StdFs, &dir).unwrap().map_or(1, |newest| newest.sequence + 1);
        let next = Checkpoint { sequence, core, partitions: of_t(partitions), ..Checkpoint::default() };
        checkpoint::write_slot(&StdFs, &dir, &next).unwrap();
        dir
    }

    fn of_t(partitions: &[(u64, i64)]) -> Vec<PartitionState> {
        let state = |(id, end): &(u64, i64)| PartitionState {
            id: *id,
            next_offset: *end,
            ..state("t", 1, *id as i32 - 1)
        };
        partitions.iter().map(state).collect()
    }

    fn found(data: &Path, generation: &Generation, image: &Image) -> Found {
        look(&StdFs, data, generation, image, Depth::Log).unwrap()
    }

    #[test]
    fn partitions_are_placed_where_cores_have_them() {
        let home = tempfile::tempdir().unwrap();
        let (data, generation) = (home.path(), generation(2));
        let mut image = Image::new();
        image.apply(&created("t", 1, &[1, 2, 3]));
        // An old core log came back beside a newer one: two have the third partition.
        let older = checkpoint_of(data, 0, &[(1, 5), (3, 4)]);
        checkpoint_of(data, 1, &[(2, 9), (3, 6)]);
        let told = check(&StdFs, data, &generation, &image, Depth::Checkpoint).unwrap_err();
        assert_eq!(told.reason, Reason::DataDamaged);
        assert!(told.detail.contains("core-1 knows t-1 by id 2, which"), "{told}");
        assert!(told.detail.contains("journal places on core 0."), "{told}");

        let recalled =
            recall(&StdFs, data, found(data, &generation, &image), &generation, &mut image).unwrap();
        assert_eq!(placed_in(&image, "t"), [(1, 0), (2, 1), (3, 1)]);
        assert_eq!(recalled.forget, [(older, PartitionId(3))]);
        assert!(recalled.losses[0].contains("up to offset 4") && recalled.losses.len() == 1, "{recalled:?}");
        checkpoint_of(data, 0, &[(1, 5)]);
        assert!(found(data, &generation, &image).is_empty());
        check(&StdFs, data, &generation, &image, Depth::Log).unwrap();
    }

    /// Core 0 has its first checkpoint after a change, core 1 does not have one yet.
    #[test]
    fn what_is_handed_on_is_missed_like_what_cores_have() {
        let home = tempfile::tempdir().unwrap();
        let (data, running) = (home.path(), generation(2));
        let mut image = Image::new();
        image.apply(&created("t", 1, &[1, 2]));
        checkpoint_of(data, 0, &[(1, 5)]);
        crate::generation::hand_on(data, 2, of_t(&[(1, 5), (2, 6), (3, 7)]), &StdFs).unwrap();
        let both = found(data, &running, &image);
        assert_eq!((both.known[0].id, both.known[0].against, both.known.len()), (3, Against::NeverGiven, 1));
        assert_eq!((both.astray[0].id, both.astray[0].name.as_str(), both.astray.len()), (2, "t-1", 1));
        let told = check(&StdFs, data, &running, &image, Depth::Checkpoint).unwrap_err();
        assert!(told.detail.contains("handed-on knows t-2 by id 3"), "{told}");
        recall(&StdFs, data, both, &running, &mut image).unwrap();
        assert_eq!(
            placed_in(&image, "t"),
            [(1, 0), (2, 1), (3, 1)],
            "to the core that can still inherit them"
        );
        assert!(found(data, &running, &image).is_empty());

        // Before the old cores' folders are gone, and whatever is left in them.
        let drained = Generation { number: 1, drained: true, ..running };
        let mut lacks = Image::new();
        lacks.apply(&created("t", 1, &[1, 2]));
        let known = found(data, &drained, &lacks).known;
        assert_eq!(known.iter().map(|known| known.id).collect::<Vec<_>>(), [3]);
        let stale = Generation { number: 2, ..drained };
        assert!(found(data, &stale, &lacks).is_empty(), "it is not of this change");
    }

    #[test]
    fn partitions_on_cores_that_are_not_there_are_placed_anew() {
        let home = tempfile::tempdir().unwrap();
        let (data, generation) = (home.path(), generation(2));
        let mut image = Image::new();
        image.apply(&created("t", 1, &[1, 2]));
        image.apply(&Record::Placed { moves: vec![(PartitionId(2), CoreId(3))] });
        checkpoint_of(data, 0, &[(1, 5)]);
        let told = check(&StdFs, data, &generation, &image, Depth::Checkpoint).unwrap_err();
        assert!(told.detail.contains("t-1 on core 3, which never had it"), "{told}");
        recall(&StdFs, data, found(data, &generation, &image), &generation, &mut image).unwrap();
        assert_eq!(placed_in(&image, "t"), [(1, 0), (2, 1)]);
    }

    #[test]
    fn a_topic_that_a_core_deleted_is_deleted_again() {
        let data = tempfile::tempdir().unwrap();
        let mut image = Image::new();
        image.apply(&created("t", 1, &[1, 2]));
        let deleted = |known: Contradiction, against| Contradiction { is_deleted: true, against, ..known };
        let known = vec![
            deleted(known(2, 1, None), Against::NotDeleted),
            // Made and deleted, and the journal lacks both.
            deleted(known(3, 0, Some(state("u", 2, 0))), Against::NeverGiven),
            known(4, 1, Some(state("u", 2, 1))),
        ];
        assert_eq!(recalled(data.path(), known, &mut image).losses, Vec::<String>::new());
        assert_eq!(image.topics().count(), 0);
        assert!(image.is_deleted(TopicId([1; 16])) && image.is_deleted(TopicId([2; 16])));
        assert_eq!(image.next_partition(), 5);
    }

    #[test]
    fn neighbours_tell_which_partition_a_core_log_knows() {
        let data = tempfile::tempdir().unwrap();
        let mut image = Image::new();
        image.apply(&created("old", 1, &[1, 2]));
        let known = vec![
            known(4, 0, Some(state("zeta", 2, 0))),
            known(5, 1, None),
            known(6, 0, None),
            known(7, 1, Some(state("zeta", 2, 3))),
            // More numbers than ids between the two: its second one is elsewhere.
            known(9, 0, Some(state("alpha", 3, 0))),
            known(10, 1, None),
            known(11, 0, Some(state("alpha", 3, 3))),
            // Of partitions that were added, between those that the journal has and those that cores know.
            known(12, 1, None),
            known(13, 0, Some(state("old", 1, 3))),
            known(14, 1, None),
        ];
        let losses = recalled(data.path(), known, &mut image).losses;
        assert_eq!(placed_in(&image, "zeta"), [(4, 0), (5, 1), (6, 0), (7, 1)]);
        assert!(!placed_in(&image, "alpha").contains(&(10, 1)));
        let lost = |id: u64| losses.iter().any(|lost| lost.contains(&format!("of id {id}:")));
        assert_eq!([5, 6, 10, 12, 14].map(lost), [false, false, true, true, true], "{losses:?}");
        let ids: BTreeSet<u64> = placed(&image).map(|(_, _, partition)| partition.id.0).collect();
        assert_eq!(ids.len(), placed(&image).count(), "no id is given twice");
    }

    #[test]
    fn partitions_that_were_added_are_told_by_those_before_them() {
        let data = tempfile::tempdir().unwrap();
        let mut image = Image::new();
        image.apply(&created("old", 1, &[1, 2]));
        recalled(data.path(), vec![known(3, 1, None), known(4, 0, Some(state("old", 1, 3)))], &mut image);
        assert_eq!(placed_in(&image, "old"), [(1, 0), (2, 0), (3, 1), (4, 0)]);
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
        let known = vec![
            // Of zeta's three partitions one core had no checkpoint yet.
            known(6, 1, Some(state("zeta", 2, 0))),
            known(8, 0, Some(state("zeta", 2, 2))),
            // Made in place of a topic whose deletion is gone, too.
            known(5, 0, Some(state("alpha", 3, 0))),
            // A partition that was added.
            known(4, 1, Some(state("old", 1, 2))),
            known(11, 1, None),
        ];
        let losses = recalled(data.path(), known, &mut image).losses;
        assert_eq!(placed_in(&image, "old"), [(1, 0), (2, 0), (4, 1)]);
        assert_eq!(placed_in(&image, "alpha"), [(5, 0)]);
        assert!(image.named("alpha").unwrap().id == TopicId([3; 16]) && image.is_deleted(TopicId([9; 16])));
        let zeta = placed_in(&image, "zeta");
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
        let known = vec![
            known(1, 0, Some(state("keyed", 1, 0))),
            known(2, 0, Some(state("__consumer_offsets", 2, 0))),
        ];
        let losses = recalled(data.path(), known, &mut image).losses;
        let setting = |topic: &str, name: &str| image.named(topic).unwrap().configs.get(name).cloned();
        assert_eq!(setting("keyed", "retention.ms").as_deref(), Some("-1"));
        assert_eq!(setting("keyed", "retention.bytes").as_deref(), Some("-1"));
        assert_eq!(setting("__consumer_offsets", "cleanup.policy").as_deref(), Some("compact"));
        assert!(losses[0].contains("retention.ms") && losses[1].contains("as when it is made"), "{losses:?}");
    }
}
