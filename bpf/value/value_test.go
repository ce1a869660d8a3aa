// SPDX-License-Identifier: Apache-2.0

package value

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"github.com/linkpin/linkpin/specs"
	"github.com/linkpin/linkpin/specs/fault"
	"github.com/linkpin/linkpin/specs/policy"
)

// parseValue reads YAML as the policy parser does, in a file called p.yaml under
// the field "v".
func parseValue(text string) (*policy.Value, error) {
	var doc yaml.Node
	if err := yaml.Unmarshal([]byte(text), &doc); err != nil {
		return nil, err
	}
	if len(doc.Content) != 1 {
		return nil, errors.New("no document")
	}
	return convert(doc.Content[0], "v")
}

func convert(n *yaml.Node, field string) (*policy.Value, error) {
	v := &policy.Value{Pos: policy.Pos{File: "p.yaml", Line: n.Line, Field: field}}
	switch n.Kind {
	case yaml.ScalarNode:
		v.Text = n.Value
		v.Quoted = n.Style&(yaml.DoubleQuotedStyle|yaml.SingleQuotedStyle) != 0
		v.Null = n.Tag == "!!null"
	case yaml.SequenceNode:
		v.Kind = policy.ListValue
		for i, item := range n.Content {
			c, err := convert(item, field+"["+strconv.Itoa(i)+"]")
			if err != nil {
				return nil, err
			}
			v.Items = append(v.Items, c)
		}
	case yaml.MappingNode:
		v.Kind = policy.MapValue
		for i := 0; i < len(n.Content); i += 2 {
			name := n.Content[i].Value
			key, err := convert(n.Content[i], field+"."+name)
			if err != nil {
				return nil, err
			}
			item, err := convert(n.Content[i+1], field+"."+name)
			if err != nil {
				return nil, err
			}
			v.Keys, v.Items = append(v.Keys, key), append(v.Items, item)
		}
	default:
		return nil, errors.New("aliases are not for tests")
	}
	return v, nil
}

func mustParse(t testing.TB, text string) *policy.Value {
	t.Helper()
	v, err := parseValue(text)
	if err != nil {
		t.Fatalf("parse %s: %v", text, err)
	}
	return v
}

// encodeCase is one value that can be written.
type encodeCase struct {
	typ   btf.Type
	yaml  string
	want  []byte
	holes []specs.Hole
	back  string // JSON of the decoded value; empty: the same as yaml
}

func runEncode(t *testing.T, cases []encodeCase) {
	t.Helper()
	for _, c := range cases {
		t.Run(TypeName(c.typ)+" "+c.yaml, func(t *testing.T) {
			got, err := Encode(c.typ, mustParse(t, c.yaml))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(specs.Bytes{Data: c.want, Holes: c.holes}, got); diff != "" {
				t.Fatalf("bytes (-want +got):\n%s", diff)
			}
			if c.back != "" {
				checkDecode(t, c.typ, got.Data, c.back)
			}
		})
	}
}

func checkDecode(t *testing.T, typ btf.Type, data []byte, want string) {
	t.Helper()
	v, err := Decode(typ, data)
	if err != nil {
		t.Fatal(err)
	}
	if got := toJSON(t, v); got != want {
		t.Errorf("decoded: %s, want %s", got, want)
	}
}

func toJSON(t testing.TB, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// failCase is one value that can't be written. want has the whole error.
type failCase struct {
	typ  btf.Type
	yaml string
	want string
}

func runFail(t *testing.T, cases []failCase) {
	t.Helper()
	for _, c := range cases {
		t.Run(TypeName(c.typ)+" "+c.yaml, func(t *testing.T) {
			got, err := Encode(c.typ, mustParse(t, c.yaml))
			if err == nil {
				t.Fatalf("encoded as %x, want error %q", got.Data, c.want)
			}
			checkError(t, err, c.want)
		})
	}
}

func checkError(t *testing.T, err error, want string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want %q", want)
	}
	if err.Error() != want {
		t.Errorf("error:\n got %s\nwant %s", err, want)
	}
	var f *fault.Error
	if !errors.As(err, &f) || fault.ExitCode(err) != fault.ExitInput {
		t.Errorf("%v is no fault with ExitInput", err)
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("%q has more than one line", err)
	}
}

func u16(n uint16) []byte { return binary.NativeEndian.AppendUint16(nil, n) }
func u32(n uint32) []byte { return binary.NativeEndian.AppendUint32(nil, n) }
func u64(n uint64) []byte { return binary.NativeEndian.AppendUint64(nil, n) }

func TestEncodeMissing(t *testing.T) {
	_, err := Encode(typeU32, nil)
	checkError(t, err, "value: a value of type __u32 is missing")
	_, err = EncodeSized(4, nil)
	checkError(t, err, "value: a value of type 4 bytes without BTF is missing")
	_, err = EncodeKey(nil, 8, ebpf.LPMTrie, nil)
	checkError(t, err, "value: a value of type struct bpf_lpm_trie_key_u8 is missing")
	_, err = Encode(structOf("s", member("a", typeU32)), &policy.Value{Kind: policy.MapValue,
		Keys: []*policy.Value{{Text: "a"}}, Items: []*policy.Value{nil}})
	checkError(t, err, "value: a value of type __u32 is missing")
	_, err = Encode(nil, mustParse(t, "1"))
	checkError(t, err, "p.yaml:1: v: no BTF type: not supported as a value")
}

func TestEncodeVarName(t *testing.T) {
	// The name of a constant counts as that of a field.
	v := &btf.Var{Name: "l4proto", Type: &btf.Volatile{Type: &btf.Const{Type: typeU8}}}
	got, err := Encode(v, mustParse(t, "tcp"))
	if err != nil || !slices.Equal(got.Data, []byte{6}) {
		t.Errorf("got %x, %v", got.Data, err)
	}
	checkDecode(t, v, []byte{6}, `"tcp"`)
	_, err = Encode(v, mustParse(t, "tpc"))
	checkError(t, err, `p.yaml:1: v: "tpc" is no number, which volatile const __u8 needs; write a number from 0 to 255, or one of tcp, udp, icmp, icmpv6, sctp`)
}

func TestEncodeSized(t *testing.T) {
	for _, c := range []struct {
		size  uint32
		yaml  string
		want  []byte
		holes []specs.Hole
	}{
		{1, "255", []byte{255}, nil},
		{1, "-128", []byte{128}, nil},
		{4, "1", u32(1), nil},
		{4, "-1", u32(1<<32 - 1), nil},
		{4, "be:443", []byte{0, 0, 1, 0xbb}, nil},
		{4, "10.0.0.1", []byte{10, 0, 0, 1}, nil},
		{8, "0xffffffffffffffff", u64(1<<64 - 1), nil},
		{6, "02:42:ac:11:00:02", []byte{2, 0x42, 0xac, 0x11, 0, 2}, nil},
		{16, "::1", []byte{15: 1}, nil},
		{16, "10.0.0.1", []byte{10: 0xff, 0xff, 10, 0, 0, 1}, nil},
		{3, "hex:010203", []byte{1, 2, 3}, nil},
		{20, "text:eth0", []byte{0: 'e', 't', 'h', '0', 19: 0}, nil},
		{4, "text:eth0", []byte("eth0"), nil},
		{4, "${ifindex}", make([]byte, 4), []specs.Hole{{Size: 4, Variable: specs.VarIfindex}}},
		{4, "be:${ifindex}", make([]byte, 4), []specs.Hole{{Size: 4, Variable: specs.VarIfindex, BigEndian: true}}},
		{6, "${mac}", make([]byte, 6), []specs.Hole{{Size: 6, Variable: specs.VarMAC}}},
		{8, "${containerId}", make([]byte, 8), []specs.Hole{{Size: 8, Variable: specs.VarContainerIDHash}}},
		{16, "${peer.name}", make([]byte, 16), []specs.Hole{{Size: 16, Variable: specs.VarPeerName}}},
		{64, "${containerId}", make([]byte, 64), []specs.Hole{{Size: 64, Variable: specs.VarContainerID}}},
	} {
		got, err := EncodeSized(c.size, mustParse(t, c.yaml))
		if err != nil {
			t.Errorf("%d %s: %v", c.size, c.yaml, err)
			continue
		}
		if diff := cmp.Diff(specs.Bytes{Data: c.want, Holes: c.holes}, got); diff != "" {
			t.Errorf("%d %s (-want +got):\n%s", c.size, c.yaml, diff)
		}
	}
	for _, c := range []struct {
		size uint32
		yaml string
		want string
	}{
		{1, "256", "p.yaml:1: v: 256 does not fit 1 byte without BTF; write a number from -128 to 255"},
		{2, "10.0.0.1", `p.yaml:1: v: "10.0.0.1" is an IPv4 address, which does not fit 2 bytes without BTF (2 bytes); it needs 4 or 16 bytes`},
		{32, "1", `p.yaml:1: v: there is no BTF type that says what "1" means in 32 bytes; write 32 bytes as hex:…`},
		{32, "hex:01", `p.yaml:1: v: "hex:01" has 1 byte, but unsigned char[32] has 32 bytes; write every byte`},
		{4, "[1]", "p.yaml:1: v: there is no BTF type that says what a list means; write a number, an address or hex:…"},
		{4, "{a: 1}", "p.yaml:1: v: there is no BTF type that says what a mapping means; write a number, an address or hex:…"},
		{4, "null", "p.yaml:1: v: null is no value for 4 bytes without BTF; write 0, or leave it out"},
		{0, "1", "p.yaml:1: v: unsigned char[0] has no size of its own: not supported as a value"},
		{1 << 30, "hex:00", `p.yaml:1: v: unsigned char[1073741824]: its BTF is damaged (too many elements): not supported as a value`},
	} {
		_, err := EncodeSized(c.size, mustParse(t, c.yaml))
		checkError(t, err, c.want)
	}
}

func TestEncodeKeySize(t *testing.T) {
	got, err := EncodeKey(typeU32, 4, ebpf.Hash, mustParse(t, "7"))
	if err != nil || !slices.Equal(got.Data, u32(7)) {
		t.Errorf("got %x, %v", got.Data, err)
	}
	got, err = EncodeKey((*btf.Void)(nil), 4, ebpf.Hash, mustParse(t, "7"))
	if err != nil || !slices.Equal(got.Data, u32(7)) {
		t.Errorf("without BTF: got %x, %v", got.Data, err)
	}
	got, err = EncodeKey(nil, 8, ebpf.Hash, mustParse(t, "7"))
	if err != nil || !slices.Equal(got.Data, u64(7)) {
		t.Errorf("without BTF: got %x, %v", got.Data, err)
	}
	_, err = EncodeKey(typeU32, 8, ebpf.Hash, mustParse(t, "7"))
	checkError(t, err, "p.yaml:1: v: the map's keys have 8 bytes, but __u32 has 4 bytes; keep the object's key size")
}

func TestHex(t *testing.T) {
	s := structOf("s", member("a", typeU32), member("b", typeU16))
	runEncode(t, []encodeCase{
		{typ: typeU32, yaml: "hex:01020304", want: []byte{1, 2, 3, 4}},
		{typ: typeU32, yaml: `"hex:0A0b0C0d"`, want: []byte{10, 11, 12, 13}},
		{typ: s, yaml: "hex:0102030405060708", want: []byte{1, 2, 3, 4, 5, 6, 7, 8}},
		{typ: arrayOf(typeChar, 2), yaml: "hex:6162", want: []byte("ab"), back: `"hex:6162"`},
		{typ: typeBool, yaml: "hex:07", want: []byte{7}, back: `"hex:07"`},
		{typ: &btf.Pointer{Target: typeU32}, yaml: "hex:0000000000000000", want: make([]byte, 8), back: `"hex:0000000000000000"`},
	})
	runFail(t, []failCase{
		{typeU32, "hex:010203", `p.yaml:1: v: "hex:010203" has 3 bytes, but __u32 has 4 bytes; write every byte`},
		{typeU32, "hex:0102030", `p.yaml:1: v: "hex:0102030" for __u32: not hexadecimal bytes; write two hexadecimal digits for each byte, nothing between them`},
		{typeU32, "'hex:01 02 03 04'", `p.yaml:1: v: "hex:01 02 03 04" for __u32: not hexadecimal bytes; write two hexadecimal digits for each byte, nothing between them`},
		{typeU32, "hex:" + strings.Repeat("00", 40), `p.yaml:1: v: "hex:00000000000000000000000000000000000000000000000000000000"… has 40 bytes, but __u32 has 4 bytes; write every byte`},
	})
}
