package testkit

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// ReferenceScript is the path of one of Xen's Python scripts, and what PYTHONPATH must be for it: Debian's package does not
// put its modules where Python looks. "scripts/test set-up" unpacks the package into .tools; an installed one will do.
// Without any the test is skipped, or fails where XENFERRY_CI is set.
func ReferenceScript(t testing.TB, name string) (script, pythonPath string) {
	t.Helper()
	for _, prefix := range []string{filepath.Join(root(t), ".tools", "xen-utils"), "/"} {
		found, _ := filepath.Glob(filepath.Join(prefix, "usr/lib/xen-*/bin", name))
		if len(found) == 0 {
			continue
		}
		if _, err := exec.LookPath("python3"); err != nil {
			break
		}
		return found[0], filepath.Join(filepath.Dir(filepath.Dir(found[0])), "lib", "python")
	}
	const missing = "Xen's %s and python3 are not here: scripts/test set-up provides them"
	if os.Getenv("XENFERRY_CI") != "" {
		t.Fatalf(missing, name)
	}
	t.Skipf(missing, name)
	return "", ""
}

// Command is the path of a command that a test needs, from a package of Debian. Without it the test is skipped, or fails where
// XENFERRY_CI is set.
func Command(t testing.TB, name, pkg string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err == nil {
		return path
	}
	if os.Getenv("XENFERRY_CI") != "" {
		t.Fatalf("%s is missing: install the package %s", name, pkg)
	}
	t.Skipf("%s is missing: install the package %s", name, pkg)
	return ""
}
