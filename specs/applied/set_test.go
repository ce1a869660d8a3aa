// SPDX-License-Identifier: Apache-2.0

package applied

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/linkpin/linkpin/specs/fault"
)

// component is one file or directory of an applied set.
type component struct {
	name string
	path string
	dir  bool
}

// testComponents returns every kind of file and directory of the current set.
func testComponents(t *testing.T, o Options) []component {
	t.Helper()
	set, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	defer set.Close()
	dir := filepath.Join(o.Dir, setsName, set.Generation())
	return []component{
		{"directory", o.Dir, true},
		{"sets", filepath.Join(o.Dir, setsName), true},
		{"set", dir, true},
		{"set.json", filepath.Join(dir, setFile), false},
		{"plans", filepath.Join(dir, plansName), true},
		{"plan", filepath.Join(dir, plansName, set.Policies()[0].Digest+".json"), false},
		{"objects", filepath.Join(dir, objectsName), true},
		{"object", filepath.Join(dir, objectsName, set.objects[0]), false},
	}
}

// damages are what may happen to a file or directory.
var damages = []struct {
	name     string
	dirs     bool // happens to directories too
	cause    string
	inflict  func(path string) error
	ofParent bool // for the directory itself: ErrMissing
}{
	{name: "missing", dirs: true, cause: "no such file", inflict: os.RemoveAll, ofParent: true},
	{name: "of another owner", dirs: true, cause: "owned by uid 1, not by root", inflict: func(p string) error { return os.Chown(p, 1, 0) }},
	{name: "group-writable", dirs: true, cause: "writable by others (mode 0770)", inflict: func(p string) error { return os.Chmod(p, 0o770) }},
	{name: "world-writable", dirs: true, cause: "writable by others (mode 0702)", inflict: func(p string) error { return os.Chmod(p, 0o702) }},
	{name: "symbolic link", dirs: true, cause: "is a symbolic link", inflict: func(p string) error {
		if err := os.Rename(p, p+".elsewhere"); err != nil {
			return err
		}
		return os.Symlink(p+".elsewhere", p)
	}},
	{name: "file", dirs: true, inflict: func(p string) error {
		if err := os.RemoveAll(p); err != nil {
			return err
		}
		return os.WriteFile(p, []byte("x"), 0o600)
	}},
	{name: "directory", inflict: func(p string) error {
		if err := os.Remove(p); err != nil {
			return err
		}
		return os.Mkdir(p, 0o700)
	}},
	{name: "fifo", inflict: func(p string) error {
		if err := os.Remove(p); err != nil {
			return err
		}
		return unix.Mkfifo(p, 0o600)
	}},
	{name: "empty", inflict: func(p string) error { return os.Truncate(p, 0) }},
	{name: "longer", inflict: func(p string) error {
		f, err := os.OpenFile(p, os.O_WRONLY|os.O_APPEND, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = f.WriteString("\n")
		return err
	}},
}

func TestDamaged(t *testing.T) {
	for _, damage := range damages {
		for i := range 8 {
			o := testOptions(t)
			mustWrite(t, o, 1)
			c := testComponents(t, o)[i]
			if c.dir && !damage.dirs {
				continue
			}
			t.Run(c.name+" "+damage.name, func(t *testing.T) {
				if err := damage.inflict(c.path); err != nil {
					t.Fatal(err)
				}
				_, err := readAll(o)
				if damage.ofParent && i == 0 {
					if !errors.Is(err, ErrMissing) {
						t.Errorf("error %v", err)
					}
				} else {
					checkDamaged(t, err)
					if err != nil && !strings.Contains(err.Error(), damage.cause) && !strings.Contains(err.Error(), "is gone") {
						t.Errorf("error %q does not say %q", err, damage.cause)
					}
				}
				if i == 0 {
					if _, err := Write(o, testSet(2)); err == nil && !damage.ofParent {
						t.Error("a directory that is not root's alone was written to")
					}
					return
				}
				// The remedy that the error names helps, with the same set too.
				if changed, err := Write(o, testSet(1)); err != nil || !changed {
					t.Fatalf("apply: %v, %v", changed, err)
				}
				mustRead(t, o, 1)
			})
		}
	}
}

func checkDamaged(t *testing.T, err error) {
	t.Helper()
	if !errors.Is(err, ErrDamaged) {
		t.Errorf("error %v", err)
		return
	}
	if fault.ExitCode(err) != fault.ExitConfig {
		t.Errorf("exit code %d of %v", fault.ExitCode(err), err)
	}
	if !strings.Contains(err.Error(), "run `linkpin policy apply`") || strings.Contains(err.Error(), "\n") {
		t.Errorf("no remedy, or not one line: %v", err)
	}
}

// Every byte counts.
func TestDamagedByte(t *testing.T) {
	o := testOptions(t)
	mustWrite(t, o, 0)
	for _, c := range testComponents(t, o) {
		if c.dir {
			continue
		}
		data, err := os.ReadFile(c.path)
		if err != nil {
			t.Fatal(err)
		}
		stride := len(data)/97 + 1
		for at := 0; at < len(data); at += stride {
			for _, bit := range []byte{1, 0x80} {
				data[at] ^= bit
				if err := os.WriteFile(c.path, data, 0o600); err != nil {
					t.Fatal(err)
				}
				_, err := readAll(o)
				if checkDamaged(t, err); t.Failed() {
					t.Fatalf("%s: byte %d of %d", c.name, at, len(data))
				}
				data[at] ^= bit
			}
		}
		if err := os.WriteFile(c.path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		mustRead(t, o, 0)
	}
}

func TestCurrent(t *testing.T) {
	link := func(target string) func(string) error {
		return func(p string) error { return os.Symlink(target, p) }
	}
	zeros := strings.Repeat("0", 64)
	for name, make := range map[string]func(path string) error{
		"a file":              func(p string) error { return os.WriteFile(p, nil, 0o600) },
		"a directory":         func(p string) error { return os.MkdirAll(p+"/x", 0o700) },
		"absolute":            link("/etc"),
		"outside":             link("../sets/1-" + zeros),
		"outside sets":        link("sets/../../1-" + zeros),
		"no hash":             link("sets/1-"),
		"upper case":          link("sets/1-" + strings.Repeat("A", 64)),
		"leading zero":        link("sets/01-" + zeros),
		"sign":                link("sets/+1-" + zeros),
		"too big":             link("sets/99999999999999999999-" + zeros),
		"control characters":  link("sets/\x1b[31m\n"),
		"nothing there":       link("sets/1-" + zeros),
		"another user's link": func(p string) error { return errors.Join(os.Symlink("sets/1-"+zeros, p), os.Lchown(p, 1, 1)) },
	} {
		t.Run(name, func(t *testing.T) {
			o := testOptions(t)
			mustWrite(t, o, 1)
			path := filepath.Join(o.Dir, currentName)
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			if err := make(path); err != nil {
				t.Fatal(err)
			}
			_, err := Open(o)
			checkDamaged(t, err)
			mustWrite(t, o, 1)
			mustRead(t, o, 1)
		})
	}
	t.Run("missing", func(t *testing.T) {
		o := testOptions(t)
		mustWrite(t, o, 1)
		if err := os.Remove(filepath.Join(o.Dir, currentName)); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(o); !errors.Is(err, ErrMissing) || fault.ExitCode(err) != fault.ExitConfig {
			t.Errorf("error %v", err)
		}
	})
}

// A set whose hash is right may still come from another version of linkpin.
func TestForeignDocument(t *testing.T) {
	policy := func(fields string) string {
		return fmt.Sprintf(`{"version":1,"planVersion":2,"policies":[{"name":"a","digest":%q,"onError":"deny"%s}]}`, strings.Repeat("0", 64), fields)
	}
	for text, want := range map[string]string{
		`{"version":2,"planVersion":2}`:                                     "another version",
		`{"version":1,"planVersion":3}`:                                     "another version",
		`{"version":1,"planVersion":2,"rules":[]}`:                          "unknown field",
		`{"version":1,"planVersion":2,"policies":[{"name":"../a"}]}`:        "name",
		`{"version":1,"planVersion":2,"policies":[{"name":"a"}]}`:           "digest",
		`{"version":1,"planVersion":2,"objects":["x"]}`:                     "objects",
		strings.Replace(policy(""), "deny", "ignore", 1):                    "onError",
		policy(`,"select":{"all":true,"images":["x"]}`):                     "unknown field",
		strings.Replace(policy(""), `"policies":[`, `"policies":[null,`, 1): "name",
	} {
		if _, _, err := parseDocument([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
	if _, _, err := parseDocument([]byte(policy(""))); err != nil {
		t.Error(err)
	}
}

// The summary that decides and the plan that is carried out must agree.
func TestPlanDisagrees(t *testing.T) {
	o := testOptions(t)
	c, err := compose(testSet(0))
	if err != nil {
		t.Fatal(err)
	}
	for _, change := range []string{`"deny"`, `"allow"`, `"policy-0"`, `"policy-1"`} {
		c.files[setFile] = []byte(strings.Replace(string(c.files[setFile]), change, map[string]string{
			`"deny"`: `"allow"`, `"allow"`: `"deny"`, `"policy-0"`: `"policy-1"`, `"policy-1"`: `"policy-0"`}[change], 1))
		c.hash = hash(c.files[setFile])
		w, err := openWriter(o.withDefaults())
		if err != nil {
			t.Fatal(err)
		}
		_, err = w.replace(c)
		w.close()
		if err != nil {
			t.Fatal(err)
		}
		_, err = readAll(o)
		if change == `"deny"` || change == `"policy-0"` {
			checkDamaged(t, err)
		} else if err != nil {
			t.Error(err)
		}
	}
}

// Somebody who holds a lock on the set stops no reader.
func TestForeignLock(t *testing.T) {
	o := testOptions(t)
	mustWrite(t, o, 1)
	f, err := os.Open(filepath.Join(o.Dir, currentName))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	mustRead(t, o, 1)
}
