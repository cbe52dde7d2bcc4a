package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"xenferry/lib/transport"
)

// measure is what one run took.
type measure struct {
	seconds float64
	cpu     float64   // of all its processes, user and system
	each    []float64 // of each of them
	rss     map[string]float64
}

// program is one process of a run.
type program struct {
	args  []string
	env   []string
	in    *os.File
	out   *os.File
	extra []*os.File
}

// together runs programs that are joined by pipes, from the start of the first to the end of the last. go_, if there
// is one, is called when all have started, and the time is taken from there.
func together(goAhead func(), programs ...program) (m measure, err error) {
	m.rss = map[string]float64{}
	var cmds []*exec.Cmd
	var errs said
	began := time.Now()
	for _, p := range programs {
		c := exec.Command(p.args[0], p.args[1:]...)
		c.Env = append(os.Environ(), p.env...)
		c.Stderr, c.ExtraFiles = &errs, p.extra
		if p.in != nil {
			c.Stdin = p.in
		}
		if p.out != nil {
			c.Stdout = p.out
		}
		if err := c.Start(); err != nil {
			return m, err
		}
		for _, f := range []*os.File{p.in, p.out} {
			if f != nil {
				_ = f.Close()
			}
		}
		cmds = append(cmds, c)
	}
	if goAhead != nil {
		goAhead()
		began = time.Now()
	}
	stop := make(chan struct{})
	var watch sync.WaitGroup
	peaks := make([]float64, len(cmds))
	for i, c := range cmds {
		watch.Add(1)
		go func() { defer watch.Done(); peaks[i] = peak(c.Process.Pid, stop) }()
	}
	for _, c := range cmds {
		if e := c.Wait(); e != nil {
			err = errors.Join(err, fmt.Errorf("%v: %w", c.Args, e))
		}
		m.each = append(m.each, (c.ProcessState.UserTime() + c.ProcessState.SystemTime()).Seconds())
		m.cpu += m.each[len(m.each)-1]
	}
	m.seconds = time.Since(began).Seconds()
	if err != nil {
		err = fmt.Errorf("%w\n%s", err, errs.b.Bytes())
	}
	close(stop)
	watch.Wait()
	for i, p := range programs {
		m.rss[p.args[0]] = max(m.rss[p.args[0]], peaks[i])
	}
	return m, err
}

// said is what several programs say.
type said struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *said) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

var resident = regexp.MustCompile(`(?m)^Rss(Anon|File):\s+(\d+) kB`)

// peak is the most memory a process had for itself until stop, in MiB: shared memory, which is the guest's, not counted.
func peak(pid int, stop <-chan struct{}) (most float64) {
	file := fmt.Sprintf("/proc/%d/status", pid)
	for {
		b, err := os.ReadFile(file)
		if err != nil {
			return most
		}
		sum := 0.0
		for _, m := range resident.FindAllSubmatch(b, -1) {
			kib, _ := strconv.ParseFloat(string(m[2]), 64)
			sum += kib / 1024
		}
		most = max(most, sum)
		select {
		case <-stop:
			return most
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// bigPipe is a pipe of the size that the programs make theirs.
func bigPipe() (r, w *os.File, err error) {
	if r, w, err = os.Pipe(); err != nil {
		return nil, nil, err
	}
	raw, err := w.SyscallConn()
	if err != nil {
		return nil, nil, err
	}
	var set error
	err = raw.Control(func(fd uintptr) { _, set = unix.FcntlInt(fd, unix.F_SETPIPE_SZ, transport.PipeSize) })
	if err == nil {
		err = set
	}
	return r, w, err
}

// output runs a program to its end and returns what it printed.
func output(args ...string) (string, error) {
	c := exec.Command(args[0], args[1:]...)
	var errs bytes.Buffer
	c.Stderr = &errs
	out, err := c.Output()
	if err != nil {
		return "", fmt.Errorf("%v: %w\n%s", args, err, errs.Bytes())
	}
	return string(out), nil
}
