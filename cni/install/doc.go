// SPDX-License-Identifier: Apache-2.0

// Package install puts linkpin-cni into the chain of a CNI network, and takes it out
// again. It edits the text of the network's configuration list: only the entry's own
// bytes come and go.
//
// Runtimes choose among the files of one directory: those that end in .conf,
// .conflist or .json, in the byte order of their names. containerd takes the first
// and refuses everything if it can't be parsed (go-cni, loadFromConfDir); CRI-O takes
// the first that it can use (ocicni, loadNetworks); podman reads .conflist only and
// goes by the network's name (containers/common, libnetwork/cni).
package install
