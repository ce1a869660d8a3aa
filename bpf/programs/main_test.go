// SPDX-License-Identifier: Apache-2.0

package programs

import (
	"os"
	"testing"

	"github.com/linkpin/linkpin/bpf/bpftest"
)

func TestMain(m *testing.M) {
	if text := os.Getenv(orderVariable); text != "" {
		os.Exit(obey(text))
	}
	os.Exit(bpftest.Main(m))
}
