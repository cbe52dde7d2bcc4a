package cmd_test

import (
	"bytes"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"xenferry/lib/handover"
)

// lostGo is a target that never gets GO, as the link ends behind the image.
const lostGo = "loses GO"

// TestAck plays the target of xc-save --ack: once it has GO only its word counts, whoever is impatient here.
func TestAck(t *testing.T) {
	for _, row := range []struct {
		name   string
		signal syscall.Signal // after GO
		gone   bool           // the domain is destroyed by somebody else meanwhile
		answer string
		status int
		says   string
		left   string // what is left of the domain here
	}{
		{"runs", 0, false, string(handover.Running), 0, "destroyed; it runs on the target", "gone"},
		{"runs, and SIGTERM came before it said so", syscall.SIGTERM, false, string(handover.Running), 0, "destroyed; it runs on the target", "gone"},
		{"runs, and the old copy cannot be destroyed", 0, true, string(handover.Running), 1, "it runs on the target, and must not here", "gone"},
		{"fails", 0, false, string(handover.Failed), 1, "runs on", "runs"},
		{"goes away", 0, false, "", 1, "once it is sure that no copy runs", "suspended"},
		{lostGo, 0, false, string(handover.Failed), 1, "runs on", "runs"},
		{lostGo + ", nor says that", 0, false, "", 1, "once it is sure that no copy runs", "suspended"},
	} {
		t.Run(row.name, func(t *testing.T) {
			h := newHost(t, "--memory", "64M")
			id := h.create(t, "--name", "g", "--kind", "hvm", "--memory", "8M", "--workload", "uniform:2000")
			stream, w := pipe(t)
			ackR, ack := pipe(t)
			p := startWith(t, nil, w, []*os.File{ackR}, "xc-save", "--host", h.spec, "--ack", "3", "g")
			closeAll(w, ackR)
			defer closeAll(stream)
			if strings.HasPrefix(row.name, lostGo) {
				if status := startWith(t, stream, nil, nil, "verify-v2", "-q", "--allow-trailing").wait(); status != 0 {
					t.Fatalf("verify-v2: exit status %d\n%s", status, p.stderr.String())
				}
				closeAll(stream)
			}
			if err := handover.Send(ack, handover.Ready); err != nil {
				t.Fatal(err)
			}
			var last []byte
			for b := make([]byte, 1<<16); !strings.HasPrefix(row.name, lostGo) && !bytes.HasSuffix(last, []byte(handover.Go+"\n")); {
				n, err := stream.Read(b)
				if err != nil {
					t.Fatalf("%v\n%s", err, p.stderr.String())
				}
				last = append(last[max(0, len(last)-8):], b[:n]...)
			}
			if row.signal != 0 {
				_ = p.cmd.Process.Signal(row.signal)
				time.Sleep(300 * time.Millisecond) // it may take note
			}
			if row.gone {
				if err := h.Destroy(t.Context(), id); err != nil {
					t.Fatal(err)
				}
			}
			if row.answer != "" {
				_, _ = io.WriteString(ack, row.answer+"\n")
			}
			closeAll(ack)
			status, left := p.wait(), "gone"
			if d := h.domain(t, "g"); d != nil && d.Suspended() {
				left = "suspended"
			} else if d != nil {
				left = "runs"
			}
			if said := p.stderr.String(); status != row.status || left != row.left || !strings.Contains(said, row.says) {
				t.Errorf("exit status %d, want %d; the domain here %s, want %s\n%s; want %s", status, row.status, left, row.left, said, row.says)
			}
		})
	}
}
