package verify

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"xenferry/lib/guest"
)

// maxRoundLines is how many rounds the text shows.
const maxRoundLines = 20

// WriteText writes the report for people.
func (r *Report) WriteText(w io.Writer) error {
	t := &textReport{tab: tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)}
	t.verdict(r)
	if r.XL != nil {
		t.xl(r.XL)
	}
	if r.LibXL != nil {
		t.libxl(r.LibXL)
	}
	if r.LibXC != nil {
		t.libxc(r.LibXC)
	}
	if r.Legacy != nil {
		t.legacy(r.Legacy)
	}
	for i, words := range r.Handover {
		t.line(first(i, "hand-over"), "%q", words)
	}
	t.warnings(&r.Warnings)
	return t.tab.Flush()
}

// textReport writes lines of a name and a value, the names in a column of their own. Errors are kept by tab.
type textReport struct{ tab *tabwriter.Writer }

func (t *textReport) line(name, format string, args ...any) {
	fmt.Fprintf(t.tab, "%s\t%s\n", name, fmt.Sprintf(format, args...))
}

func (t *textReport) verdict(r *Report) {
	var layers []string
	for _, l := range r.Layers() {
		layers = append(layers, l.String())
	}
	if r.Valid {
		t.line("valid", "%s, %d octets", strings.Join(layers, " > "), r.Octets)
	} else {
		t.line("invalid", "%s; %d octets read", r.Error.Err(), r.Octets)
	}
}

func (t *textReport) xl(h *XLInfo) {
	t.line("xl", "configuration of %d octets, optional flags %#x, %s-endian", h.ConfigOctets, h.OptionalFlags, h.Endian)
	if h.Name != "" || h.UUID != "" || h.Type != "" {
		t.line("domain", "%s", strings.Join(nonEmpty(h.Name, h.UUID, h.Type), ", "))
	}
}

func nonEmpty(words ...string) (some []string) {
	for _, w := range words {
		if w != "" {
			some = append(some, w)
		}
	}
	return some
}

func (t *textReport) libxl(l *XLImage) {
	origin := ""
	if l.Converted {
		origin = ", converted from a legacy stream"
	}
	t.line("libxl", "version %d at %#x, %s-endian%s", l.Version, l.Offset, l.Endian, origin)
	if l.Emulator != "" {
		t.line("emulator", "%s", l.Emulator)
	}
	t.records(l.Records)
}

func (t *textReport) libxc(img *Image) {
	t.line("libxc", "version %d at %#x", img.Version, img.Offset)
	t.line("guest", "%s (%s), saved by Xen %s", img.Guest, img.DomainType, img.Xen)
	if d := img.Domain; d != nil {
		t.line("made from", "%s %s, %v, vCPUs %d, at most %d pages", d.Name, d.UUID, d.Kind, d.VCPUs, d.MaxPages)
	}
	t.records(img.Records)
	t.pages(img)
	t.line("CPU policy", "%d CPUID leaves, %d MSRs", img.CPUIDLeaves, img.MSRs)
	if tsc := img.TSC; tsc != nil {
		t.line("TSC", "mode %d, %d kHz, %d ns, incarnation %d", tsc.Mode, tsc.KHz, tsc.NSec, tsc.Incarnation)
	}
	for _, v := range img.VCPUs {
		t.line(fmt.Sprintf("vCPU %d", v.ID), "basic %d, extended %d, xsave %d, MSRs %d octets", v.Basic, v.Extended, v.XSave, v.MSRs)
	}
	if c := img.HVMContext; c != nil {
		t.line("HVM context", "%d octets", c.Octets)
		for _, e := range c.Entries {
			t.line("", "%s (%d): %d, %d octets", e.Name, e.Code, e.Count, e.Octets)
		}
	}
	for i, p := range img.HVMParams {
		t.line(first(i, "HVM params"), "%s (%d) = %#x", p.Name, p.Index, p.Value)
	}
}

// first is name for the first of several lines, and nothing for the others.
func first(i int, name string) string {
	if i > 0 {
		name = ""
	}
	return name
}

func (t *textReport) records(table recordTable) {
	for i, row := range table {
		t.line(first(i, "records"), "%s: %d, %d octets", row.Name, row.Count, row.Octets)
	}
}

func (t *textReport) pages(img *Image) {
	p := &img.Pages
	t.line("pages", "%d entries, %d with data (%d MiB), %d of them zero; highest PFN %#x",
		p.Entries, p.WithData, p.WithData*guest.PageSize>>20, p.Zero, p.HighestPFN)
	for _, c := range p.Types {
		t.line("", "%s: %d", c.Type, c.Count)
	}
	if img.MaxPFN != nil {
		t.line("P2M", "PFNs up to %#x in %d frames", *img.MaxPFN, img.P2MFrames)
	}
	t.line("rounds", "%d", img.RoundCount)
	for i, r := range img.Rounds[:min(len(img.Rounds), maxRoundLines)] {
		check := ""
		if r.Verify {
			check = ", for checking"
		}
		t.line("", "%d at %#x: %d entries, %d with data, %d zero%s", i+1, r.Offset, r.Entries, r.WithData, r.Zero, check)
	}
	if img.RoundCount > maxRoundLines {
		t.line("", "and %d more", img.RoundCount-maxRoundLines)
	}
	if img.Checkpoints > 0 {
		t.line("checkpoints", "%d", img.Checkpoints)
	}
}

func (t *textReport) warnings(f *Findings) {
	if f.Count == 0 {
		return
	}
	t.line("warnings", "%d", f.Count)
	for _, w := range f.First {
		t.line("", "%v", w.Err())
	}
	if more := f.Count - uint64(len(f.First)); more > 0 {
		t.line("", "and %d more", more)
	}
}

// WriteText writes the comparison for people.
func (c *Comparison) WriteText(w io.Writer) error {
	t := &textReport{tab: tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)}
	switch {
	case c.Invalid() != nil:
		t.line("invalid", "%v", c.Invalid())
	case c.Equal:
		t.line("equal", "%d pages and all records of state", c.Pages)
	default:
		t.line("differ", "%d differences, %d pages compared", c.Count, c.Pages)
	}
	for _, d := range c.First {
		t.line(d.What, "%s", d.Detail)
	}
	if more := c.Count - uint64(len(c.First)); more > 0 {
		t.line("", "and %d more", more)
	}
	return t.tab.Flush()
}
