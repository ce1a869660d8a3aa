// SPDX-License-Identifier: Apache-2.0

package install

import (
	"bytes"
	"encoding/json"
	"path"
	"slices"

	"github.com/linkpin/linkpin/specs/change"
)

// Uses reports whether a network has our entry and its runtime may find it at p, or
// whether a sandbox was made with it: CRI-O calls the plugins of then at its end, and
// a missing one would keep the rest of the chain from cleaning up.
func (c *CNI) Uses(h change.Host, p string) bool {
	if path.Base(p) != Plugin || !slices.Contains(c.binDirs(), path.Dir(path.Clean(p))) && path.Dir(path.Clean(p)) != c.binDir(h) {
		return false
	}
	all, err := c.read(h)
	if err != nil {
		return true
	}
	for _, conf := range all {
		if conf.err != nil || len(conf.ours()) > 0 || conf.dropinPath != "" {
			return true
		}
	}
	return c.cached(h)
}

// Keeps returns why the plugin must stay on the host after Uninstall, or "".
func (c *CNI) Keeps(h change.Host) string {
	if c.cached(h) {
		return "attachments that were made with it are still to be deleted, as " + c.cacheDir() + " says: uninstall again when their pods are gone"
	}
	all, err := c.read(h)
	if err != nil {
		return err.Error()
	}
	for _, conf := range all {
		if c.Network != "" && conf.err == nil && conf.network != c.Network && len(conf.ours()) > 0 {
			return "network " + conf.network + " has it in its chain"
		}
	}
	return ""
}

func (c *CNI) cacheDir() string {
	if c.CacheDir == "" {
		return DefaultCacheDir
	}
	return c.CacheDir
}

// cached reports whether libcni keeps an attachment that was made with our entry.
func (c *CNI) cached(h change.Host) bool {
	dir := c.cacheDir()
	names, err := h.ReadDir(dir)
	if err != nil {
		return true
	}
	for _, name := range names {
		f, err := h.Read(path.Join(dir, name))
		if err != nil || len(f.Data) > maxConfig {
			continue // not written by libcni
		}
		var kept struct {
			Config []byte `json:"config"` // base64 in the file (libcni, cachedInfo)
		}
		if json.Unmarshal(f.Data, &kept) == nil && bytes.Contains(kept.Config, []byte(`"`+Plugin+`"`)) {
			return true
		}
	}
	return false
}
