// SPDX-License-Identifier: Apache-2.0

package watch

import (
	"bufio"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// maxLocks bounds what is read of /proc/locks, in bytes.
const maxLocks = 16 << 20

// worked reports whether somebody works on the owner of an entry: holds its lock,
// which is a flock on its directory. It is read from procfs, since taking the lock
// would be in the way of others. Locks of other process namespaces do not show.
func (v *view) worked(k *known) bool {
	proc := v.Pins.Proc
	if proc == "" {
		proc = "/proc"
	}
	f, err := os.Open(filepath.Join(proc, "locks"))
	if err != nil {
		v.warn(err)
		return false
	}
	locked := flocks(io.LimitReader(f, maxLocks), v.tree.id.dev)
	v.warn(f.Close())
	// kind/key: what stands below it belongs to the same owner.
	parts := strings.SplitN(k.item.Place.String(), "/", 3)
	if len(parts) < 3 {
		return false
	}
	var st unix.Stat_t
	if err := unix.Lstat(filepath.Join(v.session.Root.Path(), parts[0], parts[1]), &st); err != nil {
		return false
	}
	return locked[st.Ino]
}

// flocks reads /proc/locks: "1: FLOCK  ADVISORY  WRITE 4711 00:1c:1234 0 EOF", device
// numbers in hex, and returns the inodes on one device that are locked.
func flocks(r io.Reader, dev uint64) map[uint64]bool {
	locked := map[uint64]bool{}
	s := bufio.NewScanner(r)
	for s.Scan() {
		fields := strings.Fields(s.Text())
		if len(fields) < 6 || fields[1] != "FLOCK" {
			continue // also "1: -> FLOCK", which waits
		}
		parts := strings.Split(fields[5], ":")
		if len(parts) != 3 {
			continue
		}
		major, err1 := strconv.ParseUint(parts[0], 16, 32)
		minor, err2 := strconv.ParseUint(parts[1], 16, 32)
		inode, err3 := strconv.ParseUint(parts[2], 10, 64)
		if errors.Join(err1, err2, err3) == nil && unix.Mkdev(uint32(major), uint32(minor)) == dev {
			locked[inode] = true
		}
	}
	return locked
}

// gone drops the error of what is not there any more.
func gone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
