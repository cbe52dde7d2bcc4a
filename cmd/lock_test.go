package cmd_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"xenferry/lib/helper"
)

// TestOneSaver: while somebody saves a domain nobody else saves, resumes or destroys it, in whatever way; whoever tries learns
// which process it is, and changes nothing. When that is killed, the domain is free once its guardian has done its work.
func TestOneSaver(t *testing.T) {
	for _, first := range [][]string{{"xc-save", "--live"}, {"xl-stream", "save", "--live"}} {
		t.Run(first[0], func(t *testing.T) {
			h := newHost(t)
			id := h.create(t, "--name", "g", "--kind", "pvh", "--memory", "16M", "--workload", "uniform:2000")
			r, w := pipe(t) // that nobody reads
			saver := startWith(t, nil, w, nil, append(first, "--host", h.spec, "g")...)
			closeAll(w)
			defer closeAll(r)
			for deadline := time.Now().Add(patience); !h.domain(t, "g").LogDirty; time.Sleep(5 * time.Millisecond) {
				if saver.over() || time.Now().After(deadline) {
					t.Fatalf("it does not save\n%s", saver.stderr.String())
				}
			}

			held := fmt.Sprintf("process %d is at work on domain %d", saver.cmd.Process.Pid, id)
			file := filepath.Join(t.TempDir(), "image")
			for _, second := range []string{
				"xc-save --live --host %s --fd 3 g", "xc-save --host %s --resume g", "xc-save --host %s --destroy g",
				"xl-stream save --host %s g " + file, "xl-stream send --host %s g exec:true",
			} {
				out, err := os.Create(filepath.Join(t.TempDir(), "out"))
				if err != nil {
					t.Fatal(err)
				}
				p := startWith(t, nil, nil, []*os.File{out}, strings.Fields(fmt.Sprintf(second, h.spec))...)
				if status := p.wait(); status != 1 || !strings.Contains(p.stderr.String(), held) {
					t.Errorf("%s: exit status %d, %s; want 1, %s", second, status, p.stderr.String(), held)
				}
				if fi, err := out.Stat(); err != nil || fi.Size() > 0 {
					t.Errorf("%s has written something: %v, %v", second, fi, err)
				}
				closeAll(out)
			}
			if _, err := os.Stat(file); err == nil {
				t.Error("a refused save has made a file")
			}
			underLibxl := &libxl{h: h, domain: id, n: helper.Numbering414}
			null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer closeAll(null)
			underLibxl.serve(t, "xc-save", null, fmt.Sprintf("--save-domain 3 0 %d 1 136 0", id))
			if logs := strings.Join(underLibxl.logs, "\n"); len(underLibxl.result) == 0 || int32(underLibxl.result[0]) == 0 || !strings.Contains(logs, held) {
				t.Errorf("under libxl: complete %v, %s; want %s", underLibxl.result, logs, held)
			}
			if d := h.domain(t, "g"); d == nil || !d.LogDirty || d.Shutdown {
				t.Errorf("then the domain is %+v", d)
			}

			killDead(t, saver.cmd.Process)
			_, said, status := try(t, "xl-stream", "save", "--host", h.spec, "--leave", "running", "g", file)
			if status != 0 {
				t.Fatalf("after the first was killed: exit status %d\n%s", status, said)
			}
			if err := h.check(t, "g"); err != nil {
				t.Error(err)
			}
			saver.wait()
			run(t, "xl-stream", "save", "--host", h.spec, "g", file)
			if left, _ := filepath.Glob(h.Path() + ".lock-*"); len(left) > 0 {
				t.Errorf("the domain is gone, and %v is left", left)
			}
		})
	}
}

// killDead kills a process and waits until it runs no more, which its guardian may outlive. A busy machine takes its time.
func killDead(t *testing.T, p *os.Process) {
	t.Helper()
	if err := p.Kill(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.Pid))
		if err != nil || strings.Contains(string(b), ") Z ") {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("process %d was killed and runs on", p.Pid)
		}
	}
}
