package xlstream

import (
	"fmt"

	"xenferry/lib/record"
)

// phase is where in a stream its reader is.
type phase uint8

const (
	phaseBegin      phase = iota // LIBXC_CONTEXT must come
	phaseLibxc                   // the libxc stream is read
	phaseCheckpoint              // it stands at a CHECKPOINT
	phaseState                   // COLO: CHECKPOINT_STATE must come before the libxc stream goes on
	phaseTail                    // it has ended
	phaseEnd                     // END has come
)

var phaseNames = [...]string{"before LIBXC_CONTEXT", "within the libxc stream", "in a checkpoint",
	"where CHECKPOINT_STATE must come", "after the libxc stream", "after END"}

// Order is the order in which the records of one stream may come:
//
//	LIBXC_CONTEXT, libxc stream, [EMULATOR_XENSTORE_DATA], [EMULATOR_CONTEXT], END
//
// and where the libxc stream stops at a CHECKPOINT, in between:
//
//	[EMULATOR_XENSTORE_DATA], [EMULATOR_CONTEXT], CHECKPOINT_END, [CHECKPOINT_STATE if COLO], libxc stream goes on
//
// Stock restore takes records outside a checkpoint in any order, one by one until END, and so restores a domain without
// memory, or loads a second libxc stream over the first; neither mode of ours follows it there. What lenient mode takes
// and strict mode calls unusual are emulator records that come again or in reverse.
//
// The owner asks Next before it takes a record's body, and tells Checkpoint and LibxcEnd of the libxc stream.
// Spec: Layout, and the C code for checkpoints.
type Order struct {
	mode  record.Mode
	colo  bool
	phase phase
	noHVM bool // the domain is PV: it has no emulator
	seen  uint8
}

// NewOrder returns the Order of a stream. colo says that it is one of COLO, which the stream itself does not tell.
func NewOrder(mode record.Mode, colo bool) *Order { return &Order{mode: mode, colo: colo} }

// Next reports whether a record of type t may come now, and takes it as come. Errors: record.ErrUnknown,
// record.ErrOrder; and record.ErrUnusual in strict mode, with which the record has come all the same.
func (o *Order) Next(t Type) error {
	if !t.Known() {
		return record.ErrUnknown
	}
	next, ok := o.phase, false
	switch t {
	case TypeLibxcContext:
		next, ok = phaseLibxc, o.phase == phaseBegin
	case TypeEnd:
		next, ok = phaseEnd, o.phase == phaseTail
	case TypeCheckpointEnd:
		if next, ok = phaseLibxc, o.phase == phaseCheckpoint; o.colo {
			next = phaseState
		}
	case TypeCheckpointState:
		next, ok = phaseLibxc, o.phase == phaseState
	case TypeEmulatorXenstore, TypeEmulatorContext:
		if ok = o.phase == phaseTail || o.phase == phaseCheckpoint; ok && o.noHVM {
			return fmt.Errorf("%w: the domain is x86 PV, it has no emulator", record.ErrOrder)
		}
	}
	if !ok {
		return fmt.Errorf("%w: %s", record.ErrOrder, phaseNames[o.phase])
	}
	o.phase = next
	return o.unusual(t)
}

// unusual takes note of an emulator record and is the error of one that comes again or in reverse.
func (o *Order) unusual(t Type) (err error) {
	bit := uint8(1) << t
	switch {
	case t != TypeEmulatorXenstore && t != TypeEmulatorContext || o.mode != record.Strict:
		return nil
	case o.seen&bit != 0:
		err = fmt.Errorf("%w: comes again", record.ErrUnusual)
	case o.seen > bit:
		err = fmt.Errorf("%w: comes after %v", record.ErrUnusual, TypeEmulatorContext)
	}
	o.seen |= bit
	return err
}

// Checkpoint takes note that the libxc stream stands at a CHECKPOINT; hvm says of what type its domain is.
func (o *Order) Checkpoint(hvm bool) { o.leaveLibxc(phaseCheckpoint, hvm) }

// LibxcEnd takes note that the libxc stream has ended; hvm says of what type its domain is.
func (o *Order) LibxcEnd(hvm bool) { o.leaveLibxc(phaseTail, hvm) }

func (o *Order) leaveLibxc(p phase, hvm bool) {
	if o.phase == phaseLibxc {
		o.phase, o.noHVM, o.seen = p, !hvm, 0
	}
}

// InLibxc reports whether the next octets are those of the libxc stream.
func (o *Order) InLibxc() bool { return o.phase == phaseLibxc }
