package guestos

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"xenferry/lib/guest"
)

// Shape is what a workload does with the guest's memory.
type Shape string

// The shapes. Each step is the work of one vCPU, whose state is in the guest's memory, so that a guest moved between
// two steps goes on as if it had not been.
const (
	Idle      Shape = "idle"       // nothing
	Uniform   Shape = "uniform"    // writes pages chosen evenly
	Zipf      Shape = "zipf"       // writes pages of which few are chosen often
	Sweep     Shape = "sweep"      // writes all pages in order, over and over
	PageTable Shape = "page-table" // makes, changes, pins, unpins and frees page tables, and writes pages
	Balloon   Shape = "balloon"    // gives pages back to the hypervisor and takes new ones, and writes pages
)

// Shapes are all there are.
var Shapes = []Shape{Idle, Uniform, Zipf, Sweep, PageTable, Balloon}

// Workload is what the guest does while it runs.
type Workload struct {
	Shape Shape   `json:"shape"`
	Rate  float64 `json:"rate"` // steps per second over all vCPUs, about a dirty page each; 0 is as fast as it goes
}

// P2MKind is the form in which a PV guest shows its P2M.
type P2MKind string

// The forms: three levels of frame numbers from pfn_to_mfn_frame_list_list, or a range of the guest's address space
// given by p2m_cr3 and p2m_vaddr.
const (
	Tree   P2MKind = "tree"
	Linear P2MKind = "linear"
)

// MaxVCPUs is how many vCPUs shared_info has room for.
const MaxVCPUs = 32

// Options say what guest to build.
type Options struct {
	Kind     guest.Kind `json:"kind"`
	Pages    uint64     `json:"pages"`  // RAM, in pages of 4 KiB; HVM guests have some special pages besides
	VCPUs    uint32     `json:"vcpus"`  // at most MaxVCPUs
	Online   uint32     `json:"online"` // how many of them are up, the first ones; 0 is all
	P2M      P2MKind    `json:"p2m,omitempty"`
	Workload Workload   `json:"workload"`
	Fill     Fill       `json:"fill"`
	Nested   bool       `json:"nested,omitempty"` // HVM, PVH: it may run virtual machines of its own
	Seed     uint64     `json:"seed"`             // all contents and the layout follow from it
}

// MinPages is the least memory that a guest can be built with: its kernel needs some, and a workload some more.
const MinPages = 512

// special is how many pages an HVM guest has beside its RAM: eight for rings and the like, eight for ioreq servers.
const special = 16

// MaxPages is the memory limit in pages that a domain needs for the guest.
func (o *Options) MaxPages() uint64 {
	if o.Kind.PV() {
		return o.Pages
	}
	return o.Pages + special
}

// normalize fills in what was left out, and says what cannot be.
func (o *Options) normalize() error {
	if o.Online == 0 {
		o.Online = o.VCPUs
	}
	if o.Workload.Shape == "" {
		o.Workload.Shape = Idle
	}
	if o.P2M == "" && o.Kind.PV() {
		o.P2M = Linear
	}
	switch {
	case o.Kind < guest.PV64 || o.Kind > guest.PVH:
		return fmt.Errorf("no such guest kind: %d", o.Kind)
	case o.VCPUs == 0 || o.VCPUs > MaxVCPUs:
		return fmt.Errorf("%d vCPUs: want 1 to %d", o.VCPUs, MaxVCPUs)
	case o.Online > o.VCPUs:
		return fmt.Errorf("%d of %d vCPUs cannot be online", o.Online, o.VCPUs)
	case o.Pages < MinPages+32*uint64(o.VCPUs):
		return fmt.Errorf("%d pages of memory: %d vCPUs need at least %d", o.Pages, o.VCPUs, MinPages+32*uint64(o.VCPUs))
	case o.Pages > maxPages(o.Kind):
		return fmt.Errorf("%d pages of memory: a %v guest has at most %d", o.Pages, o.Kind, maxPages(o.Kind))
	case o.Kind.PV() && o.P2M != Tree && o.P2M != Linear:
		return fmt.Errorf("P2M %q: want %s or %s", o.P2M, Tree, Linear)
	case o.Kind.PV() && o.Nested:
		return fmt.Errorf("a %v guest cannot run virtual machines of its own", o.Kind)
	case !o.Kind.PV() && o.P2M != "":
		return fmt.Errorf("a %v guest has no P2M of its own", o.Kind)
	case !slices.Contains(Shapes, o.Workload.Shape):
		return fmt.Errorf("workload %q: want one of %v", o.Workload.Shape, Shapes)
	case o.Workload.Rate < 0:
		return fmt.Errorf("a workload of %g steps per second", o.Workload.Rate)
	case o.Fill.Zero < 0 || o.Fill.Text < 0 || o.Fill.Zero+o.Fill.Text > 1:
		return fmt.Errorf("fill of %g zero pages and %g text: want shares that are at most 1 together", o.Fill.Zero, o.Fill.Text)
	}
	return nil
}

// maxPages is the most RAM of a kind: what its kernel has addresses for.
func maxPages(k guest.Kind) uint64 {
	if k == guest.PV32 {
		return 4 << 18 // 4 GiB: the P2M and the page records still fit under Xen's hole
	}
	return 1 << 26 // 256 GiB
}

// ParseWorkload reads a workload as options write it: a shape, or shape:rate, such as uniform:20000.
func ParseWorkload(s string) (w Workload, err error) {
	shape, rate, given := strings.Cut(s, ":")
	w.Shape = Shape(shape)
	if !slices.Contains(Shapes, w.Shape) {
		return w, fmt.Errorf("workload %q: want one of %v, and a rate in pages/s as in uniform:20000", s, Shapes)
	}
	if !given {
		return w, nil
	}
	if w.Rate, err = strconv.ParseFloat(rate, 64); err != nil || !(w.Rate >= 0) || math.IsInf(w.Rate, 0) {
		return w, fmt.Errorf("workload %q: %q is not a rate in pages/s", s, rate)
	}
	return w, nil
}

// ParseFill reads shares of textures as options write them, such as zero=0.3,text=0.2; the rest is random octets.
func ParseFill(s string) (f Fill, err error) {
	for part := range strings.SplitSeq(s, ",") {
		if part == "" {
			continue
		}
		name, value, _ := strings.Cut(part, "=")
		share, err := strconv.ParseFloat(value, 64)
		if err != nil || share < 0 || share > 1 {
			return f, fmt.Errorf("%q: want a share from 0 to 1 as in zero=0.3", part)
		}
		switch name {
		case "zero":
			f.Zero = share
		case "text":
			f.Text = share
		default:
			return f, fmt.Errorf("%q: want zero or text", part)
		}
	}
	return f, nil
}

// Check says what is wrong with o, as Build would.
func (o Options) Check() error { return o.normalize() }
