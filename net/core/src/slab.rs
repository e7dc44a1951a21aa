//! A table of slots with serial numbers: a key of a removed entry never finds its successor.

pub(crate) struct Slab<T> {
    entries: Vec<Option<(u64, T)>>,
    free: Vec<u32>,
    serial: u64,
    len: usize,
}

/// Slot and serial of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    pub slot: u32,
    pub serial: u32,
}

impl Key {
    /// 56 bits: 24 of slot, 32 of serial.
    pub fn pack(self) -> u64 {
        u64::from(self.slot) << 32 | u64::from(self.serial)
    }

    pub fn unpack(bits: u64) -> Key {
        Key { slot: (bits >> 32) as u32 & 0xff_ffff, serial: bits as u32 }
    }
}

impl<T> Slab<T> {
    /// Entries at once: what a key's 24 bits can name.
    pub const MAX: usize = 1 << 24;

    pub fn new() -> Slab<T> {
        Slab { entries: Vec::new(), free: Vec::new(), serial: 0, len: 0 }
    }

    pub fn insert(&mut self, make: impl FnOnce(Key) -> T) -> Key {
        self.serial = (self.serial + 1) & 0xffff_ffff;
        let slot = self.free.pop().unwrap_or_else(|| {
            self.entries.push(None);
            self.entries.len() as u32 - 1
        });
        assert!((slot as usize) < Self::MAX, "limits keep tables far below this");
        let key = Key { slot, serial: self.serial as u32 };
        if let Some(entry) = self.entries.get_mut(slot as usize) {
            *entry = Some((self.serial, make(key)));
        }
        self.len += 1;
        key
    }

    pub fn get(&self, key: Key) -> Option<&T> {
        let (serial, value) = self.entries.get(key.slot as usize)?.as_ref()?;
        (*serial as u32 == key.serial).then_some(value)
    }

    pub fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        let (serial, value) = self.entries.get_mut(key.slot as usize)?.as_mut()?;
        (*serial as u32 == key.serial).then_some(value)
    }

    pub fn remove(&mut self, key: Key) -> Option<T> {
        self.get(key)?;
        let (_, value) = self.entries.get_mut(key.slot as usize)?.take()?;
        self.free.push(key.slot);
        self.len -= 1;
        Some(value)
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn iter(&self) -> impl Iterator<Item = (Key, &T)> {
        self.entries.iter().enumerate().filter_map(|(slot, e)| {
            let (serial, value) = e.as_ref()?;
            Some((Key { slot: slot as u32, serial: *serial as u32 }, value))
        })
    }

    pub fn keys(&self) -> Vec<Key> {
        self.iter().map(|(key, _)| key).collect()
    }
}
