//! What a topic may be called: the rules of Kafka's `Topic` class.

use crate::limits::TOPIC_NAME_BYTES_MAX;
use std::fmt;

/// Why a text is no topic's name, as Kafka says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadTopicName<'a> {
    name: &'a str,
    because: Because,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Because {
    Empty,
    Dots,
    Long,
    Characters,
}

impl fmt::Display for BadTopicName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name;
        f.write_str("Topic name is invalid: ")?;
        match self.because {
            Because::Empty => f.write_str("the empty string is not allowed"),
            Because::Dots => write!(f, "'{name}' is not allowed"),
            Because::Long => {
                write!(
                    f,
                    "the length of '{name}' is longer than the max allowed length {TOPIC_NAME_BYTES_MAX}"
                )
            }
            Because::Characters => write!(
                f,
                "'{name}' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'"
            ),
        }
    }
}

impl std::error::Error for BadTopicName<'_> {}

/// What `Topic.validate` says of a name.
///
/// # Errors
/// It is not one.
pub fn check(name: &str) -> Result<(), BadTopicName<'_>> {
    let because = match name {
        "" => Because::Empty,
        "." | ".." => Because::Dots,
        _ if name.len() > TOPIC_NAME_BYTES_MAX => Because::Long,
        _ if !name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-')) => {
            Because::Characters
        }
        _ => return Ok(()),
    };
    Err(BadTopicName { name, because })
}

/// The name as metrics have it, where '.' and '_' are one. Topics whose names are the same there collide: beside one of
/// them the other is not made. `None` for a name that collides with no other.
pub fn in_metrics(name: &str) -> Option<impl Iterator<Item = u8>> {
    let plain = |byte: u8| if byte == b'.' { b'_' } else { byte };
    name.contains(['.', '_']).then(|| name.bytes().map(plain))
}
