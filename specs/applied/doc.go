// SPDX-License-Identifier: Apache-2.0

// Package applied is the set of policies that is in effect: `linkpin policy
// apply` writes it whole, hook and CNI plugin read it, and nothing else decides
// which programs a container gets. It knows plans and selectors as data only: no
// YAML, no BTF, no kernel.
//
// # On disk
//
//	<dir>/current -> sets/<n>-<sha256 of set.json>
//	<dir>/sets/<n>-<sha256>/set.json
//	<dir>/sets/<n>-<sha256>/plans/<sha256>.json
//	<dir>/sets/<n>-<sha256>/objects/<sha256>
//
// The link `current` names the hash of set.json, set.json names those of the
// plans, and plans name those of the objects: a reader that starts at the link
// can't be given a mixture, and sees every damaged byte. All directories are
// 0700, all files 0600, owned by root; readers refuse anything that somebody else
// could have written or that is reached through a symbolic link, `current`
// excepted.
//
// # Replacing a set
//
// A set is built beside the others, synced to disk, and takes effect by one
// rename of the link. A reader therefore has the old set or the new one, at any
// instant at which a writer may be killed or the power may fail. The set that was
// in effect before is kept, so that entries made under it can be repaired; older
// ones are removed. Readers hold a shared flock on the set that they read, and a
// set that is locked is left for the next writer to remove.
package applied
