// SPDX-License-Identifier: Apache-2.0

package entry

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"github.com/linkpin/linkpin/bpf/attach"
	"github.com/linkpin/linkpin/bpf/pin"
	"github.com/linkpin/linkpin/specs"
)

// A call into the kernel can't be interrupted. If the last one returns late and has
// succeeded, everything is attached, and is kept; if there is another to make, it is not
// made, and what was attached is off again.
func TestAttachThatReturnsLate(t *testing.T) {
	for name, c := range map[string]struct {
		policies []string
		late     int // the call that returns late
		kept     int // entries
	}{
		"the only one":         {[]string{"a"}, 1, 1},
		"the last of two":      {[]string{"a", "b"}, 2, 2},
		"the first of two":     {[]string{"a", "b"}, 1, 0},
		"the last of a policy": {[]string{"two", "b"}, 2, 0},
	} {
		t.Run(name, func(t *testing.T) {
			connect := program("connect4", "cgroup/connect4")
			f := newFixture(t, plans{"a": plan(t, "a", connect), "b": plan(t, "b", connect), "two": plan(t, "two", connect, program("read_cgroup", "cgroup_skb/egress"))})
			box := newContainer(t, "web")
			calls := 0
			f.attachTimeout = 300 * time.Millisecond
			f.attachLink = func(p *ebpf.Program, a specs.Attachment, at attach.Target) (*attach.Link, error) {
				l, err := attach.Attach(p, a, at)
				if calls++; calls == c.late {
					time.Sleep(2 * f.attachTimeout)
				}
				return l, err
			}
			l := f.lock(t, pin.Container(box.key))
			defer l.Release()
			published, err := f.Attach(context.Background(), box.sub, box.wants(c.policies...))
			if late := errors.Is(err, context.DeadlineExceeded); late != (c.kept == 0) || err != nil && !late {
				t.Errorf("got %v", err)
			}
			live, _ := f.entries(t)
			if len(published) != c.kept || live != c.kept || attached(t, box.dir, connect4) != c.kept {
				t.Errorf("published %v, %d entries, %d programs, want %d", published, live, attached(t, box.dir, connect4), c.kept)
			}
			if c.kept > 0 {
				for _, w := range box.wants(c.policies...) {
					item, ok := f.Look(w.Place)
					if found := f.Verify(item); !ok || len(found) > 0 {
						t.Errorf("%s: %v", w.Place, found)
					}
				}
				return
			}
			emptyState(t, f)
			if calls != c.late {
				t.Errorf("%d calls, want none after number %d", calls, c.late)
			}
		})
	}
}
