// SPDX-License-Identifier: Apache-2.0

package value

import (
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"
)

var (
	errNoNumber    = errors.New("not a number")
	errLeadingZero = errors.New("a leading zero could mean octal")
)

// parseNumber reads an integer as Go writes them, but refuses C's octal.
func parseNumber(s string) (*big.Int, error) {
	if len(s) > 200 { // reading takes quadratic time
		return nil, errNoNumber
	}
	n, ok := new(big.Int).SetString(s, 0)
	digits := strings.TrimLeft(s, "+-")
	if len(digits) > 1 && digits[0] == '0' && strings.Trim(digits, "0123456789_") == "" {
		return nil, errLeadingZero
	}
	if !ok {
		return nil, errNoNumber
	}
	return n, nil
}

// limits is a range of integers.
type limits struct{ low, high *big.Int }

func signedLimits(bits uint) limits {
	half := new(big.Int).Lsh(big.NewInt(1), bits-1)
	return limits{new(big.Int).Neg(half), new(big.Int).Sub(half, big.NewInt(1))}
}

func unsignedLimits(bits uint) limits {
	all := new(big.Int).Lsh(big.NewInt(1), bits)
	return limits{new(big.Int), all.Sub(all, big.NewInt(1))}
}

// eitherLimits holds what fits as a signed or as an unsigned integer.
func eitherLimits(bits uint) limits {
	return limits{signedLimits(bits).low, unsignedLimits(bits).high}
}

func (l limits) contain(n *big.Int) bool { return n.Cmp(l.low) >= 0 && n.Cmp(l.high) <= 0 }

func (l limits) String() string { return fmt.Sprintf("%d to %d", l.low, l.high) }

// byteOrder is that of an integer.
type byteOrder int

const (
	native byteOrder = iota
	network
)

// bigEndian says whether the first byte is the most significant one.
func (o byteOrder) bigEndian() bool {
	return o == network || binary.NativeEndian.Uint16([]byte{0, 1}) == 1
}

// putInt writes n in two's complement.
func putInt(dst []byte, n *big.Int, o byteOrder) {
	twosComplement(n, uint(len(dst))*8).FillBytes(dst)
	if !o.bigEndian() {
		slices.Reverse(dst)
	}
}

// getInt is the reverse of putInt.
func getInt(src []byte, o byteOrder) (unsigned *big.Int) {
	src = slices.Clone(src)
	if !o.bigEndian() {
		slices.Reverse(src)
	}
	return new(big.Int).SetBytes(src)
}

// putBits writes a bitfield of that many bits. Bitfields are counted from the
// least significant bit of the first byte on little-endian machines, from the
// most significant one on others (Documentation/bpf/btf.rst, BTF_KIND_STRUCT).
func putBits(dst []byte, off, bits uint, n *big.Int) {
	n = twosComplement(n, bits)
	for i := range bits {
		at, mask := bitAt(off, bits, i)
		if n.Bit(int(i)) == 1 {
			dst[at] |= mask
		} else {
			dst[at] &^= mask
		}
	}
}

func getBits(src []byte, off, bits uint) (unsigned *big.Int) {
	n := new(big.Int)
	for i := range bits {
		if at, mask := bitAt(off, bits, i); src[at]&mask != 0 {
			n.SetBit(n, int(i), 1)
		}
	}
	return n
}

// bitAt returns where bit i, counted from the least significant one, is.
func bitAt(off, bits, i uint) (at uint, mask byte) {
	if native.bigEndian() {
		pos := off + bits - 1 - i
		return pos / 8, 0x80 >> (pos % 8)
	}
	pos := off + i
	return pos / 8, 1 << (pos % 8)
}

func twosComplement(n *big.Int, bits uint) *big.Int {
	if n.Sign() >= 0 {
		return n
	}
	return new(big.Int).Add(n, new(big.Int).Lsh(big.NewInt(1), bits))
}

// asSigned reads an unsigned number of that many bits as two's complement.
func asSigned(n *big.Int, bits uint) *big.Int {
	if n.Bit(int(bits)-1) == 0 {
		return n
	}
	return new(big.Int).Sub(n, new(big.Int).Lsh(big.NewInt(1), bits))
}

// jsonNumber returns n as what encoding/json writes as a number with all digits.
func jsonNumber(n *big.Int) any {
	switch {
	case n.IsInt64():
		return n.Int64()
	case n.IsUint64():
		return n.Uint64()
	default:
		return json.Number(n.String())
	}
}

func parseHex(digits string) ([]byte, error) {
	raw, err := hex.DecodeString(digits)
	if err != nil {
		return nil, errors.New("not hexadecimal bytes")
	}
	return raw, nil
}

func formatHex(b []byte) string { return hexPrefix + hex.EncodeToString(b) }
