//! CreateTopics and CreatePartitions: what Kafka's ReplicationControlManager checks, in its order and words.

use super::{Call, Outcome, Refusal, code, message, text};
use crate::configs;
use crate::control::Control;
use crate::mutations::OnAccount;
use kafka_wire::create_partitions_request::CreatePartitionsTopic;
use kafka_wire::create_partitions_response::CreatePartitionsTopicResult;
use kafka_wire::create_topics_request::CreatableTopic;
use kafka_wire::create_topics_response::{CreatableTopicConfigs, CreatableTopicResult};
use kafka_wire::{
    CreatePartitionsRequest, CreatePartitionsResponse, CreateTopicsRequest, CreateTopicsResponse,
};
use kafka_wire_core::Uuid;
use ringmill_metadata::records::Configs;
use ringmill_metadata::{Image, PartitionRecord, Record};
use ringmill_types::topic_name::{self, in_metrics};
use ringmill_types::{ErrorCode, LeaderEpoch, PartitionId, TopicId};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::Read;

/// The log of Kafka's controllers, which is no topic that anybody makes.
const METADATA_TOPIC: &str = "__cluster_metadata";

type Problem = (ErrorCode, String);

/// From these versions of CreateTopics and CreatePartitions on a client understands `THROTTLING_QUOTA_EXCEEDED`.
const TOPICS_STRICT_SINCE: i16 = 6;
const PARTITIONS_STRICT_SINCE: i16 = 3;

/// A valid name that does not collide with another topic's: '.' and '_' make the same metric name.
pub(crate) fn check_name(image: &Image, name: &str) -> Result<(), String> {
    topic_name::check(name).map_err(|bad| bad.to_string())?;
    let Some(shown) = in_metrics(name).map(Iterator::collect::<Vec<u8>>) else { return Ok(()) };
    let collides = |other: &str| {
        other.len() == name.len()
            && other != name
            && in_metrics(other).is_some_and(|other| other.eq(shown.iter().copied()))
    };
    match image.topics().find(|topic| collides(&topic.name)) {
        Some(other) => Err(format!("Topic '{name}' collides with existing topic: {}", other.name)),
        None => Ok(()),
    }
}

/// A random topic id; Kafka's reserved ids (all but the last byte zero) and those that would print with a leading dash
/// are not used.
///
/// # Errors
/// When the system gives no random bytes.
pub fn new_topic_id() -> std::io::Result<TopicId> {
    loop {
        let mut id = [0; 16];
        std::fs::File::open("/dev/urandom").and_then(|mut f| f.read_exact(&mut id))?;
        let id = TopicId(id);
        if !id.to_base64().starts_with('-') && id.0.iter().take(15).any(|b| *b != 0) {
            return Ok(id);
        }
    }
}

/// The record of a new topic whose name was checked.
pub(crate) fn plan(
    control: &Control,
    name: &str,
    partitions: i32,
    overrides: &Configs,
) -> Result<Record, Problem> {
    control.options.defaults.check(overrides).map_err(|reason| (ErrorCode::InvalidConfig, reason))?;
    let count = usize::try_from(partitions).unwrap_or(0);
    check_room(control, count)?;
    Ok(Record::TopicCreated {
        name: name.to_string(),
        id: new_topic_id().map_err(|e| (ErrorCode::UnknownServerError, format!("no random bytes: {e}")))?,
        created_ms: std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |d| d.as_millis() as i64),
        configs: overrides.clone(),
        partitions: new_partitions(control, count),
    })
}

fn check_room(control: &Control, more: usize) -> Result<(), Problem> {
    let max = control.options.partitions_max;
    if control.image.partition_count() + more > max {
        return Err((
            ErrorCode::PolicyViolation,
            format!("this node takes at most {max} partitions, all topics together"),
        ));
    }
    Ok(())
}

fn new_partitions(control: &Control, count: usize) -> Vec<PartitionRecord> {
    let first = control.image.next_partition();
    let cores = control.image.place(count, control.options.cores);
    cores
        .into_iter()
        .zip(first..)
        .map(|(core, id)| PartitionRecord { id: PartitionId(id), core, epoch: LeaderEpoch(0) })
        .collect()
}

/// Decisions of one request, made durable together: one sync of the journal, however many topics there are. Each is
/// planned with those before it in sight.
struct Batch {
    on: OnAccount,
    records: Vec<Record>,
    /// The image as it was, where several decisions see each other.
    before: Option<Image>,
    planned: bool,
}

impl Batch {
    fn new(control: &Control, topics: usize, on: OnAccount) -> Batch {
        let before = (topics > 1).then(|| control.image.clone());
        Batch { on, records: Vec::new(), before, planned: false }
    }

    fn plan(
        &mut self,
        control: &mut Control,
        plan: impl FnOnce(&Control) -> Result<Record, Problem>,
    ) -> Result<Record, Problem> {
        self.planned = false;
        let record = plan(control)?;
        // As in Kafka the last thing that is looked at, also where nothing is to be done but to look.
        control.charge_mutations(&self.on, partitions_of(&record)).map_err(|error| (error, String::new()))?;
        if self.before.is_some() {
            control.image.apply(&record);
        }
        self.records.push(record.clone());
        self.planned = true;
        Ok(record)
    }

    fn last_planned(&self) -> bool {
        self.planned
    }

    /// Whether anything was decided.
    fn decide(self, control: &mut Control, validate_only: bool) -> Result<bool, Problem> {
        if let Some(before) = self.before {
            control.image = before;
        }
        if validate_only || self.records.is_empty() {
            return Ok(false);
        }
        control.decide(&self.records).map_err(|e| (ErrorCode::KafkaStorageError, e.to_string()))?;
        Ok(true)
    }
}

/// New ones, as far as an account is charged with them.
fn partitions_of(record: &Record) -> usize {
    match record {
        Record::TopicCreated { partitions, .. } | Record::PartitionsAdded { partitions, .. } => {
            partitions.len()
        }
        _ => 0,
    }
}

pub(crate) fn create_topics(control: &mut Control, call: &Call<'_>) -> Result<Outcome, Refusal> {
    let request: CreateTopicsRequest = call.decode()?;
    let mut counts: HashMap<&str, usize> = HashMap::new();
    for topic in &request.topics {
        *counts.entry(topic.name.as_str()).or_default() += 1;
    }
    let mut results = Vec::new();
    // Those that the controller is not asked about come last, as from Kafka.
    let mut unasked: BTreeMap<(bool, &str), CreatableTopicResult> = BTreeMap::new();
    let on = call.on_account(control, TOPICS_STRICT_SINCE);
    let mut batch = Batch::new(control, request.topics.len(), on);
    let mut planned: Vec<(usize, &CreatableTopic)> = Vec::new();
    for topic in &request.topics {
        let name = topic.name.as_str();
        let is_repeated = counts.get(name).is_some_and(|n| *n > 1);
        if is_repeated || name == METADATA_TOPIC {
            let reason = match is_repeated {
                true => "Duplicate topic name.".to_string(),
                false => format!("Creation of internal topic {name} is prohibited."),
            };
            let result = refused(topic, (ErrorCode::InvalidRequest, reason));
            unasked.insert((!is_repeated, name), result);
            continue;
        }
        results.push(match batch.plan(control, |control| plan_topic(control, topic)) {
            Ok(record) => accepted(control, topic, &record),
            Err(problem) => refused(topic, problem),
        });
        planned.extend(batch.last_planned().then_some((results.len() - 1, topic)));
    }
    let changed = match batch.decide(control, request.validate_only) {
        Ok(changed) => changed,
        Err(problem) => {
            for (at, topic) in planned {
                if let Some(result) = results.get_mut(at) {
                    *result = refused(topic, problem.clone());
                }
            }
            false
        }
    };
    results.extend(unasked.into_values());
    let bytes = call.encode(&message!(CreateTopicsResponse { topics: results }))?;
    Ok(if changed { Outcome::Applied(bytes) } else { Outcome::Now(bytes) })
}

fn plan_topic(control: &Control, topic: &CreatableTopic) -> Result<Record, Problem> {
    let name = topic.name.as_str();
    if control.image.named(name).is_some() {
        return Err((ErrorCode::TopicAlreadyExists, format!("Topic '{name}' already exists.")));
    }
    check_name(&control.image, name).map_err(|reason| (ErrorCode::InvalidTopicException, reason))?;
    let count = if topic.assignments.is_empty() {
        check_counts(control, topic)?
    } else {
        check_assignment(control, topic)?
    };
    let mut overrides = Configs::new();
    for config in &topic.configs {
        let Some(value) = &config.value else {
            return Err((
                ErrorCode::InvalidConfig,
                format!("Null value not supported for topic configs: {}", config.name),
            ));
        };
        overrides.insert(config.name.to_string(), value.to_string());
    }
    plan(control, name, count, &overrides)
}

fn check_counts(control: &Control, topic: &CreatableTopic) -> Result<i32, Problem> {
    let factor = topic.replication_factor;
    if factor < -1 || factor == 0 {
        return Err((
            ErrorCode::InvalidReplicationFactor,
            "Replication factor must be larger than 0, or -1 to use the default value.".into(),
        ));
    }
    if topic.num_partitions < -1 || topic.num_partitions == 0 {
        return Err((
            ErrorCode::InvalidPartitions,
            "Number of partitions was set to an invalid non-positive value.".into(),
        ));
    }
    if factor > 1 {
        return Err((
            ErrorCode::InvalidReplicationFactor,
            format!(
                "Unable to replicate the partition {factor} time(s): The target replication factor of {factor} cannot be reached because only 1 broker(s) are registered or some brokers have all their log directories cordoned."
            ),
        ));
    }
    Ok(if topic.num_partitions == -1 { control.options.num_partitions } else { topic.num_partitions })
}

/// Manual assignments may name this node only, once per partition, for partitions 0, 1, 2 ….
fn check_assignment(control: &Control, topic: &CreatableTopic) -> Result<i32, Problem> {
    let invalid = |reason: String| Err((ErrorCode::InvalidReplicaAssignment, reason));
    if topic.replication_factor != -1 {
        return Err((
            ErrorCode::InvalidRequest,
            "A manual partition assignment was specified, but replication factor was not set to -1.".into(),
        ));
    }
    if topic.num_partitions != -1 {
        return Err((
            ErrorCode::InvalidRequest,
            "A manual partition assignment was specified, but numPartitions was not set to -1.".into(),
        ));
    }
    let mut indexes: Vec<i32> = topic.assignments.iter().map(|a| a.partition_index).collect();
    indexes.sort_unstable();
    if indexes.iter().zip(0..).any(|(have, want)| *have != want) {
        return invalid("partitions should be a consecutive 0-based integer sequence".into());
    }
    for assignment in &topic.assignments {
        check_replicas(control, &assignment.broker_ids)?;
    }
    Ok(indexes.len() as i32)
}

/// The replicas of one partition: this node, once.
fn check_replicas(control: &Control, brokers: &[i32]) -> Result<(), Problem> {
    let node = control.options.node_id;
    let what = match brokers {
        [only] if *only == node => return Ok(()),
        [] => "an empty replica list.".to_string(),
        [..] => match brokers.iter().find(|broker| **broker != node) {
            Some(other) => format!("broker {other}, but no such broker is registered."),
            None => format!("the broker {node} more than once."),
        },
    };
    let reason = format!("The manual partition assignment includes {what}");
    Err((ErrorCode::InvalidReplicaAssignment, reason))
}

fn refused(topic: &CreatableTopic, (error, reason): Problem) -> CreatableTopicResult {
    message!(CreatableTopicResult {
        name: topic.name.clone(),
        error_code: code(error),
        // Of a quota Kafka says no more than the code.
        error_message: (!reason.is_empty()).then(|| text(reason)),
        num_partitions: -1,
        replication_factor: -1,
        configs: Some(Vec::new()),
    })
}

fn accepted(control: &Control, topic: &CreatableTopic, record: &Record) -> CreatableTopicResult {
    let Record::TopicCreated { id, configs, partitions, .. } = record else {
        return refused(topic, (ErrorCode::UnknownServerError, "no topic was planned".into()));
    };
    let configs = configs::describe_topic(configs, &control.options.defaults).into_iter().map(|c| {
        message!(CreatableTopicConfigs {
            name: text(c.name),
            value: c.value.map(text),
            read_only: c.read_only,
            config_source: c.source as i8,
            is_sensitive: c.sensitive,
        })
    });
    message!(CreatableTopicResult {
        name: topic.name.clone(),
        // One that nobody will have, where nothing is made: as from Kafka.
        topic_id: Uuid::from_bytes(id.0),
        // The default of the message is an empty text, and Kafka says nothing of a success.
        error_message: None,
        num_partitions: partitions.len() as i32,
        replication_factor: 1,
        configs: Some(configs.collect()),
    })
}

pub(crate) fn create_partitions(control: &mut Control, call: &Call<'_>) -> Result<Outcome, Refusal> {
    let request: CreatePartitionsRequest = call.decode()?;
    let mut results: Vec<CreatePartitionsTopicResult> = Vec::new();
    let mut counts: HashMap<&str, usize> = HashMap::new();
    request.topics.iter().for_each(|topic| *counts.entry(topic.name.as_str()).or_default() += 1);
    let mut said: HashSet<&str> = HashSet::new();
    let on = call.on_account(control, PARTITIONS_STRICT_SINCE);
    let mut batch = Batch::new(control, request.topics.len(), on);
    let mut planned = Vec::new();
    for topic in &request.topics {
        let name = topic.name.as_str();
        let result = if counts.get(name).is_some_and(|times| *times > 1) {
            Err((ErrorCode::InvalidRequest, "Duplicate topic name.".to_string()))
        } else {
            batch.plan(control, |control| add_partitions(control, topic)).map(drop)
        };
        if said.insert(name) {
            planned.extend(result.is_ok().then_some(results.len()));
            results.push(partitions_result(topic, result));
        }
    }
    let decided = batch.decide(control, request.validate_only);
    if let Err((error, reason)) = &decided {
        for at in planned {
            let Some(result) = results.get_mut(at) else { continue };
            result.error_code = code(*error);
            result.error_message = Some(text(reason.as_str()));
        }
    }
    let changed = decided.unwrap_or(false);
    let bytes = call.encode(&message!(CreatePartitionsResponse { results: results }))?;
    Ok(if changed { Outcome::Applied(bytes) } else { Outcome::Now(bytes) })
}

fn partitions_result(
    topic: &CreatePartitionsTopic,
    result: Result<(), Problem>,
) -> CreatePartitionsTopicResult {
    // Of a topic that is not there Kafka says no more than the code.
    let (error, reason) = result.err().map_or((ErrorCode::None, None), |(error, reason)| {
        (error, (!reason.is_empty()).then(|| text(reason)))
    });
    message!(CreatePartitionsTopicResult {
        name: topic.name.clone(),
        error_code: code(error),
        error_message: reason
    })
}

fn add_partitions(control: &Control, wanted: &CreatePartitionsTopic) -> Result<Record, Problem> {
    let Some(topic) = control.image.named(&wanted.name) else {
        return Err((ErrorCode::UnknownTopicOrPartition, String::new()));
    };
    let have = topic.partitions.len() as i32;
    if wanted.count == have {
        return Err((ErrorCode::InvalidPartitions, format!("Topic already has {have} partition(s).")));
    }
    if wanted.count < have {
        return Err((
            ErrorCode::InvalidPartitions,
            format!(
                "The topic {} currently has {have} partition(s); {} would not be an increase.",
                wanted.name, wanted.count
            ),
        ));
    }
    let more = (wanted.count - have) as usize;
    if let Some(assignments) = &wanted.assignments {
        if assignments.len() != more {
            return Err((
                ErrorCode::InvalidReplicaAssignment,
                format!(
                    "Attempted to add {more} additional partition(s), but only {} assignment(s) were specified.",
                    assignments.len()
                ),
            ));
        }
        for assignment in assignments {
            check_replicas(control, &assignment.broker_ids)?;
        }
    }
    check_room(control, more)?;
    Ok(Record::PartitionsAdded { id: topic.id, partitions: new_partitions(control, more) })
}
