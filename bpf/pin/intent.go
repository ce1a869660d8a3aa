// SPDX-License-Identifier: Apache-2.0

package pin

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/linkpin/linkpin/specs/fault"
)

// IntentVersion changes whenever the meaning of an Intent changes.
const IntentVersion = 1

// Intent says what an update is about to do to the entries of one policy in a
// container and its sandbox. It is pinned, frozen, in the staging directory that
// holds everything needed for it. From then on whoever finds it unfinished finishes
// it (bpf/entry), in this order: every link gets its new program; the intent is
// Decided; every entry is Finalised; the staging directory is removed.
type Intent struct {
	Version int    `json:"version"` // IntentVersion; set by Commit
	Policy  string `json:"policy"`
	// Generation is that of the applied set which the new version is from: it is needed
	// once the update is finished.
	Generation string        `json:"generation"`
	Entries    []IntentEntry `json:"entries"`
	Created    time.Time     `json:"created"` // set by Commit
}

// IntentEntry is what is to become of one entry.
type IntentEntry struct {
	Place string `json:"place"` // below v1; see ParsePlace
	// Published and From are Created and Digest of the entry's record, To the new
	// digest: an entry that was made anew since is none of the intent's business.
	Published time.Time `json:"published"`
	From      string    `json:"from"`
	To        string    `json:"to"`

	Swaps []IntentSwap `json:"swaps"`
	// Moves are renames of staged pins into the entry, over what is there.
	Moves []IntentMove `json:"moves"`
	// DropLinks and DropMaps are names of what the new version has not.
	DropLinks []string `json:"dropLinks,omitempty"`
	DropMaps  []string `json:"dropMaps,omitempty"`
}

// IntentSwap is one link that gets another program.
type IntentSwap struct {
	Link   string        `json:"link"` // name of the attachment
	LinkID uint32        `json:"linkId"`
	Old    IntentProgram `json:"old"`
	New    IntentProgram `json:"new"`
}

// IntentProgram is a program that is pinned in the staging directory.
type IntentProgram struct {
	Staged string `json:"staged"` // name of the pin
	ID     uint32 `json:"id"`
	Tag    string `json:"tag"`
}

// IntentMove moves one staged pin into an entry; exactly one of Link, Map and
// Record says as what.
type IntentMove struct {
	Staged string `json:"staged"`
	Link   string `json:"link,omitempty"`
	Map    string `json:"map,omitempty"`
	Record bool   `json:"record,omitempty"`
}

// ErrUnfinished means a staging directory that holds an unfinished intent.
var ErrUnfinished = errors.New("holds an update that is not finished")

// The names of an intent before and after every link has its new program. They sort
// before those of staged pins: when the directory is emptied, the intent goes first,
// and what is left is garbage.
const (
	intentFile  = "intent"
	decidedFile = "intent_decided"
	stagedFile  = "object_"
)

// ParsePlace is the reverse of Place.String. The error is ErrName.
func ParsePlace(path string) (Place, error) {
	p := Place{path}
	return p, p.check()
}

// Owners returns whose locks an intent needs: containers in ascending order, then
// sandboxes. Locks are always taken in this order.
func (in *Intent) Owners() ([]Owner, error) {
	var owners []Owner
	for _, e := range in.Entries {
		p, err := ParsePlace(e.Place)
		if err != nil {
			return nil, err
		}
		if o, ok := p.Owner(); ok {
			owners = append(owners, o)
		}
	}
	return SortOwners(owners), nil
}

// SortOwners puts owners into the order in which they are locked, each once.
func SortOwners(owners []Owner) []Owner {
	slices.SortFunc(owners, func(a, b Owner) int { return strings.Compare(a.path(), b.path()) }) // containers/… < sandboxes/…
	return slices.Compact(owners)
}

// Holds reports whether r holds the lock of an owner.
func (r *Root) Holds(o Owner) bool {
	_, err := r.holding(o)
	return err == nil
}

// PinObject pins what an update needs, under a name of its own, which it returns.
func (s *Staging) PinObject(p Pinner) (string, error) {
	s.mu.Lock()
	file := fmt.Sprintf("%s%d", stagedFile, len(s.files))
	s.mu.Unlock()
	return file, s.pinFile(file, p)
}

// PinRecord freezes the new record of an entry that is updated, sets Updated, and pins
// it as PinObject does.
func (s *Staging) PinRecord(rec Record) (string, error) {
	rec.Version, rec.Updated = RecordVersion, s.root.now().UTC()
	m, err := newMeta(rec)
	if err != nil {
		return "", s.root.pathError("write", stagingPath(s.name), err)
	}
	defer m.Close()
	return s.PinObject(m)
}

// Commit pins an intent, frozen. The staging directory is the Pending's then, and
// Discard does nothing any more.
func (s *Staging) Commit(in Intent) (*Pending, error) {
	in.Version = IntentVersion
	in.Created = s.root.now().UTC()
	text, err := json.Marshal(in)
	if err != nil {
		return nil, err
	}
	m, err := newFrozen(intentName, text)
	if err != nil {
		return nil, s.root.pathError("write", stagingPath(s.name)+"/"+intentFile, err)
	}
	defer m.Close()
	if err := s.pinFile(intentFile, m); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	p := &Pending{Intent: in, root: s.root, name: s.name, fd: s.fd}
	s.fd = -1
	return p, nil
}

// Pending is an unfinished intent whose staging directory is locked. The caller must
// Close it, unless it was removed.
type Pending struct {
	Intent  Intent
	root    *Root
	name    string
	fd      int // -1 when closed
	decided bool
}

// OpenPending locks a staging directory and reads its intent. The errors are ErrBusy,
// if its maker lives or somebody else is at work on it, ErrNotExist and, if there is no
// intent in it, ErrIncomplete.
func (r *Root) OpenPending(name string) (*Pending, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	fd, err := r.tryDir(stagingPath(name))
	if err != nil {
		return nil, r.pathError("lock", stagingPath(name), err)
	}
	p := &Pending{root: r, name: name, fd: fd}
	if p.Intent, p.decided, err = r.ReadIntent(name); err != nil {
		p.Close()
		return nil, err
	}
	return p, nil
}

// ReadIntent reads the intent in a staging directory, without its lock; decided as
// Pending.Decided. The error wraps ErrIncomplete if there is none, ErrNotExist if the
// directory has gone meanwhile, and is a *fault.Error if nobody but the user can help.
func (r *Root) ReadIntent(name string) (in Intent, decided bool, err error) {
	if err := checkName(name); err != nil {
		return in, false, err
	}
	path := stagingPath(name) + "/"
	text, err := readFrozen(r.base + "/" + path + intentFile)
	if errors.Is(err, ErrNoRecord) {
		decided = true
		text, err = readFrozen(r.base + "/" + path + decidedFile)
	}
	if errors.Is(err, ErrNoRecord) {
		return in, decided, r.pathError("read", path+intentFile, ErrIncomplete)
	}
	if err == nil {
		in, err = decodeIntent(text)
	}
	if errors.Is(err, ErrDamaged) || errors.Is(err, ErrUnfrozen) {
		return in, decided, fault.New("the unfinished update in "+r.path+"/"+stagingPath(name), err,
			"finish it with the linkpin that wrote it (`linkpin gc`), or remove it by hand: rm -r "+r.path+"/"+stagingPath(name)).WithExit(fault.ExitInput)
	}
	return in, decided, r.pathError("read", path+intentFile, err)
}

// decodeIntent returns what can be read of an intent also with an error: of one of
// another version that may be which entries it is about. The error wraps ErrDamaged.
func decodeIntent(text []byte) (Intent, error) {
	var v struct {
		Version int `json:"version"`
	}
	var in Intent
	if err := json.Unmarshal(text, &v); err != nil {
		return in, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if v.Version != IntentVersion {
		_ = json.Unmarshal(text, &in)
		return in, damaged("version %d, this linkpin knows %d", v.Version, IntentVersion)
	}
	if err := json.Unmarshal(text, &in); err != nil {
		return in, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return in, nil
}

// Decided reports whether every link had its new program: then there is no way back.
func (p *Pending) Decided() bool { return p.decided }

// Decide notes that every link has its new program, by one rename.
func (p *Pending) Decide() error {
	if p.decided {
		return nil
	}
	if err := unix.Renameat(p.fd, intentFile, p.fd, decidedFile); err != nil {
		return p.root.pathError("decide", stagingPath(p.name), err)
	}
	p.decided = true
	return nil
}

// Path returns the path of a staged pin; see Entry.LinkPath.
func (p *Pending) Path(staged string) string {
	return p.root.base + "/" + stagingPath(p.name) + "/" + staged
}

// Finalise brings the pins of an entry into step with its links: it moves what is
// staged for it and unpins what it has no more. Doing it again does nothing. The
// caller must hold the lock of the entry's owner, and have looked whether the entry is
// still the one that the intent means.
func (p *Pending) Finalise(e *IntentEntry) error {
	place, err := ParsePlace(e.Place)
	if err != nil {
		return err
	}
	owner, ok := place.Owner()
	if !ok {
		return nameError(e.Place)
	}
	lock, err := p.root.holding(owner)
	if err != nil {
		return err
	}
	to := place.below(owner) + "/"
	for _, m := range e.Moves {
		file, err := m.file()
		if err != nil {
			return err
		}
		// What is not staged any more has been moved before.
		if err := unix.Renameat(p.fd, m.Staged, lock.fd, to+file); err != nil && !errors.Is(err, unix.ENOENT) {
			return p.root.pathError("replace", e.Place+"/"+file, err)
		}
	}
	for _, drop := range []struct {
		prefix string
		names  []string
	}{{linkPrefix, e.DropLinks}, {mapPrefix, e.DropMaps}} {
		for _, name := range drop.names {
			file, err := pinName(drop.prefix, name)
			if err != nil {
				return err
			}
			if err := unix.Unlinkat(lock.fd, to+file, 0); err != nil && !errors.Is(err, unix.ENOENT) {
				return p.root.pathError("unpin", e.Place+"/"+file, err)
			}
		}
	}
	return nil
}

// file returns the name that a staged pin gets in the entry.
func (m *IntentMove) file() (string, error) {
	switch {
	case m.Record:
		return recordFile, nil
	case m.Link != "":
		return pinName(linkPrefix, m.Link)
	default:
		return pinName(mapPrefix, m.Map)
	}
}

// Remove removes the staging directory, the intent first.
func (p *Pending) Remove() error {
	if p.fd < 0 {
		return nil
	}
	err := p.root.dismantle(p.name, p.fd)
	p.Close()
	return err
}

// Close gives the lock back and leaves the intent to others.
func (p *Pending) Close() {
	if p.fd >= 0 {
		unix.Close(p.fd)
		p.fd = -1
	}
}

// unfinished reports whether a staging directory holds an intent.
func unfinished(fd int) bool {
	for _, file := range []string{intentFile, decidedFile} {
		var st unix.Stat_t
		if unix.Fstatat(fd, file, &st, unix.AT_SYMLINK_NOFOLLOW) == nil {
			return true
		}
	}
	return false
}
