// SPDX-License-Identifier: Apache-2.0

// Package specs is the policy format: its Go types, the strict parser with
// file:line:field in every error, the selector, and Plan, the prepared form that
// hook and CNI carry out. It does no I/O besides reading the policy files it is
// given, and knows nothing of eBPF objects: bpf/prepare checks a policy against
// them.
//
// identity.go, hooks.go, plan.go and select.go have no dependencies, so that the
// hook and the CNI plugin may use them without paying for a YAML parser: that one
// is in specs/policy.
package specs
