// SPDX-License-Identifier: Apache-2.0

package watch

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/linkpin/linkpin/bpf/pin"
)

// BenchmarkLook is the cost of one look at 1,000 containers with four links each,
// all with the counters of egress. cpu-ms is what the process and the kernel for it
// have used for one look.
func BenchmarkLook(b *testing.B) {
	f := newFixture(b)
	var dirs []string
	for i := range 1000 {
		c := newContainer(b, fmt.Sprintf("c%04d", i))
		f.attach(b, c, "four")
		dirs = append(dirs, filepath.Join(f.bpffs, "linkpin/v1", pin.ContainerEntry(c.key, "four").String()))
	}
	// One by one: a kernel (6.18) that frees more than 1,024 programs at once, as it does
	// when the file system is unmounted, may never get done. Their frees fill its
	// workqueue, and the one that holds the lock waits for other work in that queue.
	b.Cleanup(func() {
		for _, dir := range dirs {
			if err := os.RemoveAll(dir); err != nil {
				b.Error(err)
			}
			time.Sleep(5 * time.Millisecond)
		}
	})
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
