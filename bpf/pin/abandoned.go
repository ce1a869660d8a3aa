// SPDX-License-Identifier: Apache-2.0

package pin

import (
	"strings"

	"golang.org/x/sys/unix"
)

// AbandonedLinks returns the paths of the links in a staging directory that a process
// has left behind; see Entry.LinkPath. The errors are ErrBusy, if the process still
// lives, and ErrNotExist.
func (r *Root) AbandonedLinks(name string) ([]string, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	dir := stagingPath(name)
	fd, err := r.tryDir(dir)
	if err != nil {
		return nil, r.pathError("lock", dir, err)
	}
	defer unix.Close(fd)
	files, err := readNames(fd, -1)
	if err != nil {
		return nil, r.pathError("list", dir, err)
	}
	var paths []string
	for _, file := range files {
		if strings.HasPrefix(file, linkPrefix) {
			paths = append(paths, r.base+"/"+dir+"/"+file)
		}
	}
	return paths, nil
}
