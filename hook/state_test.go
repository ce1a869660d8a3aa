// SPDX-License-Identifier: Apache-2.0

package hook

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/linkpin/linkpin/bpf/entry"
	"github.com/linkpin/linkpin/specs"
	"github.com/linkpin/linkpin/specs/change"
	"github.com/linkpin/linkpin/specs/fault"

	oci "github.com/opencontainers/runtime-spec/specs-go"
)

func TestReadStateRefuses(t *testing.T) {
	for name, tc := range map[string]struct{ state, want string }{
		"empty":      {"", "is empty"},
		"blank":      {" \n", "is empty"},
		"truncated":  {`{"ociVersion":"1.0.2","id":"a","pid":`, "is not valid JSON"},
		"too large":  {`{"id":"a","x":"` + strings.Repeat("y", 10<<20) + `"}`, "is larger than"},
		"array":      {`[]`, "is not valid JSON"},
		"null":       {`null`, "has a bad id"},
		"pid text":   {`{"id":"a","pid":"1"}`, "is not valid JSON"},
		"no id":      {`{"pid":3}`, "has a bad id: it is empty"},
		"NUL":        {`{"id":"a\u0000b"}`, "control characters"},
		"line end":   {`{"id":"a\nb"}`, "control characters"},
		"long id":    {`{"id":"` + strings.Repeat("a", 1025) + `"}`, "it has 1025 bytes"},
		"deep":       {strings.Repeat(`{"id":`, 20000) + strings.Repeat(`}`, 20000), "is not valid JSON"},
		"concatened": {`{"id":"a"}{"id":"b"}`, "is not valid JSON"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := readState(strings.NewReader(tc.state), stateTimeout)
			if !errors.Is(err, ErrState) || !strings.Contains(fmt.Sprint(err), tc.want) {
				t.Fatalf("got %v, want %q", err, tc.want)
			}
			if got := fault.ExitCode(err); got != fault.ExitInput {
				t.Errorf("exit code %d, want %d", got, fault.ExitInput)
			}
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("more than one line: %q", err)
			}
		})
	}
}

func TestReadStateAcceptsWhatRuntimesWrite(t *testing.T) {
	for _, id := range []string{"a", "..", "a/b", "../../etc", "a.b.c", strings.Repeat("x", 300)} {
		st, err := readState(strings.NewReader(fmt.Sprintf(
			`{"ociVersion":"1.0","id":%q,"pid":7,"status":"creating","root":"/r","unknown":{"a":[1]},"bundle":"/b"}`, id)), stateTimeout)
		if err != nil {
			t.Errorf("%q: %v", id, err)
			continue
		}
		if st.ID != id || st.Pid != 7 || st.Bundle != "/b" {
			t.Errorf("%q: got %+v", id, st)
		}
	}
}

// A runtime that never closes the pipe must not hold its container up for ever.
func TestReadStateEnds(t *testing.T) {
	r, w := io.Pipe()
	defer w.Close()
	go func() { _, _ = io.WriteString(w, `{"id":"web","bundle":"/b"}`) }()
	if st, err := readState(r, 50*time.Millisecond); !errors.Is(err, ErrState) || !strings.Contains(err.Error(), "did not end") {
		t.Errorf("got %v, %v", st, err)
	}
}

func TestResolveBundle(t *testing.T) {
	dir := t.TempDir()
	real := filepath.Join(dir, "real")
	if err := os.Mkdir(real, 0o755); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink("real", link); err != nil {
		t.Fatal(err)
	}
	for bundle, want := range map[string]string{ // empty: an error
		real:                       real,
		link:                       real,
		link + "/../real/":         real,
		filepath.Join(dir, "gone"): "",
		"":                         "",
		"relative":                 "",
		"/a\x00b":                  "",
	} {
		got, err := resolveBundle(&oci.State{Bundle: bundle})
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q: got %q, %v; want %q", bundle, got, err, want)
		}
	}
}

// A container's author writes any annotation under plain runc; it must not make
// the container look like a pod's.
func TestIdentifyBelievesOnlyTheCaller(t *testing.T) {
	annotations := map[string]string{
		"io.kubernetes.cri.container-name":    "c-containerd",
		"io.kubernetes.cri.sandbox-name":      "p-containerd",
		"io.kubernetes.cri.sandbox-namespace": "n-containerd",
		"io.kubernetes.cri.image-name":        "i-containerd",
		"io.kubernetes.cri.sandbox-id":        "s-containerd",
		"io.kubernetes.container.name":        "c-crio",
		"io.kubernetes.pod.name":              "p-crio",
		"io.kubernetes.pod.namespace":         "n-crio",
		"io.kubernetes.cri-o.ImageName":       "i-crio",
		"io.kubernetes.cri-o.SandboxID":       "s-crio",
		"io.container.manager":                "cri-o",
		"linkpin.io/policies":                 "web",
	}
	st := &oci.State{ID: "x", Annotations: annotations}
	for caller, suffix := range map[specs.Caller]string{
		specs.CallerContainerd: "-containerd",
		specs.CallerCRIO:       "-crio",
		specs.CallerNone:       "",
		specs.CallerPodman:     "",
		specs.CallerCDI:        "",
	} {
		got, err := identify(caller, st)
		if err != nil {
			t.Error(err)
		}
		want := specs.Identity{Caller: caller, ContainerID: "x"}
		if suffix != "" {
			want.Container, want.Pod, want.Namespace = "c"+suffix, "p"+suffix, "n"+suffix
			want.Image, want.SandboxID = "i"+suffix, "s"+suffix
		}
		if got.Annotations["linkpin.io/policies"] != "web" {
			t.Errorf("%s: the opt-in annotation is lost", caller)
		}
		got.Annotations = nil
		if got.Container != want.Container || got.Pod != want.Pod || got.Namespace != want.Namespace ||
			got.Image != want.Image || got.SandboxID != want.SandboxID || got.Caller != caller || got.ContainerID != "x" {
			t.Errorf("%s: got %+v, want %+v", caller, got, want)
		}
	}
}

// Installers must give the hook more time than it takes in the worst case.
func TestDeadlinesAreBelowTheHookTimeout(t *testing.T) {
	const locks, loading = entry.LoadTimeout, entry.LoadTimeout
	if sum := stateTimeout + locks + loading + entry.AttachTimeout; sum > change.HookTimeoutMin || change.HookTimeoutMin >= change.HookTimeout {
		t.Errorf("reading, locking, loading and attaching may take %s; the least timeout of a hook is %s, the usual one %s",
			sum, change.HookTimeoutMin, change.HookTimeout)
	}
}
