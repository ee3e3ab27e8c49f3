//! One Ethernet frame in a slot of the pool.

use crate::addr::Mac;
use crate::drop::DropReason;
use crate::headers::{ETHERNET_BYTES, Headers, ethertype};
use crate::offload::{Checksum, Field, Offload, VNET_HEADER_BYTES};
use crate::run::Segment;
use crate::slot::{FRAME_BYTES_MAX, HEADROOM, Slot};

/// The length of an Ethernet header, as offsets of checksums count it.
const LINK: u16 = 14;

/// An Ethernet frame: its bytes, the work its sender left undone, and where its headers are.
///
/// A frame may be a *super-frame*, far larger than an MTU, that stands for many frames of one flow:
/// then [`Offload::gso`] says how it would be split. Bytes run from the destination MAC to the last
/// byte of payload or padding; there is no frame check sequence.
///
/// [`headers`](Self::headers) holds for the bytes only after [`parse`](Self::parse) said so.
#[derive(Debug)]
pub struct Frame {
    slot: Slot,
    start: usize,
    end: usize,
    /// Work left for whoever splits or transmits the frame.
    pub offload: Offload,
    /// The places of the headers.
    pub headers: Headers,
}

impl Frame {
    pub(crate) fn empty(slot: Slot) -> Self {
        Self { slot, start: HEADROOM, end: HEADROOM, offload: Offload::NONE, headers: Headers::default() }
    }

    pub(crate) fn into_slot(self) -> Slot {
        self.slot
    }

    /// The bytes of the frame.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        &self.slot[self.start..self.end]
    }

    /// The bytes of the frame, to change in place.
    #[inline]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.slot[self.start..self.end]
    }

    /// Length in bytes, from the destination MAC on.
    #[inline]
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.end == self.start
    }

    /// Room for a received frame with its virtio-net header in front; see [`received`](Self::received).
    pub fn receive_room(&mut self) -> &mut [u8] {
        &mut self.slot[HEADROOM - VNET_HEADER_BYTES..HEADROOM + FRAME_BYTES_MAX]
    }

    /// Takes the first `bytes` of [`receive_room`](Self::receive_room) as virtio-net header and frame.
    pub fn received(&mut self, bytes: usize) {
        self.start = HEADROOM;
        self.end = HEADROOM + bytes.saturating_sub(VNET_HEADER_BYTES).min(FRAME_BYTES_MAX);
        let mut header = [0; VNET_HEADER_BYTES];
        header.copy_from_slice(&self.slot[HEADROOM - VNET_HEADER_BYTES..HEADROOM]);
        self.offload = Offload::decode(header);
    }

    /// Room for a received frame that has no virtio-net header; see [`received_plain`](Self::received_plain).
    pub fn receive_room_plain(&mut self) -> &mut [u8] {
        &mut self.slot[HEADROOM..HEADROOM + FRAME_BYTES_MAX]
    }

    /// Takes the first `bytes` of [`receive_room_plain`](Self::receive_room_plain) as a frame whose
    /// checksums are as they are.
    pub fn received_plain(&mut self, bytes: usize) {
        self.start = HEADROOM;
        self.end = HEADROOM + bytes.min(FRAME_BYTES_MAX);
        self.offload = Offload::NONE;
    }

    /// Writes the virtio-net header in front of the frame and returns both, ready for one write.
    pub fn with_vnet_header(&mut self) -> &[u8] {
        let header = self.offload.encode(self.headers.payload_offset());
        let from = self.start - VNET_HEADER_BYTES;
        self.slot[from..self.start].copy_from_slice(&header);
        &self.slot[from..self.end]
    }

    /// Takes the first `bytes` of [`receive_room`](Self::receive_room) as virtio-net header and IP packet,
    /// and puts an Ethernet header in front of it whose MAC addresses are zero.
    pub fn received_packet(&mut self, bytes: usize) {
        self.received(bytes);
        let ether_type = match self.bytes().first().map(|first| first >> 4) {
            Some(4) => ethertype::IPV4,
            Some(6) => ethertype::IPV6,
            _ => 0,
        };
        self.start -= ETHERNET_BYTES;
        let header = &mut self.slot[self.start..self.start + ETHERNET_BYTES];
        header.fill(0);
        header[ETHERNET_BYTES - 2..].copy_from_slice(&ether_type.to_be_bytes());
        if let Checksum::Partial { start, .. } = &mut self.offload.checksum {
            *start = start.saturating_add(LINK);
        }
    }

    /// Writes the virtio-net header in front of the IP packet, over the end of the Ethernet header of a frame
    /// without tags, and returns both, ready for one write. The frame is none any more then.
    pub fn packet_with_vnet_header(&mut self) -> &[u8] {
        let mut offload = self.offload;
        if let Checksum::Partial { start, .. } = &mut offload.checksum {
            *start = start.saturating_sub(LINK);
        }
        let header = offload.encode(self.headers.payload_offset().saturating_sub(ETHERNET_BYTES));
        let packet = (self.start + ETHERNET_BYTES).min(self.end);
        let from = packet - VNET_HEADER_BYTES;
        self.slot[from..packet].copy_from_slice(&header);
        &self.slot[from..self.end]
    }

    /// Replaces the whole frame by `bytes`, at most [`FRAME_BYTES_MAX`] of them, with nothing left to do.
    pub fn fill(&mut self, bytes: &[u8]) {
        let room = self.receive_room_plain();
        let taken = bytes.len().min(room.len());
        room[..taken].copy_from_slice(&bytes[..taken]);
        self.received_plain(taken);
    }

    /// Replaces the whole frame by `head` and `rest`, together at most [`FRAME_BYTES_MAX`] bytes.
    pub(crate) fn fill_parts(&mut self, head: &[u8], rest: &[u8]) {
        self.received_plain(head.len() + rest.len());
        let (first, second) = self.bytes_mut().split_at_mut(head.len());
        first.copy_from_slice(head);
        second.copy_from_slice(rest);
    }

    /// Leaves no bytes.
    pub(crate) fn clear(&mut self) {
        self.end = self.start;
    }

    /// Appends `bytes`.
    ///
    /// # Errors
    /// Gives up, changing nothing, when the frame would exceed [`FRAME_BYTES_MAX`].
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), NoRoom> {
        let end = self.end + bytes.len();
        if end - self.start > FRAME_BYTES_MAX {
            return Err(NoRoom);
        }
        self.slot[self.end..end].copy_from_slice(bytes);
        self.end = end;
        Ok(())
    }

    /// Inserts an IEEE 802.1Q tag behind the source MAC, which the kernel strips from packet sockets.
    /// `tpid` is the tag's EtherType (0x8100 or 0x88a8), `tci` its priority and VLAN identifier.
    pub fn insert_vlan_tag(&mut self, tpid: u16, tci: u16) {
        const MACS: usize = 12;
        const TAG: usize = 4;
        if self.len() < MACS || self.start < TAG {
            return;
        }
        self.slot.copy_within(self.start..self.start + MACS, self.start - TAG);
        self.start -= TAG;
        let tag = &mut self.slot[self.start + MACS..self.start + MACS + TAG];
        tag[..2].copy_from_slice(&tpid.to_be_bytes());
        tag[2..].copy_from_slice(&tci.to_be_bytes());
        if let Checksum::Partial { start, .. } = &mut self.offload.checksum {
            *start = start.saturating_add(4);
        }
    }

    /// Parses the headers, checks the offload against them, and remembers where they are. A partial checksum
    /// anywhere but in the TCP or UDP header is finished now: whoever looks at the frame from here on sees
    /// the bytes that its receiver gets.
    ///
    /// # Errors
    /// Why the frame must be dropped; the frame itself is unchanged.
    #[inline]
    pub fn parse(&mut self) -> Result<(), DropReason> {
        self.headers = Headers::parse(self.bytes())?;
        if self.offload.field(&self.headers, self.len())? == Field::Payload {
            self.finish_checksum();
        }
        Ok(())
    }

    /// Finishes a partial checksum that the offload's [`check`](Offload::check) has found behind the headers.
    #[cold]
    fn finish_checksum(&mut self) {
        let offload = std::mem::take(&mut self.offload);
        offload.complete(self.bytes_mut(), &[]);
    }

    /// The destination MAC. The frame must have been parsed.
    #[inline]
    pub fn destination(&self) -> Mac {
        self.mac_at(0)
    }

    /// The source MAC. The frame must have been parsed.
    #[inline]
    pub fn source(&self) -> Mac {
        self.mac_at(6)
    }

    #[inline]
    fn mac_at(&self, offset: usize) -> Mac {
        self.bytes().get(offset..offset + 6).and_then(|mac| mac.try_into().ok()).map_or(Mac::ZERO, Mac)
    }

    /// The frame as the rules of coalescing see it. It must have been parsed.
    #[inline]
    pub fn as_segment(&self) -> Segment<'_> {
        Segment { bytes: self.bytes(), headers: &self.headers, offload: self.offload }
    }

    /// Bytes the largest frame this one stands for takes up of an MTU: what is behind the Ethernet
    /// header and its VLAN tags. The frame must have been parsed.
    #[inline]
    pub fn mtu_bytes(&self) -> usize {
        let link = self.headers.network_offset();
        match self.offload.gso {
            Some(gso) => (self.headers.payload_offset() + usize::from(gso.size)).min(self.len()) - link,
            None => self.len() - link.min(self.len()),
        }
    }
}

/// The frame has no room for what was to be appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoRoom;
