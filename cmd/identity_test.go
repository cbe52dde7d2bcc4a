package cmd_test

import (
	"fmt"
	"path/filepath"
	"strconv"
	"testing"

	"pgregory.net/rapid"
)

// TestIdentity saves guests of random layouts, takes the image through two hosts that never let it run, and finds no
// difference between the first image and the last.
func TestIdentity(t *testing.T) {
	a, b, c := newHost(t, "--memory", "128M"), newHost(t, "--memory", "128M", "--scrub"), newHost(t, "--memory", "128M", "--release", "4.20")
	left := count(15, 5, 100)
	rapid.Check(t, func(rt *rapid.T) {
		if left--; left < 0 {
			return // rapid has no number of its own for one test
		}
		create := []string{
			"--name", "g",
			"--kind", rapid.SampledFrom([]string{"pv64", "pv32", "hvm", "pvh"}).Draw(rt, "kind"),
			"--vcpus", strconv.Itoa(rapid.IntRange(1, 6).Draw(rt, "vcpus")),
			"--memory", strconv.Itoa(4*rapid.IntRange(750, 6000).Draw(rt, "pages")) + "K",
			"--workload", rapid.SampledFrom([]string{"uniform", "page-table", "balloon"}).Draw(rt, "workload"),
			"--fill", fmt.Sprintf("zero=0.%d,text=0.%d", rapid.IntRange(0, 5).Draw(rt, "zero"), rapid.IntRange(0, 5).Draw(rt, "text")),
			"--seed", strconv.FormatUint(rapid.Uint64().Draw(rt, "seed"), 10),
		}
		if create[3][:2] == "pv" && create[3] != "pvh" {
			create = append(create, "--p2m", rapid.SampledFrom([]string{"tree", "linear"}).Draw(rt, "p2m"))
		}
		a.create(t, create...)
		dir := t.TempDir()
		images := []string{filepath.Join(dir, "first"), filepath.Join(dir, "second"), filepath.Join(dir, "third")}
		shell(t, `xc-save --host "$1" --leave destroyed g >"$2"`, a.spec, images[0])
		for i, h := range []*simHost{b, c} {
			shell(t, `xc-restore --host "$1" --paused <"$2"; xc-sim suspend --host "$1" g; xc-save --host "$1" --leave destroyed g >"$3"`,
				h.spec, images[i], images[i+1])
			run(t, "verify-v2", "--compare", images[0], images[i+1])
		}
	})
}
