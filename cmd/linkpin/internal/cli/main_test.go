// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"os"
	"testing"

	"github.com/linkpin/linkpin/bpf/bpftest"
)

func TestMain(m *testing.M) { os.Exit(bpftest.Main(m)) }
