//! Reading records: positions per partition, fetches to every leader at once, batches checked before they are believed.

use crate::admin::{EARLIEST, LATEST};
use crate::batch::{OpenBatch, RecordView, check_stored};
use crate::client::{Absent, Client, Partition, Topic};
use crate::connection::Pending;
use crate::error::{ClientError, ServerCode};
use kafka_wire::FetchRequest;
use kafka_wire::fetch_request::{FetchPartition, FetchTopic};
use kafka_wire::fetch_response::PartitionData;
use kafka_wire_core::StrBytes;
use ringmill_record::Batches;
use ringmill_types::ErrorCode;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

/// The last version that names topics instead of giving their ids.
const FETCH_BY_NAME: i16 = 12;
/// A broker may hold an answer this long for lack of records.
const WAIT: Duration = Duration::from_millis(500);
const PARTITION_BYTES: i32 = 4 << 20;
const ANSWER_BYTES: i32 = 32 << 20;
const PAUSE: Duration = Duration::from_millis(100);

/// Where reading begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    Beginning,
    End,
    Offset(i64),
    /// So many records before the end of each partition.
    Last(i64),
    /// The first record at or after this time, in milliseconds; the end if there is none.
    Timestamp(i64),
}

/// What happens beside records, for the reader to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// Retention was faster than the reader: records between these offsets are gone.
    Skipped { partition: i32, from: i64, to: i64 },
}

/// Reads partitions of one topic.
pub struct Consumer<'a> {
    client: &'a mut Client,
    topic: Topic,
    positions: BTreeMap<i32, i64>,
    /// Where each partition ended when reading began.
    ends: BTreeMap<i32, i64>,
    failing_since: Option<Instant>,
    stop_at_end: bool,
}

impl<'a> Consumer<'a> {
    /// Finds the topic and where to begin; `partitions` none means all.
    ///
    /// # Errors
    /// [`ClientError`]; also for a partition that does not exist, or an offset outside the partition.
    pub fn new(
        client: &'a mut Client,
        topic: &str,
        partitions: Option<&[i32]>,
        start: Start,
    ) -> Result<Consumer<'a>, ClientError> {
        let mut topic = client.topic(topic, Absent::Leave)?;
        if let Some(wanted) = partitions {
            if let Some(missing) = wanted.iter().find(|w| !topic.partitions.iter().any(|p| p.index == **w)) {
                let last = topic.partitions.len().saturating_sub(1);
                let text = format!("topic {} has no partition {missing}; its last is {last}", topic.name);
                return Err(ClientError::Records(text));
            }
            topic.partitions.retain(|p| wanted.contains(&p.index));
        }
        let first = offsets(client, &topic, EARLIEST)?;
        let ends = offsets(client, &topic, LATEST)?;
        let positions = match start {
            Start::Beginning => first,
            Start::End => ends.clone(),
            Start::Last(count) => {
                let back = |(partition, end): (&i32, &i64)| {
                    let floor = first.get(partition).copied().unwrap_or(0);
                    (*partition, end.saturating_sub(count).max(floor))
                };
                ends.iter().map(back).collect()
            }
            Start::Timestamp(at) => {
                let mut found = offsets(client, &topic, at)?;
                for (partition, offset) in &mut found {
                    if *offset < 0 {
                        *offset = ends.get(partition).copied().unwrap_or(0);
                    }
                }
                found
            }
            Start::Offset(offset) => {
                for partition in &topic.partitions {
                    let from = first.get(&partition.index).copied().unwrap_or(0);
                    let to = ends.get(&partition.index).copied().unwrap_or(0);
                    if !(from..=to).contains(&offset) {
                        return Err(ClientError::Records(format!(
                            "partition {} of {} holds offsets {from} to {to}, not {offset}",
                            partition.index, topic.name
                        )));
                    }
                }
                topic.partitions.iter().map(|p| (p.index, offset)).collect()
            }
        };
        Ok(Consumer { client, topic, positions, ends, failing_since: None, stop_at_end: false })
    }

    pub fn topic(&self) -> &Topic {
        &self.topic
    }

    /// Goes on at this offset of a partition; nothing happens for one that is not read.
    pub fn seek(&mut self, partition: i32, offset: i64) {
        if let Some(position) = self.positions.get_mut(&partition) {
            *position = offset;
        }
    }

    /// The offset behind the last record that was given, or where reading began, by partition.
    pub fn positions(&self) -> impl Iterator<Item = (i32, i64)> {
        self.positions.iter().map(|(partition, offset)| (*partition, *offset))
    }

    /// Gives no records beyond where each partition ended when reading began.
    pub fn stop_at_end(&mut self) {
        self.stop_at_end = true;
    }

    fn is_past_end(&self, partition: i32, offset: i64) -> bool {
        self.stop_at_end && self.ends.get(&partition).is_some_and(|end| offset >= *end)
    }

    /// Whether every partition was read up to where it ended when reading began.
    pub fn reached_end(&self) -> bool {
        self.positions.iter().all(|(partition, at)| self.ends.get(partition).is_none_or(|end| at >= end))
    }

    /// Fetches once from every leader and gives each record to `each`, in order within a partition, until it breaks.
    /// Returns after half a second when there is nothing new.
    ///
    /// # Errors
    /// [`ClientError`], once the client's timeout has passed without a successful fetch.
    pub fn poll(
        &mut self,
        each: &mut dyn FnMut(i32, &RecordView<'_>) -> ControlFlow<()>,
        notice: &mut dyn FnMut(Notice),
    ) -> Result<ControlFlow<()>, ClientError> {
        let result = self.fetch_all().and_then(|answers| self.take(answers, each, notice));
        match result {
            Ok(flow) => {
                self.failing_since = None;
                Ok(flow)
            }
            Err(error) if error.is_retriable() => {
                let since = *self.failing_since.get_or_insert_with(Instant::now);
                if since.elapsed() > self.client.options().timeout {
                    return Err(error);
                }
                std::thread::sleep(PAUSE);
                self.refresh()?;
                Ok(ControlFlow::Continue(()))
            }
            Err(error) => Err(error),
        }
    }

    /// Leaders may have moved.
    fn refresh(&mut self) -> Result<(), ClientError> {
        let fresh = self.client.topic(&self.topic.name, Absent::Leave)?;
        let positions = &self.positions;
        self.topic = Topic {
            partitions: fresh.partitions.into_iter().filter(|p| positions.contains_key(&p.index)).collect(),
            ..fresh
        };
        Ok(())
    }

    /// Sends a fetch to every leader before waiting for any, so that one quiet leader does not hold up the others.
    fn fetch_all(&mut self) -> Result<Vec<PartitionData>, ClientError> {
        let mut leaders: Vec<i32> = self.wanted().map(|p| p.leader).collect();
        leaders.sort_unstable();
        leaders.dedup();
        let timeout = self.client.options().timeout + WAIT;
        let mut sent: Vec<(i32, Pending)> = Vec::new();
        let mut failed = None;
        for leader in leaders {
            let request = self.request(leader);
            let pending = self.client.node(leader).and_then(|connection| {
                let version = connection.version::<FetchRequest>(FETCH_BY_NAME)?;
                connection.send(&request, version, timeout)
            });
            match pending {
                Ok(pending) => sent.push((leader, pending)),
                Err(error) => {
                    self.client.drop_node(leader);
                    failed = Some(error);
                }
            }
        }
        let mut partitions = Vec::new();
        for (leader, pending) in sent {
            let answer =
                self.client.node(leader).and_then(|connection| connection.receive::<FetchRequest>(&pending));
            match answer {
                Ok(answer) => {
                    ClientError::check(
                        answer.error_code,
                        || format!("fetching from {}", self.topic.name),
                        None,
                    )?;
                    partitions.extend(answer.responses.into_iter().flat_map(|topic| topic.partitions));
                }
                Err(error) => {
                    self.client.drop_node(leader);
                    failed = Some(error);
                }
            }
        }
        match failed {
            // What one leader gave is not thrown away because another failed; that one is asked again.
            Some(error) if partitions.is_empty() => Err(error),
            Some(_) | None => Ok(partitions),
        }
    }

    /// Partitions that are still to be read.
    fn wanted(&self) -> impl Iterator<Item = &Partition> {
        let position = |p: &Partition| self.positions.get(&p.index).copied().unwrap_or(0);
        self.topic.partitions.iter().filter(move |p| !self.is_past_end(p.index, position(p)))
    }

    fn request(&self, leader: i32) -> FetchRequest {
        let mut topic = FetchTopic::default();
        topic.topic = StrBytes::from(self.topic.name.as_str());
        for partition in self.wanted().filter(|p| p.leader == leader) {
            let mut wanted = FetchPartition::default();
            wanted.partition = partition.index;
            wanted.current_leader_epoch = -1;
            wanted.last_fetched_epoch = -1;
            wanted.log_start_offset = -1;
            wanted.fetch_offset = self.positions.get(&partition.index).copied().unwrap_or(0);
            wanted.partition_max_bytes = PARTITION_BYTES;
            topic.partitions.push(wanted);
        }
        let mut request = FetchRequest::default();
        request.replica_id = -1;
        request.max_wait_ms = WAIT.as_millis() as i32;
        request.min_bytes = 1;
        request.max_bytes = ANSWER_BYTES;
        request.session_id = 0;
        request.session_epoch = -1;
        request.topics = vec![topic];
        request
    }

    fn take(
        &mut self,
        answers: Vec<PartitionData>,
        each: &mut dyn FnMut(i32, &RecordView<'_>) -> ControlFlow<()>,
        notice: &mut dyn FnMut(Notice),
    ) -> Result<ControlFlow<()>, ClientError> {
        for data in answers {
            let partition = data.partition_index;
            if ServerCode(data.error_code).known() == Some(ErrorCode::OffsetOutOfRange) {
                self.skip(partition, notice)?;
                continue;
            }
            let doing = || format!("fetching partition {partition} of {}", self.topic.name);
            ClientError::check(data.error_code, doing, None)?;
            let bytes = data.records.unwrap_or_default();
            if self.records(partition, &bytes, each)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// The position is gone: go on at the partition's new start, or say that the partition has become shorter.
    fn skip(&mut self, partition: i32, notice: &mut dyn FnMut(Notice)) -> Result<(), ClientError> {
        let at = self.positions.get(&partition).copied().unwrap_or(0);
        let first = offsets(self.client, &self.topic, EARLIEST)?.get(&partition).copied().unwrap_or(0);
        if first <= at {
            return Err(ClientError::Records(format!(
                "partition {partition} of {} no longer reaches offset {at}: it was deleted and made again, or lost records",
                self.topic.name
            )));
        }
        notice(Notice::Skipped { partition, from: at, to: first });
        self.positions.insert(partition, first);
        Ok(())
    }

    fn records(
        &mut self,
        partition: i32,
        bytes: &[u8],
        each: &mut dyn FnMut(i32, &RecordView<'_>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, ClientError> {
        let mut position = self.positions.get(&partition).copied().unwrap_or(0);
        let topic = &self.topic.name;
        // The last batch may be cut off by the size of the answer; `Batches` leaves it out.
        for (header, batch) in Batches::new(bytes) {
            let damaged = |why: String| {
                let at = header.base_offset;
                ClientError::Records(format!(
                    "the batch at offset {at} of partition {partition} of {topic}: {why}"
                ))
            };
            check_stored(&header, batch).map_err(|why| damaged(why.to_string()))?;
            let next = header.next_offset().0;
            if next <= position {
                continue;
            }
            if !header.is_control() {
                let open = OpenBatch::new(header, batch).map_err(damaged)?;
                for record in open.records() {
                    let record = record.map_err(damaged)?;
                    if record.offset < position {
                        continue;
                    }
                    if self.is_past_end(partition, record.offset) {
                        self.positions.insert(partition, record.offset);
                        return Ok(ControlFlow::Continue(()));
                    }
                    position = record.offset + 1;
                    if each(partition, &record).is_break() {
                        self.positions.insert(partition, position);
                        return Ok(ControlFlow::Break(()));
                    }
                }
            }
            position = next;
            self.positions.insert(partition, position);
        }
        Ok(ControlFlow::Continue(()))
    }
}

fn offsets(client: &mut Client, topic: &Topic, timestamp: i64) -> Result<BTreeMap<i32, i64>, ClientError> {
    client.retry(|client| {
        let found = client.offsets(std::slice::from_ref(topic), timestamp)?;
        let mut out = BTreeMap::new();
        for ((name, partition), offset) in found {
            let offset = offset.map_err(|code| ClientError::Refused {
                doing: format!("finding offsets of partition {partition} of {name}"),
                code,
                message: None,
            })?;
            out.insert(partition, offset);
        }
        Ok(out)
    })
}
