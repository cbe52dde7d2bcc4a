package cmd_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"xenferry/lib/legacy"
	"xenferry/lib/legacy/legacytest"
)

// TestLegacyRestored: a guest whose image is as Xen 4.5 would have saved it runs on behind convert-legacy with every page
// and register that it had.
func TestLegacyRestored(t *testing.T) {
	a, b := newHost(t, "--memory", "160M"), newHost(t, "--memory", "160M")
	for _, kind := range []string{"pv64", "pv32", "hvm"} {
		for _, width := range []legacy.Width{legacy.Width32, legacy.Width64} {
			for _, format := range []string{"libxc", "libxl"} {
				t.Run(fmt.Sprintf("%s, width %v, %s", kind, width, format), func(t *testing.T) {
					restoreLegacy(t, a, b, kind, width, format)
				})
			}
		}
	}
}

func restoreLegacy(t *testing.T, a, b *simHost, kind string, width legacy.Width, format string) {
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	a.create(t, "--name", "g", "--kind", kind, "--memory", "24M", "--vcpus", "3", "--online", "2", "--workload", "zipf:20000", "--witness", file("witness"))
	shell(t, `xc-save --host $1 --strict-stream --domain-out $3 g >$2 && xc-save --host $1 --destroy g`, a.spec, file("stream"), file("domain"))
	stream, err := os.ReadFile(file("stream"))
	if err != nil {
		t.Fatal(err)
	}
	qemu := []byte("QEVM and so on")
	image, err := legacytest.FromStream(bytes.NewReader(stream), width, qemu)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file("image"), image, 0o600); err != nil {
		t.Fatal(err)
	}
	shell(t, `convert-legacy -i 0 -o 1 -f $1 <$2 | tee $3 | verify-v2 -q --allow-trailing`, format, file("image"), file("converted"))
	libxc := file("converted")
	if format == "libxl" {
		libxc = file("libxc")
		shell(t, `xl-stream unwrap --emulator-out $3 <$1 >$2`, file("converted"), libxc, file("emulator"))
	}
	shell(t, `xc-restore --paused --host $1 --domain $2 <$3`, b.spec, file("domain"), libxc)
	shell(t, `xc-sim suspend --host $1 g && xc-save --host $1 --strict-stream g >$2 && xc-sim destroy --host $1 g`, b.spec, file("again"))
	compareLegacy(t, file("again"), libxc)
	shell(t, `xc-restore --host $1 --domain $2 <$3`, b.spec, file("domain"), libxc)
	checkLegacy(t, b, file("witness"))
	shell(t, `xc-sim destroy --host $1 g`, b.spec)
	if format == "libxl" && kind == "hvm" {
		if got, err := os.ReadFile(file("emulator")); err != nil || !bytes.Equal(got, qemu) {
			t.Errorf("the emulator's state is %q, %v", got, err)
		}
	}
}

// Where a legacy image has no place for it, a difference is none: CPU policies, parameters of later releases, MSRs of PV
// vCPUs. It always has 128 octets of extended state, of which half are in use.
var (
	notCompared = regexp.MustCompile(`^(X86_CPUID_POLICY|X86_MSR_POLICY|X86_PV_VCPU_EXTENDED of vCPU \d+ +64 octets; 128$)`)
	notProved   = regexp.MustCompile(`^ *(CPU policy: |HVM parameter 37: |vCPU \d+: MSR|and \d+ more)`)
)

// compareLegacy compares what was restored and saved again with what was restored.
func compareLegacy(t *testing.T, again, converted string) {
	t.Helper()
	out, errs, _ := try(t, "verify-v2", "--compare", "--allow-trailing", again, converted)
	first, differences, _ := strings.Cut(out, "\n")
	if !strings.HasPrefix(first, "differ ") && !strings.HasPrefix(first, "equal ") {
		t.Fatalf("no comparison:\n%s%s", out, errs)
	}
	for line := range strings.Lines(differences) {
		if !notCompared.MatchString(strings.TrimSuffix(line, "\n")) {
			t.Errorf("differs: %s", line)
		}
	}
}

// checkLegacy has the guest prove all that a legacy image holds.
func checkLegacy(t *testing.T, h *simHost, witness string) {
	t.Helper()
	out, errs, _ := try(t, "xc-sim", "check", "--host", h.spec, "--witness", witness, "g")
	_, complaints, ok := strings.Cut(out, " pages compared with the witness\n")
	complaints, _, _ = strings.Cut(complaints, "proof FAILED")
	if !ok {
		t.Errorf("no proof:\n%s%s", out, errs)
	}
	for line := range strings.Lines(complaints) {
		if !notProved.MatchString(line) {
			t.Errorf("proof: %s", line)
		}
	}
}
