// SPDX-License-Identifier: Apache-2.0

package applied

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/linkpin/linkpin/specs"
)

func writeExempt(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "exempt")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestExempt(t *testing.T) {
	path := writeExempt(t, `# the control plane
namespace=kube-system pod=etcd-*   # with everything in it
  id=a/b*
caller=podman container=infra`)
	e, err := ReadExempt(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		id   specs.Identity
		want bool
	}{
		{specs.Identity{Namespace: "kube-system", Pod: "etcd-node1", ContainerID: "x"}, true},
		{specs.Identity{Namespace: "kube-system", Pod: "dns", ContainerID: "x"}, false},
		{specs.Identity{Pod: "etcd-node1"}, false},
		{specs.Identity{ContainerID: "a/b/c"}, true},
		{specs.Identity{ContainerID: "xa/b"}, false},
		{specs.Identity{Caller: specs.CallerPodman, Container: "infra"}, true},
		{specs.Identity{Caller: specs.CallerCRIO, Container: "infra"}, false},
		{specs.Identity{}, false},
	} {
		if got := e.Match(test.id); got != test.want {
			t.Errorf("%+v: %v", test.id, got)
		}
	}
	all, err := ReadExempt(writeExempt(t, "namespace=*\n"))
	if err != nil {
		t.Fatal(err)
	}
	if all.Match(specs.Identity{ContainerID: "x"}) {
		t.Error("an unknown namespace matches a glob")
	}
	if (Exempt{}).Match(specs.Identity{}) {
		t.Error("the zero value exempts somebody")
	}
}

func TestExemptDamaged(t *testing.T) {
	const good = "id=*\n"
	for text, want := range map[string]string{
		"all":                      `exempt:2: "all" is not field=glob`,
		"namespace=":               "is not field=glob",
		"image=x":                  `unknown field "image"`,
		"Namespace=x":              "unknown field",
		"pod=a pod=b":              "stands twice",
		"pod=[":                    "glob",
		"caller=docker":            "is none of",
		"namespace = kube":         "is not field=glob",
		strings.Repeat("x", 1<<20): "is too big",
		"id=\x1b[31":               `glob "\x1b[31"`,
	} {
		e, err := ReadExempt(writeExempt(t, good+text))
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "exempts nobody") {
			t.Errorf("%.40q: %v", text, err)
		}
		if e.Match(specs.Identity{ContainerID: "x"}) {
			t.Errorf("%.40q: a damaged file exempts somebody", text)
		}
	}
	path := writeExempt(t, good)
	for name, change := range map[string]func() error{
		"group-writable": func() error { return os.Chmod(path, 0o660) },
		"another owner":  func() error { return os.Chown(path, 1, 1) },
		"symbolic link": func() error {
			os.Remove(path)
			return os.Symlink(writeExempt(t, good), path)
		},
	} {
		if err := change(); err != nil {
			t.Fatal(err)
		}
		if e, err := ReadExempt(path); err == nil || e.Match(specs.Identity{ContainerID: "x"}) {
			t.Errorf("%s: %v", name, err)
		}
		os.Remove(path)
		os.WriteFile(path, []byte(good), 0o600)
	}
	if e, err := ReadExempt(filepath.Join(t.TempDir(), "none", "exempt")); err != nil || e.Match(specs.Identity{ContainerID: "x"}) {
		t.Errorf("a missing file: %v", err)
	}
}
