// SPDX-License-Identifier: Apache-2.0

package pin

// The members of a sandbox are the containers that run in its network namespace,
// each an empty directory named by the container's key.

// AddMember notes that a container has joined a sandbox, whose lock the caller
// must hold. It may be noted already.
func (r *Root) AddMember(sandbox, container Key) error {
	if err := checkName(string(container)); err != nil {
		return err
	}
	lock, err := r.holding(Sandbox(sandbox))
	if err != nil {
		return err
	}
	path := memberPath(sandbox, container)
	if err := mkdir(lock.fd, membersDir); err != nil {
		return r.pathError("mkdir", path, err)
	}
	return r.pathError("mkdir", path, mkdir(lock.fd, membersDir+"/"+string(container)))
}

// RemoveMember takes back what AddMember noted, if it did. The caller must hold
// the sandbox's lock.
func (r *Root) RemoveMember(sandbox, container Key) error {
	if err := checkName(string(container)); err != nil {
		return err
	}
	lock, err := r.holding(Sandbox(sandbox))
	if err != nil {
		return err
	}
	return r.pathError("rmdir", memberPath(sandbox, container), rmdir(lock.fd, membersDir+"/"+string(container)))
}

// Members lists the containers in a sandbox, sorted; none if there is no such
// sandbox.
func (r *Root) Members(sandbox Key) ([]Key, error) {
	if err := Sandbox(sandbox).check(); err != nil {
		return nil, err
	}
	return r.keys(Dir(Sandbox(sandbox).path() + "/" + membersDir))
}

func memberPath(sandbox, container Key) string {
	return Sandbox(sandbox).path() + "/" + membersDir + "/" + string(container)
}
