//! `pnet` builds VXLAN packets that we open, and reads those that we build.

use pnet::packet::Packet as _;
use pnet::packet::vxlan::{MutableVxlanPacket, VxlanPacket};
use proptest::prelude::*;
use vswitch_frame::{Frame, Headers, Instant, Pool};
use vswitch_tests::packets::packets;
use vswitch_tests::tunnels::{host, vni, vtep};
use vswitch_vxlan::{Decapsulator, Encapsulator, Received, Sender};

proptest! {
    #[test]
    fn what_pnet_builds_is_opened(packet in packets(), reserved in any::<(u32, u8, u8)>()) {
        let inner = packet.bytes();
        let mut buffer = vec![0; 8 + inner.len()];
        let mut built = MutableVxlanPacket::new(&mut buffer).expect("room");
        built.set_flags(reserved.2 | 0x08);
        built.set_reserved1(reserved.0 >> 8);
        built.set_vni(vni().get());
        built.set_reserved2(reserved.1);
        built.set_payload(&inner);
        let mut tunnels = host(2, 1, false, true);
        let mut decapsulator = Decapsulator::new();
        let received = Received { from: vtep(1, false), size: None };
        decapsulator.open(&mut tunnels, received, &mut buffer, Instant::ZERO);
        prop_assert_eq!(decapsulator.dropped(), []);
        let [opened] = decapsulator.inners() else { panic!("one frame") };
        prop_assert_eq!(opened.pieces().collect::<Vec<_>>().len(), 1);
        prop_assert_eq!(Ok(opened.headers), Headers::parse(&inner));
        prop_assert_eq!(&buffer[8..], &inner[..]);
    }

    #[test]
    fn what_is_built_pnet_reads(packet in packets()) {
        thread_local!(static POOL: std::cell::RefCell<Pool> = std::cell::RefCell::new(Pool::new(1)));
        POOL.with_borrow_mut(|pool| {
            let inner = packet.bytes();
            let mut frame = pool.take().expect("a slot");
            frame.fill(&inner);
            frame.parse().expect("well-formed");
            let frames: [Frame; 1] = [frame];
            let tunnels = host(1, 2, true, true);
            let mut encapsulator = Encapsulator::new(Sender::default(), 3);
            encapsulator.plan(tunnels.get(vni()).expect("made"), &frames);
            let [send] = encapsulator.sends() else { panic!("one send") };
            let bytes = encapsulator.pieces(send, &frames).collect::<Vec<_>>().concat();
            let read = VxlanPacket::new(&bytes).expect("a packet");
            prop_assert_eq!((read.get_flags(), read.get_vni()), (0x08, vni().get()));
            prop_assert_eq!((read.get_reserved1(), read.get_reserved2()), (0, 0));
            prop_assert_eq!(read.payload(), &inner[..]);
            frames.into_iter().for_each(|frame| pool.free(frame));
            Ok(())
        })?;
    }
}
