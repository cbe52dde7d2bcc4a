package verify

import (
	"fmt"
	"io"
	"strings"

	"xenferry/lib/legacy"
	"xenferry/lib/record"
)

// handover is what the source of a migration says behind the stream, each with a NUL: xl the first, when the domain is the
// target's to run; xl-stream also the others, where both know how to hold a domain.
var handover = []string{
	"domain is yours, you are cleared to unpause",
	"domain stays with me, destroy your copy",
	"my copy is destroyed, forget about hand-over",
}

// maxTrailing is how much is read behind the stream's end: enough for all that can be told there.
const maxTrailing = 256

// trailing looks at what is behind the stream's end, where nothing should be.
func (v *verifier) trailing() error {
	end := v.src.off
	buf := make([]byte, maxTrailing)
	n, _ := io.ReadFull(v.src, buf) // an error of the input is kept by the source
	rest := string(buf[:n])
	for _, word := range handover {
		if more, ok := strings.CutPrefix(rest, word+"\x00"); ok && v.report.XL != nil {
			v.report.Handover = append(v.report.Handover, word)
			rest = more
		}
	}
	if rest == "" {
		return nil
	}
	err := ErrTrailing
	for _, signature := range []string{legacy.QEMULibxl, legacy.QEMURemus, legacy.QEMUXend} {
		if strings.HasPrefix(rest, signature) {
			err = fmt.Errorf("%w: the QEMU record %q, as convert-legacy keeps it behind a libxc stream; --allow-trailing stops before it, "+
				"and convert-legacy -f libxl makes it part of the stream", ErrTrailing, signature)
		}
	}
	return &record.Error{Offset: end + uint64(n-len(rest)), Record: "end", Err: err}
}
