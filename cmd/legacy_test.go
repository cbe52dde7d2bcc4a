package cmd_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
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

// TestLegacyCheckpoint: the last whole checkpoint of a Remus image comes out of files and pipes alike, with the memory of
// the checkpoints before and its own.
func TestLegacyCheckpoint(t *testing.T) {
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	w := &legacytest.Writer{Width: legacy.Width64}
	w.Size(4096)
	for i := range 3 {
		entries := make([]uint64, 700)
		for n := range entries {
			entries[n] = uint64(i*100 + n)
		}
		w.Batch(entries, func(_ uint64, p []byte) { p[0] = byte(1 + i) })
		w.VCPUInfo(0, 1)
		w.Chunk(legacy.ChunkEnd)
		w.MagicPFNs(1, 2, 3)
		w.Blob(legacytest.HVMContext(1, func(b []byte) { b[0] = byte(1 + i) }))
		w.QEMU(legacy.QEMULibxl, []byte{byte(1 + i)})
	}
	for cut, want := range map[int]string{0: "3", 1: "2"} {
		if err := os.WriteFile(file("image"), w.B[:len(w.B)-cut], 0o600); err != nil {
			t.Fatal(err)
		}
		shell(t, `cd $1; convert-legacy -i image -o out -f libxl --last-checkpoint --report report; cat image | convert-legacy -i 0 -o 1 -f libxl --last-checkpoint | cmp - out`, dir)
		shell(t, `cd $1; verify-v2 -q -i out; xl-stream unwrap --emulator-out emulator <out >libxc; test "$(od -An -tx1 emulator)" = " 0$2"`, dir, want)
		shell(t, `cd $1; test $(verify-v2 --json -i libxc | python3 -c 'import json, sys; print(json.load(sys.stdin)["libxc"]["pages"]["with_data"] // 700)') = $2`, dir, want)
		shell(t, `cd $1; test $(python3 -c 'import json; print(json.load(open("report"))["image"]["checkpoints"])') = $2`, dir, want)
	}
	shell(t, `cd $1; convert-legacy -i image -o first -f libxl; verify-v2 -q -i first; xl-stream unwrap --emulator-out emulator <first >libxc; test "$(od -An -tx1 emulator)" = " 01"`, dir)
}

// peakMemory runs a command and prints the most memory that it had, in KiB. What wait4 tells of a child of this test's own
// would be this test's, from before the exec.
const peakMemory = `import os, sys
pid = os.spawnvp(os.P_NOWAIT, sys.argv[1], sys.argv[1:])
os.close(0)
print(os.wait4(pid, 0)[2].ru_maxrss)`

// TestLegacyMemory: the command takes at most 64 MiB whatever it is given.
func TestLegacyMemory(t *testing.T) {
	size := int64(16 << 20)
	if full() {
		size = 1 << 30
	}
	most := 64 << 10 // KiB
	if os.Getenv("XENFERRY_RACE") != "" {
		most *= 10 // the race detector's own
	}
	start := &legacytest.Writer{Width: legacy.Width64}
	start.Size(16)
	start.Batch([]uint64{0}, func(uint64, []byte) {})
	page := &legacytest.Writer{Width: legacy.Width64}
	entries := make([]uint64, 1024)
	for i := range entries {
		entries[i] = uint64(i)
	}
	page.Batch(entries, func(uint64, []byte) {})
	region := append(le32(0xffffffee, 8+32*65536, 1, 65535), bytes.Repeat(make([]byte, 32), 65536)...)
	for name, part := range map[string][]byte{
		"batches": page.B, "toolstack data": region, "zeros": make([]byte, 4096), "ones": bytes.Repeat([]byte{255}, 4096),
	} {
		for _, args := range [][]string{{}, {"--salvage"}, {"--last-checkpoint"}} {
			cmd := exec.Command("python3", append([]string{"-c", peakMemory, "convert-legacy", "-i", "0", "-o", "/dev/null", "-w", "64", "-g", "hvm", "-f", "libxl"}, args...)...)
			var out bytes.Buffer
			cmd.Stdout = &out
			in, err := cmd.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			_, err = in.Write(start.B)
			for n := int64(0); n < size && err == nil; n += int64(len(part)) {
				_, err = in.Write(part) // the command may have seen enough
			}
			_ = in.Close()
			if err := cmd.Wait(); err != nil {
				t.Fatal(err)
			}
			rss, err := strconv.Atoi(strings.TrimSpace(out.String()))
			if err != nil || rss > most {
				t.Errorf("%s, %v: %s KiB of memory", name, args, out.String())
			}
			t.Logf("%s, %v: %d KiB of memory", name, args, rss)
		}
	}
}

func le32(numbers ...uint32) (b []byte) {
	for _, n := range numbers {
		b = binary.LittleEndian.AppendUint32(b, n)
	}
	return b
}
