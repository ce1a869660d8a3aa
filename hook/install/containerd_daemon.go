// SPDX-License-Identifier: Apache-2.0

package install

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/linkpin/linkpin/specs/change"
	"github.com/linkpin/linkpin/specs/fault"
)

// containerdAsk bounds how long containerd's programs may take to answer.
const containerdAsk = 5 * time.Second

// containerdAnswers keeps what programs of this machine have answered: by path and
// arguments, for as long as this process runs.
var containerdAnswers sync.Map

type containerdAnswer struct {
	once sync.Once
	out  []byte
	err  error
}

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

// release returns the host's version of containerd: Version, or what this machine's
// program says. Programs of an image are not run.
func (c Containerd) release(h change.Host) (containerdVersion, error) {
	v, err := parseContainerdVersion(c.Version)
	if c.Version != "" {
		if err != nil {
			return v, fault.New("containerd", err, "give it as 1.7 or 2.1").WithExit(fault.ExitUsage)
		}
	} else {
		const remedy = "give --containerd-version, and --spec with what `ctr oci spec` of it prints"
		if !h.Local() {
			return v, fault.Newf("containerd", "its version is not known: programs of an image are not run", remedy).WithExit(fault.ExitUsage)
		}
		program := c.daemon(h)
		if program == "" {
			return v, fault.Newf("containerd", "is not on this host, so its version is not known", "install it first, or "+remedy)
		}
		out, err := c.ask(h, program, "--version")
		if err == nil {
			v, err = parseContainerdVersion(string(out))
		}
		if err != nil {
			return v, fault.New(program, fmt.Errorf("does not tell its version: %w", err), remedy)
		}
	}
	if !v.atLeast(1, 6) {
		return v, fault.Newf("containerd "+v.String(), "is too old: linkpin knows 1.6 and later", "update containerd")
	}
	return v, nil
}

// ask runs a program of this machine, once, and returns what it prints.
func (c Containerd) ask(h change.Host, program string, args ...string) ([]byte, error) {
	if !h.Local() {
		return nil, errors.New("programs of an image are not run")
	}
	file, err := h.Resolve(program)
	if err != nil {
		return nil, err
	}
	if err := containerdTrust(file); err != nil {
		return nil, err
	}
	if c.Run != nil {
		ctx, cancel := context.WithTimeout(context.Background(), containerdAsk)
		defer cancel()
		return c.Run(ctx, file, args...)
	}
	kept, _ := containerdAnswers.LoadOrStore(strings.Join(append([]string{file}, args...), "\x00"), &containerdAnswer{})
	answer, _ := kept.(*containerdAnswer)
	answer.once.Do(func() { answer.out, answer.err = containerdExec(file, args...) })
	return answer.out, answer.err
}

func containerdExec(file string, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), containerdAsk)
	defer cancel()
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

// containerdTrust returns an error if others than root could have written a program.
func containerdTrust(file string) error {
	var st unix.Stat_t
	if err := unix.Stat(file, &st); err != nil {
		return &os.PathError{Op: "stat", Path: file, Err: err}
	}
	if st.Uid != 0 || st.Mode&0o022 != 0 {
		return errors.New("is not run: others than root may write to it")
	}
	return nil
}
