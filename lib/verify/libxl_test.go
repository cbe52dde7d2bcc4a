package verify

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"xenferry/lib/record"
	"xenferry/lib/testkit"
	"xenferry/lib/xcstream"
	"xenferry/lib/xlstream"
)

// xlRecord is a libxl record as octets.
func xlRecord(t xlstream.Type, body string) string {
	return string(record.AppendRecord(nil, uint32(t), xcstream.Raw(body).Append))
}

// bigRecord is one with its numbers big-endian; body's are its own.
func bigRecord(t xlstream.Type, body string) string {
	return string(record.BigEndian.AppendRecord(nil, uint32(t), xcstream.Raw(body).Append))
}

// xlHeader is an xl header around a configuration.
func xlHeader(config string) string {
	return string(xlstream.XLHeader{JSON: true, StreamV2: true, Config: []byte(config)}.Append(nil))
}

const (
	qemu     = "\x02\x00\x00\x00\x00\x00\x00\x00" // emulator 2, index 0
	bigQEMU  = "\x00\x00\x00\x02\x00\x00\x00\x00"
	physmap  = "physmap/f0000000/start_addr\x00f0000000\x00physmap/f0000000/name\x00\x00"
	pvConfig = `{"c_info": {"type": "pv", "name": "g1", "uuid": "0b23c95f-c817-407b-9eec-b3597cc6da65"}, "b_info": {}}`
)

func config(kind string) string { return strings.Replace(pvConfig, `"pv"`, `"`+kind+`"`, 1) }

// epochs is a libxc stream cut at its CHECKPOINTs: the first has everything, the others a page and all state.
func epochs(t *testing.T, count int) (parts []string) {
	all := split(t, newHVM().stream(t))
	for i := range count {
		chunks := drop(xcstream.TypeEnd)(append([]chunk{}, all...))
		if i > 0 {
			chunks = chunks[index(chunks, xcstream.TypePageData):]
		}
		chunks = append(chunks, chunk{xcstream.TypeCheckpoint, record.AppendRecord(nil, uint32(xcstream.TypeCheckpoint), xcstream.Raw(nil).Append)})
		parts = append(parts, string(join(chunks)))
	}
	return parts
}

// TestLibXL: streams with a libxl layer, and with xl's around it.
func TestLibXL(t *testing.T) {
	header := string(xlstream.Header{}.Append(nil))
	libxcContext := xlRecord(xlstream.TypeLibxcContext, "")
	end := xlRecord(xlstream.TypeEnd, "")
	context := xlRecord(xlstream.TypeEmulatorContext, qemu+"QEVM and so on")
	store := xlRecord(xlstream.TypeEmulatorXenstore, qemu+physmap)
	checkpointEnd := xlRecord(xlstream.TypeCheckpointEnd, "")
	colo := xlRecord(xlstream.TypeCheckpointState, "\x00\x00\x00\x00")
	pv, hvm := string(newPV(8, 1).stream(t)), string(newHVM().stream(t))
	part := epochs(t, 3)
	xcEnd := xlRecord(0, "") // END is the same in both layers
	optional := xlRecord(0x80000001, "?")
	big := string(xlstream.Header{Options: xlstream.OptionBigEndian}.Append(nil))
	bigContext, bigEnd := bigRecord(xlstream.TypeLibxcContext, ""), bigRecord(xlstream.TypeCheckpointEnd, "")
	bigEmulator := bigRecord(xlstream.TypeEmulatorContext, bigQEMU+"QEVM")
	bigColo := bigRecord(xlstream.TypeCheckpointState, "\x00\x00\x00\x00")
	bigXL := string(xlstream.XLHeader{Endian: record.BigEndian, JSON: true, StreamV2: true, Config: []byte(config("hvm"))}.Append(nil))

	rows := []struct {
		name   string
		parts  []string
		want   error
		warned bool
	}{
		{"PV", []string{header, libxcContext, pv, end}, nil, false},
		{"HVM", []string{header, libxcContext, hvm, store, context, end}, nil, false},
		{"HVM without xenstore data", []string{header, libxcContext, hvm, context, end}, nil, false},
		{"PVH", []string{header, libxcContext, hvm, end}, nil, false},
		{"xl, PV", []string{xlHeader(config("pv")), header, libxcContext, pv, end}, nil, false},
		{"xl, HVM", []string{xlHeader(config("hvm")), header, libxcContext, hvm, store, context, end}, nil, false},
		{"xl, no configuration", []string{string(xlstream.XLHeader{StreamV2: true}.Append(nil)), header, libxcContext, pv, end}, nil, false},
		{"xl, text", []string{string(xlstream.XLHeader{StreamV2: true, Config: []byte("name='x'")}.Append(nil)), header, libxcContext, pv, end}, nil, false},
		{"converted", []string{string(xlstream.Header{Options: xlstream.OptionLegacy}.Append(nil)), libxcContext, pv, end}, nil, false},

		{"other options", []string{string(xlstream.Header{Options: 4}.Append(nil)), libxcContext, pv, end}, nil, true},
		{"emulator nobody knows", []string{header, libxcContext, hvm, xlRecord(xlstream.TypeEmulatorContext, "\x03\x00\x00\x00\x00\x00\x00\x00..."), end}, nil, true},
		{"emulator's index", []string{header, libxcContext, hvm, xlRecord(xlstream.TypeEmulatorContext, "\x02\x00\x00\x00\x01\x00\x00\x00..."), end}, nil, true},
		{"padding", []string{header, libxcContext, hvm, context[:len(context)-1] + "!", end}, nil, true},
		{"emulator twice", []string{header, libxcContext, hvm, context, context, end}, nil, true},
		{"xenstore data last", []string{header, libxcContext, hvm, context, store, end}, nil, true},
		{"xl, configuration is no JSON", []string{xlHeader("{"), header, libxcContext, pv, end}, nil, true},
		{"libxc padding", []string{header, libxcContext, strings.Replace(hvm, xlRecord(0x10, ""), xlRecord(0x10, "")+optional[:9]+"\x00!\x00\x00\x00\x00\x00", 1), end}, nil, true},

		{"no libxc stream", []string{header, end}, record.ErrOrder, false},
		{"two libxc streams", []string{header, libxcContext, pv, libxcContext, pv, end}, record.ErrOrder, false},
		{"emulator before the libxc stream", []string{header, context, libxcContext, hvm, end}, record.ErrOrder, false},
		{"emulator of PV", []string{header, libxcContext, pv, context, end}, record.ErrOrder, false},
		{"xl, emulator of PVH", []string{xlHeader(config("pvh")), header, libxcContext, hvm, context, end}, record.ErrOrder, false},
		{"xl, HVM without emulator", []string{xlHeader(config("hvm")), header, libxcContext, hvm, end}, record.ErrMissing, false},
		{"no END", []string{header, libxcContext, pv}, record.ErrTruncated, false},
		{"no libxc END", []string{header, libxcContext, pv[:len(pv)-8]}, record.ErrTruncated, false},
		{"GO and more", []string{xlHeader(config("pv")), header, libxcContext, pv, end, handover[0] + "\x00" + handover[2] + "\x00"}, nil, false},
		{"GO cut off", []string{xlHeader(config("pv")), header, libxcContext, pv, end, handover[0]}, ErrTrailing, false},
		{"GO without xl's header", []string{header, libxcContext, pv, end, handover[0] + "\x00"}, ErrTrailing, false},
		{"behind END", []string{header, libxcContext, pv, end, "GO"}, ErrTrailing, false},
		{"unknown record", []string{header, libxcContext, pv, xlRecord(6, ""), end}, record.ErrUnknown, false},
		{"optional record", []string{header, libxcContext, pv, optional, end}, record.ErrUnknown, false},
		{"checkpoint's end outside", []string{header, libxcContext, hvm, checkpointEnd, end}, record.ErrOrder, false},
		{"END with a body", []string{header, libxcContext, pv, xlRecord(0, "????????")}, record.ErrLength, false},

		{"big-endian PV", []string{big, bigContext, pv, end}, nil, true},
		{"big-endian HVM", []string{big, bigContext, hvm, bigRecord(xlstream.TypeEmulatorXenstore, bigQEMU+physmap), bigEmulator, end}, nil, true},
		{"big-endian, converted", []string{string(xlstream.Header{Options: 3}.Append(nil)), bigContext, pv, end}, nil, true},
		{"big-endian, checkpoints", []string{big, bigContext, part[0], bigEmulator, bigEnd, part[1], bigEmulator, bigEnd, xcEnd, end}, nil, true},
		{"big-endian, COLO", []string{big, bigContext, part[0], bigEmulator, bigEnd, bigColo, part[1], bigEmulator, bigEnd}, nil, true},
		{"big-endian, COLO without its state", []string{big, bigContext, part[0], bigEmulator, bigEnd, bigColo, part[1], bigEmulator, bigEnd, part[2]}, record.ErrLimit, true},
		{"big-endian, COLO with a state of the other order", []string{big, bigContext, part[0], bigEmulator, bigEnd, colo, part[1]}, record.ErrOrder, true},
		{"xl, big-endian", []string{bigXL, big, bigContext, hvm, bigEmulator, end}, nil, true},
		{"xl, only its header big-endian", []string{bigXL, header, libxcContext, hvm, context, end}, nil, true},
		{"xl, only the stream big-endian", []string{xlHeader(config("hvm")), big, bigContext, hvm, bigEmulator, end}, nil, true},
		{"big-endian, but its records are not", []string{big, libxcContext, pv, end}, record.ErrUnknown, true},
		{"little-endian, but its records are not", []string{header, bigContext, pv, end}, record.ErrUnknown, false},
		{"big-endian, emulator little-endian", []string{big, bigContext, hvm, bigRecord(xlstream.TypeEmulatorContext, qemu+"QEVM"), end}, nil, true},
		{"big-endian, behind END", []string{big, bigContext, pv, end, "GO"}, ErrTrailing, true},
		{"absolute key", []string{header, libxcContext, hvm, xlRecord(xlstream.TypeEmulatorXenstore, qemu+"/a\x00b\x00"), context, end}, record.ErrValue, false},
		{"key without value", []string{header, libxcContext, hvm, xlRecord(xlstream.TypeEmulatorXenstore, qemu+"a\x00"), context, end}, record.ErrLength, false},
		{"short emulator", []string{header, libxcContext, hvm, xlRecord(xlstream.TypeEmulatorContext, "1234"), end}, record.ErrLength, false},
		{"xl, legacy", []string{string(xlstream.XLHeader{JSON: true, Config: []byte("{}")}.Append(nil)), "\x00\x00\x02\x00\x00\x00\x00\x00"}, ErrLegacy, false},
		{"xl, unknown flag", []string{strings.Replace(xlHeader("{}"), "\x03\x00\x00\x00", "\x07\x00\x00\x00", 1), header, libxcContext, pv, end}, record.ErrValue, false},

		{"checkpoints, then lost", []string{header, libxcContext, part[0], store, context, checkpointEnd, part[1], context, checkpointEnd}, nil, true},
		{"checkpoints, then END", []string{header, libxcContext, part[0], context, checkpointEnd, part[1], context, checkpointEnd, xcEnd, end}, nil, false},
		{"checkpoints, lost within", []string{header, libxcContext, part[0], context, checkpointEnd, part[1][:5000]}, record.ErrTruncated, false},
		{"checkpoint without end", []string{header, libxcContext, part[0], context, part[1]}, record.ErrOrder, false},
		{"lost before the checkpoint's end", []string{header, libxcContext, part[0], context}, record.ErrTruncated, false},
		{"END in a checkpoint", []string{header, libxcContext, part[0], context, end}, record.ErrOrder, false},
		{"libxc stream in a checkpoint", []string{header, libxcContext, part[0], libxcContext, hvm, end}, record.ErrOrder, false},
		{"optional record behind a checkpoint", []string{header, libxcContext, part[0], context, checkpointEnd, optional, part[1], context, checkpointEnd}, record.ErrOrder, false},
		{"COLO", []string{header, libxcContext, part[0], context, checkpointEnd, colo, part[1], context, checkpointEnd, colo, part[2], context, checkpointEnd}, nil, true},
		{"COLO without its state", []string{header, libxcContext, part[0], context, checkpointEnd, colo, part[1], context, checkpointEnd, part[2], context, checkpointEnd}, record.ErrOrder, false},
		{"COLO with another state", []string{header, libxcContext, part[0], context, checkpointEnd, xlRecord(5, "\x09\x00\x00\x00"), part[1]}, record.ErrValue, false},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			stream := []byte(strings.Join(row.parts, ""))
			var items []Item
			r := verified(t, stream, Options{Record: func(it Item) { items = append(items, it) }})
			checkItems(t, stream, r, items)
			if err := failure(r); !errors.Is(err, row.want) || r.Valid != (row.want == nil) {
				t.Fatalf("got %v, want %v", err, row.want)
			}
			if (r.Warnings.Count != 0) != row.warned {
				t.Errorf("warnings: %v", r.Warnings.First)
			}
			var text bytes.Buffer
			if err := r.WriteText(&text); err != nil || text.Len() == 0 {
				t.Errorf("text: %v", err)
			}
			if r.LibXL != nil && r.LibXL.Endian != "little" != strings.Contains(row.name, "big-endian") && r.XL == nil {
				t.Errorf("%s-endian", r.LibXL.Endian)
			}
		})
	}
}

// checkItems: what Options.Record was told of stands in the stream that r is of, one behind the other.
func checkItems(t *testing.T, stream []byte, r *Report, items []Item) {
	t.Helper()
	next := uint64(0)
	for _, it := range items {
		if it.Offset != next {
			t.Errorf("%v %s at %#x, what is before it ends at %#x", it.Layer, it.Name, it.Offset, next)
		}
		next = it.Offset + uint64(it.Length)
		if !strings.Contains(it.Name, "header") {
			h := record.Header{Length: it.Length}
			next = it.Offset + record.HeaderSize + h.Padded()
			order := record.Endian(it.Layer == LibXL && r.LibXL.Endian == "big")
			if length := order.Uint32(stream[it.Offset+4:]); length != it.Length {
				t.Errorf("%v %s at %#x has length %d, not %d", it.Layer, it.Name, it.Offset, length, it.Length)
			}
		}
	}
}

// TestEndian: each layer's order is reported in its own right, and what nobody restores is said to be so, also pedantically.
func TestEndian(t *testing.T) {
	for _, order := range []record.Endian{record.LittleEndian, record.BigEndian} {
		for _, xl := range []record.Endian{record.LittleEndian, record.BigEndian} {
			head := xlstream.XLHeader{Endian: xl, JSON: true, StreamV2: true, Config: []byte(config("pv"))}.Append(nil)
			options := uint32(xlstream.OptionLegacy)
			if order == record.BigEndian {
				options |= xlstream.OptionBigEndian
			}
			stream := order.AppendRecord(xlstream.Header{Options: options}.Append(head), uint32(xlstream.TypeLibxcContext), xcstream.Raw(nil).Append)
			stream = append(append(stream, newPV(8, 1).stream(t)...), xlRecord(xlstream.TypeEnd, "")...)
			r := verified(t, stream, Options{Pedantic: true})
			var warned []uint64
			for _, w := range r.Warnings.First {
				warned = append(warned, w.Offset)
			}
			var want []uint64
			if xl == record.BigEndian {
				want = append(want, 0)
			}
			if order == record.BigEndian {
				want = append(want, uint64(len(head)))
			}
			if !r.Valid || r.XL.Endian != xl.String() || r.LibXL.Endian != order.String() || !r.LibXL.Converted || !slices.Equal(warned, want) {
				t.Errorf("%s in %s: %v, %+v, %+v, %v", order, xl, failure(r), r.XL, r.LibXL, r.Warnings.First)
			}
			var text bytes.Buffer
			if err := r.WriteText(&text); err != nil || strings.Count(text.String(), "little-endian")+strings.Count(text.String(), "big-endian") != 2+len(want) ||
				!strings.Contains(text.String(), order.String()+"-endian, converted from a legacy stream") {
				t.Errorf("%v: %s", err, &text)
			}
		}
	}
}

// TestGuest: what tells the kind of an HVM domain.
func TestGuest(t *testing.T) {
	pic, none := newHVM(), newHVM()
	none.context = append(none.context[:2:2], none.context[4:]...)
	header := string(xlstream.Header{}.Append(nil)) + xlRecord(xlstream.TypeLibxcContext, "")
	end := xlRecord(xlstream.TypeEnd, "")
	emulator := xlRecord(xlstream.TypeEmulatorContext, qemu)
	rows := []struct{ name, stream, want string }{
		{"interrupt controllers", string(pic.stream(t)), "hvm"},
		{"none", string(none.stream(t)), "pvh"},
		{"emulator", header + string(none.stream(t)) + emulator + end, "hvm"},
		{"configuration", xlHeader(config("pvh")) + header + string(pic.stream(t)) + end, "pvh"},
		{"before any tells", string(none.stream(t)[:64]), "hvm or pvh"},
		{"PV before PV_INFO", string(newPV(8, 1).stream(t)[:40]), "pv"},
	}
	for _, row := range rows {
		if r := verified(t, []byte(row.stream), Options{}); r.LibXC.Guest != row.want {
			t.Errorf("%s: %s, want %s (%v)", row.name, r.LibXC.Guest, row.want, failure(r))
		}
	}
}

// TestLayerVectors: pedantic verification of the outer layers ends as strict reading does.
func TestLayerVectors(t *testing.T) {
	for format, layer := range map[string]Layer{testkit.LibXL: LibXL, testkit.XL: XL} {
		vectors, err := testkit.Vectors(format)
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range vectors {
			t.Run(format+"/"+v.Name, func(t *testing.T) {
				r := verified(t, v.Data, Options{Layer: layer, Pedantic: true})
				if err := v.Either.Check(failure(r)); err != nil {
					t.Error(err)
				}
			})
		}
	}
}
