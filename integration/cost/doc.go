// SPDX-License-Identifier: Apache-2.0

// Package cost tests what one invocation of linkpin-hook and linkpin-cni costs on a node
// that has many containers, and that each of them heals the node a little.
package cost
