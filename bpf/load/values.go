// SPDX-License-Identifier: Apache-2.0

package load

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/linkpin/linkpin/specs"
)

// Values are what is known only when a container is attached (specs.Variable).
// The zero value of a field means that there is none.
type Values struct {
	Ifindex     uint64 // of the interface that programs are attached to
	PeerIfindex uint64
	CgroupID    uint64
	NetnsCookie uint64
	PID         uint64
	IPv4        netip.Addr
	IPv6        netip.Addr
	MAC         net.HardwareAddr
	PeerMAC     net.HardwareAddr
	PeerName    string
	ContainerID string
}

// ErrNoValue means that a policy uses a variable that the target does not have.
var ErrNoValue = errors.New("has no value here")

// missing says why a variable may have no value.
var missing = map[specs.Variable]string{
	specs.VarIfindex:         "the program is not attached to an interface",
	specs.VarPeerIfindex:     "the interface has no peer in the host's network namespace",
	specs.VarCgroupID:        "the program is not attached to a cgroup",
	specs.VarNetnsCookie:     "the container has no network namespace of its own",
	specs.VarPID:             "no process of the container is known",
	specs.VarIP:              "the container's interface has no address of this family",
	specs.VarMAC:             "the container's interface has no MAC address",
	specs.VarContainerID:     "the container has no id",
	specs.VarContainerIDHash: "the container has no id",
	specs.VarPeerMAC:         "the interface has no peer in the host's network namespace",
	specs.VarPeerName:        "the interface has no peer in the host's network namespace",
}

// fill returns the bytes with their holes filled.
func (v *Values) fill(b specs.Bytes) ([]byte, error) {
	if len(b.Holes) == 0 {
		return b.Data, nil
	}
	out := slices.Clone(b.Data)
	for _, h := range b.Holes {
		if h.Offset < 0 || h.Size <= 0 || h.Offset > len(out)-h.Size {
			return nil, fmt.Errorf("${%s} lies outside of its value", h.Variable)
		}
		if err := v.put(out[h.Offset:h.Offset+h.Size], h); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (v *Values) put(dst []byte, h specs.Hole) error {
	var raw []byte
	switch h.Variable {
	case specs.VarIP:
		raw = v.ip(h.Size)
	case specs.VarMAC:
		raw = v.MAC
	case specs.VarPeerMAC:
		raw = v.PeerMAC
	case specs.VarContainerID:
		return putText(dst, h.Variable, v.ContainerID)
	case specs.VarPeerName:
		return putText(dst, h.Variable, v.PeerName)
	default:
		return putNumber(dst, h, v.number(h.Variable))
	}
	if len(raw) == 0 {
		return noValue(h.Variable)
	}
	if len(raw) != h.Size {
		return fmt.Errorf("${%s} has %d bytes and its field has %d", h.Variable, len(raw), h.Size)
	}
	copy(dst, raw)
	return nil
}

func (v *Values) ip(size int) []byte {
	switch {
	case size == 4 && v.IPv4.Is4():
		return v.IPv4.AsSlice()
	case size == 16 && v.IPv6.Is6():
		return v.IPv6.AsSlice()
	}
	return nil
}

// number returns 0 for what has no value; none of the variables can be 0.
func (v *Values) number(name specs.Variable) uint64 {
	switch name {
	case specs.VarIfindex:
		return v.Ifindex
	case specs.VarPeerIfindex:
		return v.PeerIfindex
	case specs.VarCgroupID:
		return v.CgroupID
	case specs.VarNetnsCookie:
		return v.NetnsCookie
	case specs.VarPID:
		return v.PID
	case specs.VarContainerIDHash:
		return hashID(v.ContainerID)
	}
	return 0
}

func hashID(id string) uint64 {
	if id == "" {
		return 0
	}
	sum := sha256.Sum256([]byte(id))
	return binary.LittleEndian.Uint64(sum[:8])
}

func putNumber(dst []byte, h specs.Hole, n uint64) error {
	if n == 0 {
		return noValue(h.Variable)
	}
	if h.Size < 8 && n>>(8*h.Size) != 0 {
		return fmt.Errorf("${%s} is %d, which does not fit into %d bytes", h.Variable, n, h.Size)
	}
	var order binary.ByteOrder = binary.NativeEndian
	if h.BigEndian {
		order = binary.BigEndian
	}
	switch h.Size {
	case 1:
		dst[0] = byte(n)
	case 2:
		order.PutUint16(dst, uint16(n))
	case 4:
		order.PutUint32(dst, uint32(n))
	case 8:
		order.PutUint64(dst, n)
	default:
		return fmt.Errorf("${%s} is a number and its field has %d bytes", h.Variable, h.Size)
	}
	return nil
}

func putText(dst []byte, name specs.Variable, s string) error {
	if s == "" {
		return noValue(name)
	}
	if len(s) >= len(dst) {
		return fmt.Errorf("${%s} has %d bytes, and its field takes at most %d", name, len(s), len(dst)-1)
	}
	clear(dst[copy(dst, s):])
	return nil
}

func noValue(name specs.Variable) error {
	why := missing[name]
	if why == "" {
		return fmt.Errorf("${%s} is not a variable", name)
	}
	return fmt.Errorf("${%s} %w: %s", name, ErrNoValue, why)
}
