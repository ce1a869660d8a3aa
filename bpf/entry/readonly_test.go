// SPDX-License-Identifier: Apache-2.0

package entry

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/linkpin/linkpin/bpf/attach"
	"github.com/linkpin/linkpin/bpf/pin"
)

func (f *fixture) remount(t *testing.T, flags uintptr) {
	t.Helper()
	mount := strings.TrimSuffix(f.Root.Path(), "/linkpin/v1")
	if err := unix.Mount("", mount, "", unix.MS_REMOUNT|flags, "mode=0700"); err != nil {
		t.Fatal(err)
	}
}

// In a bpffs that is mounted read-only no link can be opened by its pin, and every one
// is known all the same.
func TestReadOnlyLinksAreKnown(t *testing.T) {
	f, c, _ := treeFixture(t)
	place := pin.ContainerEntry(c.key, "cg")
	_, path := f.verified(t, place)
	var before []Problem
	for _, it := range f.all(t) {
		for _, found := range f.examined(t, it.Place) {
			before = append(before, found.Problem)
		}
	}
	f.remount(t, unix.MS_RDONLY)
	t.Cleanup(func() { f.remount(t, 0) })
	if _, err := attach.OpenPinned(path); !errors.Is(err, unix.EROFS) {
		t.Fatalf("the kernel opens links there: %v", err)
	}
	var now []Finding
	for _, it := range f.all(t) {
		now = append(now, f.examined(t, it.Place)...)
	}
	wantProblems(t, now, before...)

	// What is taken off is seen, and a repair says in one line why it does nothing.
	it, _ := f.Look(place)
	l, err := attach.OpenID(it.Record.Programs[0].LinkID)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := l.Detach(); err != nil {
		t.Fatal(err)
	}
	wantProblems(t, f.examined(t, place), ProblemSevered)
	f.Warn = func(err error) { t.Error("warning:", err) }
	for _, repair := range []func(context.Context, pin.Place) ([]Finding, error){f.Repair, f.Examine().Repair} {
		if _, err := repair(context.Background(), place); !errors.Is(err, pin.ErrReadOnly) || !strings.Contains(err.Error(), "remount,rw") {
			t.Errorf("%v", err)
		}
	}
	wantProblems(t, f.Examine().RepairTree(), ProblemReadOnly)
	f.remount(t, 0)
	if findings, err := f.Repair(context.Background(), place); err != nil || len(findings) != 1 || findings[0].Repaired == "" {
		t.Errorf("%+v, %v", findings, err)
	}

	// A pin that is gone is gone, whatever its id leads to.
	_, path = f.verified(t, place)
	l, err = attach.OpenPinned(path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	f.remount(t, unix.MS_RDONLY)
	wantProblems(t, f.examined(t, place), ProblemUnpinned)
}
