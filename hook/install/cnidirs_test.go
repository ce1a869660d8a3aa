// SPDX-License-Identifier: Apache-2.0

package install

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestConfiguredCNI(t *testing.T) {
	const containerd = "#!/bin/sh\necho 'containerd github.com/containerd/containerd 1.7.20 x'\n"
	for _, tc := range []struct {
		name  string
		files map[string]string
		want  CNIDirs
	}{
		{name: "nothing"},
		{name: "containerd 1.7", files: map[string]string{
			"/usr/bin/containerd":         containerd,
			"/etc/containerd/config.toml": "version = 2\n[plugins.'io.containerd.grpc.v1.cri'.cni]\nbin_dir = '/srv/bin'\nconf_dir = '/srv/net.d'\n",
		}, want: CNIDirs{Conf: "/srv/net.d", Bin: []string{"/srv/bin"}}},
		{name: "containerd 2.1", files: map[string]string{
			"/usr/bin/containerd":         "#!/bin/sh\necho 'containerd github.com/containerd/containerd/v2 v2.1.4 x'\n",
			"/etc/containerd/config.toml": "version = 3\n[plugins.'io.containerd.cri.v1.runtime'.cni]\nbin_dirs = ['/a', '/b']\n",
		}, want: CNIDirs{Bin: []string{"/a", "/b"}}},
		{name: "CRI-O", files: map[string]string{
			"/etc/crio/crio.conf":           "[crio.network]\nnetwork_dir = '/c/net.d'\nplugin_dirs = ['/c/bin']\n",
			"/etc/crio/crio.conf.d/10.conf": "[crio.network]\nplugin_dirs = ['/d/bin', '/e/bin']\n",
		}, want: CNIDirs{Conf: "/c/net.d", Bin: []string{"/d/bin", "/e/bin"}}},
		{name: "both", files: map[string]string{
			"/usr/bin/containerd":         containerd,
			"/etc/containerd/config.toml": "version = 2\n[plugins.'io.containerd.grpc.v1.cri'.cni]\nbin_dir = '/srv/bin'\n",
			"/etc/crio/crio.conf":         "[crio.network]\nnetwork_dir = '/c/net.d'\nplugin_dirs = ['/c/bin', '/srv/bin']\n",
		}, want: CNIDirs{Conf: "/c/net.d", Bin: []string{"/srv/bin", "/c/bin"}}},
		{name: "malformed", files: map[string]string{"/usr/bin/containerd": containerd, "/etc/containerd/config.toml": "[", "/etc/crio/crio.conf": "["}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			h := hostFiles(t, tc.files)
			if d := cmp.Diff(tc.want, ConfiguredCNI(h)); d != "" {
				t.Error(d)
			}
		})
	}
}
