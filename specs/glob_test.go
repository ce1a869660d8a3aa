// SPDX-License-Identifier: Apache-2.0

package specs_test

import (
	"path"
	"strings"
	"testing"
	"time"

	"github.com/linkpin/linkpin/specs"
)

func TestGlob(t *testing.T) {
	for _, tc := range []struct {
		pattern, s string
		want       bool
	}{
		{"", "", true},
		{"", "a", false},
		{"*", "", true},
		{"*", "registry.example/team/app", true},
		{"prod-*", "prod-web", true},
		{"prod-*", "prod-", true},
		{"prod-*", "preprod-web", false},
		{"*prod*", "preprod-web", true},
		{"a/*/c", "a/b/x/c", true},
		{"a/?/c", "a///c", true},
		{"?", "é", true},
		{"?", "", false},
		{"??", "é", false},
		{"*?", "é", true},
		{"*??", "é", false},
		{"*[^€]x", "€x", false},
		{"[a-c]x", "bx", true},
		{"[a-c]x", "dx", false},
		{"[^a-c]x", "dx", true},
		{"[^a-c]x", "ax", false},
		{"[à-ü]", "é", true},
		{`[\]]`, "]", true},
		{`[\-a]`, "-", true},
		{`[\!a]`, "!", true},
		{`\*`, "*", true},
		{`\*`, "a", false},
		{"a*b*c", "a-b-b-c", true},
		{"a*b*c", "a-c-b", false},
		{"*ab", "aab", true},
		{"***", "x", true},
		{"a**", "b", false},
		{"abc", "ab", false},
		{"ab", "abc", false},
	} {
		if got := specs.Glob(tc.pattern, tc.s); got != tc.want {
			t.Errorf("Glob(%q, %q) = %t", tc.pattern, tc.s, got)
		}
	}
}

func TestCheckGlob(t *testing.T) {
	for pattern, want := range map[string]string{
		"a[":                       "[ without ]",
		"[]":                       "empty []",
		"[^]":                      "empty []",
		"[a-]":                     "[ without ]",
		"[-a]":                     "[ without ]",
		"[a--]":                    "[ without ]",
		"[!a]":                     "write [^…]",
		"[z-a]":                    "backwards",
		`a\`:                       `\ at the end`,
		"a\xff":                    "not UTF-8",
		"[\xff]":                   "not UTF-8",
		strings.Repeat("a", 257):   "256 bytes",
		`[\` + "\xff" + `]`:        "not UTF-8",
		"ok[":                      "[ without ]",
		"[a-" + "\xff" + "]":       "not UTF-8",
		"prefix[abc" + "\\" + "]x": "[ without ]",
	} {
		err := specs.CheckGlob(pattern)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("CheckGlob(%q) = %v, want %q", pattern, err, want)
		}
		if specs.Glob(pattern, pattern) {
			t.Errorf("the malformed glob %q matches", pattern)
		}
	}
	if err := specs.CheckGlob(strings.Repeat("a", 256)); err != nil {
		t.Errorf("256 bytes: %v", err)
	}
}

// A matcher that tries every star again takes longer than the age of the
// universe for this.
func TestGlobIsNotExponential(t *testing.T) {
	pattern := strings.Repeat("*a", 127) + "b"
	text := strings.Repeat("a", 64<<10)
	done := make(chan bool, 1)
	go func() { done <- specs.Glob(pattern, text) }()
	select {
	case matched := <-done:
		if matched {
			t.Error("matches")
		}
	case <-time.After(20 * time.Second):
		t.Fatal("takes too long")
	}
}

// FuzzGlob compares with path.Match, where "/" and the characters that path.Match
// splits into bytes play no role.
func FuzzGlob(f *testing.F) {
	for _, s := range [][2]string{{"a*b?", "axbc"}, {"[^a-z]*", "0"}, {`\[*`, "[x"}, {"*a*a*", "aaa"}, {"[!a]", "!"}, {"[a-]", "-"}} {
		f.Add(s[0], s[1])
	}
	f.Fuzz(func(t *testing.T, pattern, s string) {
		err := specs.CheckGlob(pattern)
		got := specs.Glob(pattern, s)
		if err != nil && got {
			t.Fatalf("the malformed glob %q matches %q", pattern, s)
		}
		ascii := !strings.ContainsFunc(pattern+s, func(r rune) bool { return r >= 0x80 })
		if err != nil || !ascii || strings.Contains(s, "/") {
			return
		}
		want, err := path.Match(pattern, s)
		if err != nil {
			t.Fatalf("path.Match refuses %q, CheckGlob does not", pattern)
		}
		if got != want {
			t.Fatalf("Glob(%q, %q) = %t", pattern, s, got)
		}
	})
}
