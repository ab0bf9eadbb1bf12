//! Messages between the two processes, once the heir serves.
//!
//! Owns: the bounded queue towards the other process, and the task that carries both ways.
//! Never: waits in the shard's thread: a message that finds no room is lost as a datagram would be; what was counted
//! waits in the shard until there is room.

use super::frame::{Frame, Word};
use crate::{
    ids::Flow,
    shard::{Kin, Note},
    shell::{
        ingress::{Ingress, Packet},
        stream::{End, WRITES_MAX, Writer},
    },
};
use bytes::Bytes;
use std::{collections::BTreeMap, io};
use tokio::{
    io::AsyncWriteExt,
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::mpsc,
    task::JoinHandle,
};

/// Frames that may wait for the other process.
const FRAMES_MAX: usize = 4096;

/// The way to the other process.
#[derive(Clone, Debug)]
pub(in crate::shell) struct Pipe(mpsc::Sender<Frame>);

/// What waits for it.
#[derive(Debug)]
pub(in crate::shell) struct PipeEnd(mpsc::Receiver<Frame>);

impl Pipe {
    /// Makes both ends.
    pub(in crate::shell) fn new() -> (Self, PipeEnd) {
        let (frames, queue) = mpsc::channel(FRAMES_MAX);
        (Self(frames), PipeEnd(queue))
    }

    /// Gives a message to the other process. Returns whether it is on its way.
    pub(in crate::shell) fn pass(&self, flow: Flow, bytes: Bytes) -> bool {
        self.0.try_send(Frame::message(flow, bytes)).is_ok()
    }

    /// Tells the other process what was counted, as long as there is room. Returns whether all was told.
    pub(in crate::shell) fn tell(&self, mut next: impl FnMut() -> Option<Note>) -> bool {
        while let Ok(place) = self.0.try_reserve() {
            let Some(note) = next() else { return true };
            place.send(Word::Note(note).into());
        }
        false
    }

    /// Tells the process before us that there is another one after us. Returns whether that is on its way.
    pub(in crate::shell) fn handed_on(&self) -> bool {
        self.0.try_send(Word::HandedOn.into()).is_ok()
    }

    /// Tells the heir that a connection has ended.
    pub(in crate::shell) fn closed(&self, flow: Flow) {
        // It learns of all of them when we end.
        let _ = self.0.try_send(Word::Closed(flow.into()).into());
    }
}

/// The connections that the process before us has, as ours.
#[derive(Debug, Default)]
pub(super) struct Borrowed(BTreeMap<Flow, JoinHandle<()>>);

impl Borrowed {
    /// Makes a way to write on each, for the shard.
    pub(super) fn new(flows: &[Flow], pipe: &Pipe) -> (Self, Vec<(Flow, Writer)>) {
        let (mut tasks, mut writers) = (BTreeMap::new(), vec![]);
        for flow in flows.iter().copied() {
            let (writer, mut queue) = mpsc::channel(WRITES_MAX);
            let pipe = pipe.clone();
            tasks.insert(
                flow,
                tokio::spawn(async move {
                    while let Some(bytes) = queue.recv().await {
                        if pipe.0.send(Frame::write(flow, bytes)).await.is_err() {
                            return;
                        }
                    }
                }),
            );
            writers.push((flow, writer));
        }
        (Self(tasks), writers)
    }

    /// One of them has ended.
    async fn end(&mut self, flow: Flow, ingress: &Ingress) {
        let Some(task) = self.0.remove(&flow) else { return };
        task.abort();
        // The shard is told once it sees the writer closed.
        let _ = task.await;
        ingress.tell(Packet::Closed { flow, end: End::default() }).await;
    }
}

impl PipeEnd {
    /// Carries both ways until the process before us has ended, with which all its connections have.
    pub(super) async fn carry_as_heir(
        self,
        stream: UnixStream,
        ingress: Ingress,
        mut lent: Borrowed,
    ) {
        let (mut read, write) = stream.into_split();
        let writing = tokio::spawn(carry_out(self.0, write));
        while let Some(frame) = next(&mut read).await {
            match frame.word {
                Word::Message(flow) => {
                    pass(&ingress, Kin::Predecessor, flow.flow(), frame.bytes).await
                }
                Word::Closed(flow) => {
                    if let Ok(flow) = flow.flow() {
                        lent.end(flow, &ingress).await;
                    }
                }
                Word::Note(note) => {
                    ingress.tell(Packet::Told { from: Kin::Predecessor, note }).await;
                }
                Word::Estate(_)
                | Word::Ready
                | Word::Go { .. }
                | Word::Serving
                | Word::HandedOn
                | Word::Write(_) => break,
            }
        }
        writing.abort();
        for flow in lent.0.keys().copied().collect::<Vec<_>>() {
            lent.end(flow, &ingress).await;
        }
        ingress.tell(Packet::Outlived).await;
    }

    /// Carries both ways until the heir has ended, or this process does.
    pub(super) async fn carry_as_leaver(self, stream: UnixStream, ingress: Ingress) {
        let (mut read, write) = stream.into_split();
        let writing = tokio::spawn(carry_out(self.0, write));
        let mut has_heir = false;
        while let Some(frame) = next(&mut read).await {
            match frame.word {
                Word::Message(flow) => {
                    pass(&ingress, Kin::Successor, flow.flow(), frame.bytes).await
                }
                Word::Write(flow) => {
                    if let Ok(flow) = flow.flow() {
                        ingress.tell(Packet::Write { flow, bytes: frame.bytes }).await;
                    }
                }
                Word::Note(note) => {
                    ingress.tell(Packet::Told { from: Kin::Successor, note }).await;
                }
                Word::HandedOn => has_heir = true,
                Word::Estate(_)
                | Word::Ready
                | Word::Go { .. }
                | Word::Serving
                | Word::Closed(_) => break,
            }
        }
        writing.abort();
        ingress.tell(Packet::HeirGone { has_heir }).await;
    }
}

async fn next(read: &mut OwnedReadHalf) -> Option<Frame> {
    match Frame::read(read).await {
        Ok(frame) => frame,
        Err(error) => {
            tracing::warn!(%error, "the other process is not understood");
            None
        }
    }
}

async fn pass(ingress: &Ingress, from: Kin, flow: io::Result<Flow>, bytes: Bytes) {
    if let Ok(flow) = flow {
        ingress.tell(Packet::Passed { from, flow, bytes }).await;
    }
}

async fn carry_out(mut frames: mpsc::Receiver<Frame>, mut write: OwnedWriteHalf) {
    while let Some(frame) = frames.recv().await {
        let Ok(text) = frame.encode() else { continue };
        if write.write_all(&text).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ids::{LegId, ShardId},
        shard::Change,
        trunk::Count,
    };

    fn note(n: u64) -> Note {
        let (trunk, leg) = ("t".into(), LegId::new(ShardId(0), n));
        Note { ago_ms: 0, change: Change::Trunk(Count { trunk, leg, is_carried: true }) }
    }

    /// The other process does not listen for a while.
    #[tokio::test]
    async fn what_was_counted_waits_until_there_is_room() {
        const COUNT: u64 = 10_000;
        let (pipe, mut end) = Pipe::new();
        let mut notes = (0..COUNT).map(note);
        assert!(!pipe.tell(|| notes.next()));
        let mut heard = vec![];
        loop {
            while let Ok(frame) = end.0.try_recv() {
                heard.push(frame);
            }
            if pipe.tell(|| notes.next()) {
                break;
            }
        }
        while let Ok(frame) = end.0.try_recv() {
            heard.push(frame);
        }
        let want: Vec<Frame> = (0..COUNT).map(|n| Word::Note(note(n)).into()).collect();
        assert_eq!(heard, want);
    }

    /// Whether the sockets are to be read again is known when the heir is gone.
    #[tokio::test]
    async fn who_is_left_learns_whether_somebody_else_reads() {
        for (words, want) in [(vec![], false), (vec![Word::HandedOn], true)] {
            let (here, mut there) = UnixStream::pair().unwrap();
            let (ingress, mut packets) = Ingress::new();
            let (_pipe, end) = Pipe::new();
            let carrying = end.carry_as_leaver(here, ingress);
            for word in words {
                there.write_all(&Frame::from(word).encode().unwrap()).await.unwrap();
            }
            drop(there);
            carrying.await;
            let Some(Packet::HeirGone { has_heir }) = packets.recv().await else { panic!() };
            assert_eq!(has_heir, want);
        }
    }
}
