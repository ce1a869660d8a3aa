// SPDX-License-Identifier: Apache-2.0

// Package programs holds the objects of the built-in policies: egress and meter.
// Their sources are in c/, their reference is docs/policies.md.
//
// The committed objects are little endian and made once: amd64 and arm64 share
// them. bpf2go and the flags below keep paths of the build machine out of them.
package programs

import (
	"bytes"
	"errors"
	"fmt"
)

//go:generate go tool bpf2go -target bpfel -type event -type rule -type reason -type place -type ip_proto egress c/egress.c -- -mcpu=v3 -Wall -Werror -idirafter /usr/include/x86_64-linux-gnu -idirafter /usr/include/aarch64-linux-gnu
//go:generate go tool bpf2go -target bpfel -type traffic meter c/meter.c -- -mcpu=v3 -Wall -Werror -idirafter /usr/include/x86_64-linux-gnu -idirafter /usr/include/aarch64-linux-gnu

// ErrUnknown means that there is no built-in object of that name.
var ErrUnknown = errors.New("no such built-in object")

// Names returns the names of the built-in objects, in alphabetical order.
func Names() []string { return []string{"egress", "meter"} }

// Object returns the ELF file of a built-in object. It is the caller's own copy.
// The error wraps ErrUnknown.
func Object(name string) ([]byte, error) {
	switch name {
	case "egress":
		return bytes.Clone(_EgressBytes), nil
	case "meter":
		return bytes.Clone(_MeterBytes), nil
	}
	return nil, fmt.Errorf("%q: %w", name, ErrUnknown)
}
