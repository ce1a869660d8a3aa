// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/linkpin/linkpin/specs/fault"
)

func TestUsage(t *testing.T) {
	for _, tc := range []struct {
		args, want string
	}{
		{"", `unknown stage ""`},
		{"poststart", `unknown stage "poststart"`},
		{"createRuntime poststop", `unexpected argument "poststop"`},
		{"createRuntime --caller", "--caller needs a name"},
		{"createRuntime --caller docker", `unknown caller "docker"`},
		{"createRuntime --state /x", `unexpected argument "--state"`},
		{"createRuntime --policy", "--policy needs a name"},
		{"createRuntime --policy=", `"" is not the name of a policy`},
		{"createRuntime --policy a --policy ../b", `"../b" is not the name of a policy`},
		{"--caller=podman", `unknown stage ""`},
	} {
		var stdout, stderr bytes.Buffer
		code := run(strings.Fields(tc.args), strings.NewReader("{}"), &stdout, &stderr)
		if code != fault.ExitUsage || !strings.Contains(stderr.String(), tc.want) || strings.Count(stderr.String(), "\n") != 1 {
			t.Errorf("%q: exit %d, stderr %q; want %d and one line with %q", tc.args, code, &stderr, fault.ExitUsage, tc.want)
		}
	}
}

func TestStageAndCallerInAnyOrder(t *testing.T) {
	for _, args := range []string{"poststop --caller podman", "--caller podman poststop", "--caller=podman poststop"} {
		a, err := parseArgs(strings.Fields(args))
		if err != nil || a.stage != "poststop" || a.caller != "podman" || a.policies != nil {
			t.Errorf("%q: got %+v, %v", args, a, err)
		}
	}
}

func TestPolicies(t *testing.T) {
	a, err := parseArgs(strings.Fields("createRuntime --policy meter --caller cdi --policy=egress-web --policy meter"))
	if err != nil || a.caller != "cdi" || !slices.Equal(a.policies, []string{"meter", "egress-web"}) {
		t.Errorf("got %+v, %v", a, err)
	}
}

func TestVersion(t *testing.T) {
	var stdout, stderr bytes.Buffer
	if code := run([]string{"--version"}, strings.NewReader(""), &stdout, &stderr); code != 0 || stdout.String() != "linkpin-hook devel\n" {
		t.Errorf("exit %d, stdout %q", code, &stdout)
	}
}
