// SPDX-License-Identifier: Apache-2.0

package value

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/cilium/ebpf/btf"

	"github.com/linkpin/linkpin/specs"
	"github.com/linkpin/linkpin/specs/policy"
)

// interfaceNameSize is IFNAMSIZ, with the NUL, in bytes (include/uapi/linux/if.h).
const interfaceNameSize = 16

// variables are what a policy may name. sizes are the sizes of integers that
// can hold every value.
var variables = []struct {
	name  specs.Variable
	kind  variableKind
	sizes []int
}{
	{specs.VarIfindex, numberVariable, []int{4, 8}},
	{specs.VarPeerIfindex, numberVariable, []int{4, 8}},
	{specs.VarCgroupID, numberVariable, []int{8}},
	{specs.VarNetnsCookie, numberVariable, []int{8}},
	{specs.VarPID, numberVariable, []int{4, 8}},
	{specs.VarIP, ipVariable, nil},
	{specs.VarMAC, macVariable, nil},
	{specs.VarContainerID, textVariable, []int{8}}, // as a hash
	{specs.VarPeerMAC, macVariable, nil},
	{specs.VarPeerName, textVariable, nil},
}

type variableKind int

const (
	numberVariable variableKind = iota
	ipVariable
	macVariable
	textVariable
)

// isVariable says whether text is meant to be a variable.
func isVariable(text string) bool {
	return strings.HasPrefix(strings.TrimPrefix(text, bePrefix), "${")
}

// isTextVariable says whether text is a variable that is text.
func isTextVariable(text string) bool {
	for _, known := range variables {
		if known.kind == textVariable && text == "${"+string(known.name)+"}" {
			return true
		}
	}
	return false
}

// variable makes p a hole for the variable that v names.
func (e *encoder) variable(p place, v *policy.Value) error {
	text, forced := strings.CutPrefix(v.Text, bePrefix)
	name, closed := strings.CutSuffix(strings.TrimPrefix(text, "${"), "}")
	if !closed || strings.ContainsAny(name, "${}") {
		return fail(v, "write ${name} alone, or text:… where text is meant literally", "%s is no variable", quote(v.Text))
	}
	for _, known := range variables {
		if string(known.name) != name {
			continue
		}
		hole := specs.Hole{Offset: p.off, Size: sizeof(p.typ), Variable: known.name}
		number, needs := false, ""
		switch known.kind {
		case numberVariable:
			number, needs = true, needsInteger(p.typ, known.sizes)
		case ipVariable:
			needs = needsAddress(p.typ, ipv4Size, ipv6Size)
		case macVariable:
			needs = needsAddress(p.typ, macSize)
		case textVariable:
			needs = needsText(p.typ, known.name)
			if known.name == specs.VarContainerID && needsInteger(p.typ, known.sizes) == "" {
				hole.Variable = specs.VarContainerIDHash
				number, needs = true, ""
			}
		}
		if needs != "" {
			return fail(v, "it needs "+needs, "%s does not fit %s", v.Text, TypeName(p.typ))
		}
		if forced && !number {
			return fail(v, "write "+text, "%s is no number here, so it has no byte order", text)
		}
		hole.BigEndian = number && (forced || orderOf(p) == network)
		e.holes = append(e.holes, hole)
		return nil
	}
	var names []string
	for _, known := range variables {
		names = append(names, "${"+string(known.name)+"}")
	}
	return fail(v, "write "+list(names), "%s is no variable", quote(v.Text))
}

// needsInteger returns what is needed if t is not it.
func needsInteger(t btf.Type, sizes []int) string {
	i, ok := underlying(t).(*btf.Int)
	var all []string
	for _, size := range sizes {
		if ok && !isBool(i) && int(i.Size) == size {
			return ""
		}
		all = append(all, strconv.Itoa(size))
	}
	return "an integer of " + strings.Join(all, " or ") + " bytes"
}

func needsAddress(t btf.Type, sizes ...int) string {
	var all []string
	for _, size := range sizes {
		if addressSize(t) == size {
			return ""
		}
		all = append(all, strconv.Itoa(size))
	}
	return strings.Join(all, " or ") + " bytes of integers"
}

// needsText checks for an array with room for text and its NUL. How long the id
// of a container is, is up to the runtime: one that does not fit is found out
// when it is attached.
func needsText(t btf.Type, name specs.Variable) string {
	array, ok := underlying(t).(*btf.Array)
	if ok {
		_, ok = byteElement(array)
	}
	if name == specs.VarContainerID {
		if ok && array.Nelems > 1 {
			return ""
		}
		return "a char array, or an integer of 8 bytes for its hash"
	}
	if ok && array.Nelems >= interfaceNameSize {
		return ""
	}
	return fmt.Sprintf("a char array of %d bytes or more", interfaceNameSize)
}
