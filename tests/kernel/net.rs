//! Three machines in a row: two telephones, and the relay between them.

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::{
    fs::File,
    net::Ipv4Addr,
    os::fd::AsFd,
    process::{Command, id},
    thread,
};

/// Where the relay is, as each telephone sees it.
pub(crate) const RELAY: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 77, 1, 1), Ipv4Addr::new(10, 77, 2, 1)];
/// Where the telephones are.
pub(crate) const PHONES: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 77, 1, 2), Ipv4Addr::new(10, 77, 2, 2)];

/// Network namespaces with a cable between each telephone's and the relay's. They go with this.
pub(crate) struct Net {
    name: String,
}

impl Net {
    pub(crate) fn new(name: &str) -> Self {
        let net = Self { name: format!("tandem-{}-{name}", id()) };
        ip(&format!("netns add {}", net.relay()));
        for (n, (phone, relay)) in PHONES.into_iter().zip(RELAY).enumerate() {
            let (here, there) = (net.relay(), net.phone(n));
            ip(&format!("netns add {there}"));
            ip(&format!("link add leg{n} netns {here} type veth peer name eth0 netns {there}"));
            for (place, link, address) in
                [(&here, format!("leg{n}"), relay), (&there, "eth0".into(), phone)]
            {
                ip(&format!("-n {place} address add {address}/24 brd + dev {link}"));
                ip(&format!("-n {place} link set {link} up"));
            }
        }
        net
    }

    pub(crate) fn relay(&self) -> String {
        format!("{}-r", self.name)
    }

    pub(crate) fn phone(&self, n: usize) -> String {
        format!("{}-{n}", self.name)
    }

    /// Says who computes checksums: the sender, or, as veth has it, nobody.
    pub(crate) fn checksums(&self, (phones, relay): (bool, bool)) {
        let word = |on| if on { "off" } else { "on" };
        for n in [0, 1] {
            let (there, here) = (self.phone(n), self.relay());
            ip(&format!("netns exec {there} ethtool -K eth0 tx {}", word(phones)));
            ip(&format!("netns exec {here} ethtool -K leg{n} tx {}", word(relay)));
        }
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for place in [self.relay(), self.phone(0), self.phone(1)] {
            // It may not have come that far.
            let _ = Command::new("ip").args(["netns", "del", &place]).output();
        }
    }
}

/// Does something inside a namespace.
pub(crate) fn inside<T: Send>(place: &str, what: impl FnOnce() -> T + Send) -> T {
    let file = File::open(format!("/run/netns/{place}")).expect("the namespace is there");
    let enter = move || {
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
            .expect("root may enter");
        what()
    };
    thread::scope(|scope| scope.spawn(enter).join().expect("it does not panic"))
}

fn ip(arguments: &str) {
    let done = Command::new("ip").args(arguments.split_whitespace()).output().expect("iproute2");
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(done.status.success(), "ip {arguments}: {said} (this needs root)");
}
