//! Questions to servers of our own, on the loopback.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use simple_dns::rdata::{A, RData};
use simple_dns::{CLASS, Name, Packet, PacketFlag, QTYPE, Question, RCODE, ResourceRecord, TYPE};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};
use vswitch_frame::Instant;

use super::*;

/// The behaviour of a server of ours.
#[derive(Clone, Copy, PartialEq)]
enum Manner {
    Answers(u32),
    Fails(RCODE),
    CutsShort,
    Lies,
    /// It answers nothing until [`Bench::speak`].
    KeepsSilent,
}

static NUMBER: AtomicUsize = AtomicUsize::new(0);

/// Servers on addresses of the loopback that no other test has, all on one port; and the resolver that
/// asks them.
struct Bench {
    resolver: Resolver,
    path: PathBuf,
    asked: Arc<AtomicUsize>,
    speaks: Arc<AtomicUsize>,
}

impl Bench {
    async fn new(manners: &[Manner]) -> Self {
        let number = NUMBER.fetch_add(1, Relaxed);
        let path = std::env::temp_dir().join(format!("vswitch-resolver-{}-{number}", std::process::id()));
        let (asked, speaks) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let mut port = 0;
        let mut servers = Vec::new();
        for (server, manner) in manners.iter().enumerate() {
            let address = format!("127.{}.{number}.{}", std::process::id() % 200 + 1, server + 1);
            let bound = UdpSocket::bind((address.as_str(), port)).await.expect("bind");
            let local = bound.local_addr().expect("bound");
            let listener = TcpListener::bind(local).await.expect("listen");
            port = local.port();
            servers.push(local.ip());
            tokio::spawn(serve_datagrams(bound, *manner, [&asked, &speaks].map(Arc::clone)));
            tokio::spawn(serve_streams(listener));
        }
        let file: String = servers.iter().map(|server| format!("nameserver {server}\n")).collect();
        std::fs::write(&path, file).expect("written");
        Self { resolver: Resolver::with_port(path.clone(), port), path, asked, speaks }
    }

    /// Has those answer that kept silent.
    fn speak(&self) {
        self.speaks.store(1, Relaxed);
    }

    async fn ask(&self, question: &[u8]) -> Vec<u8> {
        self.resolver.find_out(question).await.expect("an answer")
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(Path::new(&self.path));
    }
}

async fn serve_datagrams(socket: UdpSocket, manner: Manner, [asked, speaks]: [Arc<AtomicUsize>; 2]) {
    let mut buffer = vec![0; 4096];
    while let Ok((length, client)) = socket.recv_from(&mut buffer).await {
        asked.fetch_add(1, Relaxed);
        let question = &buffer[..length];
        let answer = match manner {
            Manner::KeepsSilent if speaks.load(Relaxed) == 0 => continue,
            Manner::KeepsSilent => answer(question, RCODE::NoError, &[1], 60),
            Manner::Answers(ttl) => answer(question, RCODE::NoError, &[1], ttl),
            Manner::Fails(code) => answer(question, code, &[], 0),
            Manner::CutsShort => {
                let mut cut = answer(question, RCODE::NoError, &[], 0);
                cut[2] |= 0x02;
                cut
            }
            Manner::Lies => {
                // Another identifier, another question, and then the truth.
                let mut lie = answer(question, RCODE::NoError, &[66], 60);
                lie[0] ^= 1;
                socket.send_to(&lie, client).await.expect("sent");
                let mut lie = answer(question, RCODE::NoError, &[66], 60);
                lie[13] ^= 1;
                socket.send_to(&lie, client).await.expect("sent");
                answer(question, RCODE::NoError, &[1], 60)
            }
        };
        socket.send_to(&answer, client).await.expect("sent");
    }
}

async fn serve_streams(listener: TcpListener) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let mut question = vec![0; usize::from(stream.read_u16().await.expect("a length"))];
        stream.read_exact(&mut question).await.expect("a question");
        let many: Vec<u32> = (1..=100).collect();
        let answer = answer(&question, RCODE::NoError, &many, 60);
        let length = u16::try_from(answer.len()).expect("short").to_be_bytes();
        stream.write_all(&[&length[..], &answer].concat()).await.expect("sent");
    }
}

fn question(name: &str, id: u16) -> Vec<u8> {
    let mut packet = Packet::new_query(id);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    let name = Name::new_unchecked(name);
    packet.questions.push(Question::new(name, QTYPE::TYPE(TYPE::A), CLASS::IN.into(), false));
    packet.build_bytes_vec().expect("a message")
}

fn answer(question: &[u8], code: RCODE, addresses: &[u32], ttl: u32) -> Vec<u8> {
    let question = Packet::parse(question).expect("a question");
    let mut packet = Packet::new_reply(question.id());
    packet.questions.clone_from(&question.questions);
    *packet.rcode_mut() = code;
    for address in addresses {
        let name = question.questions[0].qname.clone();
        packet.answers.push(ResourceRecord::new(name, CLASS::IN, ttl, RData::A(A { address: *address })));
    }
    packet.build_bytes_vec().expect("a message")
}

fn told(answer: &[u8]) -> (u16, RCODE, usize) {
    let packet = Packet::parse(answer).expect("an answer");
    (packet.id(), packet.rcode(), packet.answers.len())
}

#[tokio::test]
async fn the_first_server_that_knows_is_believed() {
    let cases: [(&[Manner], RCODE, usize, usize); 6] = [
        (&[Manner::Answers(60), Manner::Answers(60)], RCODE::NoError, 1, 1),
        (&[Manner::Fails(RCODE::ServerFailure), Manner::Answers(60)], RCODE::NoError, 1, 2),
        (&[Manner::Fails(RCODE::Refused), Manner::Fails(RCODE::Refused)], RCODE::Refused, 0, 2),
        (&[Manner::Fails(RCODE::NameError), Manner::Answers(60)], RCODE::NameError, 0, 1),
        (&[Manner::CutsShort], RCODE::NoError, 100, 1),
        (&[Manner::Lies], RCODE::NoError, 1, 1),
    ];
    for (manners, code, records, asked) in cases {
        let bench = Bench::new(manners).await;
        assert_eq!(told(&bench.ask(&question("example.com", 7)).await), (7, code, records));
        assert_eq!(bench.asked.load(Relaxed), asked);
    }
}

/// The time that all questions together may take of which a client makes one: name after name of its search
/// list, each of them twice.
const SECONDS: Duration = Duration::from_secs(3);

#[tokio::test]
async fn a_silent_server_is_waited_for_once_and_heard_when_it_is_back() {
    let bench = Bench::new(&[Manner::KeepsSilent, Manner::Answers(60)]).await;
    let server = lock(&bench.resolver.shared.servers).now().remove(0);
    let all = async {
        for number in 1.. {
            let asked = question(&format!("n{number}.example.com"), number);
            assert_eq!(told(&bench.ask(&asked).await), (number, RCODE::NoError, 1));
            if server.is_silent() {
                break;
            }
        }
    };
    tokio::time::timeout(SECONDS, all).await.expect("it is known to be silent");
    bench.speak();
    // Nobody asks it now: what it has not answered was sent again.
    let back = async {
        while server.is_silent() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(exchange::TIME_MAX, back).await.expect("it is heard");
}

#[tokio::test]
async fn an_answer_that_comes_too_late_is_kept_for_who_asks_again() {
    let bench = Bench::new(&[Manner::KeepsSilent]).await;
    let asked = question("example.com", 7);
    assert_eq!(told(&bench.ask(&asked).await), (7, RCODE::ServerFailure, 0));
    bench.speak();
    let again = async { while told(&bench.ask(&asked).await) != (7, RCODE::NoError, 1) {} };
    tokio::time::timeout(exchange::TIME_MAX, again).await.expect("it is kept");
}

#[tokio::test(start_paused = true)]
async fn silence_of_all_is_a_failure_within_seconds() {
    let silent = UdpSocket::bind("127.0.0.1:0").await.expect("bind");
    let SocketAddr::V4(address) = silent.local_addr().expect("bound") else { panic!("IPv4") };
    let path = std::env::temp_dir().join(format!("vswitch-silent-{}", std::process::id()));
    std::fs::write(&path, "nameserver 127.0.0.1\n".repeat(3)).expect("written");
    let resolver = Resolver::with_port(path.clone(), address.port());
    let start = tokio::time::Instant::now();
    for id in 1..=4 {
        let answer = resolver.find_out(&question("example.com", id)).await.expect("an answer");
        assert_eq!(told(&answer), (id, RCODE::ServerFailure, 0));
    }
    let took = start.elapsed();
    std::fs::remove_file(path).expect("ours");
    assert!(took <= SECONDS, "{took:?}");
}

#[tokio::test]
async fn an_answer_is_kept_and_found_whatever_the_case() {
    let bench = Bench::new(&[Manner::Answers(60)]).await;
    for (id, name) in [(1, "example.com"), (2, "EXAMPLE.com"), (3, "example.COM")] {
        let asked = question(name, id);
        let answer = bench.ask(&asked).await;
        assert_eq!(told(&answer), (id, RCODE::NoError, 1));
        assert_eq!(answer[12..asked.len()], asked[12..], "the case is the client's");
    }
    assert_eq!(bench.asked.load(Relaxed), 1);
    bench.ask(&question("other.com", 4)).await;
    assert_eq!(bench.asked.load(Relaxed), 2);
}

#[test]
fn answers_are_kept_no_longer_than_they_hold() {
    let mut cache = Cache::default();
    let (asked, start) = (question("example.com", 7), Instant::from_nanos(1));
    let query = Query::parse(&asked).expect("a question");
    let after = |seconds| start + Duration::from_secs(seconds);
    cache.keep(&asked, &query, &answer(&asked, RCODE::NoError, &[1], 60), start);
    let kept = cache.look_up(&asked, &query, after(59)).expect("it holds");
    assert_eq!(Packet::parse(&kept).expect("an answer").answers[0].ttl, 1);
    assert_eq!(cache.look_up(&asked, &query, after(60)), None);

    cache.keep(&asked, &query, &answer(&asked, RCODE::NoError, &[1], 100_000), start);
    assert!(cache.look_up(&asked, &query, after(299)).is_some());
    assert_eq!(cache.look_up(&asked, &query, after(300)), None);

    let mut cache = Cache::default();
    for (code, ttl) in [(RCODE::ServerFailure, 60), (RCODE::NoError, 0), (RCODE::NameError, 60)] {
        let records: &[u32] = if code == RCODE::NoError { &[1] } else { &[] };
        cache.keep(&asked, &query, &answer(&asked, code, records, ttl), start);
        assert_eq!(cache.look_up(&asked, &query, start), None, "{code:?}");
    }
}

#[test]
fn the_cache_keeps_within_its_limit() {
    let mut cache = Cache::default();
    let now = Instant::from_nanos(1);
    for number in 0..2000u32 {
        let asked = question(&format!("n{number}.example.com"), 7);
        let query = Query::parse(&asked).expect("a question");
        cache.keep(&asked, &query, &answer(&asked, RCODE::NoError, &[1], number + 1), now);
        assert!(cache.look_up(&asked, &query, now).is_some());
    }
    let held = (0..2000).filter(|number| {
        let asked = question(&format!("n{number}.example.com"), 7);
        let query = Query::parse(&asked).expect("a question");
        cache.look_up(&asked, &query, now).is_some()
    });
    assert_eq!(held.count(), 1024);
}

#[tokio::test]
async fn a_datapath_that_asks_without_end_is_refused() {
    const PLACES: usize = 4;
    let silent = UdpSocket::bind("127.0.0.1:0").await.expect("bind");
    let local = silent.local_addr().expect("bound");
    let path = std::env::temp_dir().join(format!("vswitch-refused-{}", std::process::id()));
    std::fs::write(&path, format!("nameserver {}\n", local.ip())).expect("written");
    let resolver = Resolver::with_port(path.clone(), local.port());
    let (datapath, channel) = Channel::pair().expect("a pair");
    let channel = Arc::new(channel.into_async().expect("a runtime"));
    tokio::spawn(resolver.receive(channel, Arc::new(Semaphore::new(PLACES))));
    let datapath = datapath.into_async().expect("a runtime");
    let numbers = 0..PLACES as u64 + 3;
    for number in numbers.clone() {
        let asked = [&number.to_be_bytes()[..], &question("example.com", 7)].concat();
        datapath.get_ref().send(&asked, &[]).expect("sent");
    }
    // The server is silent for longer than it takes to refuse.
    let mut refused = Vec::new();
    let mut buffer = vec![0; MESSAGE_BYTES_MAX];
    while refused.len() < 3 {
        let mut guard = datapath.readable().await.expect("open");
        match datapath.get_ref().receive(&mut buffer).expect("open") {
            None => guard.clear_ready(),
            Some((length, _)) => {
                let (number, answer) = buffer[..length].split_at(NUMBER_BYTES);
                assert_eq!(told(answer), (7, RCODE::ServerFailure, 0));
                refused.push(u64::from_be_bytes(number.try_into().expect("a number")));
            }
        }
    }
    assert_eq!(refused, numbers.skip(PLACES).collect::<Vec<_>>());
    std::fs::remove_file(path).expect("ours");
}
