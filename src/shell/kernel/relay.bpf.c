// The kernel's half of a plain relay: takes the RTP packets of a peer as they enter the machine, and
// sends them on as if the other leg's socket had.
//
// Owns: the way of a packet that is nothing but the next one of a stream it was told of.
// Never: decides anything: what is unusual in any way goes on to user space, untouched.
//
// Built by `make bpf`; `entry.rs` knows the layout of `struct flow`.

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/pkt_cls.h>
#include <linux/udp.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

// Not ours: the next program, and then the stack.
#define PASS TC_ACT_UNSPEC
#define DROP TC_ACT_SHOT

// Version 2, without padding, extension and contributing sources (RFC 3550 5.1).
#define RTP_PLAIN 0x80
#define PAYLOAD_TYPE 0x7f
#define UNKNOWN 0xff
// A larger step forward may be a restart of the sender (RFC 3550 A.1).
#define DROPOUT_MAX 3000
// As many packets before the highest can be told from duplicates.
#define WINDOW 64
// More has to be asked for a path's MTU.
#define LENGTH_MAX 1280
#define FRAGMENT 0x3fff
#define DONT_FRAGMENT 0x4000
// Of one packet, in units of the clock: what is beyond is a pause.
#define DEVIATION_MAX 0xffffff

// One direction of a relay. What is big-endian stands as in a packet.
struct flow {
	// From where, to which of our addresses (0: any), under which source identifier.
	__be32 peer_ip;
	__be32 local_ip;
	__be16 peer_port;
	__u8 tos;
	__u8 ttl;
	__be32 ssrc_in;
	// As what, and whereto.
	__be32 source_ip;
	__be32 target_ip;
	__be16 source_port;
	__be16 target_port;
	__be32 ssrc_out;
	__u32 timestamp_offset;
	__u32 ifindex;
	__u16 sequence_offset;
	__u16 unused;
	__u32 clock_rate;
	// What came: the highest sequence number with its wraps, its timestamp, and which of the 64 up to
	// it were seen; the jitter of RFC 3550 6.4.1 in 1/16 of a unit.
	__u32 highest;
	__u32 top_timestamp;
	__u32 jitter;
	__u32 last_timestamp;
	__u64 seen;
	__u64 heard_ns;
	__u64 packets;
	__u64 octets;
	__u64 reordered;
	__u64 duplicates;
	__u64 jitter_sum;
	__u64 jitter_samples;
	// What each payload type becomes.
	__u8 payload_types[128];
};

// The headers of a packet, in words for checksums.
struct headers {
	__be16 version_tos;
	__be16 length;
	__be16 id;
	__be16 fragment;
	__u8 ttl;
	__u8 protocol;
	__be16 ip_checksum;
	__be32 source;
	__be32 target;
	__be16 source_port;
	__be16 target_port;
	__be16 udp_length;
	__be16 udp_checksum;
	__u8 rtp_version;
	__u8 marker_type;
	__be16 sequence;
	__be32 timestamp;
	__be32 ssrc;
};

_Static_assert(sizeof(struct flow) == 256, "entry.rs writes 256 bytes");
_Static_assert(sizeof(struct headers) == 40, "IPv4, UDP, RTP");

// By our RTP port, which belongs to one leg whatever its address.
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, __u32);
	__type(value, struct flow);
} flows SEC(".maps");

enum place { NEXT, REORDERED, DUPLICATE, ELSEWHERE };

static __always_inline enum place place(struct flow *flow, __u16 sequence, __u32 timestamp)
{
	__s16 step = (__s16)(sequence - (__u16)flow->highest);
	__u64 bit;

	if (step > DROPOUT_MAX || step <= -WINDOW)
		return ELSEWHERE;
	if (step > 0) {
		flow->seen = step < WINDOW ? (flow->seen << step) | 1 : 1;
		flow->highest += step;
		flow->top_timestamp = timestamp;
		return NEXT;
	}
	bit = 1ULL << ((-step) & (WINDOW - 1));
	if (flow->seen & bit)
		return DUPLICATE;
	flow->seen |= bit;
	return REORDERED;
}

static __always_inline void hear(struct flow *flow, __u32 timestamp, __u64 now)
{
	__u64 passed = now > flow->heard_ns ? now - flow->heard_ns : 0;
	__u64 spacing = passed * flow->clock_rate / 1000000000;
	__s64 difference = (__s64)spacing - (__s32)(timestamp - flow->last_timestamp);
	__u64 deviation = difference < 0 ? -difference : difference;

	if (deviation > DEVIATION_MAX)
		deviation = DEVIATION_MAX;
	flow->jitter += (__u32)deviation - (flow->jitter >> 4);
	flow->jitter_sum += flow->jitter;
	flow->jitter_samples++;
	flow->last_timestamp = timestamp;
	flow->heard_ns = now;
}

static __always_inline __u16 folded(__u32 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return (__u16)~sum;
}

// Rewrites the packet; what has no checksum, or only the beginnings of one, stays that way.
static __always_inline int rewrite(struct __sk_buff *skb, const struct flow *flow,
				   const struct headers *old, __u8 payload_type)
{
	const __u32 checksum_at = ETH_HLEN + offsetof(struct headers, udp_checksum);
	struct headers new = *old;
	__be32 before[4], after[4];
	__s64 pseudo, rest;

	new.version_tos = bpf_htons(0x4500 | flow->tos);
	new.fragment = bpf_htons(DONT_FRAGMENT);
	new.ttl = flow->ttl;
	new.source = flow->source_ip;
	new.target = flow->target_ip;
	new.ip_checksum = 0;
	new.ip_checksum = folded(bpf_csum_diff(0, 0, (__be32 *)&new, 20, 0));
	new.source_port = flow->source_port;
	new.target_port = flow->target_port;
	new.marker_type = (old->marker_type & ~PAYLOAD_TYPE) | payload_type;
	new.sequence = bpf_htons(bpf_ntohs(old->sequence) + flow->sequence_offset);
	new.timestamp = bpf_htonl(bpf_ntohl(old->timestamp) + flow->timestamp_offset);
	new.ssrc = flow->ssrc_out;

	pseudo = bpf_csum_diff((__be32 *)&old->source, 8, (__be32 *)&new.source, 8, 0);
	__builtin_memcpy(before, &old->source_port, 4);
	__builtin_memcpy(before + 1, &old->rtp_version, 12);
	__builtin_memcpy(after, &new.source_port, 4);
	__builtin_memcpy(after + 1, &new.rtp_version, 12);
	rest = bpf_csum_diff(before, 16, after, 16, 0);
	if (bpf_skb_store_bytes(skb, ETH_HLEN, &new, sizeof(new), 0))
		return -1;
	if (bpf_l4_csum_replace(skb, checksum_at, 0, pseudo, BPF_F_PSEUDO_HDR | BPF_F_MARK_MANGLED_0))
		return -1;
	return bpf_l4_csum_replace(skb, checksum_at, 0, rest, BPF_F_MARK_MANGLED_0);
}

// Whether this is IPv4 without options, whole, and UDP, with room for an RTP header.
static __always_inline int is_plain(const struct __sk_buff *skb, const struct headers *is)
{
	__u16 length = bpf_ntohs(is->length);

	return (is->version_tos & bpf_htons(0xff00)) == bpf_htons(0x4500) &&
	       is->protocol == IPPROTO_UDP && !(is->fragment & bpf_htons(FRAGMENT)) &&
	       length >= sizeof(*is) && length <= LENGTH_MAX && skb->len == ETH_HLEN + length &&
	       bpf_ntohs(is->udp_length) == length - 20 && is->rtp_version == RTP_PLAIN;
}

SEC("classifier")
int relay(struct __sk_buff *skb)
{
	struct headers is;
	struct flow *flow;
	__u8 payload_type;
	__u32 port;

	if (skb->protocol != bpf_htons(ETH_P_IP) || skb->pkt_type != PACKET_HOST ||
	    skb->vlan_present || skb->gso_size)
		return PASS;
	if (bpf_skb_load_bytes(skb, ETH_HLEN, &is, sizeof(is)) || !is_plain(skb, &is))
		return PASS;
	port = bpf_ntohs(is.target_port);
	flow = bpf_map_lookup_elem(&flows, &port);
	if (!flow || is.source != flow->peer_ip || is.source_port != flow->peer_port ||
	    (flow->local_ip && is.target != flow->local_ip) || is.ssrc != flow->ssrc_in)
		return PASS;
	payload_type = flow->payload_types[is.marker_type & PAYLOAD_TYPE];
	if (payload_type == UNKNOWN)
		return PASS;

	switch (place(flow, bpf_ntohs(is.sequence), bpf_ntohl(is.timestamp))) {
	case ELSEWHERE:
		return PASS;
	case DUPLICATE:
		flow->duplicates++;
		return DROP;
	case REORDERED:
		flow->reordered++;
		break;
	case NEXT:
		break;
	}
	hear(flow, bpf_ntohl(is.timestamp), bpf_ktime_get_ns());
	flow->packets++;
	flow->octets += bpf_ntohs(is.length) - sizeof(is);
	if (rewrite(skb, flow, &is, payload_type))
		return DROP;
	return bpf_redirect_neigh(flow->ifindex, 0, 0, 0);
}

char LICENSE[] SEC("license") = "MIT OR Apache-2.0";
