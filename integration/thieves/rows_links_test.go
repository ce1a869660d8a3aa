// SPDX-License-Identifier: Apache-2.0

package thieves

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"

	"github.com/cilium/ebpf"
)

// mapOf returns the id of a map that a program uses: "rules" is that of the policy
// file, "constants" those that are frozen.
func (s *scene) mapOf(program, kind string) string {
	s.Helper()
	var id int
	_, err := fmt.Sscan(s.program(program), &id)
	s.check(err)
	found := ""
	s.outside(func() error {
		p, err := ebpf.NewProgramFromID(ebpf.ProgramID(id))
		if err != nil {
			return err
		}
		defer p.Close()
		info, err := p.Info()
		if err != nil {
			return err
		}
		ids, _ := info.MapIDs()
		for _, id := range ids {
			m, err := ebpf.NewMapFromID(id)
			if err != nil {
				return err
			}
			if (m.Type() == ebpf.Hash) == (kind == "rules") {
				found = fmt.Sprint(id)
			}
			m.Close()
		}
		return nil
	})
	if found == "" {
		s.Fatalf("program %s has no map of kind %s", program, kind)
	}
	return found
}

var linkRows = []row{
	{
		name: "link-detach", what: "`BPF_LINK_DETACH` of every link by its id", host: mended, caps: mended, own: refused,
		note: "Nothing prevents this for `CAP_SYS_ADMIN` in the host's user namespace.",
		do:   func(s *scene) error { return s.thief(append([]string{"link-detach"}, s.links()...)...) },
	},
	{
		name: "link-update", what: "`BPF_LINK_UPDATE` of every link by its id, to a program that allows everything", host: mended, caps: mended, own: refused,
		do: func(s *scene) error { return s.thief(append([]string{"link-update"}, s.links()...)...) },
	},
	{
		name: "map-rules", what: "deleting a rule from a policy's map by its id", host: outside, caps: outside, own: refused,
		note: "Maps hold what changes: counters, and rules that `linkpin map set` changes. Put rules that must stay into constants.",
		do: func(s *scene) error {
			return s.thief("map-delete", s.mapOf("connect4", "rules"), hex.EncodeToString(binary.NativeEndian.AppendUint32(nil, 1006)))
		},
	},
	{
		name: "map-constants", what: "changing a policy's constants by the id of their map", host: refused, caps: refused, own: refused,
		note: "Constants are frozen: no system call writes them.",
		do:   func(s *scene) error { return s.thief("map-set", s.mapOf("connect4", "constants"), "00000000", "0") },
	},
}
