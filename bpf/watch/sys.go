// SPDX-License-Identifier: Apache-2.0

package watch

import (
	"encoding/binary"
	"errors"
	"hash/maphash"
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

// fingerprint is what is in a directory: names and inode numbers, so that a pin
// that is replaced by another one is a change.
type fingerprint struct {
	dir  uint64 // inode of the directory: it keeps it when it is renamed
	pins uint64 // hash of what is in it, whatever the order
}

// prints reads fingerprints; it is for one goroutine.
type prints struct {
	seed maphash.Seed
	buf  []byte
}

func newPrints() *prints { return &prints{seed: maphash.MakeSeed(), buf: make([]byte, 16<<10)} }

// of reads the fingerprint of a directory of bpffs. The error is that of system calls.
func (p *prints) of(path string) (out fingerprint, err error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return out, &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	for {
		n, err := unix.Getdents(fd, p.buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return out, &os.PathError{Op: "getdents64", Path: path, Err: err}
		}
		p.add(&out, p.buf[:max(n, 0)])
		if n < len(p.buf)-maxDirent { // there was room for another one
			break
		}
	}
	if out.dir == 0 { // not even "." is in a directory that was removed
		return out, &os.PathError{Op: "getdents64", Path: path, Err: unix.ENOENT}
	}
	return out, nil
}

// maxDirent is the size of the longest directory entry, in bytes.
const maxDirent = 280

// add adds up the hashes of directory entries: struct linux_dirent64 is d_ino (8
// bytes), d_off (8), d_reclen (2), d_type (1), d_name. "." is the directory itself.
func (p *prints) add(out *fingerprint, buf []byte) {
	const header = 19
	for len(buf) >= header {
		size := int(binary.NativeEndian.Uint16(buf[16:]))
		if size < header || size > len(buf) {
			return
		}
		name := buf[header:size]
		name = name[:clen(name)]
		switch {
		case len(name) == 0:
		case name[0] != '.': // bpffs has no names with dots but "." and ".."
			var h maphash.Hash
			h.SetSeed(p.seed)
			// Neither returns an error.
			_, _ = h.Write(buf[:8])
			_, _ = h.Write(name)
			out.pins += h.Sum64()
		case len(name) == 1:
			out.dir = binary.NativeEndian.Uint64(buf)
		}
		buf = buf[size:]
	}
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
