package xen

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestRelaxTimers: all threads have it, the runtime's own among them.
func TestRelaxTimers(t *testing.T) {
	relaxTimers()
	tasks, err := filepath.Glob("/proc/self/task/*")
	if err != nil || len(tasks) < 2 {
		t.Fatalf("threads: %v, %v", tasks, err)
	}
	for _, task := range tasks {
		got, err := os.ReadFile("/proc/" + filepath.Base(task) + "/timerslack_ns")
		if errors.Is(err, fs.ErrPermission) && os.Getuid() != 0 {
			t.Skip("only root may do that to other threads than the caller")
		}
		if err != nil {
			t.Errorf("thread %s: %v", task, err)
		}
		if strings.TrimSpace(string(got)) != timerSlack {
			t.Errorf("thread %s has a slack of %s ns", task, got)
		}
	}
}
