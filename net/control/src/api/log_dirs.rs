//! DescribeLogDirs: what the cores say their partitions hold. AlterReplicaLogDirs: there is one folder.

use super::offsets::answer_or_log;
use super::{Call, Finish, Outcome, Refusal, code, message, text};
use crate::control::Control;
use kafka_wire::alter_replica_log_dirs_response::{
    AlterReplicaLogDirPartitionResult, AlterReplicaLogDirTopicResult,
};
use kafka_wire::describe_log_dirs_response::{
    DescribeLogDirsPartition, DescribeLogDirsResult, DescribeLogDirsTopic,
};
use kafka_wire::{
    AlterReplicaLogDirsRequest, AlterReplicaLogDirsResponse, DescribeLogDirsRequest, DescribeLogDirsResponse,
};
use ringmill_core::{CoreQuery, CoreReply};
use ringmill_reactor::Fs;
use ringmill_reactor::stdfs::StdFs;
use ringmill_types::{CoreId, ErrorCode, PartitionId};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};

pub(crate) fn describe_log_dirs(control: &mut Control, call: &Call<'_>) -> Result<Outcome, Refusal> {
    let request: DescribeLogDirsRequest = call.decode()?;
    call.few(request.topics.iter().flatten().map(|t| t.partitions.len()))?;
    let head = call.header.response_head();
    let mut wanted: Vec<(String, Vec<(i32, PartitionId)>)> = Vec::new();
    let named = request.topics.as_ref().map(|list| {
        let mut named: HashMap<&str, HashSet<i32>> = HashMap::new();
        for topic in list {
            named.entry(topic.topic.as_str()).or_default().extend(topic.partitions.iter().copied());
        }
        named
    });
    for topic in control.image.topics() {
        let listed = named.as_ref().map(|named| named.get(&*topic.name));
        if listed == Some(None) {
            continue;
        }
        let is_wanted = |index: &i32| listed.flatten().is_none_or(|list| list.contains(index));
        let partitions = topic.partitions.iter().zip(0..).filter(|(_, index)| is_wanted(index));
        let partitions: Vec<(i32, PartitionId)> = partitions.map(|(p, index)| (index, p.id)).collect();
        if !partitions.is_empty() {
            wanted.push((topic.name.to_string(), partitions));
        }
    }
    let dir = data_dir(control);
    let usable = StdFs.free_bytes(&dir).map_or(-1, |b| b as i64);
    let queries = (0..control.options.cores).map(|core| (CoreId(core), CoreQuery::Sizes)).collect();
    let version = call.version();
    let finish: Finish = Box::new(move |replies| {
        let mut sizes: HashMap<PartitionId, u64> = HashMap::new();
        for reply in replies.into_values() {
            if let CoreReply::Sizes(list) = reply {
                sizes.extend(list.iter().map(|s| (s.partition, s.size_bytes)));
            }
        }
        let topics = wanted.into_iter().map(|(name, partitions)| {
            let partitions = partitions.into_iter().filter_map(|(index, id)| {
                let size = *sizes.get(&id)?;
                Some(message!(DescribeLogDirsPartition {
                    partition_index: index,
                    partition_size: size as i64
                }))
            });
            message!(DescribeLogDirsTopic { name: text(name), partitions: partitions.collect() })
        });
        let mut result = message!(DescribeLogDirsResult {
            log_dir: text(dir.to_string_lossy().into_owned()),
            topics: topics.collect()
        });
        if version >= 4 {
            let held: u64 = sizes.values().sum();
            result.total_bytes = usable.saturating_add(held as i64);
            result.usable_bytes = usable;
        }
        answer_or_log(head, &message!(DescribeLogDirsResponse { results: vec![result] }))
    });
    Ok(Outcome::Ask(queries, finish))
}

fn data_dir(control: &Control) -> PathBuf {
    std::path::absolute(&control.options.data_dir).unwrap_or_else(|_| control.options.data_dir.clone())
}

/// Where a replica lies already it may be sent; any other folder is unknown.
pub(crate) fn alter_replica_log_dirs(control: &mut Control, call: &Call<'_>) -> Result<Outcome, Refusal> {
    let request: AlterReplicaLogDirsRequest = call.decode()?;
    call.few(request.dirs.iter().flat_map(|dir| &dir.topics).map(|t| t.partitions.len()))?;
    let dir = data_dir(control);
    let mut topics: BTreeMap<&str, BTreeMap<i32, ErrorCode>> = BTreeMap::new();
    for wanted in &request.dirs {
        let ours = Path::new(wanted.path.as_str()) == dir;
        for topic in &wanted.topics {
            let found = control.image.named(&topic.name);
            let results = topics.entry(topic.name.as_str()).or_default();
            for index in &topic.partitions {
                let there =
                    usize::try_from(*index).is_ok_and(|at| found.is_some_and(|t| at < t.partitions.len()));
                let error = match (ours, there) {
                    (false, _) => ErrorCode::LogDirNotFound,
                    (true, false) => ErrorCode::UnknownTopicOrPartition,
                    (true, true) => ErrorCode::None,
                };
                results.insert(*index, error);
            }
        }
    }
    let results = topics.into_iter().map(|(name, partitions)| {
        let partitions = partitions.into_iter().map(|(index, error)| {
            message!(AlterReplicaLogDirPartitionResult { partition_index: index, error_code: code(error) })
        });
        message!(AlterReplicaLogDirTopicResult { topic_name: text(name), partitions: partitions.collect() })
    });
    let response = message!(AlterReplicaLogDirsResponse { results: results.collect() });
    Ok(Outcome::Now(call.encode(&response)?))
}
