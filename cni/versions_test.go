// SPDX-License-Identifier: Apache-2.0

package cni

import (
	"slices"
	"testing"
)

// What the plugin claims to speak is what is tested.
func TestVersionsAreTested(t *testing.T) {
	if got := Versions.SupportedVersions(); !slices.Equal(got, versions) {
		t.Errorf("the plugin speaks %q, and %q are tested", got, versions)
	}
}
