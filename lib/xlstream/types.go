package xlstream

import (
	"bytes"
	"fmt"

	"xenferry/lib/record"
)

// Type is a record's type. A reader fails on every type that it does not know; unlike in a libxc stream no bit lets it
// skip one.
type Type uint32

// The record types.
const (
	TypeEnd              Type = 0x00
	TypeLibxcContext     Type = 0x01
	TypeEmulatorXenstore Type = 0x02
	TypeEmulatorContext  Type = 0x03
	TypeCheckpointEnd    Type = 0x04
	TypeCheckpointState  Type = 0x05
)

var typeNames = [...]string{"END", "LIBXC_CONTEXT", "EMULATOR_XENSTORE_DATA", "EMULATOR_CONTEXT", "CHECKPOINT_END", "CHECKPOINT_STATE"}

// String is the type's name in the specification, with the layer in front, or its number.
func (t Type) String() string {
	if t.Known() {
		return "libxl " + typeNames[t]
	}
	return fmt.Sprintf("libxl record %#x", uint32(t))
}

// Known reports whether t is one of the types above.
func (t Type) Known() bool { return int64(t) < int64(len(typeNames)) }

// New returns a value to decode a record of type t into. It is nil for EMULATOR_CONTEXT, which is read by
// Reader.EmulatorContext, and for types that do not exist.
func (t Type) New() Body {
	switch t {
	case TypeEnd, TypeLibxcContext, TypeCheckpointEnd:
		return new(Empty)
	case TypeEmulatorXenstore:
		return new(XenstoreData)
	case TypeCheckpointState:
		return new(CheckpointState)
	}
	return nil
}

// Body is the body of a record.
type Body interface {
	// Append adds the body's octets to b, with numbers of order e. It cannot fail.
	Append(b []byte, e record.Endian) []byte
	// Decode sets the value from the body under c and keeps no reference to it.
	Decode(c *record.Cursor) error
}

// Empty is the body of the records that only signal: END, LIBXC_CONTEXT, CHECKPOINT_END. Stock restore does not look at
// their length; strict mode does.
type Empty struct{}

// Append adds nothing to b.
func (*Empty) Append(b []byte, _ record.Endian) []byte { return b }

// Decode checks that nothing is there.
func (*Empty) Decode(c *record.Cursor) error {
	if !c.Strict() {
		c.Rest()
	}
	return c.Done()
}

// The emulators.
const (
	EmulatorUnknown     = 0 // from a legacy stream
	EmulatorTraditional = 1 // qemu-xen-traditional, not written by Xen 4.21 and later
	EmulatorUpstream    = 2 // QEMU
)

// EmulatorHeader begins the bodies of EMULATOR_XENSTORE_DATA and EMULATOR_CONTEXT:
//
//	0  emulator_id  u32  0 unknown, 1 qemu-traditional, 2 QEMU
//	4  index        u32  0
//
// Stock restore looks at neither; in strict mode others are ErrUnusual. Spec: EMULATOR_XENSTORE_DATA.
type EmulatorHeader struct{ ID, Index uint32 }

const emulatorHeaderSize = 8

// Append adds h's octets to b.
func (h EmulatorHeader) Append(b []byte, e record.Endian) []byte {
	return e.AppendUint32(e.AppendUint32(b, h.ID), h.Index)
}

// decode takes h off the front of c.
func (h *EmulatorHeader) decode(c *record.Cursor) {
	h.ID, h.Index = c.U32(), c.U32()
	if c.Strict() && (h.ID > EmulatorUpstream || h.Index != 0) {
		c.Fail(fmt.Errorf("%w: emulator %d, index %d", record.ErrUnusual, h.ID, h.Index))
	}
}

// Decode sets h from the octets under c.
func (h *EmulatorHeader) Decode(c *record.Cursor) error {
	h.decode(c)
	return c.Done()
}

// KeyValue is a node of xenstore below the emulator's own.
type KeyValue struct{ Key, Value string }

// XenstoreData is EMULATOR_XENSTORE_DATA (type 0x02): an EmulatorHeader, then keys and values in turn, each with a NUL
// behind it. Keys are relative, as physmap/f0000000/start_addr; writers leave the record out when there are none.
//
// Errors: ErrValue for a key that is empty or begins with a slash, ErrLength for what has no NUL or no value; in
// strict mode ErrUnusual for no pair at all. Spec: EMULATOR_XENSTORE_DATA.
type XenstoreData struct {
	EmulatorHeader
	Pairs []KeyValue
}

// Append adds d's body to b. Neither keys nor values may hold a NUL.
func (d *XenstoreData) Append(b []byte, e record.Endian) []byte {
	return AppendPairs(d.EmulatorHeader.Append(b, e), d.Pairs)
}

// AppendPairs adds the pairs to b as the record holds them.
func AppendPairs(b []byte, pairs []KeyValue) []byte {
	for _, p := range pairs {
		b = append(append(b, p.Key...), 0)
		b = append(append(b, p.Value...), 0)
	}
	return b
}

// Decode sets d from the body under c.
func (d *XenstoreData) Decode(c *record.Cursor) error {
	d.decode(c)
	pairs, err := ParsePairs(c.Rest())
	if err != nil {
		c.Fail(err)
	}
	if d.Pairs = pairs; len(pairs) == 0 && c.Strict() {
		c.Fail(fmt.Errorf("%w: no data", record.ErrUnusual))
	}
	return c.Done()
}

// ParsePairs is the inverse of AppendPairs.
func ParsePairs(b []byte) (pairs []KeyValue, err error) {
	for size := len(b); len(b) > 0; {
		at := size - len(b) + emulatorHeaderSize
		key, rest, ok := bytes.Cut(b, []byte{0})
		value, tail, ok2 := bytes.Cut(rest, []byte{0})
		switch {
		case !ok, !ok2:
			return nil, fmt.Errorf("%w: key or value at %d without a NUL", record.ErrLength, at)
		case len(key) == 0 || key[0] == '/':
			return nil, fmt.Errorf("%w: key %q at %d", record.ErrValue, key, at)
		}
		pairs = append(pairs, KeyValue{string(key), string(value)})
		b = tail
	}
	return pairs, nil
}

// The states of a COLO checkpoint.
const (
	CheckpointNew          = 0 // primary to secondary
	CheckpointSVMSuspended = 1 // secondary to primary, as the ones below
	CheckpointSVMReady     = 2
	CheckpointSVMResumed   = 3
)

// CheckpointState is CHECKPOINT_STATE (type 0x05): control_id, u32. The body has 4 octets though the specification draws
// 8. Stock restore looks only at the first four. Errors: ErrLength, ErrValue for an id that does not exist.
type CheckpointState struct{ ID uint32 }

// Append adds s's body to b.
func (s *CheckpointState) Append(b []byte, e record.Endian) []byte { return e.AppendUint32(b, s.ID) }

// Decode sets s from the body under c.
func (s *CheckpointState) Decode(c *record.Cursor) error {
	if s.ID = c.U32(); s.ID > CheckpointSVMResumed {
		c.Failf("control_id %d does not exist", s.ID)
	}
	if !c.Strict() {
		c.Rest()
	}
	return c.Done()
}
