//! The journal on a simulated disk whose power goes in the middle of appends, openings and rewrites: whatever was
//! answered is there, of the append that was cut off the first few records or none, and no cut is taken for damage.
#![allow(clippy::unwrap_used)]

use ringmill_metadata::{FileJournal, Image, Journal, PartitionRecord, Record};
use ringmill_reactor::Fs;
use ringmill_reactor::sim::{Cut, SimOptions, SimRng, SimWorld};
use ringmill_types::{CoreId, LeaderEpoch, PartitionId, TopicId};
use std::path::Path;
use std::sync::Arc;

/// What was found after cuts that came during an append.
#[derive(Default)]
struct Found {
    all: u64,
    some: u64,
    none: u64,
}

struct Run {
    world: SimWorld,
    rng: SimRng,
    /// Answered, or found at an opening that went well.
    sure: Vec<Record>,
    /// Being appended when the power went.
    under_way: Vec<Record>,
    next: u64,
}

fn image(records: &[Record]) -> Image {
    let mut image = Image::new();
    records.iter().for_each(|record| image.apply(record));
    image
}

impl Run {
    fn new(seed: u64) -> Run {
        let world = SimWorld::new(seed, SimOptions::default());
        let fs = world.fs();
        fs.create_dir_all(Path::new("/data")).unwrap();
        fs.sync_dir(Path::new("/")).unwrap();
        let rng = world.fork_rng();
        Run { world, rng, sure: Vec::new(), under_way: Vec::new(), next: 1 }
    }

    fn fs(&self) -> Arc<dyn Fs> {
        Arc::new(self.world.fs())
    }

    /// Longer than a sector as often as not.
    fn record(&mut self) -> Record {
        let number = self.next;
        self.next += 1;
        let partition = |at| PartitionRecord {
            id: PartitionId(number << 32 | at),
            core: CoreId(1),
            epoch: LeaderEpoch(0),
        };
        Record::TopicCreated {
            name: format!("topic-{number}"),
            id: TopicId(u128::from(number).to_be_bytes()),
            created_ms: number as i64,
            configs: [("retention.ms".to_string(), number.to_string())].into(),
            partitions: (1..1 + self.rng.below(90)).map(partition).collect(),
        }
    }

    /// One life: opens, appends until the power goes.
    fn live(&mut self, found: &mut Found) -> Result<(), String> {
        let early = self.rng.chance_ppm(200_000);
        self.world.set_fuse(early.then(|| self.rng.below(12)));
        let opened = FileJournal::open(self.fs(), Path::new("/data"));
        if self.world.power_is_gone() {
            self.world.end_life(Cut::Power);
            return Ok(());
        }
        let (mut journal, opened) = opened.map_err(|e| format!("a cut was taken for damage: {e}"))?;
        self.judge(&opened, found)?;
        self.world.set_fuse(Some(self.rng.below(40)));
        loop {
            let count = self.rng.between(1, 6);
            self.under_way = (0..count).map(|_| self.record()).collect();
            let appended = journal.append(&self.under_way);
            if self.world.power_is_gone() {
                break;
            }
            appended.map_err(|e| format!("refused with the power on: {e}"))?;
            self.sure.append(&mut self.under_way);
            if self.rng.chance_ppm(100_000) {
                let rewritten = journal.compact(&image(&self.sure));
                if self.world.power_is_gone() {
                    break;
                }
                rewritten.map_err(|e| format!("not rewritten with the power on: {e}"))?;
            }
        }
        self.world.end_life(Cut::Power);
        Ok(())
    }

    fn judge(&mut self, opened: &Image, found: &mut Found) -> Result<(), String> {
        let sure = self.sure.len();
        let mut records = std::mem::take(&mut self.sure);
        records.append(&mut self.under_way);
        let fits = |end: &usize| image(&records[..*end]).to_records() == opened.to_records();
        let Some(end) = (sure..=records.len()).find(fits) else {
            return Err(format!("{} topics are there, {sure} were answered", opened.topics().count()));
        };
        if end == records.len() {
            found.all += 1;
        } else if end == sure {
            found.none += 1;
        } else {
            found.some += 1;
        }
        records.truncate(end);
        self.sure = records;
        Ok(())
    }
}

#[test]
fn no_cut_loses_an_answered_record_and_none_is_taken_for_damage() {
    let mut found = Found::default();
    for seed in 0..150 {
        let mut run = Run::new(seed);
        for _ in 0..8 {
            run.live(&mut found).unwrap_or_else(|why| panic!("seed {seed}: {why}"));
        }
    }
    assert!(found.all > 0 && found.some > 0 && found.none > 0);
}
