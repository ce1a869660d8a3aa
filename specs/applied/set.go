// SPDX-License-Identifier: Apache-2.0

package applied

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/linkpin/linkpin/specs"
	"github.com/linkpin/linkpin/specs/applied/trusted"
	"github.com/linkpin/linkpin/specs/fault"
)

// Names inside the directory.
const (
	currentName = "current"
	setsName    = "sets"
	setFile     = "set.json"
	plansName   = "plans"
	objectsName = "objects"
)

// Set is an applied set, held open: later applies neither change nor remove it
// until Close.
type Set struct {
	name     string   // of the directory
	sets     *os.File // the directory above it
	dir      *os.File // the set's own directory, with a shared flock
	policies []Summary
	objects  []string // SHA-256, ascending
}

// Open opens the current set. Errors are *fault.Error with ExitConfig that wrap
// ErrMissing or ErrDamaged. The caller must Close the set.
func Open(o Options) (*Set, error) {
	o = o.withDefaults()
	root, err := trusted.OpenDir(o.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, problem(o.Dir, ErrMissing)
	}
	if err != nil {
		return nil, directoryProblem(o.Dir, err)
	}
	defer root.Close()
	before := ""
	for { // ends: names of sets never come back, and each turn needs another apply
		name, err := current(root)
		if err != nil {
			return nil, err
		}
		set, err := openSet(o, root, name)
		if err == nil {
			return set, nil
		}
		// The set was replaced and removed between reading the link and opening
		// what it names; that the link still says the same shows that it was not.
		if !errors.Is(err, errReplaced) || name == before {
			return nil, damaged(filepath.Join(o.Dir, setsName, name), err)
		}
		before = name
	}
}

// errReplaced means that the directory of a set went away while it was opened.
var errReplaced = errors.New("the directory is gone")

// current returns the name of the current set.
func current(root *os.File) (string, error) {
	path := filepath.Join(root.Name(), currentName)
	text, err := trusted.ReadlinkAt(root, currentName)
	if errors.Is(err, fs.ErrNotExist) {
		return "", problem(path, ErrMissing)
	}
	if errors.Is(err, unix.EINVAL) {
		return "", damaged(path, errors.New("is not a symbolic link"))
	}
	if err != nil {
		return "", damaged(path, err)
	}
	name, found := strings.CutPrefix(text, setsName+"/")
	if _, _, ok := parseSetName(name); !found || !ok {
		return "", damaged(path, fmt.Errorf("does not name a set: %q", text))
	}
	return name, nil
}

// openSet opens one set and reads its summary.
func openSet(o Options, root *os.File, name string) (*Set, error) {
	sets, err := trusted.OpenDirAt(root, setsName)
	if err != nil {
		return nil, err
	}
	dir, err := trusted.OpenDirAt(sets, name)
	if err != nil {
		sets.Close()
		if errors.Is(err, fs.ErrNotExist) {
			return nil, errReplaced
		}
		return nil, err
	}
	set := &Set{name: name, sets: sets, dir: dir}
	o.step("lock the set")
	if err := set.read(); err != nil {
		set.Close()
		return nil, err
	}
	return set, nil
}

// read locks the set and reads its summary.
func (s *Set) read() error {
	// Only a writer that is about to remove the set holds it exclusively, and it
	// has moved `current` before. Anybody else who does stops nobody: without the
	// lock, a removal under our eyes shows as damage.
	if err := flock(s.dir, unix.LOCK_SH|unix.LOCK_NB); err == nil && !linked(s.sets, s.dir, s.name) {
		return errReplaced
	}
	_, want, _ := parseSetName(s.name)
	data, err := readHashed(s.dir, setFile, want, maxSetBytes)
	if err != nil {
		return err
	}
	if s.policies, s.objects, err = parseDocument(data); err != nil {
		return fmt.Errorf("%s: %w", setFile, err)
	}
	return nil
}

// Close releases the set.
func (s *Set) Close() error {
	return errors.Join(s.dir.Close(), s.sets.Close())
}

// Generation names the set. Every apply that changes something gives a new one.
func (s *Set) Generation() string { return s.name }

// Policies returns the policies, by name in ascending order. The slice belongs
// to the set.
func (s *Set) Policies() []Summary { return s.policies }

// Policy returns the summary of one policy.
func (s *Set) Policy(name string) (Summary, bool) {
	for _, p := range s.policies {
		if p.Name == name {
			return p, true
		}
	}
	return Summary{}, false
}

// Plan returns the plan of a policy and its digest. Errors are *fault.Error:
// ErrUnknown if the set has no such policy, ErrDamaged (ExitConfig) if the plan
// is not the one that was applied.
func (s *Set) Plan(name string) (*specs.Plan, string, error) {
	summary, ok := s.Policy(name)
	if !ok {
		return nil, "", fault.New("policy "+name, ErrUnknown, "`linkpin policy list` shows those that are")
	}
	plan, err := readPlan(s.dir, summary.Digest)
	if err != nil {
		return nil, "", damaged(filepath.Join(s.dir.Name(), plansName, summary.Digest+".json"), err)
	}
	if plan.Name != name || plan.OnError != summary.OnError {
		return nil, "", damaged(filepath.Join(s.dir.Name(), setFile), fmt.Errorf("does not agree with the plan of policy %q", name))
	}
	return plan, summary.Digest, nil
}

// PlanByDigest returns a plan of this set or of an earlier one that is still
// there (the one before always is), for entries that were made under that one.
// ErrUnknown if there is none, ErrDamaged (ExitConfig) if it should be in this set.
func (s *Set) PlanByDigest(digest string) (*specs.Plan, error) {
	var plan *specs.Plan
	var err error
	read := func(dir *os.File) error {
		plan, err = readPlan(dir, digest)
		return err
	}
	if slices.ContainsFunc(s.policies, func(p Summary) bool { return p.Digest == digest }) {
		err = s.readHere(read)
	} else {
		err = s.readAnywhere("plan", digest, read)
	}
	return plan, err
}

// Object returns the bytes of an object, by the SHA-256 of its file; otherwise
// as PlanByDigest.
func (s *Set) Object(sha256 string) ([]byte, error) {
	var data []byte
	var err error
	read := func(dir *os.File) error {
		data, err = readIn(dir, objectsName, sha256, sha256, maxObjectBytes)
		return err
	}
	if slices.Contains(s.objects, sha256) {
		err = s.readHere(read)
	} else {
		err = s.readAnywhere("object", sha256, read)
	}
	return data, err
}

// readHere reads what should be in this set.
func (s *Set) readHere(read func(dir *os.File) error) error {
	if err := read(s.dir); err != nil {
		return damaged(s.dir.Name(), err)
	}
	return nil
}

// readAnywhere reads what is not in this set from whatever set has it: what has
// the right hash is right wherever it lies.
func (s *Set) readAnywhere(kind, hash string, read func(dir *os.File) error) error {
	unknown := fault.New(kind+" "+hash, ErrUnknown, "")
	if !validHash(hash) {
		return unknown
	}
	names, err := readNames(s.sets)
	if err != nil {
		return damaged(s.sets.Name(), err)
	}
	for _, name := range names {
		if _, _, ok := parseSetName(name); !ok || name == s.name {
			continue
		}
		if dir, err := trusted.OpenDirAt(s.sets, name); err == nil {
			err = read(dir)
			dir.Close()
			if err == nil {
				return nil
			}
		}
	}
	return unknown
}

func readPlan(dir *os.File, digest string) (*specs.Plan, error) {
	data, err := readIn(dir, plansName, digest+".json", digest, maxPlanBytes)
	if err != nil {
		return nil, err
	}
	plan := new(specs.Plan)
	if err := json.Unmarshal(data, plan); err != nil {
		return nil, err
	}
	if plan.Version != specs.PlanVersion {
		return nil, errors.New("written by another version of linkpin")
	}
	return plan, nil
}

// readIn reads a file of a subdirectory and checks its hash.
func readIn(dir *os.File, sub, name, want string, limit int64) ([]byte, error) {
	d, err := trusted.OpenDirAt(dir, sub)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return readHashed(d, name, want, limit)
}

func readHashed(dir *os.File, name, want string, limit int64) ([]byte, error) {
	data, err := trusted.ReadFileAt(dir, name, limit)
	if err != nil {
		return nil, err
	}
	if got := hash(data); got != want {
		return nil, fmt.Errorf("%s: content has SHA-256 %s", filepath.Join(dir.Name(), name), got)
	}
	return data, nil
}

// linked says whether name in parent is still the directory that is open as dir.
func linked(parent, dir *os.File, name string) bool {
	var a, b unix.Stat_t
	if unix.Fstat(int(dir.Fd()), &a) != nil ||
		unix.Fstatat(int(parent.Fd()), name, &b, unix.AT_SYMLINK_NOFOLLOW) != nil {
		return false
	}
	return a.Dev == b.Dev && a.Ino == b.Ino
}

func flock(f *os.File, how int) error {
	for {
		err := unix.Flock(int(f.Fd()), how)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// readNames lists a directory through a descriptor of its own, since reading
// moves the offset.
func readNames(dir *os.File) ([]string, error) {
	d, err := trusted.OpenDirAt(dir, ".")
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return d.Readdirnames(-1)
}

// damaged makes what the user sees of a damaged set.
func damaged(path string, cause error) error {
	// The path that the cause names is more exact than ours.
	if pathError, ok := errors.AsType[*fs.PathError](cause); ok {
		path, cause = pathError.Path, pathError.Err
	}
	return problem(path, fmt.Errorf("%w: %w", ErrDamaged, cause))
}

// directoryProblem is for the directory itself, which apply does not mend.
func directoryProblem(path string, cause error) error {
	if pathError, ok := errors.AsType[*fs.PathError](cause); ok {
		path, cause = pathError.Path, pathError.Err
	}
	return fault.New(path, fmt.Errorf("%w: %w", ErrDamaged, cause),
		"make it a directory that only root can write, and run `linkpin policy apply`").WithExit(fault.ExitConfig)
}
