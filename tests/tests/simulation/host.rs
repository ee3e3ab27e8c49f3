//! A host: a smoltcp interface with its sockets and two queues of frames.

use std::collections::VecDeque;

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{self, Device, DeviceCapabilities, Medium};
use smoltcp::socket::tcp;
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpAddress, IpCidr, IpEndpoint};
use vswitch_frame::Mac;
use vswitch_tests::talk::Stream;

/// Largest IP packet of the simulated network.
pub(crate) const MTU: usize = 1500;
const PORT: u16 = 7;

/// The two queues between a host's stack and its cable.
#[derive(Debug, Default)]
pub(crate) struct Nic {
    pub(crate) received: VecDeque<Vec<u8>>,
    pub(crate) sent: Vec<Vec<u8>>,
}

pub(crate) struct Received(Vec<u8>);
pub(crate) struct Sending<'a>(&'a mut Vec<Vec<u8>>);

impl phy::RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, work: F) -> R {
        work(&self.0)
    }
}

impl phy::TxToken for Sending<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, work: F) -> R {
        let mut frame = vec![0; length];
        let answer = work(&mut frame);
        self.0.push(frame);
        answer
    }
}

impl Device for Nic {
    type RxToken<'a> = Received;
    type TxToken<'a> = Sending<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Received, Sending<'_>)> {
        let frame = self.received.pop_front()?;
        Some((Received(frame), Sending(&mut self.sent)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Sending<'_>> {
        Some(Sending(&mut self.sent))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = MTU + 14;
        capabilities
    }
}

/// One end of a TCP transfer and how far it has come.
#[derive(Debug)]
struct Task {
    socket: SocketHandle,
    stream: Stream,
    sends: bool,
    left: usize,
}

/// A host and what it is doing.
pub(crate) struct Host {
    pub(crate) nic: Nic,
    pub(crate) mac: Mac,
    interface: Interface,
    sockets: SocketSet<'static>,
    tasks: Vec<Task>,
}

impl Host {
    /// A host with a MAC address that ends in `number`, and these addresses.
    pub(crate) fn new(number: u8, addresses: &[IpCidr]) -> Self {
        let mac = EthernetAddress([2, 0, 0, 0, 0, number]);
        let mut config = Config::new(HardwareAddress::Ethernet(mac));
        config.random_seed = u64::from(number);
        let mut nic = Nic::default();
        let mut interface = Interface::new(config, &mut nic, Instant::ZERO);
        interface.update_ip_addrs(|own| {
            for address in addresses {
                own.push(*address).expect("few addresses");
            }
        });
        let (mac, sockets) = (Mac(mac.0), SocketSet::new(Vec::new()));
        Self { nic, mac, interface, sockets, tasks: Vec::new() }
    }

    /// Sends what is for other networks to these gateways, one of each family.
    pub(crate) fn route_by(&mut self, gateways: [IpAddress; 2]) {
        let routes = self.interface.routes_mut();
        for gateway in gateways {
            let room = match gateway {
                IpAddress::Ipv4(gateway) => routes.add_default_ipv4_route(gateway),
                IpAddress::Ipv6(gateway) => routes.add_default_ipv6_route(gateway),
            };
            room.expect("room for a route");
        }
    }

    fn socket(&mut self) -> SocketHandle {
        let buffer = || tcp::SocketBuffer::new(vec![0; 64 * 1024]);
        self.sockets.add(tcp::Socket::new(buffer(), buffer()))
    }

    /// Sends the first `bytes` of the stream of `seed` to a host.
    pub(crate) fn send(&mut self, target: IpAddress, seed: u64, bytes: usize) {
        let socket = self.socket();
        let local = 40_000 + u16::try_from(self.tasks.len()).expect("few");
        let connection = self.sockets.get_mut::<tcp::Socket>(socket);
        connection
            .connect(self.interface.context(), IpEndpoint::new(target, PORT), local)
            .expect("a connection is opened");
        self.tasks.push(Task { socket, stream: Stream::new(seed), sends: true, left: bytes });
    }

    /// Accepts one connection and expects the first `bytes` of the stream of `seed`.
    pub(crate) fn expect(&mut self, seed: u64, bytes: usize) {
        let socket = self.socket();
        self.sockets.get_mut::<tcp::Socket>(socket).listen(PORT).expect("a free port");
        self.tasks.push(Task { socket, stream: Stream::new(seed), sends: false, left: bytes });
    }

    /// Lets the stack and the tasks work. Says when it wants to be called again.
    pub(crate) fn poll(&mut self, now: Instant) -> Option<Instant> {
        self.interface.poll(now, &mut self.nic, &mut self.sockets);
        for task in &mut self.tasks {
            task.work(self.sockets.get_mut::<tcp::Socket>(task.socket));
        }
        self.interface.poll(now, &mut self.nic, &mut self.sockets);
        self.interface.poll_at(now, &self.sockets)
    }

    /// Whether everything was sent or received.
    pub(crate) fn is_done(&self) -> bool {
        self.tasks.iter().all(|task| task.left == 0)
    }
}

impl Task {
    /// Moves whole words while the socket takes or gives them; what arrives must be what was sent.
    fn work(&mut self, socket: &mut tcp::Socket<'_>) {
        while self.left > 0 {
            let mut block = [0; 1024];
            let block = &mut block[..self.left.min(1024)];
            let ready = if self.sends {
                socket.can_send() && socket.send_capacity() - socket.send_queue() >= block.len()
            } else {
                socket.recv_queue() >= block.len()
            };
            if !ready {
                return;
            }
            self.stream.fill(block);
            if self.sends {
                assert_eq!(socket.send_slice(block), Ok(block.len()));
            } else {
                let mut arrived = vec![0; block.len()];
                assert_eq!(socket.recv_slice(&mut arrived), Ok(block.len()));
                assert!(arrived == block, "a wrong byte arrived");
            }
            self.left -= block.len();
        }
        if self.sends {
            socket.close();
        }
    }
}
