// Package machine plays Xen's part on a simulated x86 host: it owns machine memory and hands it to domains in scattered
// frames, keeps their types and references as Xen's memory management does, and refuses what Xen refuses. It knows
// domains and frames, and neither the guests that run in them nor how clients reach it.
package machine

import (
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"xenferry/lib/guest"
)

// LogMode says how the dirty log learns of guests' writes.
type LogMode uint8

// The modes. Both keep the same promise: a page written between two reads of the log is in one of them.
const (
	LogAuto     LogMode = iota // the kernel's where it has one, else software
	LogKernel                  // asynchronous write-protection of the guests' mapping, read with PAGEMAP_SCAN (Linux 6.7)
	LogSoftware                // guests say what they wrote, through View.Wrote
)

// Options is what a Machine is made from. Only Memory has no useful zero value.
type Options struct {
	Memory   uint64        // octets of machine memory, rounded down to whole pages; sparse until touched
	Release  guest.Release // the Xen release to play; zero means 4.17
	Log      LogMode
	Seed     uint64 // of the order in which frames are handed out and of event channel ports
	Scrub    bool   // fill each frame with ScrubPattern when it is handed out, as a debug Xen does
	Prealloc bool   // touch all memory at once, so that no first use pays for it
}

// ScrubPattern is what Options.Scrub fills frames with.
const ScrubPattern = 0xC2

// Machine is one simulated host. Its methods may be called concurrently.
type Machine struct {
	release guest.Release
	scrub   bool

	memFD, m2pFD *os.File
	mem          []byte   // machine memory: the mapping that guests write through
	m2p          []uint64 // the machine-to-guest table, shared with every client
	log          *dirtyLog

	mu      sync.RWMutex // everything below, and all of domains
	frames  []frame
	free    freeList
	rng     *rand.Rand
	warm    uint32 // what was read only to have it in the cache
	domains [guest.FirstReservedDomID]*domain
	lastID  guest.DomID
	holds   map[uint64]*hold
	holdID  uint64

	xenL3  [xenL4Slots]guest.MFN // Xen's own tables, which its slots in every PV64 L4 lead to
	compat guest.MFN             // the first frame of the M2P that PV32 guests see
}

// minMemory leaves room for what Xen itself needs.
const minMemory = 1 << 20

// New makes a machine without domains. Its memory goes back with Close.
func New(o Options) (_ *Machine, err error) {
	if o.Release == (guest.Release{}) {
		o.Release = guest.Release{Major: 4, Minor: 17}
	}
	if !o.Release.AtLeast(4, 14) {
		return nil, fmt.Errorf("machine: cannot play Xen %v: 4.14 is the oldest known", o.Release)
	}
	n := o.Memory / guest.PageSize
	if o.Memory < minMemory || n >= 1<<32 {
		return nil, fmt.Errorf("machine: cannot have %d octets of memory: want 1 MiB to 16 TiB", o.Memory)
	}
	m := &Machine{
		release: o.Release,
		scrub:   o.Scrub,
		frames:  make([]frame, n),
		rng:     newRand(o.Seed),
		holds:   map[uint64]*hold{},
	}
	defer func() {
		if err != nil {
			m.Close()
		}
	}()
	if m.memFD, m.mem, err = memory("xenferry-memory", n*guest.PageSize); err != nil {
		return nil, err
	}
	var m2p []byte
	if m.m2pFD, m2p, err = memory("xenferry-m2p", (n*8+guest.PageSize-1)&^(guest.PageSize-1)); err != nil {
		return nil, err
	}
	m.m2p = words(m2p)[:n]
	if o.Prealloc {
		if err := unix.Madvise(m.mem, unix.MADV_POPULATE_WRITE); err != nil {
			return nil, fmt.Errorf("machine: populate %d octets of memory: %w", len(m.mem), err)
		}
	}
	if m.log, err = newDirtyLog(m.mem, o.Log); err != nil {
		return nil, err
	}
	m.free = newFreeList(uint32(n))
	for i := range m.xenL3 {
		m.xenL3[i] = m.allocate(ownerXen)
	}
	m.compat = m.allocate(ownerXen)
	return m, nil
}

// memory makes a sparse file of size octets and maps it.
func memory(name string, size uint64) (*os.File, []byte, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, nil, fmt.Errorf("machine: memfd_create %s: %w", name, err)
	}
	f := os.NewFile(uintptr(fd), name)
	if err := f.Truncate(int64(size)); err != nil {
		f.Close()
		return nil, nil, fmt.Errorf("machine: size %s to %d octets: %w", name, size, err)
	}
	b, err := unix.Mmap(fd, 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_NORESERVE)
	if err != nil {
		f.Close()
		return nil, nil, fmt.Errorf("machine: map %d octets of %s: %w", size, name, err)
	}
	return f, b, nil
}

// Close gives all memory back. No guest may run any more, and no View may be used afterwards.
func (m *Machine) Close() error {
	if m.log != nil {
		m.log.close()
	}
	for _, b := range [][]byte{m.mem, octets(m.m2p)} {
		if b != nil {
			_ = unix.Munmap(b)
		}
	}
	m.mem, m.m2p = nil, nil
	for _, f := range []*os.File{m.memFD, m.m2pFD} {
		if f != nil {
			f.Close()
		}
	}
	return nil
}

// Memory and M2P are the files that clients map: machine memory, frame m at octet m*4096, and the machine-to-guest
// table, one u64 per frame. Frames is how many there are.
func (m *Machine) Memory() *os.File { return m.memFD }
func (m *Machine) M2P() *os.File    { return m.m2pFD }
func (m *Machine) Frames() uint64   { return uint64(len(m.frames)) }

// Release is the Xen release that m plays.
func (m *Machine) Release() guest.Release { return m.release }

// CompatM2P is the first frame of the M2P that 32-bit PV guests see.
func (m *Machine) CompatM2P() guest.MFN { return m.compat }

// KernelLog reports whether the dirty log is the kernel's.
func (m *Machine) KernelLog() bool { return m.log.kernel != nil }

// page is frame f's memory.
func (m *Machine) page(f guest.MFN) []byte {
	at := uint64(f) * guest.PageSize
	return m.mem[at : at+guest.PageSize : at+guest.PageSize]
}

// setM2P records that frame f is p in its owner.
func (m *Machine) setM2P(f guest.MFN, p guest.PFN) { atomic.StoreUint64(&m.m2p[f], uint64(p)) }

// pfn is what the M2P says of f.
func (m *Machine) pfn(f guest.MFN) guest.PFN { return guest.PFN(atomic.LoadUint64(&m.m2p[f])) }

// allocate takes a free frame, chosen at random, for owner. It returns InvalidMFN when there is none.
func (m *Machine) allocate(owner guest.DomID) guest.MFN {
	if m.free.left() == 0 {
		return guest.InvalidMFN
	}
	var f [1]guest.MFN
	m.allocateAll(owner, f[:])
	return f[0]
}

// allocateAll fills frames with free ones, chosen at random, for owner. There must be as many.
func (m *Machine) allocateAll(owner guest.DomID, frames []guest.MFN) {
	warm := m.free.take(m.rng, frames)
	for _, f := range frames { // as in take: what is written below is in the cache then
		warm += m.frames[f].types + uint32(m.m2p[f])
	}
	m.warm = warm
	for _, f := range frames {
		m.frames[f].reset(owner)
		if m.scrub {
			fill(m.page(f), ScrubPattern)
		}
	}
}

// releaseFrame gives f back. Its contents stay.
func (m *Machine) releaseFrame(f guest.MFN) {
	m.frames[f].reset(ownerNone)
	m.setM2P(f, guest.InvalidPFN)
	m.free.put(uint32(f))
}

func fill(b []byte, v byte) {
	for i := range b {
		b[i] = v
	}
}

func newRand(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 0x58656e)) }
