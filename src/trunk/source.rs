//! Which addresses Twilio publishes for its trunks.
//!
//! Owns: the ranges and their date.
//! Never: decides what happens to a stranger.

use crate::network::Network;

/// The state of the carrier's documentation that the two lists below repeat.
pub const TWILIO_AS_OF: &str = "2026";

/// Where Twilio's signalling comes from: UDP and TCP 5060, TLS 5061, any source port.
pub const TWILIO_SIGNALLING: &[Network] = &[
    Network::v4([54, 172, 60, 0], 30),    // ashburn (us1)
    Network::v4([54, 244, 51, 0], 30),    // umatilla (us2)
    Network::v4([54, 171, 127, 192], 30), // dublin (ie1)
    Network::v4([35, 156, 191, 128], 30), // frankfurt (de1)
    Network::v4([54, 65, 63, 192], 30),   // tokyo (jp1)
    Network::v4([54, 169, 127, 128], 30), // singapore (sg1)
    Network::v4([54, 252, 254, 64], 30),  // sydney (au1)
    Network::v4([177, 71, 206, 192], 30), // sao-paulo (br1)
];

/// Where Twilio's media comes from: UDP ports 10000 to 60000.
pub const TWILIO_MEDIA: &[Network] = &[Network::v4([168, 86, 128, 0], 18)];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twilio_is_known_by_its_addresses() {
        let from = |list, ip: &str| Network::any(list, ip.parse().unwrap());
        assert!(from(TWILIO_SIGNALLING, "54.172.60.1"));
        assert!(from(TWILIO_SIGNALLING, "177.71.206.195"));
        assert!(!from(TWILIO_SIGNALLING, "54.172.60.4"));
        assert!(from(TWILIO_MEDIA, "168.86.191.255"));
        assert!(!from(TWILIO_MEDIA, "168.86.192.0"));
        for network in TWILIO_SIGNALLING.iter().chain(TWILIO_MEDIA) {
            assert_eq!(Network::parse(&network.to_string()), Ok(*network));
        }
    }
}
