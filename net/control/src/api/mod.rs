//! One file per group of APIs. A handler decides and answers; it never waits.

mod alter_configs;
mod answered;
mod cluster;
mod configs;
mod consumer_groups;
mod create;
mod delete;
mod delete_records;
mod elections;
mod features;
mod group_views;
mod groups;
mod log_dirs;
mod metadata;
mod offset_commit;
mod offset_fetch;
mod offsets;
mod producers;
pub(crate) mod quotas;
mod resources;
#[cfg(test)]
mod throttle_tests;
mod users;

use answered::Answered;
pub(crate) use answered::Reply;
pub use create::new_topic_id;
pub(crate) use create::plan as plan_topic;

use crate::control::Control;
use crate::groups::{AskGroup, FinishGroup};
use crate::mutations::{OnAccount, Over};
use bytes::BytesMut;
use kafka_wire::{KafkaMessage, ProtocolEq};
use kafka_wire_core::{
    ApiVersion, Bytes, DecodeLimits, Decoder, Encoder, KafkaDecode, KafkaEncode, StrBytes,
};
use ringmill_core::{CoreQuery, CoreReply, Frame};
use ringmill_types::limits::REQUEST_ITEMS_MAX;
use ringmill_types::{CoreId, ErrorCode};
use ringmill_wire::{ApiKey, RequestHeader};
use std::collections::HashMap;
use std::net::SocketAddr;

/// As in Kafka, whose strings had a length of two bytes before they had a compact one; those in its records still have.
const STRING_BYTES_MAX: usize = i16::MAX as usize;

/// Makes the answer out of the cores' replies, by the place of their queries; a core that did not reply is missing.
pub(crate) type Finish = Box<dyn FnOnce(HashMap<u64, CoreReply>) -> Reply + Send>;

/// When the answer leaves.
pub(crate) enum Outcome {
    Now(Reply),
    /// When every core applied the newest delta.
    Applied(Reply),
    /// When these cores replied.
    Ask(Vec<(CoreId, CoreQuery)>, Finish),
    /// When the group coordinator says so.
    Coordinate(AskGroup, FinishGroup),
}

/// A request that cannot be understood: the connection closes.
pub(crate) type Refusal = String;

/// Builds a generated message: they are not exhaustive, so a literal will not do.
macro_rules! message {
    ($type:ty { $($field:ident : $value:expr),* $(,)? }) => {{
        #[allow(unused_mut)]
        let mut message = <$type>::default();
        $(message.$field = $value;)*
        message
    }};
}
pub(crate) use message;

/// A request, and how to answer it.
pub(crate) struct Call<'a> {
    header: &'a RequestHeader<'a>,
    /// Header and body.
    frame: &'a [u8],
    peer: SocketAddr,
}

impl Call<'_> {
    pub fn version(&self) -> i16 {
        self.header.api_version
    }

    /// On whose account the request's partitions go; from version `strict` on they are refused where it is overdrawn.
    pub fn on_account(&self, control: &Control, strict: i16) -> OnAccount {
        control.on_account(self.header.client_id, Over::since(strict, self.version()))
    }

    pub fn decode<T: KafkaMessage + KafkaDecode>(&self) -> Result<T, Refusal> {
        let mut limits = DecodeLimits::default();
        limits.max_array_elements = REQUEST_ITEMS_MAX;
        limits.max_string_bytes = STRING_BYTES_MAX;
        // Bytes behind the last field are left alone, as Kafka does: librdkafka's Metadata 13 has some.
        let body = self.frame.get(self.header.body_at..).unwrap_or_default();
        let decoder = Decoder::new(Bytes::copy_from_slice(body), limits);
        let version = ApiVersion::new(self.header.api_version);
        decoder.and_then(|mut decoder| T::decode(&mut decoder, version)).map_err(|error| {
            let (api, version) = (self.header.api_key, self.header.api_version);
            format!("a request {api} of version {version} that cannot be read: {error}")
        })
    }

    /// Lists within a list have the limit of one together: each by itself may be as long as that.
    ///
    /// # Errors
    /// They have more.
    pub fn few(&self, items: impl Iterator<Item = usize>) -> Result<(), Refusal> {
        let items: usize = items.sum();
        if items <= REQUEST_ITEMS_MAX {
            return Ok(());
        }
        let (api, version) = (self.header.api_key, self.header.api_version);
        Err(format!(
            "a request {api} of version {version} with {items} items; it may have {REQUEST_ITEMS_MAX}"
        ))
    }

    pub fn encode<T: KafkaMessage + KafkaEncode + ProtocolEq + Answered>(
        &self,
        response: &T,
    ) -> Result<Reply, Refusal> {
        encode(self.header.response_head(), response)
    }
}

/// Header and body of an answer, without the length.
pub(crate) fn encode<T: KafkaEncode + Answered>(
    head: ringmill_wire::ResponseHead,
    response: &T,
) -> Result<Reply, Refusal> {
    let mut out = Vec::new();
    let start = head.begin(&mut out);
    out.drain(start..start + 4);
    // Answers may have megabytes, which are written once.
    let mut out = BytesMut::from(&*out);
    response.encode(&mut Encoder::new(&mut out), ApiVersion::new(head.api_version)).map_err(|error| {
        format!("an answer of version {} that cannot be written: {error}", head.api_version)
    })?;
    Ok(Reply { bytes: out.into(), failed: response.failed() })
}

pub(crate) fn text(text: impl Into<String>) -> StrBytes {
    StrBytes::from(text.into())
}

pub(crate) fn code(code: ErrorCode) -> i16 {
    code.code()
}

/// Decides one request.
pub(crate) fn handle(
    control: &mut Control,
    header: &RequestHeader<'_>,
    frame: &Frame,
) -> Result<Outcome, Refusal> {
    let call = Call { header, frame: &frame.bytes, peer: frame.peer };
    match header.api_key {
        ApiKey::METADATA => metadata::create_named(control, &call),
        ApiKey::DESCRIBE_TOPIC_PARTITIONS => metadata::describe_topic_partitions(control, &call),
        ApiKey::CREATE_TOPICS => create::create_topics(control, &call),
        ApiKey::CREATE_PARTITIONS => create::create_partitions(control, &call),
        ApiKey::DELETE_TOPICS => delete::delete_topics(control, &call),
        ApiKey::LIST_OFFSETS => offsets::list_offsets(control, &call),
        ApiKey::OFFSET_FOR_LEADER_EPOCH => offsets::offset_for_leader_epoch(control, &call),
        ApiKey::INIT_PRODUCER_ID => producers::init_producer_id(control, &call),
        ApiKey::FIND_COORDINATOR => cluster::find_coordinator(control, &call),
        ApiKey::DESCRIBE_CLUSTER => cluster::describe_cluster(control, &call),
        ApiKey::LIST_PARTITION_REASSIGNMENTS => cluster::list_partition_reassignments(&call),
        ApiKey::DESCRIBE_CONFIGS => configs::describe_configs(control, &call),
        ApiKey::ALTER_CONFIGS => alter_configs::alter_configs(control, &call),
        ApiKey::INCREMENTAL_ALTER_CONFIGS => alter_configs::incremental_alter_configs(control, &call),
        ApiKey::JOIN_GROUP => groups::join(control, &call),
        ApiKey::SYNC_GROUP => groups::sync(&call),
        ApiKey::HEARTBEAT => groups::heartbeat(&call),
        ApiKey::LEAVE_GROUP => groups::leave(&call),
        ApiKey::OFFSET_COMMIT => offset_commit::offset_commit(control, &call),
        ApiKey::OFFSET_FETCH => offset_fetch::offset_fetch(control, &call),
        ApiKey::OFFSET_DELETE => offset_commit::offset_delete(control, &call),
        ApiKey::LIST_GROUPS => group_views::list_groups(control, &call),
        ApiKey::DESCRIBE_GROUPS => group_views::describe_groups(control, &call),
        ApiKey::CONSUMER_GROUP_HEARTBEAT => consumer_groups::heartbeat(control, &call),
        ApiKey::CONSUMER_GROUP_DESCRIBE => consumer_groups::describe(control, &call),
        ApiKey::DELETE_GROUPS => groups::delete_groups(&call),
        ApiKey::DELETE_RECORDS => delete_records::delete_records(control, &call),
        ApiKey::DESCRIBE_PRODUCERS => producers::describe_producers(control, &call),
        ApiKey::ELECT_LEADERS => elections::elect_leaders(control, &call),
        ApiKey::DESCRIBE_LOG_DIRS => log_dirs::describe_log_dirs(control, &call),
        ApiKey::ALTER_REPLICA_LOG_DIRS => log_dirs::alter_replica_log_dirs(control, &call),
        ApiKey::DESCRIBE_CLIENT_QUOTAS => quotas::describe_client_quotas(control, &call),
        ApiKey::ALTER_CLIENT_QUOTAS => quotas::alter_client_quotas(control, &call),
        ApiKey::DESCRIBE_USER_SCRAM_CREDENTIALS => users::describe_user_scram_credentials(&call),
        ApiKey::LIST_CONFIG_RESOURCES => resources::list_config_resources(control, &call),
        ApiKey::UPDATE_FEATURES => features::update_features(control, &call),
        other => Err(format!("{} is advertised but has no handler", other.name().unwrap_or("?"))),
    }
}
