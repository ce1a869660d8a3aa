// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/cilium/ebpf"

	"github.com/linkpin/linkpin/integration/faults/tracer"
)

// Stages of testdata/faults.bpf.c, as its counters are ordered.
const (
	connecting = iota
	tcx
	xdp
	netfilter
	tracing
	judges
)

// traffic is how often each stage has to judge what the agent does once.
type traffic [judges]uint64

// The agent makes one connection and sends three datagrams, of which TCX and XDP stop
// one each.
var (
	byAll     = traffic{1, 1, 1, 3}
	bySandbox = traffic{0, 1, 1, 4} // what CNI attaches: nothing refuses the connection's first packet
	byPod     = traffic{connecting: 1, tcx: 1}
	byBoth    = traffic{connecting: 1, tcx: 1, xdp: 1}
	byTracing = traffic{tracing: 1}
)

// covered returns an error unless traffic from the container is judged as it should
// be, once at each stage, and linkpin itself finds nothing amiss.
func (w *world) covered(want traffic) error {
	return errors.Join(w.judged(want), w.inOrder())
}

// judged sends traffic and counts.
func (w *world) judged(want traffic) error {
	_, err := w.judgedIn(w.dir, w.netns(), want)
	return err
}

// versions of testdata/faults.bpf.c.
const versions = 2

// judgedIn also tells which version of the programs has judged how often.
func (w *world) judgedIn(cgroup, netns string, want traffic) (by [versions]traffic, err error) {
	before, err := w.counters()
	if err != nil {
		return by, err
	}
	out, err := exec.Command(built.agent, cgroup, netns).CombinedOutput()
	if err != nil {
		return by, fmt.Errorf("agent: %w: %s", err, out)
	}
	refused := strings.TrimSpace(string(out)) == "1"
	if refused != (want[connecting] > 0) {
		return by, fmt.Errorf("connection refused: %v", refused)
	}
	// The other end of a veth pair gets its packets a moment later.
	var got traffic
	for deadline := time.Now().Add(3 * time.Second); ; time.Sleep(time.Millisecond) {
		after, err := w.counters()
		if err != nil {
			return by, err
		}
		for i := range got {
			got[i] = 0
			for v := range versions {
				by[v][i] = after[v][i] - before[v][i]
				got[i] += by[v][i]
			}
		}
		if got == want || time.Now().After(deadline) {
			break
		}
	}
	if got != want {
		return by, fmt.Errorf("judged by connect4, TCX, XDP, netfilter, tracing: %v times, want %v", got, want)
	}
	return by, nil
}

// counters adds up what the programs in this world have counted, whoever has attached
// them. The maps are known by their ids: a feature test of the library that fails may
// cost them their names.
func (w *world) counters() (sum [versions]traffic, err error) {
	seen := map[tracer.Object]bool{}
	for _, o := range w.created {
		if o.Kind != tracer.Map || seen[o] {
			continue
		}
		seen[o] = true
		m, err := ebpf.NewMapFromID(ebpf.MapID(o.ID))
		if err != nil {
			continue // gone
		}
		err = add(&sum, m)
		if err := errors.Join(err, m.Close()); err != nil {
			return sum, err
		}
	}
	return sum, nil
}

// add adds the counters of a map, if it has any. A map of the second version begins
// with what was carried over from one of the first.
func add(sum *[versions]traffic, m *ebpf.Map) error {
	n := int(m.MaxEntries())
	if m.Type() != ebpf.Array || n != judges && n != versions*judges || m.ValueSize() != 8 {
		return nil
	}
	for i := range n {
		var count uint64
		if err := m.Lookup(uint32(i), &count); err != nil {
			return err
		}
		sum[i/judges][i%judges] += count
	}
	return nil
}

// inOrder asks `linkpin verify`. What it can't tell is no finding of ours.
func (w *world) inOrder() error {
	o, err := w.plain(linkpin("verify", "-o", "json"))
	if err != nil {
		return err
	}
	return o.noDrift()
}

// noDrift reads what `linkpin verify -o json` has printed. What it can't tell is no
// drift.
func (o *outcome) noDrift() error {
	var report struct {
		Findings []struct {
			Drift          bool
			Policy, Detail string
			Repaired       string
			Error          string
		}
	}
	if err := json.Unmarshal([]byte(o.stdout), &report); err != nil {
		return fmt.Errorf("%w: %v", err, o)
	}
	for _, f := range report.Findings {
		if f.Drift && f.Repaired == "" || f.Error != "" {
			return fmt.Errorf("drift of policy %s: %s (%s)", f.Policy, f.Detail, f.Error)
		}
	}
	return nil
}

// listing is what is below linkpin's directory in bpffs, sorted; directories end
// with a slash.
func listing() ([]string, error) {
	var paths []string
	err := filepath.WalkDir(stateDir, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		path = strings.TrimPrefix(path, stateDir)
		if d.IsDir() {
			path += "/"
		}
		paths = append(paths, path)
		return nil
	})
	return paths, err
}

// pins returns the pinned objects below the given directories of linkpin/v1, all if
// there are none.
func pins(dirs ...string) ([]string, error) {
	paths, err := listing()
	return slices.DeleteFunc(paths, func(p string) bool {
		within := len(dirs) == 0
		for _, d := range dirs {
			within = within || strings.HasPrefix(p, "/v1/"+d+"/")
		}
		return !within || strings.HasSuffix(p, "/") || strings.HasPrefix(p, "/v1/netns/")
	}), err
}

// unpinned returns an error if anything is pinned: what has no pin is gone when the
// process that made it is.
func unpinned(dirs ...string) error {
	left, err := pins(dirs...)
	if err == nil && len(left) > 0 {
		err = fmt.Errorf("still pinned: %s", strings.Join(left, " "))
	}
	return err
}

// clean collects garbage, once, and returns an error if that leaves anything in bpffs
// but the directories that are always there.
func (w *world) clean() error {
	o, err := w.plain(linkpin("gc", "--wait=5s"))
	if err != nil {
		return err
	}
	if !o.ok() || !strings.HasSuffix(o.stdout, "0 draining, 0 busy\n") {
		return fmt.Errorf("%v", o)
	}
	left, err := listing()
	if err != nil {
		return err
	}
	left = slices.DeleteFunc(left, func(p string) bool { return slices.Contains(standing, p) })
	if len(left) > 0 {
		return fmt.Errorf("after gc: %s", strings.Join(left, " "))
	}
	return nil
}

// standing are linkpin's own directories in bpffs.
var standing = []string{
	"/", "/v1/", "/v1/containers/", "/v1/sandboxes/", "/v1/node/", "/v1/netns/", "/v1/retired/", "/v1/staging/",
}
