// SPDX-License-Identifier: Apache-2.0

package cni

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/linkpin/linkpin/bpf/entry"
)

// DEL, too, detaches the oldest of too many entries that drain, and says so.
func TestRetiredCap(t *testing.T) {
	n := newNode(t)
	n.apply(policy{name: "p", sel: everybody, symbol: "read_ifindex", at: tcxHost})
	var pods []*pod
	for i := range 3 {
		p := newPod(t, fmt.Sprint("pod", i), fmt.Sprint("lpcap", i), "1.1.0")
		n.mustAdd(p)
		pods = append(pods, p)
	}
	del := func(p *pod) {
		t.Helper()
		if err := n.Del(p.cmd(t)); err != nil {
			t.Fatal(err)
		}
	}
	del(pods[0])                                                              // its interface lives on
	time.Sleep(time.Until(time.Now().Truncate(time.Second).Add(time.Second))) // ages count in seconds
	// Empty ones, and locked, so that nobody takes them away.
	for i := range entry.RetiredCap - 2 {
		path := filepath.Join(n.BPFFS.Path, "linkpin/v1/retired", fmt.Sprintf("%d-ended-%08x_1", time.Now().Unix(), i))
		if err := os.Mkdir(path, 0o700); err != nil {
			t.Fatal(err)
		}
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			t.Fatal(err)
		}
	}
	oldest, err := filepath.Glob(filepath.Join(n.BPFFS.Path, "linkpin/v1/retired/*-deleted-*"))
	if err != nil || len(oldest) != 1 {
		t.Fatal(oldest, err)
	}
	del(pods[1])
	if len(n.warnings) > 0 {
		t.Fatalf("with %d: %v", entry.RetiredCap, n.warnings)
	}
	del(pods[2])
	if len(n.warnings) != 1 || !strings.Contains(n.warnings[0].Error(), filepath.Base(oldest[0])+": detached while still draining: more than 1024 entries drain") {
		t.Errorf("with %d: %v", entry.RetiredCap+1, n.warnings)
	}
	if left, err := filepath.Glob(filepath.Join(n.BPFFS.Path, "linkpin/v1/retired/*-deleted-*/link_*")); err != nil || len(left) != 2 {
		t.Errorf("links of %v drain, %v; want those of the two younger ones", left, err)
	}
	if _, err := os.Stat(oldest[0]); !os.IsNotExist(err) {
		t.Errorf("%s: %v", oldest[0], err)
	}
}
