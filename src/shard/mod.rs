//! A shard: everything that happens to some of the calls, without I/O.
