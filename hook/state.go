// SPDX-License-Identifier: Apache-2.0

package hook

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"time"
	"unicode/utf8"

	oci "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/linkpin/linkpin/specs/fault"
)

// Bounds of what a runtime may hand us. Runtimes put every annotation into the
// state; 1 MiB is far above what Kubernetes lets a pod have (256 KiB).
const (
	maxState = 1 << 20 // bytes
	maxID    = 1024    // bytes
)

// stateTimeout is how long a runtime may take to hand over the state.
const stateTimeout = 5 * time.Second

// readState reads a state leniently (unknown fields and versions are the
// runtime's business) but within bounds. A runtime that does not close its end of the
// pipe is given up on after timeout; what reads on ends with the process.
func readState(r io.Reader, timeout time.Duration) (*oci.State, error) {
	type result struct {
		data []byte
		err  error
	}
	read := make(chan result, 1)
	go func() {
		data, err := io.ReadAll(io.LimitReader(r, maxState+1))
		read <- result{data, err}
	}()
	var data []byte
	var err error
	select {
	case got := <-read:
		data, err = got.data, got.err
	case <-time.After(timeout):
		return nil, stateError(fmt.Sprintf("did not end within %s", timeout), nil)
	}
	switch {
	case err != nil:
		return nil, stateError("can't be read", err)
	case len(data) > maxState:
		return nil, stateError(fmt.Sprintf("is larger than %d bytes", maxState), nil)
	case len(strings.TrimSpace(string(data))) == 0:
		return nil, stateError("is empty", nil)
	}
	var st oci.State
	if err := json.Unmarshal(data, &st); err != nil {
		return nil, stateError("is not valid JSON", err)
	}
	if err := checkID(st.ID); err != nil {
		return nil, stateError("has a bad id", err)
	}
	return &st, nil
}

// checkID refuses ids that no runtime gives and no log should show. Dots and
// slashes are harmless here: names in bpffs are escaped.
func checkID(id string) error {
	switch {
	case id == "":
		return errors.New("it is empty")
	case len(id) > maxID:
		return fmt.Errorf("it has %d bytes, more than %d", len(id), maxID)
	case !utf8.ValidString(id):
		return errors.New("it is not UTF-8")
	case strings.ContainsFunc(id, func(r rune) bool { return r < 0x20 || r == 0x7f }):
		return errors.New("it has control characters")
	}
	return nil
}

// resolveBundle returns the bundle's path without symbolic links: it tells two
// containers of one id in two runtime roots apart.
func resolveBundle(st *oci.State) (string, error) {
	if !filepath.IsAbs(st.Bundle) || strings.ContainsRune(st.Bundle, 0) {
		return "", stateError("has no absolute path as its bundle", nil)
	}
	resolved, err := filepath.EvalSymlinks(st.Bundle)
	if err != nil {
		return "", stateError("names a bundle that can't be found", err)
	}
	return resolved, nil
}

func stateError(what string, cause error) error {
	err := fmt.Errorf("%w: it %s", ErrState, what)
	if cause != nil {
		err = fmt.Errorf("%w: it %s: %w", ErrState, what, cause)
	}
	return fault.New("state on standard input", err, "the runtime must pass the state of the container as JSON").WithExit(fault.ExitInput)
}
