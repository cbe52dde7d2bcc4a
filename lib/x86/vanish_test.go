package x86_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"xenferry/lib/guest"
	"xenferry/lib/restore"
	"xenferry/lib/save"
	"xenferry/lib/sim"
	"xenferry/lib/x86"
	"xenferry/lib/xcstream"
)

// vanishing is a host whose n-th mapping, and all that are open by then, lose their pages at the next question to the host:
// whoever touches one is sent SIGBUS. What it maps are copies.
type vanishing struct {
	*sim.Client
	t *testing.T

	mu   sync.Mutex
	left int // mappings until then
	open map[*guest.Mapping]*os.File
}

func (h *vanishing) Map(ctx context.Context, id guest.DomID, gfns []guest.GFN, prot guest.Prot) (*guest.Mapping, error) {
	m, err := h.Client.Map(ctx, id, gfns, prot)
	if err != nil {
		return nil, err
	}
	file, err := os.CreateTemp(h.t.TempDir(), "pages")
	if err == nil {
		err = file.Truncate(int64(len(gfns)) * guest.PageSize)
	}
	if err != nil {
		return nil, err
	}
	mem, err := unix.Mmap(int(file.Fd()), 0, len(gfns)*guest.PageSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, err
	}
	pages := m.Pages
	m.Pages = make([][]byte, len(pages))
	for i, p := range pages {
		if p != nil {
			m.Pages[i] = mem[i*guest.PageSize:][:guest.PageSize]
			copy(m.Pages[i], p)
		}
	}
	inner := *m
	h.mu.Lock()
	defer h.mu.Unlock()
	m.Unmap = func() error {
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(h.open, m)
		for i := 0; prot == guest.ReadWrite && h.left > 0 && i < len(pages); i++ {
			copy(pages[i], mem[i*guest.PageSize:][:guest.PageSize])
		}
		return errors.Join(inner.Close(), unix.Munmap(mem), file.Close())
	}
	h.open[m] = file
	if h.left--; h.left == 0 {
		for _, f := range h.open {
			if err := f.Truncate(0); err != nil {
				return nil, err
			}
		}
	}
	return m, nil
}

// careful is a stream that looks out for such pages, as those of lib/transport do.
type careful struct{ io.Reader }

func (c careful) Read(p []byte) (n int, err error) {
	gone := guest.Access(func() error { n, err = c.Reader.Read(p); return nil })
	return n, errors.Join(err, gone)
}

// drain asks a guest for all that saving it takes, in order.
func drain(ctx context.Context, g x86.Source) error {
	if _, err := g.Static(ctx); err != nil {
		return err
	}
	if _, err := g.Begin(ctx); err != nil {
		return err
	}
	var b xcstream.Batch
	var pfns []guest.PFN
	for p := range guest.PFN(g.Frames()) {
		if pfns = append(pfns, p); len(pfns) < xcstream.MaxBatch && uint64(p) < g.Frames()-1 {
			continue
		}
		if err := g.Load(ctx, pfns, &b); err != nil {
			return err
		}
		if err := b.Close(); err != nil {
			return err
		}
		pfns = pfns[:0]
	}
	if err := g.CheckRunning(ctx); err != nil {
		return err
	}
	if _, _, err := g.Suspended(ctx); err != nil {
		return err
	}
	_, err := g.End(ctx)
	return err
}

// TestPagesVanish takes the pages of every mapping away that saving and restoring make, one after the other, while it is used.
// Whatever comes of it is no crash, and no mapping stays open.
func TestPagesVanish(t *testing.T) {
	for _, o := range kinds() {
		if o.Kind == guest.HVM {
			continue // PVH is the same here
		}
		t.Run(fmt.Sprintf("%v%s", o.Kind, o.P2M), func(t *testing.T) {
			d := build(t, o, xen417)
			stream := control{domain: d}.mustSave(t, save.Options{})
			if o.Kind.PV() { // of others a saver only maps what it sends, and they have a million PFNs
				failed := untilWhole(t, d.host, func(h x86.Host) error {
					g, err := x86.OpenSave(t.Context(), h, d.id)
					if err != nil {
						return err
					}
					return errors.Join(drain(t.Context(), g), g.Close())
				})
				if failed < 8 {
					t.Errorf("saving failed for want of %d mappings only", failed)
				}
			}
			failed := untilWhole(t, nil, func(h x86.Host) error {
				to := newDomain(t, o, xen417, 1)
				h.(*vanishing).Client = to.host
				open := func(ctx context.Context, p restore.Opening) (restore.Guest, error) {
					return x86.OpenRestore(ctx, h, to.id, p.Domain)
				}
				_, err := restore.Run(t.Context(), careful{bytes.NewReader(stream)}, restore.Options{}, open, quiet{t})
				return err
			})
			if failed < 2 {
				t.Errorf("restoring failed for want of %d mappings only", failed)
			}
		})
	}
}

// untilWhole runs f over hosts whose first, second, third mapping vanishes, until none does, and wants that to succeed. It
// returns how often f failed.
func untilWhole(t *testing.T, c *sim.Client, f func(x86.Host) error) (failed int) {
	t.Helper()
	for n := 1; ; n++ {
		h := &vanishing{Client: c, t: t, left: n, open: map[*guest.Mapping]*os.File{}}
		err := f(h)
		if len(h.open) > 0 {
			t.Errorf("mapping %d vanished (%v): %d are left open", n, err, len(h.open))
		}
		if h.left > 0 {
			if err != nil {
				t.Fatalf("with all its pages: %v", err)
			}
			return failed
		}
		if err != nil {
			failed++
		}
	}
}
