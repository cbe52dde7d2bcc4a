package xen

import (
	"bytes"
	"errors"
	"io/fs"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"

	"xenferry/lib/guest"
)

// releaseABI is what a C compiler printed for one release's public headers; -1 is a field it does not have.
type releaseABI struct {
	release                  string
	domctl, sysctl           uint32
	info, create             int // sizeof
	emulation                int // in getdomaininfo
	maxVCPUs, maxEvtchn      int // in createdomain
	maxGrants, maxMaptrack   int
	grantOpts, altp2m        int
	vmtrace, cpupool         int
	createEmulation, miscOff int
}

var abis = []releaseABI{
	{"4.11", 0x10, 0x11, 104, 28, 96, -1, -1, -1, -1, -1, -1, -1, -1, 24, -1},
	{"4.12", 0x11, 0x12, 104, 44, 96, 24, 28, 32, 36, -1, -1, -1, -1, 40, -1},
	{"4.13", 0x12, 0x12, 104, 48, 96, 28, 32, 36, 40, -1, -1, -1, -1, 44, -1},
	{"4.14", 0x12, 0x13, 104, 48, 96, 28, 32, 36, 40, -1, -1, -1, -1, 44, -1},
	{"4.15", 0x13, 0x13, 104, 56, 96, 28, 32, 36, 40, -1, -1, 44, -1, 48, 52},
	{"4.16", 0x14, 0x14, 112, 60, 104, 28, 32, 36, 40, 44, -1, 48, -1, 52, 56},
	{"4.17", 0x15, 0x15, 112, 64, 104, 28, 32, 36, 40, 44, -1, 48, 52, 56, 60},
	{"4.18", 0x16, 0x15, 112, 64, 104, 28, 32, 36, 40, 44, -1, 48, 52, 56, 60},
	{"4.19", 0x17, 0x15, 112, 68, 104, 28, 32, 36, 40, 44, 48, 52, 56, 60, 64},
	{"4.20", 0x17, 0x15, 112, 68, 104, 28, 32, 36, 40, 44, 48, 52, 56, 60, 64},
	{"4.21", 0x17, 0x16, 112, 68, 104, 28, 32, 36, 40, 44, 48, 52, 56, 60, 64},
	{"4.22", 0x18, 0x16, 112, 68, 104, 28, 32, 36, 40, 44, 48, 52, 56, 60, 64},
}

func TestLayouts(t *testing.T) {
	for _, a := range abis {
		i := slices.IndexFunc(layouts, func(l layout) bool { return l.domctl == a.domctl })
		if i < 0 {
			t.Errorf("%s: domctl version %#x is not known", a.release, a.domctl)
			continue
		}
		l := layouts[i]
		if !slices.Contains(l.sysctl, a.sysctl) {
			t.Errorf("%s: sysctl version %#x is not tried", a.release, a.sysctl)
		}
		c := l.create
		for _, f := range []struct {
			name      string
			got, want int
		}{
			{"sizeof getdomaininfo", l.infoSize, a.info}, {"getdomaininfo.emulation_flags", l.infoEmulation, a.emulation},
			{"sizeof createdomain", c.size, a.create}, {"max_vcpus", c.maxVCPUs, a.maxVCPUs}, {"max_evtchn_port", c.maxEvtchn, a.maxEvtchn},
			{"max_grant_frames", c.maxGrants, a.maxGrants}, {"max_maptrack_frames", c.maxMaptrack, a.maxMaptrack},
			{"grant_opts", c.grantOpts, a.grantOpts}, {"altp2m", c.altp2m, a.altp2m}, {"vmtrace_size", c.vmtrace, a.vmtrace},
			{"cpupool_id", c.cpupool, a.cpupool}, {"emulation_flags", c.emulation, a.createEmulation}, {"misc_flags", c.misc, a.miscOff},
		} {
			if f.got != max(f.want, 0) {
				t.Errorf("%s: %s is at %d, want %d", a.release, f.name, f.got, f.want)
			}
		}
	}
	if n := len(layouts); n != 9 {
		t.Errorf("%d layouts, of which the table of releases holds 9", n)
	}
}

// TestSpeaks: each release's versions are found by trying, and what none of them answers to is refused by its name.
func TestSpeaks(t *testing.T) {
	for _, a := range abis {
		l, s, err := tried(guest.Release{}, a.domctl, a.sysctl, unix.EACCES)
		if err != nil || l.domctl != a.domctl || s != a.sysctl {
			t.Errorf("Xen %s: domctl %#x, sysctl %#x, error %v", a.release, l.domctl, s, err)
		}
	}
	for _, tt := range []struct {
		name           string
		release        guest.Release
		domctl, sysctl uint32
		refusal        unix.Errno
		want           error
		says           []string
	}{
		{"newer", guest.Release{Major: 4, Minor: 23}, 0x19, 0x17, unix.EACCES, ErrUnknown, []string{"Xen 4.23 ", "domctl", "0x10 (Xen 4.11) to 0x18 (Xen 4.22)"}},
		{"older", guest.Release{Major: 4, Minor: 10}, 0xF, 0x10, unix.EACCES, ErrUnknown, []string{"Xen 4.10 ", "domctl"}},
		{"sysctl alone", guest.Release{Major: 4, Minor: 22}, 0x18, 0x17, unix.EACCES, ErrUnknown, []string{"Xen 4.22 ", "domctl interface 0x18", "sysctl", "[0x16]"}},
		{"not allowed", guest.Release{Major: 4, Minor: 17}, 0x19, 0, unix.EPERM, unix.EPERM, nil},
	} {
		_, _, err := tried(tt.release, tt.domctl, tt.sysctl, tt.refusal)
		if !errors.Is(err, tt.want) || errors.Is(err, ErrUnknown) != (tt.want == ErrUnknown) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
		for _, s := range tt.says {
			if err == nil || !strings.Contains(err.Error(), s) {
				t.Errorf("%s: %v does not say %q", tt.name, err, s)
			}
		}
	}
}

// tried is what speaks finds where a Xen answers to one version of each interface, and refuses the others.
func tried(r guest.Release, domctl, sysctl uint32, refusal unix.Errno) (found layout, version uint32, err error) {
	answer := func(ok bool) error {
		if ok {
			return nil
		}
		return fail("a call", noDomain, refusal)
	}
	err = speaks(r, func(l layout) error {
		found = l
		return answer(l.domctl == domctl)
	}, func(v uint32) error {
		version = v
		return answer(v == sysctl)
	})
	return found, version, err
}

func TestEncodeCreate(t *testing.T) {
	spec := guest.Spec{UUID: uuid.MustParse("00112233-4455-6677-8899-aabbccddeeff"), Kind: guest.PVH, VCPUs: 3}
	for _, l := range layouts {
		u := make([]byte, domctlSize-domctlHeader)
		l.create.encode(u, spec, createHVM|createHAP, 2)
		if !bytes.Equal(u[4:20], spec.UUID[:]) || le.Uint32(u[20:]) != 3 || le.Uint32(u[l.create.emulation:]) != emulationPVH {
			t.Errorf("Xen %s: createdomain is % x", l.releases, u[:l.create.size])
		}
		if off := l.create.maxVCPUs; off != 0 && le.Uint32(u[off:]) != 3 {
			t.Errorf("Xen %s: %d vCPUs", l.releases, le.Uint32(u[off:]))
		}
		if slices.ContainsFunc(u[l.create.size:], func(b byte) bool { return b != 0 }) {
			t.Errorf("Xen %s: octets behind createdomain's end: % x", l.releases, u[l.create.size:])
		}
	}
}

func TestDecodeInfo(t *testing.T) {
	for _, c := range []struct {
		name      string
		flags     uint32
		emulation uint32
		want      guest.Info
	}{
		{"PV", infoPaused | 0xFFFF0000, 0, guest.Info{Kind: guest.PV64, Paused: true}},
		{"PVH", infoHVM | 0xFFFF0000, 1, guest.Info{Kind: guest.PVH}},
		{"HVM", infoHVM | 0xFFFF0000, 0x1FF, guest.Info{Kind: guest.HVM}},
		{"suspended", infoHVM | infoShutdown | 2<<16, 0x3FF, guest.Info{Kind: guest.HVM, Shutdown: true, Reason: guest.ShutdownSuspend}},
		{"crashed and dying", infoDying | infoShutdown | 3<<16, 0, guest.Info{Kind: guest.PV64, Dying: true, Shutdown: true, Reason: guest.ShutdownCrash}},
	} {
		for _, l := range layouts {
			u := make([]byte, l.infoSize)
			le.PutUint16(u, 5)
			le.PutUint32(u[4:], c.flags)
			le.PutUint64(u[8:], 10)
			le.PutUint64(u[16:], 20)
			le.PutUint64(u[48:], 0x1234)
			le.PutUint32(u[68:], 1)
			u[76] = 0xAB
			le.PutUint32(u[l.infoEmulation:], c.emulation)
			want := c.want
			want.ID, want.TotPages, want.MaxPages, want.SharedInfo, want.MaxVCPU, want.UUID[0] = 5, 10, 20, 0x1234, 1, 0xAB
			if got := l.info(u); got != want {
				t.Errorf("%s, Xen %s: %+v, want %+v", c.name, l.releases, got, want)
			}
		}
	}
}

func TestCommandNames(t *testing.T) {
	for c, name := range commandNames {
		if name == "" || !strings.HasPrefix(c.String(), "XEN_DOMCTL_") {
			t.Errorf("command %d has no name", uint32(c))
		}
	}
}

func TestError(t *testing.T) {
	err := detail(fail(getVCPUContext.String(), 7, unix.ESRCH), "vCPU %d", 1)
	if want := "XEN_DOMCTL_getvcpucontext of domain 7: vCPU 1: no such process (there is no such domain)"; err.Error() != want {
		t.Errorf("%v; want %s", err, want)
	}
	if !errors.Is(err, fs.ErrNotExist) || !errors.Is(err, unix.ESRCH) {
		t.Errorf("%v matches neither a missing domain nor its errno", err)
	}
	if err := fail("XENVER_version", noDomain, unix.EPERM); errors.Is(err, fs.ErrNotExist) || strings.Contains(err.Error(), "domain 3") {
		t.Errorf("%v: it concerns no domain", err)
	}
	if err := fail("any", 1, nil); err != nil {
		t.Error(err)
	}
}

func TestSeed(t *testing.T) {
	table := make([]byte, guest.PageSize)
	seed(table, 0x1000, guest.InvalidGFN)
	if want := []byte{1, 0, 0, 0, 0, 0x10, 0, 0}; !bytes.Equal(table[:8], want) || !bytes.Equal(table[8:16], make([]byte, 8)) {
		t.Errorf("entries are % x", table[:16])
	}
	seed(table, guest.InvalidGFN, 0xFEFFC)
	if want := []byte{1, 0, 0, 0, 0xFC, 0xEF, 0x0F, 0}; !bytes.Equal(table[8:16], want) {
		t.Errorf("entries are % x", table[:16])
	}
}

func TestArena(t *testing.T) {
	dev := &device{buffers: -1}
	p := &arenas{dev: dev}
	defer p.close()
	a, err := p.take(100)
	if err != nil {
		t.Skip(err) // such as a limit on locked memory
	}
	b := a.get(5)
	c := a.get(8)
	if address(c)%8 != 0 || address(c) < address(b)+5 {
		t.Errorf("octets at %#x and %#x", address(b), address(c))
	}
	copy(b, "hello")
	a.free()
	again, err := p.take(8)
	if err != nil {
		t.Fatal(err)
	}
	if again != a || !bytes.Equal(again.get(5), make([]byte, 5)) {
		t.Error("a free arena is not taken again, or not zeroed")
	}
	big, err := p.take(arenaSize + 1)
	if err != nil {
		t.Fatal(err)
	}
	if len(big.mem) != 2*arenaSize {
		t.Errorf("an arena of %d octets for %d", len(big.mem), arenaSize+1)
	}
	big.free()
	again.free()
}
