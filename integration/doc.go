// SPDX-License-Identifier: Apache-2.0

// Package integration runs the real binaries with real container runtimes, as
// scripts (testdata/*.txtar, see README.md for their commands), and checks which
// package imports which. Every script has a machine of its own: mount, network,
// process and IPC namespaces with a private bpffs, its own /etc/linkpin,
// /var/lib and /run, and cgroups in either of the layouts that hosts have.
package integration
