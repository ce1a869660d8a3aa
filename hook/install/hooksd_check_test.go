// SPDX-License-Identifier: Apache-2.0

package install

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/linkpin/linkpin/specs/change"
)

// TestHooksdCheck damages an installed host in every way that Check knows.
func TestHooksdCheck(t *testing.T) {
	create, poststop := hooksdDefault+"/"+podmanCreateName, hooksdDefault+"/"+podmanPoststopName
	replace := func(old, new string) func(*testing.T, change.Host) {
		return func(t *testing.T, h change.Host) {
			t.Helper()
			p := filepath.Join(h.Dir, create)
			data, err := os.ReadFile(p)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(string(data), old) {
				t.Fatalf("%s has no %s", p, old)
			}
			putFile(t, h, create, strings.Replace(string(data), old, new, 1))
		}
	}
	put := func(name, content string) func(*testing.T, change.Host) {
		return func(t *testing.T, h change.Host) { t.Helper(); putFile(t, h, name, content) }
	}
	remove := func(name string) func(*testing.T, change.Host) {
		return func(t *testing.T, h change.Host) {
			t.Helper()
			if err := os.Remove(filepath.Join(h.Dir, name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, c := range []struct {
		name   string
		damage func(*testing.T, change.Host)
		want   []string
	}{
		{"nothing", func(*testing.T, change.Host) {}, []string{"ok podman: calls " + testHook + " (" + hooksdDefault + ")"}},
		{"podman is gone, the files are not", remove("/usr/bin/podman"), []string{"ok podman: calls"}},
		{"no hook", remove(testHook), []string{"fail " + poststop + ": there is no " + testHook + ": podman silently leaves", "fail " + create}},
		{"hook not executable", func(t *testing.T, h change.Host) {
			if err := os.Chmod(filepath.Join(h.Dir, testHook), 0o644); err != nil {
				t.Fatal(err)
			}
		}, []string{"fail " + poststop + ": " + testHook + " can't be executed", "fail"}},
		{"no createRuntime", remove(create), []string{"fail podman: does not call linkpin at createRuntime"}},
		{"no poststop", remove(poststop), []string{"fail podman: does not call linkpin at poststop"}},
		{"malformed", put(create, "{\n\"version\": \"1.0.0\"\n"), []string{
			"fail " + create + ":3: unexpected end of JSON input: podman starts no container", "fail podman: does not call linkpin at createRuntime"}},
		{"malformed neighbour", put(hooksdDefault+"/a.json", "{"), []string{"fail " + hooksdDefault + "/a.json:1: unexpected end of JSON input: podman starts no container"}},
		{"neighbour of an unknown version", put(hooksdDefault+"/a.json", `{"version":"2.0.0"}`), []string{"fail …/a.json: has version \"2.0.0\""}},
		{"neighbour with an unknown stage", put(hooksdDefault+"/a.json", `{"version":"1.0.0","hook":{"path":"/etc"},"stages":["x"]}`), []string{"fail …unknown stage \"x\""}},
		{"neighbour with a bad pattern", put(hooksdDefault+"/a.json", `{"version":"1.0.0","hook":{"path":"/etc"},"when":{"commands":["("]},"stages":[]}`), []string{"fail …error parsing regexp"}},
		{"neighbour null", put(hooksdDefault+"/a.json", "null"), []string{"fail …/a.json: names no hook.path: podman starts no container"}},
		{"neighbour without a hook", put(hooksdDefault+"/a.json", "{}"), []string{"fail …/a.json: names no hook.path"}},
		{"neighbour without stages", put(hooksdDefault+"/a.json", `{"version":"1.0.0","hook":{"path":"/etc"}}`), []string{"fail …/a.json: names no stages"}},
		{"neighbour without a program", put(hooksdDefault+"/a.json", `{"version":"1.0.0","hook":{"path":"/no"},"stages":["poststop"]}`),
			[]string{"warn …/a.json: podman silently leaves the hook out: there is no /no"}},
		{"old neighbour", put(hooksdDefault+"/a.json", `{"hook":"/etc","stage":["prestart"],"annotation":["a"]}`), []string{"ok"}},
		{"old neighbour with a bad pattern", put(hooksdDefault+"/a.json", `{"hook":"/etc","stage":["prestart"],"cmd":["("]}`), []string{"fail …error parsing regexp"}},
		{"old neighbour that says it twice", put(hooksdDefault+"/a.json", `{"hook":"/etc","stage":["prestart"],"stages":["prestart"]}`), []string{"fail …/a.json: says the same"}},
		{"neighbour of another kind", put(hooksdDefault+"/a.txt", "{"), []string{"ok"}},
		{"neighbour that dangles", put(hooksdDefault+"/a.json", "-> nowhere"), []string{"ok"}},
		{"hooks_dir elsewhere", put(podmanConf, "[engine]\nhooks_dir = [\"/opt/a\"]\n"), []string{
			"fail " + poststop + ": podman does not read this directory; it reads /opt/a", "fail " + create, "fail podman: does not call linkpin at poststop", "fail podman"}},
		{"directory twice", put(podmanConf, "[engine]\nhooks_dir = [\""+hooksdDefault+"\", \""+hooksdDefault+"/\"]\n"), []string{"ok"}},
		{"hooks_dir is a file", func(t *testing.T, h change.Host) {
			putFile(t, h, podmanConf, "[engine]\nhooks_dir = [\""+hooksdDefault+"\", \"/opt/a\"]\n")
			putFile(t, h, "/opt/a", "")
		}, []string{"fail podman hooks_dir: \"/opt/a\" is not the absolute path"}},
		{"configuration malformed", put(podmanConf, "[engine\n"), []string{"fail " + podmanConf + ":1: "}},
		{"masked by ours", func(t *testing.T, h change.Host) {
			putFile(t, h, podmanConf, "[engine]\nhooks_dir = [\""+hooksdDefault+"\", \"/opt/a\"]\n")
			data, err := h.Read(create)
			if err != nil {
				t.Fatal(err)
			}
			putFile(t, h, "/opt/a/"+podmanCreateName, string(data.Data))
		}, []string{"warn " + create + ": is masked by /opt/a/" + podmanCreateName}},
		{"masked by another", func(t *testing.T, h change.Host) {
			putFile(t, h, podmanConf, "[engine]\nhooks_dir = [\""+hooksdDefault+"\", \"/opt/a\"]\n")
			putFile(t, h, "/opt/a/"+podmanCreateName, `{"version":"1.0.0","hook":{"path":"/etc"},"stages":["poststop"]}`)
		}, []string{"fail " + create + ": is masked by /opt/a/" + podmanCreateName + ", which is not linkpin's", "fail podman: does not call linkpin at createRuntime"}},
		{"before and after another", func(t *testing.T, h change.Host) {
			putFile(t, h, podmanConf, "[engine]\nhooks_dir = [\""+hooksdDefault+"\", \"/opt/a\", \""+hooksdDefault+"\"]\n")
			putFile(t, h, "/opt/a/"+podmanCreateName, `{"version":"1.0.0","hook":{"path":"/etc"},"stages":["poststop"]}`)
		}, []string{"ok"}},
		{"masks another in vain", func(t *testing.T, h change.Host) {
			putFile(t, h, podmanConf, "[engine]\nhooks_dir = [\"/opt/a\", \""+hooksdDefault+"\"]\n")
			putFile(t, h, "/opt/a/"+podmanCreateName, `{"version":"1.0.0","hook":{"path":"/etc"},"stages":["poststop"]}`)
		}, []string{"ok"}},
		{"only another of our name", put(create, `{"version":"1.0.0","hook":{"path":"/etc"},"stages":["poststop"]}`), []string{
			"fail " + create + ": has linkpin's name and is not linkpin's", "fail podman: does not call linkpin at createRuntime"}},
		{"no timeout", replace(",\n    \"timeout\": 60", ""), []string{"warn " + create + ": sets no timeout"}},
		{"short timeout", replace("\"timeout\": 60", "\"timeout\": 44"), []string{"fail " + create + ": sets a timeout of 44 s"}},
		{"timeout that is enough", replace("\"timeout\": 60", "\"timeout\": 45"), []string{"ok"}},
		{"another hook", func(t *testing.T, h change.Host) {
			putFile(t, h, "/opt/bin/linkpin-hook", "")
			replace(testHook, "/opt/bin/linkpin-hook")(t, h)
		}, []string{"warn " + create + ": calls /opt/bin/linkpin-hook and not " + testHook}},
		{"opt-in where always is needed", replace("\"always\": true", "\"annotations\": {\"^linkpin\\\\.io/policies$\": \".*\"}"),
			[]string{"fail " + create + ": calls the hook only for containers with the annotation"}},
		{"further conditions", replace("\"always\": true", "\"always\": true, \"commands\": [\"sh\"]"), []string{"fail " + create + ": has conditions that are not linkpin's"}},
		{"never", replace("\"always\": true", "\"always\": false"), []string{"fail " + create + ": has conditions"}},
		{"other stage", replace("  \"stages\": [\n    \"createRuntime\"", "  \"stages\": [\n    \"createContainer\""), []string{"fail " + create + ": is for the stages createContainer"}},
		{"other caller", replace("\"--caller\",\n      \"podman\"", "\"--caller\",\n      \"crio\""), []string{"fail " + create + ": calls the hook with the arguments"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := hostFiles(t, map[string]string{"/usr/bin/podman": ""})
			mustInstall(t, h, Podman{Hook: testHook, When: Always})
			c.damage(t, h)
			checkFindings(t, Podman{Hook: testHook, When: Always}.Check(h), c.want...)
		})
	}
}

// TestHooksdCheckAbsent checks hosts that have nothing of ours.
func TestHooksdCheckAbsent(t *testing.T) {
	podman, crio := Podman{Hook: testHook}, CRIO{Hook: testHook}
	h := hostFiles(t, map[string]string{podmanConf: "malformed", hooksdDefault + "/a.json": "malformed"})
	checkFindings(t, podman.Check(h))
	checkFindings(t, crio.Check(h))
	if !podman.Uses(h, testHook) {
		t.Error("a configuration that can't be read counts as a use")
	}

	h = hostFiles(t, map[string]string{"/usr/local/bin/crio": ""})
	checkFindings(t, podman.Check(h))
	checkFindings(t, crio.Check(h), "warn CRI-O: does not call linkpin")

	h = hostFiles(t, map[string]string{"/usr/bin/crio": "", hooksdDefault + "/a.json": "x"})
	mustInstall(t, h, crio)
	checkFindings(t, crio.Check(h), "fail …/a.json:1: …: CRI-O does not start")
	mustInstall(t, h, CRIO{Hook: testHook, When: OptIn})
	if err := os.Remove(filepath.Join(h.Dir, hooksdDefault, "a.json")); err != nil {
		t.Fatal(err)
	}
	checkFindings(t, CRIO{Hook: testHook, When: OptIn}.Check(h), "ok CRI-O")
}

// TestPodmanRootless tests that nobody installs for a user.
func TestPodmanRootless(t *testing.T) {
	for _, word := range []string{"CAP_BPF", "CAP_NET_ADMIN", "initial user namespace", "BPF token", "delegated", "could only refuse"} {
		checkRefused(t, Rootless(), word)
	}
	if _, err := (Podman{Hook: testHook}).install(change.Host{}, 1000); err == nil || err.Error() != Rootless().Error() {
		t.Errorf("as a user: %v", err)
	}
	// An image may be changed by anybody who may write to it.
	if _, err := (Podman{Hook: testHook}).install(hostFiles(t, nil), 1000); err != nil {
		t.Errorf("an image: %v", err)
	}
}
