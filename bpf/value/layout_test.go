// SPDX-License-Identifier: Apache-2.0

//go:build 386 || amd64 || arm || arm64 || loong64 || mips64le || mipsle || ppc64le || riscv64 || wasm

package value

import (
	"encoding/hex"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
)

//go:generate clang -O2 -mcpu=v1 -g -target bpfel -Wall -Werror -fno-ident -fdebug-compilation-dir . -c testdata/layout.bpf.c -o testdata/layout.bpf.o
//go:generate llvm-strip -g testdata/layout.bpf.o

// TestCompilerLayout writes the initialisers of testdata/layout.bpf.c as a policy
// would, and compares with what the compiler has put into .rodata.
func TestCompilerLayout(t *testing.T) {
	spec, err := ebpf.LoadCollectionSpec("testdata/layout.bpf.o")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, yaml, back string }{
		{"bits", "{low: 5, flag: 1, negative: -7, err: PERM, byte: 0xab, wide: 0x123456789a, mid: 0x155, end: 0x2a, last: true}",
			`{"low":5,"flag":1,"negative":-7,"err":"PERM","byte":171,"wide":78187493530,"mid":341,"end":42,"last":true}`},
		{"rule", "{proto: tcp, port: 443, limit: 0x10000000000, name: abcd, v6: '2001:db8::1', verdict: log, small: [-1, 2, -3], on: true, last: -5}",
			`{"proto":"tcp","port":443,"limit":1099511627776,"name":"abcd","v6":"2001:db8::1","verdict":"LOG","small":"hex:ff02fd","on":true,"last":-5}`},
		{"packed", "{a: 1, b: 2, c: [[3, 4], [5, 6]]}", `{"a":1,"b":2,"c":[[3,4],[5,6]]}`},
		{"huge", "1267650600228229401496703205383", "1267650600228229401496703205383"},
		{"name", "eth0", `"eth0"`},
		{"pi", "3.25", "3.25"},
		{"half", "0.5", "0.5"},
		{"yes", "true", "true"},
		{"letter", "x", "120"},
		{"ports", "[80, 443]", "[80,443,0,0]"},
		{"mac", "02:42:ac:11:00:02", `"02:42:ac:11:00:02"`},
	} {
		v := spec.Variables[c.name]
		if v == nil {
			t.Errorf("no variable %s", c.name)
			continue
		}
		got, err := Encode(v.Type, mustParse(t, c.yaml))
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if !slices.Equal(got.Data, v.Value) {
			t.Errorf("%s: got\n%swant\n%s", c.name, hex.Dump(got.Data), hex.Dump(v.Value))
		}
		checkDecode(t, v.Type, v.Value, c.back)
	}
}
