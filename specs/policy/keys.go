// SPDX-License-Identifier: Apache-2.0

package policy

// keys are the keys of one kind of mapping. schema.json has the same ones.
type keys struct {
	names []string
	later map[string]string // keys that linkpin does not support yet → what to write instead
	hints map[string]string // keys that people try → what to write instead
}

var (
	policyKeys = keys{
		names: []string{
			"apiVersion", "kind", "metadata", "object", "objects", "select", "onError", "scope", "cgroup", "teardown",
			"tc", "programs", "constants", "maps",
		},
		hints: map[string]string{
			"kconfig": "remove it: kconfig values come from the kernel",
			"spec":    "its fields stand at the top level",
			"name":    "write metadata: {name: …}",
			"exclude": "write it inside select",
		},
	}
	metadataKeys = keys{names: []string{"name", "description"}}
	tcKeys       = keys{names: []string{"fallback"}}
	objectKeys   = keys{
		names: []string{"builtin", "file", "sha256"},
		later: map[string]string{"image": "write file and sha256"},
	}
	selectKeys = keys{
		names: []string{
			"all", "namespaces", "pods", "containers", "networks", "callers", "annotations", "optIn", "exclude",
		},
	}
	excludeKeys = keys{
		names: []string{"namespaces", "pods", "containers", "networks", "callers"},
		hints: map[string]string{
			"annotations": "remove it: what a container's author writes can't take the container out",
			"all":         "remove it: a policy that excludes everything does nothing",
			"optIn":       "write it outside exclude",
		},
	}
	programKeys = keys{
		names: []string{
			"attach", "loadAs", "direction", "interface", "side", "mode", "frags", "family", "hook", "priority", "defrag",
		},
		later: map[string]string{
			"order": "remove it: programs run in the order in which their links are made",
		},
		hints: map[string]string{
			"type":    "say attach for a program that is attached, or loadAs with attach: none",
			"section": "write attach",
			"cgroup":  "write it outside programs: a policy is for the pod's cgroup or for the container's",
		},
	}
	mapKeys = keys{
		names: []string{
			"type", "maxEntries", "keySize", "valueSize", "flags", "share", "inner", "entries", "programs",
		},
		hints: map[string]string{
			"pinning": "remove it: linkpin pins every map in the container's own directory",
			"values":  "write entries",
		},
	}
	innerKeys = keys{names: []string{"type", "keySize", "valueSize", "maxEntries", "flags"}}
	entryKeys = keys{names: []string{"key", "value"}}
)
