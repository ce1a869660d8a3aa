// SPDX-License-Identifier: Apache-2.0

package install_test

import (
	"flag"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/pelletier/go-toml/v2"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/linkpin/linkpin/hook/install"
	"github.com/linkpin/linkpin/specs/change"
)

var containerdBinary = flag.String("containerd.binary", "", "another containerd to check against, with ctr beside it")

// containerdDump returns what the daemon makes of a configuration file, and its CRI
// plugin's table of runtimes.
func containerdDump(t *testing.T, binary, config string) (all, cri map[string]any) {
	t.Helper()
	var stderr strings.Builder
	cmd := exec.CommandContext(t.Context(), binary, "--config", config, "config", "dump")
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s config dump: %v\n%s", binary, err, stderr.String())
	}
	if err := toml.Unmarshal(out, &all); err != nil {
		t.Fatal(err)
	}
	plugins, _ := all["plugins"].(map[string]any)
	plugin, _ := plugins["io.containerd.cri.v1.runtime"].(map[string]any)
	if plugin == nil {
		plugin, _ = plugins["io.containerd.grpc.v1.cri"].(map[string]any)
	}
	cri, _ = plugin["containerd"].(map[string]any)
	if cri == nil {
		t.Fatalf("no CRI table in\n%s", out)
	}
	return all, cri
}

// containerdReal returns the daemon to check against, and its first version number.
func containerdReal(t *testing.T) (binary, major string) {
	t.Helper()
	binary = *containerdBinary
	if binary == "" {
		var err error
		if binary, err = exec.LookPath("containerd"); err != nil {
			t.Fatal("this test needs containerd: install it with the package containerd")
		}
	}
	out, err := exec.CommandContext(t.Context(), binary, "--version").Output()
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(out))
	if len(fields) < 3 {
		t.Fatalf("%s", out)
	}
	major, _, _ = strings.Cut(strings.TrimPrefix(fields[2], "v"), ".")
	return binary, major
}

// The daemon itself reads what the golden cases write: the handler is a copy but for
// our three keys, and nothing else changes.
func TestContainerdRealDump(t *testing.T) {
	binary, major := containerdReal(t)
	names, err := filepath.Glob("testdata/containerd/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	ran := 0
	for _, name := range names {
		a, err := txtar.ParseFile(name)
		if err != nil {
			t.Fatal(err)
		}
		c, in, _ := containerdCase(t, a)
		if !strings.HasPrefix(c.Version, major+".") {
			continue
		}
		ran++
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txtar"), func(t *testing.T) {
			dir := t.TempDir()
			for p, data := range in {
				containerdPut(t, change.Host{Dir: dir}, strings.TrimPrefix(p, "/etc/containerd"), strings.ReplaceAll(data, "/etc/containerd", dir))
			}
			c.Config = filepath.Join(dir, "config.toml")
			if _, ok := in["/etc/containerd/config.toml"]; !ok {
				containerdPut(t, change.Host{Dir: dir}, "empty.toml", "version = 2\n")
				containerdCompare(t, c, binary, filepath.Join(dir, "empty.toml"))
				return
			}
			containerdCompare(t, c, binary, c.Config)
		})
	}
	if ran == 0 {
		t.Fatalf("no case for containerd %s", major)
	}
}

// containerdCompare installs, and compares what the daemon says of before with what
// it says of the file after.
func containerdCompare(t *testing.T, c install.Containerd, binary, before string) {
	t.Helper()
	c.Daemon = binary
	was, criWas := containerdDump(t, binary, before)
	plan, err := c.Install(change.Host{})
	if err != nil {
		t.Fatal(err)
	}
	for _, ch := range plan.Changes { // the spec goes into /etc: not here
		if strings.HasPrefix(ch.Path, filepath.Dir(c.Config)) {
			containerdPut(t, change.Host{Dir: "/"}, ch.Path, string(ch.New))
		}
	}
	is, criIs := containerdDump(t, binary, c.Config)

	handler, source := c.Handler, c.Handler
	if handler == "" {
		handler = "linkpin"
	}
	wasRuntimes, _ := criWas["runtimes"].(map[string]any)
	isRuntimes, _ := criIs["runtimes"].(map[string]any)
	if wasRuntimes[handler] == nil {
		source, _ = criWas["default_runtime_name"].(string)
	}
	from, _ := wasRuntimes[source].(map[string]any)
	got, _ := isRuntimes[handler].(map[string]any)
	if from == nil || got == nil {
		t.Fatalf("handler %q, copied from %q, is missing: %v", handler, source, isRuntimes)
	}
	if p := got["base_runtime_spec"]; p != containerdKeyed(handler, c.Config) {
		t.Errorf("base_runtime_spec is %v", p)
	}
	want := maps.Clone(from)
	want["base_runtime_spec"] = got["base_runtime_spec"]
	for _, key := range []string{"pod_annotations", "container_annotations"} {
		old, _ := from[key].([]any)
		list := append([]any{}, old...)
		list = append(list, "linkpin.io/*")
		for _, a := range c.Annotations {
			list = append(list, a)
		}
		want[key] = list
	}
	for _, table := range []map[string]any{{"": want}, {"": got}, wasRuntimes, isRuntimes} {
		containerdNoDefaults(table)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("handler %q (-source +copy):\n%s", handler, d)
	}
	delete(wasRuntimes, handler)
	delete(isRuntimes, handler)
	delete(was, "imports") // the dump lists what it has read
	delete(is, "imports")
	if d := cmp.Diff(was, is); d != "" {
		t.Errorf("the rest (-before +after):\n%s", d)
	}
}

// containerdNoDefaults takes out of a handler's table what says nothing: the built-in
// runc spells its defaults out.
func containerdNoDefaults(table map[string]any) {
	for k, v := range table {
		switch v := v.(type) {
		case map[string]any:
			containerdNoDefaults(v)
			if len(v) == 0 {
				delete(table, k)
			}
		case string:
			if v == "" || k == "sandboxer" && v == "podsandbox" {
				delete(table, k)
			}
		case []any:
			if len(v) == 0 {
				delete(table, k)
			}
		case bool:
			if !v {
				delete(table, k)
			}
		case int64:
			if v == 0 {
				delete(table, k)
			}
		}
	}
}

// The real daemon and its ctr answer; what they say makes a plan.
func TestContainerdRealPrograms(t *testing.T) {
	binary, major := containerdReal(t)
	dir := t.TempDir()
	version := map[string]string{"1": "2", "2": "3"}[major]
	config := filepath.Join(dir, "config.toml")
	if err := os.WriteFile(config, []byte("version = "+version+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := install.Containerd{Hook: containerdHook, Config: config, Daemon: binary}
	plan, err := c.Install(change.Host{})
	if err != nil {
		t.Fatal(err)
	}
	spec := plan.Changes[0]
	if spec.Path != containerdKeyed("linkpin", config) {
		t.Fatalf("the spec is not written first:\n%s", plan.Diff())
	}
	out, err := exec.CommandContext(t.Context(), filepath.Join(filepath.Dir(binary), "ctr"), "oci", "spec").Output()
	if err != nil {
		t.Fatal(err)
	}
	want, got := containerdJSON(t, out), containerdJSON(t, spec.New)
	process, _ := want["process"].(map[string]any)
	if process["rlimits"] == nil {
		t.Error("ctr's spec has no rlimits: is the reason for dropping them gone?")
	}
	delete(process, "rlimits")
	if got["hooks"] == nil {
		t.Error("no hooks")
	}
	delete(got, "hooks")
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("but for rlimits and hooks (-ctr +spec):\n%s", d)
	}
}

// containerdKeyed is where the base spec of another configuration goes.
func containerdKeyed(handler, config string) string {
	return "/etc/linkpin/containerd/" + handler + "@" + strings.ReplaceAll(config, "/", "%2F") + ".json"
}
