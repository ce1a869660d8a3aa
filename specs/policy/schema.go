// SPDX-License-Identifier: Apache-2.0

package policy

import (
	_ "embed" // schema.json
	"slices"
)

//go:embed schema.json
var schema []byte

// Schema returns the JSON schema (draft 2020-12) of one document of a policy
// file, for editors. It is weaker than Parse, never stricter: what Parse accepts
// is valid.
func Schema() []byte { return slices.Clone(schema) }
