// SPDX-License-Identifier: Apache-2.0

package load

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
)

// family groups the types of maps between which entries can be copied by key; 0:
// those of which nothing is copied.
func family(t ebpf.MapType) int {
	switch t {
	case ebpf.Hash, ebpf.LRUHash:
		return 1
	case ebpf.PerCPUHash, ebpf.LRUCPUHash:
		return 2
	case ebpf.Array:
		return 3
	case ebpf.PerCPUArray:
		return 4
	case ebpf.LPMTrie:
		return 5
	}
	return 0
}

// carries returns nil if the entries of a running map can be put into a new one.
func carries(spec *ebpf.MapSpec, have *ebpf.Map, keys, values layout) error {
	switch {
	case family(have.Type()) == 0 || family(have.Type()) != family(spec.Type):
		return fmt.Errorf("a map of type %s, from one of type %s", spec.Type, have.Type())
	case spec.KeySize != have.KeySize():
		return fmt.Errorf("keys of %d bytes, from %d", spec.KeySize, have.KeySize())
	case !keys.same && keys.why != nil:
		return fmt.Errorf("keys: %w", keys.why)
	case !keys.same:
		return errors.New("the fields of its keys have changed")
	case values.why != nil:
		return fmt.Errorf("values: %w", values.why)
	case values.same && spec.ValueSize != have.ValueSize():
		return fmt.Errorf("values of %d bytes, from %d, and no BTF that names their fields", spec.ValueSize, have.ValueSize())
	}
	return nil
}

// carrying copies what a running map holds into a new one, in which the new policy's
// entries stand already.
type carrying struct {
	from     *ebpf.Map
	convert  func([]byte) []byte
	old, now map[string][]byte // entries of the policies, by key
}

// tries bounds how often a map is read again that changes while it is read.
const tries = 10

func (c *carrying) run(to *ebpf.Map) error {
	var err error
	var seen map[string]bool
	for range tries {
		seen = map[string]bool{}
		if err = c.copyAll(to, seen); !errors.Is(err, ebpf.ErrIterationAborted) {
			break
		}
	}
	if err != nil || isArray(to.Type()) {
		return err
	}
	// What the policy set and the running programs have removed stays removed.
	for key, value := range c.now {
		if was, ok := c.old[key]; ok && bytes.Equal(was, value) && !seen[key] {
			if err := to.Delete([]byte(key)); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
				return err
			}
		}
	}
	return nil
}

func isArray(t ebpf.MapType) bool { return t == ebpf.Array || t == ebpf.PerCPUArray }

func (c *carrying) copyAll(to *ebpf.Map, seen map[string]bool) error {
	key := make([]byte, c.from.KeySize())
	it := c.from.Iterate()
	for {
		var value []byte
		var each [][]byte
		var more bool
		if perCPU(c.from.Type()) {
			more = it.Next(&key, &each)
		} else {
			more = it.Next(&key, &value)
		}
		if !more {
			return it.Err()
		}
		seen[string(key)] = true
		if c.policys(key) {
			continue
		}
		if each == nil {
			each = [][]byte{value}
		}
		if err := c.put(to, key, each); err != nil {
			return err
		}
	}
}

// policys reports whether the policies, and not the programs, say what the new map
// holds under a key: what the old one set and the new one does not, or not so, goes.
func (c *carrying) policys(key []byte) bool {
	was, old := c.old[string(key)]
	is, now := c.now[string(key)]
	return old != now || old && !bytes.Equal(was, is)
}

func (c *carrying) put(to *ebpf.Map, key []byte, each [][]byte) error {
	zero := true
	out := make([][]byte, len(each))
	for i, value := range each {
		out[i] = c.convert(value)
		zero = zero && len(bytes.Trim(value, "\x00")) == 0
	}
	var err error
	if perCPU(to.Type()) {
		err = to.Put(bytes.Clone(key), out)
	} else {
		err = to.Put(bytes.Clone(key), out[0])
	}
	switch {
	case err == nil:
		return nil
	case isArray(to.Type()) && zero: // beyond the end of a smaller array
		return nil
	}
	return fmt.Errorf("the running map holds more than the new one takes (%d entries): %w", to.MaxEntries(), err)
}
