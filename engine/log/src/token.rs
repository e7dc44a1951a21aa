//! Tokens of the operations that this crate starts: kind in the top byte, slot or sequence below. Kinds under 0x80
//! belong to the core.

use ringmill_reactor::Token;

/// A group's write, with its flush where one is linked to it.
pub const LOG_WRITE: u8 = 0x80;
/// A flush of the core log alone.
pub const LOG_SYNC: u8 = 0x81;
pub(crate) const DESTAGE: u8 = 0x82;
pub(crate) const JOB: u8 = 0x83;
pub(crate) const BLOCK: u8 = 0x84;

const VALUE_MASK: u64 = (1 << 56) - 1;

/// Packs a kind and a value of at most 56 bits.
pub fn token(kind: u8, value: u64) -> Token {
    Token(u64::from(kind) << 56 | value & VALUE_MASK)
}

/// The kind and the value of a token made by [`token`].
pub fn split(token: Token) -> (u8, u64) {
    ((token.0 >> 56) as u8, token.0 & VALUE_MASK)
}

/// Whether the completion belongs to the log.
pub fn is_logs(token: Token) -> bool {
    token.0 >> 56 >= u64::from(LOG_WRITE)
}
