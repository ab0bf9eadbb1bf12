//! The media plane: RTP relays, prompts, quality.
