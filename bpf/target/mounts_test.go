// SPDX-License-Identifier: Apache-2.0

package target

import "testing"

func TestBelow(t *testing.T) {
	for _, c := range []struct {
		base, path, rest string
		ok, above        bool
	}{
		{"/", "/a/b", "a/b", true, false},
		{"/", "/", "", true, false},
		{"/a", "/a", "", true, false},
		{"/a", "/a/b/c", "b/c", true, false},
		{"/a", "/ab", "", false, false},
		{"/a", "/", "", false, false},
		{"/a/b", "/a", "", false, false},
		{"/", "/..", "", false, false},
		{"/", "/../x", "", false, false},
		{"/..", "/../x", "x", true, false},
		{"/..", "/..", "", true, false},
		{"/../x", "/../x/y", "y", true, false},
		{"/../x", "/../xy", "", false, false},
		{"/../x", "/a", "", false, false},
		{"/..", "/a", "", false, true},
		{"/../..", "/../x", "", false, true},
		{"/../../x", "/../y", "", false, false},
		{"/..a", "/..a/b", "b", true, false},
		{"/a", "/..a", "", false, false},
	} {
		rest, above, err := below(c.base, c.path)
		if rest != c.rest || above != c.above || (err == nil) != c.ok {
			t.Errorf("below(%q, %q) = %q, %v, %v", c.base, c.path, rest, above, err)
		}
		if got, want := isAncestor(c.base, c.path), c.ok || c.above; got != want {
			t.Errorf("isAncestor(%q, %q) = %v", c.base, c.path, got)
		}
	}
}

func TestParseMount(t *testing.T) {
	for _, c := range []struct {
		line  string
		want  mount
		found bool
	}{
		{`41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw`, mount{"/", "/sys/fs/cgroup/unified"}, true},
		{`41 31 0:38 /a\040b /m\134\011n rw shared:7 master:3 - cgroup2 none rw,nsdelegate`, mount{"/a b", "/m\\\tn"}, true},
		{`41 31 0:38 /.. /m rw - cgroup2 none rw`, mount{"/..", "/m"}, true},
		{`32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu`, mount{}, false},
		{`32 31 0:29 / /cgroup2 rw - tmpfs cgroup2 rw`, mount{}, false},
		{`41 31 0:38 / - cgroup2 cgroup2 rw`, mount{}, false},
		{`41 31 0:38 /x\04 /y\9 rw - cgroup2 cgroup2 rw`, mount{`/x\04`, `/y\9`}, true},
		{``, mount{}, false},
	} {
		m, found := parseMount([]byte(c.line))
		if m != c.want || found != c.found {
			t.Errorf("%s: %+v, %v", c.line, m, found)
		}
	}
}
