// SPDX-License-Identifier: Apache-2.0

//go:build extended

package integration

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"
)

// crioLog is where a machine's CRI-O writes.
const crioLog = "/run/crio.log"

// crioConfig is the configuration of a machine's CRI-O.
const crioConfig = "/etc/crio/crio.conf"

// crioDaemon is the CRI-O of a machine. It listens where containerd would.
type crioDaemon struct {
	path       string
	configured bool // its files and the image are there
	process    *exec.Cmd
	ended      chan struct{} // closed when process has ended
}

type crioKey struct{}

// cmdCRIO starts and kills the machine's CRI-O: crio configure | start | kill | log.
// start configures it before the first time. If it does not start, what it says is
// there for stderr.
func cmdCRIO(ts *testscript.TestScript, neg bool, args []string) {
	d, ok := ts.Value(crioKey{}).(*crioDaemon)
	if !ok || len(args) != 1 || neg && args[0] != "start" {
		ts.Fatalf("usage: crio configure | start | kill | log")
	}
	switch args[0] {
	case "configure":
		ts.Check(d.configure())
	case "start":
		ts.Check(d.configure())
		before, _ := os.ReadFile(crioLog) // none before the first start
		ts.Defer(func() { _ = d.kill() }) // the machine's end kills it as well
		err := d.start()
		if err != nil {
			log, _ := os.ReadFile(crioLog) // the error matters more
			_, _ = fmt.Fprintf(ts.Stderr(), "%v\n%s", err, log[len(before):])
		}
		expect(ts, neg, err)
	case "kill":
		ts.Check(d.kill())
	case "log":
		log, err := os.ReadFile(crioLog)
		ts.Check(err)
		_, _ = ts.Stdout().Write(log)
	default:
		ts.Fatalf("crio: unknown verb %q", args[0])
	}
}

// configure writes CRI-O's files and the image of all containers, once: scripts
// change them.
func (d *crioDaemon) configure() error {
	if d.configured {
		return nil
	}
	for _, dir := range []string{"/etc/crio", "/etc/containers", "/run/containerd", "/run/crio"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	for name, text := range map[string]string{
		"/etc/containers/policy.json":  `{"default": [{"type": "insecureAcceptAnything"}]}`,
		"/etc/containers/storage.conf": "[storage]\ndriver = \"vfs\"\nrunroot = \"/run/containers/storage\"\ngraphroot = \"/var/lib/containers/storage\"\n",
	} {
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			return err
		}
	}
	data, err := os.ReadFile(filepath.Join(built.testdata, "extended", "crio.conf"))
	if err != nil {
		return err
	}
	if err := os.WriteFile(crioConfig, data, 0o644); err != nil {
		return err
	}
	archive, err := imageArchive()
	if err != nil {
		return err
	}
	for _, args := range [][]string{{"load", "-i", archive}} {
		cmd := exec.Command("podman", args...)
		cmd.Env, cmd.Dir = append(os.Environ(), "PATH="+d.path, "HOME=/"), "/"
		out, err := cmd.CombinedOutput()
		if err != nil {
			return fmt.Errorf("podman %v: %w\n%s", args, err, out)
		}
	}
	out, err := exec.Command("sh", "-c", "podman tag $(podman images -q | head -n1) "+criImage+":latest").CombinedOutput()
	if err != nil {
		return fmt.Errorf("podman tag: %w\n%s", err, out)
	}
	d.configured = true
	return nil
}

func (d *crioDaemon) start() error {
	if d.process != nil {
		return errors.New("CRI-O runs already")
	}
	log, err := os.OpenFile(crioLog, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command("crio", "--config", crioConfig)
	cmd.Env, cmd.Dir = append(os.Environ(), "PATH="+d.path), "/"
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan struct{})
	d.process, d.ended = cmd, ended
	go func() {
		_ = cmd.Wait() // its log says why
		close(ended)
	}()
	for deadline := time.Now().Add(30 * time.Second); ; {
		err := criReady()
		if err == nil || time.Now().After(deadline) {
			return err
		}
		select {
		case <-ended:
			d.process = nil
			return fmt.Errorf("CRI-O has ended: %v", cmd.ProcessState)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (d *crioDaemon) kill() error {
	if d.process == nil {
		return nil
	}
	err := d.process.Process.Signal(unix.SIGKILL)
	<-d.ended
	d.process = nil
	return err
}
