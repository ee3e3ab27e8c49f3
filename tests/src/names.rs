//! Questions for names, and a name server that answers them.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use simple_dns::rdata::{A, RData};
use simple_dns::{CLASS, Name, Packet, PacketFlag, Question, RCODE, ResourceRecord, TYPE};

use crate::namespace::{Namespace, inside};
use crate::wait;

/// The time to wait for a datagram before asking again.
const PATIENCE: Duration = Duration::from_secs(2);

/// An answer, as a test looks at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The response code.
    pub code: RCODE,
    /// Its records, sorted: addresses and names as text.
    pub records: Vec<String>,
    /// Whether it was cut short.
    pub truncated: bool,
}

/// The answer with these records.
pub fn found(records: &[&str]) -> Answer {
    let records = records.iter().map(|record| (*record).to_owned()).collect();
    Answer { code: RCODE::NoError, records, truncated: false }
}

/// The answer with this code and no records.
pub fn failed(code: RCODE) -> Answer {
    Answer { code, records: Vec::new(), truncated: false }
}

/// Asks a name server over UDP, from inside a namespace.
///
/// # Panics
/// When there is no answer.
pub fn ask(namespace: &Path, server: IpAddr, name: &str, kind: TYPE) -> Answer {
    let question = question(name, kind);
    let any: IpAddr =
        if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = inside(namespace, || UdpSocket::bind((any, 0))).expect("bind");
    socket.connect((server, 53)).expect("connect");
    socket.set_read_timeout(Some(PATIENCE)).expect("timeout");
    let mut buffer = vec![0; 65_536];
    wait::until("an answer", || {
        socket.send(&question).ok()?;
        let length = socket.recv(&mut buffer).ok()?;
        Some(read(&buffer[..length]))
    })
}

/// Asks a name server over one TCP connection, all questions at once, from inside a namespace. The answers
/// are in the order of the questions, whatever order they came in.
///
/// # Panics
/// When there is no answer.
pub fn ask_stream(namespace: &Path, server: IpAddr, questions: &[(&str, TYPE)]) -> Vec<Answer> {
    let server = SocketAddr::new(server, 53);
    let mut stream =
        inside(namespace, || TcpStream::connect_timeout(&server, wait::DEADLINE)).expect("connect");
    stream.set_read_timeout(Some(wait::DEADLINE)).expect("timeout");
    let mut messages = Vec::new();
    for (id, (name, kind)) in (0u16..).zip(questions) {
        let mut message = question(name, *kind);
        message[..2].copy_from_slice(&id.to_be_bytes());
        messages.extend(framed(&message));
    }
    stream.write_all(&messages).expect("send");
    let mut answers: Vec<(u16, Answer)> = questions
        .iter()
        .map(|_| {
            let message = read_framed(&mut stream).expect("an answer");
            (u16::from_be_bytes([message[0], message[1]]), read(&message))
        })
        .collect();
    answers.sort_by_key(|(id, _)| *id);
    answers.into_iter().map(|(_, answer)| answer).collect()
}

fn question(name: &str, kind: TYPE) -> Vec<u8> {
    let mut packet = Packet::new_query(0x5353);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    packet.questions.push(Question::new(Name::new_unchecked(name), kind.into(), CLASS::IN.into(), false));
    packet.build_bytes_vec().expect("a message")
}

fn read(message: &[u8]) -> Answer {
    let packet = Packet::parse(message).expect("an answer");
    let mut records: Vec<String> = packet.answers.iter().map(|record| show(&record.rdata)).collect();
    records.sort();
    Answer { code: packet.rcode(), records, truncated: packet.has_flags(PacketFlag::TRUNCATION) }
}

fn show(data: &RData<'_>) -> String {
    if let RData::A(a) = data {
        Ipv4Addr::from(a.address).to_string()
    } else if let RData::AAAA(aaaa) = data {
        Ipv6Addr::from(aaaa.address).to_string()
    } else if let RData::PTR(name) = data {
        name.0.to_string()
    } else {
        format!("{data:?}")
    }
}

fn framed(message: &[u8]) -> Vec<u8> {
    let length = u16::try_from(message.len()).expect("a short message");
    [&length.to_be_bytes(), message].concat()
}

fn read_framed(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut message)?;
    Ok(message)
}

/// A name server in a namespace. It answers every question by one address, and for a name that begins with
/// `many` by a hundred, over TCP only.
#[derive(Debug)]
pub struct Server {
    asked: Arc<AtomicUsize>,
}

/// The address every name has.
pub const ANSWER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);

impl Server {
    /// Starts one at port 53 of an address, which is given to the namespace. It ends with the test process.
    ///
    /// # Panics
    /// When the address or the port is taken.
    pub fn start(namespace: &Namespace, address: Ipv4Addr) -> Self {
        namespace.ip(&["address", "add", &format!("{address}/32"), "dev", "lo"]);
        let (socket, listener) = namespace.inside(|| {
            (UdpSocket::bind((address, 53)).expect("bind"), TcpListener::bind((address, 53)).expect("listen"))
        });
        let asked = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&asked);
        thread::spawn(move || {
            let mut buffer = vec![0; 4096];
            while let Ok((length, client)) = socket.recv_from(&mut buffer) {
                counter.fetch_add(1, Relaxed);
                let _ = socket.send_to(&reply(&buffer[..length], false), client);
            }
        });
        thread::spawn(move || {
            while let Ok((mut stream, _)) = listener.accept() {
                while let Ok(message) = read_framed(&mut stream) {
                    let _ = stream.write_all(&framed(&reply(&message, true)));
                }
            }
        });
        Self { asked }
    }

    /// The number of questions it was asked over UDP.
    pub fn asked(&self) -> usize {
        self.asked.load(Relaxed)
    }
}

fn reply(question: &[u8], is_stream: bool) -> Vec<u8> {
    let question = Packet::parse(question).expect("a question");
    let mut packet = Packet::new_reply(question.id());
    packet.questions.clone_from(&question.questions);
    let name = question.questions[0].qname.clone();
    let many = name.to_string().starts_with("many");
    if many && !is_stream {
        packet.set_flags(PacketFlag::TRUNCATION);
    }
    let count = match (many, is_stream) {
        (false, _) => 1,
        (true, true) => 100,
        (true, false) => 0,
    };
    for number in 0..count {
        let data = RData::A(A { address: u32::from(ANSWER) + number });
        packet.answers.push(ResourceRecord::new(name.clone(), CLASS::IN, 60, data));
    }
    packet.build_bytes_vec().expect("a message")
}
