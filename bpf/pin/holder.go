// SPDX-License-Identifier: Apache-2.0

package pin

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// maxLocks bounds what is read of /proc/locks, in bytes.
const maxLocks = 1 << 20

// holder says who holds the lock of the directory at path, "" if that can't be
// found out. It is for messages only: it looks up a pid that may have ended.
func (r *Root) holder(path string) string {
	var st unix.Stat_t
	if err := unix.Fstatat(r.fd, path, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return ""
	}
	f, err := os.Open(r.proc + "/locks")
	if err != nil {
		return ""
	}
	defer f.Close()
	pid := findFlock(io.LimitReader(f, maxLocks), fmt.Sprintf("%02x:%02x:%d", unix.Major(st.Dev), unix.Minor(st.Dev), st.Ino))
	if pid == "" {
		return ""
	}
	if comm, err := os.ReadFile(r.proc + "/" + pid + "/comm"); err == nil {
		return fmt.Sprintf("pid %s (%s)", pid, strings.TrimSpace(string(comm)))
	}
	return "pid " + pid
}

// findFlock returns the pid that holds the flock on file ("major:minor:inode", the
// numbers of the device in hexadecimal), as proc_locks(5) lists it. Somebody
// outside our pid namespace has none.
func findFlock(locks io.Reader, file string) string {
	for s := bufio.NewScanner(locks); s.Scan(); {
		// 1: FLOCK  ADVISORY  WRITE 4711 00:2e:82877 0 EOF
		f := strings.Fields(s.Text())
		if len(f) >= 6 && f[1] == "FLOCK" && f[5] == file && strings.Trim(f[4], "0123456789") == "" && f[4] != "0" {
			return f[4]
		}
	}
	return ""
}
