// SPDX-License-Identifier: Apache-2.0

package install

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path"
	"regexp"
	"strconv"
	"time"

	"github.com/linkpin/linkpin/specs/change"
	"github.com/linkpin/linkpin/specs/fault"
)

// containerdAsk bounds how long containerd's programs may take to answer.
const containerdAsk = 20 * time.Second

// containerdVersion is a release of containerd.
type containerdVersion struct{ major, minor int }

var containerdVersionText = regexp.MustCompile(`(?:^|[\sv])(\d+)\.(\d+)(?:\.|$)`)

func (v containerdVersion) String() string { return fmt.Sprintf("%d.%d", v.major, v.minor) }

func (v containerdVersion) atLeast(major, minor int) bool {
	return v.major > major || v.major == major && v.minor >= minor
}

// config returns the newest version of configuration files that the release knows
// (version.ConfigVersion in its source).
func (v containerdVersion) config() int {
	switch {
	case v.atLeast(2, 3):
		return 4
	case v.atLeast(2, 0):
		return 3
	}
	return 2
}

// parseContainerdVersion finds the release in a version, or in what
// `containerd --version` prints.
func parseContainerdVersion(s string) (containerdVersion, error) {
	m := containerdVersionText.FindStringSubmatch(s)
	if m == nil {
		return containerdVersion{}, fmt.Errorf("%q names no version", s)
	}
	major, err := strconv.Atoi(m[1])
	if err != nil {
		return containerdVersion{}, err
	}
	minor, err := strconv.Atoi(m[2])
	return containerdVersion{major, minor}, err
}

// daemon returns the path of the daemon on the host, or "".
func (c Containerd) daemon(h change.Host) string {
	if c.Daemon != "" {
		if h.Executable(c.Daemon) {
			return c.Daemon
		}
		return ""
	}
	for _, dir := range []string{"/usr/local/bin", "/usr/bin", "/usr/local/sbin", "/usr/sbin", "/bin", "/opt/containerd/bin"} {
		if p := path.Join(dir, "containerd"); h.Executable(p) {
			return p
		}
	}
	return ""
}

// release returns the host's version of containerd: Version, or what the daemon's
// program says. Of an image it is the image's program that runs here.
func (c Containerd) release(h change.Host) (containerdVersion, error) {
	v, err := parseContainerdVersion(c.Version)
	if c.Version != "" {
		if err != nil {
			return v, fault.New("containerd", err, "give it as 1.7 or 2.1").WithExit(fault.ExitUsage)
		}
	} else {
		program := c.daemon(h)
		if program == "" {
			return v, fault.Newf("containerd", "is not on this host, so its version is not known", "install it first, or say which version it will be")
		}
		out, err := c.ask(h, program, "--version")
		if err == nil {
			v, err = parseContainerdVersion(string(out))
		}
		if err != nil {
			return v, fault.New(program, fmt.Errorf("does not tell its version: %w", err), "say which version it is")
		}
	}
	if !v.atLeast(1, 6) {
		return v, fault.Newf("containerd "+v.String(), "is too old: linkpin knows 1.6 and later", "update containerd")
	}
	return v, nil
}

// ask runs a program of the host and returns what it prints.
func (c Containerd) ask(h change.Host, program string, args ...string) ([]byte, error) {
	file, err := h.Resolve(program)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), containerdAsk)
	defer cancel()
	if c.Run != nil {
		return c.Run(ctx, file, args...)
	}
	cmd := exec.CommandContext(ctx, file, args...)
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	cmd.WaitDelay = time.Second
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) && len(exit.Stderr) > 0 {
		return nil, fmt.Errorf("%w: %s", err, bytes.TrimSpace(exit.Stderr))
	}
	return out, err
}
