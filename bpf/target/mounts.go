// SPDX-License-Identifier: Apache-2.0

package target

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// maxMountinfo bounds what is read of mountinfo, in bytes: far beyond the kernel's
// default limit of 100,000 mounts per namespace with usual paths.
const maxMountinfo = 64 << 20

// maxMountLine is longer than any line: two paths of PATH_MAX, each byte escaped.
const maxMountLine = 64 << 10

// mount is one cgroup2 mount of our mount namespace.
type mount struct {
	root  string // cgroup that is its root, as seen from our cgroup namespace: "/", "/a", "/.."
	point string // where it is mounted
}

// cgroup2Mounts calls fn for every cgroup2 mount, in the order of mountinfo, until
// fn returns true. It reads no further than that: on busy hosts mountinfo is long,
// and cgroup2 is near its beginning.
func (r Roots) cgroup2Mounts(fn func(mount) bool) error {
	f, err := os.Open(r.proc("self", "mountinfo"))
	if err != nil {
		return err
	}
	defer f.Close()
	limited := &io.LimitedReader{R: f, N: maxMountinfo}
	s := bufio.NewScanner(limited)
	s.Buffer(make([]byte, 4096), maxMountLine)
	for s.Scan() {
		m, ok := parseMount(s.Bytes())
		if ok && fn(m) {
			return nil
		}
	}
	if err := s.Err(); err != nil {
		return fmt.Errorf("reading %s: %w", f.Name(), err)
	}
	if limited.N <= 0 {
		return fmt.Errorf("%s is longer than %d bytes", f.Name(), maxMountinfo)
	}
	return nil
}

// parseMount reads one line of mountinfo (proc_pid_mountinfo(5)):
// "36 35 98:0 /root /point options [tag:value...] - fstype source options".
func parseMount(line []byte) (m mount, isCgroup2 bool) {
	before, after, ok := bytes.Cut(line, []byte(" - "))
	if !ok || !bytes.HasPrefix(after, []byte("cgroup2 ")) {
		return mount{}, false
	}
	fields := bytes.Fields(before)
	if len(fields) < 6 {
		return mount{}, false
	}
	return mount{root: unescape(string(fields[3])), point: unescape(string(fields[4]))}, true
}

// unescape undoes the octal escapes of mountinfo (mangle in the kernel's fs/seq_file.c).
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) && octal(s[i+1]) && octal(s[i+2]) && octal(s[i+3]) {
			b.WriteByte((s[i+1]-'0')<<6 | (s[i+2]-'0')<<3 | (s[i+3] - '0'))
			i += 3
			continue
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

func octal(c byte) bool { return c >= '0' && c <= '7' }

// errNotBelow means that a cgroup path is not below another one, as far as their
// names tell.
var errNotBelow = errors.New("not below it")

// below returns the way from cgroup base down to cgroup path, "" if they are the
// same. Both are as the kernel prints them for one reader: relative to the reader's
// cgroup namespace, with one leading "/.." for every step above its root (never in
// the middle: kernfs_path_from_node).
//
// A base above the namespace's root is above everything in it, but the names in
// between are not known: that is errNotBelow with above true.
func below(base, path string) (rest string, above bool, err error) {
	bu, b := splitUps(base)
	pu, p := splitUps(path)
	switch {
	case bu > pu && b == "":
		return "", true, errNotBelow
	case bu != pu:
		return "", false, errNotBelow
	case b == "":
		return p, false, nil
	case p == b:
		return "", false, nil
	case strings.HasPrefix(p, b+"/"):
		return p[len(b)+1:], false, nil
	}
	return "", false, errNotBelow
}

// isAncestor reports whether cgroup a is cgroup path or above it.
func isAncestor(a, path string) bool {
	_, above, err := below(a, path)
	return err == nil || above
}

// splitUps counts the leading ".." of a cgroup path and returns the rest without
// slashes at its ends.
func splitUps(path string) (ups int, rest string) {
	rest = strings.Trim(path, "/")
	for rest == ".." || strings.HasPrefix(rest, "../") {
		ups++
		rest = strings.TrimPrefix(strings.TrimPrefix(rest, ".."), "/")
	}
	return ups, rest
}
