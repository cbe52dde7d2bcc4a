package migrate

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"

	"xenferry/lib/emulator"
	"xenferry/lib/guard"
	"xenferry/lib/guest"
	"xenferry/lib/helper"
	"xenferry/lib/host"
	"xenferry/lib/record"
	"xenferry/lib/transport"
	"xenferry/lib/xlstream"
	"xenferry/lib/xlstream/filter"
)

// Target is a domain that is restored or received.
type Target struct {
	Side
	Peer   string                   // the source, as the journal has it; may be empty
	Config []byte                   // in place of the one in xl's header, unless nil
	Name   func(name string) string // what the domain is called while it is incomplete; nil for its own name
	// Into is a shell command that makes the domain, as xl restore -p /proc/self/fd/0 does, and leaves it paused; empty has the host
	// make it, which has no devices to give.
	Into string

	Domain   guest.Info // as it was made
	name     string     // its own
	id       uuid.UUID  // of the hand-over, if the source offered to hold it
	state    guard.State
	made     bool
	promised bool // the source was told that the domain is complete, and may ask later
	held     bool // until the source says whose it is
	rings    guest.Rings
}

// Read reads a domain from in, from xl's header to libxl's END and not an octet more, and makes it: complete, paused, its
// devices stopped. After a failure there is none. Errors of the stream match record.IsInvalid.
func (t *Target) Read(ctx context.Context, in *os.File) (err error) {
	defer func() {
		if err != nil {
			err = t.Undo(ctx, err)
		}
	}()
	var h *xlstream.XLHeader
	var spec guest.Spec
	var off uint64
	if err := patiently(ctx, in, t.Patience, func(src io.Reader) (err error) {
		h, spec, off, err = t.readHead(src)
		return err
	}); err != nil {
		return err
	}
	src, err := transport.NewReader(ctx, int(in.Fd()))
	if err != nil {
		return err
	}
	if t.Into != "" {
		return t.hand(ctx, src, h, spec, off)
	}
	r := xlstream.NewReader(src, record.Lenient, off)
	if err := r.Header(); err != nil {
		return err
	}
	return t.readRecords(ctx, in, r, spec)
}

// readHead reads xl's header and returns it, with the configuration that counts, and what domain to make.
func (t *Target) readHead(src io.Reader) (h *xlstream.XLHeader, spec guest.Spec, off uint64, err error) {
	if h, off, err = filter.ReadXL(src); err != nil {
		return h, spec, off, err
	}
	t.id = offered(h.Tail)
	switch {
	case t.Config != nil:
		h.Config, h.JSON = t.Config, true
	case h.Config == nil:
		return h, spec, off, errors.New("no configuration is in the stream: one must be given")
	case !h.JSON:
		return h, spec, off, errors.New("the configuration in the stream is an xl.cfg, which only xl understands: one as JSON must be given")
	}
	if spec, err = SpecOf(h.Config); err != nil {
		return h, spec, off, err
	}
	if !emulator.StartedBy(t.Host) && t.Into == "" {
		if err := withoutDevices(h.Config); err != nil {
			return h, spec, off, err
		}
	}
	t.name = spec.Name
	if _, ok := t.Host.(renamer); ok && t.Name != nil {
		spec.Name = t.Name(spec.Name)
	}
	return h, spec, off, nil
}

// readRecords reads the libxl stream behind its header.
func (t *Target) readRecords(ctx context.Context, in *os.File, r *xlstream.Reader, spec guest.Spec) error {
	order := xlstream.NewOrder(record.Lenient, false)
	loaded := false
	for {
		typ, _, err := r.Next()
		if err != nil {
			return err
		}
		if err := order.Next(typ); err != nil {
			return r.Wrap(err)
		}
		switch typ {
		case xlstream.TypeEmulatorContext:
			err, loaded = t.loadEmulator(ctx, r), true
		case xlstream.TypeEmulatorXenstore:
			err = t.loadKeys(ctx, r)
		default:
			err = r.Decode(typ.New())
		}
		if err != nil {
			return err
		}
		if typ == xlstream.TypeEnd {
			if t.Domain.Kind == guest.HVM && !loaded {
				return r.Wrap(fmt.Errorf("%w: %v of an HVM domain", record.ErrMissing, xlstream.TypeEmulatorContext))
			}
			return nil
		}
		if order.InLibxc() {
			begin := position(in)
			if err := t.restore(ctx, in, spec); err != nil {
				return err
			}
			r.Passed(position(in) - begin)
			order.LibxcEnd(!t.Domain.Kind.PV())
		}
	}
}

// position is where a file is read, so that errors can tell; always 0 of a pipe.
func position(f *os.File) uint64 {
	n, err := unix.Seek(int(f.Fd()), 0, io.SeekCurrent)
	if err != nil {
		return 0
	}
	return uint64(n)
}

// restore makes the domain and has xc-restore fill it.
func (t *Target) restore(ctx context.Context, in *os.File, spec guest.Spec) error {
	if err := t.create(ctx, spec); err != nil {
		return err
	}
	at("run xc-restore")
	defer at("xc-restore is done")
	child := &worker{program: "xc-restore", host: t.Spec, log: t.Log, answer: t.answer}
	d := &t.Domain
	if err := child.run(ctx, in, "--restore-domain %d -1 %d %d 0 %d 0 768 0", stream, d.ID, d.StoreEvtchn, d.ConsoleEvtchn); err != nil {
		return err
	}
	if i, ok := t.Host.(host.Introducer); ok {
		return i.Introduce(ctx, d.ID, t.rings)
	}
	return nil
}

// announce tells guardian and journal of a domain that is about to be made.
func (t *Target) announce(ctx context.Context, spec guest.Spec) error {
	all, err := t.Host.Domains(ctx)
	if err != nil {
		return err
	}
	t.state.UUID, t.state.Destroy = spec.UUID, true
	for _, d := range all {
		t.state.Existing = append(t.state.Existing, d.ID)
	}
	if t.Name != nil {
		if err := t.begin(ctx, TargetSide, Receiving, Record{ID: t.id, UUID: spec.UUID, Name: t.name, Peer: t.Peer, Existing: t.state.Existing}); err != nil {
			return err
		}
	}
	return t.tell(t.state)
}

// have takes note of the domain that was made.
func (t *Target) have(d guest.Info) error {
	t.made, t.state.Domain, t.Domain = true, d.ID, d
	t.Log.Info().Msgf("domain %d created", d.ID)
	return t.tell(t.state)
}

func (t *Target) create(ctx context.Context, spec guest.Spec) error {
	if err := t.announce(ctx, spec); err != nil {
		return err
	}
	at("create")
	id, err := t.Host.Create(ctx, spec)
	if err != nil {
		return fmt.Errorf("create a domain: %w", err)
	}
	if err := t.have(guest.Info{ID: id, UUID: spec.UUID}); err != nil {
		return err
	}
	d, err := t.Host.Info(ctx, id)
	if err != nil {
		return err
	}
	t.Domain = d
	if e := emulator.Open(t.Host, t.Domain); e != nil {
		return e.Stop(ctx)
	}
	return nil
}

// answer does what xc-restore asks for.
func (t *Target) answer(_ context.Context, m *helper.Message) (int32, error) {
	switch m.Kind {
	case helper.StaticDataDone:
		if m.Numbers[0]&helper.MissingCPUID != 0 {
			t.Log.Warn().Msg("the stream has no CPU policy: the domain sees the one that this host makes up")
		}
		return 0, nil
	case helper.RestoreResults:
		t.rings = guest.Rings{Store: guest.GFN(m.Numbers[0]), Console: guest.GFN(m.Numbers[1])}
		return 0, nil
	}
	return -1, fmt.Errorf("xc-restore asks for %v, which was not offered", m.Kind)
}

// loadEmulator takes an EMULATOR_CONTEXT to the emulator.
func (t *Target) loadEmulator(ctx context.Context, r *xlstream.Reader) error {
	e := emulator.Open(t.Host, t.Domain)
	if _, err := r.EmulatorContext(); err != nil {
		return err
	}
	if e == nil {
		t.Log.Warn().Msgf("the state of an emulator is left out: domain %d, of kind %v, has none", t.Domain.ID, t.Domain.Kind)
		return r.Skip()
	}
	f, err := stateFile()
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	if err := errors.Join(r.Copy(f), r.End()); err != nil {
		return err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	return e.Load(ctx, f)
}

// loadKeys takes an EMULATOR_XENSTORE_DATA to the emulator.
func (t *Target) loadKeys(ctx context.Context, r *xlstream.Reader) error {
	var d xlstream.XenstoreData
	if err := r.Decode(&d); err != nil {
		return err
	}
	e := emulator.Open(t.Host, t.Domain)
	if e == nil {
		return nil
	}
	return e.SetKeys(ctx, d.Pairs)
}
