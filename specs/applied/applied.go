// SPDX-License-Identifier: Apache-2.0

package applied

import (
	"errors"
	"os"
	"time"

	"github.com/linkpin/linkpin/specs"
	"github.com/linkpin/linkpin/specs/fault"
)

// DefaultDir is where the applied set lies.
const DefaultDir = "/var/lib/linkpin"

// Bounds of what is read and written.
const (
	maxSetBytes    = 16 << 20
	maxPlanBytes   = 64 << 20
	maxObjectBytes = 16 << 20
	maxPolicies    = 4096
)

// Options say where the applied set lies. The zero value means the real place.
type Options struct {
	Dir  string        // absolute; default DefaultDir
	Wait time.Duration // Write only: how long to wait for another apply; default 30 s

	// Keep reports, to Write, whether an older set is still needed, by its generation:
	// for what runs of it. The one before is always kept; nil: only that.
	Keep func(generation string) bool

	step func(name string)      // tests: called before each step
	sync func(f *os.File) error // tests: in place of fsync(2)
}

func (o Options) withDefaults() Options {
	if o.Dir == "" {
		o.Dir = DefaultDir
	}
	if o.Wait == 0 {
		o.Wait = 30 * time.Second
	}
	if o.step == nil {
		o.step = func(string) {}
	}
	if o.sync == nil {
		o.sync = (*os.File).Sync
	}
	return o
}

var (
	// ErrMissing means that no set was ever applied.
	ErrMissing = errors.New("no policies have been applied")
	// ErrDamaged means that the applied set is not what Write wrote, or that
	// somebody other than root could have changed it.
	ErrDamaged = errors.New("the applied policies are damaged")
	// ErrUnknown means that there is no such policy, plan or object.
	ErrUnknown = errors.New("not in the applied set")
	// ErrBusy means that another apply did not finish in time.
	ErrBusy = errors.New("another `linkpin policy apply` is running")
)

// Summary is what is known of a policy without reading its plan.
type Summary struct {
	specs.Candidate                    // Name and Select
	Digest          string             // SHA-256 of the plan's JSON, lower-case hex
	OnError         specs.OnError      // what happens to a container that can't get the policy
	Targets         []specs.TargetKind // what the plan attaches to, each kind once
	TC              specs.TCFallback   // what may stand in for TCX links; "": nothing
	Source          string             // policy file, for messages only
}

// Candidates returns the policies as specs.Choose takes them, in the same order.
func Candidates(policies []Summary) []specs.Candidate {
	candidates := make([]specs.Candidate, len(policies))
	for i, p := range policies {
		candidates[i] = p.Candidate
	}
	return candidates
}

// NewSet is what Write puts into effect.
type NewSet struct {
	Policies []NewPolicy       // in any order; no name stands twice; may be empty
	Objects  map[string][]byte // by SHA-256, lower-case hex: at least those that the plans name
}

// NewPolicy is one policy of a NewSet.
type NewPolicy struct {
	Plan   specs.Plan
	Select specs.Select
}

// remedy is what helps against a set that is missing or damaged: apply replaces
// everything but the directory itself.
const remedy = "run `linkpin policy apply`"

func problem(path string, cause error) error {
	return fault.New(path, cause, remedy).WithExit(fault.ExitConfig)
}
