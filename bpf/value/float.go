// SPDX-License-Identifier: Apache-2.0

package value

import (
	"encoding/binary"
	"errors"
	"math"
	"strconv"
	"strings"

	"github.com/cilium/ebpf/btf"

	"github.com/linkpin/linkpin/specs/policy"
)

// float encodes v as t, the underlying type at p.
func (e *encoder) float(p place, t *btf.Float, v *policy.Value) error {
	if v.Kind != policy.ScalarValue {
		return fail(v, "write one number", "a %s does not fit %s", kindName(v), TypeName(p.typ))
	}
	if t.Size != 4 && t.Size != 8 {
		return fail(v, "write hex:…", "%s with %s is %w", TypeName(p.typ), countBytes(int(t.Size)), ErrUnsupported)
	}
	f, err := parseFloat(v.Text, int(t.Size)*8)
	switch {
	case errors.Is(err, strconv.ErrRange):
		return fail(v, "write a smaller number", "%s does not fit %s", quoteNumber(v.Text), TypeName(p.typ))
	case err != nil:
		return fail(v, "write a number, .inf or .nan", "%s is no number, which %s needs", quote(v.Text), TypeName(p.typ))
	}
	if t.Size == 4 {
		binary.NativeEndian.PutUint32(e.at(p), math.Float32bits(float32(f)))
	} else {
		binary.NativeEndian.PutUint64(e.at(p), math.Float64bits(f))
	}
	return nil
}

// parseFloat reads a number, also as YAML writes what has no digits.
func parseFloat(text string, bits int) (float64, error) {
	switch strings.ToLower(text) {
	case ".inf", "+.inf":
		return math.Inf(1), nil
	case "-.inf":
		return math.Inf(-1), nil
	case ".nan":
		return math.NaN(), nil
	}
	return strconv.ParseFloat(text, bits)
}

// decodeFloat returns a number, or text where JSON has no number.
func decodeFloat(b []byte) any {
	var f float64
	switch len(b) {
	case 4:
		f = float64(math.Float32frombits(binary.NativeEndian.Uint32(b)))
	case 8:
		f = math.Float64frombits(binary.NativeEndian.Uint64(b))
	default:
		return formatHex(b)
	}
	switch {
	case math.IsNaN(f):
		return formatHex(b) // there are many
	case math.IsInf(f, 1):
		return ".inf"
	case math.IsInf(f, -1):
		return "-.inf"
	case len(b) == 4:
		return float32(f)
	default:
		return f
	}
}
