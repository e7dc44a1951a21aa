//! The data folder as a life takes it over: claimed, with the topics, the cores and the partition folders it has now.
//!
//! Owns the order in which that comes about, each step durable before the next; what must be there already is asked for
//! before anything is made (`missing.rs`).

use crate::args::BrokerOptions;
use crate::boot::journal_failure;
use crate::exit::Failure;
use crate::identity::{self, DataFolder, Wanted};
use crate::{adoption, control, generation, lacking, missing};
use ringmill_log::format::checkpoint::PartitionState;
use ringmill_log::inspect::Depth;
use ringmill_metadata::{FileJournal, Image};
use ringmill_reactor::Fs;
use std::sync::Arc;

pub struct Settled {
    pub folder: DataFolder,
    pub journal: FileJournal,
    pub image: Image,
    /// What cores of another life hand on to those of this one.
    pub inherited: Vec<PartitionState>,
}

impl Settled {
    /// Takes the folder over, and makes what a first start makes.
    ///
    /// # Errors
    /// Whatever keeps a broker from starting on it; the next start goes on from there.
    pub fn take(options: &BrokerOptions, fs: &Arc<dyn Fs>) -> Result<Settled, Failure> {
        let (data, wanted) = (&options.data, wanted(options));
        if let Some(dir) = &wanted.log_dir {
            let found = identity::look(fs.as_ref(), data)?;
            if found.is_none() {
                generation::check_vacant(&wanted, data, fs.as_ref())?;
            }
            // Where core logs were, it may be missing, and then it is not made anew yet: a device that is not mounted, say.
            let held = found.is_some_and(|found| found.generation.log_dir == wanted.log_dir);
            if !held || fs.exists(dir) {
                generation::make_log_dir(dir, fs.as_ref())?;
            }
        }
        let mut folder = identity::claim(fs.as_ref(), data, &wanted)?;
        missing::journal(&folder.identity.generation, data, fs.as_ref())?;
        let (mut journal, mut image) =
            FileJournal::open(Arc::clone(fs), data).map_err(|error| journal_failure(&error))?;
        missing::core_logs(&folder.identity.generation, data, &image, fs.as_ref())?;
        lacking::check(fs.as_ref(), data, &folder.identity.generation, &image, Depth::Checkpoint)?;
        if let Some(dir) = &wanted.log_dir {
            generation::make_log_dir(dir, fs.as_ref())?;
        }
        adoption::clear_deleted(fs, &folder, &mut journal, &mut image)?;
        let topics = |image: &Image| control::topics(image, options);
        let change = generation::Change { options, wanted: &wanted, topics: &topics, fs: fs.as_ref() };
        let inherited = change.settle(&mut folder, &mut journal, &mut image)?;
        missing::make_core_dirs(&folder, fs.as_ref())?;
        adoption::settle(fs.as_ref(), data, wanted.cores, &mut journal, &mut image)?;
        Ok(Settled { folder, journal, image, inherited })
    }
}

fn wanted(options: &BrokerOptions) -> Wanted {
    let settings = &options.config.settings;
    Wanted {
        node_id: settings.node_id,
        cluster_id: settings.cluster_id.clone(),
        cores: options.cores.len() as u16,
        log_dir: settings.core_log_dir.clone(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::args::ServeArgs;
    use crate::exit::Reason;
    use crate::host;
    use ringmill_log::format::checkpoint::{self, Checkpoint};
    use ringmill_metadata::records::Configs;
    use ringmill_metadata::{Journal as _, PartitionRecord, Record};
    use ringmill_reactor::sim::{Cut, SimOptions, SimWorld};
    use ringmill_types::{LeaderEpoch, PartitionId, TopicId};
    use std::cell::Cell;

    /// A data folder on a simulated disk. Only its lock is a real file.
    struct Home {
        dir: tempfile::TempDir,
        set: Vec<String>,
        world: SimWorld,
        /// Partitions that a core began without anything that was known of them.
        fresh: Cell<usize>,
    }

    impl Home {
        fn new(logs_apart: bool, seed: u64) -> Home {
            let dir = tempfile::tempdir().unwrap();
            let logs = dir.path().join("logs");
            std::fs::create_dir(dir.path().join("data")).unwrap();
            std::fs::create_dir(&logs).unwrap();
            let set = if logs_apart { vec![format!("core.log.dir={}", logs.display())] } else { Vec::new() };
            Home { dir, set, world: SimWorld::new(seed, SimOptions::default()), fresh: Cell::new(0) }
        }

        fn fs(&self) -> Arc<dyn Fs> {
            Arc::new(self.world.fs())
        }

        /// Takes the folder over, and places a topic on its cores when it has none.
        fn life(&self, cores: &str) -> Result<Settled, Failure> {
            let args = ServeArgs {
                data: Some(self.dir.path().join("data")),
                cores: Some(cores.into()),
                set: self.set.clone(),
                ..ServeArgs::default()
            };
            let options = BrokerOptions::resolve(&args, &host::facts())?;
            let mut settled = Settled::take(&options, &self.fs())?;
            if settled.image.named("orders").is_none() {
                let placed = settled.image.place(4, options.cores.len() as u16).into_iter().zip(0..);
                let partition =
                    |(core, id)| PartitionRecord { id: PartitionId(id), core, epoch: LeaderEpoch(0) };
                let made = Record::TopicCreated {
                    name: "orders".into(),
                    id: TopicId([7; 16]),
                    created_ms: 0,
                    configs: Configs::new(),
                    partitions: placed.map(partition).collect(),
                };
                settled
                    .journal
                    .append(std::slice::from_ref(&made))
                    .map_err(|error| journal_failure(&error))?;
                settled.image.apply(&made);
            }
            self.checkpoints(&settled)?;
            generation::forget(&settled.folder.path, self.fs().as_ref())?;
            Ok(settled)
        }

        /// What each core of this life writes before it serves, and leaves after an orderly stop.
        fn checkpoints(&self, settled: &Settled) -> Result<(), Failure> {
            let (fs, generation) = (self.fs(), &settled.folder.identity.generation);
            let unusable = |error: std::io::Error| Failure::new(Reason::DataUnusable, error.to_string());
            for core in 0..generation.cores {
                let dir = generation.core_dir(&settled.folder.path, core);
                let newest = checkpoint::read_newest(fs.as_ref(), &dir)
                    .map_err(|e| unusable(std::io::Error::other(e.to_string())))?;
                let known = newest.as_ref().map_or(&settled.inherited, |newest| &newest.partitions);
                let own = settled.image.topics().flat_map(|topic| &topic.partitions);
                let own = own.filter(|partition| partition.core.0 == core).map(|partition| {
                    known.iter().find(|state| state.id == partition.id.0).cloned().unwrap_or_else(|| {
                        self.fresh.set(self.fresh.get() + 1);
                        PartitionState { id: partition.id.0, ..PartitionState::default() }
                    })
                });
                let sequence = newest.as_ref().map_or(1, |newest| newest.sequence + 1);
                let next = Checkpoint {
                    sequence,
                    core,
                    clean: true,
                    partitions: own.collect(),
                    ..Checkpoint::default()
                };
                checkpoint::write_slot(fs.as_ref(), &dir, &next).map_err(unusable)?;
            }
            Ok(())
        }

        /// The power goes now, if it has not gone yet.
        fn cut(&self) {
            self.world.end_life(Cut::Power);
            self.world.set_fuse(None);
        }
    }

    /// Loses the power at every call that a start makes to the file system; the next start must find nothing missing.
    fn check_cuts(logs_apart: bool, before: fn(&Home), cores: &str) {
        let mut calls = 0;
        loop {
            let home = Home::new(logs_apart, calls);
            before(&home);
            let known = home.fresh.get();
            home.world.set_fuse(Some(calls));
            let whole = home.life(cores).is_ok();
            home.cut();
            if let Err(refused) = home.life(cores) {
                panic!("refused after the power went at call {calls}: {refused}");
            }
            if known > 0 {
                assert_eq!(home.fresh.get(), known, "forgotten when the power went at call {calls}");
            }
            if whole {
                break;
            }
            calls += 1;
        }
        assert!(calls > 30, "{calls}");
    }

    #[test]
    fn nothing_is_missed_after_a_first_start_that_was_cut() {
        for logs_apart in [false, true] {
            check_cuts(logs_apart, |_| (), "2");
        }
    }

    /// As a change leaves it whose old cores have just been drained.
    fn drained(home: &Home) {
        let mut settled = home.life("2").unwrap();
        settled.folder.identity.generation.drained = true;
        settled.folder.save(home.fs().as_ref()).unwrap();
    }

    #[test]
    fn nothing_is_missed_after_a_change_of_cores_that_was_cut() {
        for logs_apart in [false, true] {
            check_cuts(logs_apart, drained, "3");
        }
    }

    /// As it is before a change of cores, and after it, with cores of any number; and after one that was cut.
    #[test]
    fn a_journal_of_before_a_change_of_cores_is_refused() {
        let home = Home::new(false, 0);
        drained(&home);
        let (fs, path) = (home.fs(), home.dir.path().join("data/meta/journal"));
        let before = fs.read_all(&path).unwrap();
        home.life("3").unwrap();
        let after = fs.read_all(&path).unwrap();
        fs.replace(&path, &before).unwrap();
        for cores in ["3", "2"] {
            let refused = home.life(cores).err().unwrap();
            assert_eq!(refused.reason, Reason::DataDamaged, "{refused}");
            assert!(refused.to_string().contains("places partitions where they are not"), "{refused}");
            assert_eq!(fs.read_all(&path).unwrap(), before, "nothing was changed");
        }
        fs.replace(&path, &after).unwrap();
        home.life("3").unwrap();
    }

    #[test]
    fn what_is_taken_away_is_missed() {
        for name in ["meta/journal", "core-1"] {
            let home = Home::new(false, 0);
            home.life("2").unwrap();
            let (fs, path) = (home.fs(), home.dir.path().join("data").join(name));
            if name == "core-1" { fs.remove_dir_all(&path) } else { fs.remove_file(&path) }.unwrap();
            for cores in ["2", "3"] {
                let refused = home.life(cores).err().unwrap();
                assert_eq!(refused.reason, Reason::DataDamaged, "{refused}");
                assert!(refused.to_string().contains(&path.display().to_string()), "{refused}");
                assert!(!fs.exists(&path), "{name} is not made anew");
            }
        }
    }

    /// A device for core logs that is not mounted, mount point and all.
    #[test]
    fn the_folder_of_all_core_logs_is_missed_like_one_of_them() {
        let home = Home::new(true, 0);
        home.life("2").unwrap();
        let (fs, logs) = (home.fs(), home.dir.path().join("logs"));
        fs.remove_dir_all(&logs).unwrap();
        let refused = home.life("2").err().unwrap();
        assert_eq!(refused.reason, Reason::DataDamaged, "{refused}");
        let said = refused.to_string();
        assert!(said.contains(&logs.join("core-0").display().to_string()), "{said}");
        assert!(said.contains("is the device of core.log.dir mounted?"), "{said}");
        assert!(!fs.exists(&logs), "nothing is made where the device is to be");
    }
}
