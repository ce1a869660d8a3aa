// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"

	"golang.org/x/sys/unix"

	"github.com/linkpin/linkpin/integration/faults/tracer"
)

// kinds are the faults that are tried at every call.
var kinds = []tracer.Fault{
	{Action: tracer.KillEntry}, {Action: tracer.KillExit},
	{Action: tracer.Fail, Errno: unix.ENOSPC}, {Action: tracer.Fail, Errno: unix.ENOMEM}, {Action: tracer.Fail, Errno: unix.EINTR},
	{Action: tracer.Fail, Errno: unix.EPERM}, {Action: tracer.Fail, Errno: unix.EBUSY},
}

// point is one run: a fault at one call of one stage.
type point struct {
	stage string
	fault tracer.Fault
}

func (p point) String() string { return fmt.Sprintf("%s, call %d, %v", p.stage, p.fault.N, p.fault) }

type failure struct {
	point point
	err   error
}

// series are runs of one stage with one kind of fault.
type series struct {
	stage *stage
	kind  tracer.Fault
	// first, first+parts, first+2*parts, … until a run ends without having reached its
	// call. 0: these calls, of which the last may not be reached.
	first  int
	points []int

	tried  []int // reached
	beyond []int // not reached: the run made fewer calls
}

// result is what becomes of all series.
type result struct {
	t        *testing.T
	mu       sync.Mutex
	failures []failure
	calls    map[string]int // by stage, of a run without a fault
}

func (r *result) fail(f ...failure) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failures = append(r.failures, f...)
	for _, f := range f {
		r.t.Errorf("%v: %v", f.point, f.err) // at once: a whole run takes its time
	}
}

// parts is in how many a whole series is divided, so that several hosts work at it.
const parts = 4

// tooMany failures of one series end it: what is broken is broken at every call.
const tooMany = 10

func TestFaults(t *testing.T) {
	chosen := chosenStages(t)
	r := &result{t: t, calls: map[string]int{}}
	before, err := namespaces()
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := awaitNamespaces(before, vanishing); err != nil {
			t.Error(err)
		}
	}()
	// Without a fault first: that every stage succeeds, and how many calls it makes.
	work(t, chosen, r, func(h *host, s *stage) {
		p := point{stage: s.name}
		o, err := h.try(s, p.fault)
		if err == nil && o.ok() == s.fails {
			err = fmt.Errorf("%v", o)
		}
		if err != nil {
			r.fail(failure{p, fmt.Errorf("without a fault: %w", err)})
			return
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.calls[s.name] = o.Calls
	})
	if t.Failed() {
		return
	}
	todo := plan(t, chosen, r)
	try := func(todo []*series) {
		work(t, todo, r, func(h *host, s *series) {
			h.walk(s, r)
			if *all {
				t.Logf("%s, %v: %d calls tried from %d on", s.stage.name, s.kind, len(s.tried), s.first) // it takes its time
			}
		})
	}
	try(todo)
	if *all {
		// One run makes more calls than another: a part may have ended before its time.
		more := missing(todo)
		try(more)
		todo = append(todo, more...)
	}
	t.Log("\n" + table(todo, r))
	if *all {
		complete(t, todo)
	}
}

func (s *stage) faults() []tracer.Fault {
	if s.kinds != nil {
		return s.kinds
	}
	return kinds
}

func chosenStages(t *testing.T) []*stage {
	t.Helper()
	pattern, err := regexp.Compile(*only)
	if err != nil {
		t.Fatal(err)
	}
	var chosen []*stage
	for i := range stages {
		// Not in the sample: a gc that is stopped at some of its calls still makes others wait
		// (docs/ARCHITECTURE.md, "Sweeping"), and fails them. `make test-faults` shows which.
		if *only == "" && !*all && slices.Equal(stages[i].kinds, stopped) {
			continue
		}
		if pattern.MatchString(stages[i].name) {
			chosen = append(chosen, &stages[i])
		}
	}
	return chosen
}

// plan lists the series: whole, or a sample of their calls that begins somewhere else
// each time.
func plan(t *testing.T, chosen []*stage, r *result) []*series {
	if *onlyAt > 0 {
		var todo []*series
		for _, s := range chosen {
			for _, k := range s.faults() {
				todo = append(todo, &series{stage: s, kind: k, points: []int{*onlyAt}})
			}
		}
		return todo
	}
	if *all {
		var todo []*series
		for _, s := range chosen {
			for _, k := range s.faults() {
				for i := range parts {
					todo = append(todo, &series{stage: s, kind: k, first: i + 1})
				}
			}
		}
		// The longest first: they decide when the last worker is done.
		slices.SortStableFunc(todo, func(a, b *series) int { return r.calls[b.stage.name] - r.calls[a.stage.name] })
		return todo
	}
	if *seed == 0 {
		*seed = rand.Uint64()
	}
	t.Logf("the same sample again: -args -faults.seed=%d; everything: make test-faults", *seed)
	random := rand.New(rand.NewPCG(*seed, 0))
	var todo []*series
	for _, s := range chosen {
		calls := r.calls[s.name]
		stride := max(calls / *points, 1)
		all := make([]*series, len(s.faults()))
		for i, k := range s.faults() {
			all[i] = &series{stage: s, kind: k}
		}
		// Each call of the sample with the next kind of fault.
		next := random.IntN(len(all))
		for at := random.IntN(stride); at < calls; at += stride {
			s := all[next%len(all)]
			s.points = append(s.points, at+1)
			next++
		}
		todo = append(todo, all...)
	}
	return todo
}

// work does every job on one of several hosts.
func work[T any](t *testing.T, jobs []T, r *result, do func(*host, T)) {
	t.Helper()
	queue := make(chan T, len(jobs))
	for _, j := range jobs {
		queue <- j
	}
	close(queue)
	var wg sync.WaitGroup
	for range min(*workers, len(jobs)) {
		wg.Go(func() {
			h, err := newHost() // its namespaces end with this goroutine
			if err != nil {
				t.Error(err)
				return
			}
			for j := range queue {
				do(h, j)
			}
			r.fail(h.settled(point{stage: "all runs"})...)
			if err := h.close(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

// walk goes through a series.
func (h *host) walk(s *series, r *result) {
	failures := 0
	for i := 0; s.first > 0 || i < len(s.points); i++ {
		f := s.kind
		if f.N = s.first + i*parts; s.first == 0 {
			f.N = s.points[i]
		}
		o, err := h.try(s.stage, f)
		if err != nil {
			r.fail(failure{point{s.stage.name, f}, err})
			if failures++; failures == tooMany {
				return
			}
		}
		late := h.vanished()
		r.fail(late...)
		if o == nil {
			continue
		}
		switch {
		case o.Reached:
			s.tried = append(s.tried, f.N)
		case s.first > 0:
			s.beyond = append(s.beyond, f.N)
			return
		default:
			s.beyond = append(s.beyond, f.N)
		}
	}
}

// table says what was tried.
func table(todo []*series, r *result) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(w, "stage\tcalls\t")
	columns := slices.Concat(kinds, stopped)
	for _, k := range columns {
		fmt.Fprint(w, k, "\t")
	}
	fmt.Fprint(w, "failures\t\n")
	total := 0
	for i := range stages {
		name := stages[i].name
		if r.calls[name] == 0 {
			continue
		}
		fmt.Fprintf(w, "%s\t%d\t", name, r.calls[name])
		for _, k := range columns {
			tried, told := 0, "-"
			for _, s := range todo {
				if s.stage.name == name && s.kind == k {
					tried += len(s.tried)
					told = strconv.Itoa(tried)
				}
			}
			total += tried
			fmt.Fprint(w, told, "\t")
		}
		failed := 0
		for _, f := range r.failures {
			if f.point.stage == name {
				failed++
			}
		}
		fmt.Fprintf(w, "%d\t\n", failed)
	}
	_ = w.Flush() // into memory
	return b.String() + fmt.Sprintf("%d points tried\n", total)
}

// missing returns the calls that no part of a series has come to, although another part
// has reached a later one.
func missing(todo []*series) []*series {
	type name struct {
		stage *stage
		kind  tracer.Fault
	}
	known := map[name]map[int]bool{}
	last := map[name]int{}
	for _, s := range todo {
		n := name{s.stage, s.kind}
		if known[n] == nil {
			known[n] = map[int]bool{}
		}
		for _, call := range slices.Concat(s.tried, s.beyond) {
			known[n][call] = true
		}
		last[n] = slices.Max(append(s.tried, last[n]))
	}
	var more []*series
	for n, calls := range known {
		s := &series{stage: n.stage, kind: n.kind}
		for call := 1; call <= last[n]; call++ {
			if !calls[call] {
				s.points = append(s.points, call)
			}
		}
		if len(s.points) > 0 {
			more = append(more, s)
		}
	}
	return more
}

// complete fails the test if a call was left out of any series, or if one ended at a
// call that was reached.
func complete(t *testing.T, todo []*series) {
	t.Helper()
	for _, s := range missing(todo) {
		t.Errorf("%s, %v: calls %v were left out", s.stage.name, s.kind, s.points)
	}
	for _, s := range todo {
		if s.first > 0 && len(s.beyond) == 0 {
			t.Errorf("%s, %v: the part from %d on ended at a call that was reached", s.stage.name, s.kind, s.first)
		}
	}
}
