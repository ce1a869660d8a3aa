// SPDX-License-Identifier: Apache-2.0

package thieves

import "strings"

// long sends what the netfilter program drops: it knows only the length of packets.
func long(command ...string) sender {
	return func(s *scene, port, token string) error {
		if port != permitted {
			token += strings.Repeat("x", 401-len(token))
		}
		if command[0] == "in-container" {
			_, err := s.inside(append(command[1:], port, token)...)
			return err
		}
		return s.thief(append(command, port, token)...)
	}
}

var (
	netnsOptions = options{policies: "netns"}
	netnsPorts   = []string{"4001"}
)

var netnsRows = []row{
	{
		name: "netfilter", what: "plain traffic, for comparison", caps: refused, own: refused, opts: netnsOptions, needs: 604,
		by: []sender{long("udp"), long("raw")}, ports: netnsPorts,
	},
	{
		name: "netfilter-packet", what: "packet sockets", caps: outside, own: outside, opts: netnsOptions, needs: 604,
		note: "They go past netfilter. Use an interface program.",
		by:   []sender{long("packet")}, ports: netnsPorts,
	},
	{
		name: "netfilter-netns", what: "a new network namespace with a macvlan device on the interface", caps: outside, own: outside, opts: netnsOptions, needs: 604,
		note: "Netfilter programs belong to one namespace; whoever may make another one that has a way out leaves them. Use an interface program.",
		by:   []sender{long("in-macvlan", "eth0", "udp")}, ports: netnsPorts, used: true,
	},
	{
		name: "netfilter-detach", what: "`BPF_LINK_DETACH` by id", host: outside, caps: outside, own: refused, opts: netnsOptions, needs: 604,
		note: "A netfilter link does not show whether it is attached. `verify` exits 3, \"could not tell\", and `--repair` finds out by trying whether its place is free, unless the kernel has `CONFIG_NETFILTER_NETLINK_HOOK`.",
		do:   func(s *scene) error { return s.thief(append([]string{"link-detach"}, s.links()...)...) },
		by:   []sender{long("in-container", "udp")}, ports: netnsPorts, used: true,
	},
}
