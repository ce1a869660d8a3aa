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

// again is the remedy for what an install would mend.
func (c Containerd) again() string {
	if c.Config == containerdMain {
		return "run linkpin install containerd, then restart containerd"
	}
	return fmt.Sprintf("run linkpin install containerd --config %s, then restart containerd", c.Config)
}

// Check implements change.Target.
func (c Containerd) Check(h change.Host) []change.Finding {
	named := c.Handler != ""
	c, in, err := c.on(h)
	if err != nil {
		return []change.Finding{failing(err)}
	}
	if c.daemon(h) == "" && !h.Exists(c.Config) {
		return nil
	}
	if f, off := c.checkOff(h, in); off {
		return []change.Finding{f}
	}
	var out []change.Finding
	if h.Local() || c.Version != "" {
		if _, err := c.release(h); err != nil {
			f := failing(err)
			f.Level = change.Warn // nothing is known to be wrong
			out = append(out, f)
		}
	}
	daemon := c.likely(h)
	raw, err := containerdLoad(containerdFS{Host: h}, c.Config, daemon, containerdRaw)
	if err != nil {
		return append(out, failing(err))
	}
	foreign, err := containerdLoad(containerdFS{Host: h}, c.Config, daemon, containerdForeign)
	if err != nil {
		return append(out, failing(err))
	}
	blocks, err := c.stripped(h, foreign)
	if err != nil {
		return append(out, failing(err))
	}
	in.lines = len(blocks) > 0
	handlers := in.calls
	if len(handlers) == 0 && !in.lines {
		return append(out, change.Finding{Level: change.Warn, What: "containerd", Detail: "does not call linkpin: it has no runtime handler with its hooks", Remedy: c.again()})
	}
	if !slices.Contains(handlers, c.Handler) && (named || len(handlers) == 0) {
		handlers = append(slices.Clone(handlers), c.Handler)
	}
	var bases []string
	var fine []change.Finding
	for _, name := range handlers {
		d := c
		d.Handler = name
		base, found := d.checkHandler(h, in, raw, foreign)
		if out = append(out, found...); len(found) == 0 {
			fine = append(fine, change.Finding{Level: change.OK, What: fmt.Sprintf("containerd's runtime handler %q", name), Detail: "calls " + c.Hook})
		}
		if base != "" {
			bases = append(bases, base)
		}
	}
	if name := raw.defaultRuntime(); c.SelfSelecting && !slices.Contains(handlers, name) && !h.Exists(NRI{}.file()) {
		out = append(out, change.Finding{
			Level: change.Warn, What: fmt.Sprintf("containerd's default runtime handler %q", name),
			Detail: "does not call linkpin: pods without a RuntimeClass go without the policies that select by themselves",
			Remedy: fmt.Sprintf("run linkpin uninstall containerd and linkpin install containerd --handler %s, or give every pod a RuntimeClass with handler: %s, or run linkpin install nri", name, c.Handler),
		})
	}
	if f, late := c.checkRunning(h, bases, raw); late {
		return append(out, f)
	}
	return append(out, fine...)
}

// checkOff judges a containerd that starts no pods, as docker's, or whose
// configuration linkpin can't serve.
func (c Containerd) checkOff(h change.Host, in containerdInstalled) (change.Finding, bool) {
	detail, disabled := c.off(h)
	f, err := h.Read(c.Config)
	ours := len(in.calls) > 0 || err == nil && bytes.Contains(f.Data, []byte(containerdBeginAny))
	switch {
	case detail == "":
		return change.Finding{}, false
	case disabled && ours:
		return change.Finding{
			Level: change.Warn, What: c.Config, Detail: "disabled_plugins switches the CRI plugin off: nothing uses its runtime handlers",
			Remedy: "take it out of disabled_plugins if pods are to run here, else run linkpin uninstall containerd",
		}, true
	case disabled:
		return change.Finding{Level: change.OK, What: c.Config, Detail: detail + ": no pods run here; for docker there is linkpin install cdi"}, true
	}
	return change.Finding{
		Level: change.Warn, What: c.Config, Detail: detail + "; pods of such a containerd go without policies",
		Remedy: "write it anew as version 2 or later (`containerd config default`, or `containerd config migrate`); for docker linkpin install cdi is enough",
	}, true
}

// checkHandler judges one runtime handler, and returns its base spec.
func (c Containerd) checkHandler(h change.Host, in containerdInstalled, raw, foreign *containerdConfig) (base string, out []change.Finding) {
	what := fmt.Sprintf("containerd's runtime handler %q", c.Handler)
	add := func(l change.Level, what, detail, remedy string) {
		out = append(out, change.Finding{Level: l, What: what, Detail: detail, Remedy: remedy})
	}
	table, _ := raw.runtime(c.Handler)
	base, _ = table["base_runtime_spec"].(string)
	if base == "" {
		detail, remedy := "has no base_runtime_spec with linkpin's hooks", c.again()
		if len(raw.dropped) > 0 && in.lines {
			detail = fmt.Sprintf("is lost: containerd %s takes the CRI plugin's whole table from %s, the last file that has one, and drops that of %s", raw.daemon, raw.owner, strings.Join(raw.dropped, ", "))
		}
		add(change.Fail, what, detail, remedy)
		return "", out
	}
	if kind, _ := table["runtime_type"].(string); kind == "" {
		add(change.Fail, what, "has no runtime_type: containerd's CRI plugin does not start", c.again())
	}
	for _, key := range containerdLists {
		list, _ := table[key].([]any)
		for _, want := range append([]string{containerdOurs}, c.Annotations...) {
			if !containerdAllows(list, want) {
				add(change.Fail, what, fmt.Sprintf("%s lacks %q: such annotations don't reach the hook, and policies that need them are not selected", key, want), c.again())
			}
		}
	}
	return base, append(out, c.checkSpec(h, in, foreign, base)...)
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
func (c Containerd) checkSpec(h change.Host, in containerdInstalled, foreign *containerdConfig, p string) (out []change.Finding) {
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
		add(change.Fail, err.Error(), c.again())
		return out
	}
	hooks := containerdHooks(spec)
	for _, stage := range containerdStages {
		hook, ok := hooks[stage]
		if !ok {
			add(change.Fail, fmt.Sprintf("has no %s hook that calls linkpin", stage), c.again())
			continue
		}
		switch {
		case !h.Executable(hook.path):
			add(change.Fail, fmt.Sprintf("%s calls %s, which is no executable file: no container of the handler starts", stage, hook.path), "put linkpin-hook there, or run linkpin install containerd")
		case c.Hook != "" && hook.path != c.Hook:
			add(change.Warn, fmt.Sprintf("%s calls %s, not %s", stage, hook.path, c.Hook), c.again())
		}
		seconds, err := strconv.Atoi(hook.timeout)
		switch {
		case hook.timeout == "":
			add(change.Warn, stage+" has no timeout: a hook that hangs would hang the container for ever", c.again())
		case err != nil || time.Duration(seconds)*time.Second < hookTimeoutMin:
			add(change.Fail, fmt.Sprintf("%s has a timeout of %s s, and linkpin may need %d s under load: containers would be refused", stage, hook.timeout, int(hookTimeoutMin.Seconds())), c.again())
		}
	}
	if p != c.specPath() || !h.Local() && len(c.Spec) == 0 {
		return out // not made by us; or only its host says what the daemon's default is
	}
	want, err := c.want(foreign, in)
	if err != nil {
		return append(out, failing(err))
	}
	now, err := c.baseSpec(h, want.sourceSpec())
	if err != nil {
		f := failing(err)
		f.Level = change.Warn
		return append(out, f)
	}
	if !containerdSameButHooks(now, f.Data) {
		add(change.Warn, fmt.Sprintf("is stale: its containers differ from those of handler %q, whose spec has changed, as it does with a new containerd", want.source), c.again())
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
func (c Containerd) checkRunning(h change.Host, bases []string, conf *containerdConfig) (change.Finding, bool) {
	if !h.Local() {
		return change.Finding{}, false
	}
	pid, started := c.running()
	if pid == "" {
		return change.Finding{}, false
	}
	changed := slices.Clone(bases)
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
