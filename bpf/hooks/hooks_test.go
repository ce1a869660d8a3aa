// SPDX-License-Identifier: Apache-2.0

package hooks

import (
	"testing"

	"github.com/cilium/ebpf"

	"github.com/linkpin/linkpin/specs"
)

func TestEveryHookHasTypes(t *testing.T) {
	seen := map[ebpf.AttachType]specs.Hook{}
	for _, h := range specs.Hooks() {
		pt, at, err := Types(h)
		if err != nil {
			t.Error(err)
			continue
		}
		if pt == ebpf.UnspecifiedProgram || Since(h).Less(Version{5, 7}) {
			t.Errorf("%s: type %s, since %s", h, pt, Since(h))
		}
		if other, ok := seen[at]; ok {
			t.Errorf("%s and %s have the same attach type", h, other)
		}
		seen[at] = h
		if back, ok := FromAttachType(at); !ok || back != h {
			t.Errorf("%s: its attach type belongs to %q", h, back)
		}
	}
	if len(table) != len(specs.Hooks()) {
		t.Errorf("%d rows for %d hooks", len(table), len(specs.Hooks()))
	}
}

func TestNoHook(t *testing.T) {
	for _, h := range []specs.Hook{"", "cgroup/skb", "tc", "xdp/devmap", "kprobe"} {
		if _, _, err := Types(h); err == nil {
			t.Errorf("%q has types", h)
		}
		if Since(h) != (Version{}) {
			t.Errorf("%q has a kernel: %s", h, Since(h))
		}
	}
	for _, a := range []ebpf.AttachType{ebpf.AttachModifyReturn, ebpf.AttachTraceIter, ebpf.AttachXDPDevMap, ebpf.AttachNetkitPeer, 9999} {
		if h, ok := FromAttachType(a); ok {
			t.Errorf("attach type %s is taken for %s", a, h)
		}
	}
}

func TestVersion(t *testing.T) {
	for _, c := range []struct {
		a, b Version
		less bool
	}{{Version{5, 7}, Version{5, 10}, true}, {Version{5, 10}, Version{6, 0}, true}, {Version{6, 6}, Version{6, 6}, false}, {Version{6, 0}, Version{5, 19}, false}} {
		if c.a.Less(c.b) != c.less {
			t.Errorf("%s less than %s: %v", c.a, c.b, !c.less)
		}
	}
	if s := (Version{6, 12}).String(); s != "6.12" {
		t.Error(s)
	}
}
