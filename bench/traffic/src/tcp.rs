//! Bulk TCP: one or several streams, as fast as they go.
//!
//! Each end is one thread, whatever the number of streams, as iperf3 was for most of its life: the work
//! beside the kernel's own is the same for one stream and for eight, and no run depends on how a
//! scheduler deals out sixteen threads over the cores. One stream blocks in its system calls; of several,
//! epoll says which are ready, and each that is gets one read or write of 128 KiB. A stream has a port of
//! its own at the target, so that both ends agree on its number.
//!
//! Congestion control is CUBIC, Linux's default, whatever the host's. BBR paces by an estimate that at a
//! round trip of microseconds says more about its own sampling than about the path between the ends.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use nix::sys::epoll::EpollFlags;
use nix::sys::socket::{setsockopt, sockopt};
use serde::{Deserialize, Serialize};
use vswitch_frame::Instant;
use vswitch_sys::clock;

use crate::pattern::{Checker, WRITE, Writer};
use crate::ready::Ready;

/// A stream on which nothing moves for so long has failed.
pub(crate) const STALL: Duration = Duration::from_secs(5);

/// Payload that the target of a bulk TCP measurement received.
///
/// Checked on receipt: the number at the start of every 4 KiB block of every stream, and every byte of one
/// block in 64. A wrong one fails the measurement.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TcpReport {
    /// Bytes of payload after the first read.
    pub bytes: u64,
    /// Seconds from the first read to the last.
    pub seconds: f64,
}

impl TcpReport {
    /// Payload received per second, in gigabits.
    pub fn gigabits_per_second(&self) -> f64 {
        if self.seconds > 0.0 { self.bytes as f64 * 8e-9 / self.seconds } else { 0.0 }
    }
}

/// Payload that the source of a bulk TCP measurement sent.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct TcpSent {
    bytes: u64,
}

/// Sends one stream to each of `targets`.
pub(crate) fn send(targets: &[SocketAddr], duration: Duration) -> io::Result<TcpSent> {
    let mut streams = Vec::with_capacity(targets.len());
    for target in targets {
        let stream = TcpStream::connect_timeout(target, STALL)
            .map_err(|error| io::Error::new(error.kind(), format!("cannot connect to {target}: {error}")))?;
        stream.set_write_timeout(Some(STALL))?;
        setsockopt(&stream, sockopt::TcpCongestion, &OsString::from("cubic"))?;
        streams.push(stream);
    }
    let mut writers: Vec<Writer> = (0..streams.len()).map(Writer::new).collect();
    let mut turns = Turns::new(&streams, EpollFlags::EPOLLOUT)?;
    let (deadline, mut bytes) = (clock::now() + duration, 0);
    while clock::now() < deadline {
        for turn in 0..turns.wait()? {
            let stream = turns.next[turn];
            let result = streams[stream].write(writers[stream].pending());
            if let Some(written) = moved(result, &turns)? {
                writers[stream].sent(written);
                bytes += written as u64;
            }
        }
    }
    for stream in &mut streams {
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(STALL))?;
        stream.shutdown(Shutdown::Write)?;
    }
    // The target closes when it has read everything, so that what is in flight is not cut off.
    for stream in &mut streams {
        stream.read_to_end(&mut Vec::new()).map_err(stalled)?;
    }
    Ok(TcpSent { bytes })
}

/// Receives `streams` streams, each on a port of its own that `ready` is told.
pub(crate) fn receive(
    address: IpAddr,
    streams: usize,
    ready: impl FnOnce(&[u16]) -> io::Result<()>,
) -> io::Result<TcpReport> {
    let listeners: Vec<TcpListener> =
        (0..streams).map(|_| TcpListener::bind((address, 0))).collect::<io::Result<_>>()?;
    let ports: Vec<u16> = listeners
        .iter()
        .map(|listener| listener.local_addr().map(|address| address.port()))
        .collect::<io::Result<_>>()?;
    ready(&ports)?;
    let mut streams = Vec::with_capacity(listeners.len());
    for listener in &listeners {
        let (stream, _) = listener.accept()?;
        stream.set_read_timeout(Some(STALL))?;
        streams.push(stream);
    }
    drain(streams)
}

/// Reads and checks until every stream has ended.
fn drain(streams: Vec<TcpStream>) -> io::Result<TcpReport> {
    let mut turns = Turns::new(&streams, EpollFlags::EPOLLIN)?;
    let mut open = streams.len();
    let mut streams: Vec<Option<(TcpStream, Checker)>> = streams
        .into_iter()
        .enumerate()
        .map(|(number, stream)| Some((stream, Checker::new(number))))
        .collect();
    let mut buffer = vec![0; WRITE];
    let mut bytes = 0;
    let mut span: Option<(Instant, Instant)> = None;
    while open > 0 {
        for turn in 0..turns.wait()? {
            let number = turns.next[turn];
            let Some((stream, checker)) = &mut streams[number] else { continue };
            let Some(read) = moved(stream.read(&mut buffer), &turns)? else { continue };
            if read == 0 {
                // Closing takes it out of the epoll set, and tells the source that all has been read.
                streams[number] = None;
                open -= 1;
                continue;
            }
            checker.check(&buffer[..read])?;
            let now = clock::now();
            bytes += if span.is_some() { read as u64 } else { 0 };
            span = Some((span.map_or(now, |(first, _)| first), now));
        }
    }
    let seconds = span.map_or(0.0, |(first, last)| last.since(first).as_secs_f64());
    Ok(TcpReport { bytes, seconds })
}

/// A time-out, which a blocking socket calls "would block", by its right name.
fn stalled(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::WouldBlock {
        let message = format!("nothing moved for {} seconds", STALL.as_secs());
        return io::Error::new(io::ErrorKind::TimedOut, message);
    }
    error
}

/// How many bytes a read or write moved; `None` when it is to be tried again in a later turn.
fn moved(result: io::Result<usize>, turns: &Turns) -> io::Result<Option<usize>> {
    match result.as_ref().map_err(io::Error::kind) {
        Ok(&bytes) => Ok(Some(bytes)),
        // A process that was stopped and goes on is interrupted, handler or none (signal(7)).
        Err(io::ErrorKind::Interrupted) => Ok(None),
        Err(io::ErrorKind::WouldBlock) if turns.ready.is_some() => Ok(None),
        Err(_) => result.map(Some).map_err(stalled),
    }
}

/// Streams whose turn it is: the only one, always, or those that epoll says are ready.
struct Turns {
    ready: Option<Ready>,
    next: Vec<usize>,
}

impl Turns {
    /// Takes turns on `streams`, which if several become non-blocking.
    fn new(streams: &[TcpStream], interest: EpollFlags) -> io::Result<Self> {
        if let [_] = streams {
            return Ok(Self { ready: None, next: vec![0] });
        }
        streams.iter().try_for_each(|stream| stream.set_nonblocking(true))?;
        Ok(Self { ready: Some(Ready::new(streams, interest, STALL)?), next: Vec::new() })
    }

    /// Waits until it is someone's turn, and says how many there are whose turn it is.
    fn wait(&mut self) -> io::Result<usize> {
        if let Some(ready) = &mut self.ready {
            self.next.clear();
            self.next.extend(ready.next()?);
        }
        if self.next.is_empty() {
            Err(stalled(io::ErrorKind::WouldBlock.into()))
        } else {
            Ok(self.next.len())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;
    use std::sync::mpsc;

    #[test]
    fn streams_arrive_whole() {
        for streams in [1, 8] {
            let (say, hear) = mpsc::channel();
            let target = std::thread::spawn(move || {
                receive(Ipv4Addr::LOCALHOST.into(), streams, |ports| {
                    say.send(ports.to_vec()).map_err(io::Error::other)
                })
            });
            let ports = hear.recv().expect("ports");
            let targets: Vec<SocketAddr> =
                ports.iter().map(|&port| (Ipv4Addr::LOCALHOST, port).into()).collect();
            let sent = send(&targets, Duration::from_millis(30)).expect("send");
            let report = target.join().expect("target").expect("receive");
            assert!(report.bytes > 0 && report.seconds > 0.0, "{report:?}");
            let first_read = sent.bytes - report.bytes;
            assert!(first_read > 0 && first_read <= WRITE as u64, "{sent:?} {report:?}");
        }
    }
}
