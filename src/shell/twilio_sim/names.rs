//! The name server of the simulated trunk (RFC 1035): UDP and TCP on one port.
//!
//! Owns: its sockets, and how questions and answers are spelled on the wire.
//! Never: knows a name; the zone does.

use crate::sim::twilio::{Data, Kind, Zone};
use hickory_resolver::proto::{
    op::{Message, MessageType, OpCode, ResponseCode},
    rr::{
        Name, RData, Record, RecordType,
        rdata::{NAPTR, SRV},
    },
};
use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::{mpsc, oneshot},
    task::{JoinHandle, JoinSet},
    time::timeout,
};

/// RFC 1035 4.2.1; nobody who asks us says that more fits.
const DATAGRAM_MAX: usize = 512;
/// Questions that may wait.
const QUESTIONS_MAX: usize = 64;
/// How long a connection may be silent.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often to try for a port that is free over both transports.
const TRIES_MAX: u32 = 16;

/// A question as it came over a connection, and the way back.
type Asked = (Vec<u8>, oneshot::Sender<Vec<u8>>);

/// A running name server. It ends when this is dropped.
#[derive(Debug)]
pub(super) struct Names {
    /// Where it listens.
    pub(super) address: SocketAddr,
    task: JoinHandle<()>,
}

impl Names {
    /// Starts it; port 0 becomes a free one.
    pub(super) async fn start(zone: Zone, wanted: SocketAddr) -> io::Result<Self> {
        let (udp, tcp) = bind(wanted).await?;
        let address = udp.local_addr()?;
        Ok(Self { address, task: tokio::spawn(serve(zone, udp, tcp)) })
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn bind(wanted: SocketAddr) -> io::Result<(UdpSocket, TcpListener)> {
    let mut tries = if wanted.port() == 0 { TRIES_MAX } else { 1 };
    loop {
        let udp = UdpSocket::bind(wanted).await?;
        match TcpListener::bind(udp.local_addr()?).await {
            Ok(tcp) => return Ok((udp, tcp)),
            Err(error) if tries == 1 => return Err(error),
            Err(_) => tries -= 1,
        }
    }
}

async fn serve(mut zone: Zone, udp: UdpSocket, tcp: TcpListener) {
    let mut buffer = [0; DATAGRAM_MAX];
    let (questions, mut queue) = mpsc::channel::<Asked>(QUESTIONS_MAX);
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        tokio::select! {
            received = udp.recv_from(&mut buffer) => {
                let Ok((len, remote)) = received else { continue };
                let question = buffer.get(..len).unwrap_or_default();
                if let Some(answer) = answer(&mut zone, question, DATAGRAM_MAX) {
                    // Whoever does not get it asks again.
                    let _ = udp.send_to(&answer, remote).await;
                }
            }
            accepted = tcp.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                connections.spawn(connected(stream, questions.clone()));
            }
            Some((question, reply)) = queue.recv() => {
                if let Some(answer) = answer(&mut zone, &question, usize::from(u16::MAX)) {
                    _ = reply.send(answer);
                }
            }
        }
    }
}

/// Reads questions, each after its length (RFC 1035 4.2.2).
async fn connected(mut stream: TcpStream, questions: mpsc::Sender<Asked>) {
    loop {
        let read = async {
            let mut question = vec![0; usize::from(stream.read_u16().await?)];
            stream.read_exact(&mut question).await?;
            io::Result::Ok(question)
        };
        let Ok(Ok(question)) = timeout(PATIENCE, read).await else { return };
        let (reply, answer) = oneshot::channel();
        if questions.send((question, reply)).await.is_err() {
            return;
        }
        let Ok(answer) = answer.await else { return };
        let Ok(len) = u16::try_from(answer.len()) else { return };
        let mut bytes = len.to_be_bytes().to_vec();
        bytes.extend(answer);
        if stream.write_all(&bytes).await.is_err() {
            return;
        }
    }
}

/// Answers one question; `None` where it is not one.
fn answer(zone: &mut Zone, question: &[u8], room: usize) -> Option<Vec<u8>> {
    let asked = Message::from_vec(question).ok()?;
    let is_question = asked.metadata.message_type == MessageType::Query;
    let [query] = asked.queries.as_slice() else { return None };
    if !is_question {
        return None;
    }
    let mut answer = Message::response(asked.metadata.id, asked.metadata.op_code);
    answer.metadata.recursion_desired = asked.metadata.recursion_desired;
    answer.metadata.authoritative = true;
    answer.add_query(query.clone());
    if asked.metadata.op_code != OpCode::Query {
        answer.metadata.response_code = ResponseCode::NotImp;
        return answer.to_vec().ok();
    }
    let found = zone.lookup(&query.name().to_ascii(), kind(query.query_type()));
    if !found.exists {
        answer.metadata.response_code = ResponseCode::NXDomain;
    }
    for data in &found.data {
        let record = Record::from_rdata(query.name().clone(), found.ttl_s, record(data)?);
        answer.add_answer(record);
    }
    let bytes = answer.to_vec().ok()?;
    if bytes.len() <= room {
        return Some(bytes);
    }
    answer.truncate().to_vec().ok()
}

#[expect(clippy::wildcard_enum_match_arm, reason = "not our enum, and it grows")]
fn kind(wanted: RecordType) -> Kind {
    match wanted {
        RecordType::A => Kind::A,
        RecordType::AAAA => Kind::Aaaa,
        RecordType::SRV => Kind::Srv,
        RecordType::NAPTR => Kind::Naptr,
        _ => Kind::Other,
    }
}

fn record(data: &Data) -> Option<RData> {
    Some(match data {
        Data::Address(IpAddr::V4(ip)) => RData::A((*ip).into()),
        Data::Address(IpAddr::V6(ip)) => RData::AAAA((*ip).into()),
        Data::Srv { priority, weight, port, target } => {
            RData::SRV(SRV::new(*priority, *weight, *port, name(target)?))
        }
        Data::Naptr { order, preference, service, replacement } => RData::NAPTR(NAPTR::new(
            *order,
            *preference,
            Box::from(&b"s"[..]),
            service.as_bytes().into(),
            Box::default(),
            name(replacement)?,
        )),
    })
}

/// Names of the zone are complete; the wire wants that said.
fn name(text: &str) -> Option<Name> {
    let mut name = Name::from_ascii(text).ok()?;
    name.set_fqdn(true);
    Some(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        shell::resolver::resolver,
        sim::twilio::{Setup, TTL_S},
    };
    use hickory_resolver::proto::op::Query;

    fn zone() -> Zone {
        let at = SocketAddr::from(([127, 54, 1, 1], 5070));
        let setup = Setup::new(at, "acme.pstn.twilio.com");
        Zone::new(&setup.account.termination, &setup.edges, 1)
    }

    /// The PBX's own resolver finds what the zone says, and that there is no more.
    #[tokio::test]
    async fn the_resolver_finds_the_trunk() {
        let names = Names::start(zone(), ([127, 0, 0, 1], 0).into()).await.unwrap();
        let resolver = resolver(&[names.address]).unwrap();
        let host = "acme.pstn.ashburn.twilio.com.";
        let found = resolver.lookup_ip(host).await.unwrap();
        assert_eq!(found.iter().collect::<Vec<_>>(), [IpAddr::from([127, 54, 1, 1])]);
        let found = resolver.lookup(host, RecordType::A).await.unwrap();
        assert_eq!(found.answers()[0].ttl, TTL_S);

        let service = "_sips._tcp.pstn.ashburn.twilio.com.";
        let found = resolver.lookup(service, RecordType::SRV).await.unwrap();
        let RData::SRV(srv) = &found.answers()[0].data else { panic!() };
        assert_eq!(srv.port, 5071);
        let target = srv.target.to_string();
        assert!(resolver.lookup_ip(&target).await.is_ok(), "{target}");

        let gate = "pstn.ashburn.twilio.com.";
        assert_eq!(resolver.lookup(gate, RecordType::NAPTR).await.unwrap().answers().len(), 3);
        assert!(resolver.lookup_ip("other.pstn.twilio.com.").await.is_err());
    }

    #[tokio::test]
    async fn a_connection_takes_several_questions() {
        let names = Names::start(zone(), ([127, 0, 0, 1], 0).into()).await.unwrap();
        let mut stream = TcpStream::connect(names.address).await.unwrap();
        for (host, code) in [
            ("acme.pstn.twilio.com", ResponseCode::NoError),
            ("acme.example.com", ResponseCode::NXDomain),
        ] {
            let mut question = Message::query();
            question.add_query(Query::query(name(host).unwrap(), RecordType::A));
            let bytes = question.to_vec().unwrap();
            stream.write_u16(bytes.len() as u16).await.unwrap();
            stream.write_all(&bytes).await.unwrap();
            let mut answer = vec![0; usize::from(stream.read_u16().await.unwrap())];
            stream.read_exact(&mut answer).await.unwrap();
            let answer = Message::from_vec(&answer).unwrap();
            assert_eq!(answer.metadata.id, question.metadata.id);
            assert_eq!(answer.metadata.response_code, code, "{host}");
        }
    }

    #[test]
    fn what_does_not_fit_is_cut_and_what_is_no_question_is_left() {
        let mut question = Message::query();
        question.add_query(Query::query(name("acme.pstn.twilio.com").unwrap(), RecordType::A));
        let bytes = question.to_vec().unwrap();
        let cut = Message::from_vec(&answer(&mut zone(), &bytes, 20).unwrap()).unwrap();
        assert!(cut.metadata.truncation && cut.answers.is_empty());
        let said = answer(&mut zone(), &bytes, 512).unwrap();
        assert_eq!(answer(&mut zone(), &said, 512), None);
        assert_eq!(answer(&mut zone(), b"\0", 512), None);
    }
}
