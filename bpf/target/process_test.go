// SPDX-License-Identifier: Apache-2.0

package target

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/linkpin/linkpin/bpf/bpftest"
)

func TestStartTimeNamesOneProcess(t *testing.T) {
	a, err := StartTime(Roots{}, os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	b, err := StartTime(Roots{}, os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if a != b || a == 0 {
		t.Errorf("start times %d and %d, want the same one", a, b)
	}
}

func TestStartTimeOfNobody(t *testing.T) {
	noLeaks(t)
	for _, pid := range []int{0, -1, -1 << 31} {
		if _, err := StartTime(Roots{}, pid); !errors.Is(err, ErrInvalidPID) {
			t.Errorf("pid %d: %v, want ErrInvalidPID", pid, err)
		}
	}
	if _, err := StartTime(Roots{}, 1<<30); !errors.Is(err, ErrGone) {
		t.Errorf("a pid beyond all: %v, want ErrGone", err)
	}
}

func TestStartTimeOfZombie(t *testing.T) {
	cmd := exec.Command("true")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	bpftest.Eventually(t, "a zombie", func() error {
		_, err := StartTime(Roots{}, cmd.Process.Pid)
		if !errors.Is(err, ErrGone) {
			return errors.New("is taken for alive")
		}
		return nil
	})
}

func TestParseStat(t *testing.T) {
	for _, command := range []string{"sh", "a b", ") R 1 (", "((", "x) Z 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 7 7"} {
		state, start, err := parseStat([]byte(statLine(7, command, 'S', 4711)))
		if err != nil || state != 'S' || start != 4711 {
			t.Errorf("%q: state %c, start %d, %v", command, state, start, err)
		}
	}
	whole := statLine(7, "sh", 'S', 4711)
	for _, bad := range []string{"", "7", "7 (sh", "7 (sh) S 1", whole[:strings.Index(whole, "4711")], strings.Replace(whole, "4711", "x", 1)} {
		if _, start, err := parseStat([]byte(bad)); err == nil {
			t.Errorf("%q: start %d, want an error", bad, start)
		}
	}
}

func TestGone(t *testing.T) {
	// A file of /proc, or of a cgroup, that was opened in time fails when it is read.
	for _, err := range []error{unix.ENOENT, unix.ESRCH, unix.ENODEV} {
		if !errors.Is(goneIf(err), ErrGone) || !errors.Is(goneIf(err), err) {
			t.Errorf("%v became %v", err, goneIf(err))
		}
	}
	if err := goneIf(unix.EACCES); errors.Is(err, ErrGone) {
		t.Error(err)
	}
}
