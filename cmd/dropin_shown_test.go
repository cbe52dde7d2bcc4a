package cmd_test

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"xenferry/lib/direct"
	"xenferry/lib/guest"
	"xenferry/lib/helper"
)

// TestShown: xl shows of a save and a restore what it shows with the stock helper, in the order of Xen's
// tools/libs/guest/xg_sr_save.c and xg_sr_restore.c.
func TestShown(t *testing.T) {
	t.Setenv(helper.MaxIterationsEnv, "1") // so that the rounds are known
	for _, tt := range []struct {
		name, kind, is string
		n              helper.Numbering
		save, restore  string
		rounds         []string
	}{
		{
			"plain", "hvm", "x86 HVM", helper.Numbering414, "--save-domain 3 0 %d 0 136 0", "--restore-domain 3 -1 %d 5 0 6 0 768 0",
			[]string{"xc: Domain now suspended", "xc: Frames"},
		},
		{
			"live", "pv64", "x86 PV", helper.Numbering414, "--save-domain 3 0 %d 1 136 0", "--restore-domain 3 -1 %d 5 0 6 0 768 0",
			[]string{"xc: Frames iteration 0", "xc: Domain now suspended", "xc: Frames iteration 1"},
		},
		{
			"debug", "pvh", "x86 HVM", helper.Numbering414, "--save-domain 3 0 %d 3 136 0", "--restore-domain 3 -1 %d 5 0 6 0 768 0",
			[]string{"xc: Frames iteration 0", "xc: Domain now suspended", "xc: Frames iteration 1", "xc: Frames verify"},
		},
		{
			"live, 4.9", "hvm", "x86 HVM", helper.Numbering47, "--save-domain 3 0 %d 0 0 5 1 136 0", "--restore-domain 3 -1 %d 5 0 6 0 1 1 0 256 0",
			[]string{"xc: Frames iteration 0 of 1", "xc: Domain now suspended", "xc: Frames iteration 1 of 1"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a, b := newHost(t, "--memory", "64M"), newHost(t, "--memory", "64M")
			id := a.create(t, "--name", "g", "--kind", tt.kind, "--memory", "16M", "--workload", "uniform:5000")
			image := tempFile(t)
			from := &libxl{h: a, domain: id, n: tt.n}
			if status := from.serve(t, "xc-save", image, fmt.Sprintf(tt.save, id)); status != 0 || from.result[0] != 0 {
				t.Fatalf("save: status %d, %v\n%q", status, from.result, from.logs)
			}
			want := []string{fmt.Sprintf("Saving domain %d, type %s", id, tt.is), "xc: Start of stream"}
			want = append(append(want, tt.rounds...), "xc: End of stream", "xc: Complete")
			if !slices.Equal(from.shown, want) {
				t.Errorf("save shows\n%q, want\n%q", from.shown, want)
			}
			to := restoreUnder(t, b, a.domain(t, "g"), tt.n, "xc-restore", image, tt.restore)
			if want := restoreShows(b, to, tt.is); !slices.Equal(to.shown, want) {
				t.Errorf("restore shows\n%q, want\n%q", to.shown, want)
			}
		})
	}
}

// restoreShows is what a restore shows, with what it shows of checkpoints.
func restoreShows(h *simHost, l *libxl, is string, checkpoints ...string) []string {
	shows := append([]string{fmt.Sprintf("Found %s domain from Xen %v", is, h.Release()), "Restoring domain"}, checkpoints...)
	return append(shows, "Restore successful", fmt.Sprintf("XenStore: mfn %#x, dom 0, evt %d", l.results[0], l.storePort),
		fmt.Sprintf("Console: mfn %#x, dom 0, evt %d", l.results[1], l.consolePort))
}

// tempFile is a file that ends with the test.
func tempFile(t *testing.T) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "image"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeAll(f) })
	return f
}

// TestShownRemus: of checkpoints, too. There is no END, so that is not told; the last words are those of whoever ends it.
func TestShownRemus(t *testing.T) {
	t.Setenv(helper.MaxIterationsEnv, "1")
	a, b := newHost(t, "--memory", "64M"), newHost(t, "--memory", "64M")
	id := a.create(t, "--name", "g", "--kind", "pvh", "--memory", "8M", "--workload", "uniform:5000")
	image, last := tempFile(t), 3
	from := &libxl{h: a, domain: id, n: helper.Numbering414, answer: map[helper.Kind]func() int32{
		helper.Postcopy: func() int32 {
			if err := a.Resume(t.Context(), id); err != nil {
				t.Error(err)
			}
			return 1
		},
		helper.Checkpoint: func() int32 {
			if _, err := image.Write(checkpointEnd); err != nil {
				t.Error(err)
			}
			last--
			return min(int32(last), 1)
		},
	}}
	if status := from.serve(t, "xc-save", image, fmt.Sprintf("--save-domain 3 0 %d 1 184 1", id)); status != 0 || from.result[0] != 0 {
		t.Fatalf("save: status %d, %v\n%q", status, from.result, from.logs)
	}
	want := []string{
		fmt.Sprintf("Saving domain %d, type x86 HVM", id), "xc: Start of stream",
		"xc: Frames iteration 0", "xc: Domain now suspended", "xc: Frames iteration 1",
		"xc: Domain now suspended", "xc: Checkpointed save", "xc: Domain now suspended", "xc: Checkpointed save",
	}
	if !slices.Equal(from.shown, want) {
		t.Errorf("save shows\n%q, want\n%q", from.shown, want)
	}
	to := restoreRemus(t, b, direct.SpecOf(*a.domain(t, "g")), image)
	taken := []string{"All records buffered", "All records processed", "All records buffered", "All records processed"}
	if want := restoreShows(b, to, "x86 HVM", taken...); !slices.Equal(to.shown, want) {
		t.Errorf("restore shows\n%q, want\n%q", to.shown, want)
	}
}

// restoreRemus has an image of checkpoints loaded, up to its end.
func restoreRemus(t *testing.T, h *simHost, spec guest.Spec, image *os.File) *libxl {
	t.Helper()
	id, err := h.Create(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := image.Seek(0, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	info, err := h.Info(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	to := &libxl{h: h, domain: id, n: helper.Numbering414, storePort: info.StoreEvtchn, consolePort: info.ConsoleEvtchn}
	to.answer = map[helper.Kind]func() int32{helper.Checkpoint: func() int32 {
		if _, err := io.ReadFull(image, make([]byte, len(checkpointEnd))); err != nil {
			t.Error(err)
		}
		return 1
	}}
	line := fmt.Sprintf("--restore-domain 3 -1 %d %d 0 %d 0 800 1", id, info.StoreEvtchn, info.ConsoleEvtchn)
	if status := to.serve(t, "xc-restore", image, line); status != 0 || to.result[0] != 0 {
		t.Fatalf("restore: status %d, %v\n%q", status, to.result, to.logs)
	}
	return to
}
