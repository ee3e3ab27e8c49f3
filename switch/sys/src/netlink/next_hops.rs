//! Nexthop objects: next hops that routes share (`ip nexthop`).
//!
//! Kernel facts relied on: objects and groups of them are listed by `RTM_GETNEXTHOP`, as in
//! `include/uapi/linux/nexthop.h`; a group names objects that are no groups. A kernel before 5.3
//! has none, and refuses the question.

use std::collections::BTreeMap;
use std::net::IpAddr;

use netlink_packet_core::{
    DecodeError, NetlinkDeserializable, NetlinkHeader, NetlinkPayload, NetlinkSerializable, NlasIterator,
};

const NEW: u16 = 104;
const GET: u16 = 106;
/// Bytes of `struct nhmsg`: family, scope, protocol, a reserved byte, and flags.
const HEADER_BYTES: usize = 8;
const ID: u16 = 1;
const GROUP: u16 = 2;
const INTERFACE: u16 = 5;
const GATEWAY: u16 = 6;
/// Bytes of `struct nexthop_grp`, of which the first four are an object's number.
const MEMBER_BYTES: usize = 8;
/// `RTNH_F_DEAD` and `RTNH_F_LINKDOWN`.
const DOWN: u32 = 1 | 16;

/// A next hop.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct NextHop {
    pub(super) gateway: Option<IpAddr>,
    pub(super) index: Option<u32>,
    pub(super) is_down: bool,
}

/// A message about an object: the question for all, or one of its answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Message {
    GetAll,
    One { id: u32, hop: NextHop },
    Group { id: u32, members: Vec<u32> },
}

impl NetlinkSerializable for Message {
    fn message_type(&self) -> u16 {
        if *self == Self::GetAll { GET } else { NEW }
    }

    fn buffer_len(&self) -> usize {
        HEADER_BYTES
    }

    fn serialize(&self, buffer: &mut [u8]) {
        buffer.fill(0);
    }
}

impl NetlinkDeserializable for Message {
    type Error = DecodeError;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, DecodeError> {
        if header.message_type != NEW {
            return Err(DecodeError::from(format!("message {} is about no next hop", header.message_type)));
        }
        let cut = || DecodeError::from("a next hop is cut short");
        let (head, attributes) = payload.split_at_checked(HEADER_BYTES).ok_or_else(cut)?;
        let flags = word(&head[4..]).ok_or_else(cut)?;
        let mut hop = NextHop { is_down: flags & DOWN != 0, ..NextHop::default() };
        let (mut id, mut members) = (0, None);
        for attribute in NlasIterator::new(attributes) {
            let attribute = attribute?;
            let value = attribute.value();
            match attribute.kind() {
                ID => id = word(value).ok_or_else(cut)?,
                GROUP => members = Some(value.chunks(MEMBER_BYTES).filter_map(word).collect()),
                INTERFACE => hop.index = word(value),
                GATEWAY => hop.gateway = address(value),
                _ => {}
            }
        }
        Ok(members.map_or(Self::One { id, hop }, |members| Self::Group { id, members }))
    }
}

impl From<Message> for NetlinkPayload<Message> {
    fn from(message: Message) -> Self {
        Self::InnerMessage(message)
    }
}

/// The next hops that each object stands for.
pub(super) fn by_object(messages: Vec<Message>) -> BTreeMap<u32, Vec<NextHop>> {
    let (mut hops, mut groups) = (BTreeMap::new(), Vec::new());
    for message in messages {
        match message {
            Message::One { id, hop } => drop(hops.insert(id, vec![hop])),
            Message::Group { id, members } => groups.push((id, members)),
            Message::GetAll => {}
        }
    }
    for (id, members) in groups {
        let members = members.iter().filter_map(|member| hops.get(member)).flatten().cloned().collect();
        hops.insert(id, members);
    }
    hops
}

fn word(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = || <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from);
    <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from).or_else(v4)
}
