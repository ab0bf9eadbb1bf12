//! The doctor against a simulated trunk, time and STUN servers of our own, and mistakes made on
//! purpose.

use super::*;
use crate::{
    config::{self, Files, scenario::Speech},
    shell::twilio_sim::{FarEnds, Trunk as Sim},
    sim::twilio::Setup,
};
use std::net::SocketAddr;
use tokio::{net::UdpSocket, task::JoinHandle};

const NUMBER: &str = "+17756187988";
const HOST: &str = "simulated.pstn.twilio.com";

/// A trunk, and who tells the time and our address.
struct Town {
    sim: Sim,
    stun: [SocketAddr; 2],
    ntp: SocketAddr,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Town {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// Answers every datagram by what `answer` makes of it.
async fn server(
    answer: impl Fn(&[u8], SocketAddr) -> Vec<u8> + Send + 'static,
) -> (SocketAddr, JoinHandle<()>) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let task = tokio::spawn(async move {
        let mut buffer = [0; 1500];
        while let Ok((len, from)) = socket.recv_from(&mut buffer).await {
            _ = socket.send_to(&answer(&buffer[..len], from), from).await;
        }
    });
    (address, task)
}

/// An SNTP answer (RFC 4330 5) of a clock that is as right as ours.
fn time(request: &[u8]) -> Vec<u8> {
    let transmitted = &request[40..48];
    let mut answer = vec![0x24, 1, 6, 0xe9];
    answer.resize(24, 0);
    for _ in 0..3 {
        answer.extend(transmitted);
    }
    answer
}

impl Town {
    async fn build(setup: impl FnOnce(&mut Setup)) -> Self {
        let mut trunk = Setup::new("127.0.0.1:0".parse().unwrap(), HOST);
        trunk.account.credentials = Some(("Asterisk".into(), "right".into()));
        trunk.account.numbers = vec![NUMBER.into()];
        setup(&mut trunk);
        let far_ends = FarEnds { voice: Speech::Tone, press: "".into() };
        let sim = Sim::start(trunk, far_ends, &Default::default(), 1).await.unwrap();
        let seen = |request: &[u8], from| stun::tests::answer(request, from);
        let (one, a) = server(seen).await;
        let (two, b) = server(seen).await;
        let (ntp, c) = server(|request, _| time(request)).await;
        Self { sim, stun: [one, two], ntp, tasks: vec![a, b, c] }
    }

    fn config(&self, more: &str) -> String {
        let address = self.sim.address;
        format!(
            "[sip]\nlisten = ['udp:127.0.0.1:0']\n{more}\n[trunk.twilio]\npreset = 'twilio'\n\
             uri = '{HOST}'\naddress = '{address}'\nusername = 'Asterisk'\npassword = 'right'\n\
             caller_id = '{NUMBER}'\n[user.1001]\npassword = 'x'\n"
        )
    }

    async fn examine(&self, text: &str) -> Report {
        let files = Files::default().with("pbx.toml", text);
        let checked = config::check("pbx.toml", &files);
        let config = checked.config.unwrap_or_else(|| panic!("{}", checked.report.render(false)));
        let args = DoctorArgs {
            trunk: None,
            call: E164::parse("+14155550199"),
            config: None,
            stun: self.stun.map(|address| address.to_string()).into(),
            ntp: self.ntp.to_string(),
            json: false,
        };
        let mut report = Report::default();
        examine(&args, &config, None, &mut report).await;
        report
    }
}

fn wrong(report: &Report) -> Vec<&'static str> {
    let wrong = report.findings.iter().filter(|finding| finding.verdict == Verdict::Wrong);
    wrong.map(|finding| finding.check).collect()
}

fn of<'r>(report: &'r Report, check: &str) -> &'r Finding {
    report.findings.iter().find(|finding| finding.check == check).unwrap()
}

#[tokio::test]
async fn a_trunk_that_is_well_is_found_well() {
    let town = Town::build(|_| {}).await;
    let report = town.examine(&town.config("")).await;
    assert_eq!(wrong(&report), [""; 0], "{report}");
    assert!(of(&report, "options").found.starts_with("200 after "), "{report}");
    assert!(of(&report, "call").found.starts_with("it got through after "), "{report}");
    assert_eq!(of(&report, "address").found, "127.0.0.1, no NAT");
    assert_eq!(of(&report, "clock").verdict, Verdict::Well, "{report}");
    assert_eq!(town.sim.deviations().await, []);
}

#[tokio::test]
async fn each_mistake_is_found_where_it_is() {
    for (from, to, check, word) in [
        ("'right'", "'wrong'", "call", "T005"),
        ("uri = 'simulated.", "uri = 'another.", "options", "no answer"),
        ("[trunk", "[node]\npublic_ip = '203.0.113.7'\n[trunk", "sdp", "203.0.113.7"),
        (NUMBER, "+14155550100", "call", "T006"),
    ] {
        // A town each: nobody may ask one trunk so often.
        let town = Town::build(|_| {}).await;
        let text = town.config("").replacen(from, to, 1);
        let report = town.examine(&text).await;
        assert!(wrong(&report).contains(&check), "{to}: {report}");
        assert!(of(&report, check).found.contains(word), "{to}: {report}");
        assert!(of(&report, check).help.is_some(), "{to}: {report}");
    }
}

#[tokio::test]
async fn an_answered_trial_is_hung_up() {
    let town = Town::build(|setup| {
        setup.timing.post_dial = Duration::ZERO;
        setup.timing.ring = Duration::ZERO;
    })
    .await;
    let report = town.examine(&town.config("")).await;
    assert_eq!(wrong(&report), [""; 0], "{report}");
    assert_eq!(town.sim.deviations().await, []);
}
