// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"bytes"
	"errors"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"

	yaml "go.yaml.in/yaml/v3"
)

// MaxSize is the largest policy file in bytes.
const MaxSize = 1 << 20

// Parse reads a policy file: one YAML document for each policy, and a line with
// "..." at its end, which proves that nothing was cut off. file names it in
// errors and positions. Nothing of a file with an error is returned; the error is
// an Errors with everything that was found.
func Parse(file string, data []byte) ([]*Policy, error) {
	d := &decoder{file: file, refused: map[*yaml.Node]bool{}}
	if !d.checkText(data) {
		return nil, d.err()
	}
	if !d.checkEnd(data) {
		return nil, d.err()
	}
	var policies []*Policy
	lines := map[string]int{}
	for _, root := range d.documents(data) {
		p := d.policy(root)
		if first, ok := lines[p.Name]; ok && p.Name != "" {
			d.fail(Pos{file, p.Pos.Line, "metadata.name"}, "give each policy a name of its own",
				"the policy at line %d is called %s too", first, p.Name)
		} else {
			lines[p.Name] = p.Pos.Line
		}
		policies = append(policies, p)
	}
	if err := d.err(); err != nil {
		return nil, err
	}
	return policies, nil
}

// decoder turns the nodes of one file into policies and notes what is wrong.
type decoder struct {
	file     string
	problems []problem
	dropped  int                 // further problems, which were not kept
	refused  map[*yaml.Node]bool // nodes that have their error already
}

// checkText refuses what no YAML parser should see: what is too large, is not
// UTF-8, or has characters that end a line for some readers and not for others,
// which would put the end marker and every line number in doubt.
func (d *decoder) checkText(data []byte) bool {
	pos := Pos{File: d.file}
	if len(data) > MaxSize {
		d.fail(pos, "split it into several files", "the file is larger than %d bytes", MaxSize)
		return false
	}
	pos.Line = 1
	for i := 0; i < len(data); {
		r, size := utf8.DecodeRune(data[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			d.fail(pos, "save the file as UTF-8", "the byte 0x%02x is not UTF-8", data[i])
			return false
		case r == '\uFEFF':
			d.fail(pos, "save the file as UTF-8 without one", "a byte order mark")
			return false
		case r == '\r' && !bytes.HasPrefix(data[i:], []byte("\r\n")),
			r < ' ' && !strings.ContainsRune("\t\r\n", r), r >= 0x7f && r < 0xa0, r == '\u2028', r == '\u2029':
			d.fail(pos, "remove it, or write it as an escape in double quotes", "the control character %U", r)
			return false
		case r == '\n':
			pos.Line++
		}
		i += size
	}
	return true
}

// checkEnd demands that the file ends with the line "...", YAML's mark for the
// end of a document, and has it nowhere else. Without it a file that was cut off
// between two lines could be a whole policy that allows more. It returns false if
// there is nothing in the file to go on with.
func (d *decoder) checkEnd(data []byte) bool {
	lines := strings.Split(strings.TrimRight(string(data), " \t\r\n"), "\n")
	pos := Pos{File: d.file, Line: len(lines)}
	end, content := 0, false
	for i, line := range lines {
		line = strings.TrimRight(line, " \t\r")
		if text := strings.TrimLeft(line, " \t"); text == "" || text[0] == '#' {
			continue
		}
		if end > 0 {
			d.fail(Pos{File: d.file, Line: i + 1}, "move the line ... to the end of the file, and put --- between policies",
				"something stands after the line ...")
			return true
		}
		if after, ok := strings.CutPrefix(line, "..."); ok && (after == "" || after[0] == ' ' || after[0] == '\t') {
			end = i + 1
			if after = strings.TrimLeft(after, " \t"); after != "" && after[0] != '#' {
				d.fail(Pos{File: d.file, Line: end}, "leave ... alone on its line", "%q stands after ...", shorten(after))
			}
			continue
		}
		content = true
	}
	if !content {
		d.fail(pos, "write a policy into it, or remove the file", "the file holds no policy")
		return false
	}
	if end == 0 {
		d.fail(pos, "add a line with ... at the end: it proves that the file is whole",
			"the file does not end with the line ..., so it may have been cut off")
	}
	return true
}

// documents returns the root node of each document. After a mistake in the YAML
// itself there are no more.
func (d *decoder) documents(data []byte) []*yaml.Node {
	var roots []*yaml.Node
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	for {
		var doc yaml.Node
		err := decoder.Decode(&doc)
		if errors.Is(err, io.EOF) {
			return roots
		}
		if err != nil {
			d.syntaxError(data, err)
			return roots
		}
		root := doc.Content[0]
		if root.Kind == yaml.ScalarNode && root.ShortTag() == "!!null" {
			d.fail(Pos{File: d.file, Line: root.Line}, "remove its ---, or write the policy", "an empty document")
			continue
		}
		roots = append(roots, root)
	}
}

// syntaxError notes what the YAML parser could not read. Its lines need mending:
// it counts those of parser errors (not of scanner errors) from 0, and leaves a 0
// out (decode.go, (*parser).fail, of yaml v3.0.6).
func (d *decoder) syntaxError(data []byte, err error) {
	msg := strings.TrimPrefix(err.Error(), "yaml: ")
	line := 0
	if rest, ok := strings.CutPrefix(msg, "line "); ok {
		if number, text, ok := strings.Cut(rest, ": "); ok {
			if n, err := strconv.Atoi(number); err == nil {
				line, msg = n, text
			}
		}
	}
	fromZero := strings.HasPrefix(msg, "did not find expected ") && !strings.Contains(msg, "character") ||
		strings.HasPrefix(msg, "found undefined tag handle") || strings.HasPrefix(msg, "found duplicate %") ||
		strings.HasPrefix(msg, "found incompatible")
	if fromZero || line == 0 {
		line++
	}
	if name, ok := strings.CutPrefix(msg, "unknown anchor '"); ok {
		name, _, _ = strings.Cut(name, "'")
		line = 1 + bytes.Count(data[:max(0, bytes.Index(data, []byte("*"+name)))], []byte("\n"))
	}
	text := ""
	if lines := strings.Split(string(data), "\n"); line <= len(lines) {
		text = lines[line-1]
	}
	d.fail(Pos{File: d.file, Line: line}, syntaxRemedy(text), "not YAML: %s", msg)
}

// syntaxRemedy guesses from the line what was meant.
func syntaxRemedy(line string) string {
	switch trimmed := strings.TrimLeft(line, " "); {
	case strings.HasPrefix(trimmed, "\t"):
		return "indent with spaces, not with tabs"
	case strings.Contains(line, "${") && strings.ContainsAny(trimmed[:strings.Index(trimmed, "${")], "{["):
		return `inside { } and [ ] put "${…}" in quotes`
	case strings.Contains(line, "*"):
		return `put text that begins with * in quotes: "*"`
	}
	return ""
}
