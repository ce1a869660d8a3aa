// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"

	"github.com/linkpin/linkpin/bpf/bpftest"
)

// envFlags are flags that every linkpin of a script gets.
const envFlags = "LINKPIN_TEST_FLAGS"

func TestMain(m *testing.M) {
	// The tool checks who may write its directories; scripts say when others may.
	unix.Umask(0o022)
	testscript.Main(inNamespaces{m}, map[string]func(){
		"linkpin": func() {
			os.Args = append(os.Args, strings.Fields(os.Getenv(envFlags))...)
			os.Exit(run())
		},
	})
}

// inNamespaces runs the tests in mount and network namespaces of their own.
type inNamespaces struct{ m *testing.M }

func (n inNamespaces) Run() int { return bpftest.Main(n.m) }

func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			f := &fixture{TB: t, bpffs: bpftest.TempBPFFS(t), containers: map[string]*container{}}
			testscript.Run(t, testscript.Params{
				Files:               []string{file},
				RequireExplicitExec: true,
				UpdateScripts:       os.Getenv("LINKPIN_UPDATE_SCRIPTS") != "",
				Setup:               f.setup,
				Cmds: map[string]func(*testscript.TestScript, bool, []string){
					"add":          f.add,
					"attach":       f.attach,
					"end":          f.end,
					"exitcode":     exitCode,
					"force-detach": f.forceDetach,
					"hold":         f.hold,
					"nocontrol":    noControl,
					"object":       object,
					"owner":        owner,
					"pins":         f.pins,
					"release":      f.release,
					"send":         f.send,
					"unpin":        f.unpin,
				},
			})
		})
	}
}
