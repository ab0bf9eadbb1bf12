//! The kernel path: an eBPF program carries plain relays, from socket to socket without us.
//!
//! Owns: the program, the table of flows that it reads, which way their packets leave.
//! Never: decides what may be carried; a worker does. Needed for a call: where anything of this fails,
//! packets are relayed as ever.

mod carrier;
#[cfg(all(feature = "kernel", target_os = "linux"))]
mod entry;
#[cfg(all(feature = "kernel", target_os = "linux"))]
mod program;
#[cfg(not(all(feature = "kernel", target_os = "linux")))]
#[path = "without.rs"]
mod program;
mod ways;

pub(super) use carrier::Carrier;
pub(super) use program::Program;

use crate::config::KernelPath;
use std::{collections::BTreeSet, sync::Arc};

/// Why there is no kernel path.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[cfg_attr(
    not(all(feature = "kernel", target_os = "linux")),
    expect(dead_code, reason = "a tandem without a kernel path meets one error only")
)]
pub(super) enum KernelError {
    /// The feature is not in this binary, or the system is none that has it.
    #[cfg_attr(
        all(feature = "kernel", target_os = "linux"),
        expect(dead_code, reason = "this binary has it")
    )]
    #[error("this tandem was built without it")]
    NotBuilt,
    /// Capabilities are missing.
    #[error("not permitted")]
    NotPermitted,
    /// The kernel does not know how to attach a program that leaves with its owner.
    #[error("the kernel is too old")]
    TooOld,
    /// None that can be attached to.
    #[error("no network interface that carries IPv4 over Ethernet")]
    NoInterface,
    /// One that was named.
    #[error("no network interface `{0}` that carries IPv4 over Ethernet")]
    Unknown(Box<str>),
    /// Something else.
    #[error("{0}")]
    Other(Box<str>),
}

impl KernelError {
    /// Returns what to do about it.
    pub(super) fn help(&self) -> &'static str {
        match self {
            Self::NotBuilt => "build it on Linux with `--features kernel`",
            Self::NotPermitted => {
                "give it CAP_BPF and CAP_NET_ADMIN, or set `[rtp] kernel = false`"
            }
            Self::TooOld => "Linux 6.6 is the first that will do; or set `[rtp] kernel = false`",
            Self::NoInterface | Self::Unknown(_) => "`ip -4 address` lists them",
            Self::Other(_) => "set `[rtp] kernel = false`",
        }
    }
}

/// Puts the program where the configuration wants it; `None` where it wants none, or where that fails,
/// which is logged. It is gone with the last of those who hold it.
pub(super) fn start(wanted: &KernelPath) -> Option<Arc<Program>> {
    if *wanted == KernelPath::Off {
        return None;
    }
    match attach(wanted) {
        Ok((program, interfaces)) => {
            let interfaces = interfaces.join(" ");
            tracing::info!(%interfaces, "kernel relays");
            Some(Arc::new(program))
        }
        Err(error) => {
            tracing::warn!(%error, help = error.help(), "no kernel relay");
            None
        }
    }
}

/// Opens the program's table for one more worker; where that fails, which is logged, it relays itself.
pub(super) fn carrier(program: &Arc<Program>, dscp: u8) -> Option<Carrier> {
    let carrier = Carrier::new(program, dscp);
    carrier.inspect_err(|error| tracing::warn!(%error, help = error.help(), "no kernel relay")).ok()
}

/// Tries whether the program could run here, on the loopback interface, for a moment. Its table is
/// empty, so it lets all packets pass.
pub(super) fn probe(wanted: &KernelPath) -> Result<Vec<String>, KernelError> {
    let mut program = Program::load()?;
    program.attach("lo")?;
    interfaces(wanted)
}

fn attach(wanted: &KernelPath) -> Result<(Program, Vec<String>), KernelError> {
    let mut program = Program::load()?;
    let interfaces = interfaces(wanted)?;
    for interface in &interfaces {
        program.attach(interface)?;
    }
    Ok((program, interfaces))
}

/// Returns the names of the interfaces to attach to.
fn interfaces(wanted: &KernelPath) -> Result<Vec<String>, KernelError> {
    let there: BTreeSet<String> =
        ways::interfaces().into_iter().map(|interface| interface.name).collect();
    let KernelPath::These(names) = wanted else {
        let all: Vec<_> = there.into_iter().collect();
        return if all.is_empty() { Err(KernelError::NoInterface) } else { Ok(all) };
    };
    let unknown = names.iter().find(|name| !there.contains(&***name));
    match unknown {
        Some(name) => Err(KernelError::Unknown(name.clone())),
        None => Ok(names.iter().map(ToString::to_string).collect()),
    }
}
