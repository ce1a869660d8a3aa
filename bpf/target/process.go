// SPDX-License-Identifier: Apache-2.0

package target

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/linkpin/linkpin/specs/fault"
)

// maxProcFile bounds what is read of one file under /proc, in bytes. The longest is
// /proc/PID/cgroup with a path of PATH_MAX in each of some 15 hierarchies.
const maxProcFile = 128 << 10

func (r Roots) proc(elem ...string) string {
	root := r.Proc
	if root == "" {
		root = "/proc"
	}
	return filepath.Join(append([]string{root}, elem...)...)
}

func pidName(pid int) string { return "pid " + strconv.Itoa(pid) }

// StartTime returns when a process started. A process that has ended, or that is a
// zombie, gives ErrGone; a pid below 1 ErrInvalidPID.
func StartTime(r Roots, pid int) (ProcessStart, error) {
	if pid <= 0 {
		return 0, fault.New(pidName(pid), ErrInvalidPID, "").WithExit(fault.ExitInput)
	}
	data, err := readProc(r.proc(strconv.Itoa(pid), "stat"))
	if err != nil {
		return 0, fault.New(pidName(pid), err, "")
	}
	state, start, err := parseStat(data)
	if err != nil {
		return 0, fault.New(pidName(pid), err, "")
	}
	switch state {
	case 'Z', 'X', 'x':
		return 0, fault.New(pidName(pid), fmt.Errorf("has ended (state %c): %w", state, ErrGone), "")
	}
	return start, nil
}

// parseStat reads fields 3 and 22 of /proc/PID/stat (proc(5)). Field 2 is the
// command, which may hold blanks and parentheses.
func parseStat(data []byte) (state byte, start ProcessStart, err error) {
	_, rest, ok := bytes.Cut(data, []byte(" ("))
	if end := bytes.LastIndexByte(rest, ')'); ok && end >= 0 {
		fields := bytes.Fields(rest[end+1:])
		if len(fields) > 22-3 && len(fields[0]) == 1 {
			ticks, err := strconv.ParseUint(string(fields[22-3]), 10, 64)
			if err == nil {
				return fields[0][0], ProcessStart(ticks), nil
			}
		}
	}
	return 0, 0, errors.New("its /proc/PID/stat can't be understood")
}

// stillThere returns ErrGone if pid is not the process that started at start.
func stillThere(r Roots, pid int, start ProcessStart) error {
	now, err := StartTime(r, pid)
	if err != nil {
		return err
	}
	if now != start {
		return fault.New(pidName(pid), fmt.Errorf("the process ended and another one got its pid: %w", ErrGone), "")
	}
	return nil
}

// readProc reads a file of /proc that belongs to a process; ErrGone if there is no
// such process.
func readProc(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, goneIf(err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxProcFile+1))
	if err != nil {
		return nil, goneIf(err)
	}
	if len(data) > maxProcFile {
		return nil, fmt.Errorf("%s is longer than %d bytes", path, maxProcFile)
	}
	return data, nil
}

// goneIf makes ErrGone of the errors with which the kernel says that a process, a
// cgroup or a namespace file is no more.
func goneIf(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) || errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("%w (%w)", ErrGone, err)
	}
	return err
}
