// SPDX-License-Identifier: Apache-2.0

// Command cni calls a chain of CNI plugins; see package chain.
package main

import (
	"os"

	"github.com/linkpin/linkpin/hack/chain"
)

func main() { os.Exit(chain.Main()) }
