// SPDX-License-Identifier: Apache-2.0

package policy_test

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/linkpin/linkpin/specs/fault"
	"github.com/linkpin/linkpin/specs/policy"
)

var update = flag.Bool("update", false, "write the .want files of specs/testdata/bad from what Parse says now")

// testdata returns the policy files of specs/testdata/<kind>, by name.
func testdata(t testing.TB, kind string) map[string][]byte {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join("..", "testdata", kind, "*.yaml"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no files in testdata/%s: %v", kind, err)
	}
	files := map[string][]byte{}
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		files[filepath.Base(path)] = data
	}
	return files
}

func TestGood(t *testing.T) {
	for name, data := range testdata(t, "good") {
		t.Run(name, func(t *testing.T) {
			policies, err := policy.Parse(name, data)
			if err != nil || len(policies) == 0 {
				t.Errorf("%d policies, %v", len(policies), err)
			}
		})
	}
}

// TestBad compares with the messages in the .want file beside each file, all of
// them, word for word.
func TestBad(t *testing.T) {
	for name, data := range testdata(t, "bad") {
		t.Run(name, func(t *testing.T) {
			policies, err := policy.Parse(name, data)
			if err == nil {
				t.Fatal("accepted")
			}
			if policies != nil {
				t.Error("an error, and yet policies")
			}
			got := err.Error() + "\n"
			wantFile := filepath.Join("..", "testdata", "bad", strings.TrimSuffix(name, ".yaml")+".want")
			if *update {
				if err := os.WriteFile(wantFile, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(wantFile)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("other messages (-want +got):\n%s", diff)
			}
		})
	}
}

// checkErrors demands of every error what DESIGN promises: one line, with the
// file's name in front, that a terminal shows as it is, and the exit code.
func checkErrors(t *testing.T, name string, err error) {
	t.Helper()
	var errs policy.Errors
	if !errors.As(err, &errs) || len(errs) == 0 {
		t.Fatalf("%T is not Errors, or has none", err)
	}
	for _, e := range errs {
		line := e.Error()
		if !strings.HasPrefix(line, name) || line != fault.OneLine(line) {
			t.Errorf("not one printable line that begins with the file's name: %q", line)
		}
	}
	if code := fault.ExitCode(err); code != fault.ExitInput {
		t.Errorf("exit code %d", code)
	}
}

func TestErrorsAreLines(t *testing.T) {
	for name, data := range testdata(t, "bad") {
		_, err := policy.Parse(name, data)
		checkErrors(t, name, err)
	}
}

// A file that was cut off anywhere is an error, or still says all that it said:
// then only blanks, comments or the last line end are missing.
func TestCutOff(t *testing.T) {
	for name, data := range testdata(t, "good") {
		t.Run(name, func(t *testing.T) {
			whole, err := policy.Parse(name, data)
			if err != nil {
				t.Fatal(err)
			}
			accepted := 0
			for end := range len(data) {
				policies, err := policy.Parse(name, data[:end])
				if err != nil {
					continue
				}
				accepted++
				if diff := cmp.Diff(whole, policies); diff != "" {
					t.Fatalf("cut after %d of %d bytes it is another policy (-whole +cut):\n%s", end, len(data), diff)
				}
				if !strings.Contains(string(data[:end]), "\n...") {
					t.Fatalf("cut after %d of %d bytes, before the end marker, it is accepted", end, len(data))
				}
			}
			if limit := len(data) - strings.LastIndex(string(data), "\n..."); accepted > limit {
				t.Errorf("accepted %d times", accepted)
			}
		})
	}
}

func TestCutOffSaysWhatToDo(t *testing.T) {
	data := testdata(t, "good")["example.yaml"]
	lines := strings.SplitAfter(string(data), "\n")
	for n := 1; n < len(lines)-1; n++ {
		_, err := policy.Parse("p.yaml", []byte(strings.Join(lines[:n], "")))
		if n > 1 && (err == nil || !strings.Contains(err.Error(), "add a line with ... at the end: it proves that the file is whole")) {
			t.Errorf("cut after line %d: %v", n, err)
		}
	}
}

func TestTooLarge(t *testing.T) {
	data := testdata(t, "good")["minimal.yaml"]
	fill := func(n int) []byte {
		return append([]byte("#"+strings.Repeat("x", n-len(data)-2)+"\n"), data...)
	}
	if _, err := policy.Parse("p.yaml", fill(policy.MaxSize)); err != nil {
		t.Errorf("1 MiB: %v", err)
	}
	_, err := policy.Parse("p.yaml", fill(policy.MaxSize+1))
	if err == nil || !strings.Contains(err.Error(), "larger than 1048576 bytes") {
		t.Errorf("1 MiB and a byte: %v", err)
	}
}

// What a YAML parser might take long for, or too much of its stack.
func TestHostile(t *testing.T) {
	for name, body := range map[string]string{
		"brackets": strings.Repeat("[", 500_000),
		"braces":   strings.Repeat("{a: ", 200_000),
		"dashes":   strings.Repeat("- ", 400_000),
		"indents":  strings.Repeat("? ", 400_000),
		"keys":     strings.Repeat("a: 1\n", 100_000),
		"aliases":  "a: &a [x,x,x,x]\nb: &b [*a,*a,*a,*a]\nc: [*b,*b,*b,*b]\n",
		"quotes":   strings.Repeat("'", 999_999),
	} {
		t.Run(name, func(t *testing.T) {
			_, err := policy.Parse("p.yaml", []byte(body+"\n...\n"))
			if err == nil {
				t.Fatal("accepted")
			}
			checkErrors(t, "p.yaml", err)
			if name == "keys" && !strings.Contains(err.Error(), "99956 more errors") {
				t.Errorf("the rest is not counted: %v", err)
			}
		})
	}
}
