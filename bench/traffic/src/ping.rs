//! ICMP echo over IPv4 (RFC 792), without the `ping` program: a raw socket in the namespace.

use std::io;
use std::net::{IpAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::Duration;

use nix::poll::{PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockProtocol, SockType, recvmsg, setsockopt,
    socket, sockopt,
};
use nix::sys::time::TimeSpec;
use serde::{Deserialize, Serialize};
use vswitch_frame::Instant;
use vswitch_frame::checksum::Sum;
use vswitch_sys::{clock, wallclock};

use crate::pattern::mix;

const ECHO_REQUEST: u8 = 8;
const ECHO_REPLY: u8 = 0;
/// Bytes of an echo message: an ICMP header and two words.
const MESSAGE: usize = 24;

/// Counts of echo requests and their answers. The whole of every answer is checked; a wrong one is none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PingReport {
    /// Requests sent.
    pub sent: u16,
    /// Requests answered.
    pub answered: u16,
    /// The median round trip of those answered, in microseconds; zero when none was.
    pub median_us: f64,
}

/// Sends `count` requests to `target`, each after the answer to the one before, or after `wait`.
pub(crate) fn ping(target: IpAddr, count: u16, wait: Duration) -> io::Result<PingReport> {
    let socket = connect(target)?;
    let identifier = (std::process::id() & 0xffff) as u16;
    let (mut answers, mut round_trips) = (0, Vec::new());
    for sequence in 0..count {
        let sent = clock::now();
        // An address that cannot be resolved makes the kernel refuse: as good as silence.
        if socket.send(&message(ECHO_REQUEST, identifier, sequence)).is_ok()
            && answered(&socket, &message(ECHO_REPLY, identifier, sequence), sent + wait)?
        {
            answers += 1;
            round_trips.push(clock::now().as_nanos() - sent.as_nanos());
        }
    }
    round_trips.sort_unstable();
    let median_us = round_trips.get(round_trips.len() / 2).map_or(0.0, |&nanos| nanos as f64 / 1000.0);
    Ok(PingReport { sent: count, answered: answers, median_us })
}

/// A raw socket for messages to and from this address.
fn connect(target: IpAddr) -> io::Result<UdpSocket> {
    let IpAddr::V4(target) = target else {
        return Err(io::Error::new(io::ErrorKind::Unsupported, format!("{target} is not IPv4")));
    };
    let raw = socket(AddressFamily::Inet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Icmp)?;
    // The standard library has no raw sockets, but one behaves as a datagram socket does.
    let socket = UdpSocket::from(raw);
    socket.connect((target, 0))?;
    Ok(socket)
}

/// Round trips of echo requests, one every two milliseconds, until the kernel received the answer (as `ping`
/// counts them): a sender that waits for a processor is not a slow network. Those lost count as long as they
/// were waited for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProbeReport {
    /// Requests sent.
    pub sent: u64,
    /// Requests that were not answered within half a second.
    pub lost: u64,
    /// The median round trip, in milliseconds.
    pub p50_ms: f64,
    /// The round trip that one in a hundred exceeds, in milliseconds.
    pub p99_ms: f64,
    /// The longest round trip, in milliseconds.
    pub max_ms: f64,
}

/// Pings `target` for `duration`.
pub(crate) fn probe(target: IpAddr, duration: Duration) -> io::Result<ProbeReport> {
    const WAIT: Duration = Duration::from_millis(500);
    const PAUSE_MS: u8 = 2;
    let socket = connect(target)?;
    setsockopt(&socket, sockopt::ReceiveTimestampns, &true)?;
    let identifier = (std::process::id() & 0xffff) as u16;
    let (mut sent, mut lost, mut millis) = (0_u64, 0, Vec::new());
    let end = clock::now() + duration;
    while clock::now() < end {
        let (sequence, start) = ((sent & 0xffff) as u16, clock::now());
        sent += 1;
        let request = message(ECHO_REQUEST, identifier, sequence);
        let sent_at = wallclock::since_epoch();
        let went = socket.send(&request).is_ok();
        let reply = message(ECHO_REPLY, identifier, sequence);
        let came_at = if went { answer_at(&socket, &reply, start + WAIT)? } else { None };
        lost += u64::from(came_at.is_none());
        let took = came_at.map_or(WAIT, |at| at.saturating_sub(sent_at));
        millis.push(took.as_secs_f64() * 1000.0);
        // For no event: only the time passes.
        let _ = poll(&mut [], PollTimeout::from(PAUSE_MS));
    }
    millis.sort_unstable_by(f64::total_cmp);
    let at = |percent: usize| millis.get((millis.len() * percent / 100).min(millis.len() - 1)).copied();
    let [p50_ms, p99_ms, max_ms] = [50, 99, 100].map(|percent| at(percent).unwrap_or(0.0));
    Ok(ProbeReport { sent, lost, p50_ms, p99_ms, max_ms })
}

fn message(kind: u8, identifier: u16, sequence: u16) -> [u8; MESSAGE] {
    let mut message = [0; MESSAGE];
    message[0] = kind;
    message[4..6].copy_from_slice(&identifier.to_be_bytes());
    message[6..8].copy_from_slice(&sequence.to_be_bytes());
    message[8..16].copy_from_slice(&mix(u64::from(sequence)).to_le_bytes());
    message[16..].copy_from_slice(&mix(!u64::from(sequence)).to_le_bytes());
    let checksum = Sum::ZERO.add_bytes(&message).checksum();
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
    message
}

/// Whether `answer` comes before the deadline. Whatever else comes is passed over.
fn answered(socket: &UdpSocket, answer: &[u8; MESSAGE], deadline: Instant) -> io::Result<bool> {
    Ok(answer_at(socket, answer, deadline)?.is_some())
}

/// When `answer` came, if it does before the deadline: as the kernel has it if the socket asks for that,
/// since 1970. Whatever else comes is passed over.
fn answer_at(socket: &UdpSocket, answer: &[u8; MESSAGE], deadline: Instant) -> io::Result<Option<Duration>> {
    loop {
        let left = deadline.since(clock::now());
        if left.is_zero() {
            return Ok(None);
        }
        socket.set_read_timeout(Some(left))?;
        let mut packet = [0; 128];
        let mut control = nix::cmsg_space!(TimeSpec);
        let (length, at) = {
            let mut parts = [io::IoSliceMut::new(&mut packet)];
            let none = MsgFlags::empty();
            // Unreachable, or timed out: the loop sees by the deadline whether to go on.
            let Ok(message) = recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut control), none) else {
                continue;
            };
            let at = message.cmsgs().into_iter().flatten().find_map(|said| {
                let ControlMessageOwned::ScmTimestampns(at) = said else { return None };
                Some(Duration::from(at))
            });
            (message.bytes, at)
        };
        // A raw socket hands over the IP header too.
        let header = usize::from(packet[0] & 0xf) * 4;
        if packet[..length].get(header..) == Some(answer) {
            return Ok(Some(at.unwrap_or_else(wallclock::since_epoch)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn loopback_answers_and_its_checksums_are_right() {
        assert_eq!(Sum::ZERO.add_bytes(&message(ECHO_REQUEST, 7, 9)).checksum(), 0);
        match ping(Ipv4Addr::LOCALHOST.into(), 3, Duration::from_secs(5)) {
            Ok(report) => assert_eq!(report.answered, 3, "{report:?}"),
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "{error}"),
        }
    }
}
