// SPDX-License-Identifier: Apache-2.0

package thieves

import (
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"
)

// ports are those that the host's end listens on, UDP and TCP: the one that nobody
// forbids, and those that one program each forbids.
var ports = []int{1000, 1001, 1002, 1003, 1004, 1006, 1007, 1008, 2001, 2002, 2003, 3001, 3002, 3003, 4001}

// server is the host's end: it answers datagrams and remembers what came.
type server struct {
	mu       sync.Mutex
	received []string // "PORT:PAYLOAD"
	sockets  []io.Closer
}

func (v *server) close() {
	for _, c := range v.sockets {
		c.Close()
	}
}

// listen must be called on the thread whose namespace it is to listen in.
func listen() (*server, error) {
	v := &server{}
	for _, port := range ports {
		address := ":" + strconv.Itoa(port)
		u, err := net.ListenPacket("udp4", address)
		if err != nil {
			v.close()
			return nil, err
		}
		v.sockets = append(v.sockets, u)
		go v.echo(u, port)
		l, err := net.Listen("tcp4", address)
		if err != nil {
			v.close()
			return nil, err
		}
		v.sockets = append(v.sockets, l)
		go v.accept(l, port)
	}
	return v, nil
}

func (v *server) note(port int, payload []byte) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.received = append(v.received, strconv.Itoa(port)+":"+string(payload))
}

func (v *server) echo(u net.PacketConn, port int) {
	buf := make([]byte, 2048)
	for {
		n, from, err := u.ReadFrom(buf)
		if err != nil {
			return
		}
		v.note(port, buf[:n])
		_, _ = u.WriteTo(buf[:n], from) // nobody may be there
	}
}

func (v *server) accept(l net.Listener, port int) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			buf := make([]byte, 256)
			_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
			if n, err := c.Read(buf); err == nil {
				v.note(port, buf[:n])
			}
		}()
	}
}

// has reports whether something with this text in it came to a port (0: to any).
func (v *server) has(port int, text string) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, r := range v.received {
		if strings.Contains(r, text) && (port == 0 || strings.HasPrefix(r, strconv.Itoa(port)+":")) {
			return true
		}
	}
	return false
}
