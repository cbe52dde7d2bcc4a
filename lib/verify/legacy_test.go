package verify

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"xenferry/lib/guest"
	"xenferry/lib/legacy"
	"xenferry/lib/legacy/legacytest"
	"xenferry/lib/xcstream"
)

// TestLegacy: an image of Xen 4.5 is recognised, described, and the command named that converts it.
func TestLegacy(t *testing.T) {
	for seed := range uint64(60) {
		img := legacytest.Genuine(seed)
		img.NoQEMU = false
		name := strings.Repeat("it's", int(seed%2)) + "image"
		r := verified(t, img.Data, Options{Name: name, AllowTrailing: true})
		if r.Valid || !errors.Is(failure(r), ErrLegacy) || r.Legacy == nil {
			t.Fatalf("%s: %v", img.What, failure(r))
		}
		l := r.Legacy
		if l.Width != 8*int(img.Layout.Width) || !strings.HasPrefix(l.Guest, img.Layout.Guest()) || l.Entries == 0 {
			t.Errorf("%s: %+v", img.What, l)
		}
		if cut := img.Layout.Domain == xcstream.DomainHVM && l.QEMU == ""; !cut && (l.Problem != nil || l.Checkpoints != 1) {
			t.Errorf("%s: %+v", img.What, l.Problem)
		}
		if want := " -w " + img.Layout.Width.String() + " -g " + img.Layout.Guest() + " -f libx"; !strings.Contains(l.Convert, want) ||
			seed%2 == 1 && !strings.Contains(l.Convert, `-i 'it'\''simage' -o 'it'\''simage.v2'`) {
			t.Errorf("%s: %s", img.What, l.Convert)
		}
	}
}

// TestLegacyCommand: what is to be typed depends on what the image is.
func TestLegacyCommand(t *testing.T) {
	const plain = "convert-legacy -i IMAGE -o IMAGE.v2 -w 64 -g hvm -f libxl"
	image := func(head, chunks func(w *legacytest.Writer), times int) []byte {
		w := &legacytest.Writer{Width: legacy.Width64}
		head(w)
		w.Size(16)
		for range times {
			w.Batch([]uint64{legacytest.Entry(0, guest.NoTab)}, func(uint64, []byte) {})
			chunks(w)
			w.Chunk(legacy.ChunkEnd)
			w.MagicPFNs(1, 2, 3)
			w.Blob(nil)
			w.QEMU(legacy.QEMULibxl, nil)
		}
		return w.B
	}
	nothing := func(*legacytest.Writer) {}
	last := func(w *legacytest.Writer) { w.Chunk(legacy.ChunkLastCheckpoint) }
	whole := image(nothing, last, 1)
	for _, row := range []struct {
		name, want string
		data       []byte
	}{
		{"whole", plain, whole},
		{"behind it something else", plain, append(bytes.Clone(whole), "?!"...)},
		{"xl's header", strings.Replace(plain, " -f", " -x -f", 1), image(func(w *legacytest.Writer) { w.XLHeader(1, legacytest.XLConfig("{}")) }, last, 1)},
		{"xend's header", plain, image(func(w *legacytest.Writer) { w.XendHeader("(domain)") }, last, 1)},
		{"Remus, three checkpoints", plain + " --last-checkpoint", image(nothing, nothing, 3)},
		{"cut off", strings.Replace(plain, "libxl", "libxc", 1) + " --salvage", whole[:len(whole)-26]},
		{"tmem", "", image(nothing, func(w *legacytest.Writer) { w.Chunk(legacy.ChunkTmem) }, 1)},
	} {
		r := verified(t, row.data, Options{})
		if !errors.Is(failure(r), ErrLegacy) || r.Legacy == nil || r.Legacy.Convert != row.want {
			t.Errorf("%s: %v, %+v", row.name, failure(r), r.Legacy)
			continue
		}
		var text strings.Builder
		if err := r.WriteText(&text); err != nil || row.want != "" && !strings.Contains(text.String(), "convert with  "+row.want+"\n") {
			t.Errorf("%s: %v\n%s", row.name, err, text.String())
		}
	}
}
