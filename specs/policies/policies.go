// SPDX-License-Identifier: Apache-2.0

// Package policies holds ready policies, one file each, as they would stand in
// /etc/linkpin/policies.d. Nothing is in effect until it is copied there and
// applied.
package policies

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"strings"
)

//go:embed *.yaml
var files embed.FS

const suffix = ".yaml"

// ErrUnknown means that there is no ready policy of that name.
var ErrUnknown = errors.New("no such ready policy")

// Names returns the names of the ready policies in alphabetical order. Each is
// also the name of its file, without ".yaml".
func Names() ([]string, error) {
	paths, err := fs.Glob(files, "*"+suffix)
	if err != nil {
		return nil, err
	}
	for i, path := range paths {
		paths[i] = strings.TrimSuffix(path, suffix)
	}
	return paths, nil
}

// File returns the policy file of that name. It is the caller's own copy. The
// error wraps ErrUnknown.
func File(name string) ([]byte, error) {
	data, err := files.ReadFile(name + suffix)
	if err != nil {
		return nil, fmt.Errorf("%q: %w", name, ErrUnknown)
	}
	return data, nil
}
