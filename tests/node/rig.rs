//! Folders, configurations and nodes for tests.

use std::{
    future::Future,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    ops::Range,
    path::PathBuf,
    sync::atomic::{AtomicU16, Ordering},
    time::Duration,
};
use tandem::{
    ids::Transport,
    observe::status::{Request, Response},
    shell::{
        config_files,
        control::Admin,
        node::{Node, Place, StartError},
    },
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// Longer than anything takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// Where ports for media are looked for: below those that the kernel gives to whoever asks for any.
const MEDIA: Range<u16> = 10_000..32_000;
/// How many a rig has.
const PORTS_EACH: u16 = 32;
/// How many the rigs of this process have been given, and how many addresses.
static PORTS_GIVEN: AtomicU16 = AtomicU16::new(0);
static ADDRESSES_GIVEN: AtomicU16 = AtomicU16::new(0);

/// 600 echoes, 1XXX are phones, the rest goes out.
pub(crate) const RULES: &str = r#"
[[internal.rule]]
match = "600"
echo  = true
[[internal.rule]]
match = "_1XXX"
dial  = "user:{number}"
[[internal.rule]]
match = "_+."
dial  = "trunk:carrier"
"#;

/// One free port for both.
pub(crate) const UDP_AND_TCP: &str = r#"["udp:127.0.0.1:0", "tcp:127.0.0.1:0"]"#;
/// The password of every user.
pub(crate) const PASSWORD: &str = "correct horse battery";

/// The password of the trunk.
pub(crate) const TRUNK_PASSWORD: &str = "battery staple";
/// Nobody is there.
const NOBODY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9);

/// A folder with a configuration in it.
pub(crate) struct Rig {
    folder: TempDir,
    ports: u16,
    /// How many there are.
    ports_each: u16,
    /// Where the database is.
    database: &'static str,
    /// Where the trunk is.
    carrier: SocketAddr,
}

impl Rig {
    /// Creates a folder with a configuration that listens on `listen`; `more` is appended to it.
    pub(crate) fn listening(listen: &str, more: &str) -> Self {
        Self::create(NOBODY, listen, more)
    }

    /// The same on 127.0.0.1, over UDP and TCP at the same port.
    pub(crate) fn new(more: &str) -> Self {
        Self::create(NOBODY, UDP_AND_TCP, more)
    }

    /// The same with a trunk that is somewhere.
    pub(crate) fn with_carrier(carrier: SocketAddr) -> Self {
        Self::create(carrier, UDP_AND_TCP, "")
    }

    /// The same with room for so many legs.
    pub(crate) fn with_carrier_and_legs(carrier: SocketAddr, legs: u16) -> Self {
        let rig = Self::allot(carrier, 2 * legs);
        rig.furnish(UDP_AND_TCP, "");
        rig
    }

    /// The same where somebody listens, and nobody at the carrier's.
    pub(crate) fn with_legs(legs: u16, listen: &str, more: &str) -> Self {
        let rig = Self::allot(NOBODY, 2 * legs.max(PORTS_EACH / 2));
        rig.furnish(listen, more);
        rig
    }

    /// The same with the database in a folder of its own, which does not exist.
    pub(crate) fn with_disk(more: &str) -> Self {
        let rig = Self { database: "disk/tandem.db", ..Self::allot(NOBODY, PORTS_EACH) };
        rig.furnish(UDP_AND_TCP, more);
        rig
    }

    fn create(carrier: SocketAddr, listen: &str, more: &str) -> Self {
        let rig = Self::allot(carrier, PORTS_EACH);
        rig.furnish(listen, more);
        rig
    }

    fn allot(carrier: SocketAddr, ports_each: u16) -> Self {
        let ports = free_ports(ports_each);
        let folder = tempfile::tempdir().unwrap();
        Self { folder, ports, ports_each, database: "tandem.db", carrier }
    }

    fn furnish(&self, listen: &str, more: &str) {
        self.write("rules.toml", RULES);
        self.configure(listen, more);
    }

    /// Writes the configuration anew.
    pub(crate) fn configure(&self, listen: &str, more: &str) {
        let (first, last) = (self.ports, self.ports + self.ports_each - 1);
        let (store, socket, carrier) = (self.path(self.database), self.socket(), self.carrier);
        let text = format!(
            "dialplan = \"rules.toml\"\n\
             [sip]\nlisten = {listen}\n\
             [rtp]\nports = \"{first}-{last}\"\nworkers = 1\n\
             [http]\nlisten = \"127.0.0.1:0\"\n\
             [store]\nurl = \"sqlite:{}\"\n\
             [control]\nsocket = \"{}\"\n\
             [trunk.carrier]\nuri = \"carrier.example.com\"\naddress = \"{carrier}\"\nsource = [\"192.0.2.1\"]\n\
             caller_id = \"+17756187988\"\nusername = \"Asterisk\"\n\
             password = \"{TRUNK_PASSWORD}\"\n\
             [user.1001]\npassword = \"{PASSWORD}\"\n\
             {more}\n",
            store.display(),
            socket.display(),
        );
        self.write("pbx.toml", &text);
    }

    /// Adds a line to `[sip]`.
    pub(crate) fn configure_sip(&self, line: &str) {
        let text = std::fs::read_to_string(self.config()).unwrap();
        self.write("pbx.toml", &text.replace("[sip]\n", &format!("[sip]\n{line}\n")));
    }

    /// Writes a file that only we may read.
    pub(crate) fn write(&self, name: &str, text: &str) {
        use std::os::unix::fs::PermissionsExt;
        std::fs::write(self.path(name), text).unwrap();
        let private = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(self.path(name), private).unwrap();
    }

    /// Returns where a file of this name is.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Returns where the configuration is.
    pub(crate) fn config(&self) -> PathBuf {
        self.path("pbx.toml")
    }

    /// Returns where the control socket is.
    pub(crate) fn socket(&self) -> PathBuf {
        self.path("tandem.sock")
    }

    /// Starts a node from the files, which must be sound.
    pub(crate) async fn start(&self) -> Node {
        self.try_start().await.unwrap()
    }

    /// Starts a node, or says why not.
    pub(crate) async fn try_start(&self) -> Result<Node, StartError> {
        let file = self.config().to_string_lossy().into_owned();
        let checked = config_files::load(&file);
        let Some(config) = checked.config else { panic!("{:?}", checked.report.problems()) };
        let place = Place::of(&config, Some(&file));
        Node::start(config, place).await
    }
}

/// The first of so many ports in a row that nobody has; each is given once.
fn free_ports(count: u16) -> u16 {
    let of_this_process = std::process::id().wrapping_mul(2 * 977);
    let room = u32::from(MEDIA.end - MEDIA.start - count);
    loop {
        let given = u32::from(PORTS_GIVEN.fetch_add(count, Ordering::Relaxed));
        let nth = of_this_process.wrapping_add(given) % room;
        let first = MEDIA.start + (nth & !1) as u16;
        let is_free = |port| UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
        if (first..first + count).all(is_free) {
            return first;
        }
    }
}

/// An address of which nobody else takes a port: what was free there stays so while nobody listens.
pub(crate) fn own_address() -> Ipv4Addr {
    let [low, high, ..] = std::process::id().to_le_bytes();
    let nth = 1 + ADDRESSES_GIVEN.fetch_add(1, Ordering::Relaxed) % 250;
    Ipv4Addr::new(127, 10 + high % 50, low, nth as u8)
}

/// Returns where a node listens.
pub(crate) fn at(node: &Node, transport: Transport) -> SocketAddr {
    node.listeners().iter().find(|l| l.transport == transport).unwrap().address
}

/// Waits, but not forever.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what}: nothing came"),
    }
}

/// Asks a node what an operator would ask.
pub(crate) async fn ask(node: &Node, request: Request) -> Response {
    soon("the operator's answer", node.desk().ask(request)).await
}

/// Asks until the answer is as wanted. Each question waits for the shard, which has then done all
/// that came before.
pub(crate) async fn until(node: &Node, request: Request, is_it: impl Fn(&Response) -> bool) {
    let asking = async { while !is_it(&ask(node, request.clone()).await) {} };
    soon("the wanted state", asking).await;
}

/// Fetches a page of the admin address until it is as wanted. Not as fast as it can: each takes a port.
pub(crate) async fn page_until(address: SocketAddr, path: &str, is_it: impl Fn(&str) -> bool) {
    let mut pace = tokio::time::interval(Duration::from_millis(20));
    let asking = async {
        while !is_it(&fetch(address, path).await) {
            pace.tick().await;
        }
    };
    soon("the wanted page", asking).await;
}

/// Fetches a page of the admin address.
pub(crate) async fn fetch(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut page = String::new();
    soon(path, stream.read_to_string(&mut page)).await.unwrap();
    page
}
