//! Configuration: what the files say, checked.
