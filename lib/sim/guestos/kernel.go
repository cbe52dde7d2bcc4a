package guestos

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"xenferry/lib/guest"
)

// ErrPassive says that a domain has no guest of ours in it.
var ErrPassive = errors.New("no guest of the simulator: nothing in its memory proves itself")

// role is what a page of the guest is for, and with that, how it proves itself.
type role uint8

const (
	roleData      role = iota // ordinary memory: contents of its version
	rolePool                  // the same, set aside for page-table churn
	roleBallooned             // given back: no frame
	roleL1                    // page tables in use: digest, and the type that the hypervisor says
	roleL2
	roleL3
	roleL4
	roleStatic    // contents that never change: digest
	roleRecords   // the guest's own records: what they say is true
	roleP2M       // P2M: entry by entry
	roleP2MList   // lists of P2M pages: likewise
	roleStartInfo // field by field
	roleRing      // another's to write: the rings of xenstore, console and emulators
)

var roleNames = [...]string{"data", "pool", "ballooned", "l1", "l2", "l3", "l4", "static", "records", "p2m", "p2m list", "start_info", "ring"}

func (r role) String() string { return roleNames[r] }

// level is that of a page table, or 0.
func (r role) level() int {
	if r >= roleL1 && r <= roleL4 {
		return int(r-roleL1) + 1
	}
	return 0
}

// record is what the guest knows of one page of its RAM, as an operating system has an array of such:
//
//	0  version  u32  how often the page was written
//	4  digest   u32  of page tables and static pages
//	8  role     u8
//	9  flags    u8   flagPinned
type record []byte

const (
	recordSize = 16
	flagPinned = 1 // a page table pinned by itself
)

func (r record) version() uint32     { return le.Uint32(r) }
func (r record) digest() uint32      { return le.Uint32(r[4:]) }
func (r record) role() role          { return role(r[8]) }
func (r record) pinned() bool        { return r[9]&flagPinned != 0 }
func (r record) setVersion(v uint32) { le.PutUint32(r, v) }
func (r record) setDigest(d uint32)  { le.PutUint32(r[4:], d) }
func (r record) setRole(v role)      { r[8] = byte(v) }
func (r record) setPinned(v bool) {
	r[9] &^= flagPinned
	if v {
		r[9] |= flagPinned
	}
}

// mapped is some pages of the guest's that its kernel has at hand.
type mapped struct {
	pages  [][]byte
	frames []guest.MFN
}

// Kernel is a guest of ours: a view of the memory in which all that it knows is. Its methods that run, suspend or check
// the guest are not safe for concurrent use; the guest's vCPUs run between Start and Stop.
type Kernel struct {
	*Layout
	hv        Hypervisor
	space     space
	sharedMFN guest.MFN // PV: the frame of shared_info
	topL2     guest.PFN // pv32: the L2 in which Xen has entries
	info      []byte
	infoMFN   guest.MFN
	p2m       mapped // PV: the P2M's pages
	records   mapped // the records of all pages, in order of their index
	cpus      []*cpu // those online
	anyCPU    bool   // a check does not ask for the CPU policy

	mmu  sync.Mutex // orders changes to page tables, and to who may take which page for one
	halt atomic.Bool
	wg   sync.WaitGroup

	fault   atomic.Pointer[error] // what stopped the guest: something was refused that a sane hypervisor grants
	running bool
}

// cpu is a vCPU's own page, in guest memory:
//
//	 0  random   u64  state of its random numbers
//	 8  writes   u64  how many times it has raised a version
//	16  cursor   u64  where a sweep has come to
//	24  process  u64  1 + the PFN of the page-table root it last made, or 0
//	32  away     u64  pages it has ballooned out
//	40  steps    u64
type cpu struct {
	k     *Kernel
	n     uint32
	page  []byte
	frame guest.MFN
}

const (
	cpuRandom  = 0
	cpuWrites  = 8
	cpuCursor  = 16
	cpuProcess = 24
	cpuAway    = 32
	cpuSteps   = 40
)

func (c *cpu) get(at int) uint64    { return le.Uint64(c.page[at:]) }
func (c *cpu) set(at int, v uint64) { le.PutUint64(c.page[at:], v) }

// random is the vCPU's next random number below n.
func (c *cpu) random(n uint64) uint64 {
	s := c.get(cpuRandom) + 0x9E3779B97F4A7C15
	c.set(cpuRandom, s)
	return mix(s, uint64(c.n)) % n
}

// count raises a page's version.
func (c *cpu) count(p guest.PFN, r record) {
	r.setVersion(r.version() + 1)
	c.set(cpuWrites, c.get(cpuWrites)+1)
	c.k.wroteRecord(p)
	c.k.hv.Wrote(c.frame)
}

// Attach finds the guest in a domain's memory and vCPU state. An error that is ErrPassive says that there is none.
func Attach(hv Hypervisor) (*Kernel, error) {
	spec := hv.Spec()
	k := &Kernel{hv: hv, space: spaceOf(spec.Kind), sharedMFN: guest.InvalidMFN}
	if spec.Kind.PV() {
		_, k.sharedMFN = hv.SharedInfo()
	}
	root, va, err := boot(hv)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrPassive, err)
	}
	at := func(va uint64) (guest.MFN, []byte, error) {
		m, _, err := walk(hv, &k.space, k.entryFrame, root, va)
		if err != nil {
			return m, nil, err
		}
		page := hv.Page(m)
		if page == nil {
			return m, nil, fmt.Errorf("address %#x: frame %#x is not the guest's", va, uint64(m))
		}
		return m, page, nil
	}
	if k.infoMFN, k.info, err = at(va); err != nil {
		return nil, fmt.Errorf("%w: info page: %w", ErrPassive, err)
	}
	if k.Layout, err = readInfo(k.info); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrPassive, err)
	}
	if k.Kind != spec.Kind || k.VCPUs != spec.VCPUs {
		return nil, fmt.Errorf("the guest is %v with %d vCPUs, its domain %v with %d", k.Kind, k.VCPUs, spec.Kind, spec.VCPUs)
	}
	region := func(va, n uint64, into *mapped) error {
		for i := range n {
			m, page, err := at(va + i<<guest.PageShift)
			if err != nil {
				return err
			}
			into.pages, into.frames = append(into.pages, page), append(into.frames, m)
		}
		return nil
	}
	if err := region(k.space.p2m, k.P2MLeaves, &k.p2m); err != nil {
		return nil, fmt.Errorf("P2M: %w", err)
	}
	if err := region(k.space.records, k.recordPages()+uint64(k.VCPUs), &k.records); err != nil {
		return nil, fmt.Errorf("page records: %w", err)
	}
	k.bindCPUs()
	return k, k.findTopL2()
}

// bindCPUs takes the vCPUs' pages from the end of the records.
func (k *Kernel) bindCPUs() {
	n := k.recordPages()
	for i := range k.Online {
		k.cpus = append(k.cpus, &cpu{k: k, n: i, page: k.records.pages[n+uint64(i)], frame: k.records.frames[n+uint64(i)]})
	}
}

// findTopL2 finds the L2 in which Xen has entries of its own.
func (k *Kernel) findTopL2() (err error) {
	k.topL2 = guest.InvalidPFN
	if k.Kind == guest.PV32 {
		k.topL2, _, err = k.lookup(k.space.shared, 2)
	}
	return err
}

// recordPages is how many pages the records of all pages take.
func (l *Layout) recordPages() uint64 {
	return (l.pages()*recordSize + guest.PageSize - 1) / guest.PageSize
}

// entryFrame is the frame behind the frame number of a page-table entry.
func (k *Kernel) entryFrame(n uint64) guest.MFN {
	if k.hv.Spec().Kind.PV() {
		return guest.MFN(n)
	}
	return k.hv.Frame(guest.PFN(n))
}

// frame is the machine frame of page p, or InvalidMFN.
func (k *Kernel) frame(p guest.PFN) guest.MFN {
	if !k.Kind.PV() {
		return k.hv.Frame(p)
	}
	page, at, ok := k.p2mEntry(p)
	switch {
	case !ok:
		return guest.InvalidMFN
	case k.Kind.Width() == 8:
		return guest.MFN(le.Uint64(k.p2m.pages[page][at:]))
	}
	if m := le.Uint32(k.p2m.pages[page][at:]); m != 1<<32-1 {
		return guest.MFN(m)
	}
	return guest.InvalidMFN
}

// p2mEntry is where the P2M has page p.
func (k *Kernel) p2mEntry(p guest.PFN) (page, at uint64, ok bool) {
	off := uint64(p) * uint64(k.Kind.Width())
	return off >> guest.PageShift, off % guest.PageSize, uint64(p) < k.span()
}

// setFrame changes the P2M. InvalidMFN says that the page has no frame.
func (k *Kernel) setFrame(p guest.PFN, m guest.MFN) {
	page, at, _ := k.p2mEntry(p)
	if k.Kind.Width() == 8 {
		le.PutUint64(k.p2m.pages[page][at:], uint64(m))
	} else {
		le.PutUint32(k.p2m.pages[page][at:], uint32(m))
	}
	k.hv.Wrote(k.p2m.frames[page])
}

// owns is the page whose frame m is, by the hypervisor's table and the guest's.
func (k *Kernel) owns(m guest.MFN) (guest.PFN, bool) {
	p := k.hv.M2P(m)
	return p, k.frame(p) == m && m != guest.InvalidMFN
}

// page is the memory of page p, or nil.
func (k *Kernel) page(p guest.PFN) []byte {
	m := k.frame(p)
	if m == guest.InvalidMFN {
		return nil
	}
	return k.hv.Page(m)
}

// record is what the guest knows of page p, which must be in RAM.
func (k *Kernel) record(p guest.PFN) record {
	i, _ := k.index(p)
	return k.recordAt(i)
}

func (k *Kernel) recordAt(i uint64) record {
	off := i * recordSize
	at := off % guest.PageSize
	return record(k.records.pages[off>>guest.PageShift][at : at+recordSize])
}

// wroteRecord tells the hypervisor that p's record was written.
func (k *Kernel) wroteRecord(p guest.PFN) {
	i, _ := k.index(p)
	k.hv.Wrote(k.records.frames[i*recordSize>>guest.PageShift])
}

// State is what the guest's kernel is about.
func (k *Kernel) State() State { return State(le.Uint32(k.info[infoState:])) }

// Writes is how many writes the guest has made in its life.
func (k *Kernel) Writes() (n uint64) {
	for _, c := range k.cpus {
		n += c.get(cpuWrites)
	}
	return n
}

// Err is what stopped the guest, such as a hypercall that was refused, or nil.
func (k *Kernel) Err() error {
	if err := k.fault.Load(); err != nil {
		return *err
	}
	return nil
}

// fail stops the guest for good: its kernel has no answer to what happened.
func (k *Kernel) fail(err error) {
	if err != nil {
		k.fault.CompareAndSwap(nil, &err)
		k.halt.Store(true)
	}
}

// guarded runs a part of the guest's kernel. A panic of it, on memory that a restore has ruined, must not be one of the
// host it runs on: it is an error.
func guarded(f func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("guest kernel panic: %v", r)
		}
	}()
	return f()
}
