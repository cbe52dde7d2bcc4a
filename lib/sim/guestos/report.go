package guestos

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"slices"

	"xenferry/lib/guest"
)

// maxPFNs and maxNotes are how much of each kind of finding a Report lists.
const (
	maxPFNs  = 16
	maxNotes = 32
)

// Finding is pages with the same fault.
type Finding struct {
	Fault Fault       `json:"fault"`
	Count uint64      `json:"count"`
	PFNs  []guest.PFN `json:"pfns"` // the first of them
}

// Report is a guest's proof of its memory, or what keeps it from one.
type Report struct {
	OK       bool      `json:"ok"`
	State    string    `json:"state"`
	Pages    uint64    `json:"pages"`             // pages of RAM examined
	Written  uint64    `json:"written"`           // pages that were ever written
	Away     uint64    `json:"away"`              // pages ballooned out
	Tables   uint64    `json:"tables"`            // page tables in use
	Writes   uint64    `json:"writes"`            // the guest's write counter
	Suspends uint32    `json:"suspends"`          // times it suspended itself
	Restores uint32    `json:"restores"`          // times it found itself in a new domain
	Witness  bool      `json:"witness"`           // compared with a witness
	Compared uint64    `json:"compared"`          // pages compared with the witness
	Findings []Finding `json:"findings"`          // pages that are not what they should be
	Notes    []string  `json:"notes"`             // everything else that is not as it should be
	More     uint64    `json:"more,omitempty"`    // notes left out
	Machine  string    `json:"machine,omitempty"` // what the guest is: kind, vCPUs, P2M

	faults map[Fault]*Finding
}

// add records that page p has a fault.
func (r *Report) add(f Fault, p guest.PFN) { r.merge(f, 1, p) }

func (r *Report) merge(f Fault, count uint64, pfns ...guest.PFN) {
	if r.faults == nil {
		r.faults = map[Fault]*Finding{}
	}
	e := r.faults[f]
	if e == nil {
		e = &Finding{Fault: f}
		r.faults[f] = e
	}
	e.Count += count
	e.PFNs = append(e.PFNs, pfns[:min(len(pfns), maxPFNs-len(e.PFNs))]...)
}

// addf records anything else.
func (r *Report) addf(format string, args ...any) {
	if len(r.Notes) == maxNotes {
		r.More++
		return
	}
	r.Notes = append(r.Notes, fmt.Sprintf(format, args...))
}

// compare records the first difference between two states.
func (r *Report) compare(what string, got, want []byte) {
	if bytes.Equal(got, want) {
		return
	}
	if len(got) != len(want) {
		r.addf("%s: %d octets, want %d", what, len(got), len(want))
		return
	}
	for i := range got {
		if got[i] != want[i] {
			r.addf("%s: differs from octet %d on: % x, want % x", what, i, got[i:min(i+8, len(got))], want[i:min(i+8, len(want))])
			return
		}
	}
}

// done draws the conclusion.
func (r *Report) done() *Report {
	r.Findings = []Finding{}
	for _, f := range slices.Sorted(maps.Keys(r.faults)) {
		slices.Sort(r.faults[f].PFNs)
		r.Findings = append(r.Findings, *r.faults[f])
	}
	if r.Notes == nil {
		r.Notes = []string{}
	}
	r.OK = len(r.Findings) == 0 && len(r.Notes) == 0
	return r
}

// WriteText writes the report for people.
func (r *Report) WriteText(w io.Writer) error {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s, %s: %d pages, %d written, %d ballooned out, %d page tables; %d writes, %d suspends, %d restores\n",
		r.Machine, r.State, r.Pages, r.Written, r.Away, r.Tables, r.Writes, r.Suspends, r.Restores)
	if r.Witness {
		fmt.Fprintf(&b, "%d pages compared with the witness\n", r.Compared)
	}
	for _, f := range r.Findings {
		fmt.Fprintf(&b, "%d pages %s, such as pfn", f.Count, f.Fault)
		for _, p := range f.PFNs {
			fmt.Fprintf(&b, " %#x", uint64(p))
		}
		b.WriteByte('\n')
	}
	for _, n := range r.Notes {
		fmt.Fprintln(&b, n)
	}
	if r.More > 0 {
		fmt.Fprintf(&b, "and %d more\n", r.More)
	}
	if r.OK {
		fmt.Fprintln(&b, "proof passed")
	} else {
		fmt.Fprintln(&b, "proof FAILED")
	}
	_, err := w.Write(b.Bytes())
	return err
}
