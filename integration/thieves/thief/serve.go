// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

func serveCommands() map[string]command {
	return map[string]command{
		"serve": {"SOCKET: run what comes in over it, as the first process of a container", 1, serve},
		"hold":  {"NAMESPACES: print the pid of a process in new ones, and hold them until the standard input ends", 0, hold},
		"with":  {"net,user,cgroup,mnt COMMAND…: run another command of the thief in new namespaces", 2, with},
	}
}

// answer is what serve says about a command.
type answer struct {
	Out string
	Err string // empty: it exited 0
}

// serve runs commands of the thief, each in a process of its own: much faster than
// `runc exec`, with the container's own cgroup, namespaces and capabilities.
func serve(args []string) error {
	l, err := net.Listen("unix", args[0])
	if err != nil {
		return err
	}
	if err := os.Chmod(args[0], 0o777); err != nil {
		return err
	}
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer c.Close()
			var command []string
			if err := json.NewDecoder(c).Decode(&command); err != nil {
				return
			}
			_ = json.NewEncoder(c).Encode(run(command)) // who asked is gone
		}()
	}
}

func run(command []string) answer {
	var out, errs bytes.Buffer
	cmd := exec.Command("/proc/self/exe", command...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	// What a command leaves running must not hold us up.
	cmd.WaitDelay = 100 * time.Millisecond
	if err := cmd.Run(); err != nil {
		text := strings.TrimSpace(errs.String())
		if text == "" {
			text = err.Error()
		}
		return answer{out.String(), text}
	}
	return answer{Out: out.String()}
}

func hold(args []string) error {
	if len(args) == 0 {
		_, err := io.Copy(io.Discard, os.Stdin)
		return err
	}
	cmd := exec.Command("/proc/self/exe", "hold")
	cmd.Stdin = os.Stdin
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}
	if args[0] == "user,net" {
		cmd.SysProcAttr.Cloneflags |= unix.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: 100000, Size: 65536}}
		cmd.SysProcAttr.GidMappings = cmd.SysProcAttr.UidMappings
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	fmt.Println(cmd.Process.Pid)
	return cmd.Wait()
}

// with is unshare(1): the command runs in new namespaces.
func with(args []string) error {
	cmd := exec.Command("/proc/self/exe", args[1:]...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	attr := &syscall.SysProcAttr{}
	for name := range strings.SplitSeq(args[0], ",") {
		switch name {
		case "net":
			attr.Cloneflags |= unix.CLONE_NEWNET
		case "cgroup":
			attr.Cloneflags |= unix.CLONE_NEWCGROUP
		case "mnt":
			attr.Cloneflags |= unix.CLONE_NEWNS
		case "user":
			attr.Cloneflags |= unix.CLONE_NEWUSER
			attr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}
			attr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}
		default:
			return fmt.Errorf("unknown namespace %q", name)
		}
	}
	cmd.SysProcAttr = attr
	return cmd.Run()
}
