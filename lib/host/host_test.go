package host_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rs/zerolog"

	"xenferry/lib/guest"
	"xenferry/lib/host"
	"xenferry/lib/host/hosttest"
	"xenferry/lib/sim"
	"xenferry/lib/sim/machine"
	"xenferry/lib/sim/simtest"
)

func TestSim(t *testing.T) {
	for _, c := range []struct {
		name  string
		minor uint32
		log   machine.LogMode
		scrub bool
	}{
		{"4.14 software", 14, machine.LogSoftware, true},
		{"4.17 auto", 17, machine.LogAuto, false},
		{"4.20 auto", 20, machine.LogAuto, true},
		{"4.22 software", 22, machine.LogSoftware, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			hosttest.Run(t, func(t *testing.T) host.Host {
				var o sim.Options
				o.Release, o.Log, o.Scrub, o.Seed = guest.Release{Major: 4, Minor: c.minor}, c.log, c.scrub, uint64(c.minor)
				h, err := host.Open(t.Context(), "sim:"+simtest.New(t, o).Path(), zerolog.Nop())
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { h.Close() })
				return h
			})
		})
	}
}

func TestOpen(t *testing.T) {
	for _, spec := range []string{"kvm", "sim", "sim:" + filepath.Join(t.TempDir(), "nobody"), "xen:1"} {
		t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
		if _, err := host.Open(t.Context(), spec, zerolog.Nop()); err == nil || !strings.Contains(err.Error(), strings.TrimSuffix(spec, ":")) {
			t.Errorf("open %q: %v", spec, err)
		}
	}
	if _, err := host.Open(t.Context(), "xen", zerolog.Nop()); !errors.Is(err, host.ErrNoXen) {
		t.Errorf("open xen: %v", err)
	}
	t.Setenv(host.Env, "sim:"+simtest.New(t, sim.Options{}).Path())
	h, err := host.Open(t.Context(), "", zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	if _, err := os.Stat("/proc/xen"); err != nil && h.Release().Major != 4 {
		t.Errorf("release %v", h.Release())
	}
}
