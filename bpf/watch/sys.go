// SPDX-License-Identifier: Apache-2.0

package watch

import (
	"encoding/binary"
	"errors"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What is asked for every link at every look is asked with as few system calls as
// the kernel needs (include/uapi/linux/bpf.h). What differs from the last time is
// then looked at through bpf/entry.

// pointer is one in an attr, of 8 bytes. As a number it would not follow a stack that is
// moved, and the kernel would write to where the stack was.
type pointer = unsafe.Pointer

func bpf(cmd uintptr, attr unsafe.Pointer, size uintptr) (int, error) {
	for {
		r, _, errno := unix.Syscall(unix.SYS_BPF, cmd, uintptr(attr), size)
		if errno == unix.EINTR {
			continue
		}
		if errno != 0 {
			return 0, errno
		}
		return int(r), nil
	}
}

func objInfo(fd int, info []byte) error {
	attr := struct {
		fd, length uint32
		info       pointer
	}{uint32(fd), uint32(len(info)), pointer(unsafe.SliceData(info))}
	_, err := bpf(unix.BPF_OBJ_GET_INFO_BY_FD, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	runtime.KeepAlive(info)
	return os.NewSyscallError("bpf BPF_OBJ_GET_INFO_BY_FD", err)
}

// linkInfo is the beginning of struct bpf_link_info: type, id, program and, in all
// kinds of links that linkpin makes, the target. A link that does not exist is zero.
type linkInfo [32]byte

// readLink asks the kernel for a link. It is open for the length of one call.
func readLink(id uint32) (info linkInfo, err error) {
	attr := struct{ id, next, flags uint32 }{id: id}
	fd, err := bpf(unix.BPF_LINK_GET_FD_BY_ID, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	if errors.Is(err, unix.ENOENT) {
		return info, nil
	}
	if err != nil {
		return info, os.NewSyscallError("bpf BPF_LINK_GET_FD_BY_ID", err)
	}
	defer unix.Close(fd)
	return info, objInfo(fd, info[:])
}

// fingerprint is a directory of bpffs as one stat(2) tells it. Whatever is pinned,
// unpinned or renamed in it changes its time of change.
type fingerprint struct {
	dir     uint64 // inode: it keeps it when it is renamed
	changed int64  // in nanoseconds
	// recent: another change may still get the same time, which moves in steps of some
	// milliseconds.
	recent bool
}

// fingerprintOf reads the fingerprint of a directory. fs.ErrNotExist if it is gone.
func fingerprintOf(path string) (fingerprint, error) {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_REALTIME_COARSE, &now); err != nil {
		return fingerprint{}, os.NewSyscallError("clock_gettime", err)
	}
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return fingerprint{}, &os.PathError{Op: "lstat", Path: path, Err: err}
	}
	return fingerprint{dir: st.Ino, changed: st.Ctim.Nano(), recent: st.Ctim.Nano() >= now.Nano()}, nil
}

// same reports whether nothing has changed since f was read, as far as can be told.
func (f fingerprint) same(now fingerprint) bool {
	return !f.recent && f.dir == now.dir && f.changed == now.changed
}

func clen(name []byte) int {
	for i, b := range name {
		if b == 0 {
			return i
		}
	}
	return len(name)
}

// mapInfo is the beginning of struct bpf_map_info.
type mapInfo struct {
	kind, id, keySize, valueSize uint32
}

// openMap opens a pinned map for reading; the caller closes the descriptor.
func openMap(path string) (fd int, info mapInfo, err error) {
	name, err := unix.BytePtrFromString(path)
	if err != nil {
		return -1, info, err
	}
	attr := struct {
		path  pointer
		fd    uint32
		flags uint32
	}{path: pointer(name), flags: unix.BPF_F_RDONLY}
	fd, err = bpf(unix.BPF_OBJ_GET, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	runtime.KeepAlive(name)
	if err != nil {
		return -1, info, &os.PathError{Op: "bpf BPF_OBJ_GET", Path: path, Err: err}
	}
	var b [16]byte
	if err := objInfo(fd, b[:]); err != nil {
		unix.Close(fd)
		return -1, info, err
	}
	u32 := func(off int) uint32 { return binary.NativeEndian.Uint32(b[off:]) }
	return fd, mapInfo{u32(0), u32(4), u32(8), u32(12)}, nil
}

// readMap reads up to count entries of a hash map into keys and values (kernel 5.6)
// and returns how many there are. Entries that come and go meanwhile may be left out.
func readMap(fd int, keys, values []byte, count int) (int, error) {
	var batch [8]byte // struct htab's batch is a u32
	attr := struct {
		in, out, keys, values pointer
		count, fd             uint32
		elemFlags, flags      uint64
	}{
		out: pointer(&batch), keys: pointer(unsafe.SliceData(keys)), values: pointer(unsafe.SliceData(values)),
		count: uint32(count), fd: uint32(fd),
	}
	_, err := bpf(unix.BPF_MAP_LOOKUP_BATCH, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	runtime.KeepAlive(&batch)
	runtime.KeepAlive(keys)
	runtime.KeepAlive(values)
	if err != nil && !errors.Is(err, unix.ENOENT) { // ENOENT: that was the last entry
		return 0, os.NewSyscallError("bpf BPF_MAP_LOOKUP_BATCH", err)
	}
	return min(int(attr.count), count), nil
}

// readPerCPU returns the sum of one element of a map of counters for each CPU. values has
// room for all CPUs.
func readPerCPU(fd int, key uint32, values []byte) (sum uint64, err error) {
	attr := struct {
		fd, _      uint32
		key, value pointer
		flags      uint64
	}{fd: uint32(fd), key: pointer(&key), value: pointer(unsafe.SliceData(values))}
	_, err = bpf(unix.BPF_MAP_LOOKUP_ELEM, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	runtime.KeepAlive(&key)
	runtime.KeepAlive(values)
	if err != nil {
		return 0, os.NewSyscallError("bpf BPF_MAP_LOOKUP_ELEM", err)
	}
	for ; len(values) >= 8; values = values[8:] {
		sum += binary.NativeEndian.Uint64(values)
	}
	return sum, nil
}
