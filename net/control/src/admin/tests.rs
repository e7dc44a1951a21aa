#![allow(clippy::unwrap_used)]

use super::*;
use ringmill_core::heartbeat::Phase;
use ringmill_core::metrics::CoreMetrics;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// What control does with questions in a test.
#[derive(Clone, Copy, PartialEq)]
enum Manner {
    Answers,
    Stops,
    Ignores,
    /// Answers, but core 1 does not.
    LacksACore,
}

/// A control loop that answers for two cores; `seen` runs before each answer.
async fn control(mut questions: mpsc::Receiver<AdminRequest>, manner: Manner, seen: impl Fn()) {
    let mut unanswered = Vec::new();
    while let Some(question) = questions.recv().await {
        seen();
        let all = manner != Manner::LacksACore;
        let core =
            |n| (CoreId(n), Box::new(CoreMetrics { records_in: 7 + u64::from(n), ..CoreMetrics::default() }));
        match question {
            question if manner == Manner::Ignores => unanswered.push(question),
            AdminRequest::Metrics(reply) => {
                drop(reply.send(if all { vec![core(0), core(1)] } else { vec![core(0)] }))
            }
            AdminRequest::Dump(reply) => {
                let dump = |n: u16| (CoreId(n), (all || n == 0).then(|| format!("core {n}: well\n")));
                drop(reply.send(vec![dump(0), dump(1)]));
            }
            AdminRequest::Topics(reply) => {
                let partition = AdminPartition::new(0, ringmill_types::PartitionId(9), CoreId(1), true, None);
                let config = BTreeMap::from([("flush.messages".to_string(), "100".to_string())]);
                drop(reply.send(vec![AdminTopic {
                    name: "t\"1".into(),
                    id: "id".into(),
                    partitions: vec![partition],
                    config,
                }]));
            }
            AdminRequest::Connections(reply) => {
                let view = ringmill_core::ConnectionView {
                    core: CoreId(1),
                    peer: ([127, 0, 0, 1], 5).into(),
                    client_id: "c\"1".into(),
                    software: "librdkafka".into(),
                    software_version: "2".into(),
                    age_ms: 9,
                    idle_ms: 8,
                    requests: 7,
                    received_bytes: 6,
                    sent_bytes: 5,
                    waiting: 4,
                    muted: true,
                };
                drop(reply.send(AdminConnections { connections: 3, shown: vec![view.into()] }));
            }
            AdminRequest::Control(reply) => drop(reply.send(Box::default())),
            AdminRequest::Config(reply) => drop(reply.send(vec![("node.id".into(), "1".into())])),
            AdminRequest::Ready(reply) => drop(reply.send(manner != Manner::Stops)),
        }
    }
}

/// Asks the port for `path` while control behaves in that manner.
async fn answer(manner: Manner, path: &str) -> Reply {
    let heartbeats = vec![Arc::new(Heartbeat::default()), Arc::new(Heartbeat::default())];
    let (requests, questions) = mpsc::channel(4);
    let beats = heartbeats.clone();
    let loop_of_control = control(questions, manner, move || {
        for beat in &beats {
            beat.turn(1);
            beat.set_phase(Phase::Log);
        }
    });
    let port = AdminPort { requests, heartbeats, scrub: None, data: PathBuf::from("/") };
    tokio::select! {
        reply = port.answer(path) => reply,
        () = loop_of_control => panic!("control does not end while the port holds its queue"),
    }
}

#[tokio::test(start_paused = true)]
async fn every_endpoint_answers() {
    for (path, _) in ENDPOINTS {
        let reply = answer(Manner::Answers, path).await;
        assert_eq!(reply.status, StatusCode::OK, "{path}");
        assert!(answer(Manner::Answers, "/").await.body.contains(path));
    }
    assert_eq!(answer(Manner::Answers, "/v2/nothing").await.status, StatusCode::NOT_FOUND);
    assert_eq!(answer(Manner::Answers, "/v1/cores").await.body, "core 0: well\n\ncore 1: well\n\n");
    let topics: serde_json::Value =
        serde_json::from_str(&answer(Manner::Answers, "/v1/topics").await.body).unwrap();
    let partition = &topics[0]["partitions"][0];
    assert_eq!((&topics[0]["name"], &topics[0]["config"]["flush.messages"]), (&"t\"1".into(), &"100".into()));
    assert_eq!(
        (&partition["core"], &partition["log_end"], &partition["relaxed"]),
        (&1.into(), &(-1).into(), &true.into())
    );
    let connections: serde_json::Value =
        serde_json::from_str(&answer(Manner::Answers, "/v1/connections").await.body).unwrap();
    let shown = serde_json::json!([{
        "peer": "127.0.0.1:5", "core": 1, "client_id": "c\"1", "software": "librdkafka",
        "software_version": "2", "age_ms": 9, "idle_ms": 8, "requests": 7, "received_bytes": 6,
        "sent_bytes": 5, "waiting": 4, "muted": true,
    }]);
    assert_eq!(connections, serde_json::json!({ "connections": 3, "shown": shown }));
    let config: serde_json::Value =
        serde_json::from_str(&answer(Manner::Answers, "/v1/config").await.body).unwrap();
    assert_eq!(config, serde_json::json!({ "node.id": "1" }));
}

#[tokio::test(start_paused = true)]
async fn a_silent_core_is_reported_by_its_heartbeat_and_misses_in_metrics() {
    let cores = answer(Manner::LacksACore, "/v1/cores").await;
    assert_eq!(cores.status, StatusCode::OK);
    assert!(
        cores.body.starts_with("core 0: well\n\ncore 1: NO ANSWER; its loop has turned 1 times"),
        "{}",
        cores.body
    );
    assert!(cores.body.contains(&format!("it is {} (turn 1)", Phase::Log.text())), "{}", cores.body);
    let metrics = answer(Manner::LacksACore, "/metrics").await.body;
    assert!(metrics.contains("ringmill_core_answered{core=\"0\"} 1\nringmill_core_answered{core=\"1\"} 0\n"));
    assert!(
        metrics.contains("ringmill_records_in_total{core=\"0\"} 7\n")
            && !metrics.contains("ringmill_records_in_total{core=\"1\"}")
    );
}

#[tokio::test(start_paused = true)]
async fn readiness_is_controls_word() {
    assert_eq!(answer(Manner::Answers, "/health/ready").await, Reply::text(StatusCode::OK, "ready\n"));
    assert_eq!(answer(Manner::Stops, "/health/ready").await.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer(Manner::Stops, "/health/live").await.status, StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn a_control_loop_that_hangs_is_reported_in_time() {
    for path in ["/metrics", "/health/ready", "/v1/topics", "/v1/connections", "/v1/config", "/v1/cores"] {
        let began = tokio::time::Instant::now();
        let reply = answer(Manner::Ignores, path).await;
        assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE, "{path}");
        assert!(reply.body.ends_with("control did not answer in 3 s\n"), "{}", reply.body);
        assert!(began.elapsed() >= CONTROL_TIMEOUT && began.elapsed() < CONTROL_TIMEOUT * 2);
    }
    let cores = answer(Manner::Ignores, "/v1/cores").await.body;
    assert!(cores.starts_with("core 0: NO ANSWER"), "heartbeats are shown all the same: {cores}");
}

#[tokio::test]
async fn a_control_loop_that_is_gone_is_the_end() {
    let (requests, questions) = mpsc::channel(1);
    drop(questions);
    let port = AdminPort { requests, heartbeats: Vec::new(), scrub: None, data: PathBuf::from("/") };
    assert_eq!(
        port.answer("/metrics").await,
        Reply::text(StatusCode::SERVICE_UNAVAILABLE, "the broker is stopping\n")
    );
}

#[test]
fn a_stuck_core_is_told_from_a_busy_one() {
    let beat = |turns, phase| Beat { turns, phase, turn_since_ns: 0 };
    let stuck = silent_core(CoreId(3), beat(5, Phase::Log), beat(5, Phase::Log));
    assert_eq!(
        stuck,
        format!(
            "core 3: NO ANSWER; its loop has not turned since it was asked; it is {} (turn 5)",
            Phase::Log.text()
        )
    );
    assert!(
        silent_core(CoreId(3), beat(5, Phase::Log), beat(9, Phase::Requests)).contains("has turned 4 times")
    );
}

/// Serves on a real socket, for what `client` sends to it.
async fn over_http<T>(client: impl AsyncFnOnce(std::net::SocketAddr) -> T) -> T {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let (requests, questions) = mpsc::channel(4);
    tokio::select! {
        done = client(at) => done,
        () = serve(listener, requests, vec![Arc::new(Heartbeat::default())], None, PathBuf::from("/")) => unreachable!("it never ends by itself"),
        () = control(questions, Manner::Answers, || ()) => unreachable!("its queue stays open"),
    }
}

async fn talk(at: std::net::SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(at).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}

#[tokio::test]
async fn http_is_spoken_as_clients_expect() {
    over_http(async |at| {
        let close = "Host: x\r\nConnection: close\r\n\r\n";
        let metrics = talk(at, &format!("GET /metrics?x=1 HTTP/1.1\r\n{close}")).await;
        assert!(
            metrics.starts_with("HTTP/1.1 200 OK\r\n")
                && metrics.contains("content-type: text/plain; version=0.0.4"),
            "{metrics}"
        );
        assert!(metrics.contains("\nringmill_topics 1\n"));
        let head = talk(at, &format!("HEAD /health/live HTTP/1.1\r\n{close}")).await;
        assert!(head.contains("content-length: 5\r\n") && head.ends_with("\r\n\r\n"), "{head}");
        let post = talk(at, &format!("POST /v1/config HTTP/1.1\r\nContent-Length: 2\r\n{close}ab")).await;
        assert!(post.starts_with("HTTP/1.1 405 ") && post.contains("allow: GET, HEAD\r\n"), "{post}");
        assert!(talk(at, "nonsense\r\n\r\n").await.starts_with("HTTP/1.1 400 "));
        let two = talk(
            at,
            &format!("GET /health/live HTTP/1.1\r\nHost: x\r\n\r\nGET /nothing HTTP/1.1\r\n{close}"),
        )
        .await;
        assert!(two.starts_with("HTTP/1.1 200 ") && two.contains("\r\n\r\nlive\nHTTP/1.1 404 "), "{two}");
    })
    .await;
}

#[tokio::test]
async fn a_port_full_of_the_silent_serves_who_asks() {
    over_http(async |at| {
        let mut held = Vec::new();
        for _ in 0..CONNECTIONS_MAX {
            held.push(TcpStream::connect(at).await.unwrap());
        }
        // One answered request on each proves that all are accepted, not only queued by the kernel; the first is silent
        // from then on for longest.
        for stream in &mut held {
            stream.write_all(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
            let mut first = [0; 12];
            stream.read_exact(&mut first).await.unwrap();
            assert_eq!(&first, b"HTTP/1.1 200");
        }
        let late = talk(at, "GET /health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let late = timeout(Duration::from_secs(5), late).await.expect("long before the silent are closed");
        assert!(late.starts_with("HTTP/1.1 200 "), "{late}");
        let mut rest = Vec::new();
        let mut streams = held.into_iter();
        let mut longest_silent = streams.next().unwrap();
        let closed = timeout(Duration::from_secs(5), longest_silent.read_to_end(&mut rest)).await;
        closed.expect("it made way").unwrap();
        for mut stream in streams {
            stream.write_all(b"GET /nothing HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).await.unwrap();
            assert!(text.contains("HTTP/1.1 404 "), "the others stay: {text}");
        }
    })
    .await;
}

/// A house full of guests that wait for an answer is waited for: none of them loses it.
#[tokio::test]
async fn who_is_being_answered_keeps_its_place() {
    let mut guests = guests::Guests::new(2);
    let (busy, silent) = (guests.welcome().await, guests.welcome().await);
    let (busy_talks, silent_talks) = (busy.talks(), silent.talks());
    assert!(timeout(Duration::from_millis(200), guests.welcome()).await.is_err(), "both are being answered");
    drop(silent_talks);
    let newcomer = async {
        let guest = guests.welcome().await;
        drop(busy_talks);
        guest
    };
    let leaving = async {
        silent.sent_away().await;
        drop(silent);
    };
    let both = async { tokio::join!(newcomer, leaving).0 };
    let third = timeout(Duration::from_secs(5), both).await.expect("the silent one makes way");
    assert!(timeout(Duration::from_millis(50), busy.sent_away()).await.is_err(), "this one was not asked to");
    drop(third);
}
