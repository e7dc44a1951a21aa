//! The partitions of a core by their slots.
//!
//! A slot is never given twice: what is still under way for a deleted partition (a group's items, a job, a fetch) meets
//! nobody, and never another partition. So each deletion leaves a place, of [`PLACE_BYTES`], and nothing more: a million
//! topics that came and went cost 8 MB.

use crate::partition::Partition;
use std::ops::Range;

/// What a slot costs once its partition is gone.
pub(crate) const PLACE_BYTES: usize = size_of::<Option<Box<Partition>>>();
const _: () = assert!(PLACE_BYTES == 8);

#[derive(Default)]
pub(crate) struct Partitions {
    places: Vec<Option<Box<Partition>>>,
}

impl Partitions {
    /// Every slot ever given.
    pub fn slots(&self) -> Range<u32> {
        0..self.places.len() as u32
    }

    pub fn get(&self, slot: u32) -> Option<&Partition> {
        self.places.get(slot as usize)?.as_deref()
    }

    pub fn get_mut(&mut self, slot: u32) -> Option<&mut Partition> {
        self.places.get_mut(slot as usize)?.as_deref_mut()
    }

    /// Gives it a slot.
    pub fn push(&mut self, partition: Partition) -> u32 {
        self.places.push(Some(Box::new(partition)));
        self.places.len() as u32 - 1
    }

    /// Nothing more is to be done for a deleted partition.
    pub fn forget(&mut self, slot: u32) {
        if let Some(place) = self.places.get_mut(slot as usize) {
            assert!(place.as_ref().is_none_or(|part| part.deleted), "only what is deleted is forgotten");
            *place = None;
        }
    }

    /// Those that are there, deleted ones that were not forgotten yet among them.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &Partition)> {
        (0..).zip(&self.places).filter_map(|(slot, place)| Some((slot, place.as_deref()?)))
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = (u32, &mut Partition)> {
        (0..).zip(&mut self.places).filter_map(|(slot, place)| Some((slot, place.as_deref_mut()?)))
    }
}
