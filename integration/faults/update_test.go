// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/linkpin/linkpin/integration/faults/tracer"
)

// outdated attaches a policy, to a cgroup and to an interface, and puts its next version
// into effect.
func outdated(w *world) error {
	if err := w.must(createRuntime(w)); err != nil {
		return err
	}
	var err error
	if w.links, err = pinnedLinks(); err == nil && len(w.links) != 3 {
		err = fmt.Errorf("links before: %v", w.links)
	}
	return errors.Join(err, w.use("update"+newer))
}

// unfinished leaves an update behind whose maker was killed after the first call of a
// name.
func unfinished(call string) func(*world) error {
	return func(w *world) error {
		if err := outdated(w); err != nil {
			return err
		}
		o, err := w.run(linkpin("update", "both"), tracer.Fault{Action: tracer.KillExit, N: 1, Call: call})
		if err == nil && !o.killed() {
			err = fmt.Errorf("not killed: %v", o)
		}
		return err
	}
}

// pinnedLinks returns the links of all entries with their programs.
func pinnedLinks() (map[link.ID]ebpf.ProgramID, error) {
	paths, err := pins("containers", "sandboxes")
	if err != nil {
		return nil, err
	}
	found := map[link.ID]ebpf.ProgramID{}
	for _, p := range paths {
		if ok, _ := filepath.Match("link_*", filepath.Base(p)); !ok {
			continue
		}
		l, err := link.LoadPinnedLink(filepath.Join(stateDir, p), nil)
		if err != nil {
			return nil, err
		}
		info, err := l.Info()
		if err := errors.Join(err, l.Close()); err != nil {
			return nil, err
		}
		found[info.ID] = info.Program
	}
	return found, nil
}

// updated tells how many of the links have another program than before the update. All
// must be there, with their own program or one that the update has made.
func (w *world) updated() (int, error) {
	now, err := pinnedLinks()
	if err != nil {
		return 0, err
	}
	if !slices.Equal(slices.Sorted(maps.Keys(now)), slices.Sorted(maps.Keys(w.links))) {
		return 0, fmt.Errorf("links %v, before the update %v", now, w.links)
	}
	n := 0
	for id, prog := range now {
		if prog == w.links[id] {
			continue
		}
		n++
		if !slices.Contains(w.created, tracer.Object{Kind: tracer.Program, ID: uint32(prog)}) {
			return n, fmt.Errorf("link %d has program %d, which is nobody's", id, prog)
		}
	}
	return n, nil
}

// updatedOrNot: at any time each link has the old program or the new one, and after one
// gc, while the container runs, either all have the old one or all have the new one, and
// the records say so.
func updatedOrNot(w *world, o *outcome) error {
	if _, err := w.updated(); err != nil {
		return err
	}
	if err := w.judged(byBoth); err != nil {
		return fmt.Errorf("right after the update: %w", err)
	}
	if err := w.must(linkpin("gc", "--wait=5s")); err != nil {
		return err
	}
	n, err := w.updated()
	if err != nil {
		return err
	}
	finished := n > 0
	if n > 0 && n < len(w.links) || !finished && o.ok() && o.args[0] == "update" {
		return fmt.Errorf("%d of %d links have the new program", n, len(w.links))
	}
	by, err := w.judgedIn(w.dir, w.netns(), byBoth)
	if err != nil {
		return err
	}
	if finished != (by[1] == byBoth) || finished != (by[0] == traffic{}) {
		return fmt.Errorf("updated: %v, judged by the two versions: %v times", finished, by)
	}
	return errors.Join(w.must(linkpin("verify")), w.standing(finished), unpinned("staging", "retired"))
}

// standing returns an error unless the records of all entries agree with what became of
// an update.
func (w *world) standing(finished bool) error {
	want := "outdated"
	if finished {
		want = "current"
	}
	text, err := w.linkpin("ls", "-o", "json")
	if err != nil {
		return err
	}
	var list struct {
		Entries []struct{ Path, Standing string }
	}
	if err := json.Unmarshal([]byte(text), &list); err != nil {
		return err
	}
	for _, e := range list.Entries {
		if e.Standing != want {
			return fmt.Errorf("%s is %s, want %s", e.Path, e.Standing, want)
		}
	}
	if len(list.Entries) != 2 {
		err = fmt.Errorf("entries: %s", text)
	}
	return err
}
