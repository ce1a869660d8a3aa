// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// newer names the set that policies of another version belong to.
const newer = ", newer"

// use puts a set of policies into effect: those in a directory of testdata, or with
// newer their next version. It is applied once and kept.
func (h *host) use(set string) error {
	if set == h.using {
		return nil
	}
	saved := filepath.Join(savedDir, set)
	if _, err := os.Stat(saved); errors.Is(err, fs.ErrNotExist) {
		if err := h.makeSet(strings.TrimSuffix(set, newer)); err != nil {
			return fmt.Errorf("policies %s: %w", set, err)
		}
	}
	if h.using != "" {
		if err := os.Rename(appliedDir, filepath.Join(savedDir, h.using)); err != nil {
			return err
		}
	}
	h.using = set
	return os.Rename(saved, appliedDir)
}

// makeSet applies both versions of a set to a directory of their own, one after the
// other: as on a host where the old version was in effect before.
func (h *host) makeSet(set string) (err error) {
	now := h.using
	if now != "" {
		if err := os.Rename(appliedDir, filepath.Join(savedDir, now)); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, os.Rename(filepath.Join(savedDir, now), appliedDir)) }()
	}
	if err := os.RemoveAll(appliedDir); err != nil {
		return err
	}
	versions := []string{"", newer}
	if set == "policies" {
		versions = []string{newer, ""} // stage "policy apply" goes to and fro
	}
	for _, version := range versions {
		dir := policiesDir
		switch {
		case set != "policies":
			dir = "/etc/linkpin/" + set + ".d"
		case version != "":
			dir = otherDir
		}
		if err := h.writePolicies(set, version, dir); err != nil {
			return err
		}
		if _, err := h.linkpin("policy", "apply", "--dir", dir); err != nil {
			return err
		}
		list, err := h.linkpin("policy", "list")
		if err != nil {
			return err
		}
		if set == "policies" && version != "" {
			h.newPolicies = list
		} else if set == "policies" {
			h.oldPolicies = list
		}
		if err := h.exec("cp", "-a", appliedDir, filepath.Join(savedDir, set+version)); err != nil {
			return err
		}
	}
	if set == "policies" { // for restore
		if err := h.exec("cp", "-a", appliedDir, filepath.Join(savedDir, set+newer+newer)); err != nil {
			return err
		}
	}
	return os.RemoveAll(appliedDir)
}

// writePolicies writes one version of a set. The newer one of "policies" is a part of
// it with another description; that of other sets has another object.
func (h *host) writePolicies(set, version, dir string) error {
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(dir, "objects"), 0o755); err != nil {
		return err
	}
	for name, object := range built.objects {
		object = bytes.ReplaceAll(object, []byte("zzzzzz"), []byte(h.mark))
		if err := os.WriteFile(filepath.Join(dir, "objects", name+".bpf.o"), object, 0o644); err != nil {
			return err
		}
	}
	files, err := filepath.Glob(filepath.Join("testdata", set, "*.yaml"))
	if err != nil || len(files) == 0 {
		return fmt.Errorf("no policies in testdata/%s: %w", set, err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		text := strings.ReplaceAll(string(data), "zzzzzz", h.mark)
		switch {
		case version == "":
		case set != "policies":
			text = strings.Replace(text, "objects/faults", "objects/second", 1)
		case strings.HasPrefix(filepath.Base(file), "cgroup"):
			text = strings.Replace(text, "metadata: {", "metadata: {description: changed, ", 1)
		default:
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(file)), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// restore undoes what a run has done to the policies of the first set.
func (h *host) restore() error {
	return errors.Join(os.RemoveAll(appliedDir), h.exec("cp", "-a", filepath.Join(savedDir, "policies"+newer+newer), appliedDir))
}
