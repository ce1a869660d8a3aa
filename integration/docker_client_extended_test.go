// SPDX-License-Identifier: Apache-2.0

//go:build extended

package integration

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// dockerTimeout bounds a call of docker's API.
const dockerTimeout = 90 * time.Second

// rawBody is a request's body that is sent as it is; all others are sent as JSON.
type rawBody []byte

// dockerCall makes one call of docker's API and returns what it answers. An error is
// docker's own text, as the docker command line prints it.
//
// It has no use for http.Client: that connects in a thread of its own, which has not
// entered the machine.
func dockerCall(method, path string, body any) ([]byte, error) {
	raw, isRaw := body.(rawBody)
	kind := "application/x-tar"
	if !isRaw && body != nil {
		var err error
		if raw, err = json.Marshal(body); err != nil {
			return nil, err
		}
		kind = "application/json"
	}
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: dockerSocket, Net: "unix"})
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(dockerTimeout)); err != nil {
		return nil, err
	}
	r, err := http.NewRequest(method, "http://docker"+path, bytes.NewReader(raw))
	if err != nil {
		return nil, err
	}
	r.Close = true
	r.Header.Set("Content-Type", kind)
	if err := r.Write(conn); err != nil {
		return nil, err
	}
	answer, err := http.ReadResponse(bufio.NewReader(conn), r)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	data, err := io.ReadAll(answer.Body)
	if err != nil {
		return nil, err
	}
	if answer.StatusCode >= http.StatusBadRequest {
		var refused struct{ Message string }
		if err := json.Unmarshal(data, &refused); err != nil {
			return nil, fmt.Errorf("%s: %s", answer.Status, data)
		}
		return nil, errors.New(refused.Message)
	}
	return data, nil
}

// dockerGet calls GET and decodes the answer into v.
func dockerGet(path string, v any) error {
	data, err := dockerCall("GET", path, nil)
	if err != nil {
		return err
	}
	return json.Unmarshal(data, v)
}

// cmdDocker is the docker command line by hand; README.md lists the verbs.
func cmdDocker(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) == 0 {
		ts.Fatalf("usage: docker VERB …")
	}
	out, err := dockerDo(ts, args[0], args[1:])
	if errors.Is(err, errUsage) {
		ts.Fatalf("docker %s: %v", strings.Join(args, " "), err)
	}
	_, _ = ts.Stdout().Write(out) // into memory
	if err != nil {
		_, _ = fmt.Fprintln(ts.Stderr(), err)
	}
	expect(ts, neg, err)
}

// dockerDo calls one verb and returns what it prints.
func dockerDo(ts *testscript.TestScript, verb string, args []string) ([]byte, error) {
	if verb == "devices" {
		var info struct{ DiscoveredDevices json.RawMessage }
		err := dockerGet("/info", &info)
		return append(info.DiscoveredDevices, '\n'), err
	}
	if len(args) == 0 {
		return nil, errUsage
	}
	name := args[0]
	container := "/containers/" + name
	switch verb {
	case "create":
		return nil, dockerCreate(ts, name, args[1:])
	case "run":
		if err := dockerCreate(ts, name, args[1:]); err != nil {
			return nil, err
		}
		return dockerCall("POST", container+"/start", nil)
	case "start", "kill", "pause", "unpause":
		return dockerCall("POST", container+"/"+verb, nil)
	case "stop", "restart":
		return dockerCall("POST", container+"/"+verb+"?t=0", nil)
	case "rm":
		return dockerCall("DELETE", container+"?force=1", nil)
	case "state":
		var inspected struct{ State json.RawMessage }
		err := dockerGet(container+"/json", &inspected)
		return append(inspected.State, '\n'), err
	case "logs":
		data, err := dockerCall("GET", container+"/logs?stdout=1&stderr=1", nil)
		if err != nil {
			return nil, err
		}
		return demultiplex(data)
	case "wait":
		var end struct{ StatusCode int }
		data, err := dockerCall("POST", container+"/wait", nil)
		if err == nil {
			err = json.Unmarshal(data, &end)
		}
		return fmt.Appendln(nil, end.StatusCode), err
	case "exec":
		return dockerExec(container, args[1:])
	case "network":
		_, err := dockerCall("POST", "/networks/create", map[string]any{"Name": name, "Driver": "bridge"})
		return nil, err
	case "connect":
		if len(args) != 2 {
			return nil, errUsage
		}
		return dockerCall("POST", "/networks/"+name+"/connect", map[string]any{"Container": args[1]})
	}
	return nil, errUsage
}

// dockerCreate creates a container: [OPTION…] [-- PROGRAM [ARGUMENT…]]. The variable of
// its name becomes its id.
func dockerCreate(ts *testscript.TestScript, name string, args []string) error {
	type object = map[string]any
	annotations := map[string]string{}
	var devices []string
	host := object{"NetworkMode": "none", "Annotations": annotations}
	config := object{"Image": "box", "Cmd": []string{"sleep", "600"}, "HostConfig": host}
	for i, arg := range args {
		if arg == "--" {
			config["Cmd"] = args[i+1:]
			break
		}
		option, value, _ := strings.Cut(arg, "=")
		switch option {
		case "device":
			devices = append(devices, value)
		case "network":
			host["NetworkMode"] = value
		case "annotation":
			key, text, _ := strings.Cut(value, "=")
			annotations[key] = text
		case "cgroup-parent":
			host["CgroupParent"] = value
		case "restart":
			host["RestartPolicy"] = object{"Name": value}
		case "cap":
			host["CapAdd"] = strings.Split(value, ",")
		default:
			return errUsage
		}
	}
	if len(devices) > 0 { // as the command line does with --device VENDOR/CLASS=NAME
		host["DeviceRequests"] = []object{{"Driver": "cdi", "DeviceIDs": devices}}
	}
	data, err := dockerCall("POST", "/containers/create?name="+name, config)
	if err != nil {
		return err
	}
	var created struct{ ID string }
	if err := json.Unmarshal(data, &created); err != nil {
		return err
	}
	ts.Setenv(name, created.ID)
	return nil
}

// dockerExec runs a program in a container and returns what it prints. An exit
// status other than 0 is an error.
func dockerExec(container string, args []string) ([]byte, error) {
	data, err := dockerCall("POST", container+"/exec", map[string]any{"AttachStdout": true, "AttachStderr": true, "Cmd": args})
	if err != nil {
		return nil, err
	}
	var created struct{ ID string }
	if err := json.Unmarshal(data, &created); err != nil {
		return nil, err
	}
	if data, err = dockerCall("POST", "/exec/"+created.ID+"/start", map[string]any{}); err != nil {
		return nil, err
	}
	out, err := demultiplex(data)
	if err != nil {
		return nil, err
	}
	var state struct{ ExitCode int }
	if err := dockerGet("/exec/"+created.ID+"/json", &state); err != nil {
		return out, err
	}
	if state.ExitCode != 0 {
		return out, fmt.Errorf("exit status %d", state.ExitCode)
	}
	return out, nil
}

// demultiplex joins what docker's streams carry: 8 bytes ahead of each piece, the
// last 4 of which are its length.
func demultiplex(data []byte) ([]byte, error) {
	var out []byte
	for len(data) > 0 {
		if len(data) < 8 {
			return out, io.ErrUnexpectedEOF
		}
		n := int(binary.BigEndian.Uint32(data[4:8]))
		if data = data[8:]; n > len(data) {
			return out, io.ErrUnexpectedEOF
		}
		out, data = append(out, data[:n]...), data[n:]
	}
	return out, nil
}
