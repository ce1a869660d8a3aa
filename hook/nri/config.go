// SPDX-License-Identifier: Apache-2.0

package nri

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/linkpin/linkpin/specs/fault"
)

// DefaultFile is where runtimes look for the plugin's configuration
// (plugin_config_path, nri_plugin_config_dir).
const DefaultFile = "/etc/nri/conf.d/linkpin-nri.conf"

// DefaultHook is where linkpin-hook is if nothing else is configured.
const DefaultHook = "/usr/local/bin/linkpin-hook"

// maxConfig bounds the configuration, in bytes.
const maxConfig = 64 << 10

// Config is the configuration file, in YAML.
type Config struct {
	Hook string `yaml:"hook"` // absolute path of linkpin-hook; empty: DefaultHook
}

// ParseConfig reads a configuration strictly. An empty one is fine. Errors are
// *fault.Error and wrap ErrConfig.
func ParseConfig(file, text string) (Config, error) {
	c := Config{Hook: DefaultHook}
	if len(text) > maxConfig {
		return c, configError(file, fmt.Errorf("it is larger than %d bytes", maxConfig))
	}
	d := yaml.NewDecoder(strings.NewReader(text))
	d.KnownFields(true)
	if err := d.Decode(&c); err != nil && !errors.Is(err, io.EOF) {
		return c, configError(file, err)
	}
	if err := d.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return c, configError(file, errors.New("it holds more than one document"))
	}
	if c.Hook == "" {
		c.Hook = DefaultHook
	}
	if !filepath.IsAbs(c.Hook) || strings.ContainsRune(c.Hook, 0) {
		return c, configError(file, fmt.Errorf("hook is %q, which is no absolute path", c.Hook))
	}
	c.Hook = filepath.Clean(c.Hook)
	return c, nil
}

// config parses what the runtime has sent, or the file if it has sent nothing.
func (p *Plugin) config(text string) (Config, error) {
	file := p.File
	if file == "" {
		file = DefaultFile
	}
	if strings.TrimSpace(text) != "" {
		return ParseConfig(filepath.Base(file), text)
	}
	f, err := os.Open(file)
	if errors.Is(err, fs.ErrNotExist) {
		return ParseConfig(file, "")
	}
	if err != nil {
		return Config{}, configError(file, err)
	}
	defer f.Close()
	var b bytes.Buffer
	if _, err := io.Copy(&b, io.LimitReader(f, maxConfig+1)); err != nil {
		return Config{}, configError(file, err)
	}
	return ParseConfig(file, b.String())
}

func configError(file string, err error) error {
	return fault.New(file, fmt.Errorf("%w: %w", ErrConfig, err),
		"correct it and restart the runtime").WithExit(fault.ExitInput)
}

// validates reports whether NRI of a version knows validators. An older one would
// turn away a plugin that asks for their event. They came with 0.10
// (containerd 2.2, CRI-O 1.34).
func validates(version string) bool {
	fields := strings.SplitN(strings.TrimPrefix(version, "v"), ".", 3)
	if len(fields) != 3 {
		return false
	}
	major, err1 := strconv.Atoi(fields[0])
	minor, err2 := strconv.Atoi(fields[1])
	return err1 == nil && err2 == nil && (major > 0 || minor >= 10)
}
