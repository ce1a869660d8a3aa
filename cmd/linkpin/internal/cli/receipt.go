// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/linkpin/linkpin/specs/change"
	"github.com/linkpin/linkpin/specs/fault"
)

// receipt says that an installer has placed a program, and for whom. Whatever build of
// linkpin reads it later can tell its own copies from those of packages by it.
type receipt struct {
	Path   string   `json:"path"`   // of the program, as the host sees it
	SHA256 string   `json:"sha256"` // of its content
	Files  []string `json:"files"`  // configuration that names it, sorted
	// Replaces is the hash of the copy that this one took the place of: the receipt is
	// written first, and an installer may be killed in between.
	Replaces string `json:"replaces,omitempty"`

	file *change.File // the receipt itself
}

// receiptName is how receipts are called in libexec: more than one program may have
// the same name.
var receiptName = regexp.MustCompile(`^linkpin-.*-[0-9a-f]{12}\.json$`)

// receiptPath returns where the receipt of the program at path is.
func receiptPath(b change.Binary) string {
	return filepath.Join(libexec, b.Name+"-"+sum([]byte(b.Path))[:12]+".json")
}

func sum(data []byte) string {
	s := sha256.Sum256(data)
	return hex.EncodeToString(s[:])
}

// readReceipt returns the receipt of a program, one without a hash if it has none.
func readReceipt(h change.Host, b change.Binary) (*receipt, error) {
	r, err := parseReceipt(h, receiptPath(b))
	if err != nil {
		return nil, err
	}
	if r.file.Missing {
		r.Path = b.Path
	} else if r.Path != b.Path {
		return nil, r.damaged(fmt.Errorf("is the receipt of %s", r.Path))
	}
	return r, nil
}

func parseReceipt(h change.Host, path string) (*receipt, error) {
	f, err := h.Read(path)
	if err != nil {
		return nil, err
	}
	r := &receipt{file: f}
	if f.Missing {
		return r, nil
	}
	if err := json.Unmarshal(f.Data, r); err != nil {
		return nil, r.damaged(fmt.Errorf("is not a receipt: %w", err))
	}
	if !filepath.IsAbs(r.Path) || len(r.SHA256) != hex.EncodedLen(sha256.Size) {
		return nil, r.damaged(errors.New("says no program and its hash"))
	}
	return r, nil
}

func (r *receipt) damaged(cause error) error {
	return fault.New(r.file.Path, cause, "remove it; the program that it was for is then left alone").WithExit(fault.ExitInput)
}

// receipts returns all that a host has.
func receipts(h change.Host) ([]*receipt, error) {
	names, err := h.ReadDir(libexec)
	if err != nil {
		return nil, err
	}
	var all []*receipt
	for _, name := range names {
		if !receiptName.MatchString(name) {
			continue
		}
		r, err := parseReceipt(h, filepath.Join(libexec, name))
		if err != nil {
			return nil, err
		}
		all = append(all, r)
	}
	return all, nil
}

// owns reports whether a file is what the receipt was written for.
func (r *receipt) owns(f *change.File) bool {
	if r.SHA256 == "" || f.Missing {
		return false
	}
	hash := sum(f.Data)
	return hash == r.SHA256 || hash == r.Replaces
}

// write plans the receipt as it is now.
func (r *receipt) write(plan *change.Plan) error {
	slices.Sort(r.Files)
	r.Files = slices.Compact(r.Files)
	if r.Files == nil {
		r.Files = []string{}
	}
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	plan.Write(r.file, append(data, '\n'), 0o644)
	return nil
}

// prune leaves those files in the receipt that name the program once plan is made.
func (r *receipt) prune(h change.Host, plan *change.Plan) error {
	var left []string
	for _, path := range r.Files {
		data, err := after(h, plan, path)
		if err != nil {
			return err
		}
		if r.namedBy(path, data) {
			left = append(left, path)
		}
	}
	r.Files = left
	return nil
}

// after returns the content of a file once plan is made, nil if there will be none.
func after(h change.Host, plan *change.Plan, path string) ([]byte, error) {
	for _, c := range slices.Backward(plan.Changes) {
		if c.Path == path {
			return c.New, nil
		}
	}
	f, err := h.Read(path)
	if errors.Is(err, change.ErrNotFile) {
		return nil, nil // it names nothing
	}
	if err != nil {
		return nil, err
	}
	return f.Data, nil
}

// nriHook is the line of the NRI plugin's configuration without which it does nothing.
var nriHook = regexp.MustCompile(`(?m)^hook:`)

// namedBy reports whether a configuration file with this content names the program.
// CNI names it without its directory; NRI starts what is in a directory, and the
// plugin's configuration is its own.
func (r *receipt) namedBy(path string, data []byte) bool {
	switch base := filepath.Base(r.Path); {
	case base == "linkpin-cni":
		return bytes.Contains(data, []byte(base))
	case strings.HasSuffix(base, "-linkpin-nri"):
		return filepath.Base(path) == "linkpin-nri.conf" && nriHook.Match(data)
	}
	quoted, err := json.Marshal(r.Path)
	return bytes.Contains(data, []byte(r.Path)) || err == nil && bytes.Contains(data, bytes.Trim(quoted, `"`))
}

// addFiles adds those files of plans that name the program, before or after.
func (r *receipt) addFiles(plans ...*change.Plan) {
	for _, plan := range plans {
		for _, c := range plan.Changes {
			if c.New != nil && r.namedBy(c.Path, c.New) {
				r.Files = append(r.Files, c.Path)
			}
		}
	}
}
