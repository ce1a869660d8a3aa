// SPDX-License-Identifier: Apache-2.0

package install

import (
	"path"
	"slices"

	"github.com/linkpin/linkpin/specs/change"
)

// Programs returns where a host has a program, all of its copies, as the host sees
// them: runtimes of different packages use different ones. The PATH of whoever asks
// has no say.
func Programs(h change.Host, name string) []string {
	return programsIn(h, programDirs, name)
}

func programsIn(h change.Host, dirs []string, name string) []string {
	var found, files []string
	for _, dir := range dirs {
		p := path.Join(dir, name)
		if !h.Executable(p) {
			continue
		}
		// /bin is a link to /usr/bin on most hosts.
		if file, err := h.Resolve(p); err == nil && !slices.Contains(files, file) {
			found, files = append(found, p), append(files, file)
		}
	}
	return found
}
