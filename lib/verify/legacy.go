package verify

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"

	"xenferry/lib/guest"
	"xenferry/lib/legacy"
	"xenferry/lib/record"
	"xenferry/lib/xcstream"
)

// Legacy is an image of Xen 4.5 or older, as far as it can be read. It is no valid stream; Convert is what makes one of it.
type Legacy struct {
	Offset      uint64       `json:"offset"` // of p2m_size
	Width       int          `json:"width"`  // 32 or 64: word size of the toolstack that saved it
	Guest       string       `json:"guest"`  // pv64, pv32, or hvm; pv where nothing tells
	PFNs        uint64       `json:"p2m_size"`
	Parts       []LegacyPart `json:"parts"` // by kind, in the order of first appearance
	Entries     uint64       `json:"entries"`
	WithData    uint64       `json:"with_data"`
	VCPUs       uint64       `json:"vcpus"` // of a PV guest, with state, in the last checkpoint
	Checkpoints uint64       `json:"checkpoints"`
	QEMU        string       `json:"qemu,omitempty"` // signature of the emulator's state
	Problem     *Finding     `json:"problem,omitempty"`
	Convert     string       `json:"convert,omitempty"` // the command that converts it
	layout      legacy.Layout
}

// LegacyPart counts the parts of a kind.
type LegacyPart struct {
	Name   string `json:"name"`
	Count  uint64 `json:"count"`
	Octets uint64 `json:"octets"`
}

// looksLegacy reports whether head, of 8 octets, can begin a legacy image: the number of the guest's PFNs, below 2^28 and as
// wide as a long of the saving toolstack; a narrow one is followed by all ones (PV) or by the first chunk's id (HVM),
// which is a small negative number or a count of pages. Or it is the header of xend.
func looksLegacy(head []byte) bool {
	const maxPFNs = 0x0fffffff
	pfns, next := binary.LittleEndian.Uint32(head), legacy.ChunkID(binary.LittleEndian.Uint32(head[4:]))
	return pfns > 0 && pfns <= maxPFNs && next.Known() || string(head) == "LinuxGue"
}

// legacy describes a legacy image, and refuses it. what is where it was recognised.
func (v *verifier) legacy(what string) error {
	at := v.src.off
	r := legacy.NewReader(v.src, legacy.Options{Offset: at, Checkpoints: !v.opts.AllowTrailing})
	img := &Legacy{Parts: []LegacyPart{}}
	var failed error
	for {
		item, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if item != nil {
			img.add(r, item, v.tell)
		}
		var hurt *legacy.Damage
		if err != nil && failed == nil {
			failed = err
		}
		if err != nil && !errors.As(err, &hurt) {
			break
		}
	}
	if v.src.err != nil {
		return v.src.err
	}
	if img.Width == 0 {
		return &record.Error{Offset: at, Record: what, Err: ErrLegacy}
	}
	v.report.Legacy = img
	img.Checkpoints = uint64(r.Whole())
	if failed != nil {
		finding := findingOf(failed)
		img.Problem = &finding
	}
	img.Convert = v.convertCommand(img, failed)
	err := ErrLegacy
	if img.Convert != "" {
		err = fmt.Errorf("%w: %s", ErrLegacy, img.Convert)
	}
	return &record.Error{Offset: at, Record: what, Err: err}
}

// add takes note of an item.
func (img *Legacy) add(r *legacy.Reader, item legacy.Item, tell func(Item)) {
	start := r.Start()
	octets := r.Offset() - start + r.Left()
	name := item.Name()
	switch it := item.(type) {
	case *legacy.Size:
		img.Offset, img.PFNs = start, it.PFNs
		img.layout = r.Layout()
		img.Width, img.Guest = 8*int(img.layout.Width), img.layout.Guest()
	case *legacy.Block:
		if it.Width != 0 {
			img.Guest = fmt.Sprintf("pv%d", 8*it.Width)
		}
		name = "extended info"
	case *legacy.Batch:
		img.Entries += uint64(len(it.Entries))
		img.WithData += uint64(it.Pages)
	case *legacy.VCPUState:
		if it.Type == xcstream.TypeX86PVVCPUBasic {
			img.VCPUs++
		}
		name = "vCPUs"
	case *legacy.QEMU:
		img.QEMU = it.Signature
	case *legacy.Checkpoint:
		img.VCPUs = 0
		return
	}
	if name != (*legacy.Batch)(nil).Name() { // too many to be told of
		tell(Item{legacyLayer, start, item.Name(), uint32(min(octets, math.MaxUint32))})
	}
	for i := range img.Parts {
		if img.Parts[i].Name == name {
			img.Parts[i].Count++
			img.Parts[i].Octets += octets
			return
		}
	}
	img.Parts = append(img.Parts, LegacyPart{name, 1, octets})
}

// convertCommand is what to type to convert the image; nothing if it cannot be converted.
func (v *verifier) convertCommand(img *Legacy, failed error) string {
	name := v.opts.Name
	if name == "" {
		name = "IMAGE"
	}
	words := []string{"convert-legacy", "-i", quote(name), "-o", quote(name + ".v2"), "-w", img.layout.Width.String(), "-g", img.layout.Guest()}
	if v.report.XL != nil {
		words = append(words, "-x")
	}
	format := LibXC
	if v.report.XL != nil || img.QEMU != "" {
		format = LibXL
	}
	words = append(words, "-f", format.String())
	switch {
	case img.Checkpoints > 1:
		words = append(words, "--last-checkpoint")
	case img.Checkpoints == 1: // whatever is wrong is behind it
	case errors.Is(failed, legacy.ErrUnsupported):
		return ""
	default:
		words = append(words, "--salvage")
	}
	return strings.Join(words, " ")
}

// quote makes a word of s for a shell.
func quote(s string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("/._-+,=@%:", r)
	}
	if s != "" && strings.IndexFunc(s, func(r rune) bool { return !plain(r) }) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

func (t *textReport) legacy(img *Legacy) {
	t.line("legacy", "image of Xen 4.5 or older at %#x, saved by a %d-bit toolstack", img.Offset, img.Width)
	t.line("guest", "%s with %#x PFNs", img.Guest, img.PFNs)
	for i, p := range img.Parts {
		t.line(first(i, "parts"), "%s: %d, %d octets", p.Name, p.Count, p.Octets)
	}
	t.line("pages", "%d entries, %d with data (%d MiB)", img.Entries, img.WithData, img.WithData*guest.PageSize>>20)
	if img.VCPUs > 0 {
		t.line("vCPUs", "%d", img.VCPUs)
	}
	t.line("checkpoints", "%d whole", img.Checkpoints)
	if img.QEMU != "" {
		t.line("emulator", "%s", img.QEMU)
	}
	if img.Problem != nil {
		t.line("problem", "%v", img.Problem.Err())
	}
	if img.Convert != "" {
		t.line("convert with", "%s", img.Convert)
	}
}
