package x86

import (
	"context"
	"runtime"
	"slices"
	"strings"
	"testing"

	"xenferry/lib/guest"
	"xenferry/lib/record"
	"xenferry/lib/xcstream"
)

// send places entries and fills their pages, in order, with what fill gives them.
func send(r Target, fill func(i int, page []byte), entries ...xcstream.PageEntry) error {
	var b xcstream.Batch
	if err := r.Place(context.Background(), entries, &b); err != nil {
		return err
	}
	for i, page := range b.Pages {
		fill(i, page)
	}
	return r.Placed(context.Background(), entries, &b)
}

func zeros(_ int, page []byte) { clear(page) }

// pteTo fills a table with one entry.
func pteTo(p guest.PFN) func(int, []byte) {
	return func(_ int, page []byte) {
		clear(page)
		le.PutUint64(page, uint64(p)<<guest.PageShift|ptePresent)
	}
}

func openFake(t testing.TB, kind guest.Kind, maxPages uint64) (*fakeHost, Target) {
	t.Helper()
	h := newFakeHost(kind, 4096, maxPages)
	d := xcstream.DomainHeader{Type: xcstream.DomainHVM}
	if kind.PV() {
		d.Type = xcstream.DomainPV
	}
	r, err := OpenRestore(context.Background(), h, 1, d)
	if err != nil {
		t.Fatal(err)
	}
	return h, r
}

// openFakePV is a domain of 64 PFNs, of which 10 holds the P2M.
func openFakePV(t testing.TB) (*fakeHost, *PVRestore) {
	t.Helper()
	h, r := openFake(t, guest.PV64, 1000)
	if err := r.PVInfo(context.Background(), xcstream.PVInfo{Width: 8, Levels: 4}); err != nil {
		t.Fatal(err)
	}
	if err := r.P2MFrames(context.Background(), xcstream.P2MFrames{End: fakePages - 1, Frames: []guest.PFN{10}}); err != nil {
		t.Fatal(err)
	}
	return h, r.(*PVRestore)
}

func entry(p guest.PFN, t guest.PageType) xcstream.PageEntry { return xcstream.NewPageEntry(p, t) }

// TestRefusals gives both types of domain what they must refuse, and looks at what they say: that the stream is invalid,
// unless the host refuses, or a domain that is too small is what it was told to be.
func TestRefusals(t *testing.T) {
	ctx := context.Background()
	const byHost = "! "
	vcpu := func(id uint32, size int) []byte {
		return xcstream.VCPU{ID: id, Context: make([]byte, size)}.Append(nil)
	}
	for _, row := range []struct {
		name string
		kind guest.Kind
		do   func(r Target) error
		want string // of which some begin with byHost: that is not the stream's fault
	}{
		{"HVM: PV record", guest.HVM, func(r Target) error { return r.PVInfo(ctx, xcstream.PVInfo{Width: 8, Levels: 4}) }, "X86_PV_INFO has no place"},
		{"HVM: P2M", guest.HVM, func(r Target) error { return r.P2MFrames(ctx, xcstream.P2MFrames{}) }, "X86_PV_P2M_FRAMES has no place"},
		{"HVM: shared_info", guest.HVM, func(r Target) error { return r.Record(ctx, xcstream.TypeSharedInfo, nil) }, "SHARED_INFO has no place"},
		{"HVM: far PFN", guest.HVM, func(r Target) error { return send(r, zeros, entry(1<<51, 0)) }, "PFN 0x8000000000000 is out of range"},
		{"HVM: more than its memory", guest.HVM, func(r Target) error {
			for p := range guest.PFN(2000) {
				if err := send(r, zeros, entry(p, 0)); err != nil {
					return err
				}
			}
			return nil
		}, byHost + "refused"},
		{"HVM: no context", guest.HVM, func(r Target) error { _, err := r.Finish(ctx); return err }, "missing: HVM_CONTEXT"},
		{"HVM: empty context", guest.HVM, func(r Target) error { return r.Record(ctx, xcstream.TypeHVMContext, nil) }, "empty"},
		{"HVM: parameter of 64 bits", guest.HVM, func(r Target) error {
			return r.Record(ctx, xcstream.TypeHVMParams, xcstream.HVMParams{{Index: 1 << 32, Value: 1}}.Append(nil))
		}, "parameter 0x100000000 does not exist"},
		{"PV: second info", guest.PV64, func(r Target) error { return r.PVInfo(ctx, xcstream.PVInfo{Width: 8, Levels: 4}) }, "a second one"},
		{"PV: HVM record", guest.PV64, func(r Target) error { return r.Record(ctx, xcstream.TypeHVMContext, []byte{1}) }, "HVM_CONTEXT has no place"},
		{"PV: P2M too long", guest.PV64, func(r Target) error {
			return r.P2MFrames(ctx, xcstream.P2MFrames{Start: 1<<32 - 512, End: 1<<32 - 1, Frames: make([]guest.PFN, 1)})
		}, byHost + "end_pfn 0xffffffff is out of range"},
		{"PV: P2M of another length", guest.PV64, func(r Target) error {
			return r.P2MFrames(ctx, xcstream.P2MFrames{End: 512, Frames: make([]guest.PFN, 1)})
		}, "need 2 P2M frames"},
		{"PV: far PFN", guest.PV64, func(r Target) error { return send(r, zeros, entry(fakePages, 0)) }, "PFN 0x40 is out of range"},
		{"PV: far PFN, verified", guest.PV64, func(r Target) error {
			return r.Compare(ctx, []xcstream.PageEntry{entry(1<<51, 0)}, &xcstream.Batch{})
		}, "out of range"},
		{"PV: PTE to a far PFN", guest.PV64, func(r Target) error { return send(r, pteTo(fakePages), entry(3, guest.L1Tab)) },
			"page table PFN 0x3 (l1tab): slot 0 (PTE 0x40001): bad value: PFN 0x40 is out of range"},
		{"PV: vCPU that is not there", guest.PV64, func(r Target) error { return r.Record(ctx, xcstream.TypeX86PVVCPUBasic, vcpu(1, 5168)) }, byHost + "vCPU 1: domain 1 has 1"},
		{"PV: part of a vCPU that is not there", guest.PV64, func(r Target) error { return r.Record(ctx, xcstream.TypeX86PVVCPUExtended, vcpu(1, 64)) }, "vCPU 1: domain 1 has 1"},
		{"PV: context of another size", guest.PV64, func(r Target) error { return r.Record(ctx, xcstream.TypeX86PVVCPUBasic, vcpu(0, 2800)) }, "2800 octets"},
		{"PV: context of another vCPU", guest.PV64, func(r Target) error {
			b := vcpu(0, 64)
			b[8] = 1
			return r.Record(ctx, xcstream.TypeX86PVVCPUExtended, b)
		}, "not vCPU 0's"},
		{"PV: incomplete", guest.PV64, func(r Target) error { _, err := r.Finish(ctx); return err }, "missing: SHARED_INFO"},
	} {
		t.Run(row.name, func(t *testing.T) {
			var r Target
			if row.kind.PV() {
				_, r = openFakePV(t)
			} else {
				_, r = openFake(t, row.kind, 1000)
			}
			want, notStream := strings.CutPrefix(row.want, byHost)
			if err := row.do(r); err == nil || !strings.Contains(err.Error(), want) || record.IsInvalid(err) == notStream {
				t.Errorf("error %v, want one with %q, of the stream: %v", err, want, !notStream)
			}
		})
	}
	if _, err := OpenRestore(ctx, newFakeHost(guest.PVH, 64, 1), 1, xcstream.DomainHeader{Type: xcstream.DomainPV}); err == nil {
		t.Error("a PV stream into a PVH domain")
	}
}

// TestEarlyTables: page tables may lead to pages that come later, and a page may come twice in one batch.
func TestEarlyTables(t *testing.T) {
	h, r := openFakePV(t)
	if err := send(r, pteTo(7), entry(3, guest.L1Tab)); err != nil {
		t.Fatal(err)
	}
	if r.mfns[7] == guest.InvalidMFN {
		t.Fatal("no frame for what a page table leads to")
	}
	at := r.mfns[7]
	if err := send(r, zeros, entry(7, guest.NoTab)); err != nil || r.mfns[7] != at {
		t.Fatalf("PFN 7 moved from %#x to %#x: %v", at, r.mfns[7], err)
	}
	if got := le.Uint64(h.pages[guest.GFN(r.mfns[3])]); got != uint64(at)<<guest.PageShift|1 {
		t.Errorf("PTE %#x, want MFN %#x", got, at)
	}

	// The same PFN as table and as table again: the second counts, and is made the target's once.
	if err := send(r, pteTo(8), entry(5, guest.L1Tab), entry(4, guest.NoTab), entry(5, guest.L1Tab)); err != nil {
		t.Fatal(err)
	}
	if got := le.Uint64(h.pages[guest.GFN(r.mfns[5])]); got != uint64(r.mfns[8])<<guest.PageShift|1 {
		t.Errorf("PTE %#x, want MFN %#x", got, r.mfns[8])
	}
	// As table and then as an ordinary page: nothing is changed in it.
	if err := send(r, pteTo(8), entry(6, guest.L1Tab), entry(6, guest.NoTab)); err != nil {
		t.Fatal(err)
	}
	if got := le.Uint64(h.pages[guest.GFN(r.mfns[6])]); got != 8<<guest.PageShift|1 {
		t.Errorf("an ordinary page was changed: %#x", got)
	}
}

// TestRelease: in the end the domain has exactly the pages that are there, and those that page tables lead to.
func TestRelease(t *testing.T) {
	h, r := openFakePV(t)
	steps := []error{
		send(r, zeros, entry(1, guest.NoTab), entry(2, guest.NoTab)),
		send(r, pteTo(7), entry(3, guest.L1Tab)),
		send(r, pteTo(8), entry(4, guest.L1Tab)),
		send(r, zeros, entry(2, guest.XTab), entry(4, guest.L1Tab), entry(9, guest.Broken)),
		r.release(context.Background()),
	}
	for i, err := range steps {
		if err != nil {
			t.Fatalf("step %d: %v", i, err)
		}
	}
	for p, want := range map[guest.PFN]bool{1: true, 2: false, 3: true, 4: true, 7: true, 8: false, 9: false} {
		if got := r.mfns[p] != guest.InvalidMFN; got != want {
			t.Errorf("PFN %d has a frame: %v, want %v", p, got, want)
		}
	}
	if len(h.pages) != 1+4 { // shared_info and four
		t.Errorf("the domain has %d pages", len(h.pages))
	}
}

// FuzzTarget gives a domain whatever can be in a stream. It may refuse anything, but must neither panic nor take memory
// out of proportion to the domain's.
func FuzzTarget(f *testing.F) {
	f.Add(uint8(0), []byte("\x00\x01\x00\x02\x40\x00\x10\x0a\x01\x05\x00\x00\x11\x03\x00\x00\x05"))
	f.Add(uint8(1), []byte("\x01\x02\x40\x00\x10\x0a\x01\x05\x00\x00\x13\x03\x00\x00\x05"))
	f.Add(uint8(2), []byte("\x02\x03\x01\x00\x00\x00\x02\x00\xf0\x03\x0a\x09\x05"))
	f.Fuzz(func(t *testing.T, kind uint8, in []byte) {
		_, r := openFake(t, guest.PV64+guest.Kind(kind%3), 64)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		drive(r, in)
		runtime.ReadMemStats(&after)
		if got := after.TotalAlloc - before.TotalAlloc; got > 256<<20 {
			t.Errorf("%d octets for a domain of 64 pages and %d octets of input", got, len(in))
		}
	})
}

// drive makes calls of octets.
func drive(r Target, in []byte) {
	ctx := context.Background()
	take := func(n int) []byte {
		b := make([]byte, n)
		in = in[copy(b, in):]
		return b
	}
	_ = r.PVInfo(ctx, xcstream.PVInfo{Width: 8, Levels: 4})
	for range 50 {
		switch op := take(1)[0]; op % 8 {
		case 0:
			b := take(2)
			_ = r.PVInfo(ctx, xcstream.PVInfo{Width: b[0], Levels: b[1]})
		case 1, 2:
			b := take(10)
			frames := xcstream.P2MFrames{Start: le.Uint32(b), End: le.Uint32(b[4:]), Frames: make([]guest.PFN, b[8])}
			for i := range frames.Frames {
				frames.Frames[i] = guest.PFN(b[9]) + guest.PFN(i)
			}
			_ = r.P2MFrames(ctx, frames)
		case 3, 4:
			var entries []xcstream.PageEntry
			for range op / 16 {
				b := take(3)
				p := guest.PFN(b[0])
				if b[1] > 0xF0 {
					p <<= b[1] & 0x3F
				}
				entries = append(entries, entry(p, guest.PageType(b[2]&0xF)))
			}
			fill := func(_ int, page []byte) { copy(page, take(16)) }
			if op%8 == 3 {
				_ = send(r, fill, entries...)
				continue
			}
			var b xcstream.Batch
			if r.Compare(ctx, entries, &b) == nil {
				_, _ = r.Compared(ctx, entries, &b)
			}
		case 5:
			_, _ = r.Finish(ctx)
		case 6:
			_ = r.Record(ctx, xcstream.TypeX86PVVCPUBasic, append(make([]byte, 8), take(5168)...))
			_ = r.Record(ctx, xcstream.TypeSharedInfo, take(4096))
			_ = r.Record(ctx, xcstream.TypeHVMContext, take(24))
		case 7:
			_ = r.Record(ctx, xcstream.Type(take(1)[0]), take(int(op)))
		}
	}
}

// TestCompare: VERIFY names the pages that differ and no others, page tables among them, and changes nothing.
func TestCompare(t *testing.T) {
	h, r := openFakePV(t)
	ctx := context.Background()
	fill := func(i int, page []byte) {
		if i == 0 {
			pteTo(2)(i, page)
			return
		}
		page[100] = byte(i)
	}
	entries := []xcstream.PageEntry{entry(1, guest.L1Tab), entry(2, 0), entry(3, 0), entry(4, guest.XTab)}
	if err := send(r, fill, entries...); err != nil {
		t.Fatal(err)
	}
	compare := func(entries ...xcstream.PageEntry) []guest.PFN {
		var b xcstream.Batch
		if err := r.Compare(ctx, entries, &b); err != nil {
			t.Fatal(err)
		}
		for i, page := range b.Pages {
			clear(page)
			fill(i, page)
		}
		differ, err := r.Compared(ctx, entries, &b)
		if err != nil {
			t.Fatal(err)
		}
		return differ
	}
	if got := compare(entries...); got != nil {
		t.Errorf("pages %d differ", got)
	}
	h.pages[guest.GFN(r.mfns[1])][8] = 1
	h.pages[guest.GFN(r.mfns[3])][8] = 1
	if got := compare(append(entries, entry(5, 0))...); !slices.Equal(got, []guest.PFN{1, 3, 5}) {
		t.Errorf("pages %d differ, want 1, 3 and 5", got)
	}
	if r.mfns[5] != guest.InvalidMFN {
		t.Error("comparing gave the domain a page")
	}
}
