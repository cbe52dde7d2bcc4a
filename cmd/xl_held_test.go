package cmd_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"xenferry/lib/migrate"
	"xenferry/lib/record"
	"xenferry/lib/xlstream"
)

// TestXLHeld holds both ends of a hand-over to what they say, octet by octet: ours if the source offers to hold the domain,
// behind the configuration, where xl does not look; else xl's alone.
func TestXLHeld(t *testing.T) {
	const held, forget = "domain received and held, ready to unpause\x00", "my copy is destroyed, forget about hand-over\x00"
	a, b := newHost(t, "--memory", "64M"), newHost(t, "--memory", "64M")
	for _, c := range []struct {
		options     []string
		tail        string
		forth, back string
		journals    int // that the target keeps, as the source may ask
	}{
		{nil, "xenferry hold 1 ", xlGo + forget, xlBanner + held + xlReport + "\x00", 0},
		{[]string{"--plain"}, "", xlGo, xlBanner + xlReady + xlReport + "\x00", 1},
	} {
		dir := t.TempDir()
		journal := filepath.Join(dir, "journal")
		a.create(t, "--name", "g", "--kind", "hvm", "--memory", "8M", "--workload", "uniform:3000")
		words := append([]string{"xl-stream", "send", "--host", a.spec, "--journal", journal}, c.options...)
		run(t, append(words, "g", fmt.Sprintf("exec:tee %s/forth | xl-stream receive --host %s --journal %s | tee %s/back", dir, b.spec, journal, dir))...)
		moved(t, a, b, fmt.Sprint(c.options))
		run(t, "xc-sim", "destroy", "--host", b.spec, "g")
		said := func(name string) []byte {
			text, err := os.ReadFile(filepath.Join(dir, name))
			if err != nil {
				t.Fatal(err)
			}
			return text
		}
		if back := said("back"); string(back) != c.back {
			t.Errorf("the target said %q, want %q", back, c.back)
		}
		forth := said("forth")
		end := make([]byte, 8) // libxl's END
		if !bytes.HasSuffix(forth, append(end, c.forth...)) {
			t.Errorf("the source ended with %q, want %q", forth[len(forth)-len(c.forth)-8:], c.forth)
		}
		h, err := xlstream.ReadXLHeader(record.NewReader(bytes.NewReader(forth), record.Strict, 0, 0, nil))
		if err != nil || !strings.HasPrefix(string(h.Tail), c.tail) || len(h.Tail) > 0 != (c.tail != "") {
			t.Errorf("the source offered %q, %v", h.Tail, err)
		}
		if all, err := migrate.List(journal); err != nil || len(all) != c.journals {
			t.Errorf("journals: %+v, %v", all, err)
		}
	}
}

// TestXLSendTwice: of two who send the same domain at once, one does, and the domain arrives as if it were alone.
func TestXLSendTwice(t *testing.T) {
	a, b := newHost(t, "--memory", "128M"), newHost(t, "--memory", "128M")
	journal := t.TempDir()
	a.create(t, append(busy, "--kind", "pv64")...)
	dir := t.TempDir()
	// The first waits in the middle of its stream until the second is refused.
	fifo := filepath.Join(dir, "go")
	run(t, "mkfifo", fifo)
	first := start(t, "xl-stream", "send", "--host", a.spec, "--journal", journal, "g",
		fmt.Sprintf("exec:(head -c 5000000; touch %s/begun; read x <%s; cat) | xl-stream receive --host %s --journal %s", dir, fifo, b.spec, journal))
	run(t, "timeout", "100", "sh", "-c", fmt.Sprintf("until [ -e %s/begun ]; do sleep 0.01; done", dir))
	_, said, status := try(t, "xl-stream", "send", "--host", a.spec, "--journal", journal, "g", "exec:xl-stream receive --host "+b.spec)
	if status != 1 || !strings.Contains(said, fmt.Sprintf("process %d is at work on domain 1", first.cmd.Process.Pid)) {
		t.Errorf("exit status %d\n%s", status, said)
	}
	run(t, "sh", "-c", "echo >"+fifo)
	if first.wait() != 0 {
		t.Errorf("%s", first.stderr.String())
	}
	moved(t, a, b, first.stderr.String())
}
