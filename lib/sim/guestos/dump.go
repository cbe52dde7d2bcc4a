package guestos

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"slices"

	"xenferry/lib/guest"
)

// Picture is what there is to see of a domain.
type Picture struct {
	Info    guest.Info        `json:"info"`
	Spec    guest.Spec        `json:"spec"`
	Release string            `json:"release"`
	Guest   *GuestPicture     `json:"guest"` // nil for one that is not ours
	P2M     string            `json:"p2m,omitempty"`
	Types   map[string]uint64 `json:"types"` // how many pages have which type
	VCPUs   []VCPUPicture     `json:"vcpus"`
	Params  map[string]uint64 `json:"params,omitempty"` // HVM parameters that are not 0
	TSC     guest.TSC         `json:"tsc"`
}

// GuestPicture is what a guest of ours says of itself.
type GuestPicture struct {
	Layout
	State    string            `json:"state"`
	Writes   uint64            `json:"writes"`
	Suspends uint32            `json:"suspends"`
	Restores uint32            `json:"restores"`
	Roles    map[string]uint64 `json:"roles"` // how many pages are for what
	Steps    []uint64          `json:"steps"` // of each vCPU
	Fault    string            `json:"fault,omitempty"`
}

// VCPUPicture is some of a vCPU's state.
type VCPUPicture struct {
	Online bool   `json:"online"`
	Error  string `json:"error,omitempty"` // why there is no more to see
	RIP    uint64 `json:"rip"`
	RAX    uint64 `json:"rax"`
	RDX    uint64 `json:"rdx"`
	CR3    uint64 `json:"cr3"`
}

// Dump takes a picture of a domain. k is its guest if that is ours, else nil; it must not be running.
func Dump(hv Hypervisor, k *Kernel) (*Picture, error) {
	tsc, err := hv.TSC()
	if err != nil {
		return nil, err
	}
	p := &Picture{Info: hv.Info(), Spec: hv.Spec(), Release: hv.Release().String(), Types: map[string]uint64{}, TSC: tsc}
	if k != nil {
		p.Guest = k.picture()
	}
	p.P2M = eachFrame(hv, func(m guest.MFN) { p.Types[hv.PageType(m).String()]++ })
	for n := range p.Spec.VCPUs {
		p.VCPUs = append(p.VCPUs, dumpVCPU(hv, n))
	}
	if !p.Spec.Kind.PV() {
		p.Params = map[string]uint64{}
		for i, name := range paramNames {
			if v, err := hv.HVMParam(i); err == nil && v != 0 {
				p.Params[name] = v
			}
		}
	}
	return p, nil
}

func (k *Kernel) picture() *GuestPicture {
	g := &GuestPicture{Layout: *k.Layout, State: k.State().String(), Writes: k.Writes(), Suspends: le.Uint32(k.info[infoSuspends:]),
		Restores: le.Uint32(k.info[infoRestores:]), Roles: map[string]uint64{}}
	for i := range k.pages() {
		if r := k.recordAt(i).role(); int(r) < len(roleNames) {
			g.Roles[r.String()]++
		}
	}
	for _, c := range k.cpus {
		g.Steps = append(g.Steps, c.get(cpuSteps))
	}
	if err := k.Err(); err != nil {
		g.Fault = err.Error()
	}
	return g
}

// eachFrame calls f with all frames of a domain's RAM and says how they were found.
func eachFrame(hv Hypervisor, f func(guest.MFN)) string {
	spec, left := hv.Spec(), hv.Info().TotPages
	if spec.Kind.PV() {
		return eachPVFrame(hv, f)
	}
	for p := guest.PFN(0); left > 0 && p < 1<<36; p++ {
		if m := hv.Frame(p); m != guest.InvalidMFN {
			f(m)
			left--
		}
	}
	return ""
}

// eachPVFrame goes through the P2M that a PV guest shows in shared_info.
func eachPVFrame(hv Hypervisor, f func(guest.MFN)) string {
	kind := hv.Spec().Kind
	shared, _ := hv.SharedInfo()
	if shared == nil {
		return "none: no shared_info"
	}
	s, w := sharedOf(kind), kind.Width()
	pages := min(word(shared[s.arch:], w), 1<<36)
	perPage := uint64(guest.PageSize / w)
	leaf, how := func(uint64) []byte { return nil }, "none in shared_info"
	if cr3 := word(shared[s.p2mCR3:], w); cr3 != 0 {
		va := word(shared[s.p2mVAddr:], w)
		how = fmt.Sprintf("%s, %d pages at %#x, generation %d", Linear, pages, va, word(shared[s.generation:], w))
		space := spaceOf(kind)
		mfn := func(n uint64) guest.MFN { return guest.MFN(n) }
		leaf = func(i uint64) []byte {
			m, _, err := walk(hv, &space, mfn, decodeCR3(kind, cr3), va+i<<guest.PageShift)
			if err != nil {
				return nil
			}
			return hv.Page(m)
		}
	} else if top := hv.Page(guest.MFN(word(shared[s.frameListList:], w))); top != nil {
		how = fmt.Sprintf("%s, %d pages", Tree, pages)
		leaf = func(i uint64) []byte {
			if i/perPage >= perPage {
				return nil
			}
			list := hv.Page(guest.MFN(word(top[i/perPage*uint64(w):], w)))
			if list == nil {
				return nil
			}
			return hv.Page(guest.MFN(word(list[i%perPage*uint64(w):], w)))
		}
	}
	for p := uint64(0); p < pages; p += perPage {
		page := leaf(p / perPage)
		if page == nil {
			continue
		}
		for i := range min(perPage, pages-p) {
			if m := guest.MFN(word(page[i*uint64(w):], w)); hv.Page(m) != nil && hv.M2P(m) == guest.PFN(p+i) {
				f(m)
			}
		}
	}
	return how
}

func dumpVCPU(hv Hypervisor, n uint32) (v VCPUPicture) {
	var err error
	if v.Online, err = hv.VCPUOnline(n); err != nil {
		v.Error = err.Error()
		return v
	}
	kind := hv.Spec().Kind
	if !kind.PV() {
		return dumpHVMCPU(hv, n, v)
	}
	c, err := hv.VCPUContext(n)
	if err != nil {
		if v.Online {
			v.Error = err.Error()
		}
		return v
	}
	l, w := contextOf(kind), kind.Width()
	v.RIP, v.RAX, v.RDX, v.CR3 = word(c[l.rip:], w), word(c[l.rax:], w), word(c[l.rdx:], w), word(c[l.cr3:], w)
	return v
}

// dumpHVMCPU adds what is in a vCPU's record of the HVM context.
func dumpHVMCPU(hv Hypervisor, n uint32, v VCPUPicture) VCPUPicture {
	blob, err := hv.HVMContext()
	if err == nil {
		var c []byte
		if c, err = findHVMRecord(blob, hvmCPU, uint16(n)); err == nil && len(c) >= hvmCPUSize {
			v.RIP, v.RAX, v.RDX, v.CR3 = le.Uint64(c[hvmRIP:]), le.Uint64(c[hvmRAX:]), le.Uint64(c[hvmRDX:]), le.Uint64(c[hvmCR3:])
		}
	}
	if err != nil && v.Online {
		v.Error = err.Error()
	}
	return v
}

// paramNames are those of HVM parameters worth seeing.
var paramNames = map[uint32]string{
	paramCallbackIRQ: "CALLBACK_IRQ", paramStorePFN: "STORE_PFN", paramStoreEvtchn: "STORE_EVTCHN", paramIOReqPFN: "IOREQ_PFN",
	paramBufIOReqPFN: "BUFIOREQ_PFN", 9: "VIRIDIAN", paramIdentPT: "IDENT_PT", paramConsolePFN: "CONSOLE_PFN",
	paramConsoleEvtchn: "CONSOLE_EVTCHN", paramACPIIOPorts: "ACPI_IOPORTS_LOCATION", paramPagingRing: "PAGING_RING_PFN",
	paramMonitorRing: "MONITOR_RING_PFN", paramSharingRing: "SHARING_RING_PFN", paramIOReqServer: "IOREQ_SERVER_PFN",
	paramIOReqServers: "NR_IOREQ_SERVER_PAGES", 34: "VM_GENERATION_ID_ADDR", 36: "X87_FIP_WIDTH",
	paramVM86TSSSized: "VM86_TSS_SIZED", 38: "MCA_CAP",
}

// WriteText writes the picture for people.
func (p *Picture) WriteText(w io.Writer) error {
	var b bytes.Buffer
	line := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "%-10s  %s\n", name, fmt.Sprintf(format, args...))
	}
	i := &p.Info
	line("domain", "%d %q %v on Xen %s", i.ID, i.Name, i.UUID, p.Release)
	line("kind", "%v, %d vCPUs", p.Spec.Kind, p.Spec.VCPUs)
	line("memory", "%d of %d pages", i.TotPages, i.MaxPages)
	line("state", "%s", StateOf(i))
	line("ports", "store %d, console %d", i.StoreEvtchn, i.ConsoleEvtchn)
	line("tsc", "mode %d, %d kHz, %d ns, incarnation %d", p.TSC.Mode, p.TSC.KHz, p.TSC.NSec, p.TSC.Incarnation)
	if i.Kind.PV() {
		line("p2m", "%s", p.P2M)
		line("shared", "frame %#x", uint64(i.SharedInfo))
	}
	line("pages", "%s", counts(p.Types))
	for n, v := range p.VCPUs {
		switch {
		case v.Error != "":
			line(fmt.Sprintf("vcpu %d", n), "%s", v.Error)
		case !v.Online:
			line(fmt.Sprintf("vcpu %d", n), "offline")
		default:
			line(fmt.Sprintf("vcpu %d", n), "rip %#x rax %#x rdx %#x cr3 %#x", v.RIP, v.RAX, v.RDX, v.CR3)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(p.Params)) {
		line("param", "%s %#x", name, p.Params[name])
	}
	if g := p.Guest; g == nil {
		line("guest", "not one of ours")
	} else {
		line("guest", "%s, seed %#x, %s", g.describe(), g.Seed, g.State)
		line("workload", "%s at %g steps/s: %d writes, steps of each vCPU %d", g.Workload.Shape, g.Workload.Rate, g.Writes, g.Steps)
		line("life", "%d suspends, %d restores", g.Suspends, g.Restores)
		line("roles", "%s", counts(g.Roles))
		if g.Fault != "" {
			line("fault", "%s", g.Fault)
		}
	}
	_, err := w.Write(b.Bytes())
	return err
}

// StateOf is a domain's state in words.
func StateOf(i *guest.Info) string {
	switch {
	case i.Dying:
		return "dying"
	case i.Suspended():
		return "suspended"
	case i.Shutdown:
		return fmt.Sprintf("shut down (%v)", i.Reason)
	case i.Paused && !i.EverUnpaused:
		return "paused, never run here"
	case i.Paused:
		return "paused"
	}
	return "running"
}

// counts writes a histogram in one line.
func counts(m map[string]uint64) string {
	var b bytes.Buffer
	for _, k := range slices.Sorted(maps.Keys(m)) {
		fmt.Fprintf(&b, "%s %d  ", k, m[k])
	}
	return string(bytes.TrimSpace(b.Bytes()))
}
