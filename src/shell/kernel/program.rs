//! The program in the kernel, and its table.
//!
//! Owns: loading, attaching, reading and writing; the only file that names `aya`.
//! Never: knows what is in an entry.

use super::{
    KernelError,
    entry::{ENTRY_LEN, Ticks, decode, encode},
    ways::Way,
};
use crate::media::{Flow, Progress};
use aya::{
    Ebpf, EbpfLoader,
    maps::{HashMap, Map, MapData},
    programs::{LinkOrder, SchedClassifier, TcAttachType, tc::TcAttachOptions},
};
use rustix::time::{ClockId, clock_gettime};
use std::{error::Error, io, os::fd::AsFd, sync::Arc, time::Instant};

/// What clang makes of `relay.bpf.c`.
const OBJECT: &[u8] = aya::include_bytes_aligned!("relay.bpf.o");

/// The loaded program. It leaves all interfaces when this is dropped, or the process ends.
#[derive(Debug)]
pub(in crate::shell) struct Program {
    ebpf: Ebpf,
}

/// The flows of one worker: its part of the program's table.
#[derive(Debug)]
pub(super) struct Table {
    map: HashMap<MapData, u32, [u8; ENTRY_LEN]>,
    ticks: Ticks,
    _program: Arc<Program>,
}

impl Program {
    /// Gives the program to the kernel; packets do not meet it yet.
    pub(super) fn load() -> Result<Self, KernelError> {
        let mut ebpf = EbpfLoader::new().load(OBJECT).map_err(|error| reason(&error))?;
        classifier(&mut ebpf)?.load().map_err(|error| reason(&error))?;
        Ok(Self { ebpf })
    }

    /// Lets all packets that enter by an interface meet it.
    pub(super) fn attach(&mut self, interface: &str) -> Result<(), KernelError> {
        // Through a link, which ends with us, however we end. An older kernel keeps the program.
        let order = TcAttachOptions::TcxOrder(LinkOrder::default());
        let attached = classifier(&mut self.ebpf)?.attach_with_options(
            interface,
            TcAttachType::Ingress,
            order,
        );
        attached.map(|_| ()).map_err(|error| match system_error(&error).map(io::Error::kind) {
            Some(io::ErrorKind::InvalidInput) => KernelError::TooOld,
            Some(_) | None => reason(&error),
        })
    }
}

fn classifier(ebpf: &mut Ebpf) -> Result<&mut SchedClassifier, KernelError> {
    let program = ebpf.program_mut("relay").ok_or_else(|| damaged("no program"))?;
    program.try_into().map_err(|_| damaged("another program"))
}

impl Table {
    /// Opens the table for one more thread.
    pub(super) fn of(program: &Arc<Program>) -> Result<Self, KernelError> {
        let Some(Map::HashMap(flows)) = program.ebpf.map("flows") else {
            return Err(damaged("no table"));
        };
        let file = flows.fd().as_fd().try_clone_to_owned().map_err(|error| reason(&error))?;
        let data = MapData::from_fd(file).map_err(|error| reason(&error))?;
        let map = HashMap::try_from(Map::HashMap(data)).map_err(|error| reason(&error))?;
        let kernel = clock_gettime(ClockId::Monotonic);
        let seconds = u64::try_from(kernel.tv_sec).unwrap_or(0);
        let ns = u64::try_from(kernel.tv_nsec).unwrap_or(0);
        let ticks = Ticks::new(crate::shell::now(), seconds.saturating_mul(1_000_000_000) + ns);
        Ok(Self { map, ticks, _program: Arc::clone(program) })
    }

    /// Lets the kernel carry a flow from now on; returns whether it does.
    pub(super) fn put(&mut self, flow: &Flow, way: Way, dscp: u8) -> bool {
        let entry = encode(flow, way, dscp, &self.ticks);
        let put = self.map.insert(u32::from(flow.local.port()), entry, 0);
        put.inspect_err(|error| tracing::debug!(%error, "flow not carried")).is_ok()
    }

    /// Returns how far a flow has come.
    pub(super) fn read(&self, port: u16, now: Instant) -> Option<Progress> {
        let entry = self.map.get(&u32::from(port), 0).ok()?;
        Some(decode(&entry, &self.ticks, now))
    }

    /// Lets the kernel carry a flow no longer.
    pub(super) fn remove(&mut self, port: u16) {
        // It fails where there is none.
        let _ = self.map.remove(&u32::from(port));
    }
}

/// What kept the kernel from doing it: the system's error, deep in the library's.
fn reason(error: &(dyn Error + 'static)) -> KernelError {
    match system_error(error) {
        Some(found) if found.kind() == io::ErrorKind::PermissionDenied => KernelError::NotPermitted,
        Some(found) => KernelError::Other(format!("{error}: {found}").into()),
        None => KernelError::Other(error.to_string().into()),
    }
}

/// Finds the system's error among the causes of another.
fn system_error<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e io::Error> {
    let mut error = error;
    loop {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        error = error.source()?;
    }
}

fn damaged(what: &str) -> KernelError {
    KernelError::Other(format!("the built-in object is damaged: {what}").into())
}
