// SPDX-License-Identifier: Apache-2.0

package applied

import (
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/linkpin/linkpin/specs"
)

// Environment of a test binary that is run again as a writer.
const (
	envDir  = "LINKPIN_TEST_WRITER_DIR"
	envStep = "LINKPIN_TEST_WRITER_STEP" // kill yourself at this step; 0: write for ever
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(envDir); dir != "" {
		writeUntilKilled(dir, os.Getenv(envStep))
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func writeUntilKilled(dir, step string) {
	last, _ := strconv.Atoi(step)
	o := Options{Dir: dir}
	if last == 0 {
		for i := 1; ; i++ {
			if _, err := Write(o, testSet(i%2+1)); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
		}
	}
	count := 0
	o.step = func(string) {
		if count++; count == last {
			unix.Kill(os.Getpid(), unix.SIGKILL)
		}
	}
	if _, err := Write(o, testSet(2)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// testSet returns a set of i+1 policies, each with an object of its own.
func testSet(i int) NewSet {
	set := NewSet{Objects: map[string][]byte{}}
	for p := range i + 1 {
		object := []byte(strings.Repeat(fmt.Sprintf("object %d of set %d\n", p, i), 200))
		set.Objects[hash(object)] = object
		set.Policies = append(set.Policies, NewPolicy{
			Plan: specs.Plan{
				Version:     specs.PlanVersion,
				Name:        fmt.Sprintf("policy-%d", p),
				Description: fmt.Sprintf("set %d", i),
				Source:      "test.yaml",
				OnError:     specs.Deny,
				Scope:       specs.ScopeContainer,
				Teardown:    specs.Drain,
				Objects:     []specs.PlanObject{{SHA256: hash(object), Origin: "test"}},
				Programs: []specs.PlanProgram{{Key: "prog", Symbol: "prog", Hook: "cgroup/connect4",
					Attachments: []specs.Attachment{{Name: "prog", Hook: "cgroup/connect4"}}}},
			},
			Select: specs.Select{Fields: specs.Fields{All: true}},
		})
	}
	return set
}

// readAll reads a set to its last byte and returns the number i of testSet(i).
func readAll(o Options) (int, error) {
	set, err := Open(o)
	if err != nil {
		return 0, err
	}
	defer set.Close()
	i := len(set.Policies()) - 1
	for p, summary := range set.Policies() {
		plan, digest, err := set.Plan(summary.Name)
		if err != nil {
			return 0, err
		}
		want := testSet(i).Policies[p].Plan
		if plan.Name != want.Name || plan.Description != want.Description || digest != summary.Digest {
			return 0, fmt.Errorf("set %d has plan %q (%s)", i, plan.Name, plan.Description)
		}
		for _, object := range plan.Objects {
			if _, err := set.Object(object.SHA256); err != nil {
				return 0, err
			}
		}
	}
	return i, nil
}

func mustWrite(t testing.TB, o Options, i int) {
	t.Helper()
	if _, err := Write(o, testSet(i)); err != nil {
		t.Fatal(err)
	}
}

func mustRead(t testing.TB, o Options, want int) {
	t.Helper()
	if got, err := readAll(o); err != nil || got != want {
		t.Fatalf("read set %d, error %v; want set %d", got, err, want)
	}
}

// testOptions leaves out fsync: no test here loses power.
func testOptions(t testing.TB) Options {
	t.Helper()
	return Options{Dir: tempDir(t), sync: func(*os.File) error { return nil }}
}

// tempDir returns a path that does not exist yet.
func tempDir(t testing.TB) string {
	t.Helper()
	return filepath.Join(t.TempDir(), "linkpin-"+rand.Text()[:4])
}

// sets returns what lies in sets/.
func sets(t testing.TB, o Options) []string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(o.Dir, setsName))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}
