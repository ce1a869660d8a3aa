// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"

	"github.com/linkpin/linkpin/bpf/prepare"
	"github.com/linkpin/linkpin/specs/applied"
	"github.com/linkpin/linkpin/specs/policy"
)

// prepared is a policy that is ready to be applied.
type prepared struct {
	*prepare.Prepared
	file   policyFile
	policy *policy.Policy
	digest string
}

// prepareAll prepares the policies of all files. The error holds everything that
// is wrong with any of them.
func prepareAll(files []policyFile) ([]prepared, error) {
	var ready []prepared
	var problems []error
	for _, file := range files {
		for _, p := range file.policies {
			done, err := prepare.Policy(p, prepare.Options{})
			if err != nil {
				problems = append(problems, err)
				continue
			}
			digest, err := applied.Digest(&done.Plan)
			if err != nil {
				return nil, err
			}
			ready = append(ready, prepared{Prepared: done, file: file, policy: p, digest: digest})
		}
	}
	return ready, errors.Join(problems...)
}

// check has the verifier check a policy. It returns what could not be checked.
func (p *prepared) check(ctx context.Context) (unchecked []string, err error) {
	list, err := p.Verify(ctx)
	for _, u := range list {
		unchecked = append(unchecked, u.String())
	}
	return unchecked, err
}
