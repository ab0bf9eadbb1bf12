//! The simulated world: virtual time, a seeded network, scripted peers.
