// SPDX-License-Identifier: Apache-2.0

package install

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	oci "github.com/opencontainers/runtime-spec/specs-go"
	"tags.cncf.io/container-device-interface/pkg/cdi"

	"github.com/linkpin/linkpin/specs/change"
)

var testCDI = CDI{Hook: testHook, Policies: []CDIPolicy{
	{Name: "meter", Description: "counts packets\nand \"bytes\" \u202e"},
	{Name: "egress-web"},
}}

// cdiDevices reads what is below a host's root with the library that runtimes use.
func cdiDevices(t *testing.T, h change.Host) *cdi.Cache {
	t.Helper()
	cache, err := cdi.NewCache(cdi.WithAutoRefresh(false), cdi.WithSpecDirs(filepath.Join(h.Dir, "etc/cdi"), filepath.Join(h.Dir, "var/run/cdi")))
	if err != nil {
		t.Fatal(err)
	}
	if err := cache.Refresh(); err != nil {
		t.Fatal(err)
	}
	return cache
}

// TestCDI installs, lets the library inject a device, and follows the policies.
func TestCDI(t *testing.T) {
	h := hostFiles(t, nil)
	before := hostTree(t, h)
	mustInstall(t, h, testCDI)

	got, err := os.ReadFile(filepath.Join(h.Dir, cdiFile))
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile("testdata/cdi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), string(got)); d != "" {
		t.Error(d)
	}
	cache := cdiDevices(t, h)
	if got, want := cache.ListDevices(), []string{"linkpin.io/policy=egress-web", "linkpin.io/policy=meter"}; !slices.Equal(got, want) {
		t.Errorf("devices %v", got)
	}
	spec := &oci.Spec{}
	if _, err := cache.InjectDevices(spec, "linkpin.io/policy=meter"); err != nil {
		t.Fatal(err)
	}
	timeout := 60
	hook := func(stage string) []oci.Hook {
		return []oci.Hook{{Path: testHook, Args: []string{"linkpin-hook", stage, "--caller", "cdi", "--policy", "meter"}, Timeout: &timeout}}
	}
	if d := cmp.Diff(&oci.Hooks{CreateRuntime: hook("createRuntime"), Poststop: hook("poststop")}, spec.Hooks); d != "" {
		t.Error(d)
	}
	checkFindings(t, testCDI.Check(h), "ok "+cdiFile)

	more := CDI{Hook: testHook, Policies: append(slices.Clone(testCDI.Policies), CDIPolicy{Name: "3g"}, CDIPolicy{Name: "x"})}
	checkFindings(t, more.Check(h), "warn "+cdiFile+": does not offer the policy 3g", "warn …the policy x")
	mustInstall(t, h, more)
	if got := cdiDevices(t, h).ListDevices(); len(got) != 4 {
		t.Errorf("devices %v", got)
	}
	checkFindings(t, more.Check(h), "ok "+cdiFile)
	checkFindings(t, testCDI.Check(h), "warn …offers 3g", "warn …offers x")
	mustInstall(t, h, testCDI)
	checkInstalled(t, h, testCDI, before)
}

// TestCDINames tests that CDI takes every name that a policy may have.
func TestCDINames(t *testing.T) {
	h := hostFiles(t, nil)
	c := CDI{Hook: testHook}
	for _, n := range []string{"0", "a", "007", "1-2", "a--b", "true", "null", "1e3", "0x10", "y", "on", "2020-01-01", strings.Repeat("z", 63)} {
		c.Policies = append(c.Policies, CDIPolicy{Name: n})
	}
	mustInstall(t, h, c)
	cache := cdiDevices(t, h)
	for _, p := range c.Policies {
		if cache.GetDevice("linkpin.io/policy="+p.Name) == nil {
			t.Errorf("no device %s", p.Name)
		}
	}
}

// TestCDIWithoutPolicies tests that no file is left without devices.
func TestCDIWithoutPolicies(t *testing.T) {
	h := hostFiles(t, nil)
	before := hostTree(t, h)
	none := CDI{Hook: testHook}
	plan, err := none.Install(h)
	if err != nil || !plan.Empty() || len(plan.Notes) != 1 {
		t.Fatalf("%v, %v", plan, err)
	}
	mustInstall(t, h, testCDI)
	checkFindings(t, none.Check(h), "warn …offers egress-web", "warn …offers meter")
	mustInstall(t, h, none)
	if d := cmp.Diff(before, hostTree(t, h)); d != "" {
		t.Error(d)
	}
	checkFindings(t, none.Check(h))
}

// TestCDIBinaries tests that the hook is not placed where nobody would call it.
func TestCDIBinaries(t *testing.T) {
	const placed = "/usr/local/libexec/linkpin/linkpin-hook"
	h := hostFiles(t, nil)
	none, one := CDI{Hook: placed, Host: h}, CDI{Hook: placed, Host: h, Policies: testCDI.Policies[:1]}
	if b := none.Binaries(); b != nil {
		t.Errorf("nothing to offer: %v", b)
	}
	if b := one.Binaries(); len(b) != 1 || b[0] != (change.Binary{Name: hookName, Path: placed}) {
		t.Errorf("a policy: %v", b)
	}
	mustInstall(t, h, one)
	if b := none.Binaries(); len(b) != 1 {
		t.Errorf("installed: %v", b)
	}
	mustInstall(t, h, none)
	putFile(t, h, placed, "")
	if b := none.Binaries(); len(b) != 1 {
		t.Errorf("a hook that Uninstall may have to remove: %v", b)
	}
}

// TestCDIForeign tests that what a person has written under our name is left alone.
func TestCDIForeign(t *testing.T) {
	data, err := testCDI.content(nil)
	if err != nil {
		t.Fatal(err)
	}
	h := hostFiles(t, map[string]string{cdiFile: "# mine\n" + strings.TrimPrefix(string(data), cdiHead)})
	before := hostTree(t, h)
	for name, plan := range map[string]func(change.Host) (*change.Plan, error){
		"install": testCDI.Install, "install without policies": CDI{Hook: testHook}.Install, "uninstall": testCDI.Uninstall,
	} {
		t.Run(name, func(t *testing.T) {
			_, err := plan(h)
			checkRefused(t, err, cdiFile+": is not linkpin's: it lacks the line \"# Written by linkpin install cdi")
			if d := cmp.Diff(before, hostTree(t, h)); d != "" {
				t.Error(d)
			}
		})
	}
	if !testCDI.Uses(h, testHook) {
		t.Error("the file names the hook, and that counts as no use")
	}
	// A remark above ours does not make it another's.
	putFile(t, h, cdiFile, "# mine\n"+string(data))
	mustInstall(t, h, CDI{Hook: testHook})
	if h.Exists(cdiFile) {
		t.Error("the file is still there")
	}
}

func TestCDIRefuses(t *testing.T) {
	for _, c := range []struct {
		name   string
		target CDI
		files  map[string]string
		want   string
	}{
		{"foreign file of our name", testCDI, map[string]string{cdiFile: "cdiVersion: 0.3.0\nkind: a.b/c\n"}, cdiFile + ": is not linkpin's"},
		{"malformed", testCDI, map[string]string{cdiFile: "kind: linkpin.io/policy\n  x: [\n"}, cdiFile + ": yaml: line 2"},
		{"unknown field", testCDI, map[string]string{cdiFile: "kind: linkpin.io/policy\nx: 1\n"}, "line 2: field x not found"},
		{"not UTF-8", testCDI, map[string]string{cdiFile: "# \xff\nkind: linkpin.io/policy\n"}, cdiFile + ": yaml: "},
		{"empty", testCDI, map[string]string{cdiFile: ""}, cdiFile + ": EOF"},
		{"another file with our devices", testCDI, map[string]string{cdiDir + "/x.json": `{"kind":"linkpin.io/policy"}`}, cdiDir + "/x.json: defines devices"},
		{"in the other directory", testCDI, map[string]string{"/run/cdi/x.yaml": "kind: linkpin.io/policy", "/var/run": "-> /run"}, "/var/run/cdi/x.yaml: defines devices"},
		{"name", CDI{Hook: testHook, Policies: []CDIPolicy{{Name: "A_b"}}}, nil, "policy A_b: has a name"},
		{"name twice", CDI{Hook: testHook, Policies: []CDIPolicy{{Name: "a"}, {Name: "a"}}}, nil, "policy a: is given twice"},
		{"hook", CDI{Hook: "/a/../b"}, nil, "is not a clean absolute path"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := hostFiles(t, c.files)
			before := hostTree(t, h)
			plan, err := c.target.Install(h)
			if err == nil {
				t.Fatalf("planned\n%s", plan.Diff())
			}
			checkRefused(t, err, c.want)
			if d := cmp.Diff(before, hostTree(t, h)); d != "" {
				t.Error(d)
			}
		})
	}
}

// TestCDICheck damages an installed host.
func TestCDICheck(t *testing.T) {
	one := CDI{Hook: testHook, Policies: testCDI.Policies[:1]}
	for _, c := range []struct {
		name     string
		old, new string            // in the file
		files    map[string]string // to be added
		want     []string
	}{
		{"malformed", "kind:", "kind: [", nil, []string{"fail " + cdiFile + ": yaml: …: no policy can be had as a device"}},
		{"foreign", "linkpin.io/policy", "a.b/c", nil, []string{"fail " + cdiFile + ": is not linkpin's"}},
		{"newer version", "cdiVersion: 0.3.0", "cdiVersion: 0.6.0", nil, []string{"warn " + cdiFile + ": has cdiVersion 0.6.0 where 0.3.0 would do"}},
		{"short timeout", "timeout: 60", "timeout: 5", nil, []string{"fail " + cdiFile + ": sets a timeout of 5 s"}},
		{"no timeout", "          timeout: 60\n", "", nil, []string{"warn " + cdiFile + ": sets no timeout"}},
		{"other policy", "- meter", "- other", nil, []string{"fail " + cdiFile + ": device meter calls the hook with other arguments"}},
		{"other hook", testHook, "/usr/bin/linkpin-hook", map[string]string{"/usr/bin/linkpin-hook": ""}, []string{"warn " + cdiFile + ": calls /usr/bin/linkpin-hook and not"}},
		{"no hook", testHook, "/no/linkpin-hook", nil, []string{"warn", "fail " + cdiFile + ": /no/linkpin-hook is missing"}},
		{"no stage", "hookName: poststop", "hookName: poststart", nil, []string{"fail " + cdiFile + ": device meter has no hook for poststop"}},
		{"conflict", "", "", map[string]string{cdiDir + "/a.json": `{"kind":"linkpin.io/policy"}`}, []string{"fail " + cdiDir + "/a.json: …refuse a device that two files define"}},
		{"masked", "", "", map[string]string{"/var/run/cdi/a.json": `{"kind":"linkpin.io/policy"}`}, []string{"fail /var/run/cdi/a.json: …takes the place of"}},
		{"malformed neighbour", "", "", map[string]string{cdiDir + "/a.json": "{"}, []string{"warn " + cdiDir + "/a.json: …runtimes pass over it"}},
		{"other directories", "", "", map[string]string{"/usr/bin/podman": "", podmanConf: "[engine]\ncdi_spec_dirs = [\"/opt/cdi\"]\n"},
			[]string{"fail podman: reads CDI files from /opt/cdi and not from /etc/cdi"}},
		{"CRI-O's other directories", "", "", map[string]string{"/usr/bin/crio": "", crioConf: "[crio.runtime]\ncdi_spec_dirs = []\n"}, []string{"fail CRI-O: reads CDI"}},
		{"other directories of what is not there", "", "", map[string]string{podmanConf: "[engine]\ncdi_spec_dirs = [\"/opt/cdi\"]\n"}, []string{"ok"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := hostFiles(t, c.files)
			f, err := h.Read(cdiFile)
			if err != nil {
				t.Fatal(err)
			}
			data, err := one.content(nil)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(string(data), c.old) {
				t.Fatalf("no %q in\n%s", c.old, data)
			}
			plan := &change.Plan{}
			plan.Write(f, []byte(strings.Replace(string(data), c.old, c.new, 1)), 0o644)
			mustApply(t, h, plan)
			checkFindings(t, one.Check(h), c.want...)
		})
	}
	checkFindings(t, one.Check(hostFiles(t, map[string]string{"/usr/bin/podman": ""})))
}
