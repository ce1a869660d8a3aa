// SPDX-License-Identifier: Apache-2.0

package install

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/linkpin/linkpin/specs/change"
)

const single = `{
  "cniVersion": "0.4.0",
  "name": "net",
  "type": "bridge"
}
`

// listOf is what single becomes.
const listOf = `{
  "cniVersion": "0.4.0",
  "name": "net",
  "plugins": [
    {
      "cniVersion": "0.4.0",
      "name": "net",
      "type": "bridge"
    },
    {
      "type": "linkpin-cni",
      "capabilities": {
        "io.kubernetes.cri.pod-annotations": true,
        "cgroupPath": true
      }
    }
  ]
}
`

// The list takes the place that the single plugin had among the files.
func TestConvertedName(t *testing.T) {
	tests := []struct {
		name   string
		single string
		others []string
		want   string // "" if there is none
	}{
		{"conf", "10-a.conf", nil, "10-a.conflist"},
		{"json", "10-a.json", nil, "10-a.conflist"},
		{"no extension but the dot", ".conf", nil, ".conflist"},
		{"others far away", "10-a.conf", []string{"05-x.conflist", "99-y.conflist"}, "10-a.conflist"},
		{"another sorts between .conflist and .json", "10-a.json", []string{"10-a.d.conflist"}, "10-a.json.conflist"},
		{"another sorts between .conf and .conflist", "10-a.conf", []string{"10-a.conf-b.conflist"}, ""},
		{"what nobody reads does not count", "10-a.conf", []string{"10-a.conf-b"}, "10-a.conflist"},
		{"a list of that name for another network", "10-a.conf", []string{"10-a.conflist"}, "10-a.conf.conflist"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			h := hostWith(t, map[string]string{test.single: single})
			for _, o := range test.others {
				put(t, h, o, named("other"))
			}
			before := configs(t, h)
			c := &CNI{Network: "net"}
			if test.want == "" {
				_, err := c.Install(h)
				refused(t, h, before, err, test.single, "rename it")
				return
			}
			order := func() (place int) {
				all, err := c.read(h)
				if err != nil {
					t.Fatal(err)
				}
				for i, conf := range all {
					if conf.network == "net" {
						place = i
					}
				}
				return place
			}
			place := order()
			install(t, c, h)
			after := configs(t, h)
			if after[test.want] != listOf || after[test.single+savedSuffix] != single || after[test.single] != "" {
				t.Errorf("files: %v", after)
			}
			if got := order(); got != place {
				t.Errorf("place %d became %d", place, got)
			}
			nothingLeft(t, c.Install, h)
			uninstall(t, c, h)
			sameFiles(t, h, before)
		})
	}
}

// At every step of a conversion that is cut off, a runtime finds a network, and
// installing and uninstalling again both work.
func TestConversionCutOff(t *testing.T) {
	before := map[string]string{"10-a.conf": single}
	for steps := range 4 {
		for _, back := range []bool{false, true} {
			h, c := hostWith(t, before), &CNI{}
			p, err := c.Install(h)
			if err != nil || len(p.Changes) != 3 {
				t.Fatalf("%v, %v", p, err)
			}
			p.Changes = p.Changes[:steps]
			if err := p.Apply(h); err != nil {
				t.Fatal(err)
			}
			all, err := c.read(h)
			if err != nil {
				t.Fatal(err)
			}
			if conf, err := c.choose(h, all); err != nil || conf.types[0] != "bridge" {
				t.Errorf("after %d steps: %v, %v", steps, conf, err)
			}
			if back {
				uninstall(t, c, h)
				if steps == 1 { // the copy is all there is, and the note says so
					os.Remove(at(h, "10-a.conf"+savedSuffix))
				}
				sameFiles(t, h, before)
				continue
			}
			install(t, c, h)
			sameFiles(t, h, map[string]string{"10-a.conflist": listOf, "10-a.conf" + savedSuffix: single})
			nothingLeft(t, c.Install, h)
		}
	}
}

func converted(t *testing.T) (change.Host, *CNI) {
	t.Helper()
	h, c := hostWith(t, map[string]string{"10-a.conf": single}), &CNI{}
	install(t, c, h)
	return h, c
}

// A list that somebody edited does not become the old single plugin again: it stays,
// without our entry, and so does what it was before. Other networks go on.
func TestConvertedAndEdited(t *testing.T) {
	const saved = "10-a.conf" + savedSuffix
	edit := strings.Replace(listOf, `"type": "bridge"`, `"type": "bridge", "mtu": 1400`, 1)
	rest := edit[:strings.Index(edit, ",\n    {\n      \"type\": \"linkpin")] + "\n  ]\n}\n"
	for _, network := range []string{"", "net"} {
		h, c := converted(t)
		put(t, h, "10-a.conflist", edit)
		put(t, h, "05-b.conf", strings.Replace(single, `"net"`, `"other"`, 1))
		install(t, c, h) // of the network that is the first now
		put(t, h, "20-c.conflist", strings.Replace(withOurs, `"net"`, `"third"`, 1))
		want := map[string]string{
			"05-b.conf": strings.Replace(single, `"net"`, `"other"`, 1), "10-a.conflist": rest, saved: single,
			"20-c.conflist": strings.Replace(bridge, `"net"`, `"third"`, 1),
		}
		if network != "" {
			want = with(configs(t, h), map[string]string{"10-a.conflist": rest})
		}
		c.Network = network
		p := uninstall(t, c, h)
		sameFiles(t, h, want)
		if notes := strings.Join(p.Notes, "\n"); !strings.Contains(notes, "/etc/cni/net.d/10-a.conflist was made of 10-a.conf and was edited since: it stays a list") ||
			!strings.Contains(notes, "/etc/cni/net.d/"+saved+" is what it was before") {
			t.Errorf("notes: %s", notes)
		}
		if p, err := c.Uninstall(h); err != nil || !p.Empty() {
			t.Errorf("a second uninstall: %v, %v", p, err)
		}
	}

	h, c := converted(t)
	put(t, h, "10-a.conflist", edit)
	put(t, h, "10-a.conflist", listOf) // undo the edit
	uninstall(t, c, h)
	sameFiles(t, h, map[string]string{"10-a.conf": single})
}

func TestConvertedAndTouched(t *testing.T) {
	const saved = "10-a.conf" + savedSuffix
	tests := []struct {
		name  string
		touch func(t *testing.T, h change.Host)
		want  map[string]string // after uninstall
	}{
		{"other white space", func(t *testing.T, h change.Host) {
			put(t, h, "10-a.conflist", strings.ReplaceAll(listOf, "  ", "\t"))
		}, map[string]string{"10-a.conf": single}},
		{"more in our entry", func(t *testing.T, h change.Host) {
			put(t, h, "10-a.conflist", strings.Replace(listOf, `"type": "linkpin-cni"`, `"x": 1, "type": "linkpin-cni"`, 1))
		}, map[string]string{"10-a.conf": single}},
		{"our entry taken out by hand", func(t *testing.T, h change.Host) {
			put(t, h, "10-a.conflist", listOf[:strings.Index(listOf, ",\n    {\n      \"type\": \"linkpin")]+"\n  ]\n}\n")
		}, map[string]string{"10-a.conf": single}},
		{"a directory of drop-ins since", func(t *testing.T, h change.Host) {
			put(t, h, "net/10-x.conf", `{"type": "x"}`)
		}, map[string]string{"10-a.conf": single}},
		{"the provider wrote its file again", func(t *testing.T, h change.Host) {
			put(t, h, "10-a.conf", strings.Replace(single, "bridge", "ptp", 1))
		}, map[string]string{"10-a.conf": strings.Replace(single, "bridge", "ptp", 1)}},
		{"the list is gone", func(t *testing.T, h change.Host) {
			os.Remove(at(h, "10-a.conflist"))
		}, map[string]string{saved: single}},
		{"the list is another's now", func(t *testing.T, h change.Host) {
			put(t, h, "10-a.conflist", named("new"))
		}, map[string]string{saved: single, "10-a.conflist": named("new")}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			h, c := converted(t)
			test.touch(t, h)
			uninstall(t, c, h)
			sameFiles(t, h, test.want)
		})
	}
}

// A list that became a link is edited where the link leads to.
func TestConvertedAndLinked(t *testing.T) {
	h, c := converted(t)
	if err := os.Rename(at(h, "10-a.conflist"), filepath.Join(h.Dir, "real.conflist")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("../../../real.conflist", at(h, "10-a.conflist")); err != nil {
		t.Fatal(err)
	}
	uninstall(t, c, h)
	st, err := os.Lstat(at(h, "10-a.conflist"))
	if err != nil || st.Mode()&os.ModeSymlink == 0 {
		t.Errorf("the link: %v, %v", st, err)
	}
	sameFiles(t, h, map[string]string{
		"10-a.conflist":           listOf[:strings.Index(listOf, ",\n    {\n      \"type\": \"linkpin")] + "\n  ]\n}\n",
		"10-a.conf" + savedSuffix: single,
	})
}

// A provider that writes its single file again is followed.
func TestConvertAgain(t *testing.T) {
	h, c := converted(t)
	newer := strings.Replace(single, "bridge", "ptp", 1)
	put(t, h, "10-a.conf", newer)
	install(t, c, h)
	sameFiles(t, h, map[string]string{"10-a.conflist": strings.Replace(listOf, "bridge", "ptp", 1), "10-a.conf" + savedSuffix: newer})
	uninstall(t, c, h)
	sameFiles(t, h, map[string]string{"10-a.conf": newer})
}

func TestConvertRefused(t *testing.T) {
	t.Run("a list of the same network beside it", func(t *testing.T) {
		before := map[string]string{"10-a.conf": single, "10-a.conflist": bridge}
		h := hostWith(t, before)
		_, err := (&CNI{}).Install(h)
		refused(t, h, before, err, "10-a.conflist: stands beside 10-a.conf")
	})
	t.Run("an edited list of ours beside it", func(t *testing.T) {
		h, c := converted(t)
		put(t, h, "10-a.conf", single)
		put(t, h, "10-a.conflist", strings.Replace(listOf, `"type": "bridge"`, `"type": "bridge", "mtu": 1400`, 1))
		before := configs(t, h)
		_, err := c.Install(h)
		refused(t, h, before, err, "stands beside")
	})
	t.Run("a broken list beside it", func(t *testing.T) {
		before := map[string]string{"10-a.conf": single, "10-a.conflist": "{"}
		h := hostWith(t, before)
		_, err := (&CNI{}).Install(h)
		refused(t, h, before, err, "stands beside")
	})
	t.Run("a symbolic link", func(t *testing.T) {
		h := hostWith(t, map[string]string{"/usr/share/a.conf": single, "keep": ""})
		if err := os.Symlink("/usr/share/a.conf", at(h, "10-a.conf")); err != nil {
			t.Fatal(err)
		}
		_, err := (&CNI{}).Install(h)
		if err == nil || !strings.Contains(err.Error(), "symbolic link") {
			t.Errorf("error %v", err)
		}
	})
	t.Run("a broken copy", func(t *testing.T) {
		h, c := converted(t)
		put(t, h, "10-a.conf"+savedSuffix, "{")
		before := configs(t, h)
		_, err := c.Uninstall(h)
		refused(t, h, before, err, savedSuffix+":1")
	})
}

// libcni gives a list what the directory of its name holds, which a single plugin
// does not get.
func TestConvertWithDropins(t *testing.T) {
	h, c := hostWith(t, map[string]string{"10-a.conf": single, "net/10-x.conf": `{"type": "x"}`}), &CNI{}
	install(t, c, h)
	if got := configs(t, h)["10-a.conflist"]; !strings.Contains(got, `"loadOnlyInlinedPlugins": true,`) {
		t.Errorf("list:\n%s", got)
	}
	l, err := configLoaded(h, "10-a.conflist")
	if err != nil || len(l.Plugins) != 2 {
		t.Errorf("libcni: %v, %v", l, err)
	}
	nothingLeft(t, c.Install, h)
	os.RemoveAll(at(h, "net"))
	uninstall(t, c, h)
	sameFiles(t, h, map[string]string{"10-a.conf": single})
}

// Permissions go with the content.
func TestConvertKeepsMode(t *testing.T) {
	h, c := hostWith(t, map[string]string{"10-a.conf": single}), &CNI{}
	if err := os.Chmod(at(h, "10-a.conf"), 0o600); err != nil {
		t.Fatal(err)
	}
	mode := func(name string) {
		t.Helper()
		st, err := os.Stat(at(h, name))
		if err != nil || st.Mode() != 0o600 {
			t.Errorf("%s: %v, %v", name, st, err)
		}
	}
	install(t, c, h)
	mode("10-a.conflist")
	mode("10-a.conf" + savedSuffix)
	uninstall(t, c, h)
	mode("10-a.conf")
}
