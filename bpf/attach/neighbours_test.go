// SPDX-License-Identifier: Apache-2.0

package attach

import (
	"os"
	"slices"
	"testing"

	"github.com/linkpin/linkpin/bpf/bpftest"
	"github.com/linkpin/linkpin/specs"
)

func TestOrderOf(t *testing.T) {
	i, _ := iface(t, "lpord0")
	at := Target{Interface: i, Cgroup: openCgroup(t, bpftest.Cgroup(t))}
	for _, c := range []struct {
		hook  specs.Hook
		side  specs.Side
		known bool
	}{
		{specs.HookTCXIngress, specs.SideHost, true},
		{specs.HookTCXEgress, specs.SideContainer, true},
		{"cgroup/connect4", "", true},
		{"cgroup_skb/egress", "", false},
	} {
		t.Run(string(c.hook)+string(c.side), func(t *testing.T) {
			var ids []uint32
			for range 3 {
				l := mustAttach(t, trivial(t, c.hook), specs.Attachment{Hook: c.hook, Side: c.side}, at)
				ids = append(ids, mustInfo(t, l).ProgramID)
			}
			for n, id := range ids {
				o, err := OrderOf(c.hook, c.side, at, id)
				var behind []uint32 // on interfaces they have no part in what ours has decided
				if c.hook == "cgroup/connect4" {
					behind = ids[n+1:]
				}
				if err != nil || o.Known != c.known || o.There != c.known || c.known && !slices.Equal(o.InFront, ids[:n]) || !slices.Equal(o.Behind, behind) {
					t.Errorf("%d of %v: %+v, %v", n, ids, o, err)
				}
			}
			if o, err := OrderOf(c.hook, c.side, at, ids[0]+1<<20); err != nil || o.There || len(o.InFront)+len(o.Behind) > 0 {
				t.Errorf("a program that is not there: %+v, %v", o, err)
			}
		})
	}
}

// A hook may have more programs above a cgroup than on it.
func TestOrderOfManyPrograms(t *testing.T) {
	dir := bpftest.Cgroup(t)
	at := Target{Cgroup: openCgroup(t, dir)}
	var last uint32
	for range 64 {
		last = mustInfo(t, mustAttach(t, trivial(t, "cgroup/connect4"), specs.Attachment{Hook: "cgroup/connect4"}, at)).ProgramID
	}
	child := dir + "/child"
	if err := os.Mkdir(child, 0o755); err != nil {
		t.Fatal(err)
	}
	below := Target{Cgroup: openCgroup(t, child)}
	own := mustInfo(t, mustAttach(t, trivial(t, "cgroup/connect4"), specs.Attachment{Hook: "cgroup/connect4"}, below)).ProgramID
	o, err := OrderOf("cgroup/connect4", "", at, last)
	if err != nil || !o.There || len(o.InFront) != 63 {
		t.Errorf("%+v, %v", o, err)
	}
	if o, err = OrderOf("cgroup/connect4", "", below, last); err != nil || !o.There || len(o.InFront) != 64 || o.InFront[0] != own {
		t.Errorf("%+v, %v", o, err)
	}
	if o, err = OrderOf("cgroup/connect4", "", below, own); err != nil || !o.There || len(o.InFront) != 0 || len(o.Behind) != 64 {
		t.Errorf("%+v, %v", o, err)
	}
}
