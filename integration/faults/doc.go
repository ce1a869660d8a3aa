// SPDX-License-Identifier: Apache-2.0

// Package faults holds no code of linkpin but the fault tests: they kill each of
// linkpin's programs at every system call that matters, and let each of these calls
// fail, one call in each run, and look at what is left. See series_test.go for what
// is tried, stages_test.go for the programs and what is asked of them afterwards, and
// stopped_test.go for a gc that is stopped instead: nobody waits for it.
package faults
