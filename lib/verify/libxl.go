package verify

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"xenferry/lib/guest"
	"xenferry/lib/record"
	"xenferry/lib/xcstream"
	"xenferry/lib/xlstream"
)

// xl checks an xl header and the libxl stream behind it.
func (v *verifier) xl() error {
	r := record.NewReader(v.src, record.Strict, 0, v.src.off, nil)
	r.TakeAnyEndian()
	h, err := xlstream.ReadXLHeader(r)
	if err := v.tolerate(err); err != nil {
		return err
	}
	v.endian(h.Endian, 0, "xl header")
	info := &XLInfo{Endian: h.Endian.String(), JSON: h.JSON, OptionalFlags: h.Optional, ConfigOctets: len(h.Config)}
	v.report.XL = info
	if h.JSON {
		info.parse(h.Config)
	}
	v.tell(Item{XL, 0, "header and configuration", uint32(v.src.off)})
	if !h.StreamV2 {
		return v.legacy("xl header")
	}
	return v.libxl()
}

// parse takes what the report shows of a domain's configuration. One that cannot be read is not xl's concern either.
func (i *XLInfo) parse(config []byte) {
	var c struct {
		Info struct {
			Name, UUID, Type string
		} `json:"c_info"`
	}
	if json.Unmarshal(config, &c) == nil {
		i.Name, i.UUID, i.Type = c.Info.Name, c.Info.UUID, c.Info.Type
	}
}

// libxl checks a libxl stream and the libxc stream in its midst.
type libxl struct {
	v     *verifier
	r     *xlstream.Reader
	order *xlstream.Order
	img   *XLImage
	x     *libxc
	colo  bool

	contexts uint64 // EMULATOR_CONTEXT records
}

func (v *verifier) libxl() error {
	l := &libxl{v: v, r: xlstream.NewReader(v.src, record.Strict, v.src.off), img: &XLImage{Offset: v.src.off, Records: recordTable{}}}
	l.r.TakeAnyEndian()
	if err := v.tolerate(l.r.Header()); err != nil {
		return err
	}
	v.endian(l.r.Endian(), l.img.Offset, "libxl header")
	v.report.LibXL = l.img
	l.img.Version, l.img.Endian, l.img.Converted = xlstream.Version, l.r.Endian().String(), l.r.Head.Converted()
	l.order = xlstream.NewOrder(record.Strict, false)
	v.tell(Item{LibXL, l.img.Offset, fmt.Sprintf("header, version %d", xlstream.Version), xlstream.HeaderSize})
	for {
		t, err := l.record()
		if err != nil || t == xlstream.TypeEnd {
			return err
		}
		if l.order.InLibxc() {
			if done, err := l.libxc(t); err != nil || done {
				return err
			}
		}
	}
}

// endian warns of a layer that the format allows and nobody restores.
func (v *verifier) endian(e record.Endian, offset uint64, header string) {
	if e == record.BigEndian {
		v.warn(&record.Error{Offset: offset, Record: header, Err: errors.New("big-endian: the format allows it, and stock restore, as ours, refuses it")})
	}
}

// record takes and checks a record.
func (l *libxl) record() (xlstream.Type, error) {
	t, length, err := l.r.Next()
	if err != nil {
		return t, err
	}
	start := l.r.Start()
	if err := l.v.tolerate(l.r.Wrap(l.order.Next(t))); err != nil {
		return t, err
	}
	l.img.Records.add(uint32(t), name(t), length)
	if err := l.v.tolerate(l.body(t)); err != nil {
		return t, err
	}
	l.v.tell(Item{LibXL, start, name(t), length})
	return t, nil
}

func (l *libxl) body(t xlstream.Type) error {
	if t == xlstream.TypeEmulatorContext {
		h, err := l.r.EmulatorContext()
		if err != nil && !record.IsTolerable(err) {
			return err
		}
		l.contexts++
		if e := l.r.Wrap(l.emulator(h.ID)); e != nil {
			return e
		}
		if e := l.r.Skip(); e != nil && (err == nil || !record.IsTolerable(e)) {
			return e
		}
		return err
	}
	body := t.New()
	err := l.r.Decode(body)
	if data, ok := body.(*xlstream.XenstoreData); ok && (err == nil || record.IsTolerable(err)) {
		if e := l.emulator(data.ID); e != nil {
			return l.r.Wrap(e)
		}
	}
	if t == xlstream.TypeEnd && err == nil && l.contexts == 0 && l.v.configured(guest.HVM) {
		return l.r.Wrap(fmt.Errorf("%w: %s of an HVM domain", record.ErrMissing, name(xlstream.TypeEmulatorContext)))
	}
	return err
}

// configured reports whether an xl header says that the domain is of a kind.
func (v *verifier) configured(kind guest.Kind) bool {
	return v.report.XL != nil && v.report.XL.Type == kind.String()
}

// name is a record type's name without the layer, which is shown by itself.
func name(t xlstream.Type) string { return strings.TrimPrefix(t.String(), "libxl ") }

var emulatorNames = [...]string{
	xlstream.EmulatorUnknown: "unknown", xlstream.EmulatorTraditional: "qemu-traditional", xlstream.EmulatorUpstream: "QEMU",
}

// emulator takes note that the domain has an emulator, and so is HVM.
func (l *libxl) emulator(id uint32) error {
	if l.v.configured(guest.PVH) {
		return fmt.Errorf("%w: the domain is PVH, it has no emulator", record.ErrOrder)
	}
	l.img.Emulator = fmt.Sprintf("emulator %d", id)
	if id < uint32(len(emulatorNames)) {
		l.img.Emulator = emulatorNames[id]
	}
	l.x.img.Guest = l.x.kind()
	return nil
}

// libxc checks the libxc stream, or goes on with it behind a CHECKPOINT_END; t is the record before it. done: the input ends
// here, as a stream with checkpoints may.
func (l *libxl) libxc(t xlstream.Type) (done bool, err error) {
	if t == xlstream.TypeCheckpointEnd {
		if done, err := l.checkpointed(); err != nil || done {
			return done, err
		}
		l.x.r.Passed(l.v.src.off - l.x.r.Offset())
	}
	start := l.v.src.off
	defer func() { l.r.Passed(l.v.src.off - start) }()
	if t == xlstream.TypeLibxcContext {
		if l.x, err = l.v.newLibXC(); err != nil {
			return false, err
		}
	}
	ended, err := l.x.records()
	if err != nil {
		return false, err
	}
	hvm := l.x.r.Domain.Type == xcstream.DomainHVM
	if ended {
		l.order.LibxcEnd(hvm)
	} else {
		l.order.Checkpoint(hvm)
	}
	return false, nil
}

// checkpointed looks at what follows a CHECKPOINT_END: the libxc stream; with COLO, whose streams look like Remus' up to here,
// first a CHECKPOINT_STATE; or nothing: the saver was lost, and restore makes the domain of this checkpoint.
func (l *libxl) checkpointed() (done bool, err error) {
	l.img.Checkpoints++
	var next [record.HeaderSize]byte
	n, err := io.ReadFull(l.v.src, next[:])
	l.v.src.unread(next[:n])
	if n == 0 && errors.Is(err, io.EOF) {
		l.v.warn(l.r.Wrap(fmt.Errorf("the stream ends at checkpoint %d without END: its domain is that of this checkpoint", l.img.Checkpoints)))
		return true, nil
	}
	// As a libxc record this would be an X86_PV_VCPU_EXTENDED that is too short, in an HVM stream.
	if e := l.r.Endian(); e.Uint32(next[:]) == uint32(xlstream.TypeCheckpointState) && e.Uint32(next[4:]) == 4 {
		l.colo = true
	}
	if !l.colo {
		return false, nil
	}
	t, length, err := l.r.Next()
	if err != nil {
		return false, err
	}
	if t != xlstream.TypeCheckpointState {
		return false, l.r.Wrap(fmt.Errorf("%w: CHECKPOINT_STATE must follow CHECKPOINT_END in a COLO stream", record.ErrOrder))
	}
	l.img.Records.add(uint32(t), name(t), length)
	if err := l.v.tolerate(l.body(t)); err != nil {
		return false, err
	}
	l.v.tell(Item{LibXL, l.r.Start(), name(t), length})
	return false, nil
}
