package xen

import (
	"sync"

	"golang.org/x/sys/unix"

	"xenferry/lib/guest"
)

// arena is memory for one hypercall: the operation and all it points to. It is taken from arenas and given back.
type arena struct {
	mem  []byte
	used int
	from *arenas
}

// arenas keeps arenas that are free: making one takes a system call, and more where its pages must be locked.
type arenas struct {
	dev  *device
	mu   sync.Mutex
	free []*arena
}

// The size of the smallest arena in octets, enough for an operation and its array of 1024 words, and how many are kept.
const (
	arenaSize = 4 * guest.PageSize
	arenaKeep = 8
)

// take is an arena with room for size octets, all zero.
func (p *arenas) take(size int) (*arena, error) {
	p.mu.Lock()
	for i, a := range p.free {
		if len(a.mem) >= size {
			p.free = append(p.free[:i], p.free[i+1:]...)
			p.mu.Unlock()
			return a, nil
		}
	}
	p.mu.Unlock()
	n := arenaSize
	for n < size {
		n *= 2
	}
	mem, err := p.dev.safe(n)
	if err != nil {
		return nil, err
	}
	return &arena{mem: mem, from: p}, nil
}

// get is n octets of the arena, at an address that is a multiple of 8. Their sum must not exceed what was asked for,
// with 8 added for each.
func (a *arena) get(n int) []byte {
	b := a.mem[a.used:][:n:n]
	a.used += (n + 7) &^ 7
	return b
}

// free gives the arena back.
func (a *arena) free() {
	clear(a.mem[:a.used])
	a.used = 0
	p := a.from
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.free) == arenaKeep {
		_ = unix.Munmap(p.free[0].mem)
		p.free = p.free[1:]
	}
	p.free = append(p.free, a)
}

func (p *arenas) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, a := range p.free {
		_ = unix.Munmap(a.mem)
	}
	p.free = nil
}
