//! What is lost on the way is sent again, and counted.

use crate::rig::{FROM_USER, Target, free, own};
use std::{
    collections::BTreeSet,
    io::ErrorKind,
    net::{SocketAddr, UdpSocket},
    thread,
    time::Duration,
};

/// Passes datagrams to the target and back, but for every seventh towards the target, of those that are no copies: what is
/// sent again arrives.
fn lossy(target: SocketAddr) -> SocketAddr {
    let near = UdpSocket::bind((own(3), 0)).expect("bound");
    let far = UdpSocket::bind((own(10), 0)).expect("bound");
    let address = near.local_addr().expect("bound");
    let (near_too, far_too) = (near.try_clone().expect("cloned"), far.try_clone().expect("cloned"));
    // Both end with the process: a test waits for calls, not for them.
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        let (mut caller, mut known) = (None, BTreeSet::new());
        loop {
            let (length, from) = match near.recv_from(&mut buffer) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                received => received.expect("received"),
            };
            if caller.is_none() {
                caller = Some(from);
                let (near, far) = (near_too.try_clone(), far_too.try_clone());
                thread::spawn(move || back(&near.expect("cloned"), &far.expect("cloned"), from));
            }
            let is_new = known.insert(buffer[..length].to_vec());
            if !is_new || known.len() % 7 != 0 {
                far.send_to(&buffer[..length], target).expect("sent");
            }
        }
    });
    address
}

fn back(near: &UdpSocket, far: &UdpSocket, caller: SocketAddr) {
    far.set_read_timeout(Some(Duration::from_secs(60))).expect("set");
    let mut buffer = [0; 4096];
    loop {
        match far.recv(&mut buffer) {
            Ok(length) => _ = near.send_to(&buffer[..length], caller).expect("sent"),
            // Whoever was stopped goes on.
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

#[test]
fn calls_survive_loss_and_every_retransmission_is_counted() {
    let callee = free(25);
    let mut floor = Target::floor(callee);
    floor.address = lossy(floor.address);
    let callee = callee.to_string();
    // Long enough for an ACK that is lost to be repeated before the BYE.
    let load = ["calls", "--rate", "20", "--count", "20", "--hold", "3"];
    let caller = format!("{}:0", own(10));
    let ends = ["--caller", &caller, "--callee", &callee, "--from-user", FROM_USER];
    let sample = floor.run(&[&load[..], &ends].concat());
    assert_eq!(sample.faults, Vec::<String>::new());
    assert_eq!(sample.figure("done"), Some(20.0), "{sample:?}");
    // Sixty requests, of which every seventh is lost once.
    assert!(sample.figure("resent") >= Some(8.0), "{sample:?}");
    assert!(sample.figure("setup_max_ms") > Some(500.0), "{sample:?}");
}
