package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"xenferry/lib/guest"
	"xenferry/lib/xcstream"
)

// roleVariable makes benchtool one end of a baseline: "write" or "read".
const roleVariable = "XENFERRY_BASELINE"

// playRole copies frames of the memory in descriptor 3 through descriptor 1 or 0, as fast as a process can: frames in the
// order that $XENFERRY_SEED shuffles them into, contiguous for 0, and nothing but writev or readv of 1024 at a time. It
// says on descriptor 4 that it is ready and waits for descriptor 5.
func playRole(role string) error {
	size, err := strconv.ParseInt(os.Getenv("XENFERRY_SIZE"), 10, 64)
	if err != nil {
		return err
	}
	seed, err := strconv.ParseUint(os.Getenv("XENFERRY_SEED"), 10, 64)
	if err != nil {
		return err
	}
	memory, err := unix.Mmap(3, 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	order := make([]int, size/guest.PageSize)
	for i := range order {
		order[i] = i
	}
	if seed != 0 {
		rand.New(rand.NewPCG(seed, 0)).Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
	}
	if _, err := unix.Write(4, []byte{1}); err != nil {
		return err
	}
	if _, err := unix.Read(5, make([]byte, 1)); err != nil {
		return err
	}
	call, fd := uintptr(unix.SYS_WRITEV), 1
	if role == "read" {
		call, fd = unix.SYS_READV, 0
	}
	for len(order) > 0 {
		n := min(len(order), xcstream.MaxBatch)
		if err := moveFrames(call, fd, memory, order[:n]); err != nil {
			return err
		}
		order = order[n:]
	}
	return nil
}

// baseline makes two memories, both touched, and copies one to the other through a pipe.
type baseline struct {
	size    uint64
	seed    uint64
	memory  [2]*os.File
	program string
}

func newBaseline(size, seed uint64) (*baseline, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	b := &baseline{size: size, seed: seed, program: self}
	for i := range b.memory {
		fd, err := unix.MemfdCreate("baseline", unix.MFD_CLOEXEC)
		if err != nil {
			return nil, err
		}
		b.memory[i] = os.NewFile(uintptr(fd), "memory")
		if err := unix.Ftruncate(fd, int64(size)); err != nil {
			return nil, err
		}
		m, err := unix.Mmap(fd, 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		if err != nil {
			return nil, err
		}
		for at := uint64(0); at < size; at += guest.PageSize {
			m[at] = byte(at >> guest.PageShift)
		}
		if err := unix.Munmap(m); err != nil {
			return nil, err
		}
	}
	return b, nil
}

func (b *baseline) close() {
	for _, f := range b.memory {
		_ = f.Close()
	}
}

// run copies once.
func (b *baseline) run() (measure, error) {
	r, w, err := bigPipe()
	if err != nil {
		return measure{}, err
	}
	readyR, readyW, err := os.Pipe()
	if err != nil {
		return measure{}, err
	}
	goR, goW, err := os.Pipe()
	if err != nil {
		return measure{}, err
	}
	env := []string{fmt.Sprintf("XENFERRY_SIZE=%d", b.size), fmt.Sprintf("XENFERRY_SEED=%d", b.seed)}
	defer func() { _, _, _ = readyR.Close(), readyW.Close(), goR.Close() }()
	return together(func() {
		_, _ = readyR.Read(make([]byte, 1))
		_, _ = readyR.Read(make([]byte, 1))
		_, _ = goW.Write([]byte{1, 1})
		_ = goW.Close()
	},
		program{
			args: []string{b.program}, env: append(env, roleVariable+"=write"), out: w,
			extra: []*os.File{b.memory[0], readyW, goR},
		},
		program{
			args: []string{b.program}, env: append(env, roleVariable+"=read"), in: r,
			extra: []*os.File{b.memory[1], readyW, goR},
		})
}
