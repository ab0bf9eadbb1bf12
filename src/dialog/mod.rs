//! Dialogs and the INVITE usage on them (RFC 3261 12 to 15).
