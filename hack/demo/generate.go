// SPDX-License-Identifier: Apache-2.0

// Package demo holds what `make demo` shows: hack/demo/run, its policies, and an
// eBPF object that is not linkpin's.
package demo

//go:generate clang -O2 -g -target bpfel -mcpu=v3 -Wall -Werror -fno-ident -fdebug-compilation-dir . -idirafter /usr/include/x86_64-linux-gnu -idirafter /usr/include/aarch64-linux-gnu -c objects/guard.bpf.c -o objects/guard.bpf.o
//go:generate llvm-strip -g objects/guard.bpf.o
