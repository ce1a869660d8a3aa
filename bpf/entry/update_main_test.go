// SPDX-License-Identifier: Apache-2.0

package entry

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"

	"github.com/linkpin/linkpin/bpf/attach"
	"github.com/linkpin/linkpin/bpf/bpftest"
	"github.com/linkpin/linkpin/bpf/pin"
	"github.com/linkpin/linkpin/bpf/target"
	"github.com/linkpin/linkpin/specs"
)

//go:generate sh -c "../../hack/bpfobject testdata/*.bpf.c"

// versions is an applied set in memory of which earlier plans are kept.
type versions struct {
	current map[string]string // digest by policy
	plans   map[string]*specs.Plan
}

func newVersions() *versions {
	return &versions{current: map[string]string{}, plans: map[string]*specs.Plan{}}
}

// apply puts a plan into effect and returns its digest.
func (v *versions) apply(p *specs.Plan) string {
	text, err := json.Marshal(p)
	if err != nil {
		panic(err)
	}
	sum := sha256.Sum256(text)
	digest := hex.EncodeToString(sum[:])
	v.plans[digest], v.current[p.Name] = p, digest
	return digest
}

func (v *versions) Generation() string { return strconv.Itoa(len(v.plans)) }

func (v *versions) Plan(name string) (*specs.Plan, string, error) {
	digest, ok := v.current[name]
	if !ok {
		return nil, "", fmt.Errorf("no policy %s", name)
	}
	return v.plans[digest], digest, nil
}

func (v *versions) PlanByDigest(digest string) (*specs.Plan, error) {
	if p, ok := v.plans[digest]; ok {
		return p, nil
	}
	return nil, fmt.Errorf("no plan %s", digest)
}

// Object takes the name of an object for its hash.
func (v *versions) Object(name string) ([]byte, error) {
	return os.ReadFile("testdata/" + name + ".bpf.o")
}

// version makes a plan of one of the objects in testdata. ports are those that may be
// connected to.
func version(object string, ports []uint32, programs ...specs.PlanProgram) *specs.Plan {
	p := &specs.Plan{
		Version: specs.PlanVersion, Name: "p", OnError: specs.Deny, Scope: specs.ScopeContainer, Teardown: specs.Drain,
		Objects:  []specs.PlanObject{{SHA256: object, Origin: object}},
		Programs: programs,
		Maps: []specs.PlanMap{
			{Name: "counts", Members: []specs.MapRef{{Symbol: "counts"}}},
			{Name: "per_cpu", Members: []specs.MapRef{{Symbol: "per_cpu"}}},
		},
	}
	m := specs.PlanMap{Name: "ports", Members: []specs.MapRef{{Symbol: "ports"}}}
	for _, port := range ports {
		m.Entries = append(m.Entries, specs.PlanEntry{Key: specs.Bytes{Data: number(port)}, Value: specs.Bytes{Data: number(1)}})
	}
	p.Maps = append(p.Maps, m)
	return p
}

func number(n uint32) []byte { return binary.NativeEndian.AppendUint32(nil, n) }

// every lists a program for every kind of target.
func every() []specs.PlanProgram {
	return []specs.PlanProgram{
		program("connect4", "cgroup/connect4"), program("sendmsg4", "cgroup/sendmsg4"),
		program("tc", specs.HookTCXIngress), program("device", specs.HookXDP, onHost), program("lookup", specs.HookSKLookup),
	}
}

func inCgroup() []specs.PlanProgram {
	return []specs.PlanProgram{program("connect4", "cgroup/connect4"), program("sendmsg4", "cgroup/sendmsg4")}
}

// pod is a container with a cgroup and a network namespace of its own.
type pod struct {
	*container
	ns    *bpftest.NS
	iface *target.Interface
}

func newPod(t testing.TB, id, host string) *pod {
	t.Helper()
	dir := bpftest.Cgroup(t)
	ns := bpftest.NetNSProcess(t, dir)
	bpftest.Veth(t, ns, host, "eth0")
	p := &pod{container: subject(t, id, dir, ns.PID()), ns: ns}
	n, err := target.OpenNetns(ns.Path())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	if p.iface, err = n.Interface("eth0"); err != nil {
		t.Fatal(err)
	}
	p.sub.Netns = n
	return p
}

// start attaches what is applied of policy p, as the hook does.
func (f *fixture) start(t testing.TB, p *pod) {
	t.Helper()
	ctx := context.Background()
	l := f.lock(t, pin.Container(p.key))
	defer l.Release()
	key, lock, err := f.LockSandbox(ctx, p.sub.Netns, "")
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Release()
	if err := f.JoinSandbox(key, p.key); err != nil {
		t.Fatal(err)
	}
	p.sub.Sandbox = key
	plan, _, err := f.Plan("p")
	if err != nil {
		t.Fatal(err)
	}
	var wants []Want
	places, err := f.Root.Entries(pin.Sandbox(key))
	if err != nil {
		t.Fatal(err)
	}
	if len(places) == 0 && slices.Contains(kinds(plan), specs.TargetNetns) {
		wants = append(wants, Want{Policy: "p", OnError: specs.Deny, Kind: specs.TargetNetns, Place: pin.NetnsEntry(key, "p")})
	}
	if len(places) == 0 && Attaches(plan, "eth0") {
		wants = append(wants, Want{Policy: "p", OnError: specs.Deny, Kind: specs.TargetInterface, Interface: p.iface, Place: pin.HookInterfaceEntry(key, "eth0", "p")})
	}
	if _, err := f.Attach(ctx, p.sub, append(wants, p.wants("p")...)); err != nil {
		t.Fatal(err)
	}
}

func kinds(plan *specs.Plan) []specs.TargetKind {
	var out []specs.TargetKind
	for _, k := range kindsOf(plan) {
		out = append(out, k)
	}
	return out
}

// fresh returns a session like f's, which has read nothing of the applied set yet.
func (f *fixture) fresh() *Session {
	return &Session{Root: f.Root, Plans: f.Plans, By: pin.ByCLI, Warn: f.Warn}
}

// update runs one update of policy p of which every unit must end like want.
func (f *fixture) update(t testing.TB, want Outcome) UnitUpdate {
	t.Helper()
	out, err := f.fresh().Update(context.Background(), UpdateOptions{Policies: []string{"p"}})
	if err != nil || len(out) != 1 {
		t.Fatalf("%d units, %v", len(out), err)
	}
	if out[0].Outcome != want {
		t.Fatalf("%s, want %s: %v", out[0].Outcome, want, out[0].Err)
	}
	if names, err := f.Root.StagingNames(); err != nil || len(names) > 0 {
		t.Errorf("staging: %v, %v", names, err)
	}
	return out[0]
}

// state is what an update may change: the records' digests and the links' programs.
func (f *fixture) state(t testing.TB) string {
	t.Helper()
	var b strings.Builder
	if err := f.Walk(func(it Item) error {
		if it.Err != nil {
			return it.Err
		}
		fmt.Fprintf(&b, "%s %.8s", it.Place, it.Record.Digest)
		for i, p := range it.Record.Programs {
			fmt.Fprintf(&b, " %s:%d:%d:%s", p.Name, it.Links[i].Info.LinkID, it.Links[i].Info.ProgramID, it.Links[i].Info.State)
		}
		b.WriteString("\n")
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// inOrder fails unless every entry is as recorded.
func (f *fixture) inOrder(t testing.TB) {
	t.Helper()
	if err := f.Walk(func(it Item) error {
		for _, finding := range f.Verify(it) {
			if finding.Problem != ProblemUnknown {
				t.Errorf("%s: program %s: %s: %s", it.Place, finding.Program, finding.Problem, finding.Detail)
			}
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
}

// counted returns how often the programs of a version have counted in an entry.
func (f *fixture) counted(t testing.TB, p pin.Place, ver uint32) uint64 {
	t.Helper()
	var value []byte
	f.withMap(t, p, "counts", func(m *ebpf.Map) {
		var err error
		if value, err = m.LookupBytes(number(ver)); err != nil {
			t.Fatal(err)
		}
	})
	if value == nil {
		return 0
	}
	return binary.NativeEndian.Uint64(value[len(value)-8:]) // packets come last
}

func (f *fixture) withMap(t testing.TB, p pin.Place, name string, fn func(*ebpf.Map)) {
	t.Helper()
	e, err := f.Root.Entry(p)
	if err != nil {
		t.Fatal(err)
	}
	m, err := ebpf.LoadPinnedMap(e.MapPath(name), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	fn(m)
}

func (f *fixture) mapID(t testing.TB, p pin.Place, name string) ebpf.MapID {
	t.Helper()
	var id ebpf.MapID
	f.withMap(t, p, name, func(m *ebpf.Map) {
		info, err := m.Info()
		if err != nil {
			t.Fatal(err)
		}
		id, _ = info.ID()
	})
	return id
}

// connected connects n UDP sockets to a port from inside a cgroup and returns how many
// were let.
func connected(t testing.TB, dir string, n, port int) int {
	t.Helper()
	out, err := bpftest.Command(t, dir, "bash", "-c", fmt.Sprintf(
		"ok=0; for i in $(seq %d); do { exec 3<>/dev/udp/127.0.0.1/%d; } 2>/dev/null && ok=$((ok+1)); done; echo $ok", n, port)).Output()
	if err != nil {
		t.Fatal(err)
	}
	ok, err := strconv.Atoi(strings.TrimSpace(string(out)))
	if err != nil {
		t.Fatal(err)
	}
	return ok
}

// traffic connects from inside a cgroup until stop is called, which returns how often.
func traffic(t testing.TB, dir string, port int) (stop func() (tried, let int)) {
	t.Helper()
	flag := filepath.Join(t.TempDir(), "stop")
	cmd := bpftest.Command(t, dir, "bash", "-c", fmt.Sprintf(
		`n=0; ok=0; until [ -e %s ]; do n=$((n+1)); { exec 3<>/dev/udp/127.0.0.1/%d; } 2>/dev/null && ok=$((ok+1)); done; echo $n $ok`, flag, port))
	var out strings.Builder
	cmd.Stdout = &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return func() (tried, let int) {
		if err := os.WriteFile(flag, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Fatal(err)
		}
		if _, err := fmt.Sscan(out.String(), &tried, &let); err != nil {
			t.Fatal(err)
		}
		return tried, let
	}
}

// killedAt runs an update in a process of its own that kills itself when it has come to
// a step for the nth time. It reports whether it came that far.
func (f *fixture) killedAt(t testing.TB, step int, plans ...*specs.Plan) bool {
	t.Helper()
	text, err := json.Marshal(plans)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestUpdateChild$")
	cmd.Env = append(os.Environ(), "LINKPIN_UPDATE_STEP="+strconv.Itoa(step), "LINKPIN_UPDATE_BPFFS="+f.mount(), "LINKPIN_UPDATE_PLANS="+string(text))
	out, err := cmd.CombinedOutput()
	if err == nil {
		return false
	}
	if !strings.Contains(err.Error(), "killed") {
		t.Fatalf("%v: %s", err, out)
	}
	return true
}

// TestUpdateChild is the process that killedAt starts.
func TestUpdateChild(t *testing.T) {
	path := os.Getenv("LINKPIN_UPDATE_BPFFS")
	if path == "" {
		return // by itself it is no test
	}
	left, err := strconv.Atoi(os.Getenv("LINKPIN_UPDATE_STEP"))
	if err != nil {
		t.Fatal(err)
	}
	var plans []*specs.Plan
	if err := json.Unmarshal([]byte(os.Getenv("LINKPIN_UPDATE_PLANS")), &plans); err != nil {
		t.Fatal(err)
	}
	v := newVersions()
	for _, p := range plans {
		v.apply(p)
	}
	root, err := pin.Open(pin.Options{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	s := &Session{Root: root, Plans: v, By: pin.ByCLI}
	s.step = func(string) {
		if left--; left < 0 {
			p, _ := os.FindProcess(os.Getpid())
			_ = p.Kill()
			time.Sleep(time.Minute)
		}
	}
	if _, err := s.Update(context.Background(), UpdateOptions{Policies: []string{"p"}}); err != nil {
		t.Fatal(err)
	}
}

// foreign puts a program of somebody else into a link.
func (f *fixture) foreign(t *testing.T, p pin.Place, link string) {
	t.Helper()
	e, err := f.Root.Entry(p)
	if err != nil {
		t.Fatal(err)
	}
	path := e.LinkPath(link)
	other, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.CGroupSockAddr, AttachType: ebpf.AttachCGroupInet4Connect, License: "GPL", Instructions: allow()})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	withLink(t, path, func(l *attach.Link) error { return l.Update(other) })
}

func deleteLink(name string) error {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	return netlink.LinkDel(l)
}

// mount returns where the fixture's bpffs is mounted.
func (f *fixture) mount() string { return filepath.Dir(filepath.Dir(f.Root.Path())) }
