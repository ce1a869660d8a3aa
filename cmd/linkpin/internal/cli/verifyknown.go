// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/linkpin/linkpin/bpf/entry"
	"github.com/linkpin/linkpin/bpf/pin"
	"github.com/linkpin/linkpin/specs/fault"
)

const (
	// knownKind marks the file: nothing else is ever replaced.
	knownKind = "linkpin-known-entries/v1"
	// maxKnown bounds the file, in bytes.
	maxKnown = 64 << 20
	// vanishGrace is how long to wait before an entry that is gone counts as taken
	// away: CNI DEL comes before the plugin that deletes the interface.
	vanishGrace = time.Second
)

// errKnown means that a file can't be believed.
var errKnown = errors.New("is not a file that `linkpin verify --known` has written")

// knownContent is what stands in the file of --known. It is linkpin's own: another
// version may write it differently.
type knownContent struct {
	Kind    string        `json:"kind"`
	Boot    string        `json:"boot"`  // /proc/sys/kernel/random/boot_id
	State   string        `json:"state"` // the bpffs
	Time    time.Time     `json:"time"`
	Entries []entry.Known `json:"entries"`
}

// knownFile is the file of --known during a run.
type knownFile struct {
	path string
	boot string
	left []entry.Known // gone, and still to be missed at the next run
}

// compareKnown adds what has vanished since the run before. It returns nil if the file
// must not be replaced.
func (v *verification) compareKnown(ctx context.Context, s *entry.Session, path string, now []entry.Item) *knownFile {
	fail := func(err error) *knownFile {
		v.add([]entry.Finding{{Problem: entry.ProblemUnknown, Detail: "what has vanished since the run before can't be told", Err: err}})
		return nil
	}
	boot, err := v.bootID()
	if err != nil {
		return fail(err)
	}
	k := &knownFile{path: path, boot: boot}
	before, err := readKnown(path)
	if errors.Is(err, fs.ErrNotExist) {
		return k
	}
	if err != nil {
		return fail(fault.New(path, err, "remove it if nobody needs it"))
	}
	if before.Boot != boot || before.State != v.roots.bpffs {
		return k
	}
	judge := s
	if judge == nil {
		judge = &entry.Session{Roots: v.roots.targets(), Warn: v.warn}
	}
	left, findings := judge.Vanished(before.Entries, now)
	if len(left) > 0 {
		select {
		case <-ctx.Done():
			return fail(context.Cause(ctx))
		case <-time.After(vanishGrace):
		}
		if now, err = items(s); err != nil {
			return fail(err)
		}
		left, findings = judge.Vanished(left, now)
	}
	k.left = left
	v.add(v.hidden(left, findings))
	return k
}

// hidden tells what only lies below another bpffs from what has vanished: all its links
// are still there. findings are parallel to left.
func (v *verification) hidden(left []entry.Known, findings []entry.Finding) []entry.Finding {
	if len(left) == 0 || !errors.Is(pin.CheckStacked(v.roots.pins()), pin.ErrStacked) {
		return findings
	}
	for i, k := range left {
		if f := &findings[i]; f.Problem == entry.ProblemVanished && k.LinksLive() {
			f.Problem, f.Remedy = entry.ProblemHidden, "umount what was mounted over "+v.roots.bpffs
			f.Detail = k.Path + " was recorded in a bpffs that another one lies over now; all its links live"
		}
	}
	return findings
}

// replaceKnown writes the file for the next run.
func (v *verification) replaceKnown(s *entry.Session, k *knownFile) {
	now, err := items(s)
	if err == nil {
		c := knownContent{Kind: knownKind, Boot: k.boot, State: v.roots.bpffs, Time: v.Now().UTC(), Entries: k.left}
		for _, it := range now {
			if e, ok := entry.Know(it); ok {
				c.Entries = append(c.Entries, e)
			}
		}
		err = writeKnown(k.path, c)
	}
	if err != nil {
		v.add([]entry.Finding{{Problem: entry.ProblemUnknown, Detail: "the next run can't tell what will have vanished", Err: err}})
	}
}

func (v *verification) bootID() (string, error) {
	data, err := os.ReadFile(filepath.Join(v.roots.proc, "sys/kernel/random/boot_id"))
	return strings.TrimSpace(string(data)), err
}

// readKnown reads what an earlier run has written; fs.ErrNotExist if there was none.
// errKnown for what is not a regular file of root that only root may write, or holds
// something else.
func readKnown(path string) (*knownContent, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ELOOP) {
		return nil, fmt.Errorf("%w: it is a symbolic link", errKnown)
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nil, os.NewSyscallError("fstat", err)
	}
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return nil, fmt.Errorf("%w: it is no regular file", errKnown)
	case st.Uid != 0 || st.Mode&0o022 != 0:
		return nil, fmt.Errorf("%w: it belongs to uid %d with mode %04o", errKnown, st.Uid, st.Mode&0o7777)
	case st.Size > maxKnown:
		return nil, fmt.Errorf("%w: it is longer than %d bytes", errKnown, maxKnown)
	}
	var c knownContent
	if err := json.NewDecoder(io.LimitReader(f, maxKnown)).Decode(&c); err != nil {
		return nil, fmt.Errorf("%w: %w", errKnown, err)
	}
	if c.Kind != knownKind {
		return nil, fmt.Errorf("%w: it is of the kind %q", errKnown, c.Kind)
	}
	return &c, nil
}

// writeKnown replaces the file by one rename. It belongs to nobody but root: records
// name images, pods and paths.
func writeKnown(path string, c knownContent) (err error) {
	data, err := json.Marshal(c)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".linkpin-known-*.tmp") // 0600
	if err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, f.Close())
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	if _, err := f.Write(data); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
