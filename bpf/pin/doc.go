// SPDX-License-Identifier: Apache-2.0

// Package pin keeps linkpin's state in bpffs. It alone knows how paths there are
// built: the tree, the escaping of names, staging and rename, locks, and the
// ownership checks on every open.
//
// Below the mount point:
//
//	linkpin/v1/
//	  containers/<key>/<policy>/                    a container's entry: link_<name>, map_<name>, meta;
//	                                                where tc filters stand in for links prog_<name>, filters
//	  sandboxes/<key>/net_<network>/<ifname>/<policy>/  an interface's entry, made by the CNI plugin
//	  sandboxes/<key>/hook/<ifname>/<policy>/       an interface's entry, made by the OCI hook
//	  sandboxes/<key>/netns/<policy>/               a network namespace's entry
//	  sandboxes/<key>/cgroup/<policy>/              a pod cgroup's entry, made by the CNI plugin
//	  sandboxes/<key>/members/<container key>/      empty: a container that joined the sandbox
//	  sandboxes/<key>/pod/                          reserved
//	  node/                                         reserved
//	  netns/<cookie> -> ../sandboxes/<key>          index of sandboxes by namespace cookie
//	  retired/<unix seconds>-<reason>-<random>/     entries whose target has ended
//	  staging/<random>/                             what is being built or taken apart
//
// # Who may write here
//
// A fresh bpffs is world-writable, so anybody may have made linkpin first. Every
// opening refuses linkpin and v1 unless they are real directories of a bpffs,
// owned by root, of mode exactly 0700. Nothing is ever chmod-ed or removed to get
// there. That is enough for everything below v1: the kernel checks the mode of a
// directory on each creation and lookup in it, not when a descriptor is opened,
// so only root has ever been able to put a name below a directory that was born
// root-owned and 0700, and a descriptor that somebody else holds on it gives no
// right to change it. A directory that was made by somebody else and later given
// to root is something only root can bring about.
//
// # Atomicity
//
// An entry is built in staging and becomes visible by one rename, and leaves by
// one rename, into retired or back into staging. A process that is killed at any
// instant leaves nothing, or complete entries, or a staging directory that nobody
// holds locked, which RemoveStaging recognises. Beside them it may leave an empty
// owner directory, which the next holder of its lock removes, an index symlink
// that points nowhere, and unlocked entries in retired.
//
// # Locks
//
// A lock is a flock on the directory of one owner (a container or a sandbox), of
// one staging directory, of one retired entry while it is taken apart, or of
// netns/lock_<cookie> while one index entry is changed; never on a parent, so that
// a stopped process stops nobody but those who want the same. The kernel drops a
// lock when its holder dies. All descriptors are close-on-exec.
package pin
