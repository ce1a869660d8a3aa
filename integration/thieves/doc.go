// SPDX-License-Identifier: Apache-2.0

// Package thieves tries every way to take a program off or to get around it, from
// the host and from inside of a container, and judges each by the kernel's links
// and by packets. What comes out is the table of docs/SECURITY.md: a test compares
// the two, and `go test ./integration/thieves -run TestDocument -update` writes it.
package thieves
