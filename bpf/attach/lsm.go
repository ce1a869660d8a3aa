// SPDX-License-Identifier: Apache-2.0

package attach

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"slices"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// lsmFile lists the security modules that were enabled at boot.
var lsmFile = "/sys/kernel/security/lsm"

// lsmRuns returns an error unless the kernel calls LSM programs. A kernel that was
// booted without "bpf" among its security modules attaches them as well, and never
// calls them: they would protect nobody.
func lsmRuns() error {
	runs, err := bpfLSM()
	switch {
	case err != nil:
		return remedy(fmt.Errorf("whether the kernel calls LSM programs could not be told: %w", err),
			"mount -t securityfs none /sys/kernel/security")
	case !runs:
		return remedy(fmt.Errorf("LSM programs are %w: bpf is not among the security modules that it was booted with, so that it would never call them", ErrUnsupported),
			"boot with bpf in the list of lsm= (it takes CONFIG_BPF_LSM), or take the program out of the policy")
	}
	return nil
}

// bpfLSM reports whether "bpf" is an active security module.
func bpfLSM() (bool, error) {
	list, err := os.ReadFile(lsmFile)
	if err == nil {
		return slices.Contains(strings.Split(strings.TrimSpace(string(list)), ","), "bpf"), nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	ids, other := listModules()
	if errors.Is(other, unix.ENOSYS) { // before 6.8
		return false, err
	}
	return slices.Contains(ids, lsmIDBPF), os.NewSyscallError("lsm_list_modules", other)
}

// lsmIDBPF is LSM_ID_BPF (include/uapi/linux/lsm.h).
const lsmIDBPF = 110

// listModules is lsm_list_modules(2), kernel 6.8. A kernel without security modules
// does not have it either (EOPNOTSUPP, ENOSYS).
func listModules() ([]uint64, error) {
	ids := make([]uint64, 64)
	size := uint32(len(ids) * 8)
	n, _, errno := unix.Syscall(unix.SYS_LSM_LIST_MODULES, uintptr(unsafe.Pointer(&ids[0])), uintptr(unsafe.Pointer(&size)), 0)
	runtime.KeepAlive(ids)
	if errno != 0 {
		return nil, errno
	}
	return ids[:min(int(n), len(ids))], nil
}
