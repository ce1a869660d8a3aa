// SPDX-License-Identifier: Apache-2.0

package change_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/linkpin/linkpin/specs/change"
	"github.com/linkpin/linkpin/specs/fault"
)

func TestFindingOf(t *testing.T) {
	const remedy = "look"
	for _, tc := range []struct {
		name string
		what string
		err  error
		want change.Finding
	}{
		{"plain", "/etc/x", errors.New("is odd\nvery"), change.Finding{What: "/etc/x", Detail: "is odd; very", Remedy: remedy}},
		{"plain, of nothing", "", errors.New("is odd"), change.Finding{What: "configuration", Detail: "is odd", Remedy: remedy}},
		{"its own remedy", "/etc/x", fault.Newf("/etc/x", "is odd", "mend it"), change.Finding{What: "/etc/x", Detail: "is odd", Remedy: "mend it"}},
		{"no remedy", "/etc/x", fault.Newf("/etc/x", "is odd", ""), change.Finding{What: "/etc/x", Detail: "is odd", Remedy: remedy}},
		{"a line", "/etc/x", fault.Newf("/etc/x:3", "is odd", "mend it"), change.Finding{What: "/etc/x:3", Detail: "is odd", Remedy: "mend it"}},
		{"a file of the directory", "/etc", fault.Newf("/etc/x", "is odd", "mend it"), change.Finding{What: "/etc/x", Detail: "is odd", Remedy: "mend it"}},
		{"only the same beginning", "/etc/x", fault.Newf("/etc/xy", "is odd", "mend it"), change.Finding{What: "/etc/x", Detail: "/etc/xy: is odd", Remedy: "mend it"}},
		{"a topic", "bpffs", fault.Newf("/sys/fs/bpf", "is odd", "mend it"), change.Finding{What: "bpffs", Detail: "/sys/fs/bpf: is odd", Remedy: "mend it"}},
		{"object of the error", "", fault.Newf("/etc/x", "is odd", "mend it"), change.Finding{What: "/etc/x", Detail: "is odd", Remedy: "mend it"}},
		{"wrapped", "bpffs", fmt.Errorf("reading it: %w", fault.Newf("/etc/x", "is odd", "mend it")), change.Finding{What: "bpffs", Detail: "reading it: /etc/x: is odd", Remedy: "mend it"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tc.want.Level = change.Warn
			if got := change.FindingOf(change.Warn, tc.what, tc.err, remedy); got != tc.want {
				t.Errorf("got  %+v\nwant %+v", got, tc.want)
			}
		})
	}
}
