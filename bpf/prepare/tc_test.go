// SPDX-License-Identifier: Apache-2.0

package prepare

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/linkpin/linkpin/specs"
)

// The fallback is in the plan if the policy asks for it, and not in the JSON of others.
func TestTCFallback(t *testing.T) {
	const devices = "object: {file: plain.bpf.o}\nprograms: {from_wire: }\n"
	text, err := json.Marshal(must(t, devices).Plan)
	if err != nil || bytes.Contains(text, []byte("tcFallback")) {
		t.Errorf("%s, %v", text, err)
	}
	if got := must(t, devices+"tc: {fallback: clsact}\n").Plan.TCFallback; got != specs.FallbackClsact {
		t.Errorf("fallback %q", got)
	}
	_, err = prepare(t, "object: {file: plain.bpf.o}\nprograms: {connect4: }\ntc: {fallback: clsact}\n")
	wantErrors(t, err, []string{"p.yaml:3: tc: no program of the policy is attached to tcx/ingress or tcx/egress", "remove it"})
}
