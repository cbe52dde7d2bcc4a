package cmd_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"xenferry/lib/guest"
)

// plan is one migration, drawn from a seed.
type plan struct {
	from, to string // releases
	create   []string
	save     []string
	kind     guest.Kind
	log      string
	ahead    time.Duration // that the guest runs before
	form     string        // how the two programs are joined
}

func pick[T any](r *rand.Rand, from ...T) T { return from[r.IntN(len(from))] }

// draw makes a plan of everything that may vary.
func draw(r *rand.Rand) plan {
	releases := []string{"4.14", "4.17", "4.20"}
	from := r.IntN(len(releases))
	p := plan{
		from: releases[from], to: releases[from+r.IntN(len(releases)-from)], kind: pick(r, guest.PV64, guest.PV32, guest.HVM, guest.PVH),
		log: pick(r, "kernel", "software"), ahead: time.Duration(r.IntN(150)) * time.Millisecond,
		form: pick(r, "pipe", "pipe", "migrate", "migrate", "file"),
	}
	shape := pick(r, "idle", "uniform", "zipf", "sweep", "page-table", "balloon")
	p.create = []string{
		"--name", "g", "--kind", p.kind.String(), "--vcpus", strconv.Itoa(1 + r.IntN(4)), "--memory", fmt.Sprintf("%dM", 4+r.IntN(60)),
		"--workload", fmt.Sprintf("%s:%d", shape, pick(r, 500, 5000, 20000, 60000)), "--seed", strconv.FormatUint(r.Uint64()>>1, 10),
		"--fill", fmt.Sprintf("zero=%.1f,text=%.1f", 0.4*r.Float64(), 0.4*r.Float64()),
	}
	if p.kind.PV() {
		p.create = append(p.create, "--p2m", pick(r, "tree", "linear"))
	}
	if p.form != "file" {
		p.save = append(p.save, "--live", "--max-iterations", strconv.Itoa(1+r.IntN(7)), "--min-dirty", strconv.Itoa(r.IntN(400)))
		if r.IntN(5) == 0 {
			p.save = append(p.save, "--debug-verify")
		}
	}
	if r.IntN(4) == 0 {
		p.save = append(p.save, "--stream-version", "2")
	}
	return p
}

// TestMigrations moves random guests between random hosts in random ways, and has each prove on the target that nothing
// was lost on the way, against itself and against a witness that saw the source's pages at the suspend.
func TestMigrations(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("XENFERRY_SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	n := count(200, 25, 200)
	t.Logf("XENFERRY_SEED=%d repeats these %d live migrations, and the saves to a file among them", seed, n)
	for i := 0; n > 0; i++ {
		p := draw(rand.New(rand.NewPCG(seed, uint64(i))))
		if p.form != "file" {
			n--
		}
		t.Run(fmt.Sprintf("%d-%v-%s", i, p.kind, p.form), func(t *testing.T) {
			t.Parallel()
			defer func() {
				if t.Failed() {
					t.Logf("seed %d, migration %d: %+v", seed, i, p)
				}
			}()
			p.run(t)
		})
	}
}

func (p plan) run(t *testing.T) {
	a := newHost(t, "--memory", "256M", "--release", p.from, "--dirty-log", p.log)
	b := newHost(t, "--memory", "256M", "--release", p.to)
	witness := filepath.Join(t.TempDir(), "witness")
	a.create(t, append(p.create, "--witness", witness)...)
	time.Sleep(p.ahead)
	p.move(t, a, b)

	d := b.domain(t, "g")
	if d == nil || !d.Paused {
		t.Fatalf("on the target the domain is %+v", d)
	}
	check := []string{"g"}
	if slices.Contains(p.save, "--stream-version") {
		check = append(check, "--any-cpu")
	}
	if err := b.check(t, append(check, "--witness", witness)...); err != nil {
		t.Fatalf("before it ran: %v", err)
	}
	if err := b.Unpause(t.Context(), d.ID); err != nil {
		t.Fatal(err)
	}
	time.Sleep(20 * time.Millisecond) // so that it writes where it is now; any time will do
	if err := b.check(t, check...); err != nil {
		t.Fatalf("after it ran: %v", err)
	}
}

// move takes the domain g from a to b and leaves it paused there.
func (p plan) move(t *testing.T, a, b *simHost) {
	save := append([]string{"xc-save", "--host", a.spec}, p.save...)
	restore := []string{"xc-restore", "--host", b.spec, "--paused"}
	switch p.form {
	case "migrate":
		run(t, slices.Concat([]string{"../scripts/migrate", "--from", a.spec, "--to", b.spec, "--paused", "g", "--"}, p.save)...)
		if d := a.domain(t, "g"); d != nil {
			t.Errorf("the source is still there: %+v", d)
		}
		return
	case "pipe":
		r, w := pipe(t)
		s := startWith(t, nil, w, nil, append(save, "g")...)
		o := startWith(t, r, nil, nil, restore...)
		closeAll(r, w)
		if x, y := s.wait(), o.wait(); x != 0 || y != 0 {
			t.Fatalf("xc-save %d, xc-restore %d\n%s%s", x, y, s.stderr.String(), o.stderr.String())
		}
		if !strings.Contains(s.stderr.String(), "suspended; image complete") {
			t.Errorf("xc-save's last words: %s", s.stderr.String())
		}
	case "file":
		p.throughFile(t, save, restore)
	}
	if d := a.domain(t, "g"); d == nil || !d.Suspended() || d.LogDirty {
		t.Errorf("the source is %+v, not suspended with its log off", d)
	}
}

// throughFile saves to a file without anything of ours in it, which the verifier accepts, and restores by --domain.
func (p plan) throughFile(t *testing.T, save, restore []string) {
	dir := t.TempDir()
	image, domain := filepath.Join(dir, "image"), filepath.Join(dir, "domain.json")
	f, err := os.Create(image)
	if err != nil {
		t.Fatal(err)
	}
	s := startWith(t, nil, f, nil, append(save, "--strict-stream", "--domain-out", domain, "g")...)
	_ = f.Close()
	if s.wait() != 0 {
		t.Fatalf("xc-save: %s", s.stderr.String())
	}
	run(t, "verify-v2", "-q", "-i", image)
	reference(t, image)
	if f, err = os.Open(image); err != nil {
		t.Fatal(err)
	}
	o := startWith(t, f, nil, nil, append(restore, "--domain", domain)...)
	_ = f.Close()
	if o.wait() != 0 {
		t.Fatalf("xc-restore: %s", o.stderr.String())
	}
}
