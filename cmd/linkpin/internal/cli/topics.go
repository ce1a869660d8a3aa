// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"io"
	"reflect"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

func exitCodesTopic() *cobra.Command {
	return &cobra.Command{
		Use:   "exit-codes",
		Short: "What the exit codes of all linkpin commands mean",
		Long: `Exit codes of linkpin and linkpin-hook:

  0   done; for verify: everything is in order, or was mended
  1   refused or failed; for verify: something is not as it should be; for doctor:
      something that must be there is missing
  3   verify could not tell (the state is hidden by another mount, for example), or
      there is no record for an ID that was named (this wins over 1)
  64  wrong arguments
  65  a policy, a configuration or a container's state that can't be understood
  69  bpffs, cgroup2 or a kernel feature is missing, or others than root could write to
      linkpin's directory in bpffs
  78  the applied policies are missing or damaged; linkpin policy apply mends it

The numbers from 64 up are those of sysexits.h. Each error is one line on stderr: what
failed, why, and what to do about it.`,
	}
}

// outputs are what the commands print with -o json.
var outputs = []struct {
	command  string
	document any
}{
	{"linkpin policy validate", validateOutput{}},
	{"linkpin policy apply", applyOutput{}},
	{"linkpin policy list", policyListOutput{}},
	{"linkpin policy show", policyOutput{}},
	{"linkpin ls", lsOutput{}},
	{"linkpin inspect", inspectOutput{}},
	{"linkpin verify", verifyOutput{}},
	{"linkpin watch, a line for each event", watchOutput{}},
	{"linkpin update", updateOutput{}},
	{"linkpin gc", gcOutput{}},
	{"linkpin gc --dry-run", gcPreview{}},
	{"linkpin map dump, linkpin map get", mapsOutput{}},
	{"linkpin doctor", doctorOutput{}},
	{"linkpin version", versionOutput{}},
}

func outputTopic() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "output",
		Short: "The shape of what -o json prints",
	}
	cmd.SetHelpFunc(func(cmd *cobra.Command, _ []string) { writeShapes(cmd.OutOrStdout()) })
	return cmd
}

// writeShapes writes the shape of every output. It is made from the types that are
// printed, so that it is never out of date.
func writeShapes(w io.Writer) {
	fmt.Fprintln(w, `What commands print with -o json: one document. Fields marked with "?" may be absent,
all others never are; lists may be empty, never null. Times are RFC 3339. Fields may be
added; none changes its meaning. "value" is in the notation of policies: numbers, text,
lists, and objects by field name. Errors are lines on stderr, as without -o json.`)
	for _, o := range outputs {
		fmt.Fprintf(w, "\n%s\n", o.command)
		writeShape(w, reflect.TypeOf(o.document), "")
		fmt.Fprintln(w)
	}
}

func writeShape(w io.Writer, t reflect.Type, indent string) {
	switch {
	case t == reflect.TypeFor[time.Time]():
		fmt.Fprint(w, "time")
	case t.Kind() == reflect.Pointer:
		writeShape(w, t.Elem(), indent)
	case t.Kind() == reflect.Slice:
		fmt.Fprint(w, "[")
		writeShape(w, t.Elem(), indent)
		fmt.Fprint(w, ", ...]")
	case t.Kind() == reflect.Map:
		fmt.Fprint(w, "{string: ")
		writeShape(w, t.Elem(), indent)
		fmt.Fprint(w, ", ...}")
	case t.Kind() == reflect.Struct:
		fmt.Fprint(w, "{\n")
		writeFields(w, t, indent+"  ")
		fmt.Fprint(w, indent+"}")
	case t.Kind() == reflect.String:
		fmt.Fprint(w, "string")
	case t.Kind() == reflect.Bool:
		fmt.Fprint(w, "bool")
	case t.Kind() == reflect.Interface:
		fmt.Fprint(w, "value")
	default:
		fmt.Fprint(w, "number")
	}
}

func writeFields(w io.Writer, t reflect.Type, indent string) {
	for f := range t.Fields() {
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Anonymous && name == "" {
			writeFields(w, f.Type, indent)
			continue
		}
		fmt.Fprintf(w, "%s%q", indent, name)
		if strings.Contains(options, "omit") {
			fmt.Fprint(w, "?")
		}
		fmt.Fprint(w, ": ")
		writeShape(w, f.Type, indent)
		fmt.Fprintln(w)
	}
}
