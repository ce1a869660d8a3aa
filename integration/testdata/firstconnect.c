// SPDX-License-Identifier: Apache-2.0

/* A program whose first system call after execve is socket, and whose second is
 * connect: whatever guards the container's connections must be there by then.
 * It has no C library, since starting one makes calls of its own.
 *
 * usage: firstconnect      connects to 192.0.2.1:7 over TCP
 * Exit status: 0 connected, otherwise the errno of connect: where no route leads
 * there, 101 (ENETUNREACH) if nothing forbids the call, 1 (EPERM) if a program does.
 */
#include <asm/unistd.h>

#define AF_INET 2
#define SOCK_STREAM 1

struct address {
	unsigned short family;
	unsigned char port[2]; /* network order */
	unsigned char host[4];
	unsigned char zero[8];
};

static long call3(long number, long a, long b, long c)
{
#if defined(__x86_64__)
	long result;
	__asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
	return result;
#elif defined(__aarch64__)
	register long x8 __asm__("x8") = number;
	register long x0 __asm__("x0") = a;
	register long x1 __asm__("x1") = b;
	register long x2 __asm__("x2") = c;
	__asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2) : "memory");
	return x0;
#else
#error "add the system call instruction of this architecture"
#endif
}

void _start(void)
{
	struct address to = {.family = AF_INET, .port = {0, 7}, .host = {192, 0, 2, 1}};
	long fd = call3(__NR_socket, AF_INET, SOCK_STREAM, 0);
	long result = call3(__NR_connect, fd, (long)&to, sizeof(to));

	call3(__NR_exit, -result, 0, 0);
	for (;;)
		;
}
