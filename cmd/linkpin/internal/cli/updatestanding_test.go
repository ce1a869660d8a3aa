// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"strings"
	"testing"
)

// Where nobody can tell what is in use, nothing that may be is removed.
func TestInUseWhereItCantBeTold(t *testing.T) {
	var stderr bytes.Buffer
	a := &app{Env: Env{Stderr: &stderr}, roots: roots{bpffs: t.TempDir(), state: t.TempDir(), proc: "/proc"}}
	inUse := a.inUse()
	if stderr.Len() > 0 {
		t.Error("it was looked before anybody asked")
	}
	for range 2 {
		if !inUse("1-0000") {
			t.Error("not in use")
		}
	}
	if n := strings.Count(stderr.String(), "is not a bpf filesystem"); n != 1 {
		t.Errorf("said %d times: %s", n, stderr.String())
	}
}
