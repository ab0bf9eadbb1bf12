//! The other processes of an upgrade: leaving to one, taking over from one, what becomes of us when one is gone.
//!
//! Owns: the ways to them, and when they are told what is still to be told.
//! Never: decides whose a message is, or what is counted; the shard does.

use super::{Left, ShardLoop};
use crate::{
    ids::Flow,
    shard::Kin,
    shell::{
        now,
        succession::{Inherited, Pipe},
    },
};
use bytes::Bytes;
use std::time::Duration;

/// How soon is looked again whether there is room for what finds none.
const TELLS_EVERY: Duration = Duration::from_millis(10);

impl ShardLoop {
    /// Takes over from another process.
    pub(in crate::shell) fn inherit(&mut self, inherited: Inherited) {
        let Inherited { pipe, legacy, writers, .. } = inherited;
        self.shard.succeed(legacy, now());
        self.family.predecessor = Some(pipe);
        for (flow, writer) in writers {
            self.streams.opened(flow, writer);
        }
    }

    /// Leaves everything but our calls to the process behind the pipe.
    pub(super) fn leave(&mut self, pipe: Pipe) -> Left {
        self.udp.stop_reading();
        self.family.successor = Some(pipe);
        let legacy = self.shard.leave(now());
        Left { connections: self.streams.flows(), legacy }
    }

    /// Goes on as before that.
    pub(super) fn stay(&mut self) {
        self.family.successor = None;
        self.shard.stay(now());
        self.read_again();
    }

    /// The process before us is gone, with its calls.
    pub(super) fn outlive_elder(&mut self) {
        self.family.predecessor = None;
        self.udp.outlive_elder();
        self.hands.store.close_lost();
        self.shard.outlive(Kin::Predecessor, now());
    }

    /// The process that took over is gone, with its calls. Ours are heard again, unless somebody else reads the
    /// sockets: two would each miss what the other one has read.
    pub(super) fn outlive_heir(&mut self, has_heir: bool) {
        self.family.successor = None;
        self.hands.store.close_lost();
        self.shard.outlive(Kin::Successor, now());
        if has_heir {
            tracing::warn!(
                "the process that took over is gone: nobody passes on what our peers say"
            );
            return;
        }
        let help = "start the program anew once this process has ended, with its last call";
        tracing::error!(help, "the process that took over is gone: new calls are refused");
        self.read_again();
    }

    fn read_again(&mut self) {
        if let Err(error) = self.udp.read_again() {
            tracing::error!(%error, "datagrams are no longer read");
        }
    }

    /// Tells the others what is still to be told, as far as there is room.
    pub(super) fn tell_kin(&mut self) {
        let family = &mut self.family;
        let (elder, heir) = (&family.predecessor, &family.successor);
        if elder.is_none() && heir.is_none() {
            family.tells_at = None;
            return;
        }
        let now = now();
        let mut is_all = true;
        if family.is_to_hand_on {
            let is_told = elder.as_ref().is_none_or(Pipe::handed_on);
            family.is_to_hand_on = !is_told;
            is_all = is_told;
        }
        for (kin, pipe) in [(Kin::Predecessor, elder), (Kin::Successor, heir)] {
            if let Some(pipe) = pipe {
                is_all &= pipe.tell(|| self.shard.poll_note(kin, now));
            }
        }
        family.tells_at = (!is_all).then(|| now + TELLS_EVERY);
    }

    /// Gives the other process a message that is for it.
    pub(super) fn pass(&self, kin: Kin, flow: Flow, bytes: Bytes) {
        let pipe = match kin {
            Kin::Predecessor => &self.family.predecessor,
            Kin::Successor => &self.family.successor,
        };
        if !pipe.as_ref().is_some_and(|pipe| pipe.pass(flow, bytes)) {
            tracing::debug!(%flow, "message for the other process lost");
        }
    }
}
