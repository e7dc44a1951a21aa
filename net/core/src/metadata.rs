//! Metadata: answered from this core's image, so that a storm of it reaches nobody else.
//!
//! What is said of all topics is encoded once for each manner of asking, kept until the image changes, and leaves from where
//! it lies. Only a request that would bring a topic into being goes to control, with what it will be answered written down
//! before: as in Kafka that knows nothing of the new topic yet, and the client asks again.

use crate::closing::Closing;
use crate::conn::{AnswerState, FrameBytes};
use crate::core::{Core, CoreSettings};
use crate::metrics::ApiKind;
use crate::served::Served;
use crate::slab::Key;
use crate::topics::Topics;
use ringmill_reactor::{Backend, Buf};
use ringmill_types::internal::is_internal;
use ringmill_types::{ErrorCode, TopicId, TopicSpec, topic_name};
use ringmill_wire::frame::patch_length;
use ringmill_wire::metadata::{
    self, CLUSTER_OPERATIONS, ClusterAnswer, MetadataBody, MetadataRequest, PartitionAnswer,
    TOPIC_OPERATIONS, TopicAnswer,
};
use ringmill_wire::{ApiKey, NodeEndpoint, RequestHeader};
use std::collections::{HashSet, VecDeque};

/// Bodies about all topics that a core keeps: clients of so many kinds at a time, each body as large as the image.
const BODIES_MAX: usize = 8;

/// How this broker names itself and its cluster to clients.
#[derive(Clone, Debug)]
pub struct Advertised {
    pub host: String,
    pub port: u16,
    pub cluster_id: String,
}

/// What tells one body about all topics from another, while the image stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Manner {
    version: i16,
    topic_operations: bool,
    cluster_operations: bool,
}

impl Manner {
    fn of(version: i16, request: &MetadataRequest<'_>) -> Manner {
        let MetadataRequest { topic_operations, cluster_operations, .. } = *request;
        Manner { version, topic_operations, cluster_operations }
    }
}

/// The bodies about all topics that were asked for last. Owned by the image of a core, empty when that has changed.
#[derive(Default)]
pub(crate) struct Bodies(VecDeque<(Manner, Buf)>);

impl Bodies {
    pub fn clear(&mut self) {
        self.0.clear();
    }

    fn get(&mut self, manner: Manner) -> Option<Buf> {
        let at = self.0.iter().position(|(of, _)| *of == manner)?;
        // In front, as what was asked for last goes last.
        let (manner, body) = self.0.remove(at)?;
        self.0.push_front((manner, body.clone()));
        Some(body)
    }

    fn keep(&mut self, manner: Manner, body: Buf) {
        self.0.truncate(BODIES_MAX - 1);
        self.0.push_front((manner, body));
    }
}

/// What becomes of one topic that a request names.
enum Named<'a> {
    Topic(&'a TopicSpec),
    /// No topic has this id.
    Unknown(TopicId),
    /// None has this name, and with `UnknownTopicOrPartition` one may.
    Missing(&'a str, ErrorCode),
}

impl Named<'_> {
    fn error(&self) -> ErrorCode {
        match self {
            Named::Topic(_) => ErrorCode::None,
            Named::Unknown(_) => ErrorCode::UnknownTopicId,
            Named::Missing(_, error) => *error,
        }
    }
}

/// What was named, each once however often it is: an answer is never larger than what there is and what was asked.
fn named<'a>(topics: &'a Topics, request: &MetadataRequest<'a>) -> Vec<Named<'a>> {
    #[derive(PartialEq, Eq, Hash)]
    enum Seen<'a> {
        Id(TopicId),
        Name(&'a str),
    }
    let mut seen = HashSet::new();
    let mut out = Vec::new();
    for wanted in request.topics() {
        let (found, is) = match wanted.name {
            None => match topics.with_id(wanted.id) {
                Some(topic) => (Named::Topic(topic), Seen::Id(topic.id)),
                None => (Named::Unknown(wanted.id), Seen::Id(wanted.id)),
            },
            Some(name) => match topics.named(name) {
                Some(topic) => (Named::Topic(topic), Seen::Id(topic.id)),
                None => (Named::Missing(name, topics.error_of(name)), Seen::Name(name)),
            },
        };
        if request.topic_count == 1 || seen.insert(is) {
            out.push(found);
        }
    }
    out
}

impl Topics {
    /// Why there is no topic of this name: it may not have it, or it has not been made.
    fn error_of(&self, missing: &str) -> ErrorCode {
        if topic_name::check(missing).is_err() || self.collides(missing) {
            ErrorCode::InvalidTopicException
        } else {
            ErrorCode::UnknownTopicOrPartition
        }
    }
}

/// Appends the body of an answer that says this of topics.
fn write_body(settings: &CoreSettings, manner: Manner, topics: &[Named<'_>], out: &mut Vec<u8>) {
    let (node, advertised) = (settings.node_id, &settings.advertised);
    let endpoint =
        NodeEndpoint { node_id: node, host: &advertised.host, port: i32::from(advertised.port), rack: None };
    let cluster =
        ClusterAnswer { brokers: &[endpoint], id: Some(&advertised.cluster_id), controller_id: node };
    let mut body = MetadataBody::begin(out, manner.version, &cluster, topics.len());
    for topic in topics {
        let nothing = TopicAnswer {
            error: topic.error(),
            name: None,
            id: TopicId::ZERO,
            is_internal: false,
            operations: None,
        };
        let (said, partitions) = match topic {
            Named::Unknown(id) => (TopicAnswer { id: *id, ..nothing }, &[][..]),
            Named::Missing(name, _) => (TopicAnswer { name: Some(name), ..nothing }, &[][..]),
            Named::Topic(topic) => {
                let operations = manner.topic_operations.then_some(TOPIC_OPERATIONS);
                let (name, is_internal) = (Some(&*topic.name), is_internal(&topic.name));
                let said = TopicAnswer { name, id: topic.id, is_internal, operations, ..nothing };
                (said, &topic.partitions[..])
            }
        };
        let described = partitions.iter().map(|partition| PartitionAnswer {
            error: ErrorCode::None,
            index: partition.index,
            leader_id: node,
            leader_epoch: partition.leader_epoch,
            replicas: std::slice::from_ref(&node),
            isr: std::slice::from_ref(&node),
            offline: &[],
        });
        body.topic(&said, described);
    }
    body.finish(manner.cluster_operations.then_some(CLUSTER_OPERATIONS));
}

impl<B: Backend> Core<B> {
    pub(crate) fn handle_metadata(&mut self, key: Key, frame: FrameBytes) -> bool {
        let parsed = RequestHeader::parse(&frame).map_err(Closing::Header).and_then(|header| {
            let (api, version) = (header.api_key, header.api_version);
            let request = MetadataRequest::parse(&header, &frame);
            Ok((header, request.map_err(|error| Closing::Request { api, version, error })?))
        });
        let (header, request) = match parsed {
            Ok(parsed) => parsed,
            Err(closing) => return self.refuse(key, ApiKind::Other, closing),
        };
        let manner = Manner::of(header.api_version, &request);
        let mut out = Vec::new();
        let start = metadata::begin(header.response_head(), &mut out);
        let (mut failed, mut creates, mut body) = (false, false, None);
        if request.all {
            body = Some(self.body_of_all(manner));
        } else {
            let topics = named(&self.topics, &request);
            write_body(&self.settings, manner, &topics, &mut out);
            failed = topics.iter().any(|topic| topic.error() != ErrorCode::None);
            let is_unknown = |topic: &Named<'_>| topic.error() == ErrorCode::UnknownTopicOrPartition;
            creates = self.settings.auto_create && request.may_create && topics.iter().any(is_unknown);
        }
        if patch_length(&mut out, start, body.as_ref().map_or(0, |body| body.len()) as u64).is_err() {
            return self.refuse(key, ApiKind::Other, Closing::AnswerTooLarge);
        }
        if creates {
            return self.forward(key, ApiKey::METADATA, frame, Some(out));
        }
        self.metadata_turn_bytes += out.len();
        self.charge_at_once(key, &mut out);
        self.metrics.other.answered(0, failed);
        let Some(conn) = self.conns.get_mut(key) else { return false };
        conn.metadata_bytes += out.len() + body.as_ref().map_or(0, |body| body.len());
        let slot = conn.reserve();
        let served = Served::at_once(ApiKey::METADATA, conn.received_us);
        let bufs = [Some(Buf::from_vec(out)), body].into_iter().flatten().collect();
        self.answer(key, slot, AnswerState::Ready(bufs, served));
        true
    }

    fn body_of_all(&mut self, manner: Manner) -> Buf {
        if let Some(body) = self.topics.bodies.get(manner) {
            return body;
        }
        let topics: Vec<Named<'_>> = self.topics.in_order().into_iter().map(Named::Topic).collect();
        let mut out = Vec::new();
        write_body(&self.settings, manner, &topics, &mut out);
        self.metadata_turn_bytes += out.len();
        let body = Buf::from_vec(out);
        self.topics.bodies.keep(manner, body.clone());
        body
    }
}
