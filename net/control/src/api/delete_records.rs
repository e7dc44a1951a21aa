//! DeleteRecords: the owner of a partition moves its log start; the answer leaves when that is durable.

use super::offsets::answer_or_log;
use super::{Call, Finish, Outcome, Refusal, code, message, text};
use crate::control::Control;
use kafka_wire::delete_records_response::{DeleteRecordsPartitionResult, DeleteRecordsTopicResult};
use kafka_wire::{DeleteRecordsRequest, DeleteRecordsResponse};
use ringmill_core::{CoreQuery, CoreReply};
use ringmill_types::internal::is_internal;
use ringmill_types::{CoreId, ErrorCode, Offset, PartitionId};
use std::collections::BTreeMap;

/// Log start and error of a partition, by topic name and index.
type Results = BTreeMap<(String, i32), (i64, ErrorCode)>;
/// What one core is asked, and where its answers go.
type Asked = (Vec<(PartitionId, Offset)>, Vec<(String, i32)>);

pub(crate) fn delete_records(control: &mut Control, call: &Call<'_>) -> Result<Outcome, Refusal> {
    let request: DeleteRecordsRequest = call.decode()?;
    call.few(request.topics.iter().map(|t| t.partitions.len()))?;
    let head = call.header.response_head();
    let mut wanted: BTreeMap<(String, i32), Offset> = BTreeMap::new();
    for topic in &request.topics {
        for partition in &topic.partitions {
            // Of a partition that is named twice the last counts, as with Kafka.
            wanted.insert((topic.name.to_string(), partition.partition_index), Offset(partition.offset));
        }
    }
    let mut results = Results::new();
    let mut asked: BTreeMap<CoreId, Asked> = BTreeMap::new();
    for ((name, index), before) in wanted {
        let partition = usize::try_from(index)
            .ok()
            .and_then(|at| control.image.named(&name)?.partitions.get(at).map(|p| (p.core, p.id)));
        let error = match partition {
            None => ErrorCode::UnknownTopicOrPartition,
            Some(_) if is_internal(&name) => ErrorCode::InvalidTopicException,
            Some((core, id)) => {
                let (queries, places) = asked.entry(core).or_default();
                queries.push((id, before));
                places.push((name.clone(), index));
                // A core that does not reply leaves this.
                ErrorCode::RequestTimedOut
            }
        };
        results.insert((name, index), (-1, error));
    }
    let (mut queries, mut places) = (Vec::new(), Vec::new());
    for (core, (list, at)) in asked {
        queries.push((core, CoreQuery::DeleteRecords(list)));
        places.push(at);
    }
    let finish: Finish = Box::new(move |mut replies| {
        for (ordinal, places) in (0..).zip(places) {
            let Some(CoreReply::DeleteRecords(list)) = replies.remove(&ordinal) else { continue };
            for (place, reply) in places.into_iter().zip(list) {
                results.insert(place, reply.map_or_else(|e| (-1, e), |start| (start.0, ErrorCode::None)));
            }
        }
        answer_or_log(head, &response(results))
    });
    Ok(Outcome::Ask(queries, finish))
}

fn response(results: Results) -> DeleteRecordsResponse {
    let mut topics: Vec<DeleteRecordsTopicResult> = Vec::new();
    for ((name, index), (low_watermark, error)) in results {
        let partition = message!(DeleteRecordsPartitionResult {
            partition_index: index,
            low_watermark: low_watermark,
            error_code: code(error),
        });
        match topics.last_mut() {
            Some(topic) if topic.name.as_str() == name => topic.partitions.push(partition),
            _ => topics
                .push(message!(DeleteRecordsTopicResult { name: text(name), partitions: vec![partition] })),
        }
    }
    message!(DeleteRecordsResponse { topics: topics })
}
