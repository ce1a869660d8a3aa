// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/binary"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// ifla_xdp: the library does not know the last one.
const (
	iflaXDPFd         = 1
	iflaXDPFlags      = 3
	iflaXDPExpectedFd = 8
)

// xdpReplace is what `ip link set dev D xdp …` sends, with the program that is
// expected to be there (5.7).
func xdpReplace(ifindex, program, expected, flags int) error {
	req := nl.NewNetlinkRequest(unix.RTM_SETLINK, unix.NLM_F_ACK)
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index = int32(ifindex)
	req.AddData(msg)
	xdp := nl.NewRtAttr(unix.IFLA_XDP|unix.NLA_F_NESTED, nil)
	for kind, value := range map[int]int{iflaXDPFd: program, iflaXDPExpectedFd: expected, iflaXDPFlags: flags} {
		xdp.AddRtAttr(kind, binary.NativeEndian.AppendUint32(nil, uint32(value)))
	}
	req.AddData(xdp)
	_, err := req.Execute(unix.NETLINK_ROUTE, 0)
	return err
}
