// SPDX-License-Identifier: Apache-2.0

// Package tracer runs a program under ptrace, counts those of its system calls that
// matter to linkpin, and does one thing at the Nth of them: it kills the program
// before or after the call, makes the call fail, or stops the program there.
//
// The count is that of the whole process, all threads and children: Go moves its
// work between threads, so that a count for each thread (strace's) would name
// another call in every run. A seccomp filter, which is installed in the program
// before its first instruction, stops it at the calls that matter and at no others;
// all the rest runs at full speed.
//
// The tracer says besides which eBPF objects the program has made, by their kernel
// ids, so that a test can look for them afterwards. It works on x86-64 only;
// elsewhere every run fails with ErrUnsupported.
package tracer
