// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Where a machine has containerd's things. None of these outlives it.
const (
	containerdConfig = "/etc/containerd/config.toml"
	containerdSocket = "/run/containerd/containerd.sock"
	containerdLog    = "/run/containerd.log"
	criImage         = "linkpin.test/busybox" // tag latest
)

// daemon is the containerd of a machine.
type daemon struct {
	env      []string
	process  *exec.Cmd // nil while it does not run
	imported bool      // the image is there
}

type daemonKey struct{}

// setUpContainerd puts into a machine, which the calling thread has entered, what
// an administrator would: configuration, CNI plugins and their configuration, and
// then linkpin, by its own installers. The daemon is started by Start.
func setUpContainerd(path string) (*daemon, error) {
	from := filepath.Join(built.testdata, "cri")
	// The host's network configurations are not ours to use.
	if err := os.RemoveAll("/etc/cni/net.d"); err != nil {
		return nil, err
	}
	for _, f := range []struct {
		name, to string
		mode     os.FileMode
	}{
		{"config.toml", containerdConfig, 0o644},
		{"10-pods.conflist", "/etc/cni/net.d/10-pods.conflist", 0o644},
		{"runtime", "/run/cri/runtime", 0o755},
	} {
		data, err := os.ReadFile(filepath.Join(from, f.name))
		if err != nil {
			return nil, err
		}
		if err := os.MkdirAll(filepath.Dir(f.to), 0o755); err != nil {
			return nil, err
		}
		if err := os.WriteFile(f.to, data, f.mode); err != nil {
			return nil, err
		}
	}
	if err := linkPlugins("/run/cni/bin"); err != nil {
		return nil, err
	}
	d := &daemon{env: append(os.Environ(), "PATH="+path)}
	for _, target := range [][]string{
		// The hook where it is: whatever is outside of /etc, /run and /var/lib is the host's.
		{"containerd", "--hook", filepath.Join(built.bin, "linkpin-hook")},
		{"cni", "--caller", "containerd", "--bin-dir", "/run/cni/bin"},
	} {
		cmd := exec.Command(filepath.Join(built.bin, "linkpin"), append([]string{"install"}, target...)...)
		cmd.Env = d.env
		if out, err := cmd.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("linkpin install %s: %w\n%s", target[0], err, out)
		}
	}
	return d, nil
}

// linkPlugins makes a directory of Debian's CNI plugins to which ours can be added:
// containerd 1.6 searches only one.
func linkPlugins(dir string) error {
	plugins, err := filepath.Glob("/usr/lib/cni/*")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, p := range plugins {
		if err := os.Symlink(p, filepath.Join(dir, filepath.Base(p))); err != nil {
			return err
		}
	}
	return nil
}

// Start starts the daemon and waits until it serves.
func (d *daemon) Start() error {
	if d.process != nil {
		return errors.New("containerd runs already")
	}
	log, err := os.OpenFile(containerdLog, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command("containerd", "--config", containerdConfig)
	cmd.Env, cmd.Dir = d.env, "/"
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return err
	}
	d.process = cmd
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		err := criReady()
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("containerd does not serve: %w\n%s", err, d.Log())
		}
	}
}

// criReady fails until the machine's daemon has recovered what was running and has a
// network.
func criReady() error {
	conn, err := dialContainerd()
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	r, err := cri.NewRuntimeServiceClient(conn).Status(ctx, &cri.StatusRequest{})
	if err != nil {
		return err
	}
	for _, c := range r.Status.Conditions {
		if !c.Status {
			return fmt.Errorf("%s: %s", c.Type, c.Message)
		}
	}
	return nil
}

// Kill kills the daemon, without a chance to say goodbye. Shims and containers go on.
func (d *daemon) Kill() error {
	if d.process == nil {
		return nil
	}
	err := d.process.Process.Signal(unix.SIGKILL)
	_ = d.process.Wait() // it says that the process was killed
	d.process = nil
	return err
}

// Log returns the end of what the daemon has said.
func (d *daemon) Log() []byte {
	const end = 16 << 10 // bytes
	data, err := os.ReadFile(containerdLog)
	if err != nil {
		return nil
	}
	return data[max(0, len(data)-end):]
}

// Import gives the daemon the image of all containers, for a namespace of its.
func (d *daemon) Import(namespace string) error {
	archive, err := imageArchive()
	if err != nil {
		return err
	}
	cmd := exec.Command("ctr", "--namespace", namespace, "images", "import", "--base-name", criImage, archive)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("ctr images import: %w\n%s", err, out)
	}
	return nil
}

// imageArchive makes the image once for all tests: the containers' file system as
// an OCI archive. Its signal is SIGKILL, since busybox as process 1 ignores others.
var imageArchive = sync.OnceValues(func() (string, error) {
	dir := filepath.Join(built.rootfs, "../image")
	layout, layer, archive := filepath.Join(dir, "layout"), filepath.Join(dir, "layer.tar"), filepath.Join(dir, "image.tar")
	image := layout + ":latest"
	if err := os.Mkdir(dir, 0o755); err != nil {
		return "", err
	}
	for _, args := range [][]string{
		{"tar", "-C", built.rootfs, "--owner=0", "--group=0", "-cf", layer, "."},
		{"umoci", "init", "--layout", layout},
		{"umoci", "new", "--image", image},
		{"umoci", "raw", "add-layer", "--image", image, layer},
		{
			"umoci", "config", "--image", image, "--config.stopsignal", "SIGKILL", "--config.env", "PATH=/bin",
			"--config.cmd", "sleep", "--config.cmd", "600",
		},
		{"tar", "-C", layout, "-cf", archive, "."},
	} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			return "", fmt.Errorf("%q: %w\n%s", args, err, out)
		}
	}
	return archive, nil
})

// cmdContainerd starts, kills and restarts the machine's containerd:
// containerd start [CONFIG] | kill | log. CONFIG is a file of the script. kill is
// SIGKILL; log prints what it has said.
func cmdContainerd(ts *testscript.TestScript, neg bool, args []string) {
	d, ok := ts.Value(daemonKey{}).(*daemon)
	if !ok || neg || len(args) == 0 || len(args) > 2 {
		ts.Fatalf("usage: containerd start [CONFIG] | kill | log")
	}
	switch args[0] {
	case "start":
		if len(args) == 2 {
			ts.Check(os.WriteFile(containerdConfig, []byte(ts.ReadFile(args[1])), 0o644))
		}
		ts.Check(d.Start())
		if !d.imported {
			ts.Check(d.Import("k8s.io"))
			ts.Check(d.Import("embed"))
			d.imported = true
		}
	case "kill":
		ts.Check(d.Kill())
	case "log":
		_, err := io.Copy(ts.Stdout(), bytes.NewReader(d.Log()))
		ts.Check(err)
	default:
		ts.Fatalf("containerd: unknown verb %q", args[0])
	}
}
