package cmd_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"xenferry/lib/guest"
	"xenferry/lib/sim"
	"xenferry/lib/testkit"
)

// patience is how long anything here may take that is not stuck. No test measures time.
const patience = 2 * time.Minute

// TestMain builds the commands once, statically as they are shipped, or with the race detector if XENFERRY_RACE is set.
func TestMain(m *testing.M) {
	if to := os.Getenv(relayTo); to != "" {
		if err := relay(to); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	testkit.Interruptible()
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "xenferry")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer func() { _ = os.RemoveAll(dir) }()
		args := []string{"build", "-o", dir + "/", "./..."}
		env := append(os.Environ(), "CGO_ENABLED=0")
		if os.Getenv("XENFERRY_RACE") != "" {
			args, env = []string{"build", "-race", "-o", dir + "/", "./..."}, os.Environ()
			_ = os.Setenv("GORACE", "atexit_sleep_ms=0") // else each process takes a second to end
		}
		build := exec.Command("go", args...)
		build.Env, build.Stderr = env, os.Stderr
		if err := build.Run(); err != nil {
			return 1
		}
		_ = os.Setenv("PATH", dir+":"+os.Getenv("PATH"))
		_ = os.Setenv("XENFERRY_JOURNAL", filepath.Join(dir, "journal"))
		return m.Run()
	}())
}

// full reports whether the numbers of the issues are asked for.
func full() bool { return os.Getenv("XENFERRY_FULL") != "" }

// count is how often a test repeats itself: usually, with the race detector, or with the issues' numbers.
func count(usual, race, all int) int {
	switch {
	case full():
		return all
	case os.Getenv("XENFERRY_RACE") != "":
		return race
	case testing.Short():
		return max(1, usual/10)
	}
	return usual
}

// simHost is a simulated host in a process of its own.
type simHost struct {
	*sim.Client
	spec string // for --host
}

// newHost starts a host that lives as long as the test.
func newHost(t *testing.T, args ...string) *simHost {
	t.Helper()
	dir, err := os.MkdirTemp("", "sim") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket := filepath.Join(dir, "s")
	p := start(t, append([]string{"xc-sim", "serve", "--socket", socket}, args...)...)
	t.Cleanup(func() {
		_ = p.cmd.Process.Signal(os.Interrupt)
		if status := p.wait(); status != 0 {
			t.Errorf("the simulated host ended with %d\n%s", status, p.stderr.String())
		}
	})
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for {
		c, err := sim.Dial(ctx, socket)
		if err == nil {
			t.Cleanup(func() { _ = c.Close() })
			return &simHost{c, "sim:" + socket}
		}
		if p.over() || ctx.Err() != nil {
			t.Fatalf("the simulated host did not start: %v\n%s", err, p.stderr.String())
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// domain is a domain as the host tells it; nil if it is not there.
func (h *simHost) domain(t *testing.T, name string) *guest.Info {
	t.Helper()
	all, err := h.Domains(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range all {
		if d.Name == name {
			return &d
		}
	}
	return nil
}

// locked is a buffer that a process writes while a test reads.
type locked struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *locked) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// process is a command that runs beside the test.
type process struct {
	cmd    *exec.Cmd
	stderr locked
	done   chan struct{}
	err    error
}

// start runs a command with nothing but stderr; files are its descriptors 0, 1, and 3 and above.
func start(t *testing.T, words ...string) *process {
	t.Helper()
	return startWith(t, nil, nil, nil, words...)
}

func startWith(t *testing.T, stdin io.Reader, stdout io.Writer, files []*os.File, words ...string) *process {
	t.Helper()
	p := &process{cmd: exec.Command(words[0], words[1:]...), done: make(chan struct{})}
	p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr, p.cmd.ExtraFiles = stdin, stdout, &p.stderr, files
	// A guardian keeps stderr open after its worker; it must not keep a test that waits for the worker.
	p.cmd.WaitDelay = patience
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	t.Cleanup(func() {
		if !p.over() {
			_ = p.cmd.Process.Kill()
			p.wait()
		}
	})
	return p
}

func (p *process) over() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// wait returns the exit status, negative for a signal's end.
func (p *process) wait() int {
	select {
	case <-p.done:
	case <-time.After(patience):
		_ = p.cmd.Process.Kill()
		<-p.done
		return -99
	}
	return p.cmd.ProcessState.ExitCode()
}

// run runs a command to its end, which must be success, and returns its standard output.
func run(t *testing.T, words ...string) string {
	t.Helper()
	out, errs, status := try(t, words...)
	if status != 0 {
		t.Fatalf("%s: exit status %d\n%s%s", strings.Join(words, " "), status, out, errs)
	}
	return out
}

func try(t *testing.T, words ...string) (stdout, stderr string, status int) {
	t.Helper()
	var out locked
	p := startWith(t, nil, &out, nil, words...)
	status = p.wait()
	return out.String(), p.stderr.String(), status
}

// create makes a guest and returns its number.
func (h *simHost) create(t *testing.T, args ...string) guest.DomID {
	t.Helper()
	out := run(t, append([]string{"xc-sim", "create", "--host", h.spec}, args...)...)
	id, err := strconv.ParseUint(strings.TrimSpace(out), 10, 16)
	if err != nil {
		t.Fatalf("xc-sim create printed %q", out)
	}
	return guest.DomID(id)
}

// check has a guest prove its memory.
func (h *simHost) check(t *testing.T, args ...string) error {
	t.Helper()
	out, errs, status := try(t, append([]string{"xc-sim", "check", "--host", h.spec}, args...)...)
	if status != 0 {
		return fmt.Errorf("check: exit status %d\n%s%s", status, out, errs)
	}
	return nil
}

// pipe is an os.Pipe whose ends the test must close itself once they are given away.
func pipe(t *testing.T) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	return r, w
}

func closeAll(files ...*os.File) {
	for _, f := range files {
		_ = f.Close()
	}
}
