// SPDX-License-Identifier: Apache-2.0

// Package bpf holds the way from a prepared policy to the kernel, one step a
// package: target finds and verifies what to attach to, load makes programs and
// maps, attach makes links, pin keeps the state in bpffs, and entry runs these
// steps in order and undoes them. prepare and value turn policies into plans.
package bpf
