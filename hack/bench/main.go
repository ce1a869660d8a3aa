// SPDX-License-Identifier: Apache-2.0

// Command bench measures what linkpin adds to the start of a container and to a
// CNI chain. hack/bench/run prepares the machine for it.
package main

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"time"
)

// config is where everything is.
type config struct {
	work, bin, cgroup string
	runs              int
}

func main() {
	var c config
	flag.StringVar(&c.work, "work", "", "directory with rootfs, noop and four.bpf.o")
	flag.StringVar(&c.bin, "bin", "", "directory of linkpin's programs")
	flag.StringVar(&c.cgroup, "cgroup", "", "parent of the containers' cgroups")
	flag.IntVar(&c.runs, "runs", 100, "how often each variant runs")
	flag.Parse()
	for _, section := range []func(config) error{benchHook, benchCNI} {
		if err := section(c); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(1)
		}
	}
}

// variant is one of the things that are measured in turn.
type variant struct {
	name string
	run  func() error
	took []time.Duration
}

// measure runs the variants in turn, so that what else the machine does hits all of
// them alike. The first rounds warm caches and do not count.
func measure(runs int, variants []*variant) error {
	const warmup = 5
	for i := range warmup + runs {
		for _, v := range variants {
			start := time.Now()
			if err := v.run(); err != nil {
				return fmt.Errorf("%s: %w", v.name, err)
			}
			if i >= warmup {
				v.took = append(v.took, time.Since(start))
			}
		}
	}
	return nil
}

// added returns the median of what v took more than base in the same round.
func (v *variant) added(base *variant) time.Duration {
	more := make([]time.Duration, len(v.took))
	for i := range v.took {
		more[i] = v.took[i] - base.took[i]
	}
	return median(more)
}

func median(d []time.Duration) time.Duration {
	d = slices.Sorted(slices.Values(d))
	return (d[(len(d)-1)/2] + d[len(d)/2]) / 2
}

func ms(d time.Duration) string { return fmt.Sprintf("%.2f ms", float64(d)/1e6) }
