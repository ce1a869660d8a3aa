// SPDX-License-Identifier: Apache-2.0

package tracer

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const ptraceOptions = unix.PTRACE_O_TRACECLONE | unix.PTRACE_O_TRACEFORK | unix.PTRACE_O_TRACEVFORK | unix.PTRACE_O_TRACEEXEC |
	unix.PTRACE_O_TRACESYSGOOD | unix.PTRACE_O_EXITKILL | unix.PTRACE_O_TRACESECCOMP

// Run runs a program to its end. It is killed with the calling process. Its children
// are traced as well; Run waits for them, too. The program inherits the namespaces
// of the calling goroutine's thread.
func Run(o Options) (*Result, error) {
	// All requests must come from the thread that traces.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	files := make([]uintptr, len(o.Files))
	for i, f := range o.Files {
		if f == nil {
			null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
			if err != nil {
				return nil, err
			}
			defer null.Close()
			f = null
		}
		files[i] = f.Fd()
	}
	pid, err := syscall.ForkExec(o.Path, append([]string{o.Path}, o.Args...), &syscall.ProcAttr{
		Dir: o.Dir, Env: append([]string{}, o.Env...), Files: files,
		// A group of its own: nobody else's children are waited for.
		Sys: &syscall.SysProcAttr{Ptrace: true, Setpgid: true},
	})
	if err != nil {
		return nil, fmt.Errorf("starting %s: %w", o.Path, err)
	}
	t := &tracing{Options: o, pid: pid, threads: map[int]*thread{}, pidfds: map[int]int{}}
	defer t.close()
	expired := atomic.Bool{}
	watchdog := time.AfterFunc(cmp.Or(o.Limit, time.Minute), func() {
		expired.Store(true)
		_ = unix.Kill(-pid, unix.SIGKILL) // it may have ended
	})
	defer watchdog.Stop()
	err = t.begin()
	if err == nil {
		err = t.loop()
	}
	if err != nil {
		_ = unix.Kill(-pid, unix.SIGKILL)
		t.reap()
		return nil, fmt.Errorf("tracing %s: %w", o.Path, err)
	}
	t.result.TimedOut = expired.Load()
	return &t.result, nil
}

// tracing is a run while it lasts.
type tracing struct {
	Options
	pid     int // of the program; also its process group
	threads map[int]*thread
	pidfds  map[int]int // by process
	matched int         // calls that are counted for Fault.N
	result  Result
}

// thread is a traced thread.
type thread struct {
	process int          // its thread group
	call    *syscallInfo // the call whose exit is waited for
	args    [6]uint64    // of that call
	act     bool         // at its exit
}

func (t *tracing) close() {
	for _, fd := range t.pidfds {
		unix.Close(fd)
	}
}

// begin waits for the program to stand before its first instruction and gives it
// the filter.
func (t *tracing) begin() error {
	var ws unix.WaitStatus
	if _, err := wait(t.pid, &ws); err != nil {
		return err
	}
	if !ws.Stopped() || ws.StopSignal() != unix.SIGTRAP {
		return fmt.Errorf("unexpected status %#x after execve", uint32(ws))
	}
	if err := unix.PtraceSetOptions(t.pid, ptraceOptions); err != nil {
		return os.NewSyscallError("ptrace", err)
	}
	if err := installFilter(t.pid, filter(arch, counted)); err != nil {
		return err
	}
	t.threads[t.pid] = &thread{process: t.pid}
	return ignoreGone(unix.PtraceCont(t.pid, 0))
}

// wait waits for one thread or, with -pgid, for any of a group, if this very thread
// traces it: others of this process may trace their own.
func wait(pid int, ws *unix.WaitStatus) (int, error) {
	for {
		got, err := unix.Wait4(pid, ws, unix.WALL|unix.WNOTHREAD, nil)
		if !errors.Is(err, unix.EINTR) {
			return got, os.NewSyscallError("wait4", err)
		}
	}
}

// ignoreGone drops the error for a thread that has been killed meanwhile: its end is
// reported by wait4.
func ignoreGone(err error) error {
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	return os.NewSyscallError("ptrace", err)
}

func (t *tracing) reap() {
	var ws unix.WaitStatus
	for {
		if _, err := wait(-t.pid, &ws); err != nil {
			return
		}
	}
}

// loop handles every stop until nobody is left.
func (t *tracing) loop() error {
	for {
		var ws unix.WaitStatus
		tid, err := wait(-t.pid, &ws)
		switch {
		case errors.Is(err, unix.ECHILD):
			return nil
		case err != nil:
			return err
		case ws.Exited() || ws.Signaled():
			t.ended(tid, ws)
		case ws.Stopped():
			if err := t.stopped(tid, ws); err != nil {
				return err
			}
		}
	}
}

func (t *tracing) ended(tid int, ws unix.WaitStatus) {
	delete(t.threads, tid)
	if tid != t.pid {
		return
	}
	t.result.Exit = ws.ExitStatus()
	if ws.Signaled() {
		t.result.Exit, t.result.Signal = -1, ws.Signal()
	}
}

// stopped handles one stop of one thread and lets it go on.
func (t *tracing) stopped(tid int, ws unix.WaitStatus) error {
	th, known := t.threads[tid]
	if !known {
		th = &thread{process: processOf(tid)}
		t.threads[tid] = th
		if ws.StopSignal() == unix.SIGSTOP { // every new thread begins with it
			return ignoreGone(unix.PtraceCont(tid, 0))
		}
	}
	switch sig := ws.StopSignal(); {
	case sig == unix.SIGTRAP && ws.TrapCause() == unix.PTRACE_EVENT_SECCOMP:
		return t.entry(tid, th)
	case sig == unix.SIGTRAP|0x80:
		return t.exit(tid, th)
	case sig == unix.SIGTRAP && ws.TrapCause() > 0:
		return ignoreGone(unix.PtraceCont(tid, 0))
	default: // Go preempts its goroutines by SIGURG
		return ignoreGone(unix.PtraceCont(tid, int(sig)))
	}
}

// entry handles a call before it has had any effect.
func (t *tracing) entry(tid int, th *thread) error {
	var regs registers
	if err := regs.read(tid); err != nil {
		return ignoreGone(errors.Unwrap(err))
	}
	info := find(regs.number())
	args := regs.args()
	if info == nil || info.netlink && !t.isNetlink(th.process, int(int32(args[0]))) {
		return ignoreGone(unix.PtraceCont(tid, 0))
	}
	t.result.Calls++
	counts := t.Fault.Call == "" || strings.HasPrefix(describe(tid, info, args), t.Fault.Call)
	if counts {
		t.matched++
	}
	reached := counts && t.matched == t.Fault.N
	here := reached && t.Fault.Action != Count
	if reached || t.Trace != nil {
		c := Call{N: t.result.Calls, Name: describe(tid, info, args)}
		if reached {
			t.result.At, t.result.Reached = c, true
		}
		if t.Trace != nil {
			t.Trace(c)
		}
	}
	switch {
	case here && t.Fault.Action == KillEntry:
		return ignoreGone(unix.Kill(th.process, unix.SIGKILL))
	case here && t.Fault.Action == Fail:
		regs.refuse(t.Fault.Errno)
		if err := regs.write(tid); err != nil {
			return ignoreGone(errors.Unwrap(err))
		}
		return ignoreGone(unix.PtraceCont(tid, 0))
	}
	_, creates := makes[args[0]]
	creates = creates && info.number == unix.SYS_BPF
	th.act = here
	if !creates && !th.act {
		return ignoreGone(unix.PtraceCont(tid, 0))
	}
	th.call, th.args = info, args
	return ignoreGone(unix.PtraceSyscall(tid, 0))
}

// exit handles a call whose effect is there and whose result the program has not
// seen.
func (t *tracing) exit(tid int, th *thread) error {
	if th.call == nil {
		return ignoreGone(unix.PtraceCont(tid, 0))
	}
	info := th.call
	th.call = nil
	var regs registers
	if err := regs.read(tid); err != nil {
		return ignoreGone(errors.Unwrap(err))
	}
	if kind, creates := makes[th.args[0]]; creates && info.number == unix.SYS_BPF && regs.result() >= 0 {
		pidfd, err := t.pidfd(th.process)
		if err != nil {
			return ignoreGone(errors.Unwrap(err))
		}
		id, err := objectID(pidfd, int(regs.result()))
		if err != nil {
			return fmt.Errorf("looking at a new %s: %w", kind, err)
		}
		t.result.Created = append(t.result.Created, Object{kind, id})
	}
	switch {
	case th.act && t.Fault.Action == KillExit:
		return ignoreGone(unix.Kill(th.process, unix.SIGKILL))
	case th.act && t.Fault.Action == Stop:
		// Nobody handles the stops of its other threads meanwhile.
		t.Stopped()
	}
	return ignoreGone(unix.PtraceCont(tid, 0))
}

func (t *tracing) isNetlink(process, fd int) bool {
	pidfd, err := t.pidfd(process)
	return err == nil && isNetlink(pidfd, fd)
}

// pidfd returns a descriptor of a process, opened once.
func (t *tracing) pidfd(process int) (int, error) {
	if fd, ok := t.pidfds[process]; ok {
		return fd, nil
	}
	fd, err := unix.PidfdOpen(process, 0)
	if err != nil {
		return -1, os.NewSyscallError("pidfd_open", err)
	}
	t.pidfds[process] = fd
	return fd, nil
}

func find(number uint64) *syscallInfo {
	for i := range counted {
		if counted[i].number == number {
			return &counted[i]
		}
	}
	return nil
}

// processOf returns the thread group of a thread; the thread itself if it is gone.
func processOf(tid int) int {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", tid))
	if err != nil {
		return tid
	}
	for line := range strings.Lines(string(data)) {
		if text, ok := strings.CutPrefix(line, "Tgid:"); ok {
			if pid, err := strconv.Atoi(strings.TrimSpace(text)); err == nil {
				return pid
			}
		}
	}
	return tid
}
