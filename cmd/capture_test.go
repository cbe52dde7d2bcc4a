package cmd_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"xenferry/lib/testkit"
)

// TestCaptures takes each stream that stock Xen wrote through our programs and back: the verifier accepts it, xc-restore
// loads it into a simulated host of its own release and of newer ones, xc-save writes it again, once more on a second hop,
// and no page and no state differs from what stock Xen had written.
func TestCaptures(t *testing.T) {
	for _, tt := range []struct {
		file, kind, vcpus, memory string
		hops                      []string // releases
	}{
		{testkit.Captures[0], "pvh", "2", "113M", []string{"4.14", "4.17", "4.20"}},
		{testkit.Captures[1], "hvm", "1", "161M", []string{"4.17", "4.20"}},
		{testkit.Captures[2], "pv64", "2", "113M", []string{"4.17", "4.20"}},
		{testkit.Captures[3], "pvh", "2", "113M", []string{"4.17", "4.20"}},
	} {
		t.Run(tt.file, func(t *testing.T) {
			dir := t.TempDir()
			whole, first := filepath.Join(dir, "whole"), filepath.Join(dir, "first")
			shell(t, `zstd -dcq "$1" >"$2"`, testkit.Capture(t, tt.file), whole)
			run(t, "verify-v2", "--allow-trailing", "-q", "-i", whole)
			shell(t, `xl-stream unwrap <"$1" >"$2"`, whole, first)
			if err := os.Remove(whole); err != nil {
				t.Fatal(err)
			}
			last := first
			for _, release := range tt.hops {
				h := newHost(t, "--memory", "256M", "--release", release)
				again := filepath.Join(dir, release)
				shell(t, `xc-restore --host "$1" --paused --kind "$2" --vcpus "$3" --memory "$4" --name g <"$5"`,
					h.spec, tt.kind, tt.vcpus, tt.memory, last)
				run(t, "xc-sim", "suspend", "--host", h.spec, "g")
				shell(t, `xc-save --host "$1" --strict-stream g >"$2"`, h.spec, again)
				run(t, "verify-v2", "-q", "-i", again)
				run(t, "verify-v2", "--compare", first, again)
				reference(t, again)
				last = again
			}
		})
	}
}

// shell runs a bash command, whose arguments are $1 and so on.
func shell(t *testing.T, command string, args ...string) {
	t.Helper()
	run(t, append([]string{"bash", "-o", "pipefail", "-ec", command, "bash"}, args...)...)
}

// reference has Debian's verify-stream-v2 look at a stream that we wrote.
func reference(t *testing.T, image string) {
	t.Helper()
	root, err := filepath.Abs("../.tools/xen-utils/usr/lib/xen-4.17")
	if err != nil {
		t.Fatal(err)
	}
	tool := filepath.Join(root, "bin", "verify-stream-v2")
	if _, err := os.Stat(tool); err != nil {
		if os.Getenv("XENFERRY_CI") != "" {
			t.Fatal(err)
		}
		t.Logf("not held against the reference verifier, which scripts/test set-up unpacks: %v", err)
		return
	}
	c := exec.Command("python3", tool, "-i", image)
	c.Env = append(os.Environ(), "PYTHONPATH="+filepath.Join(root, "lib", "python"))
	if out, err := c.CombinedOutput(); err != nil {
		t.Errorf("the reference verifier refuses what we wrote: %v\n%s", err, strings.TrimSpace(string(out)))
	}
}
