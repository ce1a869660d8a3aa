// SPDX-License-Identifier: Apache-2.0

package install

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/containernetworking/cni/libcni"
)

// writer writes JSON in one of many styles.
type writer struct {
	r                       *rand.Rand
	eol, unit, colon, comma string
	inline                  func(depth int) bool
	pad                     string
	b                       bytes.Buffer
}

func newWriter(r *rand.Rand) *writer {
	pick := func(of ...string) string { return of[r.IntN(len(of))] }
	w := &writer{r: r, eol: pick("\n", "\r\n"), unit: pick("  ", "\t", "    ", "", " \t"), colon: pick(":", ": ", " : ", ":\t"), comma: pick(",", ", ", " , "), pad: pick("", " ")}
	deepest := r.IntN(6)
	w.inline = func(depth int) bool { return depth >= deepest }
	return w
}

func (w *writer) value(depth int, v any) {
	indent := func(d int) string {
		if w.inline(depth) {
			return ""
		}
		return w.eol + strings.Repeat(w.unit, d)
	}
	group := func(open, close string, n int, each func(i int)) {
		w.b.WriteString(open)
		for i := range n {
			switch {
			case i == 0 && w.inline(depth):
				w.b.WriteString(w.pad)
			case i > 0 && w.inline(depth):
				w.b.WriteString(w.comma)
			case i > 0:
				w.b.WriteString(",")
			}
			w.b.WriteString(indent(depth + 1))
			each(i)
		}
		if w.inline(depth) && n > 0 {
			w.b.WriteString(w.pad)
		}
		if n > 0 {
			w.b.WriteString(indent(depth))
		}
		w.b.WriteString(close)
	}
	switch v := v.(type) {
	case [][2]any:
		group("{", "}", len(v), func(i int) {
			w.value(depth+1, v[i][0])
			w.b.WriteString(w.colon)
			w.value(depth+1, v[i][1])
		})
	case []any:
		group("[", "]", len(v), func(i int) { w.value(depth+1, v[i]) })
	case json.Number:
		w.b.WriteString(string(v))
	default:
		data, _ := json.Marshal(v)
		w.b.Write(data)
	}
}

// plugins returns a chain without ours.
func plugins(r *rand.Rand) []any {
	odd := []any{"a\\\"b{[,:]}/*x*/", json.Number("1e30"), json.Number("12345678901234567890"), nil, true, []any{}, [][2]any{}, "tab\there", "\u2028ü", []any{[][2]any{{"x", json.Number("-0.0")}}}}
	n := 1 + r.IntN(4)
	out := make([]any, n)
	for i := range out {
		p := [][2]any{{"type", fmt.Sprintf("plugin%d", i)}}
		for j := range r.IntN(4) {
			p = append(p, [2]any{fmt.Sprintf("k%d{\"", j), odd[r.IntN(len(odd))]})
		}
		if r.IntN(2) == 0 {
			p = append(p, [2]any{"capabilities", [][2]any{{"portMappings", true}}})
		}
		r.Shuffle(len(p), func(a, b int) { p[a], p[b] = p[b], p[a] })
		out[i] = p
	}
	return out
}

// Whatever a list looks like: install changes nothing but the entry, keeps line ends
// and style, and uninstall brings the very bytes back.
func TestManyFormattings(t *testing.T) {
	for seed := range uint64(400) {
		r := rand.New(rand.NewPCG(seed, 1))
		w := newWriter(r)
		chain := plugins(r)
		root := [][2]any{{"cniVersion", "1.0.0"}, {"name", "net"}, {"plugins", chain}, {"other", json.Number("1.50")}}
		if r.IntN(2) == 0 {
			root = root[:3]
		}
		r.Shuffle(len(root), func(a, b int) { root[a], root[b] = root[b], root[a] })
		w.value(0, root)
		w.b.WriteString([]string{"", w.eol, w.eol + w.eol, " "}[r.IntN(4)])
		before := w.b.String()
		added, err := ensure([]byte(before), "", "")
		if err != nil {
			t.Fatalf("seed %d: %v\n%s", seed, err, before)
		}
		again, err := ensure(added, "", "")
		if err != nil || !bytes.Equal(again, added) {
			t.Fatalf("seed %d: the second time (%v):\n%s\n→\n%s", seed, err, added, again)
		}
		l, err := libcni.ConfListFromBytes(added)
		if err != nil || len(l.Plugins) != len(chain)+1 {
			t.Fatalf("seed %d: libcni: %v\n%s", seed, err, added)
		}
		last := l.Plugins[len(chain)].Network
		if last.Type != Plugin || !last.Capabilities["cgroupPath"] || !last.Capabilities["io.kubernetes.cri.pod-annotations"] || len(last.Capabilities) != 2 {
			t.Fatalf("seed %d: entry %+v", seed, last)
		}
		if bare := strings.Count(string(added), "\n") - strings.Count(string(added), "\r\n"); w.eol == "\r\n" && bare > 0 {
			t.Fatalf("seed %d: %d lines without carriage return:\n%q", seed, bare, added)
		}
		if !strings.Contains(before, "\n") && strings.Contains(string(added), "\n") {
			t.Fatalf("seed %d: one line became several:\n%s", seed, added)
		}
		// An edit elsewhere in between stays.
		edited := strings.Replace(string(added), `"1.0.0"`, `"0.4.0"`, 1)
		want := strings.Replace(before, `"1.0.0"`, `"0.4.0"`, 1)
		removed, err := removeOurs([]byte(edited))
		if err != nil || string(removed) != want {
			t.Fatalf("seed %d: after uninstall (%v):\n%s\nwant\n%s", seed, err, removed, want)
		}
	}
}

// A single plugin in any formatting becomes a list that says the same, and comes back
// byte for byte.
func TestManySingles(t *testing.T) {
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 2))
		w := newWriter(r)
		p := plugins(r)[0].([][2]any)
		p = append(p, [2]any{"name", "net"}, [2]any{"cniVersion", "0.4.0"})
		r.Shuffle(len(p), func(a, b int) { p[a], p[b] = p[b], p[a] })
		w.value(0, p)
		before := map[string]string{"10-net.conf": w.b.String()}
		h, c := hostWith(t, before), &CNI{}
		install(t, c, h)
		got := configs(t, h)["10-net.conflist"]
		l, err := libcni.ConfListFromBytes([]byte(got))
		if err != nil || l.Name != "net" || l.CNIVersion != "0.4.0" || len(l.Plugins) != 2 || l.Plugins[1].Network.Type != Plugin {
			t.Fatalf("seed %d: libcni: %v\n%s", seed, err, got)
		}
		// What runtimes make of the single file is the model.
		single, err := libcni.ConfFromBytes(w.b.Bytes()) //nolint:staticcheck // deprecated, but runtimes still read single .conf files with it
		if err != nil {
			t.Fatal(err)
		}
		up, err := libcni.ConfListFromConf(single) //nolint:staticcheck // deprecated, but runtimes still read single .conf files with it
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(up.Plugins[0].Bytes, l.Plugins[0].Bytes) {
			t.Fatalf("seed %d: plugin is\n%s\nwant\n%s", seed, l.Plugins[0].Bytes, up.Plugins[0].Bytes)
		}
		uninstall(t, c, h)
		sameFiles(t, h, before)
	}
}

// A text that is not JSON, or not a list, names its line.
func FuzzParseText(f *testing.F) {
	f.Add([]byte(bridge))
	f.Add([]byte(withOurs))
	f.Add([]byte(`{"plugins":[{"type":"\u0061"}],"name":"\""}`))
	f.Fuzz(func(t *testing.T, src []byte) {
		root, err := parseText(src)
		if (err == nil) != json.Valid(src) {
			t.Fatalf("error %v, valid %v", err, json.Valid(src))
		}
		if err != nil {
			return
		}
		if got := src[root.start:root.end]; !bytes.Equal(got, bytes.Trim(src, " \t\r\n")) {
			t.Fatalf("root is %q", got)
		}
		added, err := ensure(src, "", "")
		if err != nil {
			return
		}
		if !sameBesideOurs(src, added) {
			t.Fatalf("%s\n→\n%s", src, added)
		}
	})
}
