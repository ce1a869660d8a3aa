// SPDX-License-Identifier: Apache-2.0

package install

import (
	"bytes"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
	cdi "tags.cncf.io/container-device-interface/specs-go"

	"github.com/linkpin/linkpin/specs"
	"github.com/linkpin/linkpin/specs/change"
	"github.com/linkpin/linkpin/specs/fault"
)

// CDI offers policies as devices of the Container Device Interface: whoever runs a
// container asks for one with --device linkpin.io/policy=NAME. It works with podman,
// CRI-O, containerd and docker, and needs nothing of their configuration.
type CDI struct {
	Hook     string      // path of linkpin-hook on the host, absolute
	Policies []CDIPolicy // the applied policies that are optIn, in any order
	// Host is where Binaries looks for what is installed. It must be the host that the
	// other methods are given.
	Host change.Host
}

// CDIPolicy is a policy that may be asked for.
type CDIPolicy struct {
	Name        string // as in the policy; every name that specs.ValidName allows is one of CDI's
	Description string // for readers of the file; may be empty
}

var _ change.Target = CDI{}

const (
	cdiKind = "linkpin.io/policy"
	cdiDir  = "/etc/cdi"
	// cdiFile is named vendor-class, as GenerateSpecName of the CDI library names it.
	cdiFile = cdiDir + "/linkpin.io-policy.yaml"
	// cdiHead and cdiMade are how the file begins. Comments are the only place for
	// remarks: fields that CDI does not know are errors, and annotations need a
	// version (0.6.0) that the library in podman 4 refuses.
	cdiHead = "# Written by linkpin install cdi: one device for each policy that is optIn.\n"
	cdiMade = "# Directories that were made for it: "
)

// Name returns "cdi".
func (CDI) Name() string { return "cdi" }

// Binaries returns the hook; none if there is nothing to offer and nothing is
// installed, since nobody would call it then.
func (c CDI) Binaries() []change.Binary {
	if len(c.Policies) == 0 && !c.Host.Exists(cdiFile) && !c.Host.Exists(c.Hook) {
		return nil
	}
	return []change.Binary{{Name: hookName, Path: c.Hook}}
}

// Install plans the file with a device for each policy. Without policies it plans the
// removal, since CDI refuses a file without devices.
func (c CDI) Install(h change.Host) (*change.Plan, error) {
	if err := c.valid(); err != nil {
		return nil, err
	}
	f, made, err := c.own(h)
	if err != nil {
		return nil, err
	}
	for _, o := range cdiOthers(h) {
		if o.spec != nil && o.spec.Kind == cdiKind {
			return nil, fault.Newf(o.path, "defines devices of "+cdiKind+", and runtimes refuse a device that two files define", "remove it")
		}
	}
	plan := &change.Plan{}
	if len(c.Policies) == 0 {
		cdiRemove(plan, f, made)
		plan.Note("no applied policy is optIn: there is nothing to offer as a CDI device")
		return plan, nil
	}
	if made, err = addMissing(h, made, cdiDir); err != nil {
		return nil, err
	}
	data, err := c.content(made)
	if err != nil {
		return nil, err
	}
	plan.Write(f, data, 0o644)
	if !plan.Empty() {
		plan.Note("ask for a policy with --device " + cdiKind + "=" + c.Policies[0].Name)
		plan.Note(`docker before 28.2 needs {"features": {"cdi": true}} in daemon.json; containerd before 2.0 needs enable_cdi = true`)
	}
	return plan, nil
}

// Uninstall plans the removal of the file.
func (c CDI) Uninstall(h change.Host) (*change.Plan, error) {
	f, made, err := c.own(h)
	if err != nil {
		return nil, err
	}
	plan := &change.Plan{}
	cdiRemove(plan, f, made)
	return plan, nil
}

func cdiRemove(plan *change.Plan, f *change.File, made []string) {
	plan.Remove(f)
	if f.Missing {
		return
	}
	for _, dir := range made {
		plan.Remove(&change.File{Path: dir, Mode: fs.ModeDir | 0o755})
	}
}

func (c CDI) valid() error {
	if err := hookPath(c.Hook); err != nil {
		return err
	}
	seen := map[string]struct{}{}
	for _, p := range c.Policies {
		if !specs.ValidName(p.Name) {
			return fault.Newf("policy "+p.Name, "has a name that is no policy's", "use a-z, 0-9 and -").WithExit(fault.ExitInput)
		}
		if _, twice := seen[p.Name]; twice {
			return fault.Newf("policy "+p.Name, "is given twice", "name each policy once").WithExit(fault.ExitInput)
		}
		seen[p.Name] = struct{}{}
	}
	return nil
}

// spec is what the file should say.
func (c CDI) spec() (*cdi.Spec, error) {
	policies := slices.Clone(c.Policies)
	slices.SortFunc(policies, func(a, b CDIPolicy) int { return strings.Compare(a.Name, b.Name) })
	s := &cdi.Spec{Kind: cdiKind}
	for _, p := range policies {
		d := cdi.Device{Name: p.Name}
		for _, stage := range []string{stageCreate, stagePoststop} {
			timeout := int(change.HookTimeout / time.Second)
			d.ContainerEdits.Hooks = append(d.ContainerEdits.Hooks, &cdi.Hook{
				HookName: stage,
				Path:     c.Hook,
				Args:     []string{path.Base(c.Hook), stage, "--caller", string(specs.CallerCDI), "--policy", p.Name},
				Timeout:  &timeout,
			})
		}
		s.Devices = append(s.Devices, d)
	}
	// 0.3.0, or 0.5.0 if a name begins with a digit: old readers refuse newer ones.
	version, err := cdi.MinimumRequiredVersion(s)
	if err != nil {
		return nil, err
	}
	s.Version = version
	return s, nil
}

// content is the file with its remarks.
func (c CDI) content(made []string) ([]byte, error) {
	s, err := c.spec()
	if err != nil {
		return nil, err
	}
	described := map[string]string{}
	for _, p := range c.Policies {
		described[p.Name] = p.Description
	}
	var doc yaml.Node
	if err := doc.Encode(s); err != nil {
		return nil, err
	}
	for i := 0; i+1 < len(doc.Content); i += 2 {
		switch doc.Content[i].Value {
		case "containerEdits": // empty: ours are the devices'
			doc.Content = slices.Delete(doc.Content, i, i+2)
			i -= 2
		case "devices":
			for j, d := range doc.Content[i+1].Content {
				if text := described[s.Devices[j].Name]; text != "" {
					d.HeadComment = "# " + fault.OneLine(text)
				}
			}
		}
	}
	var b bytes.Buffer
	b.WriteString(cdiHead)
	if len(made) > 0 {
		b.WriteString(cdiMade + strings.Join(made, " ") + "\n")
	}
	e := yaml.NewEncoder(&b)
	e.SetIndent(2)
	if err := e.Encode(&doc); err != nil {
		return nil, err
	}
	return b.Bytes(), e.Close()
}

// own reads the file, and which directories were made for it. One that is not
// linkpin's is an error.
func (CDI) own(h change.Host) (f *change.File, made []string, err error) {
	f, err = h.Read(cdiFile)
	if err != nil || f.Missing {
		return f, nil, err
	}
	s, err := cdiParse(cdiFile, f.Data)
	if err != nil {
		return nil, nil, err
	}
	if s.Kind != cdiKind {
		return nil, nil, fault.Newf(cdiFile, fmt.Sprintf("is not linkpin's: it is of kind %q", s.Kind), "move it away")
	}
	ours := false
	for line := range strings.Lines(string(f.Data)) {
		ours = ours || line == cdiHead
		if dirs, ok := strings.CutPrefix(line, cdiMade); ok {
			made = strings.Fields(dirs)
		}
	}
	if !ours {
		return nil, nil, fault.Newf(cdiFile, "is not linkpin's: it lacks the line "+strconv.Quote(strings.TrimSpace(cdiHead)),
			"move it away, or add that line if linkpin may replace it")
	}
	made, err = leadingTo(h, made, cdiDir)
	return f, made, err
}

// cdiParse reads a file as the CDI library does: strictly. Its errors name the line.
func cdiParse(name string, data []byte) (*cdi.Spec, error) {
	d := yaml.NewDecoder(bytes.NewReader(data))
	d.KnownFields(true)
	var s *cdi.Spec
	if err := d.Decode(&s); err != nil {
		return nil, fault.New(name, err, "mend the file or move it away").WithExit(fault.ExitInput)
	}
	if s == nil {
		return nil, fault.Newf(name, "holds no specification", "mend the file or move it away").WithExit(fault.ExitInput)
	}
	return s, nil
}

// Uses reports whether the file names the program at path.
func (c CDI) Uses(h change.Host, path string) bool {
	f, err := h.Read(cdiFile)
	if err != nil {
		return true
	}
	if f.Missing {
		return false
	}
	s, err := cdiParse(cdiFile, f.Data)
	if err != nil {
		return true
	}
	return slices.ContainsFunc(s.Devices, func(d cdi.Device) bool {
		return slices.ContainsFunc(d.ContainerEdits.Hooks, func(k *cdi.Hook) bool { return k != nil && k.Path == path })
	})
}
