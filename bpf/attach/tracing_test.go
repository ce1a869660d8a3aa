// SPDX-License-Identifier: Apache-2.0

package attach

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"

	"github.com/linkpin/linkpin/bpf/bpftest"
	"github.com/linkpin/linkpin/bpf/hooks"
	"github.com/linkpin/linkpin/specs"
)

// tracer is a program for a tracepoint that does nothing.
func tracer(t *testing.T) *ebpf.Program {
	t.Helper()
	bpftest.NeedKernel(t, 5, 7, "tracing links")
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.Tracing, AttachType: ebpf.AttachTraceRawTp, AttachTo: "sched_process_exec", License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

// A tracing link is live for as long as it exists: nobody severs, detaches or
// updates it.
func TestTracingLink(t *testing.T) {
	p := tracer(t)
	l := mustAttach(t, p, specs.Attachment{Hook: specs.HookTPBTF}, Target{})
	path := filepath.Join(bpftest.TempBPFFS(t), "link")
	if err := l.Pin(path); err != nil {
		t.Fatal(err)
	}
	id := mustInfo(t, l).LinkID
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	pinned, err := OpenPinned(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := pinned.Detach(); err == nil {
		t.Error("detached")
	}
	if err := pinned.Update(p); err == nil {
		t.Error("updated")
	}
	if err := pinned.Replace(tracer(t), p); !errors.Is(err, ErrFixed) {
		t.Errorf("replaced: %v", err)
	}
	progInfo, err := p.Info()
	if err != nil {
		t.Fatal(err)
	}
	info := mustInfo(t, pinned)
	if want := (Info{LinkID: id, ProgramID: info.ProgramID, ProgramTag: progInfo.Tag, Hook: specs.HookTPBTF, State: Live}); info != want {
		t.Errorf("%+v\nwant %+v", info, want)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := pinned.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenID(id); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the link is still there: %v", err)
	}
}

// A program of the wrong kind names the place.
func TestTracingWrongProgram(t *testing.T) {
	wantError(t, tracer(t), specs.Attachment{Hook: specs.HookLSM}, Target{}, nil, "lsm of the kernel: a program of type Tracing")
}

// struct bpf_link_info of links that this machine may not be able to make.
func TestTracingLinkInfo(t *testing.T) {
	for at, h := range map[ebpf.AttachType]specs.Hook{
		ebpf.AttachTraceFEntry: specs.HookFentry, ebpf.AttachTraceFExit: specs.HookFexit, ebpf.AttachLSMMac: specs.HookLSM, ebpf.AttachModifyReturn: "",
	} {
		var b [linkInfoSize]byte
		for off, v := range map[int]byte{0: 2, 4: 7, 8: 9, 16: byte(at), 20: 1, 24: 77} { // BPF_LINK_TYPE_TRACING
			b[off] = v
		}
		if got, want := parseLinkInfo(b), (Info{LinkID: 7, ProgramID: 9, Hook: h, State: Live, BTFID: 77}); got != want {
			t.Errorf("%s: %+v, want %+v", at, got, want)
		}
	}
}

// A kernel that would never call them is told apart from one that does.
func TestLSMRuns(t *testing.T) {
	old := lsmFile
	defer func() { lsmFile = old }()
	lsmFile = filepath.Join(t.TempDir(), "lsm")
	for list, runs := range map[string]bool{
		"capability,landlock,bpf": true, "bpf": true, "lockdown,bpf,apparmor\n": true, "capability,landlock,yama": false, "": false, "ebpf": false,
	} {
		if err := os.WriteFile(lsmFile, []byte(list), 0o600); err != nil {
			t.Fatal(err)
		}
		err := lsmRuns()
		if (err == nil) != runs {
			t.Errorf("%q: %v", list, err)
		}
		if err != nil {
			f := explain(specs.Attachment{Hook: specs.HookLSM}, Target{}, err)
			checkFault(t, f, ErrUnsupported, "lsm of the kernel: LSM programs are not supported by this kernel: bpf is not among the security modules", "; boot with bpf in the list of lsm=")
		}
	}
	// Without securityfs the kernel is asked (6.8); where it does not answer, nobody
	// is told that he is protected.
	lsmFile = filepath.Join(t.TempDir(), "none")
	if _, err := listModules(); errors.Is(err, unix.ENOSYS) {
		if err := lsmRuns(); err == nil || !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "could not be told") {
			t.Errorf("%v", err)
		}
	}
}

// Of lsm_cgroup programs the kernel reports no flags, so that each would look as if
// it excluded others.
func TestLSMIsNeverExclusive(t *testing.T) {
	if p, ok := exclusive(bpftest.Cgroup(t), specs.HookLSMCgroup); ok {
		t.Error(p)
	}
	if since := hooks.Since(specs.HookLSMCgroup); since != (hooks.Version{Major: 6, Minor: 0}) {
		t.Error(since)
	}
}
