//! Routing: rules in TOML, the first that matches wins.
