// SPDX-License-Identifier: Apache-2.0

package thieves

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// actor is where a thief is.
type actor int

const (
	hostRoot   actor = iota // root on the host, in its first namespaces
	hostUserns              // in the container, with CAP_NET_ADMIN, CAP_BPF and CAP_SYS_ADMIN in the host's user namespace
	ownUserns               // the same in a user namespace of its own
)

func (a actor) String() string { return []string{"host", "host-userns", "own-userns"}[a] }

// class is how a row ends. It is judged by links and packets; only the difference
// between refused and holds is what the thief's own call returned.
type class string

const (
	none    class = ""        // this actor can't even try, or it is the same as another row
	refused class = "refused" // the kernel refuses; links and traffic are as before
	holds   class = "holds"   // the call works; links and traffic are as before all the same
	mended  class = "mended"  // it works; `linkpin verify` sees it and `verify --repair` mends it
	seen    class = "seen"    // it works; `linkpin verify` sees it and can't mend it
	warned  class = "warned"  // it works; `linkpin verify` warns
	outside class = "outside" // it works and is not seen: outside of the promise
)

// row is one way to take a program off or around it.
type row struct {
	name string // unique
	what string // what the thief does, for the table
	note string // why it is so and what to do about it, for the table

	host, caps, own class // what is expected for each actor
	// old is the same on kernels without TCX, where tc programs are filters that nobody
	// owns; empty: as above. needs says that there the row is about nothing.
	old   [3]class
	needs kernel

	opts options // zero: standard
	// do is what the thief does; its error is only written down. Then, if there is
	// something to send by, a token is sent to each of the ports: these are forbidden,
	// so none may arrive (at: at which port it counts; 0: any).
	do    func(s *scene) error
	by    []sender
	ports []string
	at    int
	// noWay: afterwards nothing passes at all, not even what is permitted. severed:
	// links end with their device.
	noWay, severed bool
	newTarget      bool           // what is mended is on another device
	undo           func(s *scene) // what the next row can't see is in its way
	used           bool           // nothing can undo it: the next row gets a fresh container
}

// sender sends a token to a port of the host's end.
type sender func(s *scene, port, token string) error

// permitted is a port that nobody forbids.
const permitted = "1000"

// thief sends by a command of the thief, where that is.
func thief(command ...string) sender {
	return func(s *scene, port, token string) error {
		return s.thief(append(slices.Clone(command), port, token)...)
	}
}

// inside sends by a command of the thief in the container, wherever the thief is.
func inside(command ...string) sender {
	return func(s *scene, port, token string) error {
		_, err := s.inside(append(slices.Clone(command), port, token)...)
		return err
	}
}

// group is a part of the table.
type group struct {
	name, title string
	rows        []row
}

var groups = []group{
	{"cgroup", "Programs on the container's cgroup", cgroupRows},
	{"links", "Links, programs and maps by their ids", linkRows},
	{"bpffs", "Pins in bpffs", pinRows},
	{"device", "Programs on the container's interface", deviceRows},
	{"interface", "The interface itself", interfaceRows},
	{"process", "Processes, cgroups and namespaces", processRows},
	{"sockets", "Sockets and packets", socketRows},
	{"netns", "Netfilter programs of the network namespace", netnsRows},
}

func (r row) expected(a actor) class { return []class{r.host, r.caps, r.own}[a] }

func (r row) options() options {
	if r.opts == (options{}) {
		return standard
	}
	if r.opts.policies == "" {
		r.opts.policies = standard.policies
	}
	return r.opts
}

func TestThieves(t *testing.T) {
	needTools(t, "runc")
	for _, g := range groups {
		for _, a := range []actor{hostRoot, hostUserns, ownUserns} {
			t.Run(g.name+"/"+a.String(), func(t *testing.T) {
				t.Parallel()
				runRows(t, a, g.rows)
			})
		}
	}
}

// runRows runs rows one after the other, in one container as long as each leaves it
// as it was.
func runRows(t *testing.T, a actor, rows []row) {
	scenes := map[options]*scene{}
	t.Cleanup(func() {
		for _, s := range scenes {
			s.close()
		}
	})
	for _, r := range rows {
		want := r.on(running(t), a)
		if want == none {
			continue
		}
		t.Run(r.name, func(t *testing.T) {
			o := r.options()
			s := scenes[o]
			delete(scenes, o)
			if s == nil {
				s = newScene(t, a, o)
			} else {
				s.TB = t
				s.check(s.Enter())
			}
			keep := false
			defer func() {
				if !keep {
					s.close()
				}
			}()
			got, why := s.judge(r, want)
			if got != want {
				t.Errorf("%s is %q, expected is %q:\n%s", r.name, got, want, why)
			} else {
				t.Logf("%s: %s", got, why)
			}
			if r.undo != nil {
				r.undo(s)
			}
			if got == mended {
				s.before = s.pinned() // new links, with new ids
			}
			if !r.used && got == want && s.fresh() {
				scenes[o], keep = s, true
			}
		})
	}
}

// judge lets the thief try, and says what came of it and how that was seen.
func (s *scene) judge(r row, want class) (class, string) {
	s.Helper()
	var why []string
	say := func(format string, args ...any) { why = append(why, fmt.Sprintf(format, args...)) }
	verdict := func(c class) (class, string) { return c, strings.Join(why, "\n") }

	told := 0
	watched := slices.Contains([]class{mended, seen, warned}, want)
	if watched {
		told = s.watch()
	}
	var call error
	if r.do != nil {
		call = r.do(s)
	}
	around, failed := s.sendAll(r)
	if r.do == nil {
		call = failed
	}
	say("the call: %v; sending: %v", call, failed)
	if around {
		say("a packet got around the programs")
	}
	links := s.changedLinks()
	if r.severed {
		links = nil
	}
	for _, l := range links {
		say("%s", l)
	}
	escaped := s.escaped(r.noWay, say)
	report := s.verify()
	say("verify: %v", report)
	if watched && !s.told(told, "drift", "warning", "gone") {
		s.Errorf("%s: `linkpin watch` does not say so", r.name)
	}
	intact := !around && !escaped && len(links) == 0
	if !report.alarm(s.base) {
		switch {
		case !intact && len(report.warnings) > len(s.base.warnings):
			return verdict(warned)
		case !intact:
			return verdict(outside)
		case call != nil:
			return verdict(refused)
		}
		s.control(r)
		return verdict(holds)
	}
	repair := s.verifyWith("--repair")
	say("verify --repair: %v", repair)
	wrong := s.wrongLinks(r.newTarget)
	for _, l := range wrong {
		say("%s", l)
	}
	if repair.codes[0] != s.base.codes[0] || len(wrong) > 0 || s.escaped(r.noWay, say) {
		return verdict(seen)
	}
	if after := s.verify(); after.alarm(s.base) {
		say("verify: %v", after)
		return verdict(seen)
	}
	if around, _ := s.sendAll(r); around {
		return verdict(seen)
	}
	return verdict(mended)
}

// sendAll sends to every forbidden port in every way of the row, and reports whether
// one packet arrived. err is that of the last call, if all have failed.
func (s *scene) sendAll(r row) (arrived bool, err error) {
	s.Helper()
	var tokens []string
	worked := false
	for _, by := range r.by {
		for _, port := range r.ports {
			token := s.token()
			tokens = append(tokens, token)
			if e := by(s, port, token); e != nil {
				err = e
			} else {
				worked = true
			}
		}
	}
	if worked {
		err = nil
	}
	if len(tokens) == 0 {
		return false, nil
	}
	s.settle()
	return slices.ContainsFunc(tokens, func(t string) bool { return s.has(r.at, t) }), err
}

// control makes sure that what was stopped is stopped by the programs: the same way
// leads to a port that nobody forbids.
func (s *scene) control(r row) {
	s.Helper()
	if r.noWay {
		return
	}
	for i, by := range r.by {
		arrived := false
		for try := 0; try < 3 && !arrived; try++ {
			token := s.token()
			if err := by(s, permitted, token); err != nil {
				s.Logf("way %d to a permitted port: %v", i, err)
				arrived = true // this actor does not have this way
				break
			}
			s.settle()
			arrived = s.has(0, token)
		}
		if !arrived {
			s.Errorf("%s: what is permitted does not arrive either (way %d): nothing is proven", r.name, i)
		}
	}
}

// escaped reports whether traffic passes that must not, or does not that must.
func (s *scene) escaped(noWay bool, say func(string, ...any)) bool {
	s.Helper()
	found := false
	for _, t := range s.traffic() {
		if noWay && !strings.HasSuffix(t, " ok") {
			continue
		}
		say("traffic: %s", t)
		found = true
	}
	return found
}

// root returns what of a path the actor sees: outside, everything below cgroup2.
func (s *scene) cgroup(below ...string) string {
	s.Helper()
	top := cgroup2
	if s.actor != hostRoot {
		top = "/tmp/cgroup"
		if !s.mounted {
			// It is the row's cause, not the row: whether it works shows in what follows.
			_ = s.thief("mount", "cgroup2", top)
			s.mounted = true
		}
	}
	if s.actor == ownUserns || s.opts.cgroupns {
		return filepath.Join(append([]string{top}, below...)...) // its namespace begins here
	}
	return filepath.Join(append([]string{top, s.parent, id}, below...)...)
}

// device is the end of the veth pair that the actor has.
func (s *scene) device() string {
	if s.actor == hostRoot {
		return hostDevice
	}
	return "eth0"
}

// each tries something with every argument; it fails only if all do.
func each[T any](args []T, f func(T) error) error {
	var last error
	worked := false
	for _, a := range args {
		if err := f(a); err != nil {
			last = err
		} else {
			worked = true
		}
	}
	if worked {
		return nil
	}
	return last
}

// cgroupPrograms are the programs of policy cgroup.
var cgroupPrograms = []string{"connect4", "connect6", "sendmsg4", "sendmsg6", "bind4", "sock_create", "skb_egress", "skb_ingress"}

// TestTable checks the table itself.
func TestTable(t *testing.T) {
	names := map[string]bool{}
	for _, g := range groups {
		for _, r := range g.rows {
			if names[r.name] {
				t.Errorf("two rows are named %s", r.name)
			}
			names[r.name] = true
			if r.what == "" || r.host == none && r.caps == none && r.own == none {
				t.Errorf("row %s says nothing", r.name)
			}
			bad := false
			for _, a := range []actor{hostRoot, hostUserns, ownUserns} {
				bad = bad || r.expected(a) == outside || r.expected(a) == seen
			}
			if bad && r.note == "" {
				t.Errorf("row %s is outside of the promise and says no reason", r.name)
			}
		}
	}
	if _, err := os.Stat(testdata); err != nil {
		t.Error(err)
	}
}
