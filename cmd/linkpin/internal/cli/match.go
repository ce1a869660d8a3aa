// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/linkpin/linkpin/bpf/entry"
	"github.com/linkpin/linkpin/bpf/pin"
	"github.com/linkpin/linkpin/specs"
	"github.com/linkpin/linkpin/specs/fault"
)

// minPrefix is how much of an id must be given at least.
const minPrefix = 4

// shortID is how much of a long id is shown, as runtimes do.
const shortID = 12

// shorten cuts the random ids of runtimes; ids that people chose stay whole.
func shorten(id string) string {
	if len(id) == 64 && strings.Trim(id, "0123456789abcdef") == "" {
		return id[:shortID]
	}
	return id
}

// label names a container or sandbox for people: namespace/pod/container as far
// as it is known, else the id.
func label(id specs.Identity) string {
	var parts []string
	for _, part := range []string{id.Namespace, id.Pod, id.Container} {
		if part != "" {
			parts = append(parts, part)
		}
	}
	if len(parts) == 0 {
		return shorten(id.ContainerID)
	}
	return strings.Join(parts, "/")
}

// itemLabel is label for an entry, which may have lost its record.
func itemLabel(it entry.Item) string {
	if it.Record != nil {
		return label(it.Record.Identity)
	}
	if owner, ok := it.Place.Owner(); ok {
		if id, ok := owner.ID(); ok {
			return shorten(id)
		}
		return string(owner.Key())
	}
	return it.Place.Name()
}

// ids returns what an entry is called: the id of its container or sandbox first.
func ids(it entry.Item) []string {
	if it.Record == nil {
		if owner, ok := it.Place.Owner(); ok {
			if id, ok := owner.ID(); ok {
				return []string{id}
			}
			return []string{string(owner.Key())}
		}
		return []string{it.Place.Name()}
	}
	id := it.Record.Identity
	names := []string{id.ContainerID}
	if l := label(id); l != shorten(id.ContainerID) {
		names = append(names, l)
	}
	if id.Container != "" {
		names = append(names, id.Container)
	}
	return names
}

// errAmbiguous means that several containers go by one name.
var errAmbiguous = errors.New("several containers are called that")

// match returns the entries of one container or sandbox: those under its id or,
// if there is none, its name, or else the beginning of its id. A container's
// entries include those of the sandbox that it lives in. Several containers of one
// name are an error, and so is none.
func match(all []entry.Item, name string) ([]entry.Item, error) {
	for _, is := range []func(it entry.Item) bool{
		func(it entry.Item) bool { return ids(it)[0] == name },
		func(it entry.Item) bool { return slices.Contains(ids(it)[1:], name) },
		func(it entry.Item) bool { return len(name) >= minPrefix && strings.HasPrefix(ids(it)[0], name) },
	} {
		var found []entry.Item
		owners := map[string]bool{}
		for _, it := range all {
			if is(it) {
				found = append(found, it)
				owners[ids(it)[0]] = true
			}
		}
		if len(owners) > 1 {
			var list []string
			for id := range owners {
				list = append(list, id)
			}
			slices.Sort(list)
			return nil, fault.New(name, fmt.Errorf("%w: %s", errAmbiguous, strings.Join(list, ", ")), "give the whole id").WithExit(fault.ExitUsage)
		}
		if len(found) > 0 {
			return withSandboxes(all, found), nil
		}
	}
	return nil, noRecord(name)
}

// withSandboxes adds the entries of the sandboxes that those found live in.
func withSandboxes(all, found []entry.Item) []entry.Item {
	sandboxes := map[pin.Owner]bool{}
	has := map[pin.Place]bool{}
	for _, it := range found {
		has[it.Place] = true
		if it.Record != nil && it.Record.Sandbox != "" {
			sandboxes[pin.Sandbox(it.Record.Sandbox)] = true
		}
	}
	for _, it := range all {
		if owner, ok := it.Place.Owner(); ok && sandboxes[owner] && !has[it.Place] {
			found = append(found, it)
		}
	}
	return found
}
