package guestos

import (
	"fmt"
	"math"
	"time"

	"xenferry/lib/guest"
)

// Start lets the vCPUs run their workload.
func (k *Kernel) Start() {
	if k.running || k.Err() != nil {
		return
	}
	k.running = true
	k.halt.Store(false)
	if k.Workload.Shape == Idle {
		return
	}
	for _, c := range k.cpus {
		k.wg.Go(c.run)
	}
}

// Stop halts the vCPUs between two steps. Once it has returned, none writes until Start.
func (k *Kernel) Stop() {
	k.halt.Store(true)
	k.wg.Wait()
	k.running = false
}

// tick is how often a vCPU with a rate looks at the clock, and backlog how much of its rate it makes up for at most when it was not
// scheduled.
const (
	tick    = time.Millisecond
	backlog = 100 * time.Millisecond
)

// run takes steps at the workload's rate until the guest is stopped.
func (c *cpu) run() {
	k := c.k
	rate := k.Workload.Rate / float64(len(k.cpus))
	due, last := 0.0, time.Now()
	for !k.halt.Load() {
		if rate > 0 {
			if due < 1 {
				time.Sleep(tick)
				now := time.Now()
				due += rate * min(now.Sub(last), backlog).Seconds()
				last = now
				continue
			}
			due--
		}
		if err := guarded(c.do); err != nil {
			k.fail(err)
			return
		}
	}
}

// Step takes n steps on each vCPU in turn, whatever the rate. The guest must not be running.
func (k *Kernel) Step(n int) error {
	for range n {
		for _, c := range k.cpus {
			if err := guarded(c.do); err != nil {
				return err
			}
		}
	}
	return nil
}

// do is one step.
func (c *cpu) do() error {
	if c.k.Workload.Shape == Idle {
		return nil
	}
	c.set(cpuSteps, c.get(cpuSteps)+1)
	switch c.k.Workload.Shape {
	case Uniform:
		return c.write(c.uniform())
	case Zipf:
		return c.write(c.zipf())
	case Sweep:
		return c.write(c.sweep())
	case PageTable:
		if c.random(4) == 0 {
			return c.churn()
		}
		return c.write(c.uniform())
	case Balloon:
		switch c.random(8) {
		case 0:
			return c.inflate()
		case 1:
			return c.deflate()
		}
		return c.write(c.uniform())
	}
	return nil
}

// write gives a data page its next version.
func (c *cpu) write(p guest.PFN) error {
	k := c.k
	r := k.record(p)
	m := k.frame(p)
	contents(k.hv.Page(m), k.Seed, p, r.version()+1, k.Fill.texture(k.Seed, p))
	k.hv.Wrote(m)
	c.count(p, r)
	return nil
}

// own is how many pages of RAM are the vCPU's: each has those whose index is its number modulo all.
func (c *cpu) own() uint64 {
	n := uint64(len(c.k.cpus))
	return (c.k.pages() + n - 1 - uint64(c.n)) / n
}

// from is the first data page of the vCPU's from its i-th on, around to the start.
func (c *cpu) from(i uint64, want role) (guest.PFN, uint64) {
	own, n := c.own(), uint64(len(c.k.cpus))
	for range own {
		i %= own
		if at := i*n + uint64(c.n); c.k.recordAt(at).role() == want {
			return c.k.pfn(at), i
		}
		i++
	}
	panic(fmt.Sprintf("vCPU %d has no %v page left", c.n, want))
}

func (c *cpu) uniform() guest.PFN {
	p, _ := c.from(c.random(c.own()), roleData)
	return p
}

// zipf chooses a rank with a chance that falls as 1/rank, and scatters ranks over memory.
func (c *cpu) zipf() guest.PFN {
	own := c.own()
	u := float64(c.random(1<<53)) / (1 << 53)
	rank := uint64(math.Pow(float64(own), u)) - 1
	p, _ := c.from(rank%own*stride(own)%own, roleData)
	return p
}

func (c *cpu) sweep() guest.PFN {
	p, i := c.from(c.get(cpuCursor), roleData)
	c.set(cpuCursor, i+1)
	return p
}

// mostAway is the share of its pages, as a divisor, that a vCPU balloons out at most.
const mostAway = 8

// inflate gives a page to the hypervisor: out of the page tables, the P2M and the domain.
func (c *cpu) inflate() error {
	k := c.k
	if c.get(cpuAway) >= c.own()/mostAway {
		return c.deflate()
	}
	p := c.uniform()
	m := k.frame(p)
	if err := c.setDirect(p, 0); err != nil {
		return err
	}
	r := k.record(p)
	r.setRole(roleBallooned)
	c.set(cpuAway, c.get(cpuAway)+1)
	c.count(p, r)
	if !k.Kind.PV() {
		return k.hv.Depopulate([]guest.GFN{guest.GFN(p)})
	}
	k.setFrame(p, guest.InvalidMFN)
	return k.hv.Depopulate([]guest.GFN{guest.GFN(m)})
}

// deflate takes a page back, and writes it.
func (c *cpu) deflate() error {
	k := c.k
	if c.get(cpuAway) == 0 {
		return c.write(c.uniform())
	}
	p, _ := c.from(c.random(c.own()), roleBallooned)
	mfns, err := k.hv.Populate([]guest.PFN{p})
	if err != nil {
		return err
	}
	if k.Kind.PV() {
		k.setFrame(p, mfns[0])
	}
	k.record(p).setRole(roleData)
	c.set(cpuAway, c.get(cpuAway)-1)
	if err := c.write(p); err != nil {
		return err
	}
	return c.setDirect(p, pteRW)
}
