// SPDX-License-Identifier: Apache-2.0

package thieves

import (
	"fmt"
	"testing"

	"golang.org/x/sys/unix"
)

// kernel is the first version that has what a row is about: 606 is 6.6.
type kernel int

// needsTCX are rows about the TCX links of kernel 6.6.
const needsTCX kernel = 606

// running is the kernel of this machine.
func running(t testing.TB) kernel {
	t.Helper()
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		t.Fatal(err)
	}
	var major, minor kernel
	if _, err := fmt.Sscanf(unix.ByteSliceToString(name.Release[:]), "%d.%d", &major, &minor); err != nil {
		t.Fatal(err)
	}
	return 100*major + minor
}

// on returns what is expected for an actor on a kernel.
func (r row) on(k kernel, a actor) class {
	switch {
	case k < r.needs:
		return none
	case k < needsTCX && r.old != [3]class{}:
		return r.old[a]
	}
	return r.expected(a)
}
