// SPDX-License-Identifier: Apache-2.0

package watch

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/linkpin/linkpin/bpf/attach"
	"github.com/linkpin/linkpin/bpf/pin"
)

// What is out of place for a moment is no drift: not if it is back at the second look,
// and not as long as somebody works on the container.
func TestPassingIsNoDrift(t *testing.T) {
	for _, test := range []struct {
		name  string
		lock  bool
		pause time.Duration
		limit time.Duration // an iteration that took longer proves nothing
	}{
		{"back at the second look", false, secondLook / 4, secondLook},
		{"while it is locked", true, 3 * secondLook, busyLimit},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := newFixture(t)
			c := newContainer(t, "web")
			f.attach(t, c, "meter")
			place := pin.ContainerEntry(c.key, "meter")
			v := f.watch(t, func(o *Options) { o.Initial, o.Interval = true, MinInterval })
			v.of(t, Attached, "web")
			valid := 0
			for range 100 {
				if valid == 5 {
					break
				}
				v.forget()
				start := time.Now()
				if test.lock {
					l, err := f.Root.Lock(context.Background(), pin.Container(c.key))
					if err != nil {
						t.Fatal(err)
					}
					f.moveAway(t, place, test.pause)
					if err := l.Release(); err != nil {
						t.Fatal(err)
					}
				} else {
					f.moveAway(t, place, test.pause)
				}
				if time.Since(start) >= test.limit {
					continue
				}
				valid++
				time.Sleep(2 * secondLook)
				for _, e := range v.all(func(Event) bool { return true }) {
					t.Error(e.text())
				}
			}
			if valid == 0 {
				t.Error("this machine is too slow to tell")
			}
		})
	}
}

// moveAway unpins a link for a while.
func (f *fixture) moveAway(t *testing.T, place pin.Place, pause time.Duration) {
	t.Helper()
	f.withLink(t, place, "skb_egress", func(path string, l *attach.Link) error {
		if err := os.Remove(path); err != nil {
			return err
		}
		time.Sleep(pause)
		return l.Pin(path)
	})
}

func TestFlocks(t *testing.T) {
	const locks = `1: FLOCK  ADVISORY  WRITE 4711 00:1c:1234 0 EOF
1: -> FLOCK  ADVISORY  WRITE 4712 00:1c:77 0 EOF
2: POSIX  ADVISORY  READ 1 00:1c:99 0 EOF
3: FLOCK  ADVISORY  WRITE 1 00:1d:55 0 EOF
nonsense
`
	if got := flocks(strings.NewReader(locks), 0x1c); len(got) != 1 || !got[1234] {
		t.Errorf("%v", got)
	}
}
