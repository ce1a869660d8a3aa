// SPDX-License-Identifier: Apache-2.0

package specs

import (
	"errors"
	"slices"
	"strconv"
	"strings"

	"github.com/linkpin/linkpin/specs/fault"
)

// The limits of OptInAnnotation.
const (
	MaxOptIn      = 4096 // bytes
	MaxOptInNames = 64   // different names
)

// Candidate is a policy that a container may get.
type Candidate struct {
	Name   string `json:"name"`
	Select Select `json:"select"`
}

// Choose returns the candidates that id gets, in the order given: those that
// select it by themselves, and those with OptIn that its OptInAnnotation names.
//
// A name in the annotation that is malformed, unknown, not OptIn, or that this
// container may not ask for is an error (*fault.Error): who asked for protection
// and can't get it must not start. A CNI plugin knows no container names, so
// there a condition on them is left to the hook, which sees every container.
//
// If id has Requests, it gets these and nothing else, and the same rules hold for
// them: whatever selects the container by itself, or by its annotations, belongs to
// the hook that knows who it is.
func Choose(id Identity, candidates []Candidate) ([]Candidate, error) {
	for _, c := range candidates {
		if err := c.Select.check(); err != nil {
			return nil, fault.New("policy "+c.Name, err, "run `linkpin policy apply`").WithExit(fault.ExitConfig)
		}
	}
	asked, wanted := fromAnnotation, id.Requests
	if len(wanted) > 0 {
		asked = fromArguments
	} else {
		var err error
		if wanted, err = parseOptIn(id.Annotations[OptInAnnotation]); err != nil {
			return nil, asked.refuse(err, "give names of policies, separated by commas")
		}
	}
	for _, name := range wanted {
		if err := asked.mayAsk(id, name, candidates); err != nil {
			return nil, err
		}
	}
	var chosen []Candidate
	for _, c := range candidates {
		named := slices.Contains(wanted, c.Name)
		itself := !c.Select.OptIn && asked == fromAnnotation
		if (named || itself) && c.Select.Match(id) {
			chosen = append(chosen, c)
		}
	}
	return chosen, nil
}

// request is where a container asks for policies, for messages.
type request struct{ object, place string }

var (
	fromAnnotation = request{"annotation " + OptInAnnotation, "the annotation"}
	fromArguments  = request{"argument --policy of the hook", "the devices that the container is given"}
)

// parseOptIn returns the names in the annotation, each once; commas or spaces
// separate them (podman takes a comma in --annotation as the end of the value). A
// blank annotation asks for nothing; templates write such.
func parseOptIn(annotation string) ([]string, error) {
	if len(annotation) > MaxOptIn {
		return nil, errors.New("it is longer than 4096 bytes")
	}
	if strings.TrimSpace(annotation) == "" {
		return nil, nil
	}
	var names []string
	for element := range strings.SplitSeq(annotation, ",") {
		words := strings.Fields(element)
		if len(words) == 0 {
			words = []string{""} // between two commas, or after the last
		}
		for _, name := range words {
			if !ValidName(name) {
				return nil, errors.New(strconv.Quote(name) + " is not the name of a policy")
			}
			if slices.Contains(names, name) {
				continue
			}
			if len(names) == MaxOptInNames {
				return nil, errors.New("it asks for more than 64 policies")
			}
			names = append(names, name)
		}
	}
	return names, nil
}

// mayAsk returns an error unless id may ask for the policy of that name.
func (r request) mayAsk(id Identity, name string, candidates []Candidate) error {
	i := slices.IndexFunc(candidates, func(c Candidate) bool { return c.Name == name })
	if i < 0 {
		return r.refuse(errors.New("it asks for "+name+", and there is no such policy"),
			"ask for one that `linkpin policy list` shows as optIn")
	}
	s := candidates[i].Select
	if !s.OptIn {
		return r.refuse(errors.New("it asks for "+name+", which is not optIn and chooses its containers itself"),
			"remove "+name+" from "+r.place)
	}
	if id.Network != "" && id.Container == "" {
		s.Containers = nil
	}
	if !s.Match(id) {
		return r.refuse(errors.New("it asks for "+name+", whose selector does not let this container ask"),
			"remove "+name+" from "+r.place+", or widen the policy's `select`")
	}
	return nil
}

func (r request) refuse(cause error, remedy string) error {
	return fault.New(r.object, cause, remedy).WithExit(fault.ExitFailed)
}
