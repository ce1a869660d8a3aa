// SPDX-License-Identifier: Apache-2.0

/*
 * agent CGROUP NETNS: does in a container what its programs judge, each once: a
 * connection to port 9 and one datagram each to UDP ports 10, 11 and 12 of
 * 192.0.2.1. Before that it gives itself another name. It prints 1 if the connection was
 * refused by a program (EPERM), else 0.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

static struct sockaddr_in to(int port)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(port) };

	inet_pton(AF_INET, "192.0.2.1", &a.sin_addr);
	return a;
}

int main(int argc, char **argv)
{
	char procs[4096];
	struct sockaddr_in a;
	int fd, port;

	if (argc != 3)
		return 64;
	snprintf(procs, sizeof(procs), "%s/cgroup.procs", argv[1]);
	fd = open(procs, O_WRONLY);
	if (fd < 0 || write(fd, "0", 1) != 1) {
		perror(procs);
		return 1;
	}
	prctl(PR_SET_NAME, "renamed");
	fd = open(argv[2], O_RDONLY);
	if (fd < 0 || setns(fd, CLONE_NEWNET) != 0) {
		perror(argv[2]);
		return 1;
	}
	fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	a = to(9);
	printf("%d\n", connect(fd, (struct sockaddr *)&a, sizeof(a)) != 0 && errno == EPERM);
	close(fd);
	for (port = 10; port <= 12; port++) {
		fd = socket(AF_INET, SOCK_DGRAM, 0);
		a = to(port);
		if (sendto(fd, "x", 1, 0, (struct sockaddr *)&a, sizeof(a)) != 1) {
			perror("sendto");
			return 1;
		}
		close(fd);
	}
	return 0;
}
