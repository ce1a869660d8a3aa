// SPDX-License-Identifier: Apache-2.0

package tracer

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// ErrUnsupported says that this architecture's registers are not known here.
var ErrUnsupported = errors.New("tracing system calls is only implemented for x86-64")

// Action is what happens at the Nth call.
type Action int

const (
	Count     Action = iota // nothing: only count
	KillEntry               // SIGKILL before the call has any effect
	KillExit                // SIGKILL after the call, before the program sees its result
	Fail                    // the call is not made and returns Fault.Errno
	Stop                    // stopped after the call, before the program sees its result, until Options.Stopped returns
)

// Fault is the one thing that happens in a run.
type Fault struct {
	Action Action
	N      int        // the call at which it happens, from 1
	Errno  unix.Errno // for Fail
	Call   string     // only calls are counted for N whose names begin so; empty: all
}

func (f Fault) String() string {
	switch f.Action {
	case KillEntry:
		return "SIGKILL before"
	case KillExit:
		return "SIGKILL after"
	case Fail:
		return unix.ErrnoName(f.Errno)
	case Stop:
		return "stopped"
	}
	return "none"
}

// Options describe a run.
type Options struct {
	Path  string        // program, absolute
	Args  []string      // arguments without the program's name; may be empty
	Env   []string      // environment; nil for none at all
	Dir   string        // working directory; empty for the caller's
	Files [3]*os.File   // standard input, output and error; nil for /dev/null
	Fault Fault         // the zero value only counts
	Limit time.Duration // after which everything is killed; 0 for a minute
	Trace func(Call)    // called for every call that is counted; may be nil
	// Stopped is called at a Stop, by the goroutine that called Run; it may call Run for
	// other programs. The one that is stopped makes no other call that is counted.
	Stopped func()
}

// Call is one counted system call.
type Call struct {
	N    int    // its number, from 1
	Name string // "bpf LINK_CREATE", "openat /sys/fs/bpf"
}

func (c Call) String() string { return fmt.Sprintf("#%d %s", c.N, c.Name) }

// Object is an eBPF object that the program has made.
type Object struct {
	Kind ObjectKind
	ID   uint32
}

// ObjectKind is one of the kernel's lists of ids.
type ObjectKind string

// The kinds of objects that have ids.
const (
	Map     ObjectKind = "map"
	Program ObjectKind = "program"
	Link    ObjectKind = "link"
)

func (o Object) String() string { return fmt.Sprintf("%s %d", o.Kind, o.ID) }

// Result is what became of a run.
type Result struct {
	Calls    int      // how many were counted
	Reached  bool     // there was an Nth, and what was to happen at it has happened
	At       Call     // the Nth, if there was one
	Created  []Object // what the program has made, also if it is gone already
	Exit     int      // exit status; -1 if a signal has ended the program
	Signal   unix.Signal
	TimedOut bool // it was killed after Options.Limit
}
