// SPDX-License-Identifier: Apache-2.0

package pin

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func bpffs(r *Root) string { return filepath.Dir(filepath.Dir(r.Path())) }

func TestOneGoroutinePublishes(t *testing.T) {
	r := newRoot(t)
	p := ContainerEntry(childOwner.Key(), "p")
	var published atomic.Int32
	var wg sync.WaitGroup
	for range 64 {
		s := stage(t, r, "p")
		wg.Go(func() {
			l, err := r.Lock(t.Context(), childOwner)
			if err != nil {
				t.Error(err)
				return
			}
			switch err := s.Publish(p); {
			case err == nil:
				published.Add(1)
			case !errors.Is(err, ErrExist):
				t.Error(err)
			}
			must(t, errors.Join(s.Discard(), l.Release()))
		})
	}
	wg.Wait()
	if n := published.Load(); n != 1 {
		t.Errorf("%d published, want 1", n)
	}
	if names, err := r.StagingNames(); err != nil || len(names) != 0 {
		t.Errorf("left in staging: %v, %v", names, err)
	}
}

func TestOneProcessPublishes(t *testing.T) {
	r := newRoot(t)
	var all []*exec.Cmd
	var out [8]bytes.Buffer
	var starts []io.Closer
	for i := range out {
		cmd := childCommand(t, "publish", bpffs(r))
		start, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		starts = append(starts, start)
		cmd.Stdout = &out[i]
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		all = append(all, cmd)
	}
	for _, start := range starts {
		start.Close()
	}
	published := 0
	for i, cmd := range all {
		if err := cmd.Wait(); err != nil {
			t.Errorf("process %d: %v", i, err)
		}
		published += bytes.Count(out[i].Bytes(), []byte("published"))
	}
	if published != 1 {
		t.Errorf("published %d times, want once", published)
	}
	if e := entry(t, r, ContainerEntry(childOwner.Key(), "p")); len(e.Links()) != 2 {
		t.Errorf("links %q", e.Links())
	}
	if names, err := r.StagingNames(); err != nil || len(names) != 0 {
		t.Errorf("left in staging: %v, %v", names, err)
	}
}

// complete checks that an entry has all its pins and a record.
func complete(t *testing.T, r *Root, p Place) {
	t.Helper()
	e, err := r.Entry(p)
	if errors.Is(err, ErrNotExist) {
		return // gone as a whole
	}
	must(t, err)
	_, err = e.Record()
	if !slices.Equal(e.Links(), []string{"egress", "ingress"}) || err != nil {
		t.Errorf("%v is not complete: links %q, %v", p, e.Links(), err)
	}
}

// Eight processes publish, retire and remove the entries of one owner, and are
// killed at any instant: what they leave is nothing, complete entries, or staging
// that a sweep removes.
func TestKilledAtAnyInstant(t *testing.T) {
	r := newRoot(t)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 6 {
				cmd, _ := startChild(t, "cycle", bpffs(r))
				time.Sleep(rand.N(10 * time.Millisecond))
				cmd.Process.Kill()
				cmd.Wait()
			}
		})
	}
	wg.Wait()
	entries, err := r.Entries(childOwner)
	must(t, err)
	retired, err := r.Retired()
	must(t, err)
	staged, err := r.StagingNames()
	must(t, err)
	t.Logf("left: %d entries, %d retired, %d staged", len(entries), len(retired), len(staged))
	for _, p := range slices.Concat(entries, retired) {
		complete(t, r, p)
	}
	for _, name := range staged {
		must(t, r.RemoveStaging(name))
	}
	for _, p := range retired {
		must(t, entry(t, r, p).Remove())
	}
	l := lock(t, r, childOwner)
	for _, p := range entries {
		must(t, entry(t, r, p).Remove())
	}
	release(t, l)
	wantTree(t, r)
}

// The same processes, left alone, get along without an error.
func TestProcessesGetAlong(t *testing.T) {
	r := newRoot(t)
	var all []*exec.Cmd
	for range 8 {
		cmd := childCommand(t, "cycle", bpffs(r))
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		all = append(all, cmd)
	}
	for _, cmd := range all {
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	}
	complete(t, r, ContainerEntry(childOwner.Key(), "p"))
	if names, err := r.StagingNames(); err != nil || len(names) != 0 {
		t.Errorf("left in staging: %v, %v", names, err)
	}
}
