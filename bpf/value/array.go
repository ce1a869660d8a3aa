// SPDX-License-Identifier: Apache-2.0

package value

import (
	"bytes"
	"errors"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/cilium/ebpf/btf"

	"github.com/linkpin/linkpin/specs/policy"
)

// array encodes v as t, the underlying type at p.
func (e *encoder) array(p place, t *btf.Array, v *policy.Value) error {
	elem := place{typ: t.Type, off: p.off, name: p.name}
	switch v.Kind {
	case policy.ListValue:
		if len(v.Items) > int(t.Nelems) {
			return fail(v, "leave out what does not fit", "%d elements do not fit %s", len(v.Items), TypeName(p.typ))
		}
		size := sizeof(t.Type)
		for _, item := range v.Items {
			if err := e.value(elem, item); err != nil {
				return err
			}
			elem.off += size
		}
		return nil
	case policy.ScalarValue:
		if b, ok := byteElement(t); ok {
			return e.byteArray(p, t, b, v)
		}
		if done, err := e.address(p, v); done || err != nil {
			return err
		}
	}
	// One element without brackets.
	if _, ok := members(elementOf(t)); v.Kind == policy.MapValue && !ok {
		return fail(v, "write a list", "a mapping does not fit %s", TypeName(p.typ))
	}
	return e.value(elem, v)
}

// elementOf returns the element type of an array of any number of dimensions.
func elementOf(t *btf.Array) btf.Type {
	for {
		inner, ok := underlying(t.Type).(*btf.Array)
		if !ok {
			return t.Type
		}
		t = inner
	}
}

// byteArray encodes a scalar into an array of one-byte integers: text for char,
// an address or one element for others.
func (e *encoder) byteArray(p place, t *btf.Array, elem *btf.Int, v *policy.Value) error {
	dst := e.at(p)
	text, literal := strings.CutPrefix(v.Text, textPrefix)
	switch {
	case literal:
	case isChar(elem):
		// The text of an IPv4 or MAC address never fits in as many bytes as the
		// address has. That of an IPv6 address does: there, text it is.
		if len(dst) < ipv6Size {
			if raw, ok := parseAddress(text, len(dst)); ok {
				copy(dst, raw)
				return nil
			}
		}
		if strings.Contains(text, "${") {
			return fail(v, "write ${…} alone, or text:… if it is meant literally", "%s has a variable inside of text", quote(text))
		}
	default:
		if done, err := e.address(p, v); done || err != nil {
			return err
		}
		if _, err := parseNumber(text); errors.Is(err, errNoNumber) && !strings.HasPrefix(text, bePrefix) && !isProtocolField(p.name, native) {
			return fail(v, byteArrayRemedy(len(dst), text), "%s does not fit %s", quote(text), TypeName(p.typ))
		}
		return e.value(place{typ: t.Type, off: p.off, name: p.name}, v)
	}
	if strings.IndexByte(text, 0) >= 0 {
		return fail(v, "write hex:…", "%s for %s has a NUL inside", quote(text), TypeName(p.typ))
	}
	room, nul := len(dst), ""
	if isChar(elem) {
		room, nul = room-1, " and a NUL"
	}
	if len(text) > room {
		return fail(v, "write a shorter one, or hex:…", "%s%s (%s) do not fit %s", quote(text), nul, countBytes(len(text)+len(dst)-room), TypeName(p.typ))
	}
	copy(dst, text)
	return nil
}

func byteArrayRemedy(size int, text string) string {
	remedy := "write a list of numbers, hex:…"
	switch size {
	case ipv4Size, ipv6Size:
		remedy += ", an IP address"
	case macSize:
		remedy += ", a MAC address"
	}
	if len(text) <= size {
		remedy += ", or text:" + text + " for its characters"
	}
	return remedy
}

// decodeText returns the text in a char array, or hex:… where it holds anything
// else: no NUL, bytes after the NUL, what can't be printed.
func decodeText(b []byte) string {
	end := bytes.IndexByte(b, 0)
	if end < 0 || len(bytes.Trim(b[end:], "\x00")) > 0 || !utf8.Valid(b[:end]) {
		return formatHex(b)
	}
	text := string(b[:end])
	for _, r := range text {
		if !unicode.IsPrint(r) {
			return formatHex(b)
		}
	}
	if strings.HasPrefix(text, hexPrefix) || strings.HasPrefix(text, textPrefix) ||
		strings.Contains(text, "${") {
		return textPrefix + text
	}
	return text
}
