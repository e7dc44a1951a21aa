//! The cluster as a client sees it: metadata, a connection per broker, and retries.

use crate::connection::{Connection, Settings};
use crate::error::{ClientError, ServerCode};
use kafka_wire::metadata_request::MetadataRequestTopic;
use kafka_wire::{MetadataRequest, RequestResponsePair};
use kafka_wire_core::StrBytes;
use ringmill_types::{ErrorCode, TopicId};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Between two attempts; doubles up to [`PAUSE_MAX`].
const PAUSE_FIRST: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// How a client behaves.
#[derive(Clone, Debug)]
pub struct Options {
    pub client_id: String,
    /// Per address of the bootstrap server.
    pub connect_timeout: Duration,
    /// For one answer, and for all attempts of one call together.
    pub timeout: Duration,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            client_id: "ringmill".to_string(),
            connect_timeout: Duration::from_secs(5),
            timeout: Duration::from_secs(30),
        }
    }
}

/// The brokers, and the topics that were asked for.
#[derive(Clone, Debug, Default)]
pub struct Cluster {
    pub cluster_id: Option<String>,
    pub controller: i32,
    /// `HOST:PORT` by node id.
    pub brokers: BTreeMap<i32, String>,
    pub topics: Vec<Topic>,
}

/// A topic as metadata shows it.
#[derive(Clone, Debug)]
pub struct Topic {
    pub name: String,
    /// As Kafka prints it, 22 characters; empty when the broker gave none.
    pub id: String,
    pub internal: bool,
    pub code: ServerCode,
    pub partitions: Vec<Partition>,
}

#[derive(Clone, Debug)]
pub struct Partition {
    pub index: i32,
    pub code: ServerCode,
    /// -1 when there is none.
    pub leader: i32,
    pub leader_epoch: i32,
    pub replicas: Vec<i32>,
    pub isr: Vec<i32>,
}

/// Whether asking for a topic may create it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absent {
    Create,
    Leave,
}

/// A blocking client of one cluster.
pub struct Client {
    bootstrap: String,
    options: Options,
    bootstrap_connection: Option<Connection>,
    brokers: BTreeMap<i32, Broker>,
}

struct Broker {
    address: String,
    connection: Option<Connection>,
}

impl Client {
    /// Connects to the bootstrap server.
    ///
    /// # Errors
    /// [`ClientError::Unreachable`] and others of [`Connection::open`].
    pub fn connect(bootstrap: &str, options: Options) -> Result<Client, ClientError> {
        let mut client = Client {
            bootstrap: bootstrap.to_string(),
            options,
            bootstrap_connection: None,
            brokers: BTreeMap::new(),
        };
        client.any()?;
        Ok(client)
    }

    pub fn options(&self) -> &Options {
        &self.options
    }

    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    fn settings(&self) -> Settings {
        Settings {
            client_id: self.options.client_id.clone(),
            connect_timeout: self.options.connect_timeout,
            request_timeout: self.options.timeout,
        }
    }

    /// The connection to the bootstrap server.
    pub(crate) fn any(&mut self) -> Result<&mut Connection, ClientError> {
        if self.bootstrap_connection.is_none() {
            self.bootstrap_connection = Some(Connection::open(&self.bootstrap, &self.settings())?);
        }
        Ok(self.bootstrap_connection.as_mut().expect("just opened"))
    }

    /// The connection to a broker that metadata named.
    pub(crate) fn node(&mut self, node: i32) -> Result<&mut Connection, ClientError> {
        let settings = self.settings();
        let broker = self.brokers.get_mut(&node).ok_or_else(|| ClientError::Refused {
            doing: format!("finding broker {node}"),
            code: ServerCode(ErrorCode::LeaderNotAvailable.code()),
            message: None,
        })?;
        if broker.connection.is_none() {
            broker.connection = Some(Connection::open(&broker.address, &settings)?);
        }
        Ok(broker.connection.as_mut().expect("just opened"))
    }

    /// Forgets a connection that failed, so that the next call opens a new one.
    pub(crate) fn drop_node(&mut self, node: i32) {
        if let Some(broker) = self.brokers.get_mut(&node) {
            broker.connection = None;
        }
    }

    /// Asks whichever broker is at the bootstrap address, with the newest version up to `newest`.
    ///
    /// # Errors
    /// [`ClientError`]; codes inside the answer are the caller's to read.
    pub fn ask<R: RequestResponsePair>(
        &mut self,
        request: &R,
        newest: i16,
    ) -> Result<R::Response, ClientError> {
        let timeout = self.options.timeout;
        let connection = self.any()?;
        let version = connection.version::<R>(newest)?;
        let answer = connection.call(request, version, timeout);
        if answer.is_err() {
            self.bootstrap_connection = None;
        }
        answer
    }

    /// Asks one broker.
    ///
    /// # Errors
    /// As [`Client::ask`].
    pub fn ask_node<R: RequestResponsePair>(
        &mut self,
        node: i32,
        request: &R,
        newest: i16,
    ) -> Result<R::Response, ClientError> {
        let timeout = self.options.timeout;
        let connection = self.node(node)?;
        let version = connection.version::<R>(newest)?;
        let answer = connection.call(request, version, timeout);
        if answer.is_err() {
            self.drop_node(node);
        }
        answer
    }

    /// Runs `attempt` until it succeeds, fails for good, or the time is up. Only for what may happen twice.
    ///
    /// # Errors
    /// The last one `attempt` gave.
    pub fn retry<T>(
        &mut self,
        mut attempt: impl FnMut(&mut Client) -> Result<T, ClientError>,
    ) -> Result<T, ClientError> {
        let deadline = Instant::now() + self.options.timeout;
        let mut pause = PAUSE_FIRST;
        loop {
            match attempt(self) {
                Err(error) if error.is_retriable() && Instant::now() + pause < deadline => {
                    std::thread::sleep(pause);
                    pause = (pause * 2).min(PAUSE_MAX);
                }
                result => return result,
            }
        }
    }

    /// Metadata of `topics`, or of all. Errors of single topics are in the answer.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn metadata(&mut self, topics: Option<&[String]>, absent: Absent) -> Result<Cluster, ClientError> {
        let mut request = MetadataRequest::default();
        request.allow_auto_topic_creation = absent == Absent::Create;
        request.topics = topics.map(|names| {
            names
                .iter()
                .map(|name| {
                    let mut topic = MetadataRequestTopic::default();
                    topic.name = Some(StrBytes::from(name.as_str()));
                    topic
                })
                .collect()
        });
        let answer = self.retry(|client| client.ask(&request, 12))?;
        let mut cluster = Cluster {
            cluster_id: answer.cluster_id.as_ref().map(|id| id.as_str().to_string()),
            controller: answer.controller_id,
            ..Cluster::default()
        };
        for broker in &answer.brokers {
            let host = broker.host.as_str();
            let address = if host.contains(':') {
                format!("[{host}]:{}", broker.port)
            } else {
                format!("{host}:{}", broker.port)
            };
            cluster.brokers.insert(broker.node_id, address);
        }
        cluster.topics = answer.topics.iter().map(topic).collect();
        self.brokers.retain(|node, broker| cluster.brokers.get(node) == Some(&broker.address));
        for (node, address) in &cluster.brokers {
            self.brokers
                .entry(*node)
                .or_insert_with(|| Broker { address: address.clone(), connection: None });
        }
        Ok(cluster)
    }

    /// One topic, all of whose partitions have a leader.
    ///
    /// # Errors
    /// A refusal when the topic stays unknown or without leader until the time is up; at once for a name that may not be.
    pub fn topic(&mut self, name: &str, absent: Absent) -> Result<Topic, ClientError> {
        let names = [name.to_string()];
        let doing = || format!("topic {name}");
        let give_up = |topic: &Topic| {
            topic.code.known() == Some(ErrorCode::UnknownTopicOrPartition) && absent == Absent::Leave
        };
        let found = self.retry(|client| {
            let cluster = client.metadata(Some(&names), absent)?;
            let Some(topic) = cluster.topics.into_iter().next() else {
                return Err(refused(doing(), ErrorCode::UnknownTopicOrPartition));
            };
            if give_up(&topic) {
                return Ok(Err(topic.code));
            }
            ClientError::check(topic.code.0, doing, None)?;
            if topic.partitions.is_empty() || topic.partitions.iter().any(|p| p.leader < 0) {
                return Err(refused(doing(), ErrorCode::LeaderNotAvailable));
            }
            Ok(Ok(topic))
        })?;
        found.map_err(|code| ClientError::Refused {
            doing: doing(),
            code,
            message: Some("there is no such topic".to_string()),
        })
    }
}

fn refused(doing: String, code: ErrorCode) -> ClientError {
    ClientError::Refused { doing, code: ServerCode(code.code()), message: None }
}

fn topic(topic: &kafka_wire::metadata_response::MetadataResponseTopic) -> Topic {
    let mut partitions: Vec<Partition> = topic
        .partitions
        .iter()
        .map(|p| Partition {
            index: p.partition_index,
            code: ServerCode(p.error_code),
            leader: p.leader_id,
            leader_epoch: p.leader_epoch,
            replicas: p.replica_nodes.clone(),
            isr: p.isr_nodes.clone(),
        })
        .collect();
    partitions.sort_by_key(|p| p.index);
    Topic {
        name: topic.name.as_ref().map(|name| name.as_str().to_string()).unwrap_or_default(),
        id: if topic.topic_id.is_zero() {
            String::new()
        } else {
            TopicId(topic.topic_id.to_bytes()).to_base64()
        },
        internal: topic.is_internal,
        code: ServerCode(topic.error_code),
        partitions,
    }
}
