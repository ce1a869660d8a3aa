// SPDX-License-Identifier: Apache-2.0

package attach

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strconv"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/linkpin/linkpin/bpf/hooks"
	"github.com/linkpin/linkpin/specs"
)

// State says whether a link still has its target.
type State string

// The states.
const (
	Live    State = "live"    // attached
	Severed State = "severed" // the target is gone, or somebody detached the link by force
	Unknown State = "unknown" // netfilter links don't tell
)

// Info is what the kernel says of a link.
type Info struct {
	LinkID     uint32
	ProgramID  uint32
	ProgramTag string     // hex, 16 digits
	Hook       specs.Hook // "" for links of kinds that linkpin does not make
	State      State
	CgroupID   uint64 // cgroup hooks; 0 when severed
	Ifindex    int    // interface hooks, in the namespace the device is in now; 0 when severed
	NetnsInode uint64 // sk_lookup and flow_dissector; 0 when severed
	BTFID      uint32 // fentry, fexit and lsm: what the program is attached to, as BTF of the kernel counts it
}

// linkInfoSize covers struct bpf_link_info up to the longest part that is read.
const linkInfoSize = 32

// Info reads the link from the kernel. The link may be severed.
func (l *Link) Info() (Info, error) {
	var b [linkInfoSize]byte
	if err := objInfo(l.raw.FD(), b[:]); err != nil {
		return Info{}, fmt.Errorf("reading link: %w", err)
	}
	info := parseLinkInfo(b)
	p, err := l.program(info.ProgramID)
	if err != nil {
		return Info{}, fmt.Errorf("reading program %d of link %d: %w", info.ProgramID, info.LinkID, err)
	}
	info.ProgramTag = p.tag
	if info.Hook == specs.HookTPBTF && p.kind != ebpf.Tracing {
		info.Hook, info.State = "", Unknown // an older kind of program at a tracepoint
	}
	return info, nil
}

// parseLinkInfo reads struct bpf_link_info (include/uapi/linux/bpf.h): type, id,
// prog_id, and from byte 16 a union over the types.
func parseLinkInfo(b [linkInfoSize]byte) Info {
	u32 := func(off int) uint32 { return binary.NativeEndian.Uint32(b[off:]) }
	info := Info{LinkID: u32(4), ProgramID: u32(8), State: Live}
	gone := false
	switch link.Type(u32(0)) {
	case link.CgroupType: // u64 cgroup_id, u32 attach_type
		info.CgroupID = binary.NativeEndian.Uint64(b[16:])
		info.Hook, _ = hooks.FromAttachType(ebpf.AttachType(u32(24)))
		gone = info.CgroupID == 0
	case link.NetNsType: // u32 netns_ino, u32 attach_type
		info.NetnsInode = uint64(u32(16))
		info.Hook, _ = hooks.FromAttachType(ebpf.AttachType(u32(20)))
		gone = info.NetnsInode == 0
	case link.TCXType: // u32 ifindex, u32 attach_type
		info.Ifindex = int(u32(16))
		info.Hook, _ = hooks.FromAttachType(ebpf.AttachType(u32(20)))
		gone = info.Ifindex == 0
	case link.XDPType: // u32 ifindex
		info.Ifindex = int(u32(16))
		info.Hook = specs.HookXDP
		gone = info.Ifindex == 0
	case link.NetfilterType:
		info.Hook = specs.HookNetfilter
		info.State = Unknown
	case link.TracingType: // u32 attach_type, u32 target_obj_id, u32 target_btf_id
		// It can't be detached, and its target never goes: it is live while it exists.
		info.Hook, _ = hooks.FromAttachType(ebpf.AttachType(u32(16)))
		info.BTFID = u32(24)
	case link.RawTracepointType: // u64 tp_name, u32 tp_name_len
		info.Hook = specs.HookTPBTF
	default:
		info.State = Unknown
	}
	if gone {
		info.State = Severed
	}
	return info
}

// program reads the program that the link has now.
func (l *Link) program(id uint32) (program, error) {
	if l.prog != nil && l.prog.FD() >= 0 {
		if p, err := readProgram(l.prog.FD()); err == nil && p.id == id {
			return p, nil
		}
	}
	return programByID(id)
}

type program struct {
	kind ebpf.ProgramType
	id   uint32
	tag  string
	name string // up to 15 bytes; may be empty
}

func (p program) String() string {
	if p.name == "" {
		return "program " + strconv.FormatUint(uint64(p.id), 10)
	}
	return fmt.Sprintf("program %d (%s)", p.id, p.name)
}

func programByID(id uint32) (program, error) {
	fd, err := progByID(id)
	if err != nil {
		return program{id: id}, err
	}
	defer unix.Close(fd)
	return readProgram(fd)
}

// readProgram reads struct bpf_prog_info: type at byte 0, id at 4, tag at 8, name at 64. The
// rest of cilium's ProgramInfo costs further system calls.
func readProgram(fd int) (program, error) {
	var b [64 + unix.BPF_OBJ_NAME_LEN]byte
	if err := objInfo(fd, b[:]); err != nil {
		return program{}, err
	}
	name, _, _ := bytes.Cut(b[64:], []byte{0})
	return program{
		kind: ebpf.ProgramType(binary.NativeEndian.Uint32(b[:])),
		id:   binary.NativeEndian.Uint32(b[4:]),
		tag:  hex.EncodeToString(b[8:16]),
		name: string(name),
	}, nil
}
