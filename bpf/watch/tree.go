// SPDX-License-Identifier: Apache-2.0

package watch

import (
	"errors"
	"fmt"
	"io/fs"
	"time"

	"golang.org/x/sys/unix"

	"github.com/linkpin/linkpin/bpf/entry"
	"github.com/linkpin/linkpin/bpf/pin"
)

// treeState is what is known of linkpin's directory as a whole.
type treeState struct {
	id      treeID        // of the tree that the known entries are in; zero: none yet
	problem entry.Problem // that was told; "" is none
	// hidden is a tree that was there before this one, with what was in it.
	hidden *hiddenTree
}

// treeID tells trees apart.
type treeID struct{ dev, ino uint64 }

type hiddenTree struct {
	id               treeID
	entries, retired map[pin.Place]*known
}

// judgeTree compares the tree that was opened, or could not be, with the one that was
// there. It reports whether there is one to look at.
func (w *watcher) judgeTree(root *pin.Root, err error) bool {
	var id treeID
	if err == nil {
		if id, err = identify(root); err != nil {
			w.warn(root.Close())
		}
	}
	if err != nil {
		w.treeTrouble(err)
		return false
	}
	switch {
	case w.tree.id == id:
	case w.tree.hidden != nil && w.tree.hidden.id == id:
		w.entries, w.retired, w.tree.hidden = w.tree.hidden.entries, w.tree.hidden.retired, nil
	case len(w.entries) > 0:
		// Something stands in its place. What was in it may well be attached.
		w.tellTree(ProblemHidden, hiddenText(root.Path(), w.entries))
		if w.tree.hidden == nil {
			w.tree.hidden = &hiddenTree{id: w.tree.id, entries: w.entries, retired: w.retired}
		}
		fallthrough
	default:
		w.entries, w.retired = map[pin.Place]*known{}, map[pin.Place]*known{}
	}
	if w.tree.id != id {
		w.listedAt = time.Time{} // everything about it is news
	}
	w.tree.id = id
	if w.tree.hidden == nil && w.tree.problem != "" {
		w.event(Event{Kind: Repaired, Problem: w.tree.problem, Detail: root.Path() + " is there again"})
		w.tree.problem = ""
	}
	w.warn(w.ears.follow(root))
	return true
}

func identify(root *pin.Root) (treeID, error) {
	var st unix.Stat_t
	if err := unix.Lstat(root.Path(), &st); err != nil {
		return treeID{}, &fs.PathError{Op: "lstat", Path: root.Path(), Err: err}
	}
	return treeID{st.Dev, st.Ino}, nil
}

// treeTrouble is for a tree that can't be opened. As long as there was none, it is
// waited for.
func (w *watcher) treeTrouble(err error) {
	missing := errors.Is(err, pin.ErrNoState) || errors.Is(err, pin.ErrNoBPFFS)
	switch {
	case missing && len(w.entries) > 0:
		w.tellTree(ProblemHidden, hiddenText(err.Error(), w.entries))
	case missing && errors.Is(err, pin.ErrNoState):
	case errors.Is(err, pin.ErrForeign):
		w.tellTree(entry.ProblemMode, err.Error())
	default:
		w.warn(err)
	}
}

func (w *watcher) tellTree(p entry.Problem, detail string) {
	if w.tree.problem != p {
		w.event(Event{Kind: Drift, Problem: p, Detail: detail})
		w.tree.problem = p
	}
}

// hiddenText says how much of what was recorded is still attached.
func hiddenText(where string, entries map[pin.Place]*known) string {
	links, live := 0, 0
	for _, k := range entries {
		for _, p := range k.programs() {
			links++
			if info, err := readLink(p.LinkID); p.LinkID != 0 && err == nil && info != (linkInfo{}) {
				live++
			}
		}
	}
	return fmt.Sprintf("%s: the state that was there is hidden or gone; of %d links in it %d still exist", where, links, live)
}
