//! Members on loopback, and strangers at their door.

use std::net::Ipv4Addr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;

use super::super::super::record::{Record, Scope, Version};
use super::super::machine::Machine;
use super::super::seal::KEY_BYTES;
use super::*;

/// Long enough for anything that happens at all.
const DEADLINE: Duration = Duration::from_secs(20);

/// A member that listens, what control would hear of it, and where it is.
struct Listening {
    node: Arc<Node>,
    address: SocketAddr,
    _events: mpsc::UnboundedReceiver<Event>,
    _talks: mpsc::UnboundedReceiver<Appointment>,
}

fn seal() -> Seal {
    Seal::new("test", &[[1; KEY_BYTES]]).expect("a seal")
}

async fn member(last: u8) -> Listening {
    let listener = TcpListener::bind((Ipv4Addr::new(127, 0, 7, last), 0)).await.expect("it listens");
    let address = listener.local_addr().expect("it has an address");
    let socket = UdpSocket::bind(address).await.expect("a socket");
    let me = Member { address, host: HostId::new([last; 16]), life: 1 };
    let ((events, heard), (talks, appointments)) = (mpsc::unbounded_channel(), mpsc::unbounded_channel());
    let node = Arc::new(Node::new(seal(), socket, Machine::new(me, 1, now()), events, talks));
    tokio::spawn(listen(Arc::clone(&node), listener));
    Listening { node, address, _events: heard, _talks: appointments }
}

/// Everything that a connection brings until it is closed.
async fn until_closed(mut stream: TcpStream) -> Vec<u8> {
    let mut read = Vec::new();
    let closed = timeout(DEADLINE, stream.read_to_end(&mut read)).await;
    // Closed is closed, whether or not something of ours was unread.
    let _ = closed.expect("it is closed");
    read
}

async fn is_served(member: &Listening) -> bool {
    let seal = seal();
    let open = timeout(Duration::from_secs(2), Exchange::open(&seal, member.address)).await;
    open.is_ok_and(|exchange| exchange.is_ok_and(|exchange| exchange.with().address == member.address))
}

#[tokio::test]
async fn who_connects_and_says_nothing_keeps_nobody_out() {
    let member = member(1).await;
    let mut idle = Vec::new();
    for number in 0..350 {
        idle.push(TcpStream::connect(member.address).await.expect("it accepts"));
        assert!(number % 50 > 0 || is_served(&member).await, "with {number} idle connections");
    }
    assert!(is_served(&member).await);
    // All of them are shown out.
    for stream in idle {
        until_closed(stream).await;
    }
    assert!(is_served(&member).await);
}

#[tokio::test]
async fn a_length_that_is_said_is_not_believed() {
    let member = member(2).await;
    let mut stream = TcpStream::connect(member.address).await.expect("it accepts");
    stream.write_all(&(64u32 << 20).to_be_bytes()).await.expect("it is sent");
    until_closed(stream).await;
    // A member may say more at once, but not without bound.
    let seal = seal();
    let exchange = Exchange::open(&seal, member.address).await.expect("it is served");
    let mut stream = exchange.stream;
    stream.write_all(&(TEXT_BYTES_MAX + 1).to_be_bytes()).await.expect("it is sent");
    until_closed(stream).await;
}

#[tokio::test]
async fn a_recorded_question_is_not_answered_again() {
    let member = member(3).await;
    let seal = seal();
    let connect = async || {
        let mut stream = TcpStream::connect(member.address).await.expect("it accepts");
        let greeting: Greeting =
            wire::receive(&mut stream, &seal, FIRST_BYTES_MAX).await.expect("a greeting");
        (stream, greeting.challenge)
    };
    let (mut stream, challenge) = connect().await;
    let letter = Letter { repeats: challenge, number: 7, body: Question::Hello };
    let sealed = seal.seal([9; 24], &serde_json::to_vec(&letter).expect("text"));
    let length = u32::try_from(sealed.len()).expect("short").to_be_bytes();
    let recorded = [length.as_slice(), &sealed].concat();
    stream.write_all(&recorded).await.expect("it is sent");
    let answer: Letter<Reply> = wire::receive(&mut stream, &seal, TEXT_BYTES_MAX).await.expect("an answer");
    assert!(answer.repeats == 7 && matches!(answer.body, Reply::Welcome(_)));
    let (mut stream, _) = connect().await;
    stream.write_all(&recorded).await.expect("it is sent");
    assert!(until_closed(stream).await.is_empty());
}

#[tokio::test]
async fn who_has_the_key_is_served_as_much_as_others() {
    let member = member(4).await;
    let seal = seal();
    let mut held = Vec::new();
    while let Ok(exchange) = Exchange::open(&seal, member.address).await {
        held.push(exchange);
        assert!(held.len() < 100, "one source has no end of connections");
    }
    // Once they are closed there is room again.
    drop(held);
    let again = async {
        while !is_served(&member).await {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(DEADLINE, again).await.expect("it is served again");
}

#[tokio::test]
async fn a_conversation_brings_each_what_it_lacks() {
    let (one, other) = (member(5).await, member(6).await);
    let record = |node: &Node, number: u32| Record {
        key: Key::Vni(number),
        version: Version::at(now().since_epoch),
        host: node.machine().me().host,
        value: Some(Value::Vni { network: "x".repeat(2_000) }),
    };
    let (here, there): (Vec<_>, Vec<_>) = (
        (0..1_000).map(|number| record(&one.node, number)).collect(),
        (1_000..1_010).map(|number| record(&other.node, number)).collect(),
    );
    one.node.act(|machine| machine.publish(here, now()));
    other.node.act(|machine| machine.publish(there, now()));
    // Megabytes go in parts, none of which is longer than a text may be.
    hold(Arc::clone(&other.node), (one.address, Talk::Compare(vec![Scope::Global]))).await;
    let known = |of: &Listening| of.node.machine().ledger().len();
    assert_eq!((known(&one), known(&other)), (1_010, 1_010));
}
