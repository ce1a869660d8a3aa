// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/linkpin/linkpin/bpf/watch"
)

// readerPoll is how often the reader is looked after, in milliseconds.
const readerPoll = 200

// lastWords is how long the end waits for a line that is on its way to a reader.
const lastWords = 100 * time.Millisecond

func (a *app) watchCommand() *cobra.Command {
	var filter watchFilter
	o := watch.Options{}
	cmd := &cobra.Command{
		Use:   "watch [ID...]",
		Short: "Show what is attached, taken off, mended and denied, as it happens",
		Long: `Print a line for each event, until it is interrupted:

  attached   a container, pod or interface has got a policy
  updated    its record has changed: it was updated or mended
  drift      a program was taken off, or is not what was recorded (as verify says)
  repaired   drift, or what there was a warning about, is no more
  warning    something that verify finds and that breaks no promise
  ended      the target is gone, and nothing has been cleaned up yet
  retired    the container has ended; its programs stay until the kernel lets go
  gone       nothing is left of it. What had nothing to wait for is not retired first
  denied     what the built-in policy egress has refused since the last look: one event
             for each destination, at most 64 for each policy and look, then one for
             all others. It is read from the counters ("map dump ID denied"), so that any
             number of watchers see it. The ring buffer "events" has every single refusal,
             and one reader: it is left alone. What is refused between the last look and
             the end of a policy's maps is not seen

With IDs (or names, or what they begin with) only what concerns these; they may be of
containers that don't exist yet.

What linkpin itself attaches, retires and removes is told at once, and so is what becomes
of interfaces on the host. The rest is looked at every --interval. Up to 32 entries
are looked at as a whole each time. Where there are more, they take turns: pins, links
and denials of all are looked at within a second, or within the interval if that is
longer, and whatever else verify finds out within 20 seconds, or one for every eight
entries times the interval. Drift is told when it is still there a tenth of a second
later; if somebody is at work on that container, after two seconds at most.

At the default of 500 ms, 1,000 containers with four links each cost about 6 % of one CPU
while nothing changes: 32 ms for each look, measured on a busy machine.

watch only looks: it takes no locks, writes nothing and holds nothing, so that it may be
killed at any time. It waits for the first attachment if there has been none, and goes
on if the state is hidden by another mount, which it reports. It ends with exit code 0
when it is interrupted or terminated, or when nobody reads its output any more.`,
		Args: cobra.ArbitraryArgs,
	}
	flags := cmd.Flags()
	flags.StringVar(&filter.policy, "policy", "", "only what concerns this policy")
	flags.DurationVar(&o.Interval, "interval", watch.DefaultInterval, "between two looks at what the kernel does not announce")
	flags.BoolVar(&o.Initial, "initial", false, "begin with what is there: attached and retired, marked as initial")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if o.Interval < watch.MinInterval {
			return usage(cmd, fmt.Errorf("--interval %v is below %v", o.Interval, watch.MinInterval))
		}
		filter.ids = args
		o.Pins, o.Roots, o.Match, o.Now, o.Warn = a.roots.pins(), a.roots.targets(), filter.match, a.Now, a.warn
		// A reader that has gone is an error of write(2) then, not the end.
		signal.Ignore(unix.SIGPIPE)
		return a.stream(cmd.Context(), o)
	}
	return cmd
}

// stream prints events. A reader that is slow, or stuck, holds up nothing but the
// stream: the end does not wait for it.
func (a *app) stream(ctx context.Context, o watch.Options) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	lines := make(chan []byte)
	idle := make(chan struct{})
	go func() {
		defer close(idle)
		for line := range lines {
			if _, err := a.Stdout.Write(line); err != nil {
				cancel(err)
				return
			}
		}
	}()
	go func() { cancel(readerGone(ctx, a.Stdout)) }()
	err := watch.Run(ctx, o, func(e watch.Event) error {
		line, err := a.eventLine(e)
		if err != nil {
			return err
		}
		select {
		case lines <- line:
		case <-ctx.Done():
		}
		return nil
	})
	close(lines)
	select {
	case <-idle:
	case <-time.After(lastWords):
	}
	if err != nil {
		return err
	}
	switch cause := context.Cause(ctx); {
	case errors.Is(cause, context.Canceled), errors.Is(cause, unix.EPIPE), errors.Is(cause, io.ErrClosedPipe):
		return nil
	default:
		return cause
	}
}

// readerGone waits until nobody reads what is written to w, if w is a pipe or socket,
// or until ctx ends. Without it a watch that nobody reads would stay until the next
// event.
func readerGone(ctx context.Context, w io.Writer) error {
	f, ok := w.(*os.File)
	if !ok {
		<-ctx.Done()
		return nil
	}
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	gone := false
	for ctx.Err() == nil && !gone {
		err := raw.Control(func(fd uintptr) {
			fds := []unix.PollFd{{Fd: int32(fd)}}
			n, err := unix.Poll(fds, readerPoll)
			gone = err == nil && n > 0 && fds[0].Revents&(unix.POLLERR|unix.POLLHUP) != 0
		})
		if err != nil {
			return err
		}
	}
	return unix.EPIPE
}
