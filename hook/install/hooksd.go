// SPDX-License-Identifier: Apache-2.0

package install

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/linkpin/linkpin/specs"
	"github.com/linkpin/linkpin/specs/change"
	"github.com/linkpin/linkpin/specs/fault"
)

// When says which containers a runtime calls the hook for. It is empty where nobody
// has chosen.
type When string

// The choices of When.
const (
	// Always is needed as soon as one policy selects containers by itself.
	Always When = "always"
	// OptIn calls the hook only for containers with the annotation that asks for
	// policies: the others start without its cost.
	OptIn When = "optIn"
)

// hookName is the program that runtimes call.
const hookName = "linkpin-hook"

// hookTimeoutMin is below which a runtime may kill the hook before its own deadlines
// end it.
const hookTimeoutMin = change.HookTimeoutMin

// hooksdVersion is the version of the format, see oci-hooks(5).
const hooksdVersion = "1.0.0"

// The stages that linkpin is called at. Each has a file of its own, since the
// arguments of a file are used for all of its stages.
const (
	stageCreate   = "createRuntime"
	stagePoststop = "poststop"
)

// hooksdStages is the order in which files are written: a runtime that reads
// them in between retires entries that nobody made, and never leaves one.
var hooksdStages = []string{stagePoststop, stageCreate}

// hooksdFile is one file of a hooks directory. Runtimes ignore fields that they don't know.
type hooksdFile struct {
	Version string     `json:"version"`
	Hook    hooksdCall `json:"hook"`
	When    hooksdWhen `json:"when"`
	Stages  []string   `json:"stages"`
	// Made are the directories that did not exist before Install, the innermost
	// first. Uninstall removes them, and no others.
	Made []string `json:"io.linkpin.made,omitempty"`
}

type hooksdCall struct {
	Path    string   `json:"path"`
	Args    []string `json:"args,omitempty"`
	Env     []string `json:"env,omitempty"`
	Timeout *int     `json:"timeout,omitempty"` // seconds
}

type hooksdWhen struct {
	Always        *bool             `json:"always,omitempty"`
	Annotations   map[string]string `json:"annotations,omitempty"`
	Commands      []string          `json:"commands,omitempty"`
	HasBindMounts *bool             `json:"hasBindMounts,omitempty"`
}

// hooksdName is the name of the file for a stage. Runtimes sort by lower-case name:
// 90 puts ours behind the hooks that give a container its devices and interfaces,
// and leaves room for those that want to see it finished. The caller is part of it,
// so that two runtimes that read the same directory don't mask each other's file.
func hooksdName(caller specs.Caller, stage string) string {
	return "90-linkpin-" + string(caller) + "-" + stage + ".json"
}

// hooksdContent is what the file for a stage should say.
func hooksdContent(hook string, caller specs.Caller, when When, stage string) hooksdFile {
	timeout := int(change.HookTimeout / time.Second)
	f := hooksdFile{
		Version: hooksdVersion,
		Hook: hooksdCall{
			Path:    hook,
			Args:    []string{path.Base(hook), stage, "--caller", string(caller)},
			Timeout: &timeout,
		},
		Stages: []string{stage},
	}
	if when == OptIn {
		f.When.Annotations = map[string]string{hooksdOptInKey: ".*"}
	} else {
		always := true
		f.When.Always = &always
	}
	return f
}

// hooksdOptInKey matches the annotation and nothing else. The pattern of its value
// has no anchors: it also matches values of several lines and invalid UTF-8.
var hooksdOptInKey = "^" + regexp.QuoteMeta(specs.OptInAnnotation) + "$"

// bytes returns the file's content.
func (f hooksdFile) bytes() ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(f); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// ours reports whether linkpin wrote a file that has its name.
func (f *hooksdFile) ours(hook string) bool {
	base := path.Base(f.Hook.Path)
	return base == hookName || f.Hook.Path == hook ||
		len(f.Hook.Args) > 0 && path.Base(f.Hook.Args[0]) == hookName
}

// hooksdParse reads a file as runtimes do, and refuses what they refuse.
func hooksdParse(name string, data []byte) (*hooksdFile, error) {
	const remedy = "mend the file or move it away"
	var version struct {
		Version string `json:"version"`
	}
	f := &hooksdFile{}
	err := json.Unmarshal(data, &version)
	if err == nil {
		if version.Version == "" || version.Version == "0.1.0" {
			f, err = hooksdParseOld(data)
		} else {
			err = json.Unmarshal(data, f)
		}
	}
	if err != nil {
		return nil, fault.New(name+jsonLine(data, err), err, remedy)
	}
	switch {
	case f.Version != hooksdVersion:
		return nil, fault.Newf(name, fmt.Sprintf("has version %q, which no runtime knows", f.Version), remedy)
	case f.Hook.Path == "":
		return nil, fault.Newf(name, "names no hook.path", remedy)
	case f.Stages == nil:
		return nil, fault.Newf(name, "names no stages", remedy)
	}
	for _, s := range f.Stages {
		if !slices.Contains(hooksdKnownStages, s) {
			return nil, fault.Newf(name, fmt.Sprintf("has the unknown stage %q", s), remedy)
		}
	}
	patterns := slices.Clone(f.When.Commands)
	for k, v := range f.When.Annotations {
		patterns = append(patterns, k, v)
	}
	for _, p := range patterns {
		if _, err := regexp.Compile(p); err != nil {
			return nil, fault.New(name, err, remedy)
		}
	}
	return f, nil
}

// hooksdParseOld reads a file of version 0.1.0, which is also that of files that say
// no version. Only others still have such.
func hooksdParseOld(data []byte) (*hooksdFile, error) {
	var old struct {
		Hook        string
		Stages      []string
		Stage       []string
		Cmds        []string
		Cmd         []string
		Annotations []string
		Annotation  []string
	}
	if err := json.Unmarshal(data, &old); err != nil {
		return nil, err
	}
	f := &hooksdFile{Version: hooksdVersion, Hook: hooksdCall{Path: old.Hook}, Stages: old.Stages}
	for _, twice := range [][2][]string{{old.Stages, old.Stage}, {old.Cmds, old.Cmd}, {old.Annotations, old.Annotation}} {
		if twice[0] != nil && twice[1] != nil {
			return nil, errors.New("says the same under the old and the new name")
		}
	}
	if f.Stages == nil {
		f.Stages = old.Stage
	}
	f.When.Commands = append(old.Cmds, old.Cmd...)
	if a := append(old.Annotations, old.Annotation...); a != nil {
		f.When.Annotations = map[string]string{".*": strings.Join(a, "|")}
	}
	return f, nil
}

// hooksdKnownStages includes precreate, which only podman has.
var hooksdKnownStages = []string{"precreate", "prestart", stageCreate, "createContainer", "startContainer", "poststart", stagePoststop}

// jsonLine returns ":LINE" where a JSON error says where it is.
func jsonLine(data []byte, err error) string {
	offset := int64(-1)
	if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
		offset = syntax.Offset
	} else if mistyped, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		offset = mistyped.Offset
	}
	if offset < 0 || offset > int64(len(data)) {
		return ""
	}
	return fmt.Sprintf(":%d", 1+bytes.Count(data[:offset], []byte("\n")))
}

// hookPath refuses paths that runtimes refuse or that JSON can't hold.
func hookPath(hook string) error {
	switch {
	case !path.IsAbs(hook) || path.Clean(hook) != hook:
		return fault.Newf("hook "+hook, "is not a clean absolute path", "name it from the root directory").WithExit(fault.ExitUsage)
	case !utf8.ValidString(hook) || strings.ContainsRune(hook, 0):
		return fault.Newf("hook "+hook, "is not UTF-8", "choose another directory").WithExit(fault.ExitUsage)
	}
	return nil
}
