// SPDX-License-Identifier: Apache-2.0

package watch

import (
	"net/netip"
	"time"

	"github.com/linkpin/linkpin/bpf/entry"
	"github.com/linkpin/linkpin/bpf/pin"
)

// Kind is what has happened.
type Kind string

// The kinds of events.
const (
	Attached Kind = "attached" // an entry was published, or is there at the start
	Updated  Kind = "updated"  // the record of an entry is another one now
	Retired  Kind = "retired"  // an entry was moved to retired/, with a reason
	Gone     Kind = "gone"     // an entry is no more; the last event of it
	Drift    Kind = "drift"    // a promise is broken
	Repaired Kind = "repaired" // drift, or what there was a warning about, is no more
	Ended    Kind = "ended"    // the target is gone and the entry has not been retired yet
	Warning  Kind = "warning"  // found by entry.Verify and no drift
	Denied   Kind = "denied"   // the built-in policy egress has refused something
)

// ProblemHidden is drift of the state as a whole: it is not where it was, for example
// because another bpffs was mounted over it. A watcher has seen it before, so that for it
// this is no question as it is for verify.
const ProblemHidden = entry.ProblemHidden

// Event is one line of the stream.
type Event struct {
	Time time.Time // when it was seen
	Kind Kind
	// Initial is set for what was there when the watcher started.
	Initial bool
	// Place and Item are of the entry; zero in events about the state as a whole.
	// After Retired the place is the one below retired/. The item's links are those of
	// the last look at the entry.
	Place   pin.Place
	Item    entry.Item
	Program string        // Drift, Repaired, Ended, Warning: of the attachment; empty: the whole entry
	Problem entry.Problem // Drift, Repaired, Ended, Warning
	Reason  string        // Retired
	Detail  string        // for people
	Denied  *Denial       // Denied
}

// Denial is what was refused since the last look, to one destination.
type Denial struct {
	// Address is not valid if the destination is unknown, is none of IP, or if the
	// event sums up several destinations.
	Address   netip.Addr
	Protocol  string // as policies write it; "any": unknown
	Port      uint16 // 0: unknown, or a protocol without ports
	EtherType uint16 // 0: unknown
	Attempts  uint64 // calls and packets
	Bytes     uint64 // of the packets
	Last      time.Time
	// Others is set in the event for all destinations that got no event of their own:
	// beyond the bound of one look, or forgotten by the map before it was read. Last
	// is zero then.
	Others bool
}
