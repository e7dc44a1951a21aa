//! ElectLeaders: every partition has its one replica for a leader, so no election is ever needed.

use super::{Call, Outcome, Refusal, code, message, text};
use crate::control::Control;
use kafka_wire::elect_leaders_response::{PartitionResult, ReplicaElectionResult};
use kafka_wire::{ElectLeadersRequest, ElectLeadersResponse};
use ringmill_types::ErrorCode;

/// Preferred and unclean.
const ELECTION_TYPES: std::ops::RangeInclusive<i8> = 0..=1;

pub(crate) fn elect_leaders(control: &mut Control, call: &Call<'_>) -> Result<Outcome, Refusal> {
    let request: ElectLeadersRequest = call.decode()?;
    call.few(request.topic_partitions.iter().flatten().map(|t| t.partitions.len()))?;
    let known = ELECTION_TYPES.contains(&request.election_type);
    let refused = (!known).then(|| format!("Unknown election type {}", request.election_type));
    // Of all topics, Kafka names the partitions that needed an election: none.
    let all = control.image.topics().filter(|_| request.topic_partitions.is_none() && known);
    let all = all.map(|topic| message!(ReplicaElectionResult { topic: text(&*topic.name) }));
    let results = request.topic_partitions.iter().flatten().map(|topic| {
        let partitions = topic.partitions.iter().map(|index| {
            let (error, reason) = match &refused {
                Some(reason) => (ErrorCode::InvalidRequest, reason.clone()),
                None => verdict(control, &topic.topic, *index),
            };
            message!(PartitionResult {
                partition_id: *index,
                error_code: code(error),
                error_message: Some(text(reason))
            })
        });
        message!(ReplicaElectionResult { topic: topic.topic.clone(), partition_result: partitions.collect() })
    });
    let mut response =
        message!(ElectLeadersResponse { replica_election_results: all.chain(results).collect() });
    if refused.is_some() && call.version() >= 1 {
        response.error_code = code(ErrorCode::InvalidRequest);
    }
    Ok(Outcome::Now(call.encode(&response)?))
}

fn verdict(control: &Control, topic: &str, index: i32) -> (ErrorCode, String) {
    let Some(found) = control.image.named(topic) else {
        return (ErrorCode::UnknownTopicOrPartition, format!("No such topic as {topic}"));
    };
    match usize::try_from(index).ok().and_then(|at| found.partitions.get(at)) {
        None => (ErrorCode::UnknownTopicOrPartition, format!("No such partition as {topic}-{index}")),
        Some(_) => {
            (ErrorCode::ElectionNotNeeded, "Leader election not needed for topic partition.".to_string())
        }
    }
}
