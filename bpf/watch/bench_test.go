// SPDX-License-Identifier: Apache-2.0

package watch

import (
	"fmt"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/linkpin/linkpin/bpf/pin"
)

// BenchmarkLook is the cost of one look at 1,000 containers with four links each,
// all with the counters of egress. cpu-ms is what the process and the kernel for it
// have used for one look.
func BenchmarkLook(b *testing.B) {
	f := newFixture(b)
	for i := range 1000 {
		f.attach(b, newContainer(b, fmt.Sprintf("c%04d", i)), "four")
	}
	for _, bench := range []struct {
		name string
		depth
	}{{"names", lookNames}, {"all", lookAll}} {
		b.Run(bench.name, func(b *testing.B) {
			w, err := newWatcher(Options{Pins: pin.Options{Path: f.bpffs}})
			if err != nil {
				b.Fatal(err)
			}
			defer w.ears.close()
			w.look(lookAll)
			before := cpu(b)
			for b.Loop() {
				w.look(bench.depth)
			}
			b.ReportMetric(float64(cpu(b)-before)/float64(b.N)/1e6, "cpu-ms/op")
			if len(w.events) > 0 || len(w.warned) > 0 {
				b.Errorf("%+v %v", w.events, w.warned)
			}
		})
	}
}

// cpu returns the CPU time of this process, in nanoseconds.
func cpu(b *testing.B) int64 {
	b.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return u.Utime.Nano() + u.Stime.Nano()
}
