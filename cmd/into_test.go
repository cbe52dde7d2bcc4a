package cmd_test

import (
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"xenferry/lib/direct"
)

// TestInto loads a guest into a domain that somebody else made: it runs there, or is left to its maker half-built.
func TestInto(t *testing.T) {
	for _, kind := range []string{"pv64", "pvh"} {
		a, b := newHost(t, "--memory", "64M"), newHost(t, "--memory", "64M")
		a.create(t, "--name", "g", "--kind", kind, "--memory", "8M", "--workload", "uniform:5000")
		image := filepath.Join(t.TempDir(), "image")
		shell(t, `xc-save --host "$1" --strict-stream g >"$2"`, a.spec, image)
		spec := direct.SpecOf(*a.domain(t, "g"))
		id, err := b.Create(t.Context(), spec)
		if err != nil {
			t.Fatal(err)
		}
		word := strconv.Itoa(int(id))
		_, errs, status := try(t, "bash", "-c", `head -c 1000000 "$1" | xc-restore --host "$2" --domid "$3"`, "bash", image, b.spec, word)
		if d := b.domain(t, "g"); status != 3 || !strings.Contains(errs, "is half-built and paused") || d == nil || !d.Paused {
			t.Errorf("a part of an image: status %d, domain %+v\n%s", status, d, errs)
		}
		if err := b.Destroy(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		if id, err = b.Create(t.Context(), spec); err != nil {
			t.Fatal(err)
		}
		info, err := b.Info(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		_, errs, status = try(t, "bash", "-c", `xc-restore --host "$1" --domid "$2" --store-evtchn "$3" --console-evtchn "$4" <"$5"`, "bash",
			b.spec, strconv.Itoa(int(id)), strconv.Itoa(int(info.StoreEvtchn)), strconv.Itoa(int(info.ConsoleEvtchn)), image)
		if status != 0 || !strings.Contains(errs, "the ring of xenstore is in frame 0x") {
			t.Errorf("into a new domain: status %d\n%s", status, errs)
		}
		if err := b.check(t, "g"); err != nil {
			t.Error(err)
		}
		// It has run, so that loading another image would destroy it.
		_, errs, status = try(t, "bash", "-c", `xc-restore --host "$1" --domid "$2" <"$3"`, "bash", b.spec, strconv.Itoa(int(id)), image)
		if status != 1 || !strings.Contains(errs, "is not new and paused") || b.check(t, "g") != nil {
			t.Errorf("into a domain that runs: status %d\n%s", status, errs)
		}
	}
}
