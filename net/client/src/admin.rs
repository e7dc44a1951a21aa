//! Topics: create, delete, alter, and what a broker tells about them.

use crate::client::{Client, Cluster, Topic};
use crate::error::{ClientError, ServerCode};
use kafka_wire::create_partitions_request::CreatePartitionsTopic;
use kafka_wire::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_wire::delete_topics_request::DeleteTopicState;
use kafka_wire::describe_configs_request::DescribeConfigsResource;
use kafka_wire::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use kafka_wire::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_wire::{
    CreatePartitionsRequest, CreateTopicsRequest, DeleteTopicsRequest, DescribeConfigsRequest,
    DescribeLogDirsRequest, IncrementalAlterConfigsRequest, ListOffsetsRequest,
};
use kafka_wire_core::StrBytes;
use std::collections::BTreeMap;
use std::time::Duration;

/// Kafka's resource type of a topic.
const TOPIC: i8 = 2;
/// Kafka's config source "set on this topic".
const SOURCE_TOPIC: i8 = 1;
const SOURCE_DEFAULT: i8 = 5;

/// `ListOffsets` timestamps with a meaning of their own.
pub const EARLIEST: i64 = -2;
pub const LATEST: i64 = -1;

/// A partition of a topic, by name.
pub type TopicPartition = (String, i32);

/// A topic to create. `None` leaves the number to the broker.
#[derive(Clone, Debug, Default)]
pub struct NewTopic {
    pub name: String,
    pub partitions: Option<i32>,
    pub replication_factor: Option<i16>,
    pub configs: Vec<(String, String)>,
    pub validate_only: bool,
}

/// What became of it; -1 where the broker does not say.
#[derive(Clone, Copy, Debug)]
pub struct Created {
    pub partitions: i32,
    pub replication_factor: i16,
}

/// A change of one config of a topic.
#[derive(Clone, Debug)]
pub enum ConfigChange {
    Set(String, String),
    /// Back to the default.
    Delete(String),
}

/// One config of a topic.
#[derive(Clone, Debug)]
pub struct Config {
    pub name: String,
    /// `None` when the broker keeps it to itself.
    pub value: Option<String>,
    pub source: ConfigSource,
}

/// Where a config's value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigSource {
    Topic,
    Broker,
    Default,
}

fn text(text: &str) -> StrBytes {
    StrBytes::from(text)
}

fn millis(timeout: Duration) -> i32 {
    i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX)
}

impl Client {
    /// # Errors
    /// [`ClientError`]; a refusal names the topic.
    pub fn create_topic(&mut self, new: &NewTopic) -> Result<Created, ClientError> {
        let mut topic = CreatableTopic::default();
        topic.name = text(&new.name);
        topic.num_partitions = new.partitions.unwrap_or(-1);
        topic.replication_factor = new.replication_factor.unwrap_or(-1);
        for (name, value) in &new.configs {
            let mut config = CreatableTopicConfig::default();
            config.name = text(name);
            config.value = Some(text(value));
            topic.configs.push(config);
        }
        let mut request = CreateTopicsRequest::default();
        request.topics = vec![topic];
        request.timeout_ms = millis(self.options().timeout);
        request.validate_only = new.validate_only;
        let answer = self.ask(&request, i16::MAX)?;
        let Some(result) = answer.topics.first() else {
            return Err(ClientError::Records("the broker's answer names no topic".to_string()));
        };
        ClientError::check(
            result.error_code,
            || format!("creating topic {}", new.name),
            result.error_message.as_ref().map(|m| m.as_str()),
        )?;
        Ok(Created { partitions: result.num_partitions, replication_factor: result.replication_factor })
    }

    /// Deletes topics; one result per name, in their order.
    ///
    /// # Errors
    /// [`ClientError`] when nothing is known about any of them.
    pub fn delete_topics(&mut self, names: &[String]) -> Result<Vec<Result<(), ClientError>>, ClientError> {
        let mut request = DeleteTopicsRequest::default();
        request.timeout_ms = millis(self.options().timeout);
        // Which of the two lists is sent depends on the version; each refuses the other.
        let by_state = self.any()?.version::<DeleteTopicsRequest>(i16::MAX)?.value() >= 6;
        for name in names {
            if by_state {
                let mut state = DeleteTopicState::default();
                state.name = Some(text(name));
                request.topics.push(state);
            } else {
                request.topic_names.push(text(name));
            }
        }
        let answer = self.ask(&request, i16::MAX)?;
        Ok(names
            .iter()
            .map(|name| {
                let result =
                    answer.responses.iter().find(|r| r.name.as_ref().is_some_and(|n| n.as_str() == name));
                let result = result.ok_or_else(|| {
                    ClientError::Records(format!("the broker's answer does not name topic {name}"))
                })?;
                let message = result.error_message.as_ref().map(|m| m.as_str());
                ClientError::check(result.error_code, || format!("deleting topic {name}"), message)
            })
            .collect())
    }

    /// Grows a topic to `count` partitions.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn create_partitions(&mut self, name: &str, count: i32) -> Result<(), ClientError> {
        let mut topic = CreatePartitionsTopic::default();
        topic.name = text(name);
        topic.count = count;
        topic.assignments = None;
        let mut request = CreatePartitionsRequest::default();
        request.topics = vec![topic];
        request.timeout_ms = millis(self.options().timeout);
        let answer = self.ask(&request, i16::MAX)?;
        let result = answer.results.first();
        let result =
            result.ok_or_else(|| ClientError::Records("the broker's answer names no topic".to_string()))?;
        let message = result.error_message.as_ref().map(|m| m.as_str());
        ClientError::check(result.error_code, || format!("altering topic {name}"), message)
    }

    /// Changes configs of a topic, all of them or none.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn alter_configs(&mut self, name: &str, changes: &[ConfigChange]) -> Result<(), ClientError> {
        let mut resource = AlterConfigsResource::default();
        resource.resource_type = TOPIC;
        resource.resource_name = text(name);
        for change in changes {
            let mut config = AlterableConfig::default();
            match change {
                ConfigChange::Set(key, value) => {
                    config.name = text(key);
                    config.config_operation = 0;
                    config.value = Some(text(value));
                }
                ConfigChange::Delete(key) => {
                    config.name = text(key);
                    config.config_operation = 1;
                    config.value = None;
                }
            }
            resource.configs.push(config);
        }
        let mut request = IncrementalAlterConfigsRequest::default();
        request.resources = vec![resource];
        let answer = self.ask(&request, i16::MAX)?;
        let result = answer.responses.first();
        let result =
            result.ok_or_else(|| ClientError::Records("the broker's answer names no topic".to_string()))?;
        let message = result.error_message.as_ref().map(|m| m.as_str());
        ClientError::check(result.error_code, || format!("altering topic {name}"), message)
    }

    /// All configs of topics, by topic.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn topic_configs(&mut self, names: &[String]) -> Result<BTreeMap<String, Vec<Config>>, ClientError> {
        let mut request = DescribeConfigsRequest::default();
        for name in names {
            let mut resource = DescribeConfigsResource::default();
            resource.resource_type = TOPIC;
            resource.resource_name = text(name);
            resource.configuration_keys = None;
            request.resources.push(resource);
        }
        let answer = self.retry(|client| client.ask(&request, i16::MAX))?;
        let mut out = BTreeMap::new();
        for result in &answer.results {
            let name = result.resource_name.as_str().to_string();
            let message = result.error_message.as_ref().map(|m| m.as_str());
            ClientError::check(result.error_code, || format!("describing topic {name}"), message)?;
            let configs = result
                .configs
                .iter()
                .map(|config| Config {
                    name: config.name.as_str().to_string(),
                    value: config.value.as_ref().map(|v| v.as_str().to_string()),
                    source: match config.config_source {
                        SOURCE_TOPIC => ConfigSource::Topic,
                        SOURCE_DEFAULT => ConfigSource::Default,
                        _ => ConfigSource::Broker,
                    },
                })
                .collect();
            out.insert(name, configs);
        }
        Ok(out)
    }

    /// The offset of the first record at or after `timestamp` in each partition of `topics`, or [`EARLIEST`] or
    /// [`LATEST`]. -1 where there is no such record; an error where the partition gave one.
    ///
    /// # Errors
    /// [`ClientError`] of the calls themselves.
    pub fn offsets(
        &mut self,
        topics: &[Topic],
        timestamp: i64,
    ) -> Result<BTreeMap<TopicPartition, Result<i64, ServerCode>>, ClientError> {
        let mut by_leader: BTreeMap<i32, ListOffsetsRequest> = BTreeMap::new();
        for topic in topics {
            for partition in topic.partitions.iter().filter(|p| p.leader >= 0) {
                let request = by_leader.entry(partition.leader).or_insert_with(|| {
                    let mut request = ListOffsetsRequest::default();
                    request.replica_id = -1;
                    request
                });
                if request.topics.last().is_none_or(|t| t.name.as_str() != topic.name) {
                    let mut entry = ListOffsetsTopic::default();
                    entry.name = text(&topic.name);
                    request.topics.push(entry);
                }
                let entry = request.topics.last_mut().expect("just pushed");
                let mut wanted = ListOffsetsPartition::default();
                wanted.partition_index = partition.index;
                wanted.current_leader_epoch = -1;
                wanted.timestamp = timestamp;
                entry.partitions.push(wanted);
            }
        }
        let mut out = BTreeMap::new();
        for (leader, request) in by_leader {
            let answer = self.retry(|client| client.ask_node(leader, &request, i16::MAX))?;
            for topic in &answer.topics {
                for partition in &topic.partitions {
                    let code = ServerCode(partition.error_code);
                    let offset = if code.is_ok() { Ok(partition.offset) } else { Err(code) };
                    out.insert((topic.name.as_str().to_string(), partition.partition_index), offset);
                }
            }
        }
        Ok(out)
    }

    /// Bytes on disk of every partition of the cluster that some broker told, the largest replica of each.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn partition_sizes(
        &mut self,
        cluster: &Cluster,
    ) -> Result<BTreeMap<TopicPartition, i64>, ClientError> {
        let mut request = DescribeLogDirsRequest::default();
        request.topics = None;
        let mut out = BTreeMap::new();
        for node in cluster.brokers.keys() {
            let answer = self.retry(|client| client.ask_node(*node, &request, i16::MAX))?;
            ClientError::check(answer.error_code, || "describing log folders".to_string(), None)?;
            for dir in answer.results.iter().filter(|dir| dir.error_code == 0) {
                for topic in &dir.topics {
                    for partition in topic.partitions.iter().filter(|p| !p.is_future_key) {
                        let key = (topic.name.as_str().to_string(), partition.partition_index);
                        let bytes = out.entry(key).or_insert(0);
                        *bytes = partition.partition_size.max(*bytes);
                    }
                }
            }
        }
        Ok(out)
    }
}
