// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// scriptCommands are the commands that scripts have beyond testscript's own.
// README.md describes them for authors of scripts.
var scriptCommands = map[string]func(ts *testscript.TestScript, neg bool, args []string){
	"apply":  cmdApply,
	"bundle": cmdBundle,
	"retry":  cmdRetry,
	"start":  cmdStart,
}

// cmdApply puts policies into effect as an administrator would: apply POLICY…
// A policy is a name of testdata/policies or a file of the script (with a dot in
// its name). All test objects lie ready in objects/.
func cmdApply(ts *testscript.TestScript, neg bool, args []string) {
	const dir = "/etc/linkpin/policies.d"
	ts.Check(os.RemoveAll(dir))
	ts.Check(os.MkdirAll(filepath.Dir(dir), 0o755))
	ts.Check(os.CopyFS(dir, os.DirFS(built.policies)))
	for _, policy := range args {
		file := policy
		if !strings.Contains(policy, ".") {
			file = filepath.Join(built.testdata, "policies", policy+".yaml")
		}
		ts.Check(os.WriteFile(filepath.Join(dir, filepath.Base(file)), []byte(ts.ReadFile(file)), 0o644))
	}
	command := []string{"policy", "apply"}
	if len(args) == 0 {
		command = append(command, "--empty")
	}
	expect(ts, neg, ts.Exec("linkpin", command...))
}

// cmdRetry runs a program until it succeeds (or, negated, fails), for at most
// 10 s: retry PROGRAM [ARGUMENT…]. It is for what the kernel or a runtime does a
// little later by itself.
func cmdRetry(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) == 0 {
		ts.Fatalf("usage: retry PROGRAM [ARGUMENT…]")
	}
	deadline := time.Now().Add(10 * time.Second)
	for {
		err := ts.Exec(args[0], args[1:]...)
		if (err != nil) == neg {
			return
		}
		if time.Now().After(deadline) {
			expect(ts, neg, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// cmdStart starts a container in the background: start NAME [ID] [root=DIR].
// What the runtime prints is there for stdout and stderr; what the container
// prints goes to NAME/out.
func cmdStart(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) == 0 {
		ts.Fatalf("usage: start NAME [ID] [root=DIR]")
	}
	name, id := args[0], args[0]
	runtime := ts.Getenv("RUNTIME")
	var global []string
	for _, arg := range args[1:] {
		if root, ok := strings.CutPrefix(arg, "root="); ok {
			global = append(global, "--root", root)
		} else {
			id = arg
		}
	}
	program, err := exec.LookPath(runtime)
	ts.Check(err)
	dir := ts.MkAbs(name)
	out, err := os.Create(filepath.Join(dir, "out"))
	ts.Check(err)
	defer out.Close()
	stderr, err := os.Create(filepath.Join(dir, "err"))
	ts.Check(err)
	defer stderr.Close()
	// Files, not pipes: the container keeps its ends open as long as it runs.
	cmd := exec.Command(program, append(global, "run", "--detach", "--bundle", dir, id)...)
	cmd.Env = append(scriptEnv(ts), "PWD="+dir)
	cmd.Dir = dir
	cmd.Stdout, cmd.Stderr = out, stderr
	ts.Logf("[%s]", strings.Join(cmd.Args, " "))
	err = cmd.Run()
	var text bytes.Buffer
	// crun sends a hook's output to this file instead, by annotation.
	for _, file := range []string{"err", "hook.err"} {
		data, readErr := os.ReadFile(filepath.Join(dir, file))
		if readErr != nil && !errors.Is(readErr, fs.ErrNotExist) {
			ts.Check(readErr)
		}
		text.Write(data)
	}
	_, _ = ts.Stderr().Write(text.Bytes()) // into memory
	if text.Len() > 0 {
		ts.Logf("[stderr]\n%s", text.Bytes())
	}
	expect(ts, neg, err)
}

// scriptEnv is what a program started by the script has of the environment.
func scriptEnv(ts *testscript.TestScript) []string {
	var env []string
	for _, name := range []string{"PATH", "WORK", "HOME", "TMPDIR"} {
		env = append(env, name+"="+ts.Getenv(name))
	}
	return env
}

// expect fails the script if err is not what the `!` before the command said.
func expect(ts *testscript.TestScript, neg bool, err error) {
	switch {
	case err != nil && !neg:
		ts.Fatalf("unexpected failure: %v", err)
	case err == nil && neg:
		ts.Fatalf("unexpected success")
	}
}
