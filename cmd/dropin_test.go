package cmd_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"

	"xenferry/lib/direct"
	"xenferry/lib/guest"
	"xenferry/lib/helper"
)

// libxl plays the toolstack above one of our programs: it answers what comes, and writes it down.
type libxl struct {
	h      *simHost
	domain guest.DomID
	n      helper.Numbering
	answer map[helper.Kind]func() int32 // instead of success
	// The event channels of a domain that is restored.
	storePort, consolePort uint32
	cmd                    *exec.Cmd

	seen    []string // messages but for log and progress
	logs    []string
	shown   []string // what people are used to see: notices, rounds, lines in libxc's name
	left    uint64   // pages of the round that is shown
	results []uint64 // of restore_results
	result  []uint64 // of complete
}

// serve starts a program by a command line of libxl, with stream as its descriptor 3, and talks to it until it ends.
func (l *libxl) serve(t *testing.T, program string, stream *os.File, line string) int {
	t.Helper()
	repliesR, repliesW := pipe(t)
	messagesR, messagesW := pipe(t)
	c := exec.Command(program, strings.Fields(line)...)
	l.cmd = c
	c.Env = append(os.Environ(), "XENFERRY_HOST="+l.h.spec)
	var stderr locked
	c.Stdin, c.Stdout, c.Stderr, c.ExtraFiles = repliesR, messagesW, &stderr, []*os.File{stream}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	closeAll(repliesR, messagesW)
	defer closeAll(repliesW, messagesR)
	for {
		m, err := helper.ReadMessage(messagesR, l.n)
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatalf("%v\n%s", err, stderr.String())
		}
		l.take(m)
		if m.Kind.WantsReply() {
			if err := helper.Reply(repliesW, l.reply(t, m.Kind)); err != nil && !errors.Is(err, syscall.EPIPE) { // it may have been killed
				t.Fatal(err)
			}
		}
	}
	_ = c.Wait()
	if s := stderr.String(); s != "" {
		l.logs = append(l.logs, "stderr: "+s)
	}
	return c.ProcessState.ExitCode()
}

func (l *libxl) take(m *helper.Message) {
	switch m.Kind {
	case helper.Log:
		l.logs = append(l.logs, m.Texts[1])
		if m.Texts[0] == "xc" && m.Numbers[0] == uint64(helper.LevelInfo) {
			l.shown = append(l.shown, m.Texts[1])
		}
		return
	case helper.Progress:
		l.progress(m.Texts[0]+": "+m.Texts[1], m.Numbers[0], m.Numbers[1])
		return
	case helper.RestoreResults:
		l.results = m.Numbers
	case helper.Complete:
		l.result = m.Numbers
	}
	name := m.Kind.String()
	if m.Kind == helper.SwitchQEMULogDirty {
		name = fmt.Sprint(name, m.Numbers[1])
	}
	l.seen = append(l.seen, name)
}

func (l *libxl) reply(t *testing.T, k helper.Kind) int32 {
	if f := l.answer[k]; f != nil {
		return f()
	}
	if k != helper.Suspend {
		return 0
	}
	if err := l.h.Suspend(t.Context(), l.domain); err != nil {
		t.Error(err)
		return 0
	}
	return 1
}

// progress writes down a notice, and a round once: it must begin at no page and end at all.
func (l *libxl) progress(what string, done, total uint64) {
	switch {
	case done == 0:
		if l.left > 0 {
			l.shown = append(l.shown, fmt.Sprintf("%d pages left", l.left))
		}
		l.shown = append(l.shown, what)
	case l.shown[len(l.shown)-1] != what || total-done >= l.left:
		l.shown = append(l.shown, fmt.Sprintf("%s: %d/%d", what, done, total))
	}
	l.left = total - done
}

// forms is a command line of each generation, to be completed with the domain's number.
var forms = []struct {
	name          string
	n             helper.Numbering
	save, restore string
}{
	{"4.14", helper.Numbering414, "--save-domain 3 0 %d 1 136 0", "--restore-domain 3 -1 %d 5 0 6 0 768 0"},
	{"4.10", helper.Numbering47, "--save-domain 3 0 %d 5 1 136 0", "--restore-domain 3 -1 %d 5 0 6 0 1 1 256 0"},
	{"4.7", helper.Numbering47, "--save-domain 3 0 %d 0 0 5 1 136 0", "--restore-domain 3 -1 %d 5 0 6 0 1 1 0 256 0"},
	{"4.6", helper.Numbering46, "--save-domain 3 %d 0 0 5 1 72", "--restore-domain 3 %d 5 0 6 0 1 1 0 32 0"},
	{"SUSE", helper.Numbering414.SUSE(), "--save-domain 3 0 %d 1 280 0", "--restore-domain 3 -1 %d 5 0 6 0 1536 0"},
}

// TestDropIn: under a toolstack of each generation, either program by either word, what is asked comes in the order that
// libxl wants, and the guest arrives.
func TestDropIn(t *testing.T) {
	for i, form := range forms {
		for _, kind := range []string{"pv64", "hvm"} {
			t.Run(form.name+" "+kind, func(t *testing.T) {
				a, b := newHost(t, "--memory", "64M"), newHost(t, "--memory", "64M")
				id := a.create(t, "--name", "g", "--kind", kind, "--memory", "8M", "--workload", "uniform:5000")
				programs := []string{"xc-save", "xc-restore"}
				if i%2 == 1 {
					slices.Reverse(programs)
				}
				image, err := os.Create(filepath.Join(t.TempDir(), "image"))
				if err != nil {
					t.Fatal(err)
				}
				defer closeAll(image)
				from := &libxl{h: a, domain: id, n: form.n}
				if status := from.serve(t, programs[0], image, fmt.Sprintf(form.save, id)); status != 0 || from.result[0] != 0 {
					t.Fatalf("save: status %d, %v\n%q", status, from.result, from.logs)
				}
				want := []string{"suspend", "complete"}
				if kind == "hvm" {
					want = []string{"switch_qemu_logdirty1", "suspend", "switch_qemu_logdirty0", "complete"}
				}
				if !slices.Equal(from.seen, want) {
					t.Errorf("save asked %v, want %v", from.seen, want)
				}
				if d := a.domain(t, "g"); d.LogDirty || !d.Suspended() {
					t.Errorf("the source is %+v", d)
				}
				run(t, "verify-v2", "-q", "-i", image.Name())
				reference(t, image.Name())
				restoreUnder(t, b, a.domain(t, "g"), form.n, programs[1], image, form.restore)
			})
		}
	}
}

// restoreUnder makes a domain as libxl would, and has it loaded.
func restoreUnder(t *testing.T, h *simHost, like *guest.Info, n helper.Numbering, program string, image *os.File, line string) *libxl {
	t.Helper()
	spec := direct.SpecOf(*like)
	spec.UUID = uuid.New()
	id, err := h.Create(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := image.Seek(0, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	info, err := h.Info(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	line = strings.NewReplacer(" 5 0 6 0", fmt.Sprintf(" %d 0 %d 0", info.StoreEvtchn, info.ConsoleEvtchn)).Replace(fmt.Sprintf(line, id))
	to := &libxl{h: h, domain: id, n: n, storePort: info.StoreEvtchn, consolePort: info.ConsoleEvtchn}
	if status := to.serve(t, program, image, line); status != 0 || to.result[0] != 0 {
		t.Fatalf("restore: status %d, %v\n%q", status, to.result, to.logs)
	}
	want := []string{"restore_results", "complete"}
	if strings.Contains(line, " 768 ") || strings.Contains(line, " 1536 ") {
		want = append([]string{"static_data_done"}, want...)
	}
	if !slices.Equal(to.seen, want) || to.results[0] == 0 || to.results[1] == 0 {
		t.Errorf("restore asked %v with %v, want %v", to.seen, to.results, want)
	}
	if err := h.Unpause(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if err := h.check(t, "--any-cpu", "g"); err != nil {
		t.Error(err)
	}
	return to
}

// TestDropInFailures: whatever fails is told by complete with status 0, the logs are off, and the guest is left to libxl.
func TestDropInFailures(t *testing.T) {
	for _, tt := range []struct {
		name   string
		stream string
		answer map[helper.Kind]func() int32
		want   []string
		says   string
	}{
		{
			"full disk", "/dev/full", nil,
			[]string{"switch_qemu_logdirty1", "switch_qemu_logdirty0", "complete"}, "no space left on device",
		},
		{
			"suspend refused", os.DevNull, map[helper.Kind]func() int32{helper.Suspend: func() int32 { return 0 }},
			[]string{"switch_qemu_logdirty1", "suspend", "switch_qemu_logdirty0", "complete"}, "could not suspend",
		},
		{
			"suspend pretended", os.DevNull, map[helper.Kind]func() int32{helper.Suspend: func() int32 { return 1 }},
			[]string{"switch_qemu_logdirty1", "suspend", "switch_qemu_logdirty0", "complete"}, "and it is not",
		},
		{
			"emulator refuses", os.DevNull, map[helper.Kind]func() int32{helper.SwitchQEMULogDirty: func() int32 { return -1 }},
			[]string{"switch_qemu_logdirty1", "switch_qemu_logdirty0", "complete"}, "emulator's log",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := newHost(t, "--memory", "64M")
			id := h.create(t, "--name", "g", "--kind", "hvm", "--memory", "8M", "--workload", "uniform:5000")
			stream, err := os.OpenFile(tt.stream, os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer closeAll(stream)
			l := &libxl{h: h, domain: id, n: helper.Numbering414, answer: tt.answer}
			status := l.serve(t, "xc-save", stream, fmt.Sprintf("--save-domain 3 0 %d 1 136 0", id))
			if status != 0 || int32(l.result[0]) != -1 || !slices.Equal(l.seen, tt.want) || !strings.Contains(strings.Join(l.logs, "\n"), tt.says) {
				t.Errorf("status %d, result %v, asked %v\n%q", status, l.result, l.seen, l.logs)
			}
			if d := h.domain(t, "g"); d.LogDirty || d.Shutdown {
				t.Errorf("the guest is %+v", d)
			}
			if err := h.check(t, "g"); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestDropInTermBeforeAnswer: a SIGTERM that comes while libxl switches the emulator's log on leaves that off.
func TestDropInTermBeforeAnswer(t *testing.T) {
	h := newHost(t, "--memory", "64M")
	id := h.create(t, "--name", "g", "--kind", "hvm", "--memory", "8M")
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer closeAll(null)
	l := &libxl{h: h, domain: id, n: helper.Numbering414}
	asked := false
	l.answer = map[helper.Kind]func() int32{helper.SwitchQEMULogDirty: func() int32 {
		if !asked {
			_ = l.cmd.Process.Signal(syscall.SIGTERM)
			time.Sleep(300 * time.Millisecond) // so that it is taken note of before the answer
		}
		asked = true
		return 0
	}}
	status := l.serve(t, "xc-save", null, fmt.Sprintf("--save-domain 3 0 %d 1 136 0", id))
	want := []string{"switch_qemu_logdirty1", "switch_qemu_logdirty0", "complete"}
	if status != 0 || !slices.Equal(l.seen, want) || int32(l.result[0]) != -1 || l.result[1] != uint64(syscall.EINTR) {
		t.Errorf("status %d, asked %v, want %v; complete %v\n%q", status, l.seen, want, l.result, l.logs)
	}
}

// TestDropInKilled: SIGTERM ends a save in order, kill -9 leaves the log to the guardian; the guest runs on in both.
func TestDropInKilled(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		h := newHost(t, "--memory", "64M")
		id := h.create(t, "--name", "g", "--kind", "pv64", "--memory", "8M", "--workload", "uniform:5000")
		repliesR, repliesW := pipe(t)
		messagesR, messagesW := pipe(t)
		streamR, streamW := pipe(t) // that nobody reads
		c := exec.Command("xc-save", "--save-domain", "3", "0", fmt.Sprint(id), "1", "136", "0")
		c.Env = append(os.Environ(), "XENFERRY_HOST="+h.spec)
		var stderr locked
		c.Stdin, c.Stdout, c.Stderr, c.ExtraFiles = repliesR, messagesW, &stderr, []*os.File{streamW}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		closeAll(repliesR, messagesW, streamW)
		if _, err := streamR.Read(make([]byte, 1)); err != nil { // it is under way
			t.Fatal(err)
		}
		for d := h.domain(t, "g"); !d.LogDirty; d = h.domain(t, "g") {
		}
		_ = c.Process.Signal(sig)
		for sig == syscall.SIGTERM {
			m, err := helper.ReadMessage(messagesR, helper.Numbering414)
			if err != nil {
				t.Fatalf("no complete came: %v", err)
			}
			if m.Kind == helper.Complete {
				if int32(m.Numbers[0]) != -1 || m.Numbers[1] != uint64(syscall.EINTR) {
					t.Errorf("complete %v", m.Numbers)
				}
				_ = helper.Reply(repliesW, 0)
				break
			}
		}
		_ = c.Wait() // ends with the guardian, which has stderr
		closeAll(repliesW, messagesR, streamR)
		if status := c.ProcessState.ExitCode(); sig == syscall.SIGTERM && status != 0 {
			t.Errorf("exit status %d", status)
		}
		if d := h.domain(t, "g"); d.LogDirty || d.Shutdown {
			t.Errorf("%v: the guest is %+v\n%s", sig, d, stderr.String())
		}
		if err := h.check(t, "g"); err != nil {
			t.Error(err)
		}
	}
}

// TestDropInGone: each line that a helper leaves behind when libxl is gone has its name, and the guest runs on.
func TestDropInGone(t *testing.T) {
	h := newHost(t, "--memory", "64M")
	id := h.create(t, "--name", "g", "--kind", "pv64", "--memory", "8M", "--workload", "uniform:5000")
	repliesR, repliesW := pipe(t)
	messagesR, messagesW := pipe(t)
	streamR, streamW := pipe(t) // that is read no further
	t.Setenv("XENFERRY_HOST", h.spec)
	p := startWith(t, repliesR, messagesW, []*os.File{streamW}, "xc-save", "--save-domain", "3", "0", fmt.Sprint(id), "1", "136", "0")
	closeAll(repliesR, messagesW, streamW)
	if _, err := streamR.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	closeAll(repliesW, messagesR, streamR)
	status := p.wait()
	said := strings.Split(strings.TrimSuffix(p.stderr.String(), "\n"), "\n")
	if status != 254 || slices.ContainsFunc(said, func(line string) bool { return !strings.HasPrefix(line, "xc-save: ") }) {
		t.Errorf("exit status %d, says %q", status, said)
	}
	if d := h.domain(t, "g"); d.LogDirty || d.Shutdown {
		t.Errorf("the guest is %+v", d)
	}
}
