package testkit

import (
	"os"
	"path/filepath"
	"testing"
)

// Capture is the path of one of the streams that stock Xen wrote, zstd-compressed. They are not in the repository: the
// folder is $XENFERRY_DATA, else shared/data beside the repository. Where it is absent the test is
// skipped, or fails in CI.
func Capture(t testing.TB, name string) string {
	t.Helper()
	dir := os.Getenv("XENFERRY_DATA")
	if dir == "" {
		dir = filepath.Join(root(t), "..", "shared", "data")
	}
	file := filepath.Join(dir, name)
	if _, err := os.Stat(file); err != nil {
		if os.Getenv("XENFERRY_CI") != "" {
			t.Fatalf("streams of stock Xen are looked for in $XENFERRY_DATA: %v", err)
		}
		t.Skipf("%v: streams of stock Xen are looked for in $XENFERRY_DATA", err)
	}
	return file
}

// root is the folder of go.mod, at or above the test's own.
func root(t testing.TB) string {
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		if filepath.Dir(dir) == dir {
			t.Fatal("no go.mod above the test")
		}
		dir = filepath.Dir(dir)
	}
}

// Captures are the names of the streams.
var Captures = []string{
	"xen-4.14.6-pvh-2vcpu-save.xlsave.zst",
	"xen-4.17.5-hvm-qemu-1vcpu-save.xlsave.zst",
	"xen-4.17.5-pv64-2vcpu-live.xlmigrate.zst",
	"xen-4.17.5-pvh-2vcpu-live.xlmigrate.zst",
}
