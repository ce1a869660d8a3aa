// SPDX-License-Identifier: Apache-2.0

package attach

import (
	"errors"
	"fmt"
	"io/fs"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"

	"github.com/linkpin/linkpin/bpf/bpftest"
	"github.com/linkpin/linkpin/bpf/target"
	"github.com/linkpin/linkpin/specs"
)

// another loads a program for a hook that is not the trivial one.
func another(t *testing.T, like *ebpf.Program, at ebpf.AttachType) *ebpf.Program {
	t.Helper()
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: like.Type(), AttachType: at, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 1), asm.Mov.Imm(asm.R1, 7), asm.Return()},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

// The info follows a program that was exchanged, by us or behind our back.
func TestInfoAfterUpdate(t *testing.T) {
	h := specs.Hook("cgroup/bind4")
	p := trivial(t, h)
	q := another(t, p, ebpf.AttachCGroupInet4Bind)
	want, err := q.Info()
	if err != nil {
		t.Fatal(err)
	}
	id, _ := want.ID()
	for name, update := range map[string]func(*Link) error{
		"ours":   func(l *Link) error { return l.Update(q) },
		"theirs": func(l *Link) error { return l.raw.Update(q) },
	} {
		s := cgroupScene(h)(t, p)
		l := mustAttach(t, p, s.attachment, s.target)
		before := mustInfo(t, l)
		if err := update(l); err != nil {
			t.Fatal(err)
		}
		got := mustInfo(t, l)
		if got.ProgramID != uint32(id) || got.ProgramTag != want.Tag || got.ProgramTag == before.ProgramTag || got.LinkID != before.LinkID {
			t.Errorf("%s: info %+v, want program %d with tag %s", name, got, id, want.Tag)
		}
		if ids := s.attached(); len(ids) != 1 || ids[0] != id {
			t.Errorf("%s: programs %v, want %d alone", name, ids, id)
		}
	}
}

func TestUpdateOfSeveredLink(t *testing.T) {
	h := specs.Hook("cgroup/bind4")
	p := trivial(t, h)
	s := cgroupScene(h)(t, p)
	l := mustAttach(t, p, s.attachment, s.target)
	s.end()
	bpftest.Eventually(t, "severing", func() error {
		if state := mustInfo(t, l).State; state != Severed {
			return fmt.Errorf("the link is %s", state)
		}
		return nil
	})
	if err := l.Update(another(t, p, ebpf.AttachCGroupInet4Bind)); !errors.Is(err, target.ErrGone) {
		t.Errorf("%v, want ErrGone", err)
	}
}

func TestOpenID(t *testing.T) {
	h := specs.Hook("cgroup/bind4")
	p := trivial(t, h)
	s := cgroupScene(h)(t, p)
	l := mustAttach(t, p, s.attachment, s.target)
	want := mustInfo(t, l)
	again, err := OpenID(want.LinkID)
	if err != nil {
		t.Fatal(err)
	}
	if got := mustInfo(t, again); got != want {
		t.Errorf("info %+v, want %+v", got, want)
	}
	again.Close()
	l.Close()
	if l, err := OpenID(want.LinkID); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("link that is gone: %v, %v", l, err)
	}
}
