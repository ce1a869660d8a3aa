// SPDX-License-Identifier: Apache-2.0

package install

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/linkpin/linkpin/specs/fault"
)

// Lines in containerd's files. What stands between the markers is ours; a line after
// containerdWas is what stood there before and comes back when the block goes.
const (
	containerdBegin = "# linkpin: begin (installed by linkpin; remove with: linkpin uninstall containerd)"
	containerdEnd   = "# linkpin: end"
	containerdWas   = "# linkpin: was: "
	containerdMade  = "# linkpin: made this " // file or directory: goes when nothing else is in it

	// containerdBeginAny is how every begin line begins, also one whose hint was cut off.
	containerdBeginAny = "# linkpin: begin"
)

// containerdWriter puts a text together from what stays and from blocks.
type containerdWriter struct {
	out bytes.Buffer
	nl  string // line end of the file
}

// newContainerdWriter writes line ends as data has them.
func newContainerdWriter(data []byte) *containerdWriter {
	w := &containerdWriter{nl: "\n"}
	if i := bytes.IndexByte(data, '\n'); i > 0 && data[i-1] == '\r' {
		w.nl = "\r\n"
	}
	return w
}

// block writes lines between markers, in place of the lines in was if there are any.
// If the file ends without a line end there, it goes on ending without one, which
// tells strip that the line end before the block is ours as well.
func (w *containerdWriter) block(indent string, was []byte, lines []string) {
	b := w.out.Bytes()
	open := len(was) > 0 && was[len(was)-1] != '\n'
	if len(b) > 0 && b[len(b)-1] != '\n' {
		w.out.WriteString(w.nl)
		open = true
	}
	w.out.WriteString(indent + containerdBegin + w.nl)
	for line := range bytes.Lines(was) {
		w.out.WriteString(indent + containerdWas + string(line))
		if line[len(line)-1] != '\n' {
			w.out.WriteString(w.nl)
		}
	}
	for _, l := range lines {
		w.out.WriteString(l + w.nl)
	}
	w.out.WriteString(indent + containerdEnd)
	if !open {
		w.out.WriteString(w.nl)
	}
}

// containerdStrip returns data without our blocks and with what they replaced, and
// the blocks' own lines. path is for errors: a block that does not end is not
// guessed at.
func containerdStrip(path string, data []byte) (rest []byte, ours []string, err error) {
	rest = data
	for { // from the last to the first: a block at the end says how the one before it ends
		start := containerdLastLine(rest, containerdBeginAny)
		if start < 0 {
			break
		}
		var was bytes.Buffer
		end, open := -1, false
		for at, line := range containerdLines(rest[start:]) {
			text := string(bytes.TrimSpace(line))
			switch {
			case at == 0:
			case text == containerdEnd:
				end = start + at + len(line)
				open = line[len(line)-1] != '\n'
			case strings.HasPrefix(text, containerdWas), text == strings.TrimSpace(containerdWas):
				_, raw, ok := bytes.Cut(line, []byte(containerdWas))
				if !ok { // an editor has cut off the blank at the end of an empty line
					raw = bytes.TrimLeft(line[bytes.LastIndexByte(line, ':')+1:], " \t")
				}
				was.Write(raw)
			default:
				ours = append(ours, text)
			}
			if end >= 0 {
				break
			}
		}
		if end < 0 {
			return nil, nil, fault.Newf(fmt.Sprintf("%s:%d", path, containerdLine(rest, start)),
				fmt.Sprintf("%q has no %q after it", containerdBegin, containerdEnd), "put the line back where linkpin's part ends, or remove the part by hand")
		}
		before, instead := rest[:start], was.Bytes()
		if open {
			if len(instead) > 0 {
				instead = containerdChomp(instead)
			} else {
				before = containerdChomp(before)
			}
		}
		rest = bytes.Join([][]byte{before, instead, rest[end:]}, nil)
	}
	if at := containerdLastLine(rest, containerdEnd); at >= 0 {
		return nil, nil, fault.Newf(fmt.Sprintf("%s:%d", path, containerdLine(rest, at)),
			fmt.Sprintf("%q has no %q before it", containerdEnd, containerdBegin), "put the line back where linkpin's part begins, or remove the part by hand")
	}
	return rest, ours, nil
}

// containerdLines ranges over lines with their line ends, and where they begin.
func containerdLines(data []byte) func(yield func(int, []byte) bool) {
	return func(yield func(int, []byte) bool) {
		at := 0
		for line := range bytes.Lines(data) {
			if !yield(at, line) {
				return
			}
			at += len(line)
		}
	}
}

// containerdLastLine returns where the last line that begins with prefix begins, or -1.
func containerdLastLine(data []byte, prefix string) int {
	last := -1
	for at, line := range containerdLines(data) {
		if bytes.HasPrefix(bytes.TrimLeft(line, " \t"), []byte(prefix)) {
			last = at
		}
	}
	return last
}

// containerdLine returns the number of the line at an offset, from 1.
func containerdLine(data []byte, at int) int {
	return 1 + bytes.Count(data[:at], []byte("\n"))
}

// containerdChomp cuts off one line end.
func containerdChomp(b []byte) []byte {
	return bytes.TrimSuffix(bytes.TrimSuffix(b, []byte("\n")), []byte("\r"))
}
