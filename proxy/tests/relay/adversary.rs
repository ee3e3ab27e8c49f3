//! A hostile container at the other end of relays: it never reads, closes its window, ends, resets and makes
//! up numbers, in every state of a connection. It may break its own relays and nothing else.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

use vswitch_frame::checksum::Sum;
use vswitch_frame::headers::be16;
use vswitch_proxy::Limits;

use crate::tcp::{CONTAINER, accepted, listen, pattern};
use crate::world::{World, binding};

const RUNS: u64 = 60;
const STEPS: usize = 120;
const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

/// Random numbers (xorshift64).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        u32::try_from(self.0 >> 33).expect("31 bits") % limit
    }

    /// One of these, the first most often.
    fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        let first = self.below(2) == 0;
        all[if first { 0 } else { self.below(u32::try_from(all.len()).expect("few")) as usize }]
    }
}

fn word(packet: &[u8], at: usize) -> u32 {
    u32::from(be16(packet, at)) << 16 | u32::from(be16(packet, at + 2))
}

/// The next sequence number of each end, as the hostile one knows them.
struct Hostile {
    own: u32,
    theirs: u32,
}

impl Hostile {
    /// Learns from a segment of the relay's.
    fn hear(&mut self, packet: &[u8]) {
        let flags = packet[33];
        let payload = packet.len() - 20 - usize::from(packet[32] >> 4) * 4;
        let length = u32::try_from(payload).expect("small") + u32::from(flags & (SYN | FIN) != 0);
        self.theirs = word(packet, 24).wrapping_add(length);
    }

    /// Says something to the relay that sent `heard`.
    fn say(&mut self, heard: &[u8], random: &mut Random) -> Vec<u8> {
        let flags = random.one_of(&[ACK, ACK | FIN, ACK | RST, RST, SYN | ACK, SYN, FIN, 0, 0xff]);
        let flags = if heard[33] & SYN != 0 && random.below(4) > 0 { SYN | ACK } else { flags };
        let payload = random.one_of(&[0, 0, 1, 1000, 1460]);
        let near = [0, 0, 1, u32::MAX, 5000, 70_000, 0x7fff_ffff, 0x8000_0000];
        let sequence = self.own.wrapping_add(random.one_of(&near));
        let acknowledged = self.theirs.wrapping_add(random.one_of(&near));
        let window = random.one_of(&[0xffff_u16, 0, 0, 1, 512]);
        let mut tcp = heard[22..24].to_vec();
        tcp.extend(&heard[20..22]);
        tcp.extend(sequence.to_be_bytes());
        tcp.extend(acknowledged.to_be_bytes());
        tcp.extend([0x60, flags]);
        tcp.extend(window.to_be_bytes());
        tcp.extend([0; 4]);
        let mss = random.one_of(&[1460_u16, 0, 1, 88, u16::MAX]).to_be_bytes();
        tcp.extend([2, 4, mss[0], mss[1]]);
        tcp.resize(24 + payload, 7);
        let length = u16::try_from(tcp.len()).expect("small");
        let sum = Sum::ZERO.add_bytes(&heard[12..20]).add_word(6).add_word(length).add_bytes(&tcp);
        tcp[16..18].copy_from_slice(&sum.checksum().to_be_bytes());
        if sequence == self.own {
            let taken = u32::try_from(payload).expect("small") + u32::from(flags & (SYN | FIN) != 0);
            self.own = self.own.wrapping_add(taken);
        }
        let mut packet = vec![0x45, 0];
        packet.extend((20 + length).to_be_bytes());
        packet.extend([0, 0, 0x40, 0, 64, 6, 0, 0]);
        packet.extend(&heard[16..20]);
        packet.extend(&heard[12..16]);
        let sum = Sum::ZERO.add_bytes(&packet).checksum();
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
        packet.extend(tcp);
        packet
    }
}

/// The client says something, hears something, or ends.
fn act(client: &mut Option<TcpStream>, random: &mut Random) {
    let Some(stream) = client else { return };
    match random.below(30) {
        0..10 => drop(stream.write(&pattern(2000))),
        10..20 => drop(stream.read(&mut [0; 3000])),
        20..22 => drop(stream.shutdown(Shutdown::Write)),
        22 => *client = None,
        _ => {}
    }
}

#[test]
fn a_hostile_end_breaks_nothing_but_its_own_relay() {
    let listener = listen();
    for seed in 1..=RUNS {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut world = World::new(Limits::default());
        let (mut good, _) = world.connect(&listener, binding(CONTAINER));
        let source = accepted(&mut world);
        world.played = Some(Vec::new());
        let (client, _) = world.connect(&listener, binding(CONTAINER));
        let (mut client, mut hostile) = (Some(client), Hostile { own: random.below(1 << 30), theirs: 0 });
        for _ in 0..STEPS {
            act(&mut client, &mut random);
            world.step();
            let heard = world.played.replace(Vec::new()).expect("played");
            for packet in heard {
                hostile.hear(&packet);
                for _ in 0..random.below(3) {
                    let said = hostile.say(&packet, &mut random);
                    world.returns(&said);
                }
            }
            // Sometimes it lets time pass, up to where timers are over.
            let pause = random.one_of(&[0, 0, 0, 0, 100, 11_000]);
            (0..pause).for_each(|_| drop(world.step()));
        }
        drop(client);
        world.played = None;
        good.write_all(b"still here").expect("write");
        let mut heard = Vec::new();
        world.until(|world| {
            heard.extend(world.stacks.get_mut(&source).expect("connected").read());
            (heard == b"still here").then_some(())
        });
        world.proxy.release(|_| true, &mut world.pool, &mut Vec::new(), world.now);
        assert_eq!((world.proxy.counts().relays, world.proxy.poll_at()), (0, None));
    }
}

#[test]
fn a_container_that_never_reads_holds_up_nobody() {
    let listener = listen();
    let mut world = World::new(Limits::default());
    world.window = 4096;
    let (mut stuck, _) = world.connect(&listener, binding(CONTAINER));
    let unread = accepted(&mut world);
    let (mut good, _) = world.connect(&listener, binding(CONTAINER));
    let mut heard = 0;
    world.until(|world| {
        let _ = stuck.write(&[1; 65_536]);
        let _ = good.write(&[2; 4096]);
        let others = world.stacks.iter_mut().filter(|(source, _)| **source != unread);
        heard += others.map(|(_, stack)| stack.read().len()).sum::<usize>();
        (heard > 10 << 20).then_some(())
    });
    assert_eq!(world.proxy.counts().relays, 2);
}
