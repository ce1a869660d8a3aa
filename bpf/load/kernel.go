// SPDX-License-Identifier: Apache-2.0

package load

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/linkpin/linkpin/bpf/hooks"
)

// nativeEndian is one of binary.LittleEndian and binary.BigEndian, which the asm
// package tells apart; binary.NativeEndian is neither.
var nativeEndian = func() binary.ByteOrder {
	if binary.NativeEndian.Uint16([]byte{1, 0}) == 1 {
		return binary.LittleEndian
	}
	return binary.BigEndian
}()

// Kernel identifies the build of the running kernel: release and version of
// uname(2). It is empty if the kernel does not say.
func Kernel() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:]) + " " + unix.ByteSliceToString(u.Version[:])
}

// kernelVersion is the running kernel's release; the zero Version if it can't be
// told.
func kernelVersion() hooks.Version {
	var v hooks.Version
	if _, err := fmt.Sscanf(Kernel(), "%d.%d", &v.Major, &v.Minor); err != nil {
		return hooks.Version{}
	}
	return v
}

// raiseMemlock lifts RLIMIT_MEMLOCK of this process. Kernels before 5.11 charge
// maps and programs to it and answer EPERM beyond; newer ones never look at it.
var raiseMemlock = sync.OnceValue(func() error {
	if old := (hooks.Version{Major: 5, Minor: 11}); !kernelVersion().Less(old) {
		return unix.EPERM
	}
	return unix.Setrlimit(unix.RLIMIT_MEMLOCK, &unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY})
})

// withMemlock tries again with a higher limit where EPERM may mean that one.
func withMemlock[T any](create func() (T, error)) (T, error) {
	made, err := create()
	if errors.Is(err, unix.EPERM) && raiseMemlock() == nil {
		return create()
	}
	return made, err
}
