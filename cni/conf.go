// SPDX-License-Identifier: Apache-2.0

package cni

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/linkpin/linkpin/specs"
)

// maxConf bounds the configuration on standard input, in bytes. GC lists every
// valid attachment of a node in it.
const maxConf = 16 << 20

// Conf is the plugin's network configuration. What it does not know is ignored, as
// the spec asks.
type Conf struct {
	types.PluginConf
	// Caller is the runtime that this configuration is for, as the installer wrote it.
	Caller        specs.Caller `json:"caller,omitempty"`
	RuntimeConfig struct {
		// containerd and CRI-O pass all pod annotations by this capability.
		PodAnnotations map[string]string `json:"io.kubernetes.cri.pod-annotations,omitempty"`
		// The pod's cgroup, as the runtime was given it (CRI, cgroup_parent): containerd
		// 1.7.1 and CRI-O 1.28 pass it by this capability, CRI-O for its default network only.
		CgroupPath string `json:"cgroupPath,omitempty"`
	} `json:"runtimeConfig"`
}

// parse reads a configuration and, if there is one, its previous result.
func parse(stdin []byte) (*Conf, error) {
	if len(stdin) > maxConf {
		return nil, types.NewError(types.ErrDecodingFailure, fmt.Sprintf("network configuration is larger than %d bytes", maxConf), "")
	}
	conf := Conf{Caller: specs.CallerNone}
	if err := json.Unmarshal(stdin, &conf); err != nil {
		return nil, types.NewError(types.ErrDecodingFailure, "network configuration is not valid JSON", err.Error())
	}
	if !slices.Contains(specs.Callers, conf.Caller) {
		return nil, types.NewError(types.ErrInvalidNetworkConfig,
			fmt.Sprintf("network %s: unknown caller %q", conf.Name, conf.Caller), fmt.Sprintf("use one of %v", specs.Callers))
	}
	return &conf, nil
}

// errChain says that the plugin stands first in its chain, or alone.
var errChain = errors.New("linkpin-cni must follow a plugin that makes the interface")

// previous parses the previous result, which ADD and CHECK require.
func (c *Conf) previous() error {
	if c.RawPrevResult == nil {
		return types.NewError(types.ErrInvalidNetworkConfig, "network "+c.Name+": no prevResult: "+errChain.Error(),
			"put it after bridge, ptp or the like in `plugins`")
	}
	if err := version.ParsePrevResult(&c.PluginConf); err != nil {
		return types.NewError(types.ErrDecodingFailure, "network "+c.Name+": prevResult can't be read", err.Error())
	}
	return nil
}

// identity says which sandbox is served. CNI_ARGS are the runtime's own words
// (K8S_POD_NAME and so on); podman puts the name of the container where the
// others put that of the pod.
func identity(c *Conf, containerID, args string) specs.Identity {
	k := parseArgs(args)
	id := specs.Identity{
		Caller:      c.Caller,
		ContainerID: containerID,
		SandboxID:   containerID,
		Network:     c.Name,
		Pod:         k["K8S_POD_NAME"],
		Namespace:   k["K8S_POD_NAMESPACE"],
		Annotations: c.RuntimeConfig.PodAnnotations,
	}
	if c.Caller == specs.CallerPodman {
		id.Container, id.Pod, id.Namespace = id.Pod, "", ""
	}
	return id
}

// parseArgs splits CNI_ARGS ("K=V;K=V"). What is not of that form is left out: it
// belongs to others.
func parseArgs(args string) map[string]string {
	out := map[string]string{}
	for pair := range strings.SplitSeq(args, ";") {
		if k, v, ok := strings.Cut(pair, "="); ok {
			out[k] = v
		}
	}
	return out
}
