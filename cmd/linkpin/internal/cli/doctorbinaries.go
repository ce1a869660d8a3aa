// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"github.com/linkpin/linkpin/specs/change"
)

// checkBinaries looks for programs that are configured to run as root and that others
// than root can change.
func (d *doctor) checkBinaries() {
	targets, err := d.targets(d.host)
	if err != nil {
		return // checkTargets says why
	}
	seen := map[string]bool{}
	for _, t := range targets {
		for _, b := range t.Binaries() {
			if seen[b.Path] || !d.host.Exists(b.Path) || !t.Uses(d.host, b.Path) {
				continue
			}
			seen[b.Path] = true
			if err := d.host.Trusted(b.Path); err != nil {
				d.bad(change.Fail, b.Path, err, "")
			}
		}
	}
}
