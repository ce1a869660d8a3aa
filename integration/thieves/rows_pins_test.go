// SPDX-License-Identifier: Apache-2.0

package thieves

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// unpin removes the pins of links.
func unpin(s *scene) error {
	var last error
	for path := range s.before {
		if err := os.Remove(path); err != nil {
			last = err
		}
	}
	return last
}

// heldElsewhere is where a thief pins what he unpins.
const heldElsewhere = "/sys/fs/bpf/theirs"

// unpinHeld removes the pins of links that somebody still holds: open, or by another pin.
func unpinHeld(pinned string) func(s *scene) error {
	return func(s *scene) error {
		n := 0
		for path := range s.before {
			fd, err := bpfPath(objGet, path, 0)
			s.check(err)
			if pinned == "" {
				s.held = append(s.held, fd)
				continue
			}
			n++
			_, err = bpfPath(objPin, fmt.Sprint(pinned, n), fd)
			s.check(errors.Join(err, unix.Close(fd)))
		}
		return unpin(s)
	}
}

// letGo ends what unpinHeld holds.
func letGo(s *scene) {
	for _, fd := range s.held {
		s.check(unix.Close(fd))
	}
	s.held = nil
	pins, err := filepath.Glob(heldElsewhere + "*")
	s.check(err)
	for _, pin := range pins {
		s.check(os.Remove(pin))
	}
}

func removeTree(pattern string) func(s *scene) error {
	return func(s *scene) error {
		dirs, err := filepath.Glob(filepath.Join(state, pattern))
		s.check(err)
		if len(dirs) == 0 {
			s.Fatalf("nothing is called %s", pattern)
		}
		return each(dirs, func(dir string) error { return removeAll(dir) })
	}
}

// removeAll is os.RemoveAll with the errors of what it can't remove.
func removeAll(dir string) error {
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	return nil
}

const gone = "A link lives as long as somebody holds it. Without its record nothing says what to attach: `verify` alone finds nothing wrong, " +
	"`verify ID` exits 3, and `verify --known`, as the systemd timer runs it, names what is gone. Restart the container."

var pinRows = []row{
	{
		name: "unpin", what: "unlinking the pins of all links", host: mended,
		note: "The pin was the last reference: the links end. Nobody in a container reaches the host's bpffs, unless it is given to it.",
		do:   unpin,
	},
	{
		name: "unpin-held", what: "the same while somebody has the links open", host: mended,
		note: "They stay attached as long as he does; they are pinned again.",
		do:   unpinHeld(""), undo: letGo,
	},
	{
		name: "unpin-second", what: "the same where somebody has pinned the links elsewhere, too", host: mended,
		note: "As above.",
		do:   unpinHeld(heldElsewhere), undo: letGo,
	},
	{
		name: "unlink-record", what: "unlinking the record", host: seen,
		note: "The links stay and the programs run on; `verify` can't tell what belongs there. Restart the container.",
		do: func(s *scene) error {
			return each([]string{"containers/*/*/meta", "sandboxes/*/*/*/*/meta"}, func(p string) error {
				return removeTree(p)(s)
			})
		},
		used: true,
	},
	{
		name: "remove-entry", what: "`rm -rf` of the container's entries", host: seen, note: gone,
		do: func(s *scene) error {
			return each([]string{"containers/*", "sandboxes/*"}, func(p string) error { return removeTree(p)(s) })
		},
		used: true,
	},
	{
		name: "remove-tree", what: "`rm -rf` of linkpin's tree", host: seen, note: "As above.",
		do:   func(s *scene) error { return os.RemoveAll(filepath.Dir(state)) },
		used: true,
	},
	{
		name: "chmod-entry", what: "`chmod 0777` of the container's entries", host: mended,
		do: func(s *scene) error {
			dirs, err := filepath.Glob(filepath.Join(state, "containers/*"))
			s.check(err)
			return each(dirs, func(dir string) error { return os.Chmod(dir, 0o777) })
		},
	},
	{
		name: "chmod", what: "`chmod` or `chown` of the whole tree", host: seen,
		note: "A tree that others could write to proves nothing: the hooks refuse every new container, `verify` exits 69 and says in one line what to do. " +
			"What runs keeps its programs. Find out who it was, then remove the tree and restart the containers, or put owner and mode back.",
		do:   func(s *scene) error { return os.Chmod(filepath.Dir(state), 0o777) },
		undo: func(s *scene) { s.check(os.Chmod(filepath.Dir(state), 0o700)) },
	},
	{
		name: "mount-over", what: "mounting another bpffs over bpffs", host: seen,
		note: "The links live on in the hidden one. `verify` says `hidden` and exits 3, `linkpin doctor` says so, too; unmount what lies above.",
		do:   func(s *scene) error { return mount("bpf", "/sys/fs/bpf", "bpf", 0, "") },
		undo: func(s *scene) { s.check(unix.Unmount("/sys/fs/bpf", 0)) },
	},
	{
		name: "remount-ro", what: "remounting bpffs read-only", host: holds,
		note: "The hooks refuse every new container, and nothing can be mended: `verify` and `watch` warn. What runs keeps its programs. Remount it.",
		do:   func(s *scene) error { return mount("", "/sys/fs/bpf", "", unix.MS_REMOUNT|unix.MS_RDONLY, "") },
		undo: func(s *scene) { s.check(mount("", "/sys/fs/bpf", "", unix.MS_REMOUNT, "")) },
	},
	{
		name: "unmount", what: "`umount -l` of bpffs", host: seen, note: gone,
		do: func(s *scene) error { return unix.Unmount("/sys/fs/bpf", unix.MNT_DETACH) },
		undo: func(s *scene) {
			s.check(mount("bpf", "/sys/fs/bpf", "bpf", 0, ""))
		},
		used: true,
	},
	{
		name: "own-bpffs", what: "mounting bpffs in the container", caps: holds, own: refused,
		note: "Every mount of bpffs is a file system of its own: it is empty.",
		do:   func(s *scene) error { return s.thief("mount", "bpf", "/tmp/bpf") },
	},
}
