// SPDX-License-Identifier: Apache-2.0

package entry

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/linkpin/linkpin/bpf/pin"
)

// GCOptions say how far GC goes.
type GCOptions struct {
	// Wait is how long to wait for links that the kernel is about to sever; 0: not
	// at all. Links of a cgroup are severed 20–40 ms after its removal, or when the
	// last socket of the cgroup is closed; those of an interface when the kernel
	// destroys its namespace, some time after the last process has left it.
	Wait time.Duration
}

// GC that waits looks again after these pauses, which double.
const (
	minGCPause = 10 * time.Millisecond
	maxGCPause = 80 * time.Millisecond
)

// GCResult is what GC did and what it left.
type GCResult struct {
	Removed  int // entries, staging directories and index links that are gone
	Draining int // retired entries whose links are still live
	Busy     int // owners and staging directories that somebody holds
}

// GC removes everything whose container, sandbox or maker has ended. Only what the
// kernel still holds remains, in retired/.
func (s *Session) GC(ctx context.Context, o GCOptions) (GCResult, error) {
	deadline := time.Now().Add(o.Wait)
	var total GCResult
	for pause := minGCPause; ; pause = min(2*pause, maxGCPause) {
		r, err := s.gcOnce(ctx)
		total.Removed += r.Removed
		total.Draining, total.Busy = r.Draining, r.Busy
		if err != nil || !time.Now().Before(deadline) {
			return total, err
		}
		dying, err := s.dying()
		if err != nil || r.Draining == 0 && r.Busy == 0 && dying == 0 {
			return total, err
		}
		select {
		case <-ctx.Done():
			return total, context.Cause(ctx)
		case <-time.After(pause):
		}
	}
}

func (s *Session) gcOnce(ctx context.Context) (GCResult, error) {
	before, err := s.count()
	if err != nil {
		return GCResult{}, err
	}
	var r GCResult
	var errs []error
	note := func(err error) {
		switch {
		case errors.Is(err, pin.ErrBusy):
			r.Busy++
		case err != nil && !skippable(err):
			errs = append(errs, err)
		}
	}
	for _, dir := range []struct {
		list  func() ([]string, error)
		sweep func(context.Context, string) error
	}{
		{s.Root.StagingNames, s.sweepStaging},
		{keyNames(s.Root.Containers), s.sweepContainer},
		{keyNames(s.Root.Sandboxes), s.sweepSandboxDir},
		{s.retiredNames, s.sweepRetired},
		{s.danglingNames, s.sweepNetns},
	} {
		names, err := dir.list()
		if err != nil {
			return r, err
		}
		for _, name := range names {
			note(dir.sweep(ctx, name))
		}
	}
	after, err := s.count()
	errs = append(errs, err)
	r.Removed = max(before-after, 0)
	r.Draining, err = s.Root.RetiredCount()
	return r, errors.Join(append(errs, err)...)
}

// dying counts the interface entries of sandboxes that nobody uses any more, and whose
// namespace the kernel has yet to destroy: CNI DEL has not taken them, or could not.
func (s *Session) dying() (int, error) {
	keys, err := s.Root.Sandboxes()
	if err != nil {
		return 0, err
	}
	n := 0
	for _, key := range keys {
		places, err := s.Root.Entries(pin.Sandbox(key))
		if err != nil {
			return n, err
		}
		for _, p := range places {
			rec, err := s.readRecord(p)
			if err != nil || isNote(p) || rec.Interface == nil || !rec.Interface.DiesWithNetns {
				continue // what can't be read has been reported
			}
			ended, err := netnsEnded(rec)
			if err != nil || !ended {
				continue
			}
			if running, err := s.runningMembers(key); err == nil && running == 0 {
				n++
			}
		}
	}
	return n, nil
}

// count returns how many entries, staging directories and dangling index links
// there are.
func (s *Session) count() (int, error) {
	places, err := s.places()
	if err != nil {
		return 0, err
	}
	staging, err := s.Root.StagingNames()
	if err != nil {
		return 0, err
	}
	dangling, err := s.Root.DanglingNetns()
	return len(places) + len(staging) + len(dangling), err
}

func keyNames(list func() ([]pin.Key, error)) func() ([]string, error) {
	return func() ([]string, error) {
		keys, err := list()
		names := make([]string, len(keys))
		for i, k := range keys {
			names[i] = string(k)
		}
		return names, err
	}
}

func (s *Session) retiredNames() ([]string, error) {
	places, err := s.Root.Retired()
	names := make([]string, len(places))
	for i, p := range places {
		names[i] = p.Name()
	}
	return names, err
}

func (s *Session) danglingNames() ([]string, error) {
	cookies, err := s.Root.DanglingNetns()
	names := make([]string, len(cookies))
	for i, c := range cookies {
		names[i] = strconv.FormatUint(c, 10)
	}
	return names, err
}

// Preview returns what GC would retire or remove, without changing anything.
func (s *Session) Preview() ([]Item, error) {
	var out []Item
	err := s.Walk(func(it Item) error {
		over, err := s.over(it)
		if err != nil {
			return err
		}
		if over {
			out = append(out, it)
		}
		return nil
	})
	return out, err
}

// over reports whether GC would take an entry.
func (s *Session) over(it Item) (bool, error) {
	switch {
	case it.Record == nil:
		return false, nil
	case it.Retired != nil:
		e, err := s.Root.Entry(it.Place)
		if err != nil {
			return errors.Is(err, pin.ErrNotExist), nil
		}
		n, err := s.states(e)
		return n.live == 0, err
	case it.Place.Kind() == pin.ContainerPlace:
		return s.containerEnded(it.Record)
	case it.Record.By == pin.ByHook:
		owner, _ := it.Place.Owner()
		if n, err := s.runningMembers(owner.Key()); err != nil || n == 0 {
			return err == nil, err
		}
	}
	return s.sandboxEntryOver(it.Place, it.Record)
}
