//! The PBX, the trunk and the phones: three programs' worth of sockets on addresses of our own.

use crate::kinds::{FAR_KEYS, NEAR_KEYS, RINGING, Script};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs::File,
    io::{BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    path::PathBuf,
    process::{Child, ChildStdout, Command, Stdio},
    time::Duration,
};
use tandem::{
    ids::Transport,
    observe::status::{CdrQuery, Request, Response},
    shell::{
        control, now,
        softphone::{Softphone, Sounds},
    },
    sim::{
        phone::{Act, Habit, Heard, Setup},
        voice::Says,
    },
};
use tempfile::TempDir;

/// Longer than anything takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
const PROGRAM: &str = env!("CARGO_BIN_EXE_tandem");
const PASSWORD: &str = "correct horse battery";
const CALLER_ID: &str = "+17756187988";
const TERMINATION: &str = "load.pstn.twilio.com";
/// From one call to a phone to the next, more than the longest of them takes.
const EVERY: &str = "4s";
/// Packets that may be missing: those on their way as a call is put on hold have nowhere to go.
const LOST_MAX: u64 = 3;
/// What phones and far ends say, in Hz.
const NEAR_HZ: f64 = 440.0;
const FAR_HZ: f64 = 1000.0;

/// Everything that runs.
pub(crate) struct House {
    folder: TempDir,
    pbx: Child,
    trunk: Child,
    said: BufReader<ChildStdout>,
    /// Where the PBX listens.
    registrar: SocketAddr,
    calls_each: usize,
}

/// An address that no other run of this test has at the same time: by process.
fn address(block: u8, last: u8) -> Ipv4Addr {
    let [low, high, ..] = std::process::id().to_le_bytes();
    Ipv4Addr::new(127, block + high % 60, low.max(1), last)
}

/// A port that is free there over UDP and TCP. Nobody else takes ports of that address.
fn free_port(ip: Ipv4Addr) -> u16 {
    loop {
        let udp = UdpSocket::bind((ip, 0)).unwrap();
        let port = udp.local_addr().unwrap().port();
        if TcpListener::bind((ip, port)).is_ok() {
            return port;
        }
    }
}

fn number(phone: usize) -> String {
    format!("+1775618{:04}", 7000 + phone)
}

impl House {
    /// Starts the trunk and the PBX, which finds the trunk by its names.
    pub(crate) async fn open(calls_each: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ip = address(64, 1);
        let registrar = SocketAddr::new(ip.into(), free_port(ip));
        let [_, block, ..] = address(128, 1).octets();

        std::fs::write(folder.path().join("scenario.toml"), scenario(block, registrar, calls_each))
            .unwrap();
        let mut trunk = Command::new(PROGRAM)
            .args(["twilio-sim", "--strict", "--json", "--wait", "--scenario"])
            .arg(folder.path().join("scenario.toml"))
            .env("TANDEM_LOG", "warn")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(folder.path().join("trunk.log")).unwrap())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(trunk.stdout.take().unwrap());
        let places = places(&mut said);

        let config = folder.path().join("pbx.toml");
        let port = places["udp"].port();
        write_private(&config, &pbx(&folder, registrar, places["dns"], (block, port)));
        std::fs::write(folder.path().join("rules.toml"), rules()).unwrap();
        let pbx = Command::new(PROGRAM)
            .args(["run", "-c"])
            .arg(&config)
            .env("TANDEM_LOG", "info")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(folder.path().join("pbx.log")).unwrap())
            .spawn()
            .unwrap();
        let house = Self { folder, pbx, trunk, said, registrar, calls_each };
        let is_up = house.until(&Request::Status, |_| true).await;
        assert!(is_up, "{}", std::fs::read_to_string(house.folder.path().join("pbx.log")).unwrap());
        house
    }

    /// Starts a phone and registers it: user `1000 + index`, over one transport or another.
    pub(crate) async fn phone(
        &self,
        index: usize,
        habit: Option<Habit>,
        script: Script,
    ) -> Softphone {
        let user = (1000 + index).to_string();
        let local = SocketAddr::new(address(64, 2).into(), 0);
        let mut setup = Setup::new(&user, PASSWORD, local, self.registrar);
        setup.domain = "tandem".into();
        setup.transport = [Transport::Udp, Transport::Tcp][index % 2];
        setup.habits.extend(habit);
        let sounds = Sounds { says: Says::Tone(NEAR_HZ), listens_for_hz: FAR_HZ };
        let mut phone = Softphone::start(setup, sounds, index as u64).await.unwrap();
        phone
            .with(move |phone| {
                for (on, after_ms, act) in script {
                    phone.when(*on, *after_ms, act.clone());
                }
            })
            .await;
        phone.act(Act::Register).await;
        let is_registered = |heard: &Heard| matches!(heard, Heard::Registered(_));
        let registered = phone.hears(is_registered, now() + PATIENCE).await;
        assert!(registered.is_some(), "{user} is not registered");
        phone
    }

    /// Lets the trunk call.
    pub(crate) fn begin_calling(&mut self) {
        writeln!(self.trunk.stdin.as_mut().unwrap()).unwrap();
    }

    /// Ends everything. Returns what is wrong.
    pub(crate) async fn close(mut self) -> Vec<String> {
        let mut problems = self.what_is_left().await;
        signal(&self.trunk, "INT");
        problems.extend(self.what_the_trunk_says());
        signal(&self.pbx, "INT");
        let status = self.pbx.wait().unwrap();
        if !status.success() {
            problems.push(format!("the PBX ended with {status}"));
        }
        let log = std::fs::read_to_string(self.folder.path().join("pbx.log")).unwrap();
        problems.extend(log.lines().filter(|line| line.contains("ERROR")).map(str::to_owned));
        problems
    }

    async fn what_is_left(&self) -> Vec<String> {
        let mut problems = vec![];
        let is_free = |answer: &Response| {
            let Response::Status(status) = answer else { panic!("{answer:?}") };
            status.calls.ringing + status.calls.talking + status.ports.used == 0
        };
        if !self.until(&Request::Status, is_free).await {
            problems.extend(self.stuck().await);
        }
        let query = CdrQuery { limit: 10_000, ..CdrQuery::default() };
        let answer = control::ask(&self.socket(), &Request::Cdr(query)).await;
        let Ok(Response::Cdrs(records)) = answer else { panic!("{answer:?}") };
        let phones = RINGING.len() + crate::kinds::DIALLING.len();
        // A call that is cancelled before its challenge is answered is none.
        let (least, most) = ((phones - 2) * self.calls_each, phones * self.calls_each);
        if !(least..=most).contains(&records.len()) {
            problems.push(format!("{} records of {most} calls", records.len()));
        }
        problems
    }

    /// Reads the rest of what the trunk tells.
    fn what_the_trunk_says(&mut self) -> Vec<String> {
        let mut problems = vec![];
        let (mut talked, mut pressed) = (0, 0);
        let mut total = Value::Null;
        for line in self.said.by_ref().lines() {
            let line = line.unwrap();
            let told: Value = serde_json::from_str(&line).unwrap();
            match told["event"].as_str() {
                Some("deviation") => problems.push(line),
                Some("call") => {
                    let heard_ms = told["heard_ms"].as_u64().unwrap_or(0);
                    talked += usize::from(heard_ms >= 400);
                    pressed += usize::from(told["digits"] == NEAR_KEYS);
                    if told["lost"].as_u64().is_none_or(|lost| lost > LOST_MAX) {
                        problems.push(format!("packets lost: {line}"));
                    }
                }
                Some("total") => total = told,
                _ => {}
            }
        }
        let kinds = crate::kinds::talking();
        let wanted = (kinds.0 * self.calls_each, kinds.1 * self.calls_each);
        if talked < wanted.0 || pressed != wanted.1 {
            problems.push(format!("far ends heard the tone in {talked}, keys in {pressed} calls"));
            problems.push(format!("they should have in {} and {}", wanted.0, wanted.1));
        }
        if total["open"].as_u64() != Some(0) || total["deviations"].as_u64() != Some(0) {
            problems.push(format!("in the end: {total}"));
        }
        let status = self.trunk.wait().unwrap();
        if !status.success() {
            problems.push(format!("the trunk ended with {status}"));
        }
        problems
    }

    /// Tells of calls that do not end.
    async fn stuck(&self) -> Vec<String> {
        let answer = control::ask(&self.socket(), &Request::Calls).await;
        let Ok(Response::Calls(calls)) = answer else { panic!("{answer:?}") };
        let mut stuck = vec![];
        for summary in calls {
            let request = Request::CallLadder { call: summary.call };
            let ladder = control::ask(&self.socket(), &request).await;
            let ladder = match ladder {
                Ok(Response::Ladder(ladder)) => ladder.columns().to_string(),
                other => format!("{other:?}"),
            };
            stuck.push(format!("is not over: {summary:?}\n{ladder}"));
        }
        stuck
    }

    /// Asks again and again until the answer is good; not forever.
    async fn until(&self, request: &Request, is_good: impl Fn(&Response) -> bool) -> bool {
        let by = now() + PATIENCE;
        let mut pace = tokio::time::interval(Duration::from_millis(50));
        while now() < by {
            pace.tick().await;
            if control::ask(&self.socket(), request).await.is_ok_and(|answer| is_good(&answer)) {
                return true;
            }
        }
        false
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("tandem.sock")
    }
}

impl Drop for House {
    fn drop(&mut self) {
        // They have ended, unless the test has failed.
        _ = self.pbx.kill();
        _ = self.trunk.kill();
    }
}

/// Reads where the trunk listens: the name server comes last.
fn places(said: &mut BufReader<ChildStdout>) -> BTreeMap<String, SocketAddr> {
    let mut places = BTreeMap::new();
    while !places.contains_key("dns") {
        let mut line = String::new();
        assert!(said.read_line(&mut line).unwrap() > 0, "the trunk has ended");
        let told: Value = serde_json::from_str(&line).unwrap();
        let address = told["address"].as_str().unwrap().parse().unwrap();
        places.insert(told["transport"].as_str().unwrap().to_owned(), address);
    }
    places
}

fn signal(child: &Child, name: &str) {
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
}

fn write_private(path: &PathBuf, text: &str) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

fn scenario(block: u8, pbx: SocketAddr, calls_each: usize) -> String {
    let names = Ipv4Addr::new(127, block, 0, 53);
    let mut text = format!(
        "[account]\ntermination = \"{TERMINATION}\"\nnumbers = [\"{CALLER_ID}\"]\n\
         username = \"Load\"\npassword = \"{PASSWORD}\"\n\
         [place]\nedges = \"127.{block}.0.0\"\nport = 0\ndns = \"{names}:0\"\n\
         [far_end]\nvoice = \"tone\"\npress = \"{FAR_KEYS}\"\npost_dial = \"100ms\"\nring = \"500ms\"\n",
    );
    for (index, kind) in RINGING.iter().enumerate() {
        let (transport, edge) = (["udp", "tcp"][index / 4 % 2], index + 1);
        write!(
            text,
            "[[call]]\nto = \"{transport}:{pbx}\"\ndid = \"{}\"\nthrough = \"127.{block}.{edge}.1\"\n\
             at = \"{}ms\"\ncount = {calls_each}\nevery = \"{EVERY}\"\npress = \"{FAR_KEYS}\"\n{}\n",
            number(index),
            index * 100,
            kind.caller,
        )
        .unwrap();
    }
    text
}

fn pbx(
    folder: &TempDir,
    registrar: SocketAddr,
    dns: SocketAddr,
    (block, port): (u8, u16),
) -> String {
    let at = |name: &str| folder.path().join(name).display().to_string();
    let mut text = format!(
        "dialplan = \"rules.toml\"\n\
         [node]\nresolver = [\"{dns}\"]\n\
         [sip]\nlisten = [\"udp:{registrar}\", \"tcp:{registrar}\"]\n\
         [rtp]\nports = \"20000-20999\"\n[http]\nlisten = false\n\
         [store]\nurl = \"sqlite:{}\"\n[control]\nsocket = \"{}\"\n\
         [trunk.twilio]\npreset = \"twilio\"\nuri = \"{TERMINATION}:{port}\"\n\
         source = [\"127.{block}.0.0/16\"]\nmedia_source = [\"127.{block}.0.0/16\"]\n\
         username = \"Load\"\npassword = \"{PASSWORD}\"\ncaller_id = \"{CALLER_ID}\"\nmax_rate = false\n",
        at("tandem.db"),
        at("tandem.sock"),
    );
    for index in 0..RINGING.len() + crate::kinds::DIALLING.len() {
        writeln!(text, "[user.{}]\npassword = \"{PASSWORD}\"", 1000 + index).unwrap();
    }
    text
}

fn rules() -> String {
    let mut text = "[[internal.rule]]\nmatch = \"_+.\"\ndial = \"trunk:twilio\"\n".to_owned();
    for index in 0..RINGING.len() {
        let (number, user) = (number(index), 1000 + index);
        writeln!(text, "[[inbound.rule]]\nmatch = \"{number}\"\ndial = \"user:{user}\"").unwrap();
    }
    text
}
