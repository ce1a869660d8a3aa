// SPDX-License-Identifier: Apache-2.0

package hook

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	oci "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/linkpin/linkpin/specs"
	"github.com/linkpin/linkpin/specs/fault"
)

// ErrRootless means a hook that runs in a user's own user namespace, where nobody
// may attach programs.
var ErrRootless = errors.New("runs in a user namespace of its own")

// rootless reports whether a user's own podman has called. podman reads the same
// hook directories and devices for every user, so a hook that was installed for root's
// containers is called for everybody's. Root's containers, those with a user
// namespace included, have their hooks run in the initial one.
func (h *Hook) rootless() (bool, error) {
	if h.Caller != specs.CallerPodman && h.Caller != specs.CallerCDI {
		return false, nil
	}
	data, err := os.ReadFile(filepath.Join(cmp.Or(h.Roots.Proc, "/proc"), "self/uid_map"))
	if err != nil {
		return false, err
	}
	// user_namespaces(7): the initial namespace maps every id to itself.
	return !slices.Equal(strings.Fields(string(data)), []string{"0", "0", "4294967295"}), nil
}

// createRootless lets a user's container start: neither policies nor bpffs can be
// read there, and its user could as well do without the hook. But who has asked for
// a policy must not run without it.
func (h *Hook) createRootless(st *oci.State) error {
	asked := strings.TrimSpace(st.Annotations[specs.OptInAnnotation]) != "" || len(h.Requests) > 0
	if !asked {
		h.warn(fmt.Errorf("container %s goes without policies: its podman %w", st.ID, ErrRootless))
		return nil
	}
	return fault.New("container "+st.ID, fmt.Errorf("it asks for policies, and its podman %w, where attaching needs CAP_BPF and CAP_NET_ADMIN of the initial one, or a BPF token", ErrRootless),
		"run it with root's podman")
}
