// SPDX-License-Identifier: Apache-2.0

package pin

import (
	"errors"
	"io/fs"
)

// What is wrong with the bpffs or the tree in it; each comes inside a *fault.Error.
var (
	// ErrNoBPFFS means that there is no bpffs at the path.
	ErrNoBPFFS = errors.New("is not a bpf filesystem")
	// ErrNoState means that linkpin has not stored anything in this bpffs yet.
	ErrNoState = errors.New("holds no linkpin state yet")
	// ErrForeign means that a directory of the tree can't be trusted: its owner,
	// mode, type or filesystem is wrong.
	ErrForeign = errors.New("was not made by linkpin")
	// ErrReadOnly means that the bpffs is mounted read-only.
	ErrReadOnly = errors.New("is mounted read-only")
	// ErrStacked means that several bpffs are mounted at the path, one over the other.
	ErrStacked = errors.New("several bpffs are mounted over each other")
)

// What is wrong with an entry, a lock or a name.
var (
	// ErrExist means that the entry is there already.
	ErrExist = fs.ErrExist
	// ErrNotExist means that the entry, owner or staging directory is not there.
	ErrNotExist = fs.ErrNotExist
	// ErrBusy means that somebody else holds the lock.
	ErrBusy = errors.New("is locked by another process")
	// ErrDeadline means that somebody else held the lock until the deadline.
	ErrDeadline = errors.New("stayed locked by another process")
	// ErrNotLocked means that the caller changes an owner whose lock it does not
	// hold: a mistake in linkpin.
	ErrNotLocked = errors.New("is changed without its lock")
	// ErrName means something that can't be a name in linkpin's part of bpffs.
	ErrName = errors.New("is not a name that linkpin stores")
	// ErrShortened means a name that was too long to be stored whole; the record
	// has it.
	ErrShortened = errors.New("was shortened to fit a file name")
	// ErrIncomplete means a staged entry whose record is missing, or one of whose
	// pins has gone.
	ErrIncomplete = errors.New("is not complete")
	// ErrNoRecord means an entry without a record.
	ErrNoRecord = errors.New("has no record")
	// ErrUnfrozen means a record that can still be changed by whoever opens its map.
	ErrUnfrozen = errors.New("is not frozen")
	// ErrDamaged means a record or an index that linkpin did not write like this.
	ErrDamaged = errors.New("is damaged")
	// ErrTooLarge means a record above MaxRecord.
	ErrTooLarge = errors.New("is too large")
)
