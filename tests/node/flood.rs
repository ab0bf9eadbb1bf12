//! More messages than a node can answer.

use super::{
    phone::Phone,
    rig::{PASSWORD, Rig, at},
};
use std::{
    net::UdpSocket,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};
use tandem::ids::Transport;

/// Ends a flood, also where a test fails.
struct Flood(Arc<AtomicBool>);

impl Drop for Flood {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// Sends copies of a message as fast as the kernel takes them.
fn flood(message: String, remote: std::net::SocketAddr) -> Flood {
    let is_over = Arc::new(AtomicBool::new(false));
    let flood = Flood(is_over.clone());
    let socket = UdpSocket::bind((remote.ip(), 0)).unwrap();
    tokio::task::spawn_blocking(move || {
        while !is_over.load(Relaxed) {
            let _ = socket.send_to(message.as_bytes(), remote);
        }
    });
    flood
}

/// What is due is due, however much comes in: a phone that keeps silent gets its INVITE again.
#[tokio::test]
async fn a_flood_does_not_hold_up_what_is_due() {
    let rig = Rig::new(&format!("[user.1002]\npassword = \"{PASSWORD}\"\n"));
    let node = rig.start().await;
    let remote = at(&node, Transport::Udp);
    let mut callee = Phone::udp("1002", remote).await;
    assert_eq!(callee.register(600).await.status(), 200);
    let mut caller = Phone::udp("1001", remote).await;
    caller.dial("1002").await;
    let invite = callee.link.message().await;
    assert_eq!(invite.method_token(), "INVITE");

    let _flood = flood(caller.options(), remote);
    for _ in 0..3 {
        let again = callee.link.message().await;
        assert_eq!(again.bytes(), invite.bytes());
    }
}
