// SPDX-License-Identifier: Apache-2.0

package applied

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/linkpin/linkpin/specs"
)

// content is a set as files: paths relative to the set's directory.
type content struct {
	hash  string            // of set.json
	files map[string][]byte // set.json included
}

// compose turns a set into files and checks that readers will accept them.
func compose(set NewSet) (content, error) {
	c := content{files: map[string][]byte{}}
	doc := document{
		Version:     documentVersion,
		PlanVersion: specs.PlanVersion,
		Policies:    []documentPolicy{},
		Objects:     []string{},
	}
	for _, p := range set.Policies {
		data, digest, err := encode(&p.Plan)
		if err != nil {
			return c, err
		}
		if len(data) > maxPlanBytes {
			return c, fmt.Errorf("policy %q: its plan is bigger than %d bytes", p.Plan.Name, maxPlanBytes)
		}
		if p.Plan.Version != specs.PlanVersion {
			return c, fmt.Errorf("policy %q: plan version %d instead of %d", p.Plan.Name, p.Plan.Version, specs.PlanVersion)
		}
		c.files[plansName+"/"+digest+".json"] = data
		doc.Policies = append(doc.Policies, documentPolicy{
			Name:    p.Plan.Name,
			Digest:  digest,
			Select:  p.Select,
			OnError: p.Plan.OnError,
			Targets: targets(&p.Plan),
			TC:      p.Plan.TCFallback,
			Source:  p.Plan.Source,
		})
		for _, object := range p.Plan.Objects {
			data, ok := set.Objects[object.SHA256]
			if !ok || hash(data) != object.SHA256 || len(data) > maxObjectBytes {
				return c, fmt.Errorf("policy %q: object %q (%s) is missing, too big or not the one that was prepared", p.Plan.Name, object.Name, object.Origin)
			}
			c.files[objectsName+"/"+object.SHA256] = data
			doc.Objects = append(doc.Objects, object.SHA256)
		}
	}
	slices.SortFunc(doc.Policies, func(a, b documentPolicy) int { return strings.Compare(a.Name, b.Name) })
	slices.Sort(doc.Objects)
	doc.Objects = slices.Compact(doc.Objects)
	data, err := json.MarshalIndent(doc, "", "  ")
	if err != nil {
		return c, err
	}
	if len(data) > maxSetBytes {
		return c, fmt.Errorf("the summary of the policies is bigger than %d bytes", maxSetBytes)
	}
	if _, _, err := parseDocument(data); err != nil {
		return c, err
	}
	c.hash = hash(data)
	c.files[setFile] = data
	return c, nil
}

// Digest returns the digest that a plan has in an applied set.
func Digest(plan *specs.Plan) (string, error) {
	_, digest, err := encode(plan)
	return digest, err
}

func encode(plan *specs.Plan) (data []byte, digest string, err error) {
	if data, err = json.Marshal(plan); err != nil {
		return nil, "", fmt.Errorf("policy %q: %w", plan.Name, err)
	}
	return data, hash(data), nil
}
