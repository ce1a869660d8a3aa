// SPDX-License-Identifier: Apache-2.0

package prepare

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestObjectFiles(t *testing.T) {
	dir := directory(t)
	mkdir := func(name string, mode os.FileMode) {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(filepath.Join(dir, name), mode); err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(filepath.Join(dir, "version.bpf.o"))
		if err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, name, "x.o"), data)
	}
	mkdir("open", 0o777)
	mkdir("fine", 0o755)
	mkdir("group", 0o755)
	if err := os.Chmod(filepath.Join(dir, "group/x.o"), 0o664); err != nil {
		t.Fatal(err)
	}
	mkdir("foreign", 0o755)
	if err := os.Chown(filepath.Join(dir, "foreign/x.o"), 1234, 0); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("fine", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("x.o", filepath.Join(dir, "fine/link.o")); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(filepath.Join(dir, "wild.bpf.o"), 16<<20+1); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "text.o"), []byte("int main() {}"))
	for file, want := range map[string]string{
		"missing.o":   "no such file",
		"fine/gone.o": "no such file",
		"open/x.o":    "writable by others",
		"group/x.o":   "writable by others",
		"foreign/x.o": "owned by uid 1234",
		"link/x.o":    "symbolic link",
		"fine/link.o": "symbolic link",
		"fine":        "not a regular file",
		"wild.bpf.o":  "too big",
		"text.o":      "is not an object",
	} {
		t.Run(file, func(t *testing.T) {
			_, err := Policy(parse(t, "object: {file: "+file+"}\n"), Options{Dir: dir})
			wantErrors(t, err, []string{"p.yaml:1: object", want})
		})
	}
	// The policy's directory is looked at too.
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	_, err := Policy(parse(t, "object: {file: fine/x.o}\n"), Options{Dir: dir})
	wantErrors(t, err, []string{"p.yaml:1: object", "writable by others"})
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	// The directory is that of the policy file if nothing else is said.
	p := parse(t, "object: {file: mixed.bpf.o}\nprograms: {flow: {attach: tcx/egress}}\n")
	p.Pos.File = filepath.Join(dir, "p.yaml")
	if _, err := Policy(p, Options{}); err != nil {
		t.Error(err)
	}
}

func TestSHA256(t *testing.T) {
	const text = "object: {file: mixed.bpf.o, sha256: SUM}\nprograms: {flow: {attach: tcx/egress}}\n"
	_, err := prepare(t, strings.Replace(text, "SUM", strings.Repeat("ab", 32), 1))
	wantErrors(t, err, []string{"p.yaml:1: object", "has another sha256", "write sha256: "})

	_, sum, _ := strings.Cut(err.Error(), "write sha256: ")
	must(t, strings.Replace(text, "SUM", sum, 1))
}

// A function that the library passes over without a word.
func TestFunctionThatIsPassedOver(t *testing.T) {
	_, err := prepare(t, "object: {file: version.bpf.o}\n")
	wantErrors(t, err, []string{"p.yaml:1: object", `function lost in section "version_2"`})
}

func TestObjectsThatCanNotBeUsed(t *testing.T) {
	_, err := prepare(t, "object: {file: empty.bpf.o}\n")
	wantErrors(t, err, []string{"p.yaml:1: object", "it has no program"})
	_, err = prepare(t, "object: {file: bigendian.o}\n")
	wantErrors(t, err, []string{"p.yaml:1: object", "it was compiled for the other byte order"})
}

func TestBrokenObjects(t *testing.T) {
	dir := directory(t)
	whole, err := os.ReadFile(filepath.Join(dir, "plain.bpf.o"))
	if err != nil {
		t.Fatal(err)
	}
	p := parse(t, "object: {file: broken.o}\nprograms: {connect4: {}}\n")
	for n := 0; n < len(whole); n += 97 {
		write(t, filepath.Join(dir, "broken.o"), whole[:n])
		if _, err := Policy(p, Options{Dir: dir}); err == nil {
			t.Errorf("the first %d of %d bytes are taken", n, len(whole))
		}
	}
	for n := 0; n < len(whole); n += 53 {
		bad := append([]byte(nil), whole...)
		bad[n] ^= 0xff
		write(t, filepath.Join(dir, "broken.o"), bad)
		_, _ = Policy(p, Options{Dir: dir}) // must not panic
	}
}
