package xen

import (
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestRelaxTimers: all threads have it, the runtime's own among them. Without being root it is the caller's alone.
func TestRelaxTimers(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	relaxTimers()
	tasks, err := filepath.Glob("/proc/self/task/*")
	if err != nil || len(tasks) < 2 {
		t.Fatalf("threads: %v, %v", tasks, err)
	}
	for _, task := range tasks {
		if os.Getuid() != 0 && filepath.Base(task) != strconv.Itoa(unix.Gettid()) {
			continue
		}
		got, err := os.ReadFile("/proc/" + filepath.Base(task) + "/timerslack_ns")
		if err != nil {
			t.Errorf("thread %s: %v", task, err)
		}
		if strings.TrimSpace(string(got)) != timerSlack {
			t.Errorf("thread %s has a slack of %s ns", task, got)
		}
	}
}
