package cmd_test

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"xenferry/lib/direct"
	"xenferry/lib/helper"
)

// TestDropInCOLO: either side of COLO is refused in words, by complete, and without a question that libxl does not expect.
func TestDropInCOLO(t *testing.T) {
	h := newHost(t, "--memory", "64M")
	id := h.create(t, "--name", "g", "--kind", "hvm", "--memory", "8M")
	for _, tt := range []struct {
		program, line string
		want          []string
	}{
		{"xc-save", "--save-domain 3 4 %d 1 248 2", []string{"complete"}},
		{"xc-save", "--save-domain 3 4 %d 0 0 5 1 248 2", []string{"complete"}},
		{"xc-restore", "--restore-domain 3 4 %d 5 0 6 0 888 2", []string{"restore_results", "complete"}},
		{"xc-restore", "--restore-domain 3 4 %d 5 0 6 0 1 1 376 2", []string{"restore_results", "complete"}},
	} {
		line := fmt.Sprintf(tt.line, id)
		call, err := helper.ParseCall(strings.Fields(line))
		if err != nil {
			t.Fatal(err)
		}
		stream := tempFile(t)
		l := &libxl{h: h, domain: id, n: call.Numbering}
		status := l.serve(t, tt.program, stream, line)
		if status != 0 || !slices.Equal(l.seen, tt.want) || int32(l.result[0]) != -1 || l.result[1] != uint64(syscall.EOPNOTSUPP) ||
			!strings.Contains(strings.Join(l.logs, "\n"), "COLO is not supported") {
			t.Errorf("%s: status %d, asked %v, complete %v\n%q", line, status, l.seen, l.result, l.logs)
		}
		if n, err := stream.Seek(0, io.SeekCurrent); n != 0 || err != nil {
			t.Errorf("%s: %d octets are written (%v)", line, n, err)
		}
	}
	if d := h.domain(t, "g"); d.LogDirty || d.Shutdown || d.Paused {
		t.Errorf("the guest is %+v", d)
	}
}

// TestDropInRestoreTerm: a SIGTERM ends a restore by complete, in the middle of the stream as during an answer. The half-made
// domain stays: to destroy it is libxl's matter.
func TestDropInRestoreTerm(t *testing.T) {
	a := newHost(t, "--memory", "64M")
	id := a.create(t, "--name", "g", "--kind", "hvm", "--memory", "8M", "--workload", "uniform:5000")
	image := tempFile(t)
	from := &libxl{h: a, domain: id, n: helper.Numbering414}
	if status := from.serve(t, "xc-save", image, fmt.Sprintf("--save-domain 3 0 %d 0 136 0", id)); status != 0 || from.result[0] != 0 {
		t.Fatalf("save: status %d, %v\n%q", status, from.result, from.logs)
	}
	octets, err := os.ReadFile(image.Name())
	if err != nil {
		t.Fatal(err)
	}
	for _, midway := range []bool{true, false} {
		b := newHost(t, "--memory", "64M")
		spec := direct.SpecOf(*a.domain(t, "g"))
		copied, err := b.Create(t.Context(), spec)
		if err != nil {
			t.Fatal(err)
		}
		streamR, streamW := pipe(t) // which stays open
		answering, written := make(chan *os.Process, 1), make(chan struct{})
		go func() {
			defer close(written)
			_, _ = streamW.Write(octets[:len(octets)/2])
			if midway {
				_ = (<-answering).Signal(syscall.SIGTERM)
			}
		}()
		l := &libxl{h: b, domain: copied, n: helper.Numbering414}
		l.answer = map[helper.Kind]func() int32{helper.StaticDataDone: func() int32 {
			answering <- l.cmd.Process
			if !midway {
				_ = l.cmd.Process.Signal(syscall.SIGTERM)
				time.Sleep(300 * time.Millisecond) // so that it is taken note of before the answer
			}
			return 0
		}}
		status := l.serve(t, "xc-restore", streamR, fmt.Sprintf("--restore-domain 3 -1 %d 5 0 6 0 768 0", copied))
		want := []string{"static_data_done", "restore_results", "complete"}
		if status != 0 || !slices.Equal(l.seen, want) || int32(l.result[0]) != -1 || l.result[1] != uint64(syscall.EINTR) {
			t.Errorf("midway %v: status %d, asked %v, want %v; complete %v\n%q", midway, status, l.seen, want, l.result, l.logs)
		}
		if slices.Contains(l.shown, "Restore successful") || l.results[0] != 0 || l.results[1] != 0 {
			t.Errorf("midway %v: shows %q, results %v", midway, l.shown, l.results)
		}
		if _, err := b.Info(t.Context(), copied); err != nil {
			t.Errorf("midway %v: libxl's domain: %v", midway, err)
		}
		closeAll(streamR, streamW)
		<-written
	}
}
