//! Sending records: one batch per partition at a time, retried until the time is up, stored once.

use crate::batch::{BatchBuilder, Identity};
use crate::client::{Absent, Client, Topic};
use crate::error::{ClientError, ServerCode};
use bytes::Bytes;
use kafka_wire::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_wire::{InitProducerIdRequest, ProduceRequest};
use kafka_wire_core::StrBytes;
use ringmill_types::ErrorCode;
use std::collections::BTreeMap;

/// The last version that names topics instead of giving their ids.
const PRODUCE_BY_NAME: i16 = 12;

/// What an answer waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acks {
    /// There is no answer.
    None,
    Leader,
    All,
}

impl Acks {
    fn wire(self) -> i16 {
        match self {
            Acks::None => 0,
            Acks::Leader => 1,
            Acks::All => -1,
        }
    }
}

/// Where a batch went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Of the batch's first record; -1 when the broker was not asked (acks 0) or already had it.
    pub base_offset: i64,
}

/// Sends batches to one topic.
pub struct Producer<'a> {
    client: &'a mut Client,
    topic: Topic,
    acks: Acks,
    identity: Option<(i64, i16)>,
    sequences: BTreeMap<i32, i32>,
}

impl<'a> Producer<'a> {
    /// Finds the topic, which a broker with auto-creation makes, and asks for a producer id where acks are `All`.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn new(client: &'a mut Client, topic: &str, acks: Acks) -> Result<Producer<'a>, ClientError> {
        let topic = client.topic(topic, Absent::Create)?;
        let mut producer = Producer { client, topic, acks, identity: None, sequences: BTreeMap::new() };
        if acks == Acks::All && producer.client.any()?.serves::<InitProducerIdRequest>() {
            let mut request = InitProducerIdRequest::default();
            request.transactional_id = None;
            request.producer_id = -1;
            request.producer_epoch = -1;
            request.transaction_timeout_ms = i32::MAX;
            let answer = producer.client.retry(|client| {
                let answer = client.ask(&request, i16::MAX)?;
                ClientError::check(answer.error_code, || "asking for a producer id".to_string(), None)?;
                Ok(answer)
            })?;
            producer.identity = Some((answer.producer_id, answer.producer_epoch));
        }
        Ok(producer)
    }

    pub fn partitions(&self) -> usize {
        self.topic.partitions.len()
    }

    /// Whether a batch that is sent twice is stored once.
    pub fn is_idempotent(&self) -> bool {
        self.identity.is_some()
    }

    /// Sends one batch and waits for its ack. Retries until the client's timeout; with acks 0 there is nothing to retry.
    ///
    /// # Errors
    /// [`ClientError`]. After one the producer is done: whether the batch was stored may be unknown.
    pub fn send(&mut self, partition: i32, batch: BatchBuilder) -> Result<Stored, ClientError> {
        let count = batch.count();
        let sequence = self.sequences.get(&partition).copied().unwrap_or(0);
        let identity = self.identity.map(|(producer_id, epoch)| Identity {
            producer_id,
            epoch,
            base_sequence: sequence,
        });
        let batch = batch
            .finish(identity)
            .map_err(|error| ClientError::Records(format!("a batch cannot be compressed: {error}")))?;
        let request = self.request(partition, Bytes::from(batch));
        let (acks, name) = (self.acks, self.topic.name.clone());
        let topic = &mut self.topic;
        let mut fresh = true;
        let stored = self.client.retry(|client| {
            if !fresh {
                *topic = client.topic(&name, Absent::Leave)?;
            }
            fresh = false;
            let leader = topic.partitions.iter().find(|p| p.index == partition).map(|p| p.leader);
            let leader = leader.ok_or_else(|| {
                let last = topic.partitions.len().saturating_sub(1);
                ClientError::Records(format!("topic {name} has no partition {partition}; its last is {last}"))
            })?;
            send_once(client, leader, &request, acks)
        })?;
        self.sequences.insert(partition, sequence.wrapping_add(count) & i32::MAX);
        Ok(stored)
    }

    fn request(&self, partition: i32, batch: Bytes) -> ProduceRequest {
        let mut data = PartitionProduceData::default();
        data.index = partition;
        data.records = Some(batch);
        let mut topic = TopicProduceData::default();
        topic.name = StrBytes::from(self.topic.name.as_str());
        topic.partition_data = vec![data];
        let mut request = ProduceRequest::default();
        request.transactional_id = None;
        request.acks = self.acks.wire();
        request.timeout_ms = i32::try_from(self.client.options().timeout.as_millis()).unwrap_or(i32::MAX);
        request.topic_data = vec![topic];
        request
    }
}

fn send_once(
    client: &mut Client,
    leader: i32,
    request: &ProduceRequest,
    acks: Acks,
) -> Result<Stored, ClientError> {
    if acks == Acks::None {
        let timeout = client.options().timeout;
        let connection = client.node(leader)?;
        let version = connection.version::<ProduceRequest>(PRODUCE_BY_NAME)?;
        connection.send(request, version, timeout)?;
        return Ok(Stored { base_offset: -1 });
    }
    let answer = client.ask_node(leader, request, PRODUCE_BY_NAME)?;
    let topic = answer.responses.first();
    let result = topic
        .and_then(|topic| topic.partition_responses.first())
        .ok_or_else(|| ClientError::Records("the broker's answer names no partition".to_string()))?;
    let code = ServerCode(result.error_code);
    if code.known() == Some(ErrorCode::DuplicateSequenceNumber) {
        return Ok(Stored { base_offset: -1 });
    }
    let doing = || {
        let name = topic.map(|topic| topic.name.as_str()).unwrap_or_default();
        format!("producing to partition {} of {name}", result.index)
    };
    let detail = result.record_errors.first().and_then(|e| e.batch_index_error_message.as_ref());
    let message = detail.or(result.error_message.as_ref()).map(|m| m.as_str());
    ClientError::check(result.error_code, doing, message)?;
    Ok(Stored { base_offset: result.base_offset })
}
