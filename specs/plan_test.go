// SPDX-License-Identifier: Apache-2.0

package specs_test

import (
	"testing"

	"github.com/linkpin/linkpin/specs"
)

func TestOnInterface(t *testing.T) {
	for _, tc := range []struct {
		glob, name string
		want       bool
	}{
		{"", "eth0", true},
		{"", "lo", false},
		{"*", "lo", false},
		{"lo", "lo", false},
		{"eth0", "eth0", true},
		{"eth0", "eth01", false},
		{"eth*", "net1", false},
		{"net[0-9]", "net1", true},
	} {
		if got := (specs.Attachment{Interface: tc.glob}).OnInterface(tc.name); got != tc.want {
			t.Errorf("interface %q for %q: %t, want %t", tc.glob, tc.name, got, tc.want)
		}
	}
}
