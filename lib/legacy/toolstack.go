package legacy

import (
	"bytes"
	"fmt"
	"strconv"
	"unicode/utf8"

	"xenferry/lib/record"
)

// ParseToolstack turns what libxl 4.2 to 4.5 put into TOOLSTACK into the text of EMULATOR_XENSTORE_DATA: xenstore keys and
// values below the emulator's node, a NUL behind each. No data stands for nothing. Else it is:
//
//	0  version  u32  1
//	4  count    u32
//	8  count regions of QEMU's physical memory map:
//	    0  phys_offset  u64
//	    8  start_addr   u64
//	   16  size         u64
//	   24  namelen      u32  with the NUL; 0 for a region without a name
//	   28  name
//	   then, from a 64-bit toolstack, 4 octets that its writer did not mean to send
//
// What follows the last region is ignored. The errors are record.ErrValue and record.ErrLength.
func ParseToolstack(data []byte, w Width) (text []byte, err error) {
	if len(data) == 0 {
		return nil, nil
	}
	c := record.NewCursor(data, record.Lenient)
	version, count := c.U32(), c.U32()
	if c.Err() == nil && version != 1 {
		return nil, fmt.Errorf("%w: toolstack data of version %d, only 1 is known", record.ErrValue, version)
	}
	for range count {
		if text, err = appendRegion(text, c, w); err != nil {
			return nil, err
		}
	}
	return text, c.Err()
}

// appendRegion takes a region off c and adds what xenstore has of it to text.
func appendRegion(text []byte, c *record.Cursor, w Width) ([]byte, error) {
	phys, start, size := c.U64(), c.U64(), c.U64()
	length := uint64(c.U32())
	if c.Err() == nil && length > uint64(c.Left()) {
		return nil, fmt.Errorf("%w: a region's name of %d octets, %d are left", record.ErrLength, length, c.Left())
	}
	name, named := bytes.CutSuffix(c.Bytes(int(length)), []byte{0})
	if w == Width64 {
		c.Bytes(4)
	}
	switch {
	case c.Err() != nil:
		return nil, c.Err()
	case length > 0 && !named:
		return nil, fmt.Errorf("%w: a region's name without a NUL behind it: %q", record.ErrValue, name)
	case !utf8.Valid(name):
		return nil, fmt.Errorf("%w: a region's name is not UTF-8: %q", record.ErrValue, name)
	}
	key := "physmap/" + strconv.FormatUint(phys, 16)
	text = appendPair(text, key+"/start_addr", strconv.AppendUint(nil, start, 16))
	text = appendPair(text, key+"/size", strconv.AppendUint(nil, size, 16))
	if named {
		text = appendPair(text, key+"/name", name)
	}
	return text, nil
}

func appendPair(text []byte, key string, value []byte) []byte {
	text = append(append(text, key...), 0)
	return append(append(text, value...), 0)
}
