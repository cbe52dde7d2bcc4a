package guestos

import (
	"fmt"
	"hash/crc32"
	"runtime"
	"slices"
	"sync"

	"xenferry/lib/guest"
)

// builder makes a guest in a new domain.
type builder struct {
	*Kernel
	mfns  []guest.MFN // by index
	roles []role      // by index
	next  uint64      // where the allocator looks next; it strides through all RAM, as memory in use for long is scattered
	step  uint64
	left  uint64
	loose guest.PFN // PV: an L1 that is pinned, and in no tree
	text  []guest.PFN
}

// Build makes a guest in a domain that has no memory yet: address space, vCPUs, and contents of every page. The guest
// is ready to Start.
func Build(hv Hypervisor, o Options) (*Kernel, error) {
	if err := o.normalize(); err != nil {
		return nil, fmt.Errorf("build guest: %w", err)
	}
	if spec := hv.Spec(); spec.Kind != o.Kind || spec.VCPUs != o.VCPUs {
		return nil, fmt.Errorf("build guest: %v with %d vCPUs in a domain that is %v with %d", o.Kind, o.VCPUs, spec.Kind, spec.VCPUs)
	}
	k := &Kernel{Layout: &Layout{Options: o, RAM: ram(&o)}, hv: hv, space: spaceOf(o.Kind), topL2: guest.InvalidPFN, sharedMFN: guest.InvalidMFN}
	if o.Kind.PV() {
		_, k.sharedMFN = hv.SharedInfo()
	}
	n := k.pages()
	b := &builder{Kernel: k, roles: make([]role, n), next: mix(o.Seed, n) % n, step: stride(n), left: n}
	for _, f := range []func() error{b.populate, b.allocate, b.allocateTables, b.fill, b.fillTables, b.fillStatic, b.boot} {
		if err := f(); err != nil {
			return nil, fmt.Errorf("build guest: %w", err)
		}
	}
	return k, nil
}

// stride is a step of about 0.618 n that has no divisor with n in common, so that it comes to every number below n.
func stride(n uint64) uint64 {
	for s := n*618/1000 | 1; ; s += 2 {
		a, b := s, n
		for b != 0 {
			a, b = b, a%b
		}
		if a == 1 {
			return s
		}
	}
}

// populate gets all RAM from the hypervisor.
func (b *builder) populate() error {
	const batch = 1 << 16
	n := b.pages()
	for i := uint64(0); i < n; {
		pfns := make([]guest.PFN, 0, min(batch, n-i))
		for ; i < n && len(pfns) < batch; i++ {
			pfns = append(pfns, b.pfn(i))
		}
		mfns, err := b.hv.Populate(pfns)
		if err != nil {
			return fmt.Errorf("populate %d of %d pages: %w", len(pfns), n, err)
		}
		b.mfns = append(b.mfns, mfns...)
	}
	if b.Kind.PV() {
		return nil
	}
	for i := range n {
		b.mfns[i] = b.hv.Frame(b.pfn(i))
	}
	return nil
}

// take finds a page for a role, one in the direct map.
func (b *builder) take(r role) (guest.PFN, error) {
	n := uint64(len(b.roles))
	for ; b.left > 0; b.left-- {
		i := b.next
		b.next = (b.next + b.step) % n
		p := b.pfn(i)
		if _, ok := b.space.directAddr(p); !ok || b.roles[i] != roleData {
			continue
		}
		b.roles[i] = r
		return p, nil
	}
	return 0, fmt.Errorf("no memory left for the guest's kernel in %d pages", n)
}

func (b *builder) takeAll(n uint64, r role) (ps []guest.PFN, err error) {
	for range n {
		p, err := b.take(r)
		if err != nil {
			return nil, err
		}
		ps = append(ps, p)
	}
	return ps, nil
}

// use gives a page that is where it is a role.
func (b *builder) use(p guest.PFN, r role) {
	i, _ := b.index(p)
	b.roles[i] = r
}

// hand maps pages for the kernel.
func (b *builder) hand(ps []guest.PFN) (m mapped) {
	for _, p := range ps {
		i, _ := b.index(p)
		m.frames = append(m.frames, b.mfns[i])
		m.pages = append(m.pages, b.hv.Page(b.mfns[i]))
	}
	return m
}

// poolPages is how many pages each vCPU has for page-table churn.
const poolPages = 16

// textPages is how many pages of user text there are.
const textPages = 8

// allocate finds places for everything but page tables, and brings up P2M and page records.
func (b *builder) allocate() (err error) {
	if !b.Kind.PV() {
		b.use(vgaHole-1, roleStatic) // the TSS for virtual 8086 mode
		for p := ioreqPages; p < specialPages+8; p++ {
			b.use(p, roleRing)
		}
		b.use(specialPages+specialIdentPT, roleStatic)
		b.Store, b.Console = specialPages+specialStore, specialPages+specialConsole
	} else if err := b.allocatePV(); err != nil {
		return err
	}
	records, err := b.takeAll(b.recordPages()+uint64(b.VCPUs), roleRecords)
	if err != nil {
		return err
	}
	b.records = b.hand(records)
	for _, page := range b.records.pages {
		clear(page)
	}
	b.bindCPUs()
	if b.Info, err = b.take(roleRecords); err != nil {
		return err
	}
	if b.text, err = b.takeAll(textPages, roleStatic); err != nil {
		return err
	}
	_, err = b.takeAll(poolPages*uint64(b.Online), rolePool)
	return err
}

// allocatePV finds places for what only a PV guest has.
func (b *builder) allocatePV() (err error) {
	perPage := uint64(guest.PageSize / b.Kind.Width())
	if limit := perPage * perPage * perPage; b.P2M == Tree && b.span() > limit {
		return fmt.Errorf("a P2M tree has room for %d pages, not %d", limit, b.span())
	}
	b.P2MLeaves = b.p2mPages()
	leaves, err := b.takeAll(b.P2MLeaves, roleP2M)
	if err != nil {
		return err
	}
	b.p2m = b.hand(leaves)
	for _, page := range b.p2m.pages {
		for i := range page {
			page[i] = 0xFF
		}
	}
	for i, m := range b.mfns {
		b.setFrame(b.pfn(uint64(i)), m)
	}
	if b.P2M == Tree {
		if b.P2MTop, err = b.take(roleP2MList); err != nil {
			return err
		}
		lists, err := b.takeAll((b.P2MLeaves+perPage-1)/perPage, roleP2MList)
		if err != nil {
			return err
		}
		slices.Sort(lists)
		b.buildTree(lists, leaves)
	} else {
		b.Generation = mix(b.Seed, 0x67656e)&0xFFFF | 1
	}
	if b.GDT, err = b.takeAll(uint64(b.VCPUs)+1, roleStatic); err != nil {
		return err
	}
	for _, p := range []struct {
		at *guest.PFN
		r  role
	}{{&b.StartInfo, roleStartInfo}, {&b.Store, roleStatic}, {&b.Console, roleRing}} {
		if *p.at, err = b.take(p.r); err != nil {
			return err
		}
	}
	return nil
}

// fill writes the contents that pages have before anything runs.
func (b *builder) fill() error {
	n := uint64(len(b.roles))
	workers := uint64(runtime.GOMAXPROCS(0))
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := n * w / workers; i < n*(w+1)/workers; i++ {
				if b.roles[i] != roleData && b.roles[i] != rolePool {
					continue
				}
				p := b.pfn(i)
				contents(b.hv.Page(b.mfns[i]), b.Seed, p, 0, b.Fill.texture(b.Seed, p))
				b.hv.Wrote(b.mfns[i])
			}
		})
	}
	wg.Wait()
	for i, r := range b.roles {
		b.recordAt(uint64(i)).setRole(r)
	}
	return nil
}

// pageDigest is that of a static page.
func pageDigest(page []byte) uint32 { return crc32.Checksum(page, crc32.MakeTable(crc32.Castagnoli)) }

// ringDigest is that of a page with rings: the octet in which some releases' tools say whether the console is
// connected is not the guest's.
func ringDigest(page []byte) uint32 {
	const connection = 3088
	t := crc32.MakeTable(crc32.Castagnoli)
	return crc32.Update(crc32.Checksum(page[:connection], t), t, page[connection+1:])
}

// emptyRing is the digest of a ring that a restore has emptied.
var emptyRing = ringDigest(make([]byte, guest.PageSize))

// fillStatic writes the pages whose contents never change, and takes the digests of all that have one.
func (b *builder) fillStatic() error {
	for i, r := range b.roles {
		p, m := b.pfn(uint64(i)), b.mfns[i]
		page, rec := b.hv.Page(m), b.recordAt(uint64(i))
		switch {
		case r == roleStatic || r == roleRing:
			contents(page, b.Seed, p, 0, Random)
		case r == roleRecords && p == b.Info:
			if err := writeInfo(page, b.Layout); err != nil {
				return err
			}
		case r == roleStartInfo:
			b.writeStartInfo(page)
		case r.level() > 0:
			rec.setDigest(b.tableDigest(p, r.level(), page))
		}
		if i, ok := b.gdtIndex(p); ok {
			writeGDT(page, b.Kind, i)
		}
		if !b.Kind.PV() && p == specialPages+specialIdentPT {
			for i := range uint32(guest.PageSize / 4) { // 4 MiB pages: present, writable, user, accessed, dirty, large
				le.PutUint32(page[4*i:], i<<22|0xE7)
			}
		}
		switch r {
		case roleStatic:
			rec.setDigest(pageDigest(page))
		case roleRing:
			rec.setDigest(ringDigest(page))
		}
		b.hv.Wrote(m)
	}
	for _, c := range b.cpus {
		c.set(cpuRandom, mix(b.Seed, uint64(c.n)|3<<32))
	}
	b.infoMFN = b.frame(b.Info)
	b.info = b.hv.Page(b.infoMFN)
	return nil
}

// boot hands page tables, vCPUs and parameters to the hypervisor.
func (b *builder) boot() error {
	if err := b.setUp(); err != nil {
		return err
	}
	if b.Kind.PV() {
		b.writeSharedInfo()
		if err := b.setPVVCPUs(); err != nil {
			return err
		}
		return b.pinAll()
	}
	if err := b.hv.SetHVMContext(appendHVM(nil, b.hvmRecords())); err != nil {
		return err
	}
	for _, p := range append(b.hvmParams(), hvmParam{paramCallbackIRQ, callbackVector}) {
		if err := b.hv.SetHVMParam(p.index, p.value); err != nil {
			return err
		}
	}
	return nil
}
