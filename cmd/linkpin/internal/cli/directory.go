// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/linkpin/linkpin/specs/applied/trusted"
	"github.com/linkpin/linkpin/specs/fault"
	"github.com/linkpin/linkpin/specs/policy"
)

// policyFile is a policy file, read once: what was hashed is what was parsed.
type policyFile struct {
	path     string
	sha256   string
	policies []*policy.Policy
}

// readDirectory reads all policy files of a directory, by name in ascending order.
// Everything in it must be root's. The error holds everything that is wrong.
func readDirectory(path string) ([]policyFile, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	dir, err := trusted.OpenDir(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fault.New(path, fs.ErrNotExist, "make the directory and put policies into it, or name another with --dir").WithExit(fault.ExitInput)
	}
	if err != nil {
		return nil, untrusted(path, err)
	}
	defer dir.Close()
	entries, err := dir.ReadDir(-1)
	if err != nil {
		return nil, untrusted(path, err)
	}
	slices.SortFunc(entries, func(a, b os.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	var files []policyFile
	var problems []error
	for _, entry := range entries {
		kind := classify(entry)
		if kind == notPolicy {
			continue
		}
		file := filepath.Join(path, entry.Name())
		if kind == unknownFile {
			problems = append(problems, fault.Newf(file, "is no policy file: those end in .yaml or .yml",
				"rename it, put a dot before its name, or move it away").WithExit(fault.ExitInput))
			continue
		}
		data, err := trusted.ReadFileAt(dir, entry.Name(), policy.MaxSize)
		if err != nil {
			problems = append(problems, untrusted(file, err))
			continue
		}
		parsed, err := parseFile(file, data)
		if err != nil {
			problems = append(problems, err)
			continue
		}
		files = append(files, parsed)
	}
	problems = append(problems, duplicates(files)...)
	return files, errors.Join(problems...)
}

// fileKind is what a directory entry is to readDirectory.
type fileKind int

const (
	notPolicy fileKind = iota
	isPolicy
	unknownFile
)

// classify tells policies from what may lie beside them: directories and object
// files (policies refer to them), notes, and what an editor hides. A policy that
// was moved aside under any other name must not silently be out of effect.
func classify(entry os.DirEntry) fileKind {
	name := entry.Name()
	switch ext := filepath.Ext(name); {
	case strings.HasPrefix(name, "."), ext == ".md":
		return notPolicy
	case ext == ".yaml", ext == ".yml":
		return isPolicy
	case entry.IsDir(), ext == ".o":
		return notPolicy
	}
	return unknownFile
}

func parseFile(path string, data []byte) (policyFile, error) {
	policies, err := policy.Parse(path, data)
	if err != nil {
		return policyFile{}, err
	}
	sum := sha256.Sum256(data)
	return policyFile{path: path, sha256: hex.EncodeToString(sum[:]), policies: policies}, nil
}

// duplicates returns an error for each name that stands in two files; within one
// file the parser finds them.
func duplicates(files []policyFile) []error {
	first := map[string]*policy.Policy{}
	var errs []error
	for _, f := range files {
		for _, p := range f.policies {
			if other, ok := first[p.Name]; ok {
				errs = append(errs, fault.New(fmt.Sprintf("%s:%d: metadata.name", f.path, p.Pos.Line),
					fmt.Errorf("the policy at %s:%d is called %s too", other.Pos.File, other.Pos.Line, p.Name),
					"give each policy a name of its own").WithExit(fault.ExitInput))
				continue
			}
			first[p.Name] = p
		}
	}
	return errs
}

// untrusted is an error about a file or directory that can't be read safely.
func untrusted(path string, err error) error {
	if pathError, ok := errors.AsType[*fs.PathError](err); ok {
		path, err = pathError.Path, pathError.Err
	}
	remedy := ""
	if errors.Is(err, trusted.ErrUntrusted) {
		remedy = "policies must be files and directories of root's that nobody else can write"
	}
	return fault.New(path, err, remedy).WithExit(fault.ExitInput)
}
