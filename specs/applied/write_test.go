// SPDX-License-Identifier: Apache-2.0

package applied

import (
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/linkpin/linkpin/specs"
	"github.com/linkpin/linkpin/specs/fault"
)

func TestWriteAndRead(t *testing.T) {
	o := testOptions(t)
	if _, err := Open(o); !errors.Is(err, ErrMissing) || fault.ExitCode(err) != fault.ExitConfig || !strings.Contains(err.Error(), "linkpin policy apply") {
		t.Fatalf("before the first apply: %v", err)
	}
	changed, err := Write(o, testSet(2))
	if err != nil || !changed {
		t.Fatalf("first write: %v, %v", changed, err)
	}
	set, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	defer set.Close()
	if len(set.Policies()) != 3 {
		t.Fatalf("%d policies", len(set.Policies()))
	}
	p := set.Policies()[1]
	if p.Name != "policy-1" || p.OnError != specs.Deny || !p.Select.All || p.Source != "test.yaml" || !slices.Equal(p.Targets, []specs.TargetKind{specs.TargetCgroup}) {
		t.Errorf("summary %+v", p)
	}
	if got := Candidates(set.Policies()); got[1].Name != "policy-1" || !got[1].Select.All {
		t.Errorf("candidates %+v", got)
	}
	if _, _, err := set.Plan("nobody"); !errors.Is(err, ErrUnknown) {
		t.Errorf("plan of an unknown policy: %v", err)
	}
	for _, path := range []string{"", "sets", "sets/" + set.Generation(), "sets/" + set.Generation() + "/plans"} {
		if info, err := os.Lstat(filepath.Join(o.Dir, path)); err != nil || info.Mode() != fs.ModeDir|0o700 {
			t.Errorf("%q: %v %v", path, info.Mode(), err)
		}
	}
	if info, err := os.Lstat(filepath.Join(o.Dir, "current", "set.json")); err != nil || info.Mode() != 0o600 {
		t.Errorf("set.json: %v %v", info.Mode(), err)
	}
}

func TestWriteUnchanged(t *testing.T) {
	o := testOptions(t)
	mustWrite(t, o, 1)
	before := sets(t, o)
	set := testSet(1)
	slices.Reverse(set.Policies) // the order says nothing
	if changed, err := Write(o, set); err != nil || changed {
		t.Fatalf("the same set again: %v, %v", changed, err)
	}
	if after := sets(t, o); !slices.Equal(before, after) {
		t.Errorf("%v became %v", before, after)
	}
}

func TestWriteEmptySet(t *testing.T) {
	o := testOptions(t)
	if changed, err := Write(o, NewSet{}); err != nil || !changed {
		t.Fatalf("%v, %v", changed, err)
	}
	set, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	defer set.Close()
	if len(set.Policies()) != 0 {
		t.Errorf("policies %v", set.Policies())
	}
}

func TestWriteRefuses(t *testing.T) {
	for name, change := range map[string]func(*NewSet){
		"two of a name":   func(s *NewSet) { s.Policies[1].Plan.Name = s.Policies[0].Plan.Name },
		"path as name":    func(s *NewSet) { s.Policies[0].Plan.Name = "../x" },
		"no onError":      func(s *NewSet) { s.Policies[0].Plan.OnError = "" },
		"other version":   func(s *NewSet) { s.Policies[0].Plan.Version++ },
		"missing object":  func(s *NewSet) { clear(s.Objects) },
		"another object":  func(s *NewSet) { s.Objects[s.Policies[0].Plan.Objects[0].SHA256] = []byte("x") },
		"path as object":  func(s *NewSet) { s.Policies[0].Plan.Objects[0].SHA256 = "../../x" },
		"too big objects": func(s *NewSet) { big := make([]byte, maxObjectBytes+1); addObject(s, big) },
	} {
		t.Run(name, func(t *testing.T) {
			o := testOptions(t)
			mustWrite(t, o, 2)
			set := testSet(1)
			change(&set)
			if _, err := Write(o, set); err == nil {
				t.Error("no error")
			}
			mustRead(t, o, 2)
		})
	}
}

func addObject(s *NewSet, data []byte) {
	s.Objects[hash(data)] = data
	s.Policies[0].Plan.Objects = append(s.Policies[0].Plan.Objects, specs.PlanObject{Name: "big", SHA256: hash(data)})
}

// A failure at any step leaves the old set in effect and nothing behind.
func TestWriteFails(t *testing.T) {
	o := testOptions(t)
	mustWrite(t, o, 1)
	// A file where the link is made: clean can't know it yet, symlink(2) fails.
	bad := o
	bad.step = func(name string) {
		if name == "make the link" {
			if err := os.WriteFile(filepath.Join(o.Dir, newCurrent), nil, 0o600); err != nil {
				t.Error(err)
			}
		}
	}
	if _, err := Write(bad, testSet(2)); !errors.Is(err, fs.ErrExist) || !strings.Contains(err.Error(), "still is") {
		t.Fatalf("error %v", err)
	}
	mustRead(t, o, 1)
	mustWrite(t, o, 2)
	mustRead(t, o, 2)
}

// At whatever step a writer is killed: a reader has the old set or the new one,
// and the next writer cleans up.
func TestKilledAtEveryStep(t *testing.T) {
	for step := 1; ; step++ {
		o := testOptions(t)
		mustWrite(t, o, 3)
		mustWrite(t, o, 1)
		child := writerProcess(t, o, step)
		err := child.Run()
		got, readErr := readAll(o)
		if readErr != nil || got != 1 && got != 2 {
			t.Fatalf("killed at step %d: set %d, error %v", step, got, readErr)
		}
		mustWrite(t, o, 2) // builds under the same name again
		mustRead(t, o, 2)
		mustWrite(t, o, 4)
		mustRead(t, o, 4)
		if names := sets(t, o); len(names) != 2 {
			t.Errorf("killed at step %d, then applied: %v", step, names)
		}
		if entries, _ := os.ReadDir(o.Dir); len(entries) != 2 {
			t.Errorf("killed at step %d, then applied: %v", step, entries)
		}
		if err == nil { // it was not killed: there are no more steps
			if step < 15 || got != 2 {
				t.Errorf("only %d steps, then set %d", step, got)
			}
			return
		}
	}
}

func writerProcess(t *testing.T, o Options, step int) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	child := exec.Command(self)
	child.Env = append(os.Environ(), envDir+"="+o.Dir, envStep+"="+strconv.Itoa(step))
	child.Stderr = os.Stderr
	return child
}

// The same at instants that no step names.
func TestKilledAnywhere(t *testing.T) {
	o := testOptions(t)
	mustWrite(t, o, 1)
	for range 12 {
		child := writerProcess(t, o, 0)
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		stop := time.Now().Add(15*time.Millisecond + rand.N(20*time.Millisecond))
		for time.Now().Before(stop) {
			if got, err := readAll(o); err != nil || got != 1 && got != 2 {
				t.Errorf("while writing: set %d, error %v", got, err)
			}
		}
		if err := child.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		child.Wait()
		if got, err := readAll(o); err != nil || got != 1 && got != 2 {
			t.Fatalf("after the kill: set %d, error %v", got, err)
		}
	}
}

// Power loss can't be had in a test; the order that protects from it can.
func TestSyncOrder(t *testing.T) {
	var done []string
	o := Options{
		Dir:  tempDir(t),
		step: func(name string) { done = append(done, name) },
		sync: func(f *os.File) error { done = append(done, "synced "+filepath.Base(f.Name())); return nil },
	}
	mustWrite(t, o, 1)
	at := func(name string) int {
		t.Helper()
		i := slices.IndexFunc(done, func(s string) bool { return strings.HasPrefix(s, name) })
		if i < 0 {
			t.Fatalf("no %q in %q", name, done)
		}
		return i
	}
	named, exchanged := at("name the set"), at("exchange the link")
	if done[0] != "synced "+filepath.Base(filepath.Dir(o.Dir)) {
		t.Errorf("the name of the directory is not synced: %q", done)
	}
	files := 0
	for _, s := range done[:named] {
		if name, ok := strings.CutPrefix(s, "write "); ok {
			files++
			if i := at("synced " + filepath.Base(name)); i > named {
				t.Errorf("%s is not synced before the set has its name", name)
			}
		}
	}
	if files != 5 {
		t.Errorf("%d files in %q", files, done)
	}
	for _, dir := range []string{"plans", "objects", newPrefix} {
		if i := at("synced " + dir); i > named {
			t.Errorf("%s is not synced before the set has its name", dir)
		}
	}
	if !slices.Contains(done[named:exchanged], "synced sets") {
		t.Errorf("sets/ is not synced before the link names the set: %q", done[named:])
	}
	if done[len(done)-1] != "synced ." && !strings.HasPrefix(done[len(done)-1], "synced linkpin-") {
		t.Errorf("the link is not synced: %q", done[exchanged:])
	}
	// Nothing is removed before the new link is on the disk.
	mustWrite(t, o, 2)
	done = nil
	mustWrite(t, o, 3)
	if i := at("remove an old set"); done[i-1] != "synced ." && !strings.HasPrefix(done[i-1], "synced linkpin-") {
		t.Errorf("an old set goes after %q", done[i-1])
	}
}

func TestConcurrentWritersAndReaders(t *testing.T) {
	o := testOptions(t)
	o.Wait = time.Minute
	mustWrite(t, o, 1)
	var writers, readers sync.WaitGroup
	var done atomic.Bool
	var reads atomic.Int64
	for range 4 {
		readers.Go(func() {
			for !done.Load() {
				if _, err := readAll(o); err != nil {
					t.Errorf("reader: %v", err)
					return
				}
				reads.Add(1)
			}
		})
	}
	for i := range 8 {
		writers.Go(func() {
			for range 3 {
				if _, err := Write(o, testSet(i+1)); err != nil {
					t.Errorf("writer: %v", err)
				}
			}
		})
	}
	writers.Wait()
	done.Store(true)
	readers.Wait()
	if reads.Load() < 10 {
		t.Errorf("only %d reads", reads.Load())
	}
	if names := sets(t, o); len(names) > 6 { // 2, and what the 4 readers kept from removal
		t.Errorf("left: %v", names)
	}
	mustWrite(t, o, 9)
	if names := sets(t, o); len(names) != 2 {
		t.Errorf("left after one more: %v", names)
	}
}

func TestWriterWaits(t *testing.T) {
	o := testOptions(t)
	mustWrite(t, o, 1)
	w, err := openWriter(o.withDefaults())
	if err != nil {
		t.Fatal(err)
	}
	short := o
	short.Wait = 20 * time.Millisecond
	if _, err := Write(short, testSet(2)); !errors.Is(err, ErrBusy) {
		t.Errorf("while another writes: %v", err)
	}
	mustRead(t, o, 1) // readers do not wait
	time.AfterFunc(20*time.Millisecond, w.close)
	mustWrite(t, o, 2)
}

// A set that somebody reads stays whole, however many applies follow.
func TestReaderKeepsItsSet(t *testing.T) {
	o := testOptions(t)
	mustWrite(t, o, 5)
	set, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 4 {
		mustWrite(t, o, i)
	}
	for _, p := range set.Policies() {
		plan, _, err := set.Plan(p.Name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := set.Object(plan.Objects[0].SHA256); err != nil {
			t.Fatal(err)
		}
	}
	if names := sets(t, o); len(names) != 3 {
		t.Errorf("while one is read: %v", names)
	}
	set.Close()
	mustWrite(t, o, 6)
	if names := sets(t, o); len(names) != 2 {
		t.Errorf("after it was closed: %v", names)
	}
}

// A set that is removed between the reader's opening and locking it.
func TestReplacedWhileOpened(t *testing.T) {
	o := testOptions(t)
	mustWrite(t, o, 1)
	reader, opened := o, 0
	reader.step = func(string) {
		if opened++; opened == 1 {
			for i := 2; i < 5; i++ {
				mustWrite(t, o, i)
			}
		}
	}
	mustRead(t, reader, 4)
	if opened != 2 {
		t.Errorf("opened %d times", opened)
	}
}

// What was in effect before can still be had, for entries that were made under it.
func TestPreviousSet(t *testing.T) {
	o := testOptions(t)
	mustWrite(t, o, 1)
	old, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	p, _ := old.Policy("policy-0")
	object := testSet(1).Policies[0].Plan.Objects[0].SHA256
	old.Close()
	mustWrite(t, o, 2)
	set, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	defer set.Close()
	if plan, err := set.PlanByDigest(p.Digest); err != nil || plan.Description != "set 1" {
		t.Errorf("plan of the previous set: %v, %v", plan, err)
	}
	if _, err := set.Object(object); err != nil {
		t.Errorf("object of the previous set: %v", err)
	}
	for _, digest := range []string{"", "../../x", strings.Repeat("0", 64)} {
		if _, err := set.PlanByDigest(digest); !errors.Is(err, ErrUnknown) {
			t.Errorf("plan %q: %v", digest, err)
		}
		if _, err := set.Object(digest); !errors.Is(err, ErrUnknown) {
			t.Errorf("object %q: %v", digest, err)
		}
	}
}
