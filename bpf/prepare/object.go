// SPDX-License-Identifier: Apache-2.0

package prepare

import (
	"bytes"
	"crypto/sha256"
	"debug/elf"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"

	"github.com/linkpin/linkpin/bpf/load"
	"github.com/linkpin/linkpin/bpf/programs"
	"github.com/linkpin/linkpin/specs"
	"github.com/linkpin/linkpin/specs/applied/trusted"
	"github.com/linkpin/linkpin/specs/policy"
)

// maxObject is the largest object in bytes.
const maxObject = 16 << 20

// object is one eBPF object of the policy.
type object struct {
	name    string
	pos     policy.Pos
	origin  string
	builtin bool
	sum     string
	data    []byte
	spec    *ebpf.CollectionSpec
	kernel  map[string]bool // variables that the kernel or the loader fills (.kconfig, .ksyms)
}

// key is a name as the plan writes it: qualified where objects have names.
func (o *object) key(symbol string) string {
	if o.name == "" {
		return symbol
	}
	return o.name + "/" + symbol
}

func (o *object) ref(symbol string) specs.MapRef {
	return specs.MapRef{Object: o.name, Symbol: symbol}
}

// readObjects reads and parses all objects.
func (w *preparer) readObjects() {
	for _, po := range w.policy.Objects {
		o := &object{name: po.Name, pos: po.Pos}
		var err error
		if po.Builtin != "" {
			o.origin, o.builtin = "builtin:"+po.Builtin, true
			o.data, err = w.o.Builtin(po.Builtin)
		} else {
			o.origin = filepath.Join(w.o.Dir, po.File)
			o.data, err = readFile(w.o.Dir, po.File)
		}
		if err != nil {
			w.fail(po.Pos, objectRemedy(err), "%w", err)
			continue
		}
		sum := sha256.Sum256(o.data)
		o.sum = hex.EncodeToString(sum[:])
		if po.SHA256 != "" && po.SHA256 != o.sum {
			w.fail(po.Pos, "if the new file is wanted, write sha256: "+o.sum, "%s has another sha256", o.origin)
			continue
		}
		if err := o.parse(); err != nil {
			w.fail(po.Pos, "", "%s is not an object that can be loaded: %w", o.origin, err)
			continue
		}
		w.objects = append(w.objects, o)
		w.checkFunctions(o)
	}
}

func objectRemedy(err error) string {
	switch {
	case errors.Is(err, programs.ErrUnknown):
		return "there are " + list(programs.Names())
	case errors.Is(err, trusted.ErrUntrusted):
		return "objects and their directories must be root's, and not writable by others"
	case errors.Is(err, fs.ErrNotExist):
		return "paths start from the policy file's directory"
	}
	return ""
}

// readFile reads an object below dir, so that nobody but root can have had a say
// in what is read: each directory on the way is opened and checked by itself.
func readFile(dir, path string) ([]byte, error) {
	if !fs.ValidPath(path) || path == "." {
		return nil, fmt.Errorf("%q is not a path below the policy's directory", path)
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	at, err := trusted.OpenDir(abs)
	if err != nil {
		return nil, err
	}
	defer func() { at.Close() }()
	parts := strings.Split(path, "/")
	for _, part := range parts[:len(parts)-1] {
		next, err := trusted.OpenDirAt(at, part)
		if err != nil {
			return nil, err
		}
		at.Close()
		at = next
	}
	return trusted.ReadFileAt(at, parts[len(parts)-1], maxObject)
}

// parse reads the ELF file.
func (o *object) parse() (err error) {
	if o.spec, err = ebpf.LoadCollectionSpecFromReader(bytes.NewReader(o.data)); err != nil {
		return err
	}
	if one := []byte{1, 0}; o.spec.ByteOrder != nil && o.spec.ByteOrder.Uint16(one) != binary.NativeEndian.Uint16(one) {
		return errors.New("it was compiled for the other byte order (use -target bpf)")
	}
	if len(o.spec.Programs) == 0 {
		return errors.New("it has no program")
	}
	o.kernel = map[string]bool{}
	for _, section := range []string{".kconfig", ".ksyms"} {
		var ds *btf.Datasec
		if o.spec.Types == nil || o.spec.Types.TypeByName(section, &ds) != nil {
			continue
		}
		for _, v := range ds.Vars {
			o.kernel[v.Type.TypeName()] = true
		}
	}
	return nil
}

// checkFunctions finds functions that the library passes over: those in sections
// whose name it takes for something else, such as "version_1".
func (w *preparer) checkFunctions(o *object) {
	f, err := elf.NewFile(bytes.NewReader(o.data))
	if err != nil {
		w.fail(o.pos, "", "%s: %w", o.origin, err)
		return
	}
	symbols, err := f.Symbols()
	if err != nil {
		w.fail(o.pos, "", "%s: %w", o.origin, err)
		return
	}
	for _, s := range symbols {
		if elf.ST_TYPE(s.Info) != elf.STT_FUNC || s.Section == elf.SHN_UNDEF || int(s.Section) >= len(f.Sections) {
			continue
		}
		section := f.Sections[s.Section]
		if section.Flags&elf.SHF_EXECINSTR == 0 || section.Name == ".text" || o.spec.Programs[s.Name] != nil {
			continue
		}
		w.fail(o.pos, "give the function another section and compile the object again",
			"%s: function %s in section %q can't be loaded: names like this one are not for programs", o.origin, s.Name, section.Name)
	}
}

// maps returns the names of the maps that an object declares, without its data
// sections.
func (o *object) maps() []string {
	var names []string
	for name := range o.spec.Maps {
		if !load.IsDataSection(name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

func (o *object) programNames() []string { return slices.Sorted(maps.Keys(o.spec.Programs)) }

func (o *object) variableNames() []string {
	var names []string
	for _, v := range load.Variables(o.spec) {
		names = append(names, v.Name)
	}
	slices.Sort(names)
	return names
}

// named returns the objects that have something of a name, which may be qualified
// by its object, and the bare name. has tells whether an object has it.
func (w *preparer) named(name string, has func(o *object, symbol string) bool) (symbol string, found []*object) {
	if prefix, rest, ok := strings.Cut(name, "/"); ok {
		for _, o := range w.objects {
			if o.name == prefix && has(o, rest) {
				return rest, []*object{o}
			}
		}
		return rest, nil
	}
	for _, o := range w.objects {
		if has(o, name) {
			found = append(found, o)
		}
	}
	return name, found
}

// all returns the keys of what all objects have.
func (w *preparer) all(names func(o *object) []string) []string {
	var out []string
	for _, o := range w.objects {
		for _, n := range names(o) {
			out = append(out, o.key(n))
		}
	}
	return out
}
