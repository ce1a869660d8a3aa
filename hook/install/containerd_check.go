// SPDX-License-Identifier: Apache-2.0

package install

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/linkpin/linkpin/specs/change"
)

const containerdAgain = "run linkpin install containerd, then restart containerd"

// Check implements change.Target.
func (c Containerd) Check(h change.Host) []change.Finding {
	c, err := c.defaults()
	if err != nil {
		return []change.Finding{failing(err)}
	}
	if c.daemon(h) == "" && !h.Exists(c.Config) {
		return nil
	}
	daemon, err := c.release(h)
	if err != nil {
		f := failing(err)
		f.Level = change.Warn // nothing is known to be wrong
		return []change.Finding{f}
	}
	raw, err := containerdLoad(containerdFS{Host: h}, c.Config, daemon, containerdRaw)
	if err != nil {
		return []change.Finding{failing(err)}
	}
	foreign, err := containerdLoad(containerdFS{Host: h}, c.Config, daemon, containerdForeign)
	if err != nil {
		return []change.Finding{failing(err)}
	}
	blocks, err := c.stripped(h, foreign)
	if err != nil {
		return []change.Finding{failing(err)}
	}
	table, _ := raw.runtime(c.Handler)
	what := fmt.Sprintf("containerd's runtime handler %q", c.Handler)
	base, _ := table["base_runtime_spec"].(string)
	if len(blocks) == 0 && base != c.specPath() && !c.specCalls(h, base) {
		return []change.Finding{{Level: change.Warn, What: "containerd", Detail: "does not call linkpin: it has no runtime handler with its hooks", Remedy: containerdAgain}}
	}
	var out []change.Finding
	add := func(l change.Level, what, detail, remedy string) {
		out = append(out, change.Finding{Level: l, What: what, Detail: detail, Remedy: remedy})
	}
	if raw.disabled() {
		add(change.Warn, c.Config, "disabled_plugins switches the CRI plugin off: nothing uses its runtime handlers", "take it out of disabled_plugins, if pods are to run here")
	}
	if base == "" {
		detail, remedy := "has no base_runtime_spec with linkpin's hooks", containerdAgain
		if len(raw.dropped) > 0 && len(blocks) > 0 {
			detail = fmt.Sprintf("is lost: containerd %s takes the CRI plugin's whole table from %s, the last file that has one, and drops that of %s", daemon, raw.owner, strings.Join(raw.dropped, ", "))
		}
		add(change.Fail, what, detail, remedy)
		return out
	}
	for _, key := range []string{"container_annotations", "pod_annotations"} {
		list, _ := table[key].([]any)
		for _, want := range append([]string{containerdOurs}, c.Annotations...) {
			if !containerdAllows(list, want) {
				add(change.Fail, what, fmt.Sprintf("%s lacks %q: such annotations don't reach the hook, and policies that need them are not selected", key, want), containerdAgain)
			}
		}
	}
	if why := containerdVM(table); why != "" {
		add(change.Warn, what, why, "choose a handler of runc or crun for pods that policies select")
	}
	out = append(out, c.checkSpec(h, foreign, base)...)
	if f, late := c.checkRunning(h, base, raw); late {
		out = append(out, f)
	}
	if len(out) == 0 {
		add(change.OK, what, "calls "+c.Hook, "")
	}
	return out
}

// specCalls reports whether a base spec calls linkpin.
func (c Containerd) specCalls(h change.Host, p string) bool {
	if p == "" {
		return false
	}
	f, err := h.Read(p)
	if err != nil {
		return false
	}
	spec, err := containerdParseSpec(f.Data)
	return err == nil && len(containerdHooks(spec)) > 0
}

// checkSpec judges a base spec.
func (c Containerd) checkSpec(h change.Host, foreign *containerdConfig, p string) (out []change.Finding) {
	add := func(l change.Level, detail, remedy string) {
		out = append(out, change.Finding{Level: l, What: p, Detail: detail, Remedy: remedy})
	}
	f, err := h.Read(p)
	if err == nil && f.Missing {
		err = errors.New("does not exist, and containerd's CRI plugin does not start without it")
	}
	var spec map[string]any
	if err == nil {
		spec, err = containerdParseSpec(f.Data)
	}
	if err != nil {
		add(change.Fail, err.Error(), containerdAgain)
		return out
	}
	hooks := containerdHooks(spec)
	for _, stage := range containerdStages {
		hook, ok := hooks[stage]
		if !ok {
			add(change.Fail, fmt.Sprintf("has no %s hook that calls linkpin", stage), containerdAgain)
			continue
		}
		switch {
		case !h.Executable(hook.path):
			add(change.Fail, fmt.Sprintf("%s calls %s, which is no executable file: no container of the handler starts", stage, hook.path), "put linkpin-hook there, or run linkpin install containerd")
		case c.Hook != "" && hook.path != c.Hook:
			add(change.Warn, fmt.Sprintf("%s calls %s, not %s", stage, hook.path, c.Hook), containerdAgain)
		}
		seconds, err := strconv.Atoi(hook.timeout)
		switch {
		case hook.timeout == "":
			add(change.Warn, stage+" has no timeout: a hook that hangs would hang the container for ever", containerdAgain)
		case err != nil || time.Duration(seconds)*time.Second < hookTimeoutMin:
			add(change.Fail, fmt.Sprintf("%s has a timeout of %s s, and linkpin may need %d s under load: containers would be refused", stage, hook.timeout, int(hookTimeoutMin.Seconds())), containerdAgain)
		}
	}
	if !h.Local() && len(c.Spec) == 0 {
		return out // what the daemon's default is, its host says
	}
	want, err := c.want(foreign)
	if err != nil {
		return append(out, failing(err))
	}
	now, err := c.baseSpec(h, want.sourceSpec())
	if err != nil {
		f := failing(err)
		f.Level = change.Warn
		return append(out, f)
	}
	if p == c.specPath() && !containerdSameButHooks(now, f.Data) {
		add(change.Warn, fmt.Sprintf("is stale: its containers differ from those of handler %q, whose spec has changed, as it does with a new containerd", want.source), containerdAgain)
	}
	return out
}

// containerdSameButHooks reports whether two specs say the same, linkpin's hooks aside.
func containerdSameButHooks(a, b []byte) bool {
	x, errA := containerdParseSpec(a)
	y, errB := containerdParseSpec(b)
	if errA != nil || errB != nil || containerdDropHooks(x) != nil || containerdDropHooks(y) != nil {
		return false
	}
	return reflect.DeepEqual(x, y)
}

// checkRunning reports whether the daemon of this machine started before what it
// reads at its start was changed.
func (c Containerd) checkRunning(h change.Host, base string, conf *containerdConfig) (change.Finding, bool) {
	if !h.Local() {
		return change.Finding{}, false
	}
	pid, started := c.running()
	if pid == "" {
		return change.Finding{}, false
	}
	changed := []string{base}
	for _, f := range conf.files {
		changed = append(changed, f.Path)
	}
	for _, p := range changed {
		st, err := os.Stat(p)
		if err != nil || !st.ModTime().After(started) {
			continue
		}
		return change.Finding{
			Level: change.Fail, What: "containerd",
			Detail: fmt.Sprintf("process %s started at %s, before %s was changed at %s", pid, started.Format(time.DateTime), p, st.ModTime().Format(time.DateTime)),
			Remedy: "restart containerd",
		}, true
	}
	return change.Finding{}, false
}

// running returns the process of the daemon that reads our configuration, and when
// it started: /proc/PID/stat counts in hundredths of a second from btime of
// /proc/stat (proc_pid_stat(5)).
func (c Containerd) running() (pid string, started time.Time) {
	comms, err := filepath.Glob(filepath.Join(c.Proc, "[0-9]*", "comm"))
	if err != nil {
		return "", started
	}
	for _, p := range comms {
		if name, err := os.ReadFile(p); err != nil || string(bytes.TrimSpace(name)) != "containerd" {
			continue
		}
		dir := filepath.Dir(p)
		cmdline, err := os.ReadFile(filepath.Join(dir, "cmdline"))
		if err != nil || !c.reads(strings.Split(string(cmdline), "\x00")) {
			continue
		}
		// One in a container (kind, docker in docker) reads files of its own.
		if ours, err := os.Stat(filepath.Join(dir, "root", c.Config)); err == nil {
			if here, err := os.Stat(c.Config); err != nil || !os.SameFile(ours, here) {
				continue
			}
		}
		if started, err := containerdStarted(c.Proc, dir); err == nil {
			return filepath.Base(dir), started
		}
	}
	return "", started
}

// reads reports whether a command line makes containerd read our configuration.
func (c Containerd) reads(args []string) bool {
	for i, a := range args {
		name, value, given := strings.Cut(strings.TrimLeft(a, "-"), "=")
		if !strings.HasPrefix(a, "-") || name != "config" && name != "c" {
			continue
		}
		if !given && i+1 < len(args) {
			value = args[i+1]
		}
		return path.Clean(value) == c.Config
	}
	return c.Config == containerdMain
}

// containerdStarted returns when a process started.
func containerdStarted(proc, dir string) (time.Time, error) {
	stat, err := os.ReadFile(filepath.Join(dir, "stat"))
	if err != nil {
		return time.Time{}, err
	}
	// The name in parentheses may hold anything; start time is field 22, the 20th after it.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 20 {
		return time.Time{}, errors.New("stat is too short")
	}
	ticks, err := strconv.ParseInt(fields[19], 10, 64)
	if err != nil {
		return time.Time{}, err
	}
	system, err := os.ReadFile(filepath.Join(proc, "stat"))
	if err != nil {
		return time.Time{}, err
	}
	lines := strings.Split(string(system), "\n")
	i := slices.IndexFunc(lines, func(l string) bool { return strings.HasPrefix(l, "btime ") })
	if i < 0 {
		return time.Time{}, errors.New("no btime")
	}
	boot, err := strconv.ParseInt(strings.TrimPrefix(lines[i], "btime "), 10, 64)
	// btime is cut to whole seconds: rounded up, so that nobody is called late who is not.
	return time.Unix(boot+1, 0).Add(time.Duration(ticks) * 10 * time.Millisecond), err
}
