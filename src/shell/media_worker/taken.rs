//! Which UDP ports of this machine somebody has.
//!
//! Owns: how the kernel lists them.
//! Never: fails: where nothing is told, nothing is known, and a port that cannot be bound is found out.

use std::fs;

/// Returns the local ports of all UDP sockets, as far as the system tells.
pub(super) fn ports() -> Vec<u16> {
    let tables = ["/proc/self/net/udp", "/proc/self/net/udp6"].map(fs::read_to_string);
    tables.iter().flatten().flat_map(|table| listed(table)).collect()
}

/// Reads the second column of proc_net(5): an address and a port, in hexadecimal.
fn listed(table: &str) -> impl Iterator<Item = u16> {
    table.lines().filter_map(|line| {
        let (_, port) = line.split_ascii_whitespace().nth(1)?.rsplit_once(':')?;
        u16::from_str_radix(port, 16).ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;

    #[test]
    fn a_port_that_somebody_has_is_listed() {
        for ip in ["127.0.0.1:0", "[::1]:0"] {
            let socket = UdpSocket::bind(ip).unwrap();
            assert!(ports().contains(&socket.local_addr().unwrap().port()), "{ip}");
        }
    }

    #[test]
    fn what_is_no_port_is_passed_over() {
        let table = "  sl  local_address rem_address   st\n\
                     1: 0100007F:1F90 00000000:0000 07\n\
                     2: nonsense\n\n\
                     3: 00000000000000000000000001000000:0035 0:0 07\n";
        assert_eq!(listed(table).collect::<Vec<_>>(), [0x1f90, 0x35]);
    }
}
