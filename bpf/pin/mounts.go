// SPDX-License-Identifier: Apache-2.0

package pin

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/linkpin/linkpin/specs/fault"
)

// maxMountinfo bounds what is read of mountinfo, in bytes.
const maxMountinfo = 16 << 20

// CheckStacked looks for more than one bpffs mounted at the same path. Only the
// uppermost is seen, so that what another process stored before the last mount is
// hidden. The error is a *fault.Error that wraps ErrStacked.
func CheckStacked(o Options) error {
	o = o.withDefaults()
	f, err := os.Open(o.Proc + "/self/mountinfo")
	if err != nil {
		return err
	}
	defer f.Close()
	n, err := countBPFFS(io.LimitReader(f, maxMountinfo), o.Path)
	if err != nil {
		return err
	}
	if n > 1 {
		return fault.New(o.Path, fmt.Errorf("%w: %d of them", ErrStacked, n),
			"umount "+o.Path+" until one is left; look into each for state first")
	}
	return nil
}

// countBPFFS counts the bpffs mounted at path; see proc_pid_mountinfo(5).
func countBPFFS(mountinfo io.Reader, path string) (int, error) {
	n := 0
	s := bufio.NewScanner(mountinfo)
	for s.Scan() {
		before, after, ok := strings.Cut(s.Text(), " - ")
		fields := strings.Fields(before)
		if ok && len(fields) > 4 && unescapeMount.Replace(fields[4]) == path && strings.HasPrefix(after, "bpf ") {
			n++
		}
	}
	return n, s.Err()
}

// unescapeMount undoes what the kernel does to the paths in mountinfo.
var unescapeMount = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
