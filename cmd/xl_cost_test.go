package cmd_test

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestXLWrapCost: wrap and unwrap keep no copy of a guest that passes through pipes of 1 MiB, and cost little. The number of
// the issue for the processor's time is held only when asked for, as it depends on the machine.
func TestXLWrapCost(t *testing.T) {
	if os.Getenv("XENFERRY_RACE") != "" {
		t.Skip("the race detector needs memory of its own")
	}
	memory, mib := "128M", 128.0
	if full() {
		memory, mib = "1G", 1024.0
	}
	h := newHost(t, "--memory", "1200M")
	h.create(t, "--name", "g", "--kind", "hvm", "--memory", memory)
	image := filepath.Join(t.TempDir(), "image")
	run(t, "sh", "-c", "xc-save --host "+h.spec+" g >"+image)
	for _, command := range []string{"wrap", "unwrap"} {
		seconds, rss := cost(t, image, "xl-stream", command)
		perGiB := seconds / mib * 1024 // of guest memory
		t.Logf("%s: %.3f s of CPU per GiB, %.1f MiB resident", command, perGiB, rss)
		if rss > 24 || full() && perGiB > 0.15 {
			t.Errorf("%s costs more than 24 MiB, or than 0.15 s per GiB", command)
		}
	}
}

// cost feeds a file to a filter through a pipe and reads its output through another, and returns the filter's CPU time in
// seconds and its most memory in MiB.
func cost(t *testing.T, file string, words ...string) (seconds, rss float64) {
	t.Helper()
	r1, w1 := pipe(t)
	r2, w2 := pipe(t)
	for _, f := range []*os.File{r1, r2} {
		if _, err := unix.FcntlInt(f.Fd(), unix.F_SETPIPE_SZ, 1<<20); err != nil {
			t.Skipf("no pipes of 1 MiB: %v", err)
		}
	}
	filter := startWith(t, r1, w2, nil, words...)
	closeAll(r1, w2)
	drained := make(chan error, 1)
	go func() {
		_, err := io.Copy(io.Discard, r2)
		drained <- err
	}()
	// Its peak can be asked for only while it lives, so the last octets, which are of END, wait. What wait4 tells of it
	// would be this test's own, from before the exec.
	put := func(in io.Reader) {
		if _, err := io.Copy(w1, in); err != nil {
			t.Fatal(err)
		}
	}
	image, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer closeAll(image)
	st, err := image.Stat()
	if err != nil {
		t.Fatal(err)
	}
	put(io.LimitReader(image, st.Size()-4))
	rss = peak(t, filter.cmd.Process.Pid)
	put(image)
	closeAll(w1)
	if err := <-drained; err != nil {
		t.Fatal(err)
	}
	closeAll(r2)
	if status := filter.wait(); status != 0 {
		t.Fatalf("%v: exit status %d\n%s", words, status, filter.stderr.String())
	}
	state := filter.cmd.ProcessState
	return (state.UserTime() + state.SystemTime()).Seconds(), rss
}

// peak is the most memory that a process has had resident since its exec, in MiB.
func peak(t *testing.T, pid int) float64 {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, line, _ := strings.Cut(string(b), "VmHWM:")
	var kib float64
	if _, err := fmt.Sscan(line, &kib); err != nil {
		t.Fatal(err)
	}
	return kib / 1024
}
