// SPDX-License-Identifier: Apache-2.0

package pin

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/linkpin/linkpin/bpf/bpftest"
	"github.com/linkpin/linkpin/specs/fault"
)

// An intent is found by whoever comes, belongs to its maker while that lives, is never
// just removed, and can be carried out again from every point.
func TestIntent(t *testing.T) {
	r, err := Create(Options{Path: bpftest.TempBPFFS(t)})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	st, err := r.Stage()
	if err != nil {
		t.Fatal(err)
	}
	m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	key := ContainerKey("web", "/bundle")
	place := ContainerEntry(key, "p")
	file, err := st.PinObject(m)
	if err != nil {
		t.Fatal(err)
	}
	pending, err := st.Commit(Intent{Policy: "p", Entries: []IntentEntry{{
		Place: place.String(), Moves: []IntentMove{{Staged: file, Map: "counts"}}, DropMaps: []string{"gone"},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := st.Discard(); err != nil { // it is the Pending's now
		t.Fatal(err)
	}
	names, err := r.StagingNames()
	if err != nil || len(names) != 1 {
		t.Fatalf("%v, %v", names, err)
	}
	if _, err := r.OpenPending(names[0]); !errors.Is(err, ErrBusy) {
		t.Errorf("while its maker lives: %v", err)
	}
	if err := r.RemoveStaging(names[0]); !errors.Is(err, ErrBusy) {
		t.Errorf("while its maker lives: %v", err)
	}
	pending.Close()
	if err := r.RemoveStaging(names[0]); !errors.Is(err, ErrUnfinished) {
		t.Errorf("removed: %v", err)
	}
	if pending, err = r.OpenPending(names[0]); err != nil {
		t.Fatal(err)
	}
	owners, err := pending.Intent.Owners()
	if err != nil || len(owners) != 1 || owners[0] != Container(key) || pending.Decided() {
		t.Errorf("%v, %v, decided %v", owners, err, pending.Decided())
	}
	e := &pending.Intent.Entries[0]
	if err := pending.Finalise(e); !errors.Is(err, ErrNotLocked) {
		t.Errorf("without the lock: %v", err)
	}
	lock, err := r.Lock(t.Context(), Container(key))
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Release()
	if err := mkdir(r.fd, place.path); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := pending.Decide(); err != nil {
			t.Fatal(err)
		}
		if err := pending.Finalise(e); err != nil {
			t.Fatal(err)
		}
	}
	if in, decided, err := r.ReadIntent(names[0]); err != nil || !decided || in.Policy != "p" {
		t.Errorf("%+v, %v, %v", in, decided, err)
	}
	if err := r.RemoveStaging(names[0]); !errors.Is(err, ErrBusy) {
		t.Errorf("%v", err)
	}
	if entry, err := r.Entry(place); err != nil || len(entry.Maps()) != 1 {
		t.Errorf("%v, %v", entry, err)
	}
	if err := pending.Remove(); err != nil {
		t.Fatal(err)
	}
	if _, err := r.OpenPending(names[0]); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it is still there: %v", err)
	}
}

// A staging directory without an intent is no update.
func TestNoIntent(t *testing.T) {
	r, err := Create(Options{Path: bpftest.TempBPFFS(t)})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	st, err := r.Stage()
	if err != nil {
		t.Fatal(err)
	}
	names, err := r.StagingNames()
	if err != nil || len(names) != 1 {
		t.Fatalf("%v, %v", names, err)
	}
	st.close() // as if its maker had been killed
	if _, err := r.OpenPending(names[0]); !errors.Is(err, ErrIncomplete) {
		t.Errorf("%v", err)
	}
	if err := r.RemoveStaging(names[0]); err != nil {
		t.Error(err)
	}
}

// An intent that this linkpin can't read is said to be one, with what to do about it, and
// which entries it is about as far as that can be told.
func TestIntentOfAnotherVersion(t *testing.T) {
	r, err := Create(Options{Path: bpftest.TempBPFFS(t)})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for text, entries := range map[string]int{
		`{"version": 99, "policy": "p", "entries": [{"place": "x"}]}`: 1,
		`{"version": 1, "entries": 7}`:                                0,
		`nonsense`:                                                    0,
	} {
		st, err := r.Stage()
		if err != nil {
			t.Fatal(err)
		}
		m, err := newFrozen(intentName, []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		if err := st.pinFile(intentFile, m); err != nil {
			t.Fatal(err)
		}
		m.Close()
		in, _, err := r.ReadIntent(st.name)
		var f *fault.Error
		if !errors.As(err, &f) || !errors.Is(err, ErrDamaged) || !strings.Contains(f.Remedy, "rm -r "+r.Path()+"/staging/"+st.name) || len(in.Entries) != entries {
			t.Errorf("%s: %v, %+v", text, err, in)
		}
		if err := st.Discard(); err != nil {
			t.Fatal(err)
		}
	}
}
