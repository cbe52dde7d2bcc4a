package emulator

import (
	"bufio"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"xenferry/lib/guest"
	"xenferry/lib/host"
)

// starts is a host whose emulators answer at a socket.
type starts struct {
	host.Host
	socket string
}

func (s starts) QMPSocket(guest.DomID) string { return s.socket }

// monitor serves QMP at a socket: to each command it knows an answer, to others QEMU's refusal.
func monitor(t *testing.T, answers map[string]string) (socket string) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "qmp")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() {
		l.Close()
		<-done
	})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = fmt.Fprintln(c, `{"QMP": {"version": {}}}`)
			for in := bufio.NewScanner(c); in.Scan(); {
				answer := `{"error": {"class": "CommandNotFound", "desc": "The command has not been found"}}`
				for command, a := range answers {
					if strings.Contains(in.Text(), `"`+command+`"`) {
						answer = a
					}
				}
				_, _ = fmt.Fprintln(c, `{"event": "RTC_CHANGE"}`+"\n"+answer)
			}
			_ = c.Close()
		}
	}()
	return socket
}

// The emulator's vCPUs are what QEMU says, in the words of its version.
func TestCPUs(t *testing.T) {
	const refused = `{"error": {"class": "GenericError", "desc": "not now"}}`
	for name, c := range map[string]struct {
		fast, slow string
		want       []int
		says       string
	}{
		"QEMU 7.2": {`{"return": [{"thread-id": 9, "target": "i386", "cpu-index": 0}, {"cpu-index": 2}]}`, "", []int{0, 2}, ""},
		"2.11":     {"", `{"return": [{"CPU": 0, "current": true}, {"CPU": 1}]}`, []int{0, 1}, ""},
		"neither":  {"", "", nil, "query-cpus: The command has not been found"},
		"refuses":  {refused, `{"return": [{"CPU": 0}]}`, nil, "query-cpus-fast: not now"},
		"no CPUs":  {`{"return": []}`, "", nil, "no vCPUs"},
		"nameless": {`{"return": [{"cpu-index": 0}, {"qom-path": "/x"}]}`, "", nil, "no number"},
		"negative": {`{"return": [{"cpu-index": -1}]}`, "", nil, "no number"},
		"strange":  {`{"return": [{"cpu-index": "0"}]}`, "", nil, "query-cpus-fast"},
	} {
		answers := map[string]string{"qmp_capabilities": `{"return": {}}`}
		if c.fast != "" {
			answers["query-cpus-fast"] = c.fast
		}
		if c.slow != "" {
			answers["query-cpus"] = c.slow
		}
		e := Open(starts{socket: monitor(t, answers)}, guest.Info{ID: 7, Kind: guest.HVM})
		got, err := e.CPUs(t.Context())
		switch {
		case c.says == "" && (err != nil || !slices.Equal(got, c.want)):
			t.Errorf("%s: %v, %v, want %v", name, got, err, c.want)
		case c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), "domain 7")):
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
}
