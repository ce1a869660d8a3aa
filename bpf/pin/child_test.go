// SPDX-License-Identifier: Apache-2.0

package pin

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// The parts that other processes play; each takes the bpffs as its first argument
// and says on stdout what it did.
func child(role string, args []string) int {
	roles := map[string]func(r *Root) error{
		"lock":    childLock,
		"stage":   childStage,
		"create":  func(*Root) error { return nil },
		"publish": childPublish,
		"cycle":   childCycle,
	}
	if role == "umask" {
		unix.Umask(0o277)
		_, err := Create(Options{Path: args[0]})
		fmt.Println(err, errors.Is(err, ErrForeign))
		return 0
	}
	if role == "create" {
		// All start at the same time: when the parent closes stdin.
		io.Copy(io.Discard, os.Stdin)
	}
	r, err := Create(Options{Path: args[0]})
	if err == nil {
		defer r.Close()
		err = roles[role](r)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, role+":", err)
		return 1
	}
	return 0
}

var childOwner = Container(ContainerKey("web", "/run/web"))

// childLock holds the lock of childOwner until it is killed.
func childLock(r *Root) error {
	if _, err := r.Lock(context.Background(), childOwner); err != nil {
		return err
	}
	fmt.Println("locked")
	select {}
}

// childStage holds a staging directory with an entry until it is killed.
func childStage(r *Root) error {
	s, err := childStaged(r)
	if err != nil {
		return err
	}
	fmt.Println(s.name)
	select {}
}

func childStaged(r *Root) (*Staging, error) {
	s, err := r.Stage()
	if err != nil {
		return nil, err
	}
	for _, name := range []string{"ingress", "egress"} {
		m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 1})
		if err != nil {
			return nil, err
		}
		defer m.Close()
		if err := errors.Join(s.PinLink(name, m)); err != nil {
			return nil, err
		}
	}
	return s, s.WriteRecord(someRecord("p"))
}

// childPublish publishes an entry of childOwner if there is none, as the hook does.
func childPublish(r *Root) error {
	io.Copy(io.Discard, os.Stdin)
	p := ContainerEntry(childOwner.Key(), "p")
	for range 20 {
		s, err := childStaged(r)
		if err != nil {
			return err
		}
		l, err := r.Lock(context.Background(), childOwner)
		if err != nil {
			return err
		}
		_, err = r.Entry(p)
		if errors.Is(err, ErrNotExist) {
			if err = s.Publish(p); err == nil {
				fmt.Println("published")
			}
		}
		if err := errors.Join(err, l.Release(), s.Discard()); err != nil {
			return err
		}
	}
	return nil
}

// childCycle publishes, retires and removes an entry of childOwner over and over,
// as fast as it can, in competition with others.
func childCycle(r *Root) error {
	p := ContainerEntry(childOwner.Key(), "p")
	fmt.Println("running")
	for end := time.Now().Add(time.Second / 2); time.Now().Before(end); {
		s, err := childStaged(r)
		if err != nil {
			return err
		}
		l, err := r.Lock(context.Background(), childOwner)
		if err != nil {
			return err
		}
		_, err = r.Retire(p, "test", 0)
		if err != nil && !errors.Is(err, ErrNotExist) {
			return err
		}
		if err := errors.Join(s.Publish(p), l.Release(), s.Discard()); err != nil {
			return err
		}
		if err := childSweep(r); err != nil {
			return err
		}
	}
	return nil
}

// childSweep removes retired entries and abandoned staging directories.
func childSweep(r *Root) error {
	retired, err := r.Sample(DirRetired, 4)
	if err != nil {
		return err
	}
	for _, name := range retired {
		e, err := r.Entry(RetiredEntry(name))
		if err == nil {
			err = e.Remove()
		}
		if err != nil && !errors.Is(err, ErrNotExist) && !errors.Is(err, ErrBusy) {
			return err
		}
	}
	staged, err := r.Sample(DirStaging, 4)
	if err != nil {
		return err
	}
	for _, name := range staged {
		if err := r.RemoveStaging(name); err != nil && !errors.Is(err, ErrNotExist) && !errors.Is(err, ErrBusy) {
			return err
		}
	}
	return nil
}

// startChild starts a process that holds something, and returns what it says first.
func startChild(t *testing.T, role string, args ...string) (cmd *exec.Cmd, line string) {
	t.Helper()
	cmd = childCommand(t, role, args...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	line, err = bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("%s said nothing: %v", role, err)
	}
	return cmd, strings.TrimSpace(line)
}
