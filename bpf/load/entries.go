// SPDX-License-Identifier: Apache-2.0

package load

import (
	"errors"
	"fmt"
	"reflect"
	"slices"

	"github.com/cilium/ebpf"

	"github.com/linkpin/linkpin/specs"
)

// batch is how many entries are written by one call. Thousands of prefixes in one
// map take a third of the time that way.
const batch = 1024

// putEntries writes the policy's entries.
func (l *loader) putEntries(m *specs.PlanMap, to *ebpf.Map) error {
	var keys, values [][]byte
	var numbers []int // of the entries in the policy, for errors
	for i, e := range m.Entries {
		if e.Program != "" {
			continue
		}
		key, err := l.o.Values.fill(e.Key)
		if err != nil {
			return l.fail(fmt.Sprintf("map %s: key of entry %d", m.Name, i+1), err, "")
		}
		value, err := l.o.Values.fill(e.Value)
		if err != nil {
			return l.fail(fmt.Sprintf("map %s: value of entry %d", m.Name, i+1), err, "")
		}
		keys, values, numbers = append(keys, key), append(values, value), append(numbers, i+1)
	}
	for len(keys) > 0 {
		if err := l.expired(); err != nil {
			return err
		}
		n := min(len(keys), batch)
		if done, err := putAll(to, keys[:n], values[:n]); err != nil {
			return l.fail(fmt.Sprintf("map %s: entry %d", m.Name, numbers[min(done, n-1)]), err, "")
		}
		keys, values, numbers = keys[n:], values[n:], numbers[n:]
	}
	return nil
}

// putAll writes entries and returns how many were written. Kernels before 5.6 and
// some types of maps take them only one by one.
func putAll(to *ebpf.Map, keys, values [][]byte) (done int, err error) {
	if len(keys) > 1 && !perCPU(to.Type()) && sized(keys, to.KeySize()) && sized(values, to.ValueSize()) {
		done, err = to.BatchUpdate(packed(keys), packed(values), nil)
		if !errors.Is(err, ebpf.ErrNotSupported) {
			return done, err
		}
	}
	for i := range keys {
		if err := put(to, keys[i], values[i]); err != nil {
			return i, err
		}
	}
	return len(keys), nil
}

// put writes one entry. A per-CPU map gets the same value on every possible CPU;
// queues, stacks and bloom filters have no keys.
func put(to *ebpf.Map, key, value []byte) error {
	var k, v any = key, value
	if len(key) == 0 {
		k = nil
	}
	if perCPU(to.Type()) {
		cpus, err := ebpf.PossibleCPU()
		if err != nil {
			return err
		}
		v = slices.Repeat([][]byte{value}, cpus)
	}
	return to.Put(k, v)
}

func sized(items [][]byte, size uint32) bool {
	return !slices.ContainsFunc(items, func(b []byte) bool { return len(b) != int(size) })
}

// packed returns items as a slice of arrays: the library counts the elements of
// what it is given, and passes on the bytes.
func packed(items [][]byte) any {
	element := reflect.ArrayOf(len(items[0]), reflect.TypeFor[byte]())
	out := reflect.MakeSlice(reflect.SliceOf(element), len(items), len(items))
	for i, b := range items {
		reflect.Copy(out.Index(i), reflect.ValueOf(b))
	}
	return out.Interface()
}

// perCPU reports whether a map holds one value for each possible CPU.
func perCPU(t ebpf.MapType) bool {
	switch t {
	case ebpf.PerCPUHash, ebpf.PerCPUArray, ebpf.LRUCPUHash, ebpf.PerCPUCGroupStorage:
		return true
	}
	return false
}
