// SPDX-License-Identifier: Apache-2.0

// Command thief does, for the tests of package thieves, what somebody does who
// wants a program off or wants to get around it. It is static and runs on the host
// and inside of containers.
//
// It prints nothing for success, and otherwise the name of the error number
// ("EPERM") or the error; then it exits 1. What that proves is nothing: the tests
// look at links and packets.
package main

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Addresses and names of the two ends of the container's veth pair.
const (
	hostIP, containerIP   = "10.77.0.1", "10.77.0.2"
	hostMAC, containerMAC = "02:00:00:00:00:01", "02:00:00:00:00:02"
	device                = "eth0"
)

// command is one thing that the thief can do.
type command struct {
	usage string
	args  int // arguments that it needs at least
	run   func(args []string) error
}

// commands is filled by main: some of them run others.
var commands = map[string]command{}

func main() {
	for _, more := range []map[string]command{
		serveCommands(), cgroupCommands(), idCommands(), deviceCommands(), hookCommands(), triesCommands(), sendCommands(),
	} {
		maps.Copy(commands, more)
	}
	name := ""
	if len(os.Args) > 1 {
		name = os.Args[1]
	}
	c, ok := commands[name]
	if !ok {
		usage()
		os.Exit(64)
	}
	if len(os.Args)-2 < c.args {
		fmt.Fprintf(os.Stderr, "usage: thief %s %s\n", name, c.usage)
		os.Exit(64)
	}
	err := c.run(os.Args[2:])
	var errno unix.Errno
	switch {
	case err == nil:
		return
	case errors.As(err, &errno):
		fmt.Fprintf(os.Stderr, "%s (%v)\n", unix.ErrnoName(errno), err)
	default:
		fmt.Fprintln(os.Stderr, err)
	}
	os.Exit(1)
}

func usage() {
	var lines []string
	for name, c := range commands {
		lines = append(lines, strings.TrimRight("  thief "+name+" "+c.usage, " "))
	}
	slices.Sort(lines)
	fmt.Fprintln(os.Stderr, "usage:\n"+strings.Join(lines, "\n"))
}
