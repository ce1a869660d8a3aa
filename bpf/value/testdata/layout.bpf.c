// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)

/* Values as the compiler lays them out, for TestCompilerLayout. */

typedef unsigned char __u8;
typedef signed char __s8;
typedef unsigned short __u16;
typedef unsigned int __u32;
typedef unsigned long long __u64;
typedef long long __s64;
typedef __u16 __be16;
typedef __u32 __be32;
typedef unsigned __int128 __u128;

#define SEC(name) __attribute__((section(name), used))
#define be16(x) __builtin_bswap16(x)

enum verdict { DROP, PASS, LOG = 0x80000000 };
enum errnos { PERM = -1, NONE };

struct bits {
	__u32 low : 3;
	__u32 flag : 1;
	int negative : 6;
	__u32 : 5;
	enum errnos err : 2;
	__u8 byte;
	__u64 wide : 40;
	__u16 mid : 9, end : 7;
	_Bool last : 1;
};

struct in6_addr {
	union {
		__u8 u6_addr8[16];
		__be16 u6_addr16[8];
		__be32 u6_addr32[4];
	} in6_u;
};

struct rule {
	__u8 proto;
	__be16 port;
	struct {
		__u64 limit;
		char name[5];
	};
	union {
		__be32 v4;
		struct in6_addr v6;
	};
	enum verdict verdict;
	__s8 small[3];
	_Bool on;
	__s64 last;
};

struct packed {
	__u8 a;
	__u32 b;
	__u16 c[2][2];
} __attribute__((packed));

const volatile struct bits bits = { .low = 5, .flag = 1, .negative = -7, .err = PERM, .byte = 0xab, .wide = 0x123456789aULL, .mid = 0x155, .end = 0x2a, .last = 1 };
const volatile struct rule rule = { .proto = 6, .port = be16(443), .limit = 1ULL << 40, .name = "abcd", .v6.in6_u.u6_addr8 = { 0x20, 1, 0xd, 0xb8, [15] = 1 },
	.verdict = LOG, .small = { -1, 2, -3 }, .on = 1, .last = -5 };
const volatile struct packed packed = { 1, 2, { { 3, 4 }, { 5, 6 } } };
const volatile __u128 huge = ((__u128)1 << 100) + 7;
const volatile char name[8] = "eth0";
const volatile double pi = 3.25;
const volatile float half = 0.5f;
const volatile _Bool yes = 1;
const volatile char letter = 'x';
const volatile __u16 ports[4] = { 80, 443 };
const volatile __u8 mac[6] = { 2, 0x42, 0xac, 0x11, 0, 2 };

char _license[] SEC("license") = "GPL";
SEC("xdp") int prog(void *ctx) { return bits.low + rule.proto + packed.a + (int)huge + name[0] + yes + letter + ports[0] + mac[0]; }
