package cmd_test

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// steppingXLStream is an xl-stream that stops at each step of a hand-over, for a stage; see lib/migrate, at.
var steppingXLStream = sync.OnceValues(func() (string, error) {
	dir, err := exec.LookPath("xl-stream") // beside the others, where TestMain removes it
	if err != nil {
		return "", err
	}
	name := filepath.Join(filepath.Dir(dir), "stepping", "xl-stream")
	words := []string{"build", "-tags", "steps", "-o", name}
	if os.Getenv("XENFERRY_RACE") != "" {
		words = append(words, "-race")
	}
	build := exec.Command("go", append(words, "./xl-stream")...)
	if os.Getenv("XENFERRY_RACE") == "" {
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
	}
	out, err := build.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return name, nil
})

// stage is where stepping processes stop, each at each of its steps, until the test lets it go on.
type stage struct {
	socket string
	mu     sync.Mutex
	times  map[string]int
	on     func(step string, pid int)
}

// newStage begins a stage. on is called with each step that a process has come to, in the form "role: step, Nth time", and
// with its number, one call at a time; the process goes on, if it still can, when on returns.
func newStage(t *testing.T, on func(step string, pid int)) *stage {
	t.Helper()
	dir, err := os.MkdirTemp("", "stage")
	if err != nil {
		t.Fatal(err)
	}
	s := &stage{socket: filepath.Join(dir, "s"), times: map[string]int{}, on: on}
	l, err := net.Listen("unix", s.socket)
	if err != nil {
		t.Fatal(err)
	}
	var calls sync.WaitGroup
	calls.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			calls.Go(func() { s.arrive(c) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		calls.Wait()
		_ = os.RemoveAll(dir)
	})
	return s
}

func (s *stage) arrive(c net.Conn) {
	defer func() { _ = c.Close() }()
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		return // killed while it came
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	number, step, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
	pid, _ := strconv.Atoi(number)
	s.times[step]++
	s.on(fmt.Sprintf("%s, %d", step, s.times[step]), pid)
}

// words is the command line of a stepping xl-stream in a role; on no stage it stops nowhere.
func (s *stage) words(t *testing.T, role string, words ...string) []string {
	t.Helper()
	if s == nil {
		return append([]string{"xl-stream"}, words...)
	}
	program, err := steppingXLStream()
	if err != nil {
		t.Fatal(err)
	}
	return append([]string{"env", "XENFERRY_STEPS=" + s.socket, "XENFERRY_ROLE=" + role, program}, words...)
}
