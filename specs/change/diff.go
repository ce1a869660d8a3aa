// SPDX-License-Identifier: Apache-2.0

package change

import (
	"bytes"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/rogpeppe/go-internal/diff"
)

// Diff shows a plan as a unified diff; a binary file is one line. Notes follow, with
// "# " in front.
func (p *Plan) Diff() string {
	var b strings.Builder
	for _, c := range p.Changes {
		oldName, newName := c.Path, c.Path
		if c.Old.Missing {
			oldName = "/dev/null"
		}
		if c.removes() {
			newName = "/dev/null"
		}
		switch {
		case c.Old.Mode.IsDir():
			fmt.Fprintf(&b, "directory %s goes if it is empty\n", c.Path)
		case binary(c.Old.Data) || binary(c.New):
			fmt.Fprintf(&b, "binary %s → %s (%d → %d bytes)\n", oldName, newName, len(c.Old.Data), len(c.New))
		default:
			text := diff.Diff(oldName, c.Old.Data, newName, c.New)
			b.Write(text[bytes.IndexByte(text, '\n')+1:]) // without the line "diff OLD NEW"
		}
	}
	for _, n := range p.Notes {
		fmt.Fprintf(&b, "# %s\n", n)
	}
	return b.String()
}

func binary(data []byte) bool {
	return bytes.IndexByte(data, 0) >= 0 || !utf8.Valid(data)
}
