// SPDX-License-Identifier: Apache-2.0

package pin

import (
	"slices"
	"testing"
	"time"
)

func TestRetire(t *testing.T) {
	r := newRoot(t)
	now := time.Unix(1740000000, 999)
	r.now = func() time.Time { return now }
	p := HookInterfaceEntry(SandboxKey("4f"), "eth0", "p")
	publish(t, r, p)
	l := lock(t, r, Sandbox(SandboxKey("4f")))
	retired, err := r.Retire(p, "CNI DEL, twice", 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = r.Retire(p, "again", 0)
	wantError(t, err, ErrNotExist)
	release(t, l)

	got, err := ParseRetired(retired.Name())
	if err != nil || got.Reason != "CNI DEL, twice" || !got.Time.Equal(time.Unix(1740000000, 0)) {
		t.Errorf("retired %+v, %v", got, err)
	}
	e := entry(t, r, retired)
	if rec, err := e.Record(); err != nil || rec.Policy != "p" || len(e.Links()) != 2 {
		t.Errorf("record %+v, %v, links %q", rec, err, e.Links())
	}
	must(t, e.RemoveLink("ingress")) // no lock: it has no owner any more
	if n, err := r.RetiredCount(); n != 1 || err != nil {
		t.Errorf("%d retired, %v", n, err)
	}
	if _, err := r.Retire(retired, "again", 0); err == nil {
		t.Error("retired twice")
	}
	must(t, e.Remove())
	wantTree(t, r)
}

func TestRetiredIsOldestFirst(t *testing.T) {
	r := newRoot(t)
	var want []Place
	for _, at := range []int64{5, 2000000000, 999999999, 1740000000, 10} {
		r.now = func() time.Time { return time.Unix(at, 0) }
		publish(t, r, ContainerEntry(childOwner.Key(), "p"))
		l := lock(t, r, childOwner)
		p, err := r.Retire(ContainerEntry(childOwner.Key(), "p"), "gc", 0)
		if err != nil {
			t.Fatal(err)
		}
		release(t, l)
		want = append(want, p)
	}
	want = []Place{want[0], want[4], want[2], want[3], want[1]}
	got, err := r.Retired()
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%v, %v; want %v", got, err, want)
	}
}

func TestParseRetired(t *testing.T) {
	for _, reason := range append(hostile, "a-b", "-", "poststop") {
		at := time.Unix(1740000000, 0).UTC()
		from := Target{Cgroup: uint64(len(reason)) << 40}
		if len(reason)%2 == 0 {
			from = Target{Netns: uint64(len(reason)) << 40}
		}
		name := retiredName(at, reason, from)
		if RetiredEntry(name).Kind() != RetiredPlace {
			t.Errorf("%q is no name of a retired entry", name)
		}
		got, err := ParseRetired(name)
		if err != nil || !got.Time.Equal(at) || got.Target != from || (got.Reason != reason && len(reason) < 67) {
			t.Errorf("%q: %+v, %v", name, got, err)
		}
	}
	for _, name := range []string{"", "x", "1", "1-", "1-gc", "-gc-1", "01-gc-1", "1.5-gc-1", "99999999999999999999-gc-1", "-1-gc-1", "1-gc-1_", "1-gc-1_x", "1-gc-1_1_2", "1-gc-1_n", "1-gc-1_nx", "1-gc-1_n1_2"} {
		_, err := ParseRetired(name)
		wantError(t, err, ErrName)
	}
}
