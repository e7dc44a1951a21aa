//! DeleteTopics, by name and by id.

use super::{Call, Outcome, Refusal, code, message, text};
use crate::control::Control;
use kafka_wire::delete_topics_response::DeletableTopicResult;
use kafka_wire::{DeleteTopicsRequest, DeleteTopicsResponse};
use kafka_wire_core::{StrBytes, Uuid};
use ringmill_metadata::Record;
use ringmill_types::{ErrorCode, TopicId};

pub(crate) fn delete_topics(control: &mut Control, call: &Call<'_>) -> Result<Outcome, Refusal> {
    let request: DeleteTopicsRequest = call.decode()?;
    let by_name = request.topic_names.iter().map(|name| (Some(name.clone()), Uuid::ZERO));
    let either = request.topics.iter().map(|t| (t.name.clone(), t.topic_id));
    let wanted: Vec<(Option<StrBytes>, Uuid)> = by_name.chain(either).collect();
    let mut results = Vec::new();
    let mut changed = false;
    for (at, (name, id)) in wanted.iter().enumerate() {
        let repeated = wanted.iter().take(at).any(|(n, i)| n == name && i == id);
        let found = match name {
            Some(name) => control.image.named(name),
            None => control.image.with_id(TopicId(id.to_bytes())),
        }
        .map(|t| (t.id, t.name.clone()));
        let (error, reason) = if repeated {
            (ErrorCode::InvalidRequest, Some("Duplicate topic name."))
        } else if name.is_some() && !id.is_zero() {
            (ErrorCode::InvalidRequest, Some("You may not specify both topic name and topic id."))
        } else if !control.options.delete_topics {
            (ErrorCode::TopicDeletionDisabled, Some("Topic deletion is disabled."))
        } else {
            match &found {
                None if name.is_some() => (
                    ErrorCode::UnknownTopicOrPartition,
                    Some("This server does not host this topic-partition."),
                ),
                None => (ErrorCode::UnknownTopicId, Some("This server does not host this topic ID.")),
                Some((id, _)) => match control.decide(&[Record::TopicDeleted { id: *id }]) {
                    Ok(()) => {
                        changed = true;
                        (ErrorCode::None, None)
                    }
                    Err(error) => {
                        tracing::error!(%error, "a topic could not be deleted");
                        (ErrorCode::KafkaStorageError, Some("the metadata journal could not be written"))
                    }
                },
            }
        };
        let (shown_id, shown_name) = match &found {
            Some((found, name)) if error == ErrorCode::None => {
                (Uuid::from_bytes(found.0), Some(text(&**name)))
            }
            Some(_) | None => (*id, name.clone()),
        };
        results.push(message!(DeletableTopicResult {
            name: shown_name,
            topic_id: shown_id,
            error_code: code(error),
            error_message: reason.map(text)
        }));
    }
    let bytes = call.encode(&message!(DeleteTopicsResponse { responses: results }))?;
    Ok(if changed { Outcome::Applied(bytes) } else { Outcome::Now(bytes) })
}
