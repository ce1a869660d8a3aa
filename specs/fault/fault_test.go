// SPDX-License-Identifier: Apache-2.0

package fault_test

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/linkpin/linkpin/specs/fault"
)

func TestError(t *testing.T) {
	for _, tc := range []struct {
		name string
		err  *fault.Error
		want string
	}{
		{"remedy", fault.Newf("/etc/x:4", "unknown key", "remove it"), "/etc/x:4: unknown key; remove it"},
		{"no remedy", fault.Newf("eth0", "is gone", ""), "eth0: is gone"},
		{"many lines", fault.Newf("a\nb", "c\nd", "e"), "a; b: c; d; e"},
		{"wrapped", fault.New("x", fmt.Errorf("open: %w", fs.ErrNotExist), "make it"), "x: open: file does not exist; make it"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := tc.err.Error(); got != tc.want {
				t.Errorf("got  %q\nwant %q", got, tc.want)
			}
		})
	}
	err := fault.New("x", fmt.Errorf("open: %w", fs.ErrNotExist), "")
	if !errors.Is(err, fs.ErrNotExist) {
		t.Error("the cause can't be found with errors.Is")
	}
}

func TestExitCode(t *testing.T) {
	plain := errors.New("plain")
	config := fault.Newf("set", "damaged", "apply").WithExit(fault.ExitConfig)
	for _, tc := range []struct {
		name string
		err  error
		want int
	}{
		{"nil", nil, fault.ExitOK},
		{"plain", plain, fault.ExitFailed},
		{"without a code", fault.Newf("a", "b", ""), fault.ExitFailed},
		{"with a code", config, fault.ExitConfig},
		{"wrapped by text", fmt.Errorf("hook: %w", config), fault.ExitConfig},
		{"wrapped by one without a code", fault.New("a", config, ""), fault.ExitConfig},
		{"the outermost wins", fault.New("a", config, "").WithExit(fault.ExitUnavailable), fault.ExitUnavailable},
		{"joined", errors.Join(plain, config), fault.ExitConfig},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := fault.ExitCode(tc.err); got != tc.want {
				t.Errorf("got %d, want %d", got, tc.want)
			}
		})
	}
}

func TestOneLine(t *testing.T) {
	for in, want := range map[string]string{
		"":                      "",
		"plain text, déjà vu ⇒": "plain text, déjà vu ⇒",
		"a\nb\n":                "a; b",
		"a\tb\rc":               `a\tb\rc`,
		"\x1b[31mred":           `\x1b[31mred`,
		"nul\x00":               `nul\x00`,
		"bad\xff\xfeutf8":       `bad\xff\xfeutf8`,
		"real \uFFFD":           "real \uFFFD",
		"\u202eevil":            `\u202eevil`,
		"a\u2028b\u0085c":       `a\u2028b\u0085c`,
		"\u009b31m":             `\u009b31m`,
	} {
		if got := fault.OneLine(in); got != want {
			t.Errorf("OneLine(%q) = %q, want %q", in, got, want)
		}
	}
}

func FuzzOneLine(f *testing.F) {
	for _, s := range []string{"", "a\nb", "\xff", "\u202e\x1b[2J", "\uFFFD\xEF\xBF"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := fault.OneLine(s)
		if strings.ContainsAny(got, "\n\r\x1b\x00") || !utf8.ValidString(got) {
			t.Errorf("OneLine(%q) = %q", s, got)
		}
		if again := fault.OneLine(got); again != got {
			t.Errorf("not stable: %q, then %q", got, again)
		}
	})
}
