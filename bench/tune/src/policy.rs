//! Flush policies: what a broker can be set to, and how one lies beside another.

use ringmill_types::limits;

/// How a flush group becomes durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Method {
    Fdatasync,
    Dsync,
}

impl Method {
    /// As `flush.method` has it.
    pub fn name(self) -> &'static str {
        match self {
            Method::Fdatasync => "fdatasync",
            Method::Dsync => "dsync",
        }
    }
}

/// What an ack waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ack {
    /// The flush that covers its records.
    Durable,
    /// Its group having been handed to the disk: a power cut may take what was acked during the last two flushes.
    Relaxed,
}

impl Ack {
    pub fn name(self) -> &'static str {
        match self {
            Ack::Durable => "durable",
            Ack::Relaxed => "relaxed",
        }
    }
}

/// One setting of everything that decides when a flush leaves and when an ack does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Policy {
    pub ack: Ack,
    pub method: Method,
    /// Flushes of one core under way at one time.
    pub depth: u32,
    pub linger_us: u64,
    pub group_bytes: u64,
}

impl Policy {
    /// A broker's own defaults. `method` is what `auto` comes to on this device.
    pub const fn default_with(method: Method) -> Policy {
        Policy {
            ack: Ack::Durable,
            method,
            depth: 1,
            linger_us: 0,
            group_bytes: limits::GROUP_BYTES_DEFAULT as u64,
        }
    }

    /// Every key, for a run that depends on no default.
    pub fn settings(&self) -> Vec<(&'static str, String)> {
        let mut all = vec![
            ("flush.method", self.method.name().to_string()),
            ("flush.depth", self.depth.to_string()),
            ("group.linger.us", self.linger_us.to_string()),
            ("group.bytes", self.group_bytes.to_string()),
        ];
        if self.ack == Ack::Relaxed {
            all.push(("relaxed.topics.enable", "true".to_string()));
            all.push(("log.flush.interval.messages", "9223372036854775807".to_string()));
        }
        all
    }

    /// Keys in which this differs from `other`.
    pub fn changes_from(&self, other: &Policy) -> Vec<(&'static str, String)> {
        let theirs = other.settings();
        self.settings().into_iter().filter(|own| !theirs.contains(own)).collect()
    }

    /// One line: `fdatasync depth 1 linger 0 µs group 4032 KiB durable`.
    pub fn label(&self) -> String {
        let group = match self.group_bytes {
            bytes if bytes.is_multiple_of(1 << 20) => format!("{} MiB", bytes >> 20),
            bytes => format!("{} KiB", bytes >> 10),
        };
        let Policy { depth, linger_us, .. } = self;
        let (method, ack) = (self.method.name(), self.ack.name());
        format!("{method} depth {depth} linger {linger_us} µs group {group} {ack}")
    }
}

/// The values that are tried, each list in its order; the space is their product.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Space {
    pub acks: Vec<Ack>,
    pub methods: Vec<Method>,
    pub depths: Vec<u32>,
    pub lingers_us: Vec<u64>,
    pub group_bytes: Vec<u64>,
}

impl Space {
    /// What can be told apart by measuring: depths beyond 4 and lingers beyond 2 ms never won anywhere; the largest
    /// group is what the broker does by itself.
    pub fn usual(acks: &[Ack]) -> Space {
        Space {
            acks: acks.to_vec(),
            methods: vec![Method::Fdatasync, Method::Dsync],
            depths: vec![1, 2, 4],
            lingers_us: vec![0, 100, 300, 1000],
            group_bytes: vec![256 << 10, limits::GROUP_BYTES_DEFAULT as u64],
        }
    }

    pub fn policies(&self) -> Vec<Policy> {
        let mut all = Vec::new();
        for &ack in &self.acks {
            for &method in &self.methods {
                for &depth in &self.depths {
                    for &linger_us in &self.lingers_us {
                        for &group_bytes in &self.group_bytes {
                            all.push(Policy { ack, method, depth, linger_us, group_bytes });
                        }
                    }
                }
            }
        }
        all
    }

    /// Steps along the lists from one policy to the other; `None` when one is not of this space.
    pub fn distance(&self, from: &Policy, to: &Policy) -> Option<usize> {
        fn steps<T: PartialEq>(list: &[T], from: &T, to: &T) -> Option<usize> {
            let at = |value: &T| list.iter().position(|one| one == value);
            Some(at(from)?.abs_diff(at(to)?))
        }
        Some(
            steps(&self.acks, &from.ack, &to.ack)?
                + steps(&self.methods, &from.method, &to.method)?
                + steps(&self.depths, &from.depth, &to.depth)?
                + steps(&self.lingers_us, &from.linger_us, &to.linger_us)?
                + steps(&self.group_bytes, &from.group_bytes, &to.group_bytes)?,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_space_is_a_product_and_knows_neighbours() {
        let space = Space::usual(&[Ack::Durable, Ack::Relaxed]);
        let all = space.policies();
        assert_eq!(all.len(), 96);
        let default = Policy::default_with(Method::Fdatasync);
        assert!(all.contains(&default));
        let near = all.iter().filter(|p| space.distance(&default, p) == Some(1)).count();
        assert_eq!(near, 5, "relaxed, dsync, depth 2, linger 100, 256 KiB");
        let other = Policy { depth: 3, ..default };
        assert_eq!(space.distance(&default, &other), None);
    }

    #[test]
    fn only_what_differs_is_set() {
        let default = Policy::default_with(Method::Fdatasync);
        assert_eq!(default.changes_from(&default), []);
        let other = Policy { linger_us: 300, ack: Ack::Relaxed, ..default };
        let keys: Vec<&str> = other.changes_from(&default).iter().map(|(key, _)| *key).collect();
        assert_eq!(keys, ["group.linger.us", "relaxed.topics.enable", "log.flush.interval.messages"]);
        assert_eq!(default.label(), "fdatasync depth 1 linger 0 µs group 4032 KiB durable");
    }
}
