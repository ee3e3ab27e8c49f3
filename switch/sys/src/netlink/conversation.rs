//! One question and its answers on a netlink socket.
//!
//! Kernel facts relied on: answers carry the sequence number of their question; a question that asks
//! for a dump ends with `NLMSG_DONE`, any other with `NLMSG_ERROR` (code 0 is the acknowledgement), or
//! with the single message it asked for (netlink(7)). With `NETLINK_EXT_ACK` an error carries the
//! kernel's own words in attribute 1, and with `NETLINK_CAP_ACK` not the whole question again.

use std::io;

use netlink_packet_core::{
    ErrorMessage, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkDeserializable, NetlinkHeader, NetlinkMessage,
    NetlinkPayload, NetlinkSerializable, NlasIterator,
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

/// Bytes of the question's header, repeated in an error before the attributes.
const HEADER_BYTES: usize = 16;
/// `NLMSGERR_ATTR_MSG` of `include/uapi/linux/netlink.h`.
const ERROR_TEXT: u16 = 1;

/// Why a question got no answer.
#[derive(Debug)]
pub(super) struct Refusal {
    /// The error number.
    pub(super) cause: io::Error,
    /// The kernel's own words about it.
    pub(super) words: Option<String>,
}

impl From<io::Error> for Refusal {
    fn from(cause: io::Error) -> Self {
        Self { cause, words: None }
    }
}

#[derive(Debug)]
pub(super) struct Conversation {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Conversation {
    pub(super) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        socket.set_ext_ack(true)?;
        socket.set_cap_ack(true)?;
        Ok(Self { socket, sequence: 0, buffer: Vec::new() })
    }

    /// Sends a question and collects its answers.
    pub(super) fn ask<M>(&mut self, question: M, flags: u16) -> Result<Vec<M>, Refusal>
    where
        M: NetlinkSerializable + NetlinkDeserializable + Into<NetlinkPayload<M>>,
    {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, question.into());
        message.finalize();
        self.buffer.clear();
        self.buffer.resize(message.buffer_len(), 0);
        message.serialize(&mut self.buffer);
        self.socket.send(&self.buffer, 0)?;
        let many = flags & (NLM_F_DUMP | NLM_F_ACK) != 0;
        let mut answers = Vec::new();
        while !self.receive(many, &mut answers)? {}
        Ok(answers)
    }

    /// Reads one datagram; says whether it was the last.
    fn receive<M: NetlinkDeserializable>(
        &mut self,
        many: bool,
        answers: &mut Vec<M>,
    ) -> Result<bool, Refusal> {
        let (datagram, _) = self.socket.recv_from_full()?;
        let mut rest = datagram.as_slice();
        let mut last = false;
        while !rest.is_empty() {
            let message = NetlinkMessage::<M>::deserialize(rest).map_err(garbled)?;
            let length = (message.header.length as usize).next_multiple_of(4).clamp(HEADER_BYTES, rest.len());
            rest = &rest[length..];
            if message.header.sequence_number != self.sequence {
                continue;
            }
            if let NetlinkPayload::InnerMessage(answer) = message.payload {
                answers.push(answer);
                last |= !many;
            } else if let NetlinkPayload::Done(done) = message.payload {
                done_or_error(done.code)?;
                last = true;
            } else if let NetlinkPayload::Error(error) = message.payload {
                refusal(&error)?;
                last = true;
            }
        }
        Ok(last)
    }
}

/// A dump that failed half-way says so where it ends.
fn done_or_error(code: i32) -> io::Result<()> {
    if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(-code)) }
}

/// The error of an answer, in the kernel's own words where it gave any.
fn refusal(error: &ErrorMessage) -> Result<(), Refusal> {
    let Some(code) = error.code else { return Ok(()) };
    let attributes = error.header.get(HEADER_BYTES..).unwrap_or_default();
    let text = NlasIterator::new(attributes).flatten().find(|attribute| attribute.kind() == ERROR_TEXT);
    let words = text.map(|text| String::from_utf8_lossy(text.value()).trim_end_matches('\0').to_owned());
    Err(Refusal { cause: io::Error::from_raw_os_error(-code.get()), words })
}

fn garbled(error: netlink_packet_core::DecodeError) -> Refusal {
    Refusal { cause: io::Error::new(io::ErrorKind::InvalidData, error), words: None }
}
