//! The hot pieces, one at a time: `cargo bench -p ringmill-bench-micro [-- FILTER]`.
#![allow(clippy::unwrap_used)]

mod null_disk;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use null_disk::NullDisk;
use ringmill_bench_micro::frames::{Asked, FETCH_VERSION, PRODUCE_VERSION, fetch_frame, produce_frame};
use ringmill_bench_micro::{LogRig, batch};
use ringmill_log::LogOptions;
use ringmill_log::index::SegmentIndex;
use ringmill_record::BatchHeader;
use ringmill_record::produced::validate_produced;
use ringmill_types::{CoreId, ErrorCode, Offset, TopicId};
use ringmill_wire::fetch::{FetchPartitionAnswer, FetchRequest, FetchResponse};
use ringmill_wire::produce::{ProducePartitionAnswer, ProduceRequest, ProduceResponse};
use ringmill_wire::reader::Reader;
use ringmill_wire::{ApiKey, RequestHeader, ResponseHead, TopicRef, api::Encoding};
use std::hint::black_box;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Records of a batch and bytes of each value: one careful producer, a busy one, small records.
const SHAPES: [(i32, usize); 4] = [(1, 1000), (100, 1000), (1000, 1000), (1000, 100)];
/// Neither an id nor an epoch yet: the first of a session.
const FETCH_SESSION: (i32, i32) = (0, 0);
/// A rig is thrown away when it took this much, so that the simulated disk stays small.
const RIG_BYTES_MAX: u64 = 128 << 20;

fn validation(c: &mut Criterion) {
    let mut group = c.benchmark_group("validate");
    for (records, value) in SHAPES {
        let bytes = batch(records, value, 1_700_000_000_000);
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_function(BenchmarkId::from_parameter(format!("{records}x{value}")), |b| {
            b.iter(|| validate_produced(black_box(Some(&bytes)), PRODUCE_VERSION).unwrap());
        });
    }
}

fn append(c: &mut Criterion) {
    let mut group = c.benchmark_group("append");
    for (records, value) in SHAPES {
        let bytes = batch(records, value, 1_700_000_000_000);
        let header = BatchHeader::parse(&bytes).unwrap();
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_function(BenchmarkId::from_parameter(format!("{records}x{value}")), |b| {
            b.iter_custom(|iterations| append_times(iterations, &header, &bytes));
        });
    }
}

/// Appends and the turns that seal, complete and destage what was appended, on a disk that costs nothing.
fn append_times(iterations: u64, header: &BatchHeader, bytes: &[u8]) -> Duration {
    let (mut left, mut spent) = (iterations, Duration::ZERO);
    while left > 0 {
        let options = LogOptions::new(CoreId(0), PathBuf::from("/data"));
        let mut rig = LogRig::open(NullDisk::new(), options, 1);
        let slot = rig.slot(0);
        let count = left.min(RIG_BYTES_MAX / bytes.len() as u64);
        let begin = Instant::now();
        for _ in 0..count {
            while !rig.try_append(slot, header, bytes) {
                rig.turn();
            }
        }
        spent += begin.elapsed();
        left -= count;
    }
    spent
}

fn index(c: &mut Criterion) {
    let mut built = SegmentIndex::new(Offset(0), 4096);
    let mut header = BatchHeader::parse(&batch(1, 4000, 1_700_000_000_000)).unwrap();
    let batches = (1u32 << 30) / 4096;
    for at in 0..batches {
        header.base_offset = Offset(i64::from(at));
        header.max_timestamp_ms += 1;
        built.append(&header, at * 4096);
    }
    let mut group = c.benchmark_group("index");
    group.bench_function("lookup", |b| {
        let mut at = 0i64;
        b.iter(|| {
            at = (at + 7919) % i64::from(batches);
            built.lookup(black_box(Offset(at)))
        });
    });
    group.bench_function("append", |b| {
        b.iter_batched(
            || SegmentIndex::new(Offset(0), 4096),
            |mut index| {
                for at in 0..1000u32 {
                    header.base_offset = Offset(i64::from(at));
                    index.append(&header, at * 4096);
                }
                index
            },
            BatchSize::SmallInput,
        );
    });
}

fn produce_codec(c: &mut Criterion) {
    let mut group = c.benchmark_group("produce");
    let records = batch(1, 1000, 1_700_000_000_000);
    for partitions in [1, 100] {
        let frame = produce_frame(partitions, &records);
        group.bench_function(BenchmarkId::new("parse", partitions), |b| {
            b.iter(|| {
                let header = RequestHeader::parse(black_box(&frame)).unwrap();
                let request = ProduceRequest::parse(&header, &frame).unwrap();
                let lengths = request.topics().flat_map(|t| t.partitions());
                lengths.map(|p| p.records.map_or(0, <[u8]>::len)).sum::<usize>()
            });
        });
        let head = ResponseHead { api_key: ApiKey::PRODUCE, api_version: PRODUCE_VERSION, correlation_id: 1 };
        let mut out = Vec::new();
        group.bench_function(BenchmarkId::new("answer", partitions), |b| {
            b.iter(|| {
                out.clear();
                let mut answer = ProduceResponse::begin(&mut out, head, 1);
                answer.topic(TopicRef::Name("bench"), partitions);
                for index in 0..partitions as i32 {
                    let base = ProducePartitionAnswer::error(index, ErrorCode::None);
                    answer.partition(&ProducePartitionAnswer { base_offset: Offset(42), ..base });
                }
                answer.finish(0, &[]);
                out.len()
            });
        });
    }
}

fn fetch_codec(c: &mut Criterion) {
    let mut group = c.benchmark_group("fetch");
    for partitions in [1, 100] {
        let asked = vec![Asked { offset: 1000, bytes_max: 1 << 20 }; partitions];
        let frame = fetch_frame(FETCH_SESSION, &asked);
        let header = RequestHeader::parse(&frame).unwrap();
        let seen = FetchRequest::parse(&header, &frame).unwrap();
        assert_eq!(seen.topics().flat_map(|t| t.partitions()).count(), partitions);
        // The whole body was read: nothing is left for a field that was forgotten.
        assert_eq!(Reader::new(&frame, frame.len(), Encoding::Flexible).remaining(), 0);
        group.bench_function(BenchmarkId::new("parse", partitions), |b| {
            b.iter(|| {
                let header = RequestHeader::parse(black_box(&frame)).unwrap();
                let request = FetchRequest::parse(&header, &frame).unwrap();
                request.topics().flat_map(|t| t.partitions()).map(|p| p.fetch_offset.0).sum::<i64>()
            });
        });
        let head = ResponseHead { api_key: ApiKey::FETCH, api_version: FETCH_VERSION, correlation_id: 1 };
        group.bench_function(BenchmarkId::new("answer", partitions), |b| {
            b.iter(|| {
                let mut answer = FetchResponse::begin(head, 0, ErrorCode::None, 0, 1);
                answer.topic(TopicRef::Id(TopicId([7; 16])), partitions);
                for index in 0..partitions as i32 {
                    answer.partition(&FetchPartitionAnswer {
                        high_watermark: Offset(2000),
                        last_stable_offset: Offset(2000),
                        log_start_offset: Offset(0),
                        records_bytes: 1 << 20,
                        ..FetchPartitionAnswer::error(index, ErrorCode::None)
                    });
                }
                answer.finish(&[]).unwrap().total_bytes()
            });
        });
    }
}

criterion_group!(hot, validation, append, index, produce_codec, fetch_codec);
criterion_main!(hot);
