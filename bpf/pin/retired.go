// SPDX-License-Identifier: Apache-2.0

package pin

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Retired is what the name of a retired entry says: it appears with the rename,
// while the record is as it was when the entry was published.
type Retired struct {
	Time   time.Time // in seconds
	Reason string
	Target // of its links
}

// Retire is RetireFrom for an entry of a cgroup; 0 if that is not known.
func (r *Root) Retire(p Place, reason string, cgroup uint64) (Place, error) {
	return r.RetireFrom(p, reason, Target{Cgroup: cgroup})
}

// RetireFrom takes an entry out of its owner by one rename; its links stay pinned and
// attached. The caller must hold the owner's lock. The reason is a word or two. The
// error wraps ErrNotExist if there is no such entry.
func (r *Root) RetireFrom(p Place, reason string, from Target) (Place, error) {
	if err := p.check(); err != nil {
		return Place{}, err
	}
	if p.Kind() == RetiredPlace {
		return Place{}, nameError(p.path)
	}
	name, err := r.moveTo(DirRetired, p, func() string { return retiredName(r.now(), reason, from) })
	if err != nil {
		return Place{}, err
	}
	return RetiredEntry(name), nil
}

func retiredName(t time.Time, reason string, from Target) string {
	return fmt.Sprintf("%d-%s-%08x%s", max(t.Unix(), 0), Escape(reason), rand.Uint32(), from.suffix())
}

// ParseRetired takes the name of a retired entry apart. The error is ErrName.
func ParseRetired(name string) (Retired, error) {
	seconds, rest, ok := strings.Cut(name, "-")
	end := strings.LastIndexByte(rest, '-')
	if !ok || end < 0 {
		return Retired{}, nameError(name)
	}
	sec, err := strconv.ParseUint(seconds, 10, 62)
	if err != nil || strconv.FormatUint(sec, 10) != seconds {
		return Retired{}, nameError(name)
	}
	out := Retired{Time: time.Unix(int64(sec), 0).UTC(), Reason: unescapeOr(rest[:end])}
	if out.Target, err = cutTarget(rest[end:]); err != nil {
		return Retired{}, nameError(name)
	}
	return out, nil
}

// Retired lists the retired entries, oldest first; those whose name says no time
// come before all others.
func (r *Root) Retired() ([]Place, error) {
	names, err := r.list(DirRetired)
	if err != nil {
		return nil, err
	}
	type aged struct {
		time time.Time
		name string
	}
	all := make([]aged, len(names))
	for i, name := range names {
		retired, _ := ParseRetired(name) // the zero time stands for a name that is none of ours
		all[i] = aged{retired.Time, name}
	}
	slices.SortFunc(all, func(a, b aged) int {
		return cmp.Or(a.time.Compare(b.time), strings.Compare(a.name, b.name))
	})
	places := make([]Place, len(all))
	for i, a := range all {
		places[i] = RetiredEntry(a.name)
	}
	return places, nil
}
