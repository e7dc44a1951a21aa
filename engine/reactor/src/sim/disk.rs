//! A disk with two images: what programs see (live), and what a power cut leaves (durable).
//!
//! Between them stand pending changes, in the order in which they landed. A sync moves those it covers into the durable
//! image; a cut keeps each 512-byte sector of the others or does not. Names are pending apart from bytes, per folder,
//! as conservatively as ext4 documents it: a file's sync does not make its name durable.

use super::rng::SimRng;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Component, Path};
use std::sync::Arc;

const PAGE: u64 = 4096;
const SECTOR: usize = 512;

/// Faults of a disk, chances in a million per operation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskFaults {
    pub read_error_ppm: u32,
    pub write_error_ppm: u32,
    pub sync_error_ppm: u32,
}

type Page = [u8; PAGE as usize];

#[derive(Clone, Default)]
struct Image {
    pages: BTreeMap<u64, Arc<Page>>,
    len: u64,
}

impl Image {
    fn write(&mut self, offset: u64, bytes: &[u8]) {
        let mut done = 0;
        while done < bytes.len() {
            let at = offset + done as u64;
            let inside = (at % PAGE) as usize;
            let step = (PAGE as usize - inside).min(bytes.len() - done);
            let page = self.pages.entry(at / PAGE).or_insert_with(|| Arc::new([0; PAGE as usize]));
            let target = Arc::make_mut(page).get_mut(inside..inside + step).unwrap_or_default();
            target.copy_from_slice(bytes.get(done..done + step).unwrap_or_default());
            done += step;
        }
        self.len = self.len.max(offset + bytes.len() as u64);
    }

    fn read(&self, offset: u64, buf: &mut [u8]) -> usize {
        let want = (self.len.saturating_sub(offset)).min(buf.len() as u64) as usize;
        let mut done = 0;
        while done < want {
            let at = offset + done as u64;
            let inside = (at % PAGE) as usize;
            let step = (PAGE as usize - inside).min(want - done);
            let target = buf.get_mut(done..done + step).unwrap_or_default();
            match self.pages.get(&(at / PAGE)) {
                Some(page) => target.copy_from_slice(page.get(inside..inside + step).unwrap_or_default()),
                None => target.fill(0),
            }
            done += step;
        }
        want
    }

    fn set_len(&mut self, len: u64) {
        if len < self.len {
            self.pages.split_off(&len.div_ceil(PAGE));
            if let Some(page) = self.pages.get_mut(&(len / PAGE)) {
                Arc::make_mut(page).get_mut((len % PAGE) as usize..).unwrap_or_default().fill(0);
            }
        }
        self.len = len;
    }

    fn reserve(&mut self, offset: u64, len: u64, zeros: &Arc<Page>) {
        for page in offset / PAGE..(offset + len).div_ceil(PAGE) {
            self.pages.entry(page).or_insert_with(|| zeros.clone());
        }
        self.len = self.len.max(offset + len);
    }

    fn new_pages(&self, offset: u64, len: u64) -> u64 {
        let (first, end) = (offset / PAGE, (offset + len).div_ceil(PAGE));
        (end - first).saturating_sub(self.pages.range(first..end).count() as u64)
    }
}

enum Change {
    Write { offset: u64, bytes: Arc<[u8]> },
    SetLen(u64),
    Reserve { offset: u64, len: u64 },
}

impl Change {
    fn apply(&self, image: &mut Image, zeros: &Arc<Page>) {
        match self {
            Change::Write { offset, bytes } => image.write(*offset, bytes),
            Change::SetLen(len) => image.set_len(*len),
            Change::Reserve { offset, len } => image.reserve(*offset, *len, zeros),
        }
    }

    /// What the cut leaves of it: all, nothing, or any of its sectors.
    fn apply_torn(&self, image: &mut Image, zeros: &Arc<Page>, rng: &mut SimRng) {
        match (self, rng.below(4)) {
            (_, 0) => {}
            (_, 1) | (Change::SetLen(_) | Change::Reserve { .. }, _) => self.apply(image, zeros),
            (Change::Write { offset, bytes }, _) => {
                // The device's sectors, wherever in one the write begins.
                let (mut at, mut rest) = (*offset, &bytes[..]);
                while !rest.is_empty() {
                    let (sector, next) = rest.split_at(rest.len().min(SECTOR - at as usize % SECTOR));
                    if rng.coin() {
                        image.write(at, sector);
                    }
                    (at, rest) = (at + sector.len() as u64, next);
                }
            }
        }
    }

    fn overlaps(&self, other: &Change) -> bool {
        let span = |change: &Change| match change {
            Change::Write { offset, bytes } => (*offset, *offset + bytes.len() as u64),
            Change::SetLen(len) => (*len, u64::MAX),
            Change::Reserve { offset, len } => (*offset, offset + len),
        };
        let (a, b) = (span(self), span(other));
        a.0 < b.1 && b.0 < a.1
    }
}

struct Pending {
    id: u64,
    change: Change,
}

#[derive(Default)]
struct File {
    live: Image,
    durable: Image,
    pending: Vec<Pending>,
}

#[derive(Default)]
struct Dir {
    live: BTreeMap<String, u64>,
    durable: BTreeMap<String, u64>,
}

enum Node {
    File(File),
    Dir(Dir),
}

enum NameChange {
    Link { dir: u64, name: String, node: u64 },
    Unlink { dir: u64, name: String },
    Rename { from: u64, name: String, to: u64, new_name: String, node: u64 },
}

impl NameChange {
    fn dirs(&self) -> [u64; 2] {
        match self {
            NameChange::Link { dir, .. } | NameChange::Unlink { dir, .. } => [*dir, *dir],
            NameChange::Rename { from, to, .. } => [*from, *to],
        }
    }
}

struct InFlight {
    node: u64,
    change: Change,
}

/// The state of one disk. All calls are one atomic step.
pub(crate) struct Disk {
    nodes: BTreeMap<u64, Node>,
    names: Vec<NameChange>,
    in_flight: BTreeMap<u64, InFlight>,
    next_id: u64,
    zeros: Arc<Page>,
    pub rng: SimRng,
    pub capacity_bytes: u64,
    pub faults: DiskFaults,
    /// Errors given so far.
    pub errors: u64,
    /// Incarnation: operations that began in an earlier one fail.
    pub life: u64,
    /// File-system calls until the power goes, if it is to go in the middle of one of them.
    pub fuse: Option<u64>,
    /// One more owner than there are open files and folders.
    descriptors: Arc<()>,
    pub descriptors_max: usize,
    /// The most there were at once.
    pub descriptors_peak: usize,
}

pub(crate) const ROOT: u64 = 1;

pub(crate) fn os(errno: i32) -> io::Error {
    io::Error::from_raw_os_error(errno)
}

impl Disk {
    pub fn new(rng: SimRng, capacity_bytes: u64) -> Disk {
        Disk {
            nodes: BTreeMap::from([(ROOT, Node::Dir(Dir::default()))]),
            names: Vec::new(),
            in_flight: BTreeMap::new(),
            next_id: ROOT + 1,
            zeros: Arc::new([0; PAGE as usize]),
            rng,
            capacity_bytes,
            faults: DiskFaults::default(),
            errors: 0,
            life: 0,
            fuse: None,
            descriptors: Arc::new(()),
            descriptors_max: usize::MAX,
            descriptors_peak: 0,
        }
    }

    pub fn descriptors(&self) -> usize {
        Arc::strong_count(&self.descriptors) - 1
    }

    /// Counts as open until it is dropped.
    pub fn take_descriptor(&mut self) -> io::Result<Arc<()>> {
        if self.descriptors() >= self.descriptors_max {
            return Err(os(libc::EMFILE));
        }
        let taken = self.descriptors.clone();
        self.descriptors_peak = self.descriptors_peak.max(self.descriptors());
        Ok(taken)
    }

    fn id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    fn dir(&self, id: u64) -> io::Result<&Dir> {
        match self.nodes.get(&id) {
            Some(Node::Dir(dir)) => Ok(dir),
            Some(Node::File(_)) => Err(os(libc::ENOTDIR)),
            None => Err(os(libc::ENOENT)),
        }
    }

    fn file(&self, id: u64) -> io::Result<&File> {
        match self.nodes.get(&id) {
            Some(Node::File(file)) => Ok(file),
            Some(Node::Dir(_)) => Err(os(libc::EISDIR)),
            None => Err(os(libc::EIO)),
        }
    }

    fn file_mut(&mut self, id: u64) -> io::Result<&mut File> {
        match self.nodes.get_mut(&id) {
            Some(Node::File(file)) => Ok(file),
            Some(Node::Dir(_)) => Err(os(libc::EISDIR)),
            None => Err(os(libc::EIO)),
        }
    }

    pub fn used_bytes(&self) -> u64 {
        let pages = |node: &Node| match node {
            Node::File(file) => file.live.pages.len() as u64,
            Node::Dir(_) => 0,
        };
        self.nodes.values().map(pages).sum::<u64>() * PAGE
    }

    /// The folder that holds the last name of `path`, and that name.
    fn parent<'a>(&self, path: &'a Path) -> io::Result<(u64, &'a str)> {
        let name = path.file_name().and_then(|n| n.to_str()).ok_or_else(|| os(libc::EINVAL))?;
        let dir = self.lookup(path.parent().unwrap_or(Path::new("")))?;
        Ok((dir, name))
    }

    pub fn lookup(&self, path: &Path) -> io::Result<u64> {
        let mut at = ROOT;
        for part in path.components() {
            let Component::Normal(name) = part else { continue };
            let name = name.to_str().ok_or_else(|| os(libc::EINVAL))?;
            at = *self.dir(at)?.live.get(name).ok_or_else(|| os(libc::ENOENT))?;
        }
        Ok(at)
    }

    fn rename_apply(&mut self, change: &NameChange, durable: bool) {
        let mut edit = |dir: u64, name: &String, node: Option<u64>| {
            let Some(Node::Dir(dir)) = self.nodes.get_mut(&dir) else { return };
            let names = if durable { &mut dir.durable } else { &mut dir.live };
            match node {
                Some(node) => names.insert(name.clone(), node),
                None => names.remove(name),
            };
        };
        match change {
            NameChange::Link { dir, name, node } => edit(*dir, name, Some(*node)),
            NameChange::Unlink { dir, name } => edit(*dir, name, None),
            NameChange::Rename { from, name, to, new_name, node } => {
                edit(*from, name, None);
                edit(*to, new_name, Some(*node));
            }
        }
    }

    fn change_names(&mut self, change: NameChange) {
        self.rename_apply(&change, false);
        self.names.push(change);
    }

    fn link(&mut self, dir: u64, name: &str, node: Node) -> u64 {
        let id = self.id();
        self.nodes.insert(id, node);
        self.change_names(NameChange::Link { dir, name: name.to_string(), node: id });
        id
    }

    pub fn open(&mut self, path: &Path, create: bool) -> io::Result<u64> {
        match self.lookup(path) {
            Ok(id) => self.file(id).map(|_| id),
            Err(error) if create && error.raw_os_error() == Some(libc::ENOENT) => {
                let (dir, name) = self.parent(path)?;
                self.dir(dir)?;
                Ok(self.link(dir, name, Node::File(File::default())))
            }
            Err(error) => Err(error),
        }
    }

    pub fn create_dir_all(&mut self, path: &Path) -> io::Result<()> {
        let mut at = ROOT;
        for part in path.components() {
            let Component::Normal(name) = part else { continue };
            let name = name.to_str().ok_or_else(|| os(libc::EINVAL))?;
            at = match self.dir(at)?.live.get(name) {
                Some(id) => *id,
                None => self.link(at, name, Node::Dir(Dir::default())),
            };
        }
        self.dir(at).map(|_| ())
    }

    pub fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let node = self.lookup(from)?;
        let (from_dir, name) = self.parent(from)?;
        let (to_dir, new_name) = self.parent(to)?;
        self.dir(to_dir)?;
        if let Some(Node::Dir(target)) = self.lookup(to).ok().and_then(|id| self.nodes.get(&id))
            && !target.live.is_empty()
        {
            return Err(os(libc::ENOTEMPTY));
        }
        let (name, new_name) = (name.to_string(), new_name.to_string());
        self.change_names(NameChange::Rename { from: from_dir, name, to: to_dir, new_name, node });
        Ok(())
    }

    pub fn remove(&mut self, path: &Path, recursive: bool) -> io::Result<()> {
        let id = self.lookup(path)?;
        let (dir, name) = self.parent(path)?;
        let name = name.to_string();
        if recursive {
            let inside: Vec<String> = self.dir(id)?.live.keys().cloned().collect();
            for name in inside {
                let child = path.join(&name);
                let is_dir = matches!(self.nodes.get(&self.lookup(&child)?), Some(Node::Dir(_)));
                self.remove(&child, is_dir)?;
            }
        } else {
            self.file(id)?;
        }
        self.change_names(NameChange::Unlink { dir, name });
        Ok(())
    }

    /// Names, whether a folder, size.
    pub fn list(&self, path: &Path) -> io::Result<Vec<(String, bool, u64)>> {
        let dir = self.dir(self.lookup(path)?)?;
        let describe = |(name, id): (&String, &u64)| match self.nodes.get(id) {
            Some(Node::File(file)) => (name.clone(), false, file.live.len),
            Some(Node::Dir(_)) | None => (name.clone(), true, 0),
        };
        Ok(dir.live.iter().map(describe).collect())
    }

    /// Makes the names of one folder durable, with all earlier changes of folders that a rename ties to it.
    pub fn sync_dir(&mut self, path: &Path) -> io::Result<()> {
        let dir = self.lookup(path)?;
        self.dir(dir)?;
        self.fail(self.faults.sync_error_ppm)?;
        let mut tied = BTreeSet::from([dir]);
        let mut before = 0;
        while before != tied.len() {
            before = tied.len();
            for change in &self.names {
                let dirs = change.dirs();
                if dirs.iter().any(|d| tied.contains(d)) {
                    tied.extend(dirs);
                }
            }
        }
        let (covered, left): (Vec<_>, Vec<_>) = std::mem::take(&mut self.names)
            .into_iter()
            .partition(|change| change.dirs().iter().any(|d| tied.contains(d)));
        self.names = left;
        for change in &covered {
            self.rename_apply(change, true);
        }
        Ok(())
    }

    fn fail(&mut self, ppm: u32) -> io::Result<()> {
        if !self.rng.chance_ppm(ppm) {
            return Ok(());
        }
        self.errors += 1;
        Err(os(libc::EIO))
    }

    pub fn len(&self, node: u64) -> io::Result<u64> {
        Ok(self.file(node)?.live.len)
    }

    pub fn read(&mut self, node: u64, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.fail(self.faults.read_error_ppm)?;
        Ok(self.file(node)?.live.read(offset, buf))
    }

    fn room_for(&self, node: u64, offset: u64, len: u64) -> io::Result<()> {
        let need = self.file(node)?.live.new_pages(offset, len) * PAGE;
        if need > 0 && self.used_bytes() + need > self.capacity_bytes {
            return Err(os(libc::ENOSPC));
        }
        Ok(())
    }

    fn land_change(&mut self, node: u64, change: Change) -> io::Result<u64> {
        let id = self.id();
        let zeros = self.zeros.clone();
        let file = self.file_mut(node)?;
        change.apply(&mut file.live, &zeros);
        file.pending.push(Pending { id, change });
        Ok(id)
    }

    /// A write that is done when this returns.
    pub fn write(&mut self, node: u64, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.fail(self.faults.write_error_ppm)?;
        self.room_for(node, offset, bytes.len() as u64)?;
        self.land_change(node, Change::Write { offset, bytes: bytes.into() }).map(|_| ())
    }

    pub fn allocate(&mut self, node: u64, offset: u64, len: u64) -> io::Result<()> {
        self.room_for(node, offset, len)?;
        self.land_change(node, Change::Reserve { offset, len }).map(|_| ())
    }

    pub fn set_len(&mut self, node: u64, len: u64) -> io::Result<()> {
        self.land_change(node, Change::SetLen(len)).map(|_| ())
    }

    /// A write that the device has, and that will be done when [`Disk::land`] is called.
    pub fn begin_write(&mut self, node: u64, bytes: Arc<[u8]>, offset: u64) -> u64 {
        let id = self.id();
        self.in_flight.insert(id, InFlight { node, change: Change::Write { offset, bytes } });
        id
    }

    /// Completes a write; gives the change that a flush can cover.
    pub fn land(&mut self, write: u64) -> io::Result<u64> {
        let Some(InFlight { node, change }) = self.in_flight.remove(&write) else {
            return Err(os(libc::EIO));
        };
        self.fail(self.faults.write_error_ppm)?;
        if let Change::Write { offset, bytes } = &change {
            self.room_for(node, *offset, bytes.len() as u64)?;
        }
        self.land_change(node, change)
    }

    /// What a flush issued now would cover.
    pub fn coverable(&self, node: u64) -> BTreeSet<u64> {
        self.file(node).map(|f| f.pending.iter().map(|p| p.id).collect()).unwrap_or_default()
    }

    /// Ends a flush: the changes in `covered` are durable.
    pub fn flush(&mut self, node: u64, covered: &BTreeSet<u64>) -> io::Result<()> {
        self.fail(self.faults.sync_error_ppm)?;
        self.make_durable(node, covered)
    }

    pub fn make_durable(&mut self, node: u64, covered: &BTreeSet<u64>) -> io::Result<()> {
        let zeros = self.zeros.clone();
        let file = self.file_mut(node)?;
        // A later change to the same place replaces an earlier one in the device: the earlier cannot come back.
        let takes: Vec<bool> = (0..file.pending.len())
            .map(|at| {
                let Some(this) = file.pending.get(at) else { return false };
                covered.contains(&this.id)
                    || file
                        .pending
                        .iter()
                        .skip(at + 1)
                        .any(|later| covered.contains(&later.id) && later.change.overlaps(&this.change))
            })
            .collect();
        let mut takes = takes.into_iter();
        let (durable, pending) = (&mut file.durable, &mut file.pending);
        pending.retain(|p| {
            let take = takes.next().unwrap_or_default();
            if take {
                p.change.apply(durable, &zeros);
            }
            !take
        });
        Ok(())
    }

    /// The process died, the machine did not: what was handed to the device may or may not arrive, the rest stays.
    pub fn kill(&mut self) {
        self.life += 1;
        self.fuse = None;
        for (_, write) in std::mem::take(&mut self.in_flight) {
            if self.rng.coin() {
                // A file that is gone takes no more bytes.
                let _ = self.land_change(write.node, write.change);
            }
        }
    }

    /// The power goes: the durable image and a random part of what is pending is all that stays.
    pub fn cut(&mut self) {
        self.life += 1;
        self.fuse = None;
        self.cut_names();
        let zeros = self.zeros.clone();
        for (id, write) in std::mem::take(&mut self.in_flight) {
            if let Ok(file) = self.file_mut(write.node) {
                file.pending.push(Pending { id, change: write.change });
            }
        }
        for node in self.nodes.values_mut() {
            let Node::File(file) = node else { continue };
            for pending in std::mem::take(&mut file.pending) {
                pending.change.apply_torn(&mut file.durable, &zeros, &mut self.rng);
            }
            file.live = file.durable.clone();
        }
        self.collect();
    }

    fn cut_names(&mut self) {
        let names = std::mem::take(&mut self.names);
        // Each folder's changes survive up to some point of their order; a rename survives in both folders or neither.
        let mut kept_until: BTreeMap<u64, usize> = BTreeMap::new();
        for change in &names {
            for dir in change.dirs() {
                kept_until.entry(dir).or_insert(0);
            }
        }
        for until in kept_until.values_mut() {
            *until = self.rng.below(names.len() as u64 + 1) as usize;
        }
        for (at, change) in names.iter().enumerate() {
            let dirs = change.dirs();
            if dirs.iter().all(|d| kept_until.get(d).is_some_and(|until| at < *until)) {
                self.rename_apply(change, true);
            } else {
                for dir in dirs {
                    kept_until.insert(dir, 0);
                }
            }
        }
        for node in self.nodes.values_mut() {
            if let Node::Dir(dir) = node {
                dir.live = dir.durable.clone();
            }
        }
    }

    /// Forgets what no name leads to.
    fn collect(&mut self) {
        let mut reached = BTreeSet::new();
        let mut todo = vec![ROOT];
        while let Some(id) = todo.pop() {
            if reached.insert(id)
                && let Some(Node::Dir(dir)) = self.nodes.get(&id)
            {
                todo.extend(dir.live.values());
            }
        }
        self.nodes.retain(|id, _| reached.contains(id));
        for node in self.nodes.values_mut() {
            if let Node::Dir(dir) = node {
                dir.durable.retain(|_, id| reached.contains(id));
            }
        }
    }
}
