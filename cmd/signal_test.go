package cmd_test

import (
	"io"
	"syscall"
	"testing"
	"time"
)

// TestIgnoredSignals: what the caller has a command ignore, as nohup and a shell's background do, does not end it. SIGTERM does.
func TestIgnoredSignals(t *testing.T) {
	h := newHost(t, "--memory", "64M")
	h.create(t, "--name", "g", "--kind", "pvh", "--memory", "16M", "--workload", "uniform:2000")
	for _, row := range []struct {
		signals []syscall.Signal
		status  int
	}{
		{[]syscall.Signal{syscall.SIGHUP, syscall.SIGINT}, 0},
		{[]syscall.Signal{syscall.SIGTERM}, 1},
	} {
		r, w := pipe(t)
		p := startWith(t, nil, w, nil, "sh", "-c", "trap '' HUP INT TERM; exec xc-save --host "+h.spec+" --live --leave running g")
		closeAll(w)
		until(t, "its log is on", func() bool { return h.domain(t, "g").LogDirty })
		for _, s := range row.signals {
			_ = p.cmd.Process.Signal(s)
		}
		time.Sleep(300 * time.Millisecond) // it may take note
		_, _ = io.Copy(io.Discard, r)
		closeAll(r)
		if status := p.wait(); status != row.status {
			t.Errorf("%v: exit status %d, want %d\n%s", row.signals, status, row.status, p.stderr.String())
		}
	}
}
