// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"testing"

	builtin "github.com/linkpin/linkpin/bpf/programs"
	"github.com/linkpin/linkpin/specs"
)

func TestOtherBuiltins(t *testing.T) {
	egress, err := builtin.Object("egress")
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(egress)
	ours := hex.EncodeToString(sum[:])
	other := sha256.Sum256([]byte("older"))
	plan := &specs.Plan{Objects: []specs.PlanObject{
		{Origin: "builtin:egress", SHA256: ours},
		{Origin: "builtin:meter", SHA256: hex.EncodeToString(other[:])},
		{Origin: "builtin:gone", SHA256: ours},
		{Origin: "/etc/linkpin/policies.d/meter.bpf.o", SHA256: hex.EncodeToString(other[:])},
	}}
	if got := otherBuiltins(plan); !slices.Equal(got, []string{"meter", "gone"}) {
		t.Errorf("got %v", got)
	}
}
