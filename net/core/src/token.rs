//! Kinds of the operations that the core itself starts; those of its log begin at 0x80.

pub(crate) const ACCEPT: u8 = 1;
pub(crate) const RECV: u8 = 2;
pub(crate) const FILL: u8 = 3;
pub(crate) const SEND: u8 = 4;
pub(crate) const CLOSE: u8 = 5;
pub(crate) const UNPACKED: u8 = 6;
