// SPDX-License-Identifier: Apache-2.0

// Command noop is the least that a hook in Go can do: read its state and exit.
// Benchmarks compare linkpin-hook with it.
package main

import (
	"io"
	"os"
)

func main() {
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		os.Exit(1)
	}
}
