// SPDX-License-Identifier: Apache-2.0

package pin

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/linkpin/linkpin/bpf/bpftest"
)

// hostile are texts that must not become what they look like.
var hostile = []string{
	"", ".", "..", "../..", "/", "/etc/passwd", "a/b", "a.b", "a%2eb", "%", "%%", "%2", "-rf", "a b", "a\x00b", "\x00",
	"\n", "ü", "\xff", "meta", "link_meta", strings.Repeat("a", 200), strings.Repeat("a", 201), strings.Repeat("a", 300),
	strings.Repeat(".", 300), strings.Repeat("a", 70) + shortened + strings.Repeat("0", 64), "CON", "A", "a",
}

func TestEscape(t *testing.T) {
	for text, want := range map[string]string{
		"":                "%",
		"web-1_A":         "web-1_A",
		"a.b":             "a%2eb",
		"..":              "%2e%2e",
		"-rf":             "%2drf",
		"a-":              "a-",
		"50%":             "50%25",
		"tc/ingress#2@3":  "tc%2fingress%232%403",
		"\x00\xff":        "%00%ff",
		"io.kubernetes/x": "io%2ekubernetes%2fx",
	} {
		if got := Escape(text); got != want {
			t.Errorf("Escape(%q) = %q, want %q", text, got, want)
		}
	}
}

func checkEscaped(t *testing.T, text string) {
	t.Helper()
	name := Escape(text)
	if err := checkName(name); err != nil || len(name) > maxEscaped {
		t.Fatalf("Escape(%q) = %q: %v, %d bytes", text, name, err, len(name))
	}
	if strings.Trim(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-%") != "" {
		t.Fatalf("Escape(%q) = %q has other characters", text, name)
	}
	back, err := Unescape(name)
	switch {
	case errors.Is(err, ErrShortened):
		if len(text) <= maxEscaped/3 {
			t.Fatalf("Escape(%q) = %q was shortened needlessly", text, name)
		}
	case err != nil || back != text:
		t.Fatalf("Unescape(%q) = %q, %v, want %q", name, back, err, text)
	}
}

func TestEscapeIsReversible(t *testing.T) {
	seen := make(map[string]string)
	for _, text := range hostile {
		checkEscaped(t, text)
		if other, ok := seen[Escape(text)]; ok {
			t.Errorf("%q and %q have the same name", text, other)
		}
		seen[Escape(text)] = text
	}
	for b := range 256 {
		checkEscaped(t, string([]byte{byte(b)}))
		checkEscaped(t, "a"+string([]byte{byte(b)}))
	}
}

func TestEscapeShortens(t *testing.T) {
	long := strings.Repeat("a", 300)
	name := Escape(long)
	if len(name) != maxEscaped || !strings.HasPrefix(name, "aaa") {
		t.Errorf("Escape of 300 bytes: %q", name)
	}
	if _, err := Unescape(name); !errors.Is(err, ErrShortened) {
		t.Errorf("Unescape of a shortened name: %v", err)
	}
	// What looks like a shortened name is itself escaped.
	if other := Escape(name); other == name {
		t.Errorf("Escape(%q) is the name of another text", name)
	}
	if a, b := Escape(long+"1"), Escape(long+"2"); a == b {
		t.Errorf("two long texts have the name %q", a)
	}
	if got := Escape(strings.Repeat("a", maxEscaped)); got != strings.Repeat("a", maxEscaped) {
		t.Errorf("text that just fits became %q", got)
	}
}

func TestUnescapeRefusesOtherNames(t *testing.T) {
	for _, name := range []string{
		"", ".", "..", "a.b", "a/b", "%2", "a%", "%zz", "%2E", "%61", "-a", "%%", "a%%", "a%%00", "%netns-1",
		shortened + strings.Repeat("A", 64), strings.Repeat("a", 201), "a b",
	} {
		if text, err := Unescape(name); !errors.Is(err, ErrName) {
			t.Errorf("Unescape(%q) = %q, %v, want ErrName", name, text, err)
		}
	}
}

// bpffs itself must take every name, and keep each apart from the others.
func TestBPFFSTakesEveryName(t *testing.T) {
	dir := bpftest.TempBPFFS(t)
	for _, text := range hostile {
		if err := os.Mkdir(filepath.Join(dir, networkPrefix+Escape(text)), 0o700); err != nil {
			t.Error(err)
		}
		if err := os.Mkdir(filepath.Join(dir, string(ContainerKey(text, text))), 0o700); err != nil {
			t.Error(err)
		}
	}
}

func FuzzEscape(f *testing.F) {
	for i, text := range hostile {
		f.Add(text, hostile[(i+1)%len(hostile)])
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		checkEscaped(t, a)
		checkEscaped(t, b)
		if (Escape(a) == Escape(b)) != (a == b) {
			t.Fatalf("Escape(%q) = %q, Escape(%q) = %q", a, Escape(a), b, Escape(b))
		}
		if ContainerKey(a, b) == ContainerKey(b, a) && a != b {
			t.Fatalf("id %q in bundle %q has the key of the reverse", a, b)
		}
		for _, k := range []Key{ContainerKey(a, b), SandboxKey(a)} {
			if _, err := ParseKey(string(k)); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func FuzzUnescape(f *testing.F) {
	for _, text := range hostile {
		f.Add(Escape(text))
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, name string) {
		text, err := Unescape(name)
		if err == nil && Escape(text) != name {
			t.Fatalf("Unescape(%q) = %q, whose name is %q", name, text, Escape(text))
		}
		if errors.Is(err, ErrName) && Escape(text) == name && text != "" {
			t.Fatalf("%q is a name and is refused", name)
		}
	})
}
