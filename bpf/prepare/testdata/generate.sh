#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Compiles the objects of the tests: go generate runs it. Needs clang, llvm-strip
# and the headers of libbpf.
set -e
cd "$(dirname "$0")"

compile() { # target source object
	clang -O2 -g -Wall -Werror -target "$1" -mcpu=v3 -fdebug-compilation-dir=. \
		-idirafter /usr/include/x86_64-linux-gnu -idirafter /usr/include/aarch64-linux-gnu \
		-c "$2" -o "$3"
	llvm-strip -g "$3"
}

for source in *.bpf.c; do
	compile bpfel "$source" "${source%.c}.o"
done
compile bpfeb empty.bpf.c bigendian.o
