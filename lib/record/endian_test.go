package record

import (
	"bytes"
	"errors"
	"testing"

	"pgregory.net/rapid"
)

// num is a body of one number of each size.
type num struct {
	a uint16
	b uint32
	c uint64
}

func (n *num) Decode(c *Cursor) error {
	n.a, n.b, n.c = c.U16(), c.U32(), c.U64()
	return c.Done()
}

// Headers and bodies are read in the order that was asked for, and big-endian ones only by who said so.
func TestEndian(t *testing.T) {
	body := []byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14}
	for e, want := range map[Endian]num{
		LittleEndian: {0x0201, 0x06050403, 0x0E0D0C0B0A090807},
		BigEndian:    {0x0102, 0x03040506, 0x0708090A0B0C0D0E},
	} {
		in := e.AppendRecord([]byte("head"), 7, func(b []byte) []byte { return append(b, body...) })
		r := NewReader(bytes.NewReader(in[4:]), Strict, 14, 0, name)
		if err := r.SetEndian(e); (err != nil) != (e == BigEndian) || e == BigEndian && !errors.Is(err, ErrValue) || r.Endian() == BigEndian {
			t.Errorf("%s: %v", e, err)
		}
		r.TakeAnyEndian()
		if err := r.SetEndian(e); err != nil || r.Endian() != e {
			t.Errorf("%s: %v", e, err)
		}
		h, err := r.Next()
		if err != nil || h != (Header{7, 14}) {
			t.Errorf("%s: %+v, %v", e, h, err)
		}
		var got num
		if err := r.Decode(&got); err != nil || got != want || r.Offset() != uint64(len(in)-4) || string(in[:4]) != "head" {
			t.Errorf("%s: %+v, %v, want %+v", e, got, err, want)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		e := Endian(rapid.Bool().Draw(t, "big"))
		v := rapid.Uint32().Draw(t, "v")
		if b := e.AppendUint32(nil, v); e.Uint32(b) != v || e.Uint16(b) == e.Uint16(b[2:]) != (v>>16 == v&0xFFFF) ||
			e.Uint64(append(b, b...)) != uint64(v)<<32|uint64(v) {
			t.Fatalf("% x", b)
		}
	})
}
