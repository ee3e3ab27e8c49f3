//! The owner of a port that cannot be bound: the kernel's lists of sockets (proc_pid_net(5)), and whose
//! descriptor the socket is.

use std::fs;
use std::path::Path;

use crate::publish::spec::Protocol;

/// A program that has the port on some address, as `nginx (pid 4711)`, if that can be told.
pub(crate) fn of(protocol: Protocol, port: u16) -> Option<String> {
    let lists = ["", "6"].map(|suffix| format!("/proc/self/net/{protocol}{suffix}"));
    let texts = lists.iter().filter_map(|list| fs::read_to_string(list).ok());
    let inodes: Vec<u64> = texts.flat_map(|text| inodes(&text, port)).collect();
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let mut processes = processes.filter(|entry| entry.file_name().to_string_lossy().parse::<u32>().is_ok());
    processes.find_map(|entry| {
        let folder = entry.path();
        has(&folder, &inodes).then_some(())?;
        let name = fs::read_to_string(folder.join("comm")).ok()?;
        Some(format!("{} (pid {})", name.trim_end(), entry.file_name().display()))
    })
}

/// The inodes of the sockets in a list that are bound to a port and not merely left over from a connection.
fn inodes(list: &str, port: u16) -> Vec<u64> {
    let socket = |line: &str| {
        let mut fields = line.split_whitespace();
        let bound = fields.nth(1)?.rsplit_once(':')?.1;
        let inode = fields.nth(7)?.parse().ok()?;
        (u16::from_str_radix(bound, 16).ok()? == port && inode != 0).then_some(inode)
    };
    list.lines().skip(1).filter_map(socket).collect()
}

/// Whether a process has one of these sockets.
fn has(process: &Path, inodes: &[u64]) -> bool {
    let descriptors = fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
    let mut links = descriptors.filter_map(|entry| fs::read_link(entry.path()).ok());
    links.any(|link| {
        let link = link.to_string_lossy();
        let inode = link.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']'));
        inode.and_then(|inode| inode.parse().ok()).is_some_and(|inode| inodes.contains(&inode))
    })
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener, UdpSocket};

    use super::*;

    #[test]
    fn lists_are_read() {
        let list = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            \x20  0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 41 1 0\n\
            \x20  1: 0100007F:1F90 0100007F:8000 06 00000000:00000000 03:00001770 00000000     0        0 0 3 0\n\
            \x20  2: 0100007F:1F91 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 42 1 0\n\
            broken\n";
        assert_eq!(inodes(list, 8080), [41]);
        assert_eq!(inodes(list, 8082), [] as [u64; 0]);
    }

    #[test]
    fn a_port_of_this_process_is_found() {
        let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
        let udp = UdpSocket::bind("[::1]:0").expect("bind");
        let ports = [tcp.local_addr(), udp.local_addr()].map(|address| address.expect("address").port());
        for (protocol, port) in [Protocol::Tcp, Protocol::Udp].into_iter().zip(ports) {
            let owner = of(protocol, port).expect("an owner");
            assert!(owner.ends_with(&format!("(pid {})", std::process::id())), "{owner}");
        }
    }
}
