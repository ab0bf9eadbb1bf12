//! A telephone made of one socket: it says what it is told to, and knows digest.

use super::rig::{PASSWORD, soon};
use bytes::Bytes;
use std::{
    collections::{BTreeSet, VecDeque},
    net::SocketAddr,
};
use tandem::sip::{
    Message, Method, digest,
    framing::{Frame, Framer},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
};
use tokio_rustls::TlsStream;

/// One socket to one peer.
pub(crate) enum Link {
    Udp(UdpSocket),
    Tcp(TcpStream, Framer),
    Tls(Box<TlsStream<TcpStream>>, Framer),
}

impl Link {
    pub(crate) async fn udp(remote: SocketAddr) -> Self {
        let socket = UdpSocket::bind(SocketAddr::new(remote.ip(), 0)).await.unwrap();
        socket.connect(remote).await.unwrap();
        Self::Udp(socket)
    }

    pub(crate) async fn tcp(remote: SocketAddr) -> Self {
        Self::Tcp(soon("a connection", TcpStream::connect(remote)).await.unwrap(), Framer::new())
    }

    pub(crate) fn tls(stream: impl Into<TlsStream<TcpStream>>) -> Self {
        Self::Tls(Box::new(stream.into()), Framer::new())
    }

    pub(crate) fn local(&self) -> SocketAddr {
        match self {
            Self::Tls(stream, _) => stream.get_ref().0.local_addr().unwrap(),
            Self::Udp(socket) => socket.local_addr().unwrap(),
            Self::Tcp(stream, _) => stream.local_addr().unwrap(),
        }
    }

    fn token(&self) -> &'static str {
        match self {
            Self::Udp(_) => "UDP",
            Self::Tcp(..) => "TCP",
            Self::Tls(..) => "TLS",
        }
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        self.try_send(bytes).await.unwrap();
    }

    /// The other side may have closed before all was written.
    pub(crate) async fn try_send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        match self {
            Self::Udp(socket) => socket.send(bytes).await.map(|_| ()),
            Self::Tcp(stream, _) => stream.write_all(bytes).await,
            Self::Tls(stream, _) => {
                stream.write_all(bytes).await?;
                stream.flush().await
            }
        }
    }

    /// Returns the next frame; `None` where the connection was closed.
    pub(crate) async fn frame(&mut self) -> Option<Frame> {
        soon("a message", self.read()).await
    }

    async fn read(&mut self) -> Option<Frame> {
        let mut buffer = vec![0; 65_535];
        match self {
            Self::Tls(stream, framer) => loop {
                if let Some(frame) = framer.next() {
                    return Some(frame);
                }
                match stream.read(&mut buffer).await {
                    Ok(len @ 1..) => framer.push(&buffer[..len]),
                    Ok(0) | Err(_) => return None,
                }
            },
            Self::Udp(socket) => {
                let len = socket.recv(&mut buffer).await.unwrap();
                Some(Frame::Message(Bytes::copy_from_slice(&buffer[..len])))
            }
            Self::Tcp(stream, framer) => loop {
                if let Some(frame) = framer.next() {
                    return Some(frame);
                }
                // A reset is an end as well.
                match stream.read(&mut buffer).await {
                    Ok(len @ 1..) => framer.push(&buffer[..len]),
                    Ok(0) | Err(_) => return None,
                }
            },
        }
    }

    pub(crate) async fn message(&mut self) -> Message {
        match self.frame().await {
            Some(Frame::Message(bytes)) => Message::parse(bytes).unwrap(),
            other => panic!("a message was expected: {other:?}"),
        }
    }
}

/// The identifiers of one dialog, or of a series of REGISTERs.
#[derive(Clone, Debug)]
pub(crate) struct Talk {
    call_id: String,
    cseq: u32,
    /// Where requests go: the Request-URI.
    pub(crate) uri: String,
    to: String,
}

/// A call that has no final response yet, or one that nobody has looked at.
struct Dialling {
    talk: Talk,
    request: String,
    answer: Option<Message>,
}

/// A user's telephone.
pub(crate) struct Phone {
    pub(crate) link: Link,
    user: String,
    remote: SocketAddr,
    serial: u32,
    registering: Option<Talk>,
    /// Header lines of its REGISTERs and INVITEs.
    pub(crate) path: String,
    /// Where it wants its media, if not beside its signalling.
    pub(crate) media: Option<SocketAddr>,
    dialling: Option<Dialling>,
    /// Requests that came while a response was waited for.
    heard: VecDeque<Message>,
    /// The branch and method of each request so far: a copy of one is no news.
    known: BTreeSet<(String, String)>,
}

impl Phone {
    pub(crate) async fn udp(user: &str, remote: SocketAddr) -> Self {
        Self::new(user, remote, Link::udp(remote).await)
    }

    pub(crate) async fn tcp(user: &str, remote: SocketAddr) -> Self {
        Self::new(user, remote, Link::tcp(remote).await)
    }

    /// Speaks through a connection that stands.
    pub(crate) fn on(user: &str, remote: SocketAddr, link: Link) -> Self {
        Self::new(user, remote, link)
    }

    /// Speaks through a socket whose address somebody had to know before.
    pub(crate) async fn over(user: &str, remote: SocketAddr, socket: UdpSocket) -> Self {
        socket.connect(remote).await.unwrap();
        Self::new(user, remote, Link::Udp(socket))
    }

    fn new(user: &str, remote: SocketAddr, link: Link) -> Self {
        let (user, heard, known) = (user.to_owned(), VecDeque::new(), BTreeSet::new());
        Self {
            link,
            user,
            remote,
            serial: 0,
            registering: None,
            path: String::new(),
            media: None,
            dialling: None,
            heard,
            known,
        }
    }

    /// Starts a dialog with a user part of the node's.
    pub(crate) fn talk(&mut self, user: &str) -> Talk {
        self.serial += 1;
        let at = if user.is_empty() { String::new() } else { format!("{user}@") };
        let uri = format!("sip:{at}{}", self.remote);
        let call_id = format!("{}-{}-{}", self.user, self.link.local().port(), self.serial);
        let to = format!("<{uri}>");
        Talk { call_id, cseq: 0, uri, to }
    }

    /// Writes a request with the next CSeq number.
    pub(crate) fn request(
        &mut self,
        talk: &mut Talk,
        method: &str,
        more: &str,
        body: &str,
    ) -> String {
        if method != "ACK" {
            talk.cseq += 1;
        }
        self.serial += 1;
        let Talk { call_id, cseq, uri, to } = talk;
        let (local, user, serial) = (self.link.local(), &self.user, self.serial);
        let token = self.link.token();
        let kind = if body.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
        format!(
            "{method} {uri} SIP/2.0\r\n\
             Via: SIP/2.0/{token} {local};rport;branch=z9hG4bK{call_id}{serial}\r\n\
             Max-Forwards: 70\r\nFrom: <sip:{user}@{}>;tag=t{call_id}\r\nTo: {to}\r\n\
             Call-ID: {call_id}\r\nCSeq: {cseq} {method}\r\n\
             Contact: <sip:{user}@{local};transport={}>\r\n{more}{kind}\
             Content-Length: {}\r\n\r\n{body}",
            self.remote,
            token.to_lowercase(),
            body.len(),
        )
    }

    /// Writes an OPTIONS to the node itself.
    pub(crate) fn options(&mut self) -> String {
        let mut talk = self.talk("");
        self.request(&mut talk, "OPTIONS", "", "")
    }

    /// Sends a request other than INVITE, answers one challenge, returns the final response.
    pub(crate) async fn transact(&mut self, talk: &mut Talk, method: &str, more: &str) -> Message {
        let request = self.request(talk, method, more, "");
        self.link.send(request.as_bytes()).await;
        let first = self.response(talk).await;
        if first.status() != 401 {
            return first;
        }
        let credentials = self.credentials(&first, method, &talk.uri);
        let request = self.request(talk, method, &format!("{credentials}{more}"), "");
        self.link.send(request.as_bytes()).await;
        self.response(talk).await
    }

    pub(crate) fn credentials(&self, challenge: &Message, method: &str, uri: &str) -> String {
        let challenge = challenge.challenges().into_iter().next().unwrap();
        let value = digest::respond(&challenge, &self.user, PASSWORD, method, uri, 1, "cnonce");
        format!("Authorization: {value}\r\n")
    }

    /// Sends a request with a body and answers the challenge; returns the final response, and the proof.
    pub(crate) async fn prove(
        &mut self,
        talk: &mut Talk,
        method: &str,
        body: &str,
    ) -> (Message, String) {
        let request = self.request(talk, method, "", body);
        self.link.send(request.as_bytes()).await;
        let challenge = self.response(talk).await;
        self.link.send(refusal_ack(&request, &challenge).as_bytes()).await;
        let proof = self.credentials(&challenge, method, &talk.uri);
        let request = self.request(talk, method, &proof, body);
        self.link.send(request.as_bytes()).await;
        (self.response(talk).await, proof)
    }

    async fn response(&mut self, talk: &Talk) -> Message {
        loop {
            let message = self.link.message().await;
            if message.is_request() {
                self.note(message);
            } else if message.call_id() == talk.call_id
                && message.cseq().number == talk.cseq
                && message.status() >= 200
            {
                return message;
            }
        }
    }

    /// Returns the next request that the node sends.
    pub(crate) async fn heard(&mut self) -> Message {
        loop {
            if let Some(request) = self.heard.pop_front() {
                return request;
            }
            let message = self.link.message().await;
            if message.is_request() {
                self.note(message);
            }
        }
    }

    fn note(&mut self, request: Message) {
        let key = (request.branch().to_owned(), request.method_token().to_owned());
        if self.known.insert(key) {
            self.heard.push_back(request);
        }
    }

    /// Answers a request that was heard, in the dialog `tag`.
    pub(crate) async fn answer(&mut self, request: &Message, status: u16, body: &str) {
        self.answer_with(request, &format!("{status} Whatever"), "", body).await;
    }

    /// The same with a reason phrase and further headers.
    pub(crate) async fn answer_with(
        &mut self,
        request: &Message,
        status: &str,
        more: &str,
        body: &str,
    ) {
        let lines: String = request
            .lines()
            .filter(|line| {
                let name = line.name();
                ["Via", "From", "Call-ID", "CSeq", "Record-Route"].contains(&name)
            })
            .map(|line| format!("{}: {}\r\n", line.name(), String::from_utf8_lossy(&line.value())))
            .collect();
        let to = match request.to_tag() {
            Some(_) => format!("<{}>;tag={}", request.to().uri, request.to_tag().unwrap()),
            None => format!("<{}>;tag=ours", request.to().uri),
        };
        let kind = if body.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
        let (local, len) = (self.link.local(), body.len());
        let text = format!(
            "SIP/2.0 {status}\r\n{lines}To: {to}\r\nContact: <sip:{}@{local}>\r\n\
             {more}{kind}Content-Length: {len}\r\n\r\n{body}",
            self.user
        );
        self.link.send(text.as_bytes()).await;
    }

    /// Registers for so many seconds; returns the answer.
    pub(crate) async fn register(&mut self, seconds: u32) -> Message {
        let mut talk = match self.registering.take() {
            Some(talk) => talk,
            None => {
                let talk = self.talk("");
                let to = format!("<sip:{}@{}>", self.user, self.remote);
                Talk { to, ..talk }
            }
        };
        let expires = format!("Expires: {seconds}\r\n{}", self.path);
        let response = self.transact(&mut talk, "REGISTER", &expires).await;
        self.registering = Some(talk);
        response
    }

    /// Calls a number; returns the final response, acknowledged, and the dialog.
    pub(crate) async fn call(&mut self, number: &str) -> (Message, Talk) {
        self.dial(number).await;
        self.dialled().await
    }

    /// Calls a number, as far as the challenge; [`Self::dialled`] says what becomes of it.
    pub(crate) async fn dial(&mut self, number: &str) {
        let mut talk = self.talk(number);
        let body = sdp(self.media.unwrap_or(self.link.local()));
        let more = self.path.clone();
        let mut request = self.request(&mut talk, "INVITE", &more, &body);
        self.link.send(request.as_bytes()).await;
        let first = self.response(&talk).await;
        let mut answer = None;
        if first.status() == 401 {
            self.link.send(refusal_ack(&request, &first).as_bytes()).await;
            let credentials = self.credentials(&first, "INVITE", &talk.uri);
            request = self.request(&mut talk, "INVITE", &credentials, &body);
            self.link.send(request.as_bytes()).await;
        } else {
            answer = Some(first);
        }
        self.dialling = Some(Dialling { talk, request, answer });
    }

    /// Returns the final response to the call that was dialled, acknowledged, and the dialog.
    pub(crate) async fn dialled(&mut self) -> (Message, Talk) {
        let Dialling { mut talk, request, answer } = self.dialling.take().unwrap();
        let response = match answer {
            Some(answer) => answer,
            None => self.response(&talk).await,
        };
        let ack = if response.status() / 100 == 2 {
            talk.uri = tandem::dialog::contact_uri(&response).unwrap().into();
            talk.to = format!("<{}>;tag={}", response.to().uri, response.to_tag().unwrap());
            self.request(&mut talk, "ACK", "", "")
        } else {
            refusal_ack(&request, &response)
        };
        self.link.send(ack.as_bytes()).await;
        (response, talk)
    }

    /// Hangs up.
    pub(crate) async fn hang_up(&mut self, talk: &mut Talk) -> Message {
        self.transact(talk, "BYE", "").await
    }

    /// Hangs up the call that began with this INVITE, which it answered; does not wait.
    pub(crate) async fn hangs_up(&mut self, invite: &Message) {
        let from = invite.from();
        let tag = invite.from_tag().unwrap();
        let mut talk = Talk {
            call_id: invite.call_id().to_owned(),
            cseq: 1,
            uri: tandem::dialog::contact_uri(invite).unwrap().into(),
            to: format!("<{}>;tag={tag}", from.uri),
        };
        let bye = self.request(&mut talk, "BYE", "", "");
        let ours = format!(";tag=t{}", invite.call_id());
        self.link.send(bye.replacen(&ours, ";tag=ours", 1).as_bytes()).await;
    }

    /// Waits until the node hangs up, and agrees.
    pub(crate) async fn is_hung_up(&mut self) {
        let bye = self.heard().await;
        assert_eq!(bye.method(), Method::Bye, "{}", bye.uri());
        self.answer(&bye, 200, "").await;
    }
}

/// Offers PCMU beside the signalling address.
pub(crate) fn sdp(at: SocketAddr) -> String {
    let (ip, port) = (at.ip(), at.port() & !1);
    let family = if ip.is_ipv4() { "IP4" } else { "IP6" };
    format!(
        "v=0\r\no=- 1 1 IN {family} {ip}\r\ns=-\r\nc=IN {family} {ip}\r\nt=0 0\r\n\
         m=audio {port} RTP/AVP 0\r\na=rtpmap:0 PCMU/8000\r\n"
    )
}

/// RFC 3261 17.1.1.3.
pub(crate) fn refusal_ack(invite: &str, response: &Message) -> String {
    let keep = ["Via:", "Max-Forwards:", "From:", "Call-ID:"];
    let line = invite.lines().next().unwrap().replacen("INVITE", "ACK", 1);
    let kept: String = invite
        .lines()
        .filter(|line| keep.iter().any(|name| line.starts_with(name)))
        .map(|line| format!("{line}\r\n"))
        .collect();
    let to = response.header_str(tandem::sip::HeaderName::To).unwrap();
    let cseq = response.cseq().number;
    format!("{line}\r\n{kept}To: {to}\r\nCSeq: {cseq} ACK\r\nContent-Length: 0\r\n\r\n")
}
