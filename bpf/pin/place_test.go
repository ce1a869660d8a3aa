// SPDX-License-Identifier: Apache-2.0

package pin

import (
	"strings"
	"testing"
)

func TestPlaces(t *testing.T) {
	c, s := ContainerKey("web.1", "/run/web"), SandboxKey("4f")
	tests := []struct {
		place                   Place
		path                    string
		kind                    PlaceKind
		owner                   Owner
		policy, network, ifname string
	}{
		{ContainerEntry(c, "egress"), "containers/" + string(c) + "/egress", ContainerPlace, Container(c), "egress", "", ""},
		{InterfaceEntry(s, "my.net", "eth0.5", "meter"), "sandboxes/4f/net_my%2enet/eth0%2e5/meter", InterfacePlace, Sandbox(s), "meter", "my.net", "eth0.5"},
		{HookInterfaceEntry(s, "eth0", "meter"), "sandboxes/4f/hook/eth0/meter", HookInterfacePlace, Sandbox(s), "meter", "", "eth0"},
		{NetnsEntry(s, "nf"), "sandboxes/4f/netns/nf", NetnsPlace, Sandbox(s), "nf", "", ""},
		{PodCgroupEntry(s, "p"), "sandboxes/4f/cgroup/p", PodCgroupPlace, Sandbox(s), "p", "", ""},
		{RetiredEntry("1-gc-2"), "retired/1-gc-2", RetiredPlace, Owner{}, "", "", ""},
		// Names that look like the tree's own.
		{InterfaceEntry(s, "", "netns", "hook"), "sandboxes/4f/net_%/netns/hook", InterfacePlace, Sandbox(s), "hook", "", "netns"},
		{NetnsEntry(s, "members"), "sandboxes/4f/netns/members", NetnsPlace, Sandbox(s), "members", "", ""},
	}
	for _, tt := range tests {
		p := tt.place
		owner, ok := p.Owner()
		if p.String() != tt.path || p.Kind() != tt.kind || owner != tt.owner || ok != (tt.owner != Owner{}) ||
			p.Policy() != tt.policy || p.Network() != tt.network || p.Interface() != tt.ifname {
			t.Errorf("%v: kind %v, owner %v %v, policy %q, network %q, interface %q; want %+v",
				p, p.Kind(), owner, ok, p.Policy(), p.Network(), p.Interface(), tt)
		}
	}
}

func TestForgedKeysAreRefused(t *testing.T) {
	r := newRoot(t)
	for _, k := range []Key{"", ".", "..", "../sandboxes", "a/b", "/", "a\x00", "a b", Key(strings.Repeat("a", 256))} {
		if _, err := ParseKey(string(k)); err == nil {
			t.Errorf("ParseKey(%q) takes it", k)
		}
		_, err := r.TryLock(Container(k))
		wantError(t, err, ErrName)
		_, err = r.Lock(t.Context(), Sandbox(k))
		wantError(t, err, ErrName)
		_, err = r.Entries(Container(k))
		wantError(t, err, ErrName)
		_, err = r.Members(k)
		wantError(t, err, ErrName)
		_, err = r.PodCgroups(k)
		wantError(t, err, ErrName)
		for _, p := range []Place{ContainerEntry(k, "p"), InterfaceEntry(k, "n", "i", "p"), HookInterfaceEntry(k, "i", "p"), NetnsEntry(k, "p"), PodCgroupEntry(k, "p"), RetiredEntry(string(k)), {}} {
			if p.Kind() != NoPlace {
				t.Errorf("%v has kind %v", p, p.Kind())
			}
			_, err := r.Entry(p)
			wantError(t, err, ErrName)
			_, err = r.Retire(p, "test", 0)
			wantError(t, err, ErrName)
			wantError(t, stage(t, r, "p").Publish(p), ErrName)
		}
		wantError(t, r.RemoveStaging(string(k)), ErrName)
	}
	wantError(t, stage(t, r, "p").Publish(RetiredEntry("1-gc-2")), ErrName)
}

func TestKeysKeepApart(t *testing.T) {
	keys := make(map[Key]string)
	add := func(k Key, what string) {
		t.Helper()
		if other, ok := keys[k]; ok {
			t.Errorf("%s and %s have the key %q", what, other, k)
		}
		keys[k] = what
	}
	if !CookieKey(1).OfNetns() || SandboxKey("%netns-1").OfNetns() || SandboxKey("netns-1").OfNetns() {
		t.Error("keys of namespaces and of ids are not told apart")
	}
	add(CookieKey(1), "cookie 1")
	add(CookieKey(12), "cookie 12")
	add(CookieKey(1<<63), "cookie 1<<63")
	for _, id := range append(hostile, "netns-1", "%netns-1") {
		add(SandboxKey(id), "sandbox "+id)
	}
	add(ContainerKey("web", "/run/a"), "web in a")
	add(ContainerKey("web", "/run/b"), "web in b")
}

func TestOwnerNames(t *testing.T) {
	long := strings.Repeat("x", 300)
	for _, tt := range []struct {
		owner Owner
		id    string
		ok    bool
		text  string
	}{
		{Container(ContainerKey("we.b-1", "/b")), "we.b-1", true, "container we.b-1"},
		{Container(ContainerKey("", "/b")), "", true, "container "},
		{Container("short"), "", false, "container short"},
		{Sandbox(SandboxKey("4f")), "4f", true, "sandbox 4f"},
		{Sandbox(CookieKey(77)), "", false, "sandbox of network namespace 77"},
		{Container(ContainerKey(long, "/b")), "", false, "container " + string(ContainerKey(long, "/b"))},
	} {
		id, ok := tt.owner.ID()
		if id != tt.id || ok != tt.ok || tt.owner.String() != tt.text {
			t.Errorf("%+v: id %q %v, text %q; want %+v", tt.owner, id, ok, tt.owner.String(), tt)
		}
	}
}
