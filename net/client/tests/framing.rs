//! The client against a server that says exactly what a test wants: frames, deadlines, negotiation and retries.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use ringmill_client::client::Absent;
use ringmill_client::connection::{Connection, Settings};
use ringmill_client::{Client, ClientError, Options};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

const API_VERSIONS: i16 = 18;
const METADATA: i16 = 3;

/// A request as far as a script looks at it.
#[derive(Clone, Copy, Debug)]
struct Asked {
    api: i16,
    version: i16,
    correlation: i32,
}

/// What a script does with a request.
enum Reply {
    /// These bytes, whatever they are.
    Raw(Vec<u8>),
    /// A frame with the right length and correlation around these bytes.
    Body(Vec<u8>),
    Close,
    Silence,
}

/// Serves `script` on a port of its own until the test ends. The script is told how many requests came before.
fn serve(script: impl Fn(usize, Asked, u16) -> Reply + Send + Sync + 'static) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let served = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&served);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let _ = converse(&mut stream.unwrap(), &count, &|n, asked| script(n, asked, address.port()));
        }
    });
    (address.to_string(), served)
}

fn converse(
    stream: &mut TcpStream,
    served: &AtomicUsize,
    script: &dyn Fn(usize, Asked) -> Reply,
) -> std::io::Result<()> {
    loop {
        let mut length = [0; 4];
        stream.read_exact(&mut length)?;
        let mut body = vec![0; u32::from_be_bytes(length) as usize];
        stream.read_exact(&mut body)?;
        let asked = Asked {
            api: i16::from_be_bytes(body[..2].try_into().unwrap()),
            version: i16::from_be_bytes(body[2..4].try_into().unwrap()),
            correlation: i32::from_be_bytes(body[4..8].try_into().unwrap()),
        };
        match script(served.fetch_add(1, Ordering::Relaxed), asked) {
            Reply::Raw(bytes) => stream.write_all(&bytes)?,
            Reply::Body(body) => stream.write_all(&frame(asked.correlation, &body))?,
            Reply::Close => return Ok(()),
            // Until the client gives up.
            Reply::Silence => return stream.read_exact(&mut [0]),
        }
    }
}

fn frame(correlation: i32, body: &[u8]) -> Vec<u8> {
    let mut out = (body.len() as u32 + 4).to_be_bytes().to_vec();
    out.extend(correlation.to_be_bytes());
    out.extend(body);
    out
}

/// ApiVersions 0..=3 and Metadata 4..=4.
fn apis(version: i16) -> Vec<u8> {
    let rows = [(API_VERSIONS, 0i16, 3i16), (METADATA, 4, 4)];
    let mut out = vec![0, 0];
    if version >= 3 {
        out.push(rows.len() as u8 + 1);
    } else {
        out.extend((rows.len() as u32).to_be_bytes());
    }
    for (api, min, max) in rows {
        for number in [api, min, max] {
            out.extend(number.to_be_bytes());
        }
        if version >= 3 {
            out.push(0);
        }
    }
    if version >= 1 {
        out.extend(0i32.to_be_bytes());
    }
    if version >= 3 {
        out.push(0);
    }
    out
}

fn string(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u16).to_be_bytes());
    out.extend(text.as_bytes());
}

/// Metadata version 4: one broker at `port`, one topic "t" with one partition, or with an error instead.
fn metadata(port: u16, error: i16) -> Vec<u8> {
    let mut out = 0i32.to_be_bytes().to_vec();
    out.extend(1i32.to_be_bytes());
    out.extend(7i32.to_be_bytes());
    string(&mut out, "127.0.0.1");
    out.extend(i32::from(port).to_be_bytes());
    out.extend((-1i16).to_be_bytes());
    string(&mut out, "a cluster");
    out.extend(7i32.to_be_bytes());
    out.extend(1i32.to_be_bytes());
    out.extend(error.to_be_bytes());
    string(&mut out, "t");
    out.push(0);
    let partitions = i32::from(error == 0);
    out.extend(partitions.to_be_bytes());
    if partitions == 1 {
        out.extend(0i16.to_be_bytes());
        for number in [0i32, 7, 1, 7, 1, 7] {
            out.extend(number.to_be_bytes());
        }
    }
    out
}

fn options(timeout: Duration) -> Options {
    Options { timeout, ..Options::default() }
}

fn open(address: &str, timeout: Duration) -> Result<Connection, ClientError> {
    let settings = Settings {
        client_id: "test".to_string(),
        connect_timeout: Duration::from_secs(5),
        request_timeout: timeout,
    };
    Connection::open(address, &settings)
}

const PATIENT: Duration = Duration::from_secs(20);

#[test]
fn what_is_not_the_protocol_is_called_that() {
    let answers: [(&str, Vec<u8>); 7] = [
        ("a negative length", vec![0xff; 64]),
        ("a length of 2 GiB", vec![0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 1]),
        ("HTTP", b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()),
        ("no correlation", vec![0, 0, 0, 2, 0, 0]),
        ("another's correlation", frame(4711, &apis(3))),
        ("a body cut short", frame(1, &apis(3)[..9])),
        ("an array of 2^28 elements", frame(1, &[0, 0, 0xff, 0xff, 0xff, 0x7f])),
    ];
    for (what, bytes) in answers {
        let (address, _) = serve(move |_, _, _| Reply::Raw(bytes.clone()));
        let error = open(&address, PATIENT).err().unwrap_or_else(|| panic!("{what} was believed"));
        assert!(matches!(error, ClientError::Garbled { .. }), "{what}: {error:?}");
    }
}

#[test]
fn every_call_ends() {
    let (address, _) = serve(|_, _, _| Reply::Silence);
    let error = open(&address, Duration::from_millis(50)).err().unwrap();
    assert!(matches!(error, ClientError::TimedOut { .. }), "{error:?}");

    // Half an answer is no answer.
    let (address, _) = serve(|_, _, _| Reply::Raw(vec![0, 0, 0, 50, 0]));
    let error = open(&address, Duration::from_millis(50)).err().unwrap();
    assert!(matches!(error, ClientError::TimedOut { .. }), "{error:?}");

    let (address, _) = serve(|_, _, _| Reply::Close);
    let error = open(&address, PATIENT).err().unwrap();
    assert!(matches!(error, ClientError::Lost { .. }), "{error:?}");
}

#[test]
fn an_old_server_is_asked_again_in_version_0() {
    let (address, served) = serve(|_, asked, _| match asked.version {
        // As such a server answers whatever it does not know: the code and an empty list, in version 0.
        3 => Reply::Body(vec![0, 35, 0, 0, 0, 0]),
        version => Reply::Body(apis(version)),
    });
    let connection = open(&address, PATIENT).unwrap();
    assert_eq!(served.load(Ordering::Relaxed), 2);
    assert!(connection.serves::<kafka_wire::MetadataRequest>());
    assert!(!connection.serves::<kafka_wire::ProduceRequest>());
    let version = connection.version::<kafka_wire::MetadataRequest>(i16::MAX).unwrap();
    assert_eq!(version.value(), 4, "the newest that both have");
    assert!(connection.version::<kafka_wire::MetadataRequest>(3).is_err());
}

#[test]
fn a_topic_without_leader_is_waited_for() {
    const LEADER_NOT_AVAILABLE: i16 = 5;
    let (address, served) = serve(|n, asked, port| match (asked.api, n) {
        (API_VERSIONS, _) => Reply::Body(apis(asked.version)),
        (_, ..3) => Reply::Body(metadata(port, LEADER_NOT_AVAILABLE)),
        (_, _) => Reply::Body(metadata(port, 0)),
    });
    let mut client = Client::connect(&address, options(PATIENT)).unwrap();
    let topic = client.topic("t", Absent::Create).unwrap();
    assert_eq!((topic.name.as_str(), topic.partitions.len(), topic.partitions[0].leader), ("t", 1, 7));
    assert_eq!(served.load(Ordering::Relaxed), 4, "negotiation, two refusals, the answer");
}

#[test]
fn a_refusal_for_good_is_not_repeated() {
    const UNKNOWN_TOPIC: i16 = 3;
    let (address, served) = serve(|_, asked, port| match asked.api {
        API_VERSIONS => Reply::Body(apis(asked.version)),
        _ => Reply::Body(metadata(port, UNKNOWN_TOPIC)),
    });
    let mut client = Client::connect(&address, options(PATIENT)).unwrap();
    let error = client.topic("t", Absent::Leave).err().unwrap();
    assert_eq!(error.code(), Some(ringmill_types::ErrorCode::UnknownTopicOrPartition));
    assert_eq!(served.load(Ordering::Relaxed), 2);
}

#[test]
fn a_broken_connection_is_made_again() {
    let (address, served) = serve(|n, asked, port| match (asked.api, n) {
        (API_VERSIONS, _) => Reply::Body(apis(asked.version)),
        (_, 1) => Reply::Close,
        (_, _) => Reply::Body(metadata(port, 0)),
    });
    let mut client = Client::connect(&address, options(PATIENT)).unwrap();
    let cluster = client.metadata(None, Absent::Create).unwrap();
    assert_eq!(cluster.cluster_id.as_deref(), Some("a cluster"));
    assert_eq!(cluster.brokers[&7], address);
    assert_eq!(served.load(Ordering::Relaxed), 4, "two negotiations, one lost request, one answer");
}

#[test]
fn nobody_at_the_address_is_told_at_once() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let error = Client::connect(&address, options(PATIENT)).err().unwrap();
    assert!(matches!(error, ClientError::Unreachable { .. }), "{error:?}");
}
