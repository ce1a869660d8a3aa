// SPDX-License-Identifier: Apache-2.0

// Package watch turns the state in bpffs and in the kernel into a stream of events:
// what was attached, retired, taken off, mended, and what the built-in policies have
// refused.
//
// A watcher only looks. It takes no locks and writes nothing, and between two looks
// it holds nothing open but an inotify and a netlink descriptor, which keep neither
// links nor maps, mounts or namespaces alive. It may be killed at any time. During a
// look it opens one link or map after the other for the length of a system call; a
// link whose last reference somebody else drops in that very moment is freed by the
// watcher's close instead of his.
package watch

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sys/unix"

	"github.com/linkpin/linkpin/bpf/entry"
	"github.com/linkpin/linkpin/bpf/pin"
	"github.com/linkpin/linkpin/bpf/target"
)

// DefaultInterval is how often what the kernel does not announce is looked at.
const DefaultInterval = 500 * time.Millisecond

// MinInterval is the shortest interval.
const MinInterval = 10 * time.Millisecond

const (
	// secondLook is how long drift must last before it is told. In between an entry
	// may turn out to be retired, mended or updated.
	secondLook = 100 * time.Millisecond
	// busyLimit is how long drift is kept back while somebody works on the entry.
	busyLimit = 2 * time.Second
	// dutyCycle bounds what looks that were asked for by the kernel take: after one of
	// them comes a pause of so many times its length.
	dutyCycle = 20
)

// Options say what to watch.
type Options struct {
	Pins  pin.Options
	Roots target.Roots
	// Interval is the time between two looks; 0 is DefaultInterval.
	Interval time.Duration
	// Initial asks for Attached and Retired events for what is there at the start.
	Initial bool
	// Match says which entries are meant; nil: all. It is asked again for those that it
	// has refused, because an entry may come to belong to somebody later.
	Match func(entry.Item) bool
	// Now is the clock; nil is time.Now.
	Now func() time.Time
	// Warn takes what went wrong with looking; nil drops it. The same is said once.
	Warn func(error)
}

// Run watches until ctx ends, which is no error, or emit returns one. It starts
// before there is a tree. While emit waits the watcher holds nothing open, and what
// happens meanwhile is summed up.
func Run(ctx context.Context, o Options, emit func(Event) error) (err error) {
	w, err := newWatcher(o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.ears.close()) }()
	return w.run(ctx, emit)
}

// newWatcher returns a watcher whose ears the caller must close.
func newWatcher(o Options) (*watcher, error) {
	if o.Interval == 0 {
		o.Interval = DefaultInterval
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	reader, err := newReader()
	if err != nil {
		return nil, err
	}
	ears, err := listen()
	if err != nil {
		return nil, err
	}
	return &watcher{
		Options: o,
		ears:    ears,
		entries: map[pin.Place]*known{},
		retired: map[pin.Place]*known{},
		around:  newKnown(),
		reader:  reader,
	}, nil
}

// watcher is what is remembered from one look to the next. It is used by one
// goroutine.
type watcher struct {
	Options
	ears   *ears
	reader *reader

	tree    treeState
	entries map[pin.Place]*known
	retired map[pin.Place]*known
	started bool // the first look is over
	turn    int  // of the looks at everything: says whose turn it is to be looked at closely
	met     int  // how many entries were taken in so far
	events  []Event
	before  heard // at the last look: what was moved may not have been missed yet
	// around is for what entry.Examination.Tree finds, as if it were an entry.
	around   *known
	aroundAt time.Time
	listedAt time.Time
	warned   []error
	lastErr  string // the last one that was noted
}

// depth is how closely a look is taken.
type depth int

const (
	lookNames    depth = iota // what has come and gone
	lookSuspects              // those that the last look found something about
	lookAll                   // pins, links and denials of everything
)

func (w *watcher) run(ctx context.Context, emit func(Event) error) error {
	next := time.Now() // of lookAll
	quiet := next      // no lookNames before
	for {
		now := time.Now()
		d := lookSuspects
		woken := len(w.ears.wake) > 0
		switch {
		case !now.Before(next):
			d = lookAll
			next = now.Add(w.Interval)
		case woken && !now.Before(quiet):
			d = lookNames
		}
		if d != lookSuspects && woken {
			<-w.ears.wake
		}
		w.look(d)
		if d == lookNames {
			quiet = time.Now().Add(dutyCycle * time.Since(now))
		}
		for _, err := range w.warned {
			if w.Warn != nil {
				w.Warn(err)
			}
		}
		w.warned = nil
		for _, e := range w.events {
			if err := emit(e); err != nil || ctx.Err() != nil {
				return err
			}
		}
		w.events = nil
		if !w.wait(ctx, next, quiet) {
			return nil
		}
	}
}

// wait returns when it is time for the next look; false: at the end.
func (w *watcher) wait(ctx context.Context, next, quiet time.Time) bool {
	until := next
	if due, ok := w.due(); ok && due.Before(until) {
		until = due
	}
	// What the kernel announces waits for the end of the pause.
	pause := time.NewTimer(min(time.Until(quiet), time.Until(until)))
	defer pause.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-pause.C:
	}
	rest := time.NewTimer(time.Until(until))
	defer rest.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-w.ears.wake:
		w.ears.ring() // it is asked for again
	case <-rest.C:
	}
	return true
}

// look takes one look at everything, and leaves nothing open.
func (w *watcher) look(d depth) {
	root, err := pin.Open(w.Pins)
	if !w.judgeTree(root, err) {
		w.started = true
		return
	}
	v := &view{
		watcher: w,
		session: &entry.Session{Root: root, Roots: w.Roots, By: pin.ByCLI, Warn: w.warn},
		now:     clocks{wall: w.Now(), monotonic: monotonic()},
	}
	w.warn(v.look(d))
	w.warn(root.Close())
	w.started = true
}

// warn notes what went wrong, once. It is told after the look, when nothing is open.
func (w *watcher) warn(err error) {
	if err == nil || err.Error() == w.lastErr {
		return
	}
	w.lastErr = err.Error()
	w.warned = append(w.warned, err)
}

func monotonic() int64 {
	var ts unix.Timespec
	// It can't fail for a clock that exists; 0 would put denials into the past.
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts)
	return ts.Nano()
}
