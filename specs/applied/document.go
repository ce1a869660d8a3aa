// SPDX-License-Identifier: Apache-2.0

package applied

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/linkpin/linkpin/specs"
)

// documentVersion changes whenever the meaning of set.json changes.
const documentVersion = 1

// document is set.json.
type document struct {
	Version     int              `json:"version"`     // documentVersion
	PlanVersion int              `json:"planVersion"` // specs.PlanVersion
	Policies    []documentPolicy `json:"policies"`    // by name, ascending
	Objects     []string         `json:"objects"`     // SHA-256 of every object, ascending
}

type documentPolicy struct {
	Name    string             `json:"name"`
	Digest  string             `json:"digest"`
	Select  specs.Select       `json:"select"`
	OnError specs.OnError      `json:"onError"`
	Targets []specs.TargetKind `json:"targets"`
	TC      specs.TCFallback   `json:"tcFallback,omitempty"`
	Source  string             `json:"source"`
}

// parseDocument checks everything that a reader relies on, although the hash
// already says that Write wrote it: perhaps another version of linkpin did.
func parseDocument(data []byte) (policies []Summary, objects []string, err error) {
	var doc document
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields() // an unknown field is a condition that would be ignored
	if err := decoder.Decode(&doc); err != nil {
		return nil, nil, err
	}
	if doc.Version != documentVersion || doc.PlanVersion != specs.PlanVersion {
		return nil, nil, errors.New("written by another version of linkpin")
	}
	if len(doc.Policies) > maxPolicies {
		return nil, nil, fmt.Errorf("more than %d policies", maxPolicies)
	}
	policies = make([]Summary, len(doc.Policies))
	for i, p := range doc.Policies {
		switch {
		case !specs.ValidName(p.Name):
			return nil, nil, fmt.Errorf("policy name %q", p.Name)
		case i > 0 && doc.Policies[i-1].Name >= p.Name:
			return nil, nil, fmt.Errorf("policy %q is out of order", p.Name)
		case !validHash(p.Digest):
			return nil, nil, fmt.Errorf("digest of policy %q", p.Name)
		case p.OnError != specs.Deny && p.OnError != specs.Allow:
			return nil, nil, fmt.Errorf("onError of policy %q", p.Name)
		}
		policies[i] = Summary{
			Candidate: specs.Candidate{Name: p.Name, Select: p.Select},
			Digest:    p.Digest,
			OnError:   p.OnError,
			Targets:   p.Targets,
			TC:        p.TC,
			Source:    p.Source,
		}
	}
	for i, object := range doc.Objects {
		if !validHash(object) || i > 0 && doc.Objects[i-1] >= object {
			return nil, nil, errors.New("list of objects")
		}
	}
	return policies, doc.Objects, nil
}

// targets returns the kinds of targets that a plan attaches to, each once.
func targets(plan *specs.Plan) []specs.TargetKind {
	kinds := []specs.TargetKind{}
	for _, program := range plan.Programs {
		for _, a := range program.Attachments {
			if kind := plan.Target(a.Hook); kind != "" && !slices.Contains(kinds, kind) {
				kinds = append(kinds, kind)
			}
		}
	}
	slices.Sort(kinds)
	return kinds
}

func hash(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// validHash keeps everything out that is not a hash and so might be a path.
func validHash(s string) bool {
	if len(s) != 2*sha256.Size {
		return false
	}
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// setName names the directory of a set.
func setName(number uint64, hash string) string {
	return strconv.FormatUint(number, 10) + "-" + hash
}

// parseSetName is the inverse of setName; it accepts nothing that setName does
// not return.
func parseSetName(name string) (number uint64, hash string, ok bool) {
	digits, hash, found := strings.Cut(name, "-")
	number, err := strconv.ParseUint(digits, 10, 64)
	if !found || err != nil || !validHash(hash) || setName(number, hash) != name {
		return 0, "", false
	}
	return number, hash, true
}
