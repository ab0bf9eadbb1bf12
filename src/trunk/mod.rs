//! The carrier's side: health, identity, refusals.
