// SPDX-License-Identifier: Apache-2.0

package pin

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"syscall"
	"unicode/utf8"

	"github.com/cilium/ebpf"
)

// A record is JSON in the only element of an array map: its length in 4 bytes,
// little endian, the JSON, and zeros up to a multiple of 8. The map is frozen
// before it is pinned, so that its content never changes.
const (
	metaHeader = 4
	metaAlign  = 8
	metaName   = "linkpin_meta"
	intentName = "linkpin_intent"
)

// encodeMeta returns the map's value for a record.
func encodeMeta(rec Record) ([]byte, error) {
	// JSON would quietly change such a path into one that does not exist, and an
	// entry whose target does not exist is retired.
	if rec.Cgroup != nil && !utf8.ValidString(rec.Cgroup.Path) {
		return nil, fmt.Errorf("path of the cgroup %q is not UTF-8", rec.Cgroup.Path)
	}
	if rec.Netns != nil && !utf8.ValidString(rec.Netns.Path) {
		return nil, fmt.Errorf("path of the network namespace %q is not UTF-8", rec.Netns.Path)
	}
	text, err := json.Marshal(rec)
	if err != nil {
		return nil, err
	}
	return frame(text)
}

// frame returns the map's value for a text.
func frame(text []byte) ([]byte, error) {
	size := (metaHeader + len(text) + metaAlign - 1) &^ (metaAlign - 1)
	if size > MaxRecord {
		return nil, fmt.Errorf("record of %d bytes %w, at most %d", len(text), ErrTooLarge, MaxRecord)
	}
	value := make([]byte, size)
	binary.LittleEndian.PutUint32(value, uint32(len(text)))
	copy(value[metaHeader:], text)
	return value, nil
}

// unframe is the reverse of frame. It refuses every other value.
func unframe(value []byte) ([]byte, error) {
	if len(value) < metaHeader {
		return nil, damaged("%d bytes", len(value))
	}
	size, rest := uint64(binary.LittleEndian.Uint32(value)), value[metaHeader:]
	if size > uint64(len(rest)) {
		return nil, damaged("it claims %d bytes of %d", size, len(rest))
	}
	if len(bytes.Trim(rest[size:], "\x00")) > 0 || len(rest)-int(size) >= metaAlign {
		return nil, damaged("it is longer than it claims")
	}
	return rest[:size], nil
}

// decodeMeta is the reverse of encodeMeta. It refuses every other value; the size
// is for the caller to bound.
func decodeMeta(value []byte) (Record, error) {
	var rec Record
	text, err := unframe(value)
	if err != nil {
		return rec, err
	}
	return decodeRecord(text)
}

func decodeRecord(text []byte) (Record, error) {
	var rec Record
	// The version comes first: what another version means by a field is unknown.
	var v struct {
		Version int `json:"version"`
	}
	if err := json.Unmarshal(text, &v); err != nil {
		return rec, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if v.Version != RecordVersion {
		return rec, damaged("version %d, this linkpin knows %d", v.Version, RecordVersion)
	}
	if err := json.Unmarshal(text, &rec); err != nil {
		return rec, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return rec, nil
}

func damaged(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrDamaged}, args...)...)
}

// newMeta returns the frozen map that holds a record. The caller must close it.
func newMeta(rec Record) (*ebpf.Map, error) {
	value, err := encodeMeta(rec)
	if err != nil {
		return nil, err
	}
	return freeze(metaName, value)
}

// newFrozen returns a frozen map that holds a text. The caller must close it.
func newFrozen(name string, text []byte) (*ebpf.Map, error) {
	value, err := frame(text)
	if err != nil {
		return nil, err
	}
	return freeze(name, value)
}

func freeze(name string, value []byte) (*ebpf.Map, error) {
	m, err := ebpf.NewMap(&ebpf.MapSpec{
		Name: name, Type: ebpf.Array, KeySize: 4, ValueSize: uint32(len(value)), MaxEntries: 1,
	})
	if err != nil {
		return nil, err
	}
	if err := m.Put(uint32(0), value); err != nil {
		m.Close()
		return nil, err
	}
	if err := m.Freeze(); err != nil {
		m.Close()
		return nil, err
	}
	return m, nil
}

// readMeta reads the record that is pinned at path.
func readMeta(path string) (Record, error) {
	text, err := readFrozen(path)
	if err != nil {
		return Record{}, err
	}
	return decodeRecord(text)
}

// readFrozen reads the text in the frozen map that is pinned at path.
func readFrozen(path string) ([]byte, error) {
	m, err := ebpf.LoadPinnedMap(path, &ebpf.LoadPinOptions{ReadOnly: true})
	var errno syscall.Errno
	switch {
	case err == nil:
	case errors.Is(err, fs.ErrNotExist):
		return nil, ErrNoRecord
	case errors.As(err, &errno):
		return nil, err
	default: // a pin, but not of a map
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	defer m.Close()
	if m.Type() != ebpf.Array || m.KeySize() != 4 || m.MaxEntries() != 1 || m.ValueSize() > MaxRecord {
		return nil, damaged("%v map of %d entries of %d bytes", m.Type(), m.MaxEntries(), m.ValueSize())
	}
	info, err := m.Info()
	if err != nil {
		return nil, err
	}
	if !info.Frozen() {
		return nil, ErrUnfrozen
	}
	value, err := m.LookupBytes(uint32(0))
	if err != nil {
		return nil, err
	}
	return unframe(value)
}
