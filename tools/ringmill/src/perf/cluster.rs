//! Where the partitions of a topic are, and what stops a run from outside.

use crate::embedded::{Embedded, Settings};
use crate::exit::{Code, Failed};
use crate::server::{Server, address, seconds};
use clap::Args;
use ringmill_client::client::Absent;
use ringmill_client::{Client, Topic};
use ringmill_load::Target;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

const BOOTSTRAP_SERVER: &str = "127.0.0.1:9092";

/// Which broker is asked first, as Kafka's perf tools find it.
#[derive(Args, Clone, Debug)]
pub struct Bootstrap {
    /// The broker to talk to; without it, bootstrap.servers of the settings, or else 127.0.0.1:9092
    #[arg(long, short = 'b', visible_alias = "broker-list", value_name = "HOST:PORT", value_parser = first)]
    bootstrap_server: Option<String>,
}

impl Bootstrap {
    /// # Errors
    /// A sentence for a setting that is no address.
    pub fn server(&self, setting: Option<&str>, timeout: Duration) -> Result<Server, Failed> {
        let bootstrap_server = match (&self.bootstrap_server, setting) {
            (Some(flag), _) => flag.clone(),
            (None, Some(setting)) => first(setting)
                .map_err(|why| Failed::new(Code::Usage, format!("bootstrap.servers={setting}: {why}")))?,
            (None, None) => BOOTSTRAP_SERVER.to_string(),
        };
        Ok(Server { bootstrap_server, timeout })
    }
}

/// Which broker producers send to.
#[derive(Args)]
pub struct Against {
    #[command(flatten)]
    bootstrap: Bootstrap,
    /// How long to wait for an answer, and to retry what may be retried
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    pub timeout: Duration,
    #[command(flatten)]
    own: Own,
}

impl Against {
    /// # Errors
    /// A sentence for a setting that is no address, or a broker that does not start.
    pub fn broker(&self, setting: Option<&str>) -> Result<(Server, Option<Embedded>), Failed> {
        let mut server = self.bootstrap.server(setting, self.timeout)?;
        let own = self.own.instead_of(&mut server)?;
        Ok((server, own))
    }
}

/// Whether a run has a broker of its own.
#[derive(Args)]
pub struct Own {
    /// Against a broker of its own, in a temporary folder
    #[arg(long)]
    embedded: bool,
}

impl Own {
    /// Starts it where it is wanted: it is the server then, for as long as the value lives.
    ///
    /// # Errors
    /// A sentence, when no broker comes up here.
    pub fn instead_of(&self, server: &mut Server) -> Result<Option<Embedded>, Failed> {
        if !self.embedded {
            return Ok(None);
        }
        let own = Embedded::start(&Settings::default())?;
        server.bootstrap_server.clone_from(&own.address);
        Ok(Some(own))
    }
}

/// Of a list, as Kafka's tools take it, the first: the broker tells the others.
fn first(list: &str) -> Result<String, String> {
    address(list.split(',').next().unwrap_or_default())
}

/// A topic, and the address of each partition's leader.
pub struct Place {
    pub client: Client,
    pub topic: Topic,
    pub targets: Vec<Target>,
}

/// Finds a topic.
///
/// # Errors
/// A sentence for a broker that cannot be reached, or a topic that is not there.
pub fn find(server: &Server, name: &str, absent: Absent) -> Result<Place, Failed> {
    let mut client = server.connect()?;
    let topic = client.topic(name, absent)?;
    let cluster = client.metadata(Some(std::slice::from_ref(&topic.name)), Absent::Leave)?;
    let mut targets = Vec::new();
    for partition in &topic.partitions {
        let Some(address) = cluster.brokers.get(&partition.leader) else {
            let what = format!("partition {} of {name} has no leader", partition.index);
            return Err(Failed::new(Code::Refused, what));
        };
        targets.push(Target { partition: partition.index, leader: resolve(address)? });
    }
    Ok(Place { client, topic, targets })
}

/// The first address of `HOST:PORT`.
pub fn resolve(address: &str) -> Result<SocketAddr, Failed> {
    let found = address.to_socket_addrs();
    let mut found = found.map_err(|error| Failed::new(Code::Unreachable, format!("{address}: {error}")))?;
    found.next().ok_or_else(|| Failed::new(Code::Unreachable, format!("{address} has no address")))
}

/// Set by the first SIGINT or SIGTERM, so that the results so far are told; a second one ends the process.
pub fn stop_on_signals() -> Result<Arc<AtomicBool>, Failed> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        let killed = i32::from(Code::Interrupted as u8);
        signal_hook::flag::register_conditional_shutdown(signal, killed, Arc::clone(&stop))
            .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&stop)))
            .map_err(|error| Failed::local("signals cannot be caught", &error))?;
    }
    Ok(stop)
}
