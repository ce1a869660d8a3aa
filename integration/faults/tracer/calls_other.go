// SPDX-License-Identifier: Apache-2.0

//go:build !amd64

package tracer

import "golang.org/x/sys/unix"

const arch = 0

var counted []syscallInfo

type registers struct{}

func (*registers) read(int) error      { return ErrUnsupported }
func (*registers) write(int) error     { return ErrUnsupported }
func (*registers) number() uint64      { return 0 }
func (*registers) args() (a [6]uint64) { return a }
func (*registers) result() int64       { return 0 }
func (*registers) refuse(unix.Errno)   {}

func installFilter(int, []unix.SockFilter) error { return ErrUnsupported }
