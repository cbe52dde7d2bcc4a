package record

import "encoding/binary"

// Endian is the order of the octets in a stream's numbers, which the stream's header tells. Whoever writes one today writes
// it little-endian; Xen's formats leave the other to hosts that are big-endian, and every restore refuses that.
type Endian bool

// The orders.
const (
	LittleEndian Endian = false
	BigEndian    Endian = true
)

// String is the order as a report writes it.
func (e Endian) String() string {
	if e == BigEndian {
		return "big"
	}
	return "little"
}

// Uint16 is the number in the first 2 octets of b.
func (e Endian) Uint16(b []byte) uint16 {
	if e == BigEndian {
		return binary.BigEndian.Uint16(b)
	}
	return binary.LittleEndian.Uint16(b)
}

// Uint32 is the number in the first 4 octets of b.
func (e Endian) Uint32(b []byte) uint32 {
	if e == BigEndian {
		return binary.BigEndian.Uint32(b)
	}
	return binary.LittleEndian.Uint32(b)
}

// Uint64 is the number in the first 8 octets of b.
func (e Endian) Uint64(b []byte) uint64 {
	if e == BigEndian {
		return binary.BigEndian.Uint64(b)
	}
	return binary.LittleEndian.Uint64(b)
}

// AppendUint32 adds a number to b.
func (e Endian) AppendUint32(b []byte, v uint32) []byte {
	if e == BigEndian {
		return binary.BigEndian.AppendUint32(b, v)
	}
	return binary.LittleEndian.AppendUint32(b, v)
}
