// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// namespaces returns the network namespaces that any thread is in, any descriptor is open
// of, or anything is mounted of, as "net:[inode]", with one place where each was seen.
// One that only a link holds is nowhere: that shows by its veth pair (host.vanished).
func namespaces() (map[string]string, error) {
	seen := map[string]string{}
	for _, pattern := range []string{"/proc/[0-9]*/task/[0-9]*/ns/net", "/proc/[0-9]*/fd/*"} {
		paths, err := filepath.Glob(pattern)
		if err != nil {
			return nil, err
		}
		for _, path := range paths {
			// What is not there any more holds nothing.
			if name, err := os.Readlink(path); err == nil && strings.HasPrefix(name, "net:[") {
				seen[name] = path
			}
		}
	}
	files, err := filepath.Glob("/proc/[0-9]*/task/[0-9]*/mountinfo")
	if err != nil {
		return nil, err
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		for line := range strings.Lines(string(data)) {
			if fields := strings.Fields(line); len(fields) > 4 && strings.HasPrefix(fields[3], "net:[") {
				seen[fields[3]] = fields[4] + " in " + file
			}
		}
	}
	return seen, nil
}

// awaitNamespaces waits until there is no network namespace that was not there before.
func awaitNamespaces(before map[string]string, patience time.Duration) error {
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		now, err := namespaces()
		if err != nil {
			return err
		}
		maps.DeleteFunc(now, func(name, _ string) bool { return before[name] != "" })
		if len(now) == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("network namespaces that were not there before: %v", now)
		}
	}
}

// What holds a network namespace is seen, whatever it is: else TestFaults would prove
// nothing.
func TestSeesHeldNamespaces(t *testing.T) {
	before, err := namespaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name string
		hold func() (release func() error, err error)
	}{
		{"thread", func() (func() error, error) { return func() error { return nil }, nil }},
		{"descriptor", func() (func() error, error) {
			f, err := os.Open("/proc/thread-self/ns/net")
			if err != nil {
				return nil, err
			}
			return f.Close, nil
		}},
		{"mount", func() (func() error, error) {
			at := filepath.Join(built.dir, "held")
			if err := os.WriteFile(at, nil, 0o600); err != nil {
				return nil, err
			}
			err := unix.Mount("/proc/thread-self/ns/net", at, "", unix.MS_BIND, "")
			return func() error { return unix.Unmount(at, unix.MNT_DETACH) }, err
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			done := make(chan struct{})
			type held struct {
				release func() error
				err     error
			}
			made := make(chan held)
			go func() { // the thread ends with the goroutine
				runtime.LockOSThread()
				if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
					made <- held{nil, err}
					return
				}
				release, err := tc.hold()
				made <- held{release, err}
				if tc.name == "thread" {
					<-done
				}
			}()
			h := <-made
			if h.err != nil {
				t.Fatal(h.err)
			}
			if err := awaitNamespaces(before, 200*time.Millisecond); err == nil {
				t.Error("it is not seen")
			}
			close(done)
			if err := h.release(); err != nil {
				t.Fatal(err)
			}
			if err := awaitNamespaces(before, vanishing); err != nil {
				t.Error(err)
			}
		})
	}
}

// A network namespace that only a pinned netfilter link holds has no thread, descriptor
// or mount: its veth pair shows it.
func TestSeesNamespaceHeldByLink(t *testing.T) {
	failed := make(chan error)
	go func() { // the host's thread ends with the goroutine
		h, err := newHost()
		if err == nil {
			err = errors.Join(h.holdByLink(), h.close())
		}
		failed <- err
	}()
	if err := <-failed; err != nil {
		t.Error(err)
	}
}

func (h *host) holdByLink() error {
	w, err := h.newWorld(&stage{name: "held"})
	if err != nil {
		return err
	}
	if err := w.must(createRuntime(w)); err != nil {
		return errors.Join(err, w.end())
	}
	// A pin that linkpin does not know.
	const held = "/sys/fs/bpf/held"
	links, err := filepath.Glob(stateDir + "/v1/sandboxes/*/netns/namespace/link_*")
	if err != nil || len(links) != 1 {
		return fmt.Errorf("links of the namespace: %v, %w", links, errors.Join(err, w.end()))
	}
	l, err := link.LoadPinnedLink(links[0], nil)
	if err != nil {
		return errors.Join(err, w.end())
	}
	err = errors.Join(l.Pin(held), l.Close()) // moves it
	if err := errors.Join(err, w.end(), w.must(poststop(w)), h.await(point{stage: "held"}, w)); err != nil {
		return err
	}
	_ = w.clean() // it has nothing to find any more
	h.vanishing = 2 * time.Second
	var late []failure
	for deadline := time.Now().Add(vanishing); len(late) == 0 && time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		late = h.vanished()
	}
	h.vanishing = vanishing
	if !slices.ContainsFunc(late, func(f failure) bool { return strings.Contains(f.err.Error(), w.veth) }) {
		err = fmt.Errorf("the namespace that a link holds is not seen: %v", late)
	}
	// Without the pin everything goes.
	err = errors.Join(err, os.Remove(held), h.await(point{stage: "released"}, w))
	for _, f := range h.settled(point{stage: "released"}) {
		err = errors.Join(err, f.err)
	}
	return err
}
