package legacy

import (
	"errors"
	"fmt"
	"io"
	"math/bits"

	"xenferry/lib/guest"
	"xenferry/lib/record"
	"xenferry/lib/xcstream"
)

// chunk takes a chunk.
func (r *Reader) chunk() (Item, error) {
	if err := r.lookAhead(); err != nil {
		return nil, err
	}
	r.begin("chunk")
	n, err := r.u32()
	if err != nil {
		return nil, err
	}
	id := ChunkID(n)
	r.afterSmall = id <= 0
	r.name = id.String()
	if id > 0 {
		return r.pages(int64(id))
	}
	if _, ok := chunkParams[id]; ok {
		b, err := r.take(12)
		return &Param{id, le.Uint64(b[4:])}, err
	}
	switch id {
	case ChunkEnd:
		r.next = r.tail
		return &Marker{id}, nil
	case ChunkLastCheckpoint:
		r.last = true
		return &Marker{id}, nil
	case ChunkEnableVerify:
		return &Marker{id}, nil
	case ChunkEnableCompression:
		return &Marker{id}, damage(ErrUnsupported, "what follows the first checkpoint are differences to what the sender had sent")
	case ChunkTmem, ChunkTmemExtra:
		return nil, fmt.Errorf("%w: transcendent memory has no form in a stream of today", ErrUnsupported)
	case ChunkVCPUInfo:
		return r.vcpuInfo()
	case ChunkTSCInfo:
		b, err := r.take(20)
		return &TSC{Mode: le.Uint32(b), NSec: le.Uint64(b[4:]), KHz: le.Uint32(b[12:]), Incarnation: le.Uint32(b[16:])}, err
	case ChunkToolstack:
		size, err := r.u32()
		r.left = uint64(size)
		return &Toolstack{Size: size}, err
	case ChunkCompressedData:
		return r.compressed()
	}
	return nil, fmt.Errorf("%w: no writer has such a chunk", record.ErrUnknown)
}

// lookAhead takes many small chunks at once, which a hostile image may have without end: as long as END has not come, the
// least that can follow is known, so that it is still the image's. Behind a batch that is not worth it.
func (r *Reader) lookAhead() error {
	if !r.afterSmall || r.off < r.ahead {
		return nil
	}
	least := 4 + 4 + guest.PageSize // END, no unmapped PFNs, shared info
	if r.layout.Domain == xcstream.DomainHVM {
		least = 4 + magicPFNsSize + 4 // END, magic PFNs, empty HVM context
		if !r.opts.SkipQEMU {
			least += len(QEMULibxl)
		}
	}
	head, err := r.src.Peek(least)
	r.ahead = r.off + uint64(len(head))
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return nil // whoever needs more than there is says so
	}
	return err
}

// compressed takes a COMPRESSED_DATA chunk whole, as a shorter one is rather a truncated image than an unsupported one.
func (r *Reader) compressed() (Item, error) {
	size, err := r.u32()
	if err != nil {
		return nil, err
	}
	r.left = uint64(size)
	if err := r.MoveTo(io.Discard); err != nil {
		return nil, err
	}
	return &Compressed{size}, fmt.Errorf("%w: the pages are differences to what the sender had sent", ErrUnsupported)
}

// The bits of a page batch's entry.
const (
	entryPFN  = 0x0fffffff
	entryType = 0xf0000000
	entryBare = 0xf0000000 // a whole entry that stands for nothing
	noData    = 0xd0000000 // types from this on have no contents
)

// pages takes a page batch of count entries up to its contents.
func (r *Reader) pages(count int64) (Item, error) {
	if count > maxBatch {
		return nil, fmt.Errorf("%w: %d pages, at most %d are in a batch", record.ErrLimit, count, maxBatch)
	}
	width := int(r.layout.Width)
	if r.entries == nil {
		r.entries = make([]byte, maxBatch*width)
		r.batch.Entries = make([]xcstream.PageEntry, 0, maxBatch)
	}
	raw := r.entries[:int(count)*width]
	if err := r.readFull(raw); err != nil {
		return nil, err
	}
	b := &r.batch
	*b = Batch{Entries: b.Entries[:0]}
	ordered, before := true, uint64(0)
	for ; len(raw) > 0; raw = raw[width:] {
		e := r.layout.Width.number(raw)
		if e == entryBare {
			b.Bare++
			continue
		}
		ordered = ordered && (len(b.Entries) == 0 || e > before)
		before = e
		if e&entryType < noData {
			b.Pages++
		}
		b.Entries = append(b.Entries, xcstream.NewPageEntry(guest.PFN(e&entryPFN), guest.PageType(e&entryType>>28)))
	}
	r.left = uint64(b.Pages) * guest.PageSize
	if !ordered {
		return b, r.duplicates(r.entries[:int(count)*width])
	}
	return b, nil
}

// duplicates looks for entries that come twice.
func (r *Reader) duplicates(raw []byte) error {
	if r.seen == nil {
		r.seen = make(map[uint64]struct{}, maxBatch)
	}
	clear(r.seen)
	for ; len(raw) > 0; raw = raw[r.layout.Width:] {
		e := r.layout.Width.number(raw)
		if _, ok := r.seen[e]; ok && e != entryBare {
			r.batch.Twice = true
			return damage(record.ErrValue, "entry %#x comes twice", e)
		}
		r.seen[e] = struct{}{}
	}
	return nil
}

func (r *Reader) vcpuInfo() (Item, error) {
	n, err := r.u32()
	if err != nil {
		return nil, err
	}
	v := &VCPUInfo{MaxID: int32(n)}
	if v.MaxID > maxVCPUID {
		return nil, fmt.Errorf("%w: max_id is %d, at most %d is taken", record.ErrLimit, v.MaxID, maxVCPUID)
	}
	if v.MaxID < 0 {
		return v, nil
	}
	for word := range uint32(v.MaxID)/64 + 1 {
		b, err := r.take(8)
		if err != nil {
			return nil, err
		}
		for set := le.Uint64(b); set != 0; set &= set - 1 {
			v.Online = append(v.Online, word*64+uint32(bits.TrailingZeros64(set)))
		}
	}
	if r.stale {
		r.online, r.stale = nil, false
	}
	if r.online = append(r.online, v.Online...); len(r.online) > maxPending {
		return nil, fmt.Errorf("%w: more than %d vCPUs in all", record.ErrLimit, maxPending)
	}
	return v, nil
}
