//! The PBX, two trunks and the phones: programs and sockets on addresses of our own.

use crate::{
    carrier::{CALLER_ID, Carrier, PASSWORD, PROGRAM, Trunk, address, number, signal},
    kinds::{DIALLING, Dialling, RINGING, Ringing, Script, talking},
};
use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs::File,
    net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    path::PathBuf,
    process::{Child, Command, Stdio},
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
        sdes::Sdes,
        voice::Says,
    },
};
use tempfile::TempDir;

/// Longer than anything takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// What phones and far ends say, in Hz.
const NEAR_HZ: f64 = 440.0;
const FAR_HZ: f64 = 1000.0;

/// Everything that runs.
pub(crate) struct House {
    folder: TempDir,
    pbx: Running,
    plain: Carrier,
    secure: Carrier,
    /// Where the PBX listens, by transport.
    at: BTreeMap<&'static str, SocketAddr>,
    calls_each: usize,
}

/// A port that is free there over UDP and TCP, and the next one over TCP. Nobody else takes ports of
/// that address.
fn free_port(ip: Ipv4Addr) -> u16 {
    loop {
        let udp = UdpSocket::bind((ip, 0)).unwrap();
        let port = udp.local_addr().unwrap().port();
        if port < u16::MAX
            && TcpListener::bind((ip, port)).is_ok()
            && TcpListener::bind((ip, port + 1)).is_ok()
        {
            return port;
        }
    }
}

impl House {
    /// Starts the trunks and the PBX.
    pub(crate) async fn open(calls_each: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ip = address(64, 1);
        let port = free_port(ip);
        let plain = SocketAddr::new(ip.into(), port);
        let secure = SocketAddr::new(ip.into(), port + 1);
        let at = BTreeMap::from([("udp", plain), ("tcp", plain), ("tls", secure)]);
        let carrier = |trunk| Carrier::start(trunk, folder.path(), &at, calls_each);
        let (plain, secure) = (carrier(Trunk::Plain), carrier(Trunk::Secure));

        let config = folder.path().join("pbx.toml");
        write_certificate(&folder, ip);
        write_private(&config, &pbx(&folder, &at, [&plain, &secure]));
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
        let house = Self { folder, pbx: Running(pbx), plain, secure, at, calls_each };
        let is_up = house.until(&Request::Status, |_| true).await;
        assert!(is_up, "{}", house.log());
        house
    }

    /// Starts a phone and registers it: user `1000 + index`, over one transport or another; over TLS
    /// it speaks SRTP only.
    pub(crate) async fn phone(
        &self,
        index: usize,
        habit: Option<Habit>,
        script: Script,
    ) -> Softphone {
        let user = (1000 + index).to_string();
        let transport = Transport::ALL[index % 3];
        let local = SocketAddr::new(address(64, 2).into(), 0);
        let mut setup = Setup::new(&user, PASSWORD, local, self.at[transport.param()]);
        setup.domain = "tandem".into();
        setup.transport = transport;
        setup.srtp = (transport == Transport::Tls).then(Sdes::mandatory);
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
        assert!(registered.is_some(), "{user} is not registered:\n{}", self.log());
        phone
    }

    /// Lets the trunks call.
    pub(crate) fn begin_calling(&mut self) {
        self.plain.begin_calling();
        self.secure.begin_calling();
    }

    /// Ends everything. Returns what is wrong.
    pub(crate) async fn close(mut self) -> Vec<String> {
        let mut problems = self.what_is_left().await;
        problems.extend(self.plain.close(talking(Trunk::Plain)));
        problems.extend(self.secure.close(talking(Trunk::Secure)));
        signal(&self.pbx.0, "INT");
        let status = self.pbx.0.wait().unwrap();
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
        let phones = RINGING.len() + DIALLING.len();
        // A call that is cancelled before its challenge is answered is none.
        let (least, most) = ((phones - 2) * self.calls_each, phones * self.calls_each);
        if !(least..=most).contains(&records.len()) {
            problems.push(format!("{} records of {most} calls", records.len()));
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
            let ladder = match control::ask(&self.socket(), &request).await {
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

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("pbx.log")).unwrap()
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("tandem.sock")
    }
}

/// A program that ends with the test, also where that fails.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        _ = self.0.kill();
    }
}

fn write_private(path: &PathBuf, text: &str) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

/// Writes a certificate of the PBX's own, which nobody here checks.
fn write_certificate(folder: &TempDir, ip: Ipv4Addr) {
    let made = rcgen::generate_simple_self_signed(vec![ip.to_string()]).unwrap();
    write_private(&folder.path().join("cert.pem"), &made.cert.pem());
    write_private(&folder.path().join("key.pem"), &made.signing_key.serialize_pem());
}

fn pbx(
    folder: &TempDir,
    at: &BTreeMap<&str, SocketAddr>,
    [plain, secure]: [&Carrier; 2],
) -> String {
    let file = |name: &str| folder.path().join(name).display().to_string();
    let listen: Vec<_> = at.iter().map(|(transport, at)| format!("\"{transport}:{at}\"")).collect();
    let mut text = format!(
        "dialplan = \"rules.toml\"\n\
         [node]\nresolver = [\"{}\"]\n\
         [sip]\nlisten = [{}]\n\
         [tls]\ncertificate = \"cert.pem\"\nkey = \"key.pem\"\n\
         [rtp]\nports = \"20000-20999\"\n[http]\nlisten = false\n\
         [store]\nurl = \"sqlite:{}\"\n[control]\nsocket = \"{}\"\n",
        plain.places["dns"],
        listen.join(", "),
        file("tandem.db"),
        file("tandem.sock"),
    );
    let secrecy = format!(
        "transport = \"tls\"\ntls = {{ ca = \"{}\" }}\naddress = \"{}\"\n",
        secure.authority.display(),
        secure.places["tls"],
    );
    for (trunk, port, more) in [
        (Trunk::Plain, plain.places["udp"].port(), ""),
        (Trunk::Secure, secure.places["tls"].port(), &*secrecy),
    ] {
        let (name, host, block) = (trunk.name(), trunk.termination(), trunk.block());
        write!(
            text,
            "[trunk.{name}]\npreset = \"twilio\"\nuri = \"{host}:{port}\"\n\
             source = [\"127.{block}.0.0/16\"]\nmedia_source = [\"127.{block}.0.0/16\"]\n\
             username = \"Load\"\npassword = \"{PASSWORD}\"\ncaller_id = \"{CALLER_ID}\"\n\
             max_rate = false\n{more}",
        )
        .unwrap();
    }
    let trunks = (0..RINGING.len()).map(Ringing::trunk);
    let trunks = trunks.chain((0..DIALLING.len()).map(Dialling::trunk));
    for (index, trunk) in trunks.enumerate() {
        let (user, context) = (1000 + index, trunk.name());
        writeln!(text, "[user.{user}]\npassword = \"{PASSWORD}\"\ncontext = \"{context}\"")
            .unwrap();
    }
    text
}

fn rules() -> String {
    let mut text = String::new();
    for trunk in [Trunk::Plain, Trunk::Secure].map(Trunk::name) {
        writeln!(text, "[[{trunk}.rule]]\nmatch = \"_+.\"\ndial = \"trunk:{trunk}\"").unwrap();
    }
    for index in 0..RINGING.len() {
        let (number, user) = (number(index), 1000 + index);
        writeln!(text, "[[inbound.rule]]\nmatch = \"{number}\"\ndial = \"user:{user}\"").unwrap();
    }
    text
}
