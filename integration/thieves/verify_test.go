// SPDX-License-Identifier: Apache-2.0

package thieves

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// report is what `linkpin verify` says.
type report struct {
	codes    []int    // of verify, and of verify with the container named
	drift    []string // findings that are drift, or could not be told
	warnings []string
}

// alarm reports whether r is worse than what is said of an untouched container.
func (r report) alarm(base report) bool {
	return !slices.Equal(r.codes, base.codes) || !slices.Equal(r.drift, base.drift)
}

func (r report) String() string {
	return fmt.Sprintf("exit codes %v; drift: %q; warnings: %q", r.codes, r.drift, r.warnings)
}

// verify runs `linkpin verify` as its timer does, and once more with the container named.
func (s *scene) verify() report {
	s.Helper()
	r := s.verifyWith("--known", "/run/known")
	_, named := s.run("linkpin", "verify", id)
	r.codes = append(r.codes, named)
	return r
}

func (s *scene) verifyWith(args ...string) report {
	s.Helper()
	cmd := exec.Command(filepath.Join(built.bin, "linkpin"), append([]string{"verify", "-o", "json"}, args...)...)
	var errs strings.Builder
	cmd.Dir, cmd.Stderr = "/", &errs
	out, err := cmd.Output()
	if _, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok {
		s.Fatal(err)
	}
	r := report{codes: []int{cmd.ProcessState.ExitCode()}}
	var parsed struct {
		Findings []struct{ Policy, Program, Problem, Level, Detail, Repaired, Error string }
	}
	if err := json.Unmarshal(out, &parsed); err != nil {
		r.drift = append(r.drift, strings.TrimSpace(errs.String())) // an error instead of a report
		return r
	}
	for _, f := range parsed.Findings {
		text := fmt.Sprintf("%s/%s: %s (%s) %s", f.Policy, f.Program, f.Problem, f.Detail, f.Error)
		switch {
		case f.Repaired != "" && f.Error == "":
		case f.Level == "drift" || f.Level == "unknown":
			r.drift = append(r.drift, text)
		case f.Level == "warning":
			r.warnings = append(r.warnings, text)
		}
	}
	slices.Sort(r.drift)
	return r
}

// watchFile is what `linkpin watch` prints into.
func (s *scene) watchFile() string { return filepath.Join(s.dir, "watch") }

// watch starts `linkpin watch`, unless it runs, and returns how far it has come.
func (s *scene) watch() int {
	s.Helper()
	if s.watching == nil {
		f, err := os.Create(s.watchFile())
		s.check(err)
		defer f.Close()
		s.watching = exec.Command(filepath.Join(built.bin, "linkpin"), "watch", "--initial", "-o", "json")
		s.watching.Dir, s.watching.Stdout, s.watching.Stderr = "/", f, f
		s.check(s.watching.Start())
		if !s.told(0, "attached") {
			data, _ := os.ReadFile(s.watchFile())
			s.Fatalf("linkpin watch does not begin: %s", data)
		}
	}
	data, err := os.ReadFile(s.watchFile())
	s.check(err)
	return len(data)
}

// told waits until `linkpin watch` prints an event of one of these kinds. The bound
// is generous: on an idle machine it takes less than a second.
func (s *scene) told(since int, kinds ...string) bool {
	s.Helper()
	deadline := time.Now().Add(15 * time.Second)
	for time.Now().Before(deadline) {
		data, err := os.ReadFile(s.watchFile())
		s.check(err)
		for line := range bytes.Lines(data[min(since, len(data)):]) {
			var event struct{ Event string }
			if err := json.Unmarshal(line, &event); err == nil && slices.Contains(kinds, event.Event) {
				return true
			}
		}
		time.Sleep(20 * time.Millisecond)
	}
	return false
}
