// SPDX-License-Identifier: Apache-2.0

package applied

import "testing"

// An older set stays as long as something runs of it, and goes with the next Write.
func TestKeep(t *testing.T) {
	o := testOptions(t)
	mustWrite(t, o, 1)
	first := sets(t, o)[0]
	o.Keep = func(generation string) bool { return generation == first }
	for i := 2; i < 6; i++ {
		mustWrite(t, o, i)
	}
	if got := sets(t, o); len(got) != 3 || got[0] != first {
		t.Errorf("sets %v, want %s and the last two", got, first)
	}
	o.Keep = nil
	mustWrite(t, o, 6)
	if got := sets(t, o); len(got) != 2 {
		t.Errorf("sets %v, want two", got)
	}
}
