package cmd_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

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

// TestXLKeeps: a source that is interrupted when the target holds the domain says that it keeps it, and knows that the copy is gone
// when it ends; if the target's answer is lost, the target is asked, or who sent is told.
func TestXLKeeps(t *testing.T) {
	const held, keeps = "domain received and held, ready to unpause\x00", "domain stays with me, destroy your copy\x00"
	stepping, err := steppingXLStream()
	if err != nil {
		t.Fatal(err)
	}
	a, b := newHost(t, "--memory", "64M"), newHost(t, "--memory", "64M")
	cut := fmt.Sprintf("{ dd bs=1 count=%d status=none; kill -9 $$; }", len(xlBanner+held))
	for name, row := range map[string]struct {
		ends string // of the way back
		asks bool
		said string
	}{
		"answered": {"cat", false, "interrupted by SIGTERM; domain %d runs on\n"},
		"lost":     {cut, false, "; the target may hold a copy, paused, until it recovers\n"},
		"asked":    {cut, true, ""},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			ours, theirs := filepath.Join(dir, "ours"), filepath.Join(dir, "theirs")
			id := a.create(t, "--name", "g", "--kind", "hvm", "--memory", "8M", "--workload", "uniform:3000")
			s := newStage(t, func(step string, pid int) {
				if strings.HasPrefix(step, "source: got domain received and held") {
					_ = syscall.Kill(pid, syscall.SIGTERM)
					time.Sleep(time.Second) // it takes note
				}
			})
			words := []string{"env", "XENFERRY_STEPS=" + s.socket, "XENFERRY_ROLE=source",
				filepath.Join(filepath.Dir(stepping), "xl-stream"), "send", "--host", a.spec, "--journal", ours}
			if row.asks {
				words = append(words, "--peer", fmt.Sprintf("xl-stream recover --host %s --journal %s", b.spec, theirs))
			}
			_, said, status := try(t, append(words, "g", fmt.Sprintf("exec:tee %s/forth | xl-stream receive --host %s --journal %s | tee %s/back | %s",
				dir, b.spec, theirs, dir, row.ends))...)
			if row.said = strings.ReplaceAll(row.said, "%d", fmt.Sprint(id)); status != 1 || !strings.Contains(said, row.said) {
				t.Errorf("exit status %d\n%s\nwant %q", status, said, row.said)
			}
			ends := map[string]string{"forth": keeps}
			if row.ends != cut {
				ends["back"] = xlBanner + held + xlGo
			} else if !row.asks { // it is told, but when, nobody hears
				until(t, "the target is done", func() bool {
					all, err := migrate.List(theirs)
					return err == nil && len(all) == 0
				})
			}
			for name, want := range ends {
				if text, err := os.ReadFile(filepath.Join(dir, name)); err != nil || !strings.HasSuffix(string(text), want) {
					t.Errorf("%s: %v, not %q", name, err, want)
				}
			}
			if names := b.all(t); len(names) > 0 {
				t.Errorf("on the target is %v\n%s", names, said)
			}
			if err := a.check(t, "g"); err != nil {
				t.Error(err)
			}
			for _, folder := range []string{ours, theirs} {
				if all, err := migrate.List(folder); err != nil || len(all) > 0 {
					t.Errorf("%s: %+v, %v", folder, all, err)
				}
			}
			run(t, "xc-sim", "destroy", "--host", a.spec, "g")
		})
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
