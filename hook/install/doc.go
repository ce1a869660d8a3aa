// SPDX-License-Identifier: Apache-2.0

// Package install makes container runtimes call linkpin: it knows where each of them
// reads hooks from, plans the files that are missing there, and finds what would keep
// a runtime from calling the hook. It writes nothing itself (package change does) and
// knows no kernel.
package install
