// SPDX-License-Identifier: Apache-2.0

// Package value turns values as a policy file writes them into the bytes that
// the kernel stores, and back. BTF says what a value means; where a map has no
// BTF, its size does. Bytes are in the byte order of this machine.
//
// # Notation
//
// Every type also takes `hex:0a0b…`, the raw bytes, exactly as many as the type
// has (bitfields excepted). A whole scalar may be `${variable}` (specs.Variable):
// it becomes a hole that is filled when a container is attached. null is never a
// value. What a policy leaves out is zero.
//
//	integer         10, -1, 0x1f, 0o17, 0b11, 1_000, with or without quotes; range checked;
//	                a leading zero is refused, since half of the readers take it for octal
//	                10.0.0.1       4 bytes, in network order whatever the type
//	                be:443         network order, for a type that does not say so itself
//	                tcp            in fields named like proto, protocol, nexthdr, l4proto
//	bool            true, false, 0, 1
//	char            one character in quotes, or a number
//	enum            a name (exact, else without regard to case), or a number
//	float, double   1.5, .inf, .nan
//	char array      text, which leaves room for a NUL; `text:…` for text that starts like another notation
//	other array     a list, zero-filled if shorter; one element may stand without brackets;
//	                arrays of one-byte integers also take `text:…`, which may fill them
//	struct          a mapping of field names; fields of anonymous members as in C
//	union           a mapping with exactly one member
//	4 or 16 bytes   an IP address, where the type is nothing but integers of one size: 32-bit and
//	                128-bit integers, byte arrays, __u32[4], structs and unions of these; an IPv4
//	                address in 16 bytes is IPv4-mapped (so it is no list of one IPv4 address)
//	6 bytes         a MAC address, in the same way
//	LPM trie key    10.0.0.0/8 or 10.0.0.1, or {prefix: 10.0.0.0/8} with further fields that
//	                stand before the address; their bits count as part of the prefix
//
// Numbers are stored in network order where the type's chain of typedefs has
// __be16, __be32, __be64, in_port_t or in_addr_t, or where the field's name says
// so (port_be, be_port, port_be16, port_nbo). The number in the policy is in host
// order. Pointers take nothing but hex:…, arrays without a length nothing at all.
//
// # Decoding
//
// Decode uses the same notation, so Encode(Decode(x)) is x, except for padding.
// Of a union it shows the member that covers most. What an integer is shown as
// depends on its type and its field's name (saddr, ip6, in6_addr, proto), never on
// the value, with two exceptions: an enum or protocol number without a name is a
// number, and bytes that the type has no notation for are hex:…. Arrays of
// one-byte integers other than char are hex:… too, or an address.
package value
