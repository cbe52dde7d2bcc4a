package guestos

import (
	"context"
	"testing"
	"time"

	"pgregory.net/rapid"

	"xenferry/lib/guest"
)

// anyOptions draws a guest.
func anyOptions(t *rapid.T) Options {
	o := rapid.SampledFrom(kinds()).Draw(t, "kind")
	o.VCPUs = rapid.Uint32Range(1, 8).Draw(t, "vcpus")
	o.Online = rapid.Uint32Range(1, o.VCPUs).Draw(t, "online")
	o.Pages = MinPages + 32*uint64(o.VCPUs) + rapid.Uint64Range(0, 700).Draw(t, "pages")
	o.Workload.Shape = rapid.SampledFrom(Shapes).Draw(t, "shape")
	o.Fill.Zero = rapid.Float64Range(0, 0.5).Draw(t, "zero")
	o.Fill.Text = rapid.Float64Range(0, 0.5).Draw(t, "text")
	o.Seed = rapid.Uint64().Draw(t, "seed")
	return o
}

// TestRandomLives takes guests of any size and layout through any course of events.
func TestRandomLives(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		o := anyOptions(rt)
		k := build(rt, o)
		suspended := false
		var w *Witness
		rt.Repeat(map[string]func(*rapid.T){
			"step": func(rt *rapid.T) {
				if suspended {
					rt.Skip("suspended")
				}
				step(rt, k, rapid.IntRange(1, 100).Draw(rt, "steps"))
			},
			"suspend": func(rt *rapid.T) {
				if suspended {
					rt.Skip("suspended")
				}
				suspend(rt, k)
				w, suspended = k.Witness(), true
				passes(rt, "suspended", k.CheckAgainst(w))
			},
			"resume": func(rt *rapid.T) {
				if !suspended {
					rt.Skip("running")
				}
				k.Resumed(true)
				suspended = false
			},
			"move": func(rt *rapid.T) {
				if !suspended {
					rt.Skip("running")
				}
				restoreInPlace(k)
				found, err := Attach(k.hv)
				if err != nil {
					rt.Fatal(err)
				}
				passes(rt, "found", found.CheckAgainst(w))
				found.Resumed(false)
				k, suspended = found, false
			},
		})
		if w != nil {
			passes(rt, "in the end", k.CheckAgainst(w))
		} else {
			passes(rt, "in the end", k.Check())
		}
	})
}

// TestRunning lets the vCPUs run side by side, as fast as they can, with stops in between.
func TestRunning(t *testing.T) {
	for _, o := range kinds() {
		for _, shape := range []Shape{Uniform, PageTable, Balloon} {
			o.Pages, o.VCPUs, o.Seed, o.Workload.Shape = 2000, 3, 5, shape
			k := build(t, o)
			for range 3 {
				for before := k.Writes(); k.Writes() < before+200 && k.Err() == nil; {
					k.Start()
					time.Sleep(time.Millisecond)
					k.Stop()
				}
				passes(t, o.Kind.String()+" "+string(shape), k.Check())
			}
			k.Start()
			suspend(t, k)
			passes(t, "suspended while running", k.Check())
			k.Resumed(true)
			k.Start()
			k.Stop()
			passes(t, "resumed", k.Check())
		}
	}
}

// TestRuin: whatever a restore has made of a guest's memory, the guest fails and the host runs on.
func TestRuin(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		o := anyOptions(rt)
		k := build(rt, o)
		step(rt, k, 20)
		for range rapid.IntRange(1, 3).Draw(rt, "pages") {
			want := rapid.SampledFrom([]role{roleData, roleStatic, roleRecords, roleP2M, roleP2MList, roleStartInfo}).Draw(rt, "role")
			var ps []guest.PFN
			for i := range k.pages() {
				if k.recordAt(i).role() == want {
					ps = append(ps, k.pfn(i))
				}
			}
			if len(ps) == 0 {
				continue
			}
			page := k.page(rapid.SampledFrom(ps).Draw(rt, "pfn"))
			if page == nil {
				continue
			}
			from := rapid.IntRange(0, guest.PageSize-8).Draw(rt, "from")
			fillRandom(page[from&^31:], rapid.Uint64().Draw(rt, "garbage"))
		}
		k.Check()
		_ = k.Step(20)
		_ = k.Suspend(context.Background())
		k.Check()
		if found, err := Attach(k.hv); err == nil {
			found.Resumed(false)
			found.Start()
			found.Stop()
			_ = found.Step(20)
			found.Check()
		}
	})
}

// TestRAM: the pages of a guest are counted through its holes and back.
func TestRAM(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := &Layout{Options: anyOptions(t)}
		l.Pages = rapid.Uint64Range(MinPages, 1<<21).Draw(t, "pages")
		l.RAM = ram(&l.Options)
		if l.pages() != l.MaxPages() {
			t.Fatalf("%d pages in %v", l.pages(), l.RAM)
		}
		i := rapid.Uint64Range(0, l.pages()-1).Draw(t, "index")
		if at, ok := l.index(l.pfn(i)); !ok || at != i {
			t.Fatalf("page %d is at pfn %#x, which is page %d", i, uint64(l.pfn(i)), at)
		}
		for n, r := range l.RAM[1:] {
			if before := l.RAM[n]; before.First+guest.PFN(before.Count) > r.First {
				t.Fatalf("ranges overlap: %v", l.RAM)
			}
		}
		if _, ok := l.index(guest.PFN(l.span())); ok {
			t.Fatal("there is RAM behind the end")
		}
	})
}

// TestBig has a memory with a hole in it, and P2M and page tables of more than one branch.
func TestBig(t *testing.T) {
	if testing.Short() {
		t.Skip("800 MiB of memory")
	}
	for _, o := range []Options{
		{Kind: guest.PV32, P2M: Tree, Pages: 200 << 10}, // 800 MiB: beyond the direct map
	} {
		o.VCPUs, o.Seed, o.Workload.Shape, o.Fill.Zero = 2, 1, PageTable, 1
		k := build(t, o)
		step(t, k, 500)
		suspend(t, k)
		w := k.Witness()
		restoreInPlace(k)
		found, err := Attach(k.hv)
		if err != nil {
			t.Fatal(err)
		}
		found.Resumed(false)
		step(t, found, 500)
		passes(t, o.Kind.String(), found.CheckAgainst(w))
	}
}

// TestOptions: what cannot be is refused, with a reason.
func TestOptions(t *testing.T) {
	good := Options{Kind: guest.PV64, Pages: 2000, VCPUs: 2}
	if err := good.Check(); err != nil {
		t.Error(err)
	}
	for name, spoil := range map[string]func(*Options){
		"kind":     func(o *Options) { o.Kind = 0 },
		"no vCPU":  func(o *Options) { o.VCPUs = 0 },
		"vCPUs":    func(o *Options) { o.VCPUs = MaxVCPUs + 1 },
		"online":   func(o *Options) { o.Online = 3 },
		"memory":   func(o *Options) { o.Pages = 100 },
		"P2M":      func(o *Options) { o.P2M = "list" },
		"HVM P2M":  func(o *Options) { o.Kind, o.P2M = guest.HVM, Tree },
		"workload": func(o *Options) { o.Workload.Shape = "busy" },
		"rate":     func(o *Options) { o.Workload.Rate = -1 },
		"fill":     func(o *Options) { o.Fill = Fill{Zero: 0.7, Text: 0.7} },
		"too big":  func(o *Options) { o.Kind, o.Pages = guest.PV32, 1<<20+1 },
	} {
		o := good
		if spoil(&o); o.Check() == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	for s, want := range map[string]Workload{"idle": {Shape: Idle}, "uniform:20000": {Uniform, 20000}, "zipf:0.5": {Zipf, 0.5}} {
		if w, err := ParseWorkload(s); err != nil || w != want {
			t.Errorf("workload %s: %+v, %v", s, w, err)
		}
	}
	for _, s := range []string{"", "busy", "uniform:", "uniform:x", "uniform:-1", "uniform:nan", "uniform:inf"} {
		if w, err := ParseWorkload(s); err == nil {
			t.Errorf("workload %q: %+v", s, w)
		}
	}
	if f, err := ParseFill("zero=0.3,text=0.2"); err != nil || f != (Fill{0.3, 0.2}) {
		t.Errorf("fill: %+v, %v", f, err)
	}
	for _, s := range []string{"zero", "zero=2", "ones=0.1", "text=x"} {
		if f, err := ParseFill(s); err == nil {
			t.Errorf("fill %q: %+v", s, f)
		}
	}
}
