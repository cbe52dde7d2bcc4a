package helper

import (
	"fmt"
	"io"

	"xenferry/lib/record"
)

// Message is a frame that arrived at libxl's end.
type Message struct {
	Kind Kind
	// Numbers are its arguments that are numbers, in order; Texts those that are strings.
	Numbers []uint64
	Texts   []string
}

// arguments says what follows a message's number: u and U are 32 and 64 bits, s a string.
var arguments = map[Kind]string{
	Log: "uuss", Progress: "ssUU", SwitchQEMULogDirty: "uu", StaticDataDone: "u", RestoreResults: "UU", Complete: "uu",
}

// ReadMessage reads a frame from a helper. libxl drops what it does not understand; here that is an error.
func ReadMessage(r io.Reader, n Numbering) (*Message, error) {
	var head [2]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	body := make([]byte, le.Uint16(head[:]))
	if _, err := io.ReadFull(r, body); err != nil {
		return nil, fmt.Errorf("frame of %d octets: %w", len(body), err)
	}
	c := record.NewCursor(body, record.Strict)
	number := c.U16()
	m := &Message{Kind: n.kind(number)}
	if c.Err() == nil && m.Kind == 0 {
		return nil, fmt.Errorf("message %d is none", number)
	}
	for _, a := range arguments[m.Kind] {
		switch a {
		case 'u':
			m.Numbers = append(m.Numbers, uint64(c.U32()))
		case 'U':
			m.Numbers = append(m.Numbers, c.U64())
		case 's':
			b := c.Bytes(int(c.U32()))
			if c.Err() == nil && (len(b) == 0 || b[len(b)-1] != 0) {
				return nil, fmt.Errorf("%v: a string does not end in NUL", m.Kind)
			}
			if len(b) > 0 {
				m.Texts = append(m.Texts, string(b[:len(b)-1]))
			}
		}
	}
	if err := c.Done(); err != nil {
		return nil, fmt.Errorf("%v: %w", m.Kind, err)
	}
	return m, nil
}

// Reply answers a message that wants it.
func Reply(w io.Writer, value int32) error {
	_, err := w.Write(le.AppendUint32(nil, uint32(value)))
	return err
}
