// SPDX-License-Identifier: Apache-2.0

package pin

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
)

const (
	// maxName is the longest name that Linux takes, in bytes (NAME_MAX).
	maxName = 255
	// maxEscaped bounds what Escape returns, in bytes, so that the longest prefix
	// and suffix of a key or file name still fit.
	maxEscaped = 200
	// escapeByte starts a byte in hexadecimal. bpffs takes every character but "/"
	// and "."; this one is familiar from URLs and harmless in a shell.
	escapeByte = '%'
	// shortened stands between the head of a long name and its hash. Escape never
	// writes it otherwise, since two hexadecimal digits follow an escapeByte.
	shortened = "%%"
)

// Escape turns any text into a name of at most 200 bytes: letters, digits, "_"
// and "-" stand for themselves, every other byte, and a leading "-", as "%" with
// two hexadecimal digits, empty text as "%". Two texts that differ have names
// that differ. Text whose name would be too long is cut and gets its SHA-256
// instead of the rest.
func Escape(s string) string {
	if s == "" {
		return string(escapeByte)
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		writeEscaped(&b, s, i)
		if b.Len() > maxEscaped {
			return shorten(s)
		}
	}
	return b.String()
}

// writeEscaped writes byte i of s.
func writeEscaped(b *strings.Builder, s string, i int) {
	c := s[i]
	if plain(c) && !(i == 0 && c == '-') {
		b.WriteByte(c)
		return
	}
	const digits = "0123456789abcdef"
	b.WriteByte(escapeByte)
	b.WriteByte(digits[c>>4])
	b.WriteByte(digits[c&15])
}

func plain(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '_' || c == '-'
}

func shorten(s string) string {
	const headSize = maxEscaped - len(shortened) - 2*sha256.Size
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		var one strings.Builder
		writeEscaped(&one, s, i)
		if b.Len()+one.Len() > headSize {
			break
		}
		b.WriteString(one.String())
	}
	sum := sha256.Sum256([]byte(s))
	return b.String() + shortened + hex.EncodeToString(sum[:])
}

// Unescape returns the text that Escape turned into name. It fails with
// ErrShortened if only the head of the text is left, and with ErrName if Escape
// never returns name.
func Unescape(name string) (string, error) {
	if name == string(escapeByte) {
		return "", nil
	}
	head, sum, cut := strings.Cut(name, shortened)
	text, err := unescape(head)
	if err != nil {
		return "", err
	}
	if cut {
		if raw, err := hex.DecodeString(sum); err != nil || len(raw) != sha256.Size || strings.ToLower(sum) != sum {
			return "", nameError(name)
		}
		return "", fmt.Errorf("%q %w", name, ErrShortened)
	}
	if Escape(text) != name {
		return "", nameError(name)
	}
	return text, nil
}

func unescape(name string) (string, error) {
	var b strings.Builder
	for i := 0; i < len(name); i++ {
		if name[i] != escapeByte {
			b.WriteByte(name[i])
			continue
		}
		if len(name) < i+3 {
			return "", nameError(name)
		}
		raw, err := hex.DecodeString(name[i+1 : i+3])
		if err != nil {
			return "", nameError(name)
		}
		b.WriteByte(raw[0])
		i += 2
	}
	return b.String(), nil
}

// unescapeOr returns the text of name, or name itself where there is no text.
func unescapeOr(name string) string {
	if s, err := Unescape(name); err == nil {
		return s
	}
	return name
}

// checkName refuses what must not become one component of a path.
func checkName(name string) error {
	if name == "" || len(name) > maxName {
		return nameError(name)
	}
	for i := 0; i < len(name); i++ {
		if !plain(name[i]) && name[i] != escapeByte {
			return nameError(name)
		}
	}
	return nil
}

func nameError(name string) error {
	return fmt.Errorf("%q %w", name, ErrName)
}
