// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"fmt"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"

	"github.com/linkpin/linkpin/bpf/value"
	"github.com/linkpin/linkpin/specs/policy"
)

// typedMap is a map with the BTF types of its keys and values, where it has them.
type typedMap struct {
	*ebpf.Map
	key   btf.Type // nil: only the size is known
	value btf.Type
}

// mapEntry is one entry in the notation of policies.
type mapEntry struct {
	Key   any   `json:"key"`
	Value any   `json:"value,omitempty"`
	CPUs  []any `json:"cpus,omitempty"` // per-CPU maps: the value on each CPU instead of Value
}

// openTyped opens a pinned map for reading. fromObject, which may be nil, returns
// the map as its object declares it: the kernel keeps no types for some maps that
// have them, such as arrays whose index is an enum.
func openTyped(path string, fromObject func() *ebpf.MapSpec) (*typedMap, error) {
	m, err := ebpf.LoadPinnedMap(path, &ebpf.LoadPinOptions{ReadOnly: true})
	if err != nil {
		return nil, err
	}
	t := &typedMap{Map: m}
	if err := t.findTypes(); err != nil {
		m.Close()
		return nil, err
	}
	if t.key == nil && t.value == nil && fromObject != nil {
		t.takeTypes(fromObject())
	}
	return t, nil
}

// takeTypes takes the types of a declaration as far as they fit.
func (m *typedMap) takeTypes(spec *ebpf.MapSpec) {
	if spec == nil {
		return
	}
	if size, err := btf.Sizeof(spec.Key); spec.Key != nil && err == nil && uint32(size) == m.KeySize() {
		m.key = spec.Key
	}
	if size, err := btf.Sizeof(spec.Value); spec.Value != nil && err == nil && uint32(size) == m.ValueSize() {
		m.value = spec.Value
	}
}

// mapInfo is the beginning of struct bpf_map_info (include/uapi/linux/bpf.h), up
// to what the library does not hand out: the ids of the BTF types.
type mapInfo struct {
	kind, id, keySize, valueSize, maxEntries, flags uint32
	name                                            [unix.BPF_OBJ_NAME_LEN]byte
	ifindex, vmlinuxValueType                       uint32
	netnsDev, netnsIno                              uint64
	btf, keyType, valueType, vmlinux                uint32
}

// readInfo asks the kernel (BPF_OBJ_GET_INFO_BY_FD, kernel 4.18 for the types).
func readInfo(m *ebpf.Map) (mapInfo, error) {
	var info mapInfo
	attr := struct {
		fd, size uint32
		info     unsafe.Pointer // a number would not follow a stack that is moved
	}{uint32(m.FD()), uint32(unsafe.Sizeof(info)), unsafe.Pointer(&info)}
	_, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_OBJ_GET_INFO_BY_FD, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	if errno != 0 {
		return info, fmt.Errorf("reading what the kernel knows of the map: %w", errno)
	}
	return info, nil
}

func (m *typedMap) findTypes() error {
	info, err := readInfo(m.Map)
	if err != nil {
		return err
	}
	if info.btf == 0 {
		return nil
	}
	handle, err := btf.NewHandleFromID(btf.ID(info.btf))
	if err != nil {
		return fmt.Errorf("reading the types of the map: %w", err)
	}
	defer handle.Close()
	types, err := handle.Spec(nil)
	if err != nil {
		return fmt.Errorf("reading the types of the map: %w", err)
	}
	if m.key, err = typeByID(types, info.keyType); err != nil {
		return err
	}
	m.value, err = typeByID(types, info.valueType)
	return err
}

func typeByID(types *btf.Spec, id uint32) (btf.Type, error) {
	if id == 0 {
		return nil, nil
	}
	t, err := types.TypeByID(btf.TypeID(id))
	if err != nil {
		return nil, fmt.Errorf("reading the types of the map: %w", err)
	}
	return t, nil
}

// errNoEntries means a map of a type that has nothing to read by key.
var errNoEntries = errors.New("maps of this type have no entries that can be read")

func (m *typedMap) checkReadable() error {
	switch m.Type() {
	case ebpf.RingBuf, ebpf.UserRingbuf, ebpf.Queue, ebpf.Stack, ebpf.PerfEventArray, ebpf.BloomFilter,
		ebpf.SkStorage, ebpf.InodeStorage, ebpf.TaskStorage, ebpf.CGroupStorage, ebpf.CGroupArray:
		return fmt.Errorf("%w: %s", errNoEntries, m.Type())
	}
	return nil
}

// perCPU reports whether the map has a value for each CPU.
func (m *typedMap) perCPU() bool {
	switch m.Type() {
	case ebpf.PerCPUHash, ebpf.PerCPUArray, ebpf.LRUCPUHash, ebpf.PerCPUCGroupStorage:
		return true
	}
	return false
}

// each calls fn for every entry. Entries that come and go meanwhile may be left
// out or come twice.
func (m *typedMap) each(fn func(mapEntry) error) error {
	if err := m.checkReadable(); err != nil {
		return err
	}
	var key []byte
	var one []byte
	var all [][]byte
	target := any(&one)
	if m.perCPU() {
		target = &all
	}
	it := m.Iterate()
	for it.Next(&key, target) {
		e, err := m.decode(key, one, all)
		if err != nil {
			return err
		}
		if err := fn(e); err != nil {
			return err
		}
	}
	return it.Err()
}

// get reads one entry; the error wraps ebpf.ErrKeyNotExist if there is none.
func (m *typedMap) get(key []byte) (mapEntry, error) {
	if err := m.checkReadable(); err != nil {
		return mapEntry{}, err
	}
	var one []byte
	var all [][]byte
	var err error
	if m.perCPU() {
		err = m.Lookup(key, &all)
	} else {
		err = m.Lookup(key, &one)
	}
	if err != nil {
		return mapEntry{}, err
	}
	return m.decode(key, one, all)
}

func (m *typedMap) decode(key, one []byte, all [][]byte) (mapEntry, error) {
	var e mapEntry
	var err error
	if e.Key, err = value.DecodeKey(m.key, m.Type(), key); err != nil {
		return e, err
	}
	if !m.perCPU() {
		e.Value, err = m.decodeValue(one)
		return e, err
	}
	for _, data := range all {
		v, err := m.decodeValue(data)
		if err != nil {
			return e, err
		}
		e.CPUs = append(e.CPUs, v)
	}
	return e, nil
}

// decodeValue decodes a value. The values of maps of maps and programs are ids,
// whatever the BTF says.
func (m *typedMap) decodeValue(data []byte) (any, error) {
	switch m.Type() {
	case ebpf.ProgramArray, ebpf.ArrayOfMaps, ebpf.HashOfMaps:
		return value.DecodeSized(data), nil
	}
	if m.value == nil {
		return value.DecodeSized(data), nil
	}
	// Where the sizes differ the BTF is not that of the values.
	if v, err := value.Decode(m.value, data); !errors.Is(err, value.ErrSize) {
		return v, err
	}
	return value.DecodeSized(data), nil
}

// encodeKey turns a key from the command line into bytes.
func (m *typedMap) encodeKey(v *policy.Value) ([]byte, error) {
	b, err := value.EncodeKey(m.key, m.KeySize(), m.Type(), v)
	if err != nil {
		return nil, err
	}
	if len(b.Holes) > 0 {
		return nil, fmt.Errorf("${%s} has no value here", b.Holes[0].Variable)
	}
	return b.Data, nil
}
