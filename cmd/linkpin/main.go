// SPDX-License-Identifier: Apache-2.0

// Command linkpin puts policies into effect and shows, checks and cleans up what
// is attached.
package main

import (
	"context"
	"os"
	"os/signal"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/linkpin/linkpin/cmd/linkpin/internal/cli"
)

// version is set by the linker (-X main.version=…).
var version = "devel"

func main() {
	os.Exit(run())
}

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	defer stop()
	return cli.Run(ctx, cli.Env{
		Stdin:    os.Stdin,
		Stdout:   os.Stdout,
		Stderr:   os.Stderr,
		Version:  version,
		Programs: programs(),
	}, os.Args[1:])
}

// programs returns the directory of this program, symbolic links resolved.
func programs() string {
	path, err := os.Executable()
	if err == nil {
		path, err = filepath.EvalSymlinks(path)
	}
	if err != nil {
		return ""
	}
	return filepath.Dir(path)
}
